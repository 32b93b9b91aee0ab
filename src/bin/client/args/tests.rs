use std::path::Path;
use std::time::Duration;

use oneport::client::{Backoff, KnownHosts, Overwrite, Protocol, Target, TlsMode};
use oneport::control::Outcome;
use oneport::limits::NAME_MAX;
use oneport::pin::Pin;
use oneport::tree::Root;

use super::*;

fn parse_words(words: &[&str]) -> Result<Job, ArgsError> {
    parse(std::iter::once("client").chain(words.iter().copied()).map(OsString::from))
}

#[track_caller]
fn wrong(words: &[&str], hint: &str) {
    match parse_words(words) {
        Err(ArgsError::Wrong(text)) => assert!(text.contains(hint), "{text}"),
        Err(ArgsError::Clap(error)) => {
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(hint), "{error}");
        }
        Err(ArgsError::Interrupted) => panic!("nobody was asked"),
        Ok(job) => panic!("{words:?} was taken as {job:?}"),
    }
}

#[test]
fn the_command_line_is_well_formed_and_names_the_defaults_in_force() {
    command().debug_assert();
    let job = parse_words(&["file.txt"]).unwrap();
    assert_eq!(job.files[0].server, Server::default());
    assert_eq!(job.files[0].target, Target::File("client_downloads/file.txt".into()));
    let standard = Backoff::default();
    assert_eq!(job.settings.backoff.retries, standard.retries);
    assert_eq!(job.settings.backoff.first, standard.first);
    assert_eq!(job.settings.backoff.longest, standard.longest);
    assert_eq!(job.settings.timeout, oneport::limits::CLIENT_TIMEOUT);
    assert!(job.settings.sync);
}

#[test]
fn host_and_port_follow_the_file() {
    let job = parse_words(&["a/b", "::1", "8080", "--timeout", "500ms"]).unwrap();
    assert_eq!(job.files[0].server, Server { host: "::1".into(), port: 8080, pin: None });
    assert_eq!(job.settings.timeout, Duration::from_millis(500));
    assert_eq!(job.files[0].target, Target::File("client_downloads/b".into()));
    assert_eq!(parse_words(&["x", "get", "1"]).unwrap().files[0].server.host, "get");
}

#[test]
fn get_takes_a_server_and_several_names() {
    let job = parse_words(&["get", "-s", "[::1]:8080", "a", "d/b", "-d", "into"]).unwrap();
    assert_eq!(job.files[0].server.port, 8080);
    let targets: Vec<_> = job.files.iter().map(|file| file.target.clone()).collect();
    assert_eq!(targets, [Target::File("into/a".into()), Target::File("into/b".into())]);
    assert_eq!(parse_words(&["get", "put"]).unwrap().files[0].name, b"put");
}

#[test]
fn reserved_words_are_no_files_unless_they_are_written_as_such() {
    for word in RESERVED {
        if !COMMANDS.contains(&word) {
            wrong(&[word], &format!("client ./{word}"));
            wrong(&["-q", word, "host"], "reserved");
        }
        assert_eq!(parse_words(&[&format!("./{word}")]).unwrap().files[0].name, word.as_bytes());
    }
    wrong(&["-q", "get", "x"], "options come after the command");
    assert_eq!(parse_words(&["Put"]).unwrap().files[0].name, b"Put");
}

#[test]
fn a_server_is_asked_about_itself_in_words_that_are_checked() {
    let question = |words: &[&str]| match parse_words(words).unwrap().task {
        Task::Control { question, .. } => question,
        other => panic!("{other:?}"),
    };
    assert_eq!(question(&["status"]), Question::Status);
    assert_eq!(question(&["cancel", "abc-1", "-s", "nas"]), Question::Cancel("abc-1".into()));
    let Question::History(wanted) =
        question(&["history", "--result", "failed", "--name", "*.iso", "-n", "5"])
    else {
        panic!()
    };
    assert_eq!((wanted.result, wanted.limit), (Some(Outcome::Failed), 5));
    assert_eq!((wanted.name.as_str(), wanted.since_ms), ("*.iso", None));
    wrong(&["history", "--name", "a/"], "'/'");
    wrong(&["history", "--since", "2027"], "write 2h");
    wrong(&["cancel"], "ID");
    wrong(&["cancel", &"x".repeat(33)], "32 bytes");
}

