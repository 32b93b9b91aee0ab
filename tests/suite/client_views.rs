//! What a person or a script is told: usage, progress, results, JSON, the log.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use oneport::digest::Md5;
use serde_json::Value;

use crate::harness::{Place, bytes};
use crate::scripted::{Scripted, answer, header};

#[test]
fn wrong_usage_is_told_in_a_sentence_and_asks_nobody() {
    let place = Place::new();
    for arguments in [
        vec![],
        vec!["f", "host", "0x50"],
        vec!["f", "host", "65536"],
        vec!["f", "a b"],
        vec!["f", ""],
        vec!["f", "--retry-delay", "soon"],
        vec!["f", "--timeout", "-1s"],
        vec!["f", "--retries", "many"],
        vec!["f", "--overwrite", "maybe"],
        vec!["f", "--nonsense"],
        vec!["f", "-o", "x", "-d", "y"],
        vec!["f", "-o", ""],
        vec!["f", "-o", "-", "--json"],
        vec!["f", "-o", "/dev/stdout", "--json"],
        vec!["f", "--log-level", "nonsense"],
        vec!["get"],
        vec!["get", "-s", "host:", "f"],
        vec!["get", "-s", "[::1", "f"],
    ] {
        let ended = place.client(&arguments).end().expect(2);
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{arguments:?}");
    }
    let not_text = OsStr::from_bytes(b"f\xff");
    place.client(&[OsStr::new("f"), not_text]).end().expect(2);
    assert!(place.tree().is_empty());
}

#[test]
fn words_of_later_commands_are_no_files_unless_one_says_so() {
    let words = "stats metadata health batch queue share key doctor bench completions man";
    let server = Scripted::serving(b"data");
    let place = Place::new();
    for word in words.split_whitespace() {
        place.fetch(word, server.address, &[]).end().expect(2).says(&format!("./{word}"));
    }
    assert!(server.requests().is_empty());
    place.fetch("./put", server.address, &[]).end().expect(0);
    place.fetch("./get", server.address, &[]).end().expect(0);
    place.fetch("./status", server.address, &[]).end().expect(0);
    place.get(server.address, &["ls", "get"]).end().expect(0);
    assert_eq!(server.requests(), ["put", "get", "status", "ls", "get"]);
}

#[test]
fn help_lists_every_exit_status_and_has_no_colour_where_none_is_wanted() {
    let place = Place::new();
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let run = place.client(&["--help"]).env(name, value).env("CLICOLOR_FORCE", "1");
        let help = run.end().expect(0).stdout();
        for code in oneport::error::Code::ALL {
            assert!(help.contains(&format!("{:>3}", code.exit_status())), "{} in {help}", code.exit_status());
        }
        assert!(["130", "143", "client_downloads", "--overwrite"].iter().all(|word| help.contains(word)));
        assert!(!help.contains('\x1b'), "{help:?}");
    }
}

#[test]
fn progress_without_a_terminal_is_a_line_for_each_ten_percent() {
    let server = Scripted::serving(&bytes(1, 2 << 20));
    let place = Place::new();
    let percents = |text: &str| -> Vec<u32> {
        let word = |line: &str| line.split(' ').find_map(|word| word.strip_suffix('%')?.parse().ok());
        text.lines().filter_map(word).collect()
    };
    let ten: Vec<u32> = (10..=100).step_by(10).collect();
    for how in ["auto", "plain"] {
        let ended = place.fetch("f", server.address, &["--progress", how]).end().expect(0);
        assert_eq!(percents(&ended.stderr), ten, "{}", ended.stderr);
    }
    for options in [vec!["--progress", "none"], vec!["-q"]] {
        let ended = place.fetch("f", server.address, &options).end().expect(0);
        assert!(ended.stderr.is_empty(), "{}", ended.stderr);
        assert_eq!(ended.stdout.is_empty(), options == ["-q"]);
    }
    for log in place.logs() {
        assert_eq!(percents(&log), ten, "{log}");
    }
}

