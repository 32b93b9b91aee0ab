//! The log file over time: when a new one begins, and what happens when a disk is full.
//!
//! Runs on the file channel's own thread; time is passed in. A line is in a file whole, or it is
//! counted as lost: standard error is told now and then, and the file as soon as it can be written
//! again. Nothing here waits, panics or reports an error to whoever logged.

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use super::batch::Batch;
use super::channel::{Sink, Unseen};
use super::folder::Disk;
use super::line::Lines;
use super::terminal::Healed;
use crate::limits::{LOG_ROTATION_RETRY, LOG_WARNING_INTERVAL};

/// Instead of a line: asks that all losses not told yet be told now.
pub(super) const TELL_ALL: &[u8] = b"";

/// When a new file begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    /// Size past which a file does not grow, in bytes.
    pub(super) size_max: u64,
    /// Age at which the next line begins a new file.
    pub(super) age_max: Duration,
}

/// What others may know of a journal.
#[derive(Debug)]
pub(super) struct Status {
    path: Mutex<PathBuf>,
    lost: AtomicU64,
}

impl Status {
    /// The current file.
    pub(super) fn path(&self) -> PathBuf {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lines lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(SeqCst)
    }
}

/// Takes warnings about the log itself elsewhere.
type Warn = Box<dyn FnMut(&[u8]) + Send>;

/// A sequence of log files.
pub(super) struct Journal<D: Disk> {
    disk: D,
    lines: Lines,
    rotation: Rotation,
    status: Arc<Status>,
    out: Healed<D::File>,
    opened: Instant,
    rotate_after: Option<Instant>,
    /// Lines lost and not yet told in the file, and why.
    lost: u64,
    cause: String,
    warn: Warn,
    loss_warned: Pace,
    rotation_warned: Pace,
    unseen: Option<Unseen>,
    unseen_told: u64,
    unseen_pace: Pace,
}

impl<D: Disk> Journal<D> {
    /// Creates the first file.
    pub(super) fn start(mut disk: D, lines: Lines, rotation: Rotation, now: Instant) -> io::Result<Self> {
        let (path, file) = disk.create()?;
        Ok(Self {
            disk,
            lines,
            rotation,
            status: Arc::new(Status { path: Mutex::new(path), lost: AtomicU64::new(0) }),
            out: Healed::new(file),
            opened: now,
            rotate_after: None,
            lost: 0,
            cause: String::new(),
            warn: Box::new(|_| ()),
            loss_warned: Pace::default(),
            rotation_warned: Pace::default(),
            unseen: None,
            unseen_told: 0,
            unseen_pace: Pace::default(),
        })
    }

    /// What others may know.
    pub(super) fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Sends warnings about the log itself to `warn`, which must not block.
    pub(super) fn warn_through(&mut self, warn: impl FnMut(&[u8]) + Send + 'static) {
        self.warn = Box::new(warn);
    }

    /// Tells in the file how many lines the console has not shown.
    pub(super) fn watch(&mut self, unseen: Unseen) {
        self.unseen = Some(unseen);
    }

    /// Writes one line, or does what [`TELL_ALL`] asks.
    pub(super) fn line_at(&mut self, line: &[u8], now: Instant) {
        let tells_all = line == TELL_ALL;
        if !tells_all {
            self.rotate_if_due(line.len() as u64, now);
        }
        // While a loss cannot be told nothing else is written: the file must not hide the gap.
        let is_told = self.tell_lost() && self.tell_unseen(tells_all, now);
        if tells_all {
            return;
        }
        if !is_told || !self.put(line) {
            self.lose(now);
        }
    }

    /// Writes several lines: at once if there is nothing to tell before them and they fit into the
    /// file, else one by one.
    pub(super) fn lines_at(&mut self, batch: &Batch, now: Instant) {
        let mut rest = 0;
        let len = batch.text().len() as u64;
        let fits = self.out.size().saturating_add(len) <= self.rotation.size_max;
        if fits && self.has_nothing_to_tell() && !self.is_rotation_due(len, now) {
            let (whole, result) = self.out.lines(batch);
            let Err(error) = result else { return };
            self.cause = error.to_string();
            self.lose(now);
            rest = whole + 1;
        }
        for line in batch.lines_from(rest) {
            self.line_at(line, now);
        }
    }