#[test]
fn ls_takes_folders_and_patterns_in_their_order() {
    use oneport::patterns::Verdict::{Exclude, Include};
    let words = ["ls", "-lr", "--include", "a", "--exclude", "b", "--include", "c", "d/e/", "./", "."];
    let job = parse_words(&words).unwrap();
    let names: Vec<_> = job.files.iter().map(|file| file.name.as_slice()).collect();
    assert_eq!(names, [&b"d/e"[..], b"", b""]);
    let Task::Ls(ls) = job.task else { panic!("{:?}", job.task) };
    let patterns: Vec<_> =
        ls.selection.patterns.iter().map(|pattern| (pattern.verdict(), &pattern.source()[..])).collect();
    assert_eq!(patterns, [(Include, &b"a"[..]), (Exclude, b"b"), (Include, b"c")]);
    assert!(ls.is_long && ls.selection.recursive && !ls.selection.follow_links);
    let job = parse_words(&["ls", "oneport://nas:1/"]).unwrap();
    assert_eq!((job.files[0].server.port, job.files[0].name.len()), (1, 0));
    wrong(&["ls", "--exclude", "a/"], "'/'");
    wrong(&["ls", "-s", "nas", "oneport://nas/a"], "named twice");
}

#[test]
fn output_means_a_file_a_folder_or_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let target = |output: &str| parse_words(&["d/f", "-o", output]).unwrap().files[0].target.clone();
    assert_eq!(target(path), Target::File(dir.path().join("f")));
    assert_eq!(target("new/"), Target::File("new/f".into()));
    assert_eq!(target("other"), Target::File("other".into()));
    assert_eq!(target("-"), Target::Stdout);
    assert_eq!(target("/dev/null"), Target::Stream("/dev/null".into()));
}

#[test]
fn the_output_of_one_folder_is_that_folder_whether_it_is_there_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().to_str().unwrap();
    let target = |words: &[&str]| match parse_words(words).unwrap().task {
        Task::GetFolders(mut folders) => folders.pop().unwrap().target,
        other => panic!("{other:?}"),
    };
    assert_eq!(target(&["get", "-r", "a/b", "-o", "new"]), Path::new("new"));
    assert_eq!(target(&["get", "-r", "a/b", "-o", there]), dir.path(), "the same command goes on");
    assert_eq!(target(&["get", "-r", "a/b", "-o", &format!("{there}/")]), dir.path().join("b"));
    assert_eq!(target(&["get", "-r", "a/b", "c", "-o", there]), dir.path().join("c"));
    assert_eq!(target(&["get", "-r", "a/b"]), Path::new("client_downloads/b"));
    assert_eq!(target(&["get", "-r", "."]), Path::new("client_downloads"));
    wrong(&["get", "-r", "a", "b", "-o", "new"], "-o DIR/");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_done() {
    wrong(&[], "required");
    wrong(&["get"], "required");
    wrong(&[""], "empty");
    wrong(&["./"], "empty");
    wrong(&["a/.."], "-o");
    wrong(&["a", "h", "70000"], "70000");
    wrong(&["a", "h:1"], "not a server");
    wrong(&["a", "h", "1", "extra"], "extra");
    wrong(&["a", "-o", "-", "--json"], "--json");
    wrong(&["a", "-o", "x", "-d", "y"], "cannot be used with");
    wrong(&["get", "a", "b", "-o", "file"], "folder");
    wrong(&["get", "a", "x/a"], "both be");
    wrong(&["a", "--retries", "-1"], "-1");
    wrong(&["a", "--timeout", "0s"], "--timeout");
    wrong(&[&"x".repeat(NAME_MAX + 1)], "too long");
    wrong(&["stat"], "required");
    wrong(&["verify", "x", "-o", "-"], "compared");
    wrong(&["x", "-j", "0"], "0");
    wrong(&["x", "-j", "17"], "17");
    wrong(&["x", "--checksum", "md5=12"], "checksum");
    wrong(&["get", "a", "b", "--checksum", "md5=900150983cd24fb0d6963f7d28e17f72"], "one file");
    wrong(&["x", "--protocol", "v3"], "v3");
}

#[test]
fn a_name_may_be_any_bytes() {
    let bytes = <OsString as std::os::unix::ffi::OsStringExt>::from_vec(vec![b'a', 0xff]);
    let job = parse(["client".into(), bytes]).unwrap();
    assert_eq!(job.files[0].name, b"a\xff");
}