#[test]
fn json_is_a_line_for_each_event_and_a_result_for_each_file() {
    let name = "ü \u{202e}\x1b\"\n";
    let data = bytes(1, 1 << 20);
    let server = Scripted::version_1(move |mut stream, asked, before| {
        let said = match before {
            0 => b"OK".to_vec(),
            1 => answer(asked, &data),
            _ => b"ERRORFile 'x' not found on server".to_vec(),
        };
        let _ = stream.write_all(&said);
    });
    let place = Place::new();
    let ended = place.get(server.address, &["--retries", "1", "--json", name, "x"]).end().expect(23);
    let said = ended.stdout();
    assert!(!said.contains(|c: char| c == '\u{202e}' || (c.is_control() && c != '\n')), "{said:?}");
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["version"] == 1), "{said}");
    let of = |kind: &str| -> Vec<&Value> { events.iter().filter(|event| event["event"] == kind).collect() };
    assert_eq!(of("progress").len(), 10);
    assert_eq!(of("waiting")[0]["code"], "connection-lost");
    let results = of("result");
    assert_eq!(results.len(), 2);
    assert_eq!((&results[0]["file"], &results[0]["ok"]), (&Value::from(name), &Value::from(true)));
    assert_eq!(results[0]["path"], format!("client_downloads/{name}"));
    assert_eq!(results[0]["md5"], Md5::of(&bytes(1, 1 << 20)).to_string());
    assert_eq!((&results[1]["code"], &results[1]["exit_status"]), (&"not-found".into(), &3.into()));
}

#[test]
fn outputs_that_nobody_reads_are_no_crash() {
    let server = Scripted::serving(&bytes(1, 2 << 20));
    let place = Place::new();
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    for options in [vec![], vec!["-v"], vec!["--json"], vec!["--progress", "bar"]] {
        let run = place.fetch("f", server.address, &options).stdout_to(closed());
        assert_eq!(run.stderr_to(closed()).end().code, Some(0), "{options:?}");
    }
    for arguments in [["--help"], ["--version"]] {
        assert_eq!(place.client(&arguments).stdout_to(closed()).end().code, Some(0));
    }
    assert_eq!(place.client(&["--nonsense"]).stderr_to(closed()).end().code, Some(2));
}

#[test]
fn an_error_is_one_sentence_with_its_cause_once() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = Place::new();
    let ended = place.fetch("f", nobody, &[]).end().expect(5);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("refused").count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&nobody.to_string()), "{}", ended.stderr);
    // A host that would steer the terminal.
    place.client(&["f", "x\u{202e}y", "--retries", "0"]).end();
    let odd = place.client(&["f", "x\u{202e}y", "--retries", "0"]).end();
    assert!(!odd.stderr.contains('\u{202e}'), "{:?}", odd.stderr);
}

#[test]
fn the_log_tells_a_download_from_its_beginning_to_its_end() {
    let hostile =
        [header(b"evil\n50%\x1b[2J", 4, "8d777f385d3dfec8815d20f7496026dc"), b"data".to_vec()].concat();
    let server = Scripted::version_1(move |mut stream, _, before| {
        let said = if before == 0 { &b"OK"[..] } else { &hostile };
        let _ = stream.write_all(said);
    });
    let place = Place::new();
    place.fetch("f", server.address, &["--retries", "1", "--log-dir", "logs"]).end().expect(0);
    let [log] = &place.logs()[..] else { panic!("not one log") };
    for text in
        ["Fetching 'f'", "Connected to", "Retry 1 of 1", "evil\\n", "100% (4/4 bytes)", "MD5 8d777f38"]
    {
        assert!(log.contains(text), "no '{text}' in {log}");
    }
    assert!(!log.contains("50%") && !log.contains('\x1b'), "{log}");
}
