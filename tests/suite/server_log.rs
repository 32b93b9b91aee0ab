//! What the log says of a connection, line by line, and that no peer writes it.

use std::io::{Read, Write};

use jiff::Timestamp;
use serde_json::Value;

use crate::raw::{self, fetch, fetch_whole, noise, request};
use crate::serving::{Server, Site};

const MIB: usize = 1 << 20;

/// The lines that name a peer, each without its time and level.
fn lines_of(log: &str, peer: &str) -> Vec<String> {
    log.lines().filter(|line| line.contains(peer)).map(|line| message(line).to_owned()).collect()
}

/// A line's message, after its time and level.
fn message(line: &str) -> &str {
    line.split_once(' ').unwrap().1.trim_start().split_once(' ').unwrap().1.trim_start()
}

/// Fetches a file and waits until that has been logged; its lines.
fn fetch_logged(server: &Server, name: &str) -> (String, Vec<String>) {
    let mut stream = server.connect();
    let peer = stream.local_addr().unwrap().to_string();
    stream.write_all(&request(name.as_bytes())).unwrap();
    raw::read_all(stream);
    let log = server.wait_log(&format!("Connection closed with {peer}"));
    (peer.clone(), lines_of(&log, &peer))
}

#[test]
fn a_download_is_logged_from_its_connection_to_its_digest() {
    let site = Site::new();
    site.file("sub/large.bin", &noise(40, MIB));
    let server = site.serve(&[]);
    let (peer, lines) = fetch_logged(&server, "sub/large.bin");
    assert_eq!(lines[0], format!("New connection from {peer}"));
    assert_eq!(lines[1], format!("Client {peer} requested file: sub/large.bin"));
    assert_eq!(lines[2], format!("Sending file 'sub/large.bin' ({MIB} bytes) to {peer}"));
    for (i, line) in lines[3..13].iter().enumerate() {
        let percent = (i + 1) * 10;
        let done = (MIB * percent).div_ceil(100);
        assert_eq!(*line, format!("Progress to {peer}: {percent}% ({done}/{MIB} bytes)"));
    }
    let start = format!("File 'sub/large.bin' sent successfully to {peer}: {MIB} bytes in ");
    let (end, md5) = (lines[13].strip_prefix(&start).unwrap(), oneport::digest::Md5::of(&noise(40, MIB)));
    let (seconds, end) = end.split_once(" s (").unwrap();
    assert!(seconds.parse::<f64>().unwrap() > 0.0);
    let (rate, end) = end.split_once("), MD5 ").unwrap();
    assert!(rate.ends_with("B/s"), "{rate}");
    assert_eq!(end, md5.to_string());
    assert_eq!(lines[14..], [format!("Connection closed with {peer}")]);
}

#[test]
fn from_one_mebibyte_on_there_are_ten_progress_lines_and_below_there_is_one() {
    let site = Site::new();
    let server = site.serve(&[]);
    for (size, wanted) in
        [(0, 1), (1, 1), (70_000, 1), (MIB - 1, 1), (MIB, 10), (MIB + 1, 10), (7 * MIB + 3, 10)]
    {
        let name = format!("file{size}");
        site.file(&name, &noise(41, size));
        let (peer, lines) = fetch_logged(&server, &name);
        let progress: Vec<_> = lines.iter().filter(|line| line.starts_with("Progress to ")).collect();
        assert_eq!(progress.len(), wanted, "{size}: {progress:#?}");
        let last = format!("Progress to {peer}: 100% ({size}/{size} bytes)");
        assert_eq!(**progress.last().unwrap(), last);
    }
}

#[test]
fn refusals_and_cuts_are_logged_with_their_cause() {
    let site = Site::new();
    std::fs::create_dir(site.root("folder")).unwrap();
    site.file("large", &noise(42, 32 * MIB));
    let server = site.serve(&[]);
    for (name, cause) in [
        ("missing", "no such file"),
        ("../x", "the name has an empty, '.' or '..' component"),
        ("/etc/passwd", "the name is absolute"),
        ("folder", "it is not a regular file"),
        (".oneport/x", "the name is reserved"),
    ] {
        let (peer, lines) = fetch_logged(&server, name);
        assert_eq!(lines[2], format!("Refused '{name}' to {peer}: {cause}"));
        assert_eq!(lines[3..], [format!("Connection closed with {peer}")]);
    }
    let mut stream = server.connect();
    let peer = stream.local_addr().unwrap();
    stream.write_all(&request(b"large")).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    raw::reset(stream);
    let log = server.wait_log(&format!("Transfer of 'large' to {peer} cut after"));
    assert!(log.contains(&format!("of {} bytes: the connection broke", 32 * MIB)), "{log}");
}