    fn has_nothing_to_tell(&self) -> bool {
        self.lost == 0 && self.unseen.as_ref().map_or(0, Unseen::count) == self.unseen_told
    }

    /// Writes to the file; says whether it worked and remembers why not.
    fn put(&mut self, line: &[u8]) -> bool {
        let result = self.out.line(line);
        if let Err(error) = &result {
            self.cause = error.to_string();
        }
        result.is_ok()
    }

    /// Whether the next `len` bytes belong into a new file.
    fn is_rotation_due(&self, len: u64, now: Instant) -> bool {
        let size = self.out.size();
        let is_full = size.saturating_add(len) > self.rotation.size_max;
        let is_old = now.saturating_duration_since(self.opened) >= self.rotation.age_max;
        let is_pausing = self.rotate_after.is_some_and(|time| now < time);
        size > 0 && (is_full || is_old) && !is_pausing
    }

    fn rotate_if_due(&mut self, line_len: u64, now: Instant) {
        if !self.is_rotation_due(line_len, now) {
            return;
        }
        match self.disk.create() {
            Ok((path, file)) => {
                *self.status.path.lock().unwrap_or_else(PoisonError::into_inner) = path;
                self.out = Healed::new(file);
                self.opened = now;
                self.rotate_after = None;
            }
            Err(error) => {
                self.rotate_after = Some(now + LOG_ROTATION_RETRY);
                if self.rotation_warned.is_due(now) {
                    let text = format!("cannot begin a new log file, the old one grows on: {error}");
                    let note = self.lines.note(Level::WARN, &text);
                    (self.warn)(note.as_bytes());
                    self.put(note.as_bytes());
                }
            }
        }
    }

    /// Counts a line that `self.cause` kept from being written.
    fn lose(&mut self, now: Instant) {
        self.lost += 1;
        self.status.lost.fetch_add(1, SeqCst);
        if self.loss_warned.is_due(now) {
            let path = self.status.path();
            let total = self.status.lost();
            let text = format!(
                "cannot write the log file {}: {}; {} lost so far, the program goes on",
                path.display(),
                self.cause,
                counted(total)
            );
            (self.warn)(self.lines.note(Level::WARN, &text).as_bytes());
        }
    }

    /// Tells how many lines are missing here; `false` when that cannot be written either.
    fn tell_lost(&mut self) -> bool {
        if self.lost == 0 {
            return true;
        }
        let text = format!("{} could not be written here: {}", counted(self.lost), self.cause);
        let is_told = self.put(self.lines.note(Level::WARN, &text).as_bytes());
        if is_told {
            self.lost = 0;
        }
        is_told
    }

    /// Tells now and then how many lines the console has not shown; `false` when that fails.
    fn tell_unseen(&mut self, at_once: bool, now: Instant) -> bool {
        let count = self.unseen.as_ref().map_or(0, Unseen::count);
        let new = count.saturating_sub(self.unseen_told);
        if new == 0 || !(at_once || self.unseen_pace.is_due(now)) {
            return true;
        }
        let text = format!("{} not shown on the console, which did not take them", counted(new));
        let is_told = self.put(self.lines.note(Level::WARN, &text).as_bytes());
        if is_told {
            self.unseen_told = count;
        }
        is_told
    }
}

impl<D: Disk> Sink for Journal<D> {
    fn line(&mut self, line: &[u8]) {
        self.line_at(line, Instant::now());
    }

    fn lines(&mut self, batch: &Batch) {
        self.lines_at(batch, Instant::now());
    }
}

/// Keeps a warning from being repeated within [`LOG_WARNING_INTERVAL`].
#[derive(Debug, Default)]
struct Pace(Option<Instant>);

impl Pace {
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| now.saturating_duration_since(last) >= LOG_WARNING_INTERVAL);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

fn counted(lines: u64) -> String {
    format!("{lines} log line{}", if lines == 1 { "" } else { "s" })
}