#[test]
fn a_file_and_its_server_can_be_written_in_one_word() {
    let file = |word: &str| {
        let mut job = parse_words(&["get", word]).unwrap();
        let File { server, name, .. } = job.files.remove(0);
        (server.to_string(), String::from_utf8(name).unwrap())
    };
    let pair = |server: &str, name: &str| (server.to_owned(), name.to_owned());
    assert_eq!(file("oneport://nas:8080/a/b c.txt"), pair("nas:8080", "a/b c.txt"));
    assert_eq!(file("oneport://nas/%41%23%25"), pair("nas:9999", "A#%"));
    assert_eq!(file("oneport://[::1]:70/x"), pair("[::1]:70", "x"));
    assert_eq!(parse_words(&["oneport://nas/x"]).unwrap().files[0].server.host, "nas");
    let two = parse_words(&["get", "oneport://a/x", "oneport://b/y"]).unwrap();
    assert_eq!([two.files[0].server.host.as_str(), &two.files[1].server.host], ["a", "b"]);
    wrong(&["oneport://nas/x", "other"], "twice");
    wrong(&["get", "-s", "nas", "oneport://nas/x"], "twice");
    for word in ["oneport://nas", "oneport:///x", "oneport://nas/", "oneport://n s/x", "oneport://nas/%4"] {
        wrong(&[word], "cannot be asked for");
    }
    wrong(&["oneport://nas/x#pin"], "pin");
    let pin = Pin::of(b"a key");
    let word = format!("oneport://nas:1/a%23#{}", pin.letters());
    let server = Server { host: "nas".into(), port: 1, pin: Some(pin) };
    let job = parse_words(&[&word]).unwrap();
    assert_eq!((&job.files[0].server, job.files[0].name.as_slice()), (&server, b"a#".as_slice()));
    let job = parse_words(&["get", "-s", &format!("oneport://nas:1#{pin}"), "f"]).unwrap();
    assert_eq!(job.files[0].server, server);
    let job = parse_words(&["f", &format!("oneport://nas:1#{pin}")]).unwrap();
    assert_eq!(job.files[0].server, server);
    wrong(&["f", &format!("oneport://nas:1#{pin}"), "8080"], "is not a server");
}

#[test]
fn commands_that_move_no_file_have_their_own_words() {
    assert!(matches!(parse_words(&["stat", "-s", "nas", "x"]).unwrap().task, Task::Stat));
    let verify = parse_words(&["verify", "a/x", "-d", "here"]).unwrap();
    assert!(matches!(verify.task, Task::Verify));
    assert_eq!(verify.files[0].target, Target::File("here/x".into()));
    let ping = parse_words(&["ping", "-s", "nas:80", "-c", "2"]).unwrap().task;
    assert!(matches!(ping, Task::Ping { server, count: 2 } if server.port == 80));
    assert!(matches!(parse_words(&["ping"]).unwrap().task, Task::Ping { .. }));
}

#[test]
fn a_rate_is_limited_only_as_far_as_servers_take_it_for_life() {
    let limit = |rate| parse_words(&["x", "--limit-rate", rate]).unwrap().settings.limit_rate;
    assert_eq!([limit("4KiB"), limit("1.5MB/s"), limit("0")], [Some(4096), Some(1_500_000), None]);
    wrong(&["x", "--limit-rate", "4095"], "at least 4096 bytes per second");
    wrong(&["x", "--limit-rate", "1"], "--limit-rate");
}

#[test]
fn what_is_asked_of_a_transfer_arrives_in_its_settings() {
    let root = Root::of(b"abc");
    let checksum = format!("blake3={root}");
    let words = ["x", "-j", "4", "--restart", "--protocol", "v2", "--checksum", &checksum, "--no-sync"];
    let settings = parse_words(&words).unwrap().settings;
    assert_eq!((settings.links, settings.restart, settings.sync), (4, true, false));
    assert_eq!(settings.protocol, Protocol::V2);
    assert_eq!(settings.limit_rate, None);
    assert_eq!(settings.checksum, Some(Checksum::Blake3(root)));
}

#[test]
fn trust_is_said_by_options_and_a_key_never_is() {
    let pin = Pin::of(b"a key").to_string();
    let job = parse_words(&["f", "--tls", "require", "--pin", &pin, "--known-hosts", "/k"]).unwrap();
    let security = &job.settings.security;
    assert_eq!(security.tls, TlsMode::Require);
    assert_eq!(security.pins, [pin.parse().unwrap()]);
    assert_eq!(security.known_hosts, Some(KnownHosts::at("/k".into())));
    assert!(security.key.is_none() && security.authorities.is_none());
    wrong(&["f", "--pin", "sha256:x"], "pin");
    wrong(&["f", "--tls", "maybe"], "require");
    wrong(&["f", "--key", "x"], "--key");
    wrong(&["f", "--key-file", "x", "--ask-key"], "cannot be used with");
    wrong(&["f", "--key-file", "/nowhere/at/all"], "/nowhere/at/all");
    wrong(&["f", "--ca-cert", "/nowhere/at/all"], "/nowhere/at/all");
    wrong(&["get", "--files-from", "-", "--key-file", "-"], "standard input");
}

