//! The journal on a disk that fills up, with time passed in.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Journal, Rotation, TELL_ALL};
use crate::limits::{LOG_ROTATION_RETRY, LOG_WARNING_INTERVAL};
use crate::logging::Format;
use crate::logging::batch::Batch;
use crate::logging::folder::Disk;
use crate::logging::line::Lines;
use crate::logging::tests::message;

const HOUR: Duration = Duration::from_secs(3600);

/// A disk with room for so many bytes, shared by its files; `create` can be made to fail.
#[derive(Clone, Default)]
struct Tiny(Arc<Mutex<TinyState>>);

#[derive(Default)]
struct TinyState {
    room: usize,
    refusals: VecDeque<ErrorKind>,
    files: Vec<String>,
}

struct TinyFile(Tiny, usize);

impl Tiny {
    fn set_room(&self, room: usize) {
        self.0.lock().unwrap().room = room;
    }

    fn files(&self) -> Vec<String> {
        self.0.lock().unwrap().files.clone()
    }
}

impl Disk for Tiny {
    type File = TinyFile;

    fn create(&mut self) -> io::Result<(PathBuf, TinyFile)> {
        let mut state = self.0.lock().unwrap();
        if let Some(kind) = state.refusals.pop_front() {
            return Err(kind.into());
        }
        state.files.push(String::new());
        let number = state.files.len() - 1;
        Ok((PathBuf::from(format!("file{number}")), TinyFile(self.clone(), number)))
    }
}

impl Write for TinyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.0.lock().unwrap();
        let count = bytes.len().min(state.room);
        if count == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        state.room -= count;
        state.files[self.1].push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Bench {
    disk: Tiny,
    journal: Journal<Tiny>,
    warnings: Receiver<String>,
    start: Instant,
}

fn bench(size_max: u64) -> Bench {
    let disk = Tiny::default();
    disk.set_room(usize::MAX);
    let start = Instant::now();
    let rotation = Rotation { size_max, age_max: HOUR };
    let mut journal = Journal::start(disk.clone(), Lines::new(Format::Text), rotation, start).unwrap();
    let (sender, warnings): (Sender<String>, _) = channel();
    journal.warn_through(move |line| drop(sender.send(String::from_utf8(line.to_vec()).unwrap())));
    Bench { disk, journal, warnings, start }
}

#[test]
fn a_full_disk_is_counted_warned_of_healed_and_told() {
    let Bench { disk, mut journal, warnings, start } = bench(u64::MAX);
    journal.line_at(b"one\n", start);
    disk.set_room(2);
    journal.line_at(b"torn\n", start);
    journal.line_at(b"lost\n", start + Duration::from_secs(1));
    assert_eq!(journal.status().lost(), 2);
    let warning = warnings.try_recv().unwrap();
    assert!(message(warning.trim_end()).contains("cannot write the log file file0"), "{warning}");
    assert!(warnings.try_recv().is_err(), "warned twice");
    journal.line_at(b"lost\n", start + LOG_WARNING_INTERVAL);
    assert!(warnings.try_recv().unwrap().contains("3 log lines lost"));
    disk.set_room(usize::MAX);
    journal.line_at(b"four\n", start + LOG_WARNING_INTERVAL);
    journal.line_at(b"five\n", start + LOG_WARNING_INTERVAL);
    let text = disk.files().concat();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!([lines[0], lines[1], lines[3], lines[4]], ["one", "to", "four", "five"], "{text}");
    assert!(message(lines[2]).starts_with("3 log lines could not be written here: "), "{text}");
    assert_eq!((lines.len(), journal.status().lost()), (5, 3));
}

#[test]
fn losses_are_told_at_the_end_even_if_nothing_more_is_logged() {
    let Bench { disk, mut journal, start, .. } = bench(u64::MAX);
    disk.set_room(0);
    journal.line_at(b"lost\n", start);
    journal.line_at(TELL_ALL, start);
    disk.set_room(usize::MAX);
    journal.line_at(TELL_ALL, start);
    journal.line_at(TELL_ALL, start);
    let text = disk.files().concat();
    assert_eq!(text.matches("1 log line could not be written here").count(), 1, "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn a_new_file_begins_at_the_size_and_at_the_age() {
    let Bench { disk, mut journal, start, .. } = bench(10);
    journal.line_at(b"longer than a file\n", start);
    journal.line_at(b"1234\n", start);
    journal.line_at(b"6789\n", start);
    journal.line_at(b"x\n", start);
    assert_eq!(disk.files(), ["longer than a file\n", "1234\n6789\n", "x\n"]);
    journal.line_at(b"y\n", start + HOUR - Duration::from_nanos(1));
    journal.line_at(b"z\n", start + HOUR);
    journal.line_at(b"!\n", start + HOUR + Duration::from_secs(1));
    assert_eq!(disk.files()[2..], ["x\ny\n", "z\n!\n"]);
    assert_eq!(journal.status().path(), Path::new("file3"));
}

#[test]
fn where_no_new_file_can_be_made_the_old_one_goes_on_and_it_is_tried_again() {
    let Bench { disk, mut journal, warnings, start } = bench(4);
    journal.line_at(b"one\n", start);
    disk.0.lock().unwrap().refusals.push_back(ErrorKind::PermissionDenied);
    journal.line_at(b"two\n", start);
    journal.line_at(b"three\n", start);
    journal.line_at(b"four\n", start + LOG_ROTATION_RETRY);
    let files = disk.files();
    assert!(files[0].starts_with("one\n") && files[0].ends_with("two\nthree\n"), "{files:?}");
    assert_eq!(files[1..], ["four\n"]);
    assert_eq!(warnings.try_iter().filter(|line| line.contains("cannot begin a new log file")).count(), 1);
    assert_eq!(journal.status().lost(), 0);
}

fn batch(lines: &[&str]) -> Batch {
    let mut batch = Batch::default();
    lines.iter().for_each(|line| batch.push(line.as_bytes()));
    batch
}

#[test]
fn lines_written_together_are_counted_healed_and_told_one_by_one() {
    let Bench { disk, mut journal, start, .. } = bench(u64::MAX);
    disk.set_room("one\ntwo\nto".len());
    journal.lines_at(&batch(&["one\n", "two\n", "torn\n", "lost\n", "lost\n"]), start);
    assert_eq!(journal.status().lost(), 3);
    disk.set_room(usize::MAX);
    journal.lines_at(&batch(&["six\n", "seven\n"]), start);
    journal.lines_at(&batch(&["eight\n", "nine\n"]), start);
    let text = disk.files().concat();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3], ["one", "two", "to"], "{text}");
    assert!(message(lines[3]).starts_with("3 log lines could not be written here: "), "{text}");
    assert_eq!(lines[4..], ["six", "seven", "eight", "nine"], "{text}");
}

#[test]
fn a_batch_that_ends_with_a_whole_line_is_not_healed() {
    let Bench { disk, mut journal, start, .. } = bench(u64::MAX);
    disk.set_room("one\n".len());
    journal.lines_at(&batch(&["one\n", "lost\n"]), start);
    disk.set_room(usize::MAX);
    journal.lines_at(&batch(&["three\n"]), start);
    let text = disk.files().concat();
    assert!(!text.contains("\n\n") && text.ends_with("\nthree\n") && text.lines().count() == 3, "{text}");
}

#[test]
fn lines_written_together_keep_to_the_size_of_a_file() {
    let Bench { disk, mut journal, start, .. } = bench(10);
    journal.lines_at(&batch(&["1234\n", "6789\n", "x\n"]), start);
    assert_eq!(disk.files(), ["1234\n6789\n", "x\n"]);
}
