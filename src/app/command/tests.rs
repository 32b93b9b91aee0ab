use std::fs;
use std::future::{pending, ready};
use std::path::PathBuf;

use rustix::process::test_kill_process;
use tempfile::TempDir;

use super::*;
use crate::names::FileName;
use crate::tree::Root;

/// Long enough for whatever has to end by itself.
const PATIENCE: Duration = Duration::from_secs(120);

fn file(name: &str) -> Received {
    let digest = Digest::Blake3(Root::of(b""));
    Received::new(PathBuf::from("/x"), FileName::parse(name.as_bytes()).unwrap(), 0, digest)
}

/// A shell that runs `script` in `folder`.
fn shell(folder: &TempDir, script: &str) -> Words {
    let script = format!("cd '{}'\n{script}", folder.path().display());
    ["sh".to_owned(), "-c".to_owned(), format!("'{}'", script.replace('\'', r"'\''"))]
        .join(" ")
        .parse()
        .unwrap()
}

fn read(folder: &TempDir, name: &str) -> String {
    fs::read_to_string(folder.path().join(name)).unwrap()
}

#[tokio::test]
async fn a_thousand_files_at_once_are_all_worked_on_a_few_at_a_time() {
    const FILES: usize = 1000;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("now")).unwrap();
    let script =
        "mkdir now/$$; set -- now/*; echo $# >>together; echo \"$ONEPORT_NAME\" >>names; rmdir now/$$";
    let commands = Commands::start(shell(&folder, script), PATIENCE);
    let queue = commands.queue();
    (0..FILES).for_each(|number| queue.tell(&file(&format!("f{number}"))));
    drop(queue);
    let tally = commands.finish(pending()).await;
    assert_eq!(tally, Tally { succeeded: FILES as u64, ..Tally::default() });
    let names = read(&folder, "names");
    let mut names: Vec<_> = names.lines().collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FILES, "each of them once");
    let together = read(&folder, "together").lines().map(|line| line.parse().unwrap()).max();
    assert!(together <= Some(COMMANDS_RUNNING_MAX), "{together:?} at the same time");
}

#[tokio::test]
async fn a_command_that_hangs_is_killed_with_all_that_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 1000 & echo $! >child; wait";
    let commands = Commands::start(shell(&folder, script), Duration::from_millis(500));
    commands.queue().tell(&file("x"));
    let tally = commands.finish(pending()).await;
    assert_eq!(tally, Tally { failed: 1, ..Tally::default() });
    let child = read(&folder, "child").trim().parse().unwrap();
    // It is gone, or nobody has asked for its status yet.
    let is_gone = || {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        test_kill_process(Pid::from_raw(child).unwrap()).is_err() || stat.contains(") Z ")
    };
    let began = Instant::now();
    while !is_gone() {
        assert!(began.elapsed() < PATIENCE, "what it had started goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_fails_or_cannot_be_started_is_counted_and_the_others_run() {
    let folder = tempfile::tempdir().unwrap();
    let commands = Commands::start(shell(&folder, "test \"$ONEPORT_NAME\" != bad"), PATIENCE);
    ["good", "bad", "fine"].iter().for_each(|name| commands.queue().tell(&file(name)));
    let tally = commands.finish(pending()).await;
    assert_eq!((tally.succeeded, tally.failed, tally.skipped), (2, 1, 0));
    let commands = Commands::start("/nowhere/to/be/found".parse().unwrap(), PATIENCE);
    commands.queue().tell(&file("x"));
    assert_eq!(commands.finish(pending()).await.failed, 1);
}

#[tokio::test]
async fn a_command_that_says_more_than_anybody_wants_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut command =
        prepare(&shell(&folder, "head -c 5000000 /dev/zero | tr '\\0' x; echo end >&2"), Vec::new());
    let mut child = command.spawn().unwrap();
    let output = Output::of(&mut child);
    assert!(child.wait().await.unwrap().success());
    let said = output.end().await;
    assert!(said.len() < crate::limits::COMMAND_OUTPUT_MAX + 100 && said.ends_with("bytes more"), "{said}");
}

#[tokio::test]
async fn who_keeps_the_outputs_of_a_command_that_has_ended_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let commands = Commands::start(shell(&folder, "sleep 100 & echo $! >child; echo said"), PATIENCE);
    commands.queue().tell(&file("x"));
    let tally = tokio::time::timeout(Duration::from_secs(60), commands.finish(pending())).await.unwrap();
    assert_eq!(tally.succeeded, 1);
    let child = Pid::from_raw(read(&folder, "child").trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(child, Signal::KILL).unwrap();
}

#[tokio::test]
async fn too_many_are_skipped_and_an_end_kills_what_runs_and_skips_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let commands = Commands::start(shell(&folder, "sleep 1000"), PATIENCE * 10);
    let queue = commands.queue();
    let all = COMMANDS_QUEUE_MAX + COMMANDS_RUNNING_MAX + 5;
    // None of these waits.
    (0..all).for_each(|number| queue.tell(&file(&number.to_string())));
    let began = Instant::now();
    let tally = commands.finish(ready(())).await;
    assert!(began.elapsed() < PATIENCE, "the queue need not be given up for that");
    assert_eq!((tally.succeeded, tally.failed + tally.skipped), (0, all as u64));
    assert!(tally.failed <= COMMANDS_RUNNING_MAX as u64, "{tally:?}");
}

#[test]
fn a_command_hears_of_the_file_in_its_environment_as_it_is_and_of_nothing_else() {
    let name = b"-rf $(id) `id` \"'\n\xff;x";
    let digest = Digest::Blake3(Root::of(b"x"));
    let mut received = Received::new(PathBuf::from("/r/x"), FileName::parse(name).unwrap(), 7, digest);
    received.key = Some("me".parse().unwrap());
    received.peer = Some("192.0.2.1:7".parse().unwrap());
    let words: Words = "run it".parse().unwrap();
    let command = prepare(&words, Details::from(&received).variables);
    let command = command.as_std();
    assert_eq!(command.get_args().collect::<Vec<_>>(), ["it"], "no name is an argument");
    let of = |wanted: &str| command.get_envs().find(|(name, _)| *name == wanted).and_then(|(_, value)| value);
    assert_eq!(of("ONEPORT_NAME").unwrap().as_bytes(), name);
    for (variable, value) in [
        ("ONEPORT_PATH", "/r/x"),
        ("ONEPORT_SIZE", "7"),
        ("ONEPORT_BLAKE3", &Root::of(b"x").to_string()),
        ("ONEPORT_KEY_NAME", "me"),
        ("ONEPORT_PEER", "192.0.2.1:7"),
        ("ONEPORT_DIALECT", "v2"),
    ] {
        assert_eq!(of(variable), Some(OsStr::new(value)), "{variable}");
    }
    assert_eq!(of("ONEPORT_KEY"), None);
}
