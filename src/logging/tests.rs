//! The log as a whole, on real files.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tracing::{Dispatch, dispatcher, error, info, warn};

use super::batch::BATCH_MAX;
use super::folder::claim;
use super::{Console, Format, Logging, Role, Settings, StartError, assemble, filter, start};
use crate::limits::LOG_CONSOLE_QUEUE;

const HOUR: Duration = Duration::from_secs(3600);

fn settings(dir: &Path, format: Format, console: Option<Console>) -> Settings {
    Settings {
        role: Role::Server,
        dir: dir.join("logs"),
        format,
        level: "info".to_owned(),
        console,
        size_max: 1 << 30,
        age_max: HOUR,
    }
}

fn begin(settings: &Settings) -> (Dispatch, Logging) {
    assemble(settings, io::sink()).unwrap()
}

fn files(dir: &Path) -> Vec<(String, String)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    all.sort_by_key(|(name, _)| (name.len(), name.clone()));
    all
}

/// The message of a line in text format, whose other parts are checked.
pub(super) fn message(line: &str) -> &str {
    let (time, rest) = line.split_once(' ').unwrap();
    time.parse::<Timestamp>().unwrap();
    assert_eq!(time.len(), "2026-11-21T10:16:57.123456+00:00".len(), "{time}");
    assert!(matches!(&time[26..27], "+" | "-"), "no offset: {time}");
    let (level, message) = rest.split_at(6);
    assert!(["ERROR ", "WARN  ", "INFO  "].contains(&level), "{line}");
    message
}

/// A console that tests read back.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_text_line_is_a_time_a_level_and_the_message_alone() {
    let dir = tempfile::tempdir().unwrap();
    let screen = Screen::default();
    let console = Some(Console { color: false });
    let (dispatch, logging) = assemble(&settings(dir.path(), Format::Text, console), screen.clone()).unwrap();
    let path = logging.path();
    dispatcher::with_default(&dispatch, || {
        info!(bytes = 5, peer = "x", "sent");
        error!(message = "gone");
        tracing::debug!("never seen");
    });
    logging.close();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().map(message).collect::<Vec<_>>(), ["sent", "gone"]);
    assert!(text.contains(" INFO  sent\n") && text.contains(" ERROR gone\n"), "{text}");
    assert_eq!(screen.text(), text);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("server_") && name.len() == "server_YYYYMMDD_HHMMSS.log".len(), "{name}");
}

#[test]
fn only_a_console_that_wants_it_is_coloured_and_never_the_file() {
    let dir = tempfile::tempdir().unwrap();
    for (format, is_colored) in [(Format::Text, true), (Format::Json, false)] {
        let screen = Screen::default();
        let console = Some(Console { color: true });
        let (dispatch, logging) = assemble(&settings(dir.path(), format, console), screen.clone()).unwrap();
        dispatcher::with_default(&dispatch, || warn!("a WARN word"));
        let path = logging.path();
        logging.close();
        assert_eq!(
            screen.text().contains("\x1b[33mWARN \x1b[0m a WARN word\n"),
            is_colored,
            "{}",
            screen.text()
        );
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains('\x1b'));
        assert!(is_colored || screen.text() == text, "{}", screen.text());
    }
}

#[test]
fn no_message_can_break_a_line_or_steer_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let hostile = "a\nb\r\x1b[2J\u{9b}31m\u{202e}\u{7f}\0 ü\u{2028}";
    for format in [Format::Text, Format::Json] {
        let (dispatch, logging) = begin(&settings(dir.path(), format, None));
        dispatcher::with_default(&dispatch, || {
            info!("{hostile}");
            info!(message = hostile);
            info!(name = hostile, other = ?hostile, "plain");
        });
        let path = logging.path();
        logging.close();
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 3);
        for line in text.lines() {
            let steers = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}');
            assert!(!line.contains(steers), "{line:?}");
        }
        assert!(text.contains('ü'));
    }
}

#[test]
fn a_json_line_holds_every_field_and_parses() {
    let dir = tempfile::tempdir().unwrap();
    let (dispatch, logging) = begin(&settings(dir.path(), Format::Json, None));
    let broken = io::Error::other("bro\"ken");
    dispatcher::with_default(&dispatch, || {
        info!(
            bytes = u64::MAX,
            delta = -1,
            rate = 1.5,
            none = f64::NAN,
            ok = true,
            level = "mine",
            name = "q\"\\\u{9b}",
            path = ?Path::new("x"),
            cause = &broken as &dyn std::error::Error,
            "he said \"{}\"",
            1
        );
    });
    let path = logging.path();
    logging.close();
    let text = fs::read_to_string(path).unwrap();
    let value: Value = serde_json::from_str(text.trim_end()).unwrap();
    value["timestamp"].as_str().unwrap().parse::<Timestamp>().unwrap();
    for (name, expected) in [
        ("level", Value::from("INFO")),
        ("message", "he said \"1\"".into()),
        ("bytes", u64::MAX.into()),
        ("delta", (-1).into()),
        ("rate", 1.5.into()),
        ("none", Value::Null),
        ("ok", true.into()),
        ("field_level", "mine".into()),
        ("name", "q\"\\\u{9b}".into()),
        ("path", "\"x\"".into()),
        ("cause", "bro\"ken".into()),
    ] {
        assert_eq!(value[name], expected, "{name} in {text}");
    }
}

