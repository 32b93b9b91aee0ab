use std::time::Duration;

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
        Ok(job) => panic!("{words:?} was taken as {job:?}"),
    }
}

#[test]
fn the_command_line_is_well_formed_and_names_the_defaults_in_force() {
    command().debug_assert();
    let job = parse_words(&["file.txt"]).unwrap();
    assert_eq!(job.server, Server::default());
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
    assert_eq!(job.server, Server { host: "::1".into(), port: 8080 });
    assert_eq!(job.settings.timeout, Duration::from_millis(500));
    assert_eq!(job.files[0].target, Target::File("client_downloads/b".into()));
    assert_eq!(parse_words(&["x", "get", "1"]).unwrap().server.host, "get");
}

#[test]
fn get_takes_a_server_and_several_names() {
    let job = parse_words(&["get", "-s", "[::1]:8080", "a", "d/b", "-d", "into"]).unwrap();
    assert_eq!(job.server.port, 8080);
    let targets: Vec<_> = job.files.iter().map(|file| file.target.clone()).collect();
    assert_eq!(targets, [Target::File("into/a".into()), Target::File("into/b".into())]);
    assert_eq!(parse_words(&["get", "put"]).unwrap().files[0].name, "put");
}

#[test]
fn reserved_words_are_no_files_unless_they_are_written_as_such() {
    for word in RESERVED {
        if word != "get" {
            wrong(&[word], &format!("client ./{word}"));
            wrong(&["-q", word, "host"], "reserved");
        }
        assert_eq!(parse_words(&[&format!("./{word}")]).unwrap().files[0].name, word);
    }
    wrong(&["-q", "get", "x"], "options come after the command");
    assert_eq!(parse_words(&["Put"]).unwrap().files[0].name, "Put");
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
    wrong(&["get", "a", "x/a"], "both be saved");
    wrong(&["a", "--retries", "-1"], "-1");
    wrong(&["a", "--timeout", "0s"], "--timeout");
    wrong(&[&"x".repeat(NAME_MAX + 1)], "too long");
    let bytes = <OsString as std::os::unix::ffi::OsStringExt>::from_vec(vec![0xff]);
    assert!(matches!(parse(["client".into(), bytes]), Err(ArgsError::Wrong(text)) if text.contains("UTF-8")));
}
