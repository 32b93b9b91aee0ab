//! The log's files: their names, their turning over, and a disk that is full.

use std::fs;

use crate::raw::{fetch, fetch_whole, noise};
use crate::serving::{Signal, Site, skipped, wait_for};

#[test]
fn the_log_file_is_named_after_the_moment_and_the_console_shows_the_same() {
    let site = Site::new();
    site.file("a", b"a");
    let mut server = site.serve(&[]);
    fetch_whole(server.address, "a");
    let name = server.log_files()[0].file_name().unwrap().to_str().unwrap().to_owned();
    let digits = name.strip_prefix("server_").and_then(|rest| rest.strip_suffix(".log")).unwrap();
    let (date, time) = digits.split_once('_').unwrap();
    assert!(date.len() == 8 && time.len() == 6, "{name}");
    assert!((date.to_owned() + time).bytes().all(|byte| byte.is_ascii_digit()), "{name}");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0));
    assert_eq!(server.log(), server.stderr());
}

#[test]
fn servers_that_share_a_log_folder_have_files_of_their_own() {
    let site = Site::new();
    let servers: Vec<_> = (0..3)
        .map(|i| site.launch_bare(&["0", "root", "--state", &format!("s{i}"), "--log-dir", "logs"]).serve())
        .collect();
    let files = wait_for("three files", || Some(servers[0].log_files()).filter(|files| files.len() == 3));
    for file in files {
        wait_for("one first line", || {
            let text = fs::read_to_string(&file).unwrap();
            (text.matches("listening on").count() == 1).then_some(())
        });
    }
}

#[test]
fn the_log_turns_over_by_size_and_loses_no_line() {
    const REQUESTS: usize = 100;
    let site = Site::new();
    let server = site.serve(&["--log-max-size", "4KiB"]);
    for i in 0..REQUESTS {
        fetch(server.address, format!("file{i:04}"));
    }
    let log = server.wait_log_count("Connection closed", REQUESTS);
    for i in 0..REQUESTS {
        let file = format!("file{i:04}");
        assert_eq!(
            log.lines().filter(|line| line.contains(&file)).count(),
            2,
            "requested and refused: {file}"
        );
    }
    let files = server.log_files();
    assert!(files.len() >= 5, "{files:?}");
    for file in &files {
        assert!(fs::metadata(file).unwrap().len() <= 4096, "{}", file.display());
    }
}

#[test]
fn the_log_turns_over_by_age() {
    let site = Site::new();
    let server = site.serve(&["--log-max-age", "100ms"]);
    wait_for("a second log file", || {
        fetch(server.address, "missing");
        (server.log_files().len() > 1).then_some(())
    });
}

#[test]
fn a_full_log_disk_is_warned_of_and_serving_goes_on() {
    let site = Site::new();
    let data = noise(50, 100_000);
    site.file("file", &data);
    let script = "mkdir -p logs && mount -t tmpfs -o size=32k none logs && exec \"$0\" \"$@\"";
    let Ok(mut server) = site.launch(&[]).by_way_of(&["unshare", "-rm", "sh", "-c", script]).try_serve()
    else {
        return skipped("a full log disk", "no disk can be mounted here");
    };
    for _ in 0..150 {
        assert!(fetch_whole(server.address, "file") == data);
    }
    let warning = wait_for("a warning on standard error", || {
        server.stderr().lines().find(|line| line.contains("WARN") && line.contains("log")).map(str::to_owned)
    });
    assert!(warning.contains("No space left"), "{warning}");
    assert!(fetch_whole(server.address, "file") == data);
    let written = server.log();
    assert!(written.len() <= 32 << 10 && written.len() > 16 << 10, "{} bytes", written.len());
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0));
    let told = server.stderr();
    assert!(told.matches("WARN").count() < 10, "warned of, not flooded with: {told}");
}

#[test]
fn a_log_folder_that_cannot_be_made_ends_it_with_11() {
    let site = Site::new();
    site.file("plain", b"");
    let ended = site.launch_bare(&["0", "root", "--log-dir", "root/plain/logs"]).run();
    assert_eq!(ended.code, Some(11), "{}", ended.stderr);
    assert!(ended.stderr.contains("root/plain/logs") && ended.stdout.is_empty(), "{}", ended.stderr);
}