/// Fails if a line of the log has the form `N%` without being a progress line, or holds anything that
/// could steer a terminal.
fn assert_clean(log: &str) {
    for line in log.lines() {
        let percent = line.as_bytes().windows(2).any(|pair| pair[0].is_ascii_digit() && pair[1] == b'%');
        assert_eq!(percent, message(line).starts_with("Progress to "), "{line}");
        let steers = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || c == '\u{2028}';
        assert!(!line.contains(steers), "{}", line.escape_debug());
        assert!(
            line.split(' ').next().unwrap().parse::<Timestamp>().is_ok(),
            "every line has a time: {line}"
        );
    }
}

#[test]
fn names_that_imitate_progress_lines_or_steer_terminals_are_defused() {
    let site = Site::new();
    let names = [
        "50%",
        "Progress to 127.0.0.1:1: 50% (1",
        "a\nProgress to 1.2.3.4: 70% (7",
        "\x1b[2J\x1b[31mred",
        "\u{202e}gpj.exe",
        "line\u{2028}separator",
        "tab\tand\rreturn",
        "\u{9b}31m",
        "\\x1b",
    ];
    for name in &names[..names.len() - 1] {
        site.file(name.replace('/', "_"), b"x");
    }
    let server = site.serve(&[]);
    for name in names {
        fetch(server.address, name);
    }
    for name in [&b"50%\0 60%"[..], b"\xff\xfe 70%", b"../80%\n90%"] {
        fetch(server.address, name);
    }
    let log = server.wait_log_count("Connection closed", names.len() + 3);
    assert_clean(&log);
    assert!(log.contains("requested file: 50\\x25\n"), "{log}");
    for line in server.stderr().lines() {
        assert!(!line.contains('\x1b'), "the console too: {line}");
    }
}

#[test]
fn times_are_rfc_3339_local_and_with_offset() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.launch(&[]).env("TZ", "IST-5:30").serve();
    fetch_whole(server.address, "a");
    let log = server.wait_log("Connection closed");
    let mut latest = Timestamp::UNIX_EPOCH;
    for line in log.lines() {
        let time = line.split(' ').next().unwrap();
        assert!(time.ends_with("+05:30"), "{line}");
        let time: Timestamp = time.parse().unwrap();
        assert!(time >= latest, "in order: {line}");
        latest = time;
    }
    assert!(latest.duration_until(Timestamp::now()).as_secs() < 600);
}

#[test]
fn as_json_every_line_is_an_object_with_fields() {
    let site = Site::new();
    let name = "50% \"quoted\"\n\u{202e}x";
    let data = noise(43, MIB + 7);
    site.file(name, &data);
    let server = site.serve(&["--log-format", "json"]);
    let mut stream = server.connect();
    let peer = stream.local_addr().unwrap().to_string();
    stream.write_all(&request(name.as_bytes())).unwrap();
    raw::read_all(stream);
    let log = server.wait_log("\"closed\"");
    assert!(!log.contains('\u{202e}'));
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        assert!(line["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{line}");
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    for event in ["opened", "requested", "started", "finished", "closed"] {
        assert_eq!(of(event).len(), 1, "{event}: {log}");
        assert_eq!(of(event)[0]["peer"], *peer, "{event}");
    }
    assert_eq!(of("started")[0]["size"], data.len());
    let percents: Vec<_> = of("progress").iter().map(|line| line["percent"].as_u64().unwrap()).collect();
    assert_eq!(percents, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
    let finished = of("finished")[0];
    assert_eq!(finished["md5"], oneport::digest::Md5::of(&data).to_string());
    assert!(finished["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(of("listening").len(), 1);
}

#[test]
fn the_level_says_what_is_logged() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--log-level", "warn"]);
    fetch_whole(server.address, "a");
    fetch(server.address, "missing");
    let log = server.wait_log("Refused 'missing'");
    assert_eq!(log.lines().count(), 1, "{log}");
}