#[track_caller]
fn stored(words: &[&str]) -> Vec<(String, Vec<u8>)> {
    let Task::Put(uploads) = parse_words(words).unwrap().task else { panic!("{words:?} stores nothing") };
    uploads.iter().map(|upload| (upload.local_shown(), upload.name.clone())).collect()
}

#[test]
fn what_is_put_keeps_its_own_name_unless_another_one_is_said() {
    let pair = |local: &str, name: &str| (local.to_owned(), name.as_bytes().to_vec());
    assert_eq!(stored(&["put", "a/b.txt", "c"]), [pair("a/b.txt", "b.txt"), pair("c", "c")]);
    assert_eq!(stored(&["put", "a/b.txt", "--to", "x/y/"]), [pair("a/b.txt", "x/y/b.txt")]);
    assert_eq!(stored(&["put", "b", "--to", ".", "--name", "n"]), [pair("b", "n")]);
    assert_eq!(stored(&["put", "b", "--to", "x", "--name", "n/m"]), [pair("b", "x/n/m")]);
    assert_eq!(stored(&["put", "-", "--name", "n"]), [pair("standard input", "n")]);
    assert_eq!(stored(&["put", "-r", "a/site/", "--to", "www"]), [pair("a/site/", "www/site")]);
    assert_eq!(stored(&["put", "-r", "a", "--name", "."]), [pair("a", "")]);
    let own = std::env::current_dir().unwrap();
    let own = own.file_name().unwrap().to_str().unwrap();
    assert_eq!(stored(&["put", "-r", "."]), [pair(".", own)]);
}

#[test]
fn what_cannot_be_put_is_refused_before_anybody_is_asked() {
    wrong(&["put"], "required");
    wrong(&["put", "-"], "--name");
    wrong(&["put", "a", "b", "--name", "n"], "--name");
    wrong(&["put", "a", "x/a"], "both be stored as 'a'");
    wrong(&["put", "a", "--name", "../a"], "cannot be stored");
    wrong(&["put", "a", "--to", "/etc"], "cannot be stored");
    wrong(&["put", "a", "--name", ".oneport"], "reserved");
    wrong(&["put", "a", "--exclude", "*"], "add -r");
    wrong(&["put", "-r", "-", "--name", "n"], "no folder");
    wrong(&["put", "-", "--name", "n", "--key-file", "-"], "both want standard input");
    wrong(&["put", "a", "b", "--checksum", &format!("blake3={}", "0".repeat(64))], "one by one");
    wrong(&["put", "a", "--limit-rate", "1"], "at least");
}

#[test]
fn what_is_put_takes_the_options_of_get() {
    let job =
        parse_words(&["put", "a", "-s", "h:1", "-j", "3", "--limit-rate", "1MiB", "--retries", "7"]).unwrap();
    let Task::Put(uploads) = &job.task else { panic!() };
    assert_eq!(uploads[0].server, Server { host: "h".into(), port: 1, pin: None });
    assert_eq!((job.settings.links, job.settings.limit_rate), (3, Some(1 << 20)));
    assert_eq!(job.settings.backoff.retries, 7);
    assert_eq!(job.settings.overwrite, Overwrite::Always);
    assert_eq!(parse_words(&["put", "-r", "a"]).unwrap().settings.overwrite, Overwrite::Different);
    let job = parse_words(&["put", "a", "--overwrite", "never", "--json", "--progress", "none"]).unwrap();
    assert_eq!(job.settings.overwrite, Overwrite::Never);
    assert!(job.json);
}

#[test]
fn what_is_removed_or_moved_is_named_and_never_all_that_is_served() {
    let job = parse_words(&["rm", "-r", "a/", "b"]).unwrap();
    assert!(matches!(job.task, Task::Remove { recursive: true }));
    assert_eq!(job.files.iter().map(File::shown).collect::<Vec<_>>(), ["a", "b"]);
    let job = parse_words(&["mv", "a", "b/", "--replace"]).unwrap();
    assert!(matches!(job.task, Task::Move { ref to, replace: true } if to == b"b/a"));
    assert_eq!(job.files[0].shown(), "a");
    wrong(&["rm"], "required");
    wrong(&["rm", "-r", "."], "all that is served");
    wrong(&["mv", ".", "a"], "all that is served");
    wrong(&["mv", "a"], "required");
    wrong(&["mv", "a", "../b"], "cannot be a name");
    wrong(&["mv", "a", "oneport://h/b"], "same server");
    wrong(&["rm", "-s", "h", "oneport://h/b"], "named twice");
}