#[test]
fn all_lines_logged_before_the_close_are_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (dispatch, logging) = begin(&settings(dir.path(), Format::Text, None));
    let path = logging.path();
    std::thread::scope(|scope| {
        for worker in 0..5 {
            let dispatch = &dispatch;
            scope.spawn(move || {
                dispatcher::with_default(dispatch, || {
                    (0..10_000).for_each(|number| info!("{worker} {number}"));
                });
            });
        }
    });
    logging.close();
    let text = fs::read_to_string(path).unwrap();
    let mut next = [0; 5];
    for line in text.lines() {
        let (worker, number) = message(line).split_once(' ').unwrap();
        let next = &mut next[worker.parse::<usize>().unwrap()];
        assert_eq!(number.parse::<usize>().unwrap(), *next);
        *next += 1;
    }
    assert_eq!(next, [10_000; 5]);
    dispatcher::with_default(&dispatch, || info!("after the end: nobody minds"));
}

/// A console that blocks in its first write until it is let go.
struct Stuck(Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_console_that_blocks_holds_nothing_up_and_the_file_says_what_it_lost() {
    const EXTRA: usize = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let (let_go, stuck) = channel();
    let console = Some(Console { color: false });
    let settings = settings(dir.path(), Format::Text, console);
    let (dispatch, logging) = assemble(&settings, Stuck(stuck)).unwrap();
    let path = logging.path();
    let total = LOG_CONSOLE_QUEUE + EXTRA;
    dispatcher::with_default(&dispatch, || (0..total).for_each(|number| info!("line {number}")));
    logging.close();
    drop(let_go);
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().filter(|line| message(line).starts_with("line ")).count(), total);
    let notes: Vec<_> =
        text.lines().map(message).filter(|m| m.contains("not shown on the console")).collect();
    let count = |note: &&str| note.split(' ').next().unwrap().parse::<usize>().unwrap();
    let told: usize = notes.iter().map(count).sum();
    // One batch may be in the stuck write already.
    let shortest = text.lines().map(|line| line.len() + 1).min().unwrap();
    assert!((EXTRA - BATCH_MAX / shortest - 1..=EXTRA).contains(&told), "{notes:?}");
}

#[test]
fn a_name_that_is_taken_gets_a_suffix_and_no_link_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let name = |claimed: io::Result<(PathBuf, _)>| {
        claimed.unwrap().0.file_name().unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(name(claim(dir.path(), "server_x")), "server_x.log");
    assert_eq!(name(claim(dir.path(), "server_x")), "server_x_2.log");
    #[cfg(unix)]
    std::os::unix::fs::symlink(dir.path().join("target"), dir.path().join("server_x_3.log")).unwrap();
    #[cfg(unix)]
    assert_eq!(name(claim(dir.path(), "server_x")), "server_x_4.log");
    assert!(!dir.path().join("target").exists());
}

#[test]
fn rotation_keeps_lines_whole_and_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { size_max: 200, ..settings(dir.path(), Format::Text, None) };
    let (dispatch, logging) = begin(&settings);
    dispatcher::with_default(&dispatch, || (0..20).for_each(|number| info!("number {number}")));
    logging.close();
    let files = files(&settings.dir);
    assert!(files.len() >= 5, "{files:?}");
    assert!(files.iter().all(|(_, text)| text.len() <= 200 && text.ends_with('\n')));
    let lines: usize = files.iter().map(|(_, text)| text.lines().map(message).count()).sum();
    assert_eq!(lines, 20);
}

#[test]
fn a_level_that_makes_no_sense_is_refused_in_words() {
    for level in ["info", "WARN", "off", "info,oneport=debug", "warn, oneport::server=trace"] {
        assert!(filter(level).is_ok(), "{level}");
    }
    for level in ["", " ", "inof", "info,", "oneport=loud", "oneport"] {
        let error = filter(level).unwrap_err();
        assert!(error.to_string().contains("use off, error"), "{error}");
        assert!(matches!(error, StartError::Level { .. }));
    }
}

#[test]
fn a_second_log_in_one_process_is_refused_without_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { level: "off".to_owned(), ..settings(dir.path(), Format::Text, None) };
    let first = start(&settings).unwrap();
    assert!(matches!(start(&settings), Err(StartError::Started)));
    first.close();
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("logs"), "a file").unwrap();
    let error = assemble(&settings(dir.path(), Format::Text, None), io::sink()).unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains(dir.path().to_str().unwrap()) && shown.contains("writable"), "{shown}");
}

#[test]
fn lines_for_the_file_alone_are_not_on_the_console_and_all_of_them_are_in_the_file() {
    const LINES: usize = 2 * crate::limits::LOG_QUEUE;
    let dir = tempfile::tempdir().unwrap();
    for format in [Format::Text, Format::Json] {
        let screen = Screen::default();
        let console = Some(Console { color: false });
        let (dispatch, logging) = assemble(&settings(dir.path(), format, console), screen.clone()).unwrap();
        let path = logging.path();
        dispatcher::with_default(&dispatch, || {
            info!("before");
            for number in 0..LINES {
                info!(target: super::FILE_ONLY, number, "small {number}");
            }
            info!("behind");
        });
        assert_eq!(logging.lost(), 0);
        logging.close();
        let text = fs::read_to_string(path).unwrap();
        assert_eq!((text.lines().count(), text.matches("small ").count()), (LINES + 2, LINES));
        let shown = screen.text();
        assert!(!shown.contains("small"), "{shown}");
        assert!(
            shown.contains("before") && shown.contains("behind") && shown.lines().count() == 2,
            "{shown}"
        );
    }
}
