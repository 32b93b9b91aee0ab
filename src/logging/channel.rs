//! Bounded queues between whoever logs and whoever writes.
//!
//! A channel is `tracing-appender`'s queue and thread, with lines counted on both sides: at the end
//! of a program it is known when the last one has been written. The file's channel makes callers
//! wait when it is full, so nothing is dropped; the console's drops, so nobody waits for it.

use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tracing::Metadata;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

use super::FILE_ONLY;
use super::batch::{BATCH_MAX, Batch};
use crate::limits::LOG_GATHER;

/// Where the lines of a channel end. A line includes its line feed.
pub(super) trait Sink: Send + 'static {
    /// Deals with one line. A failure is the sink's own business.
    fn line(&mut self, line: &[u8]);

    /// Deals with several lines, in one go if that works.
    fn lines(&mut self, batch: &Batch) {
        for line in batch.lines_from(0) {
            self.line(line);
        }
    }
}

/// A queue, the thread that empties it into a [`Sink`], and the count of its lines.
#[derive(Debug)]
pub(super) struct Channel {
    inlet: Inlet,
    guard: Option<WorkerGuard>,
}

impl Channel {
    /// A channel that makes whoever logs wait while `lines_max` lines wait to be written.
    pub(super) fn patient(name: &str, lines_max: usize, sink: impl Sink) -> Self {
        Self::new(name, lines_max, false, sink)
    }

    /// A channel that drops lines while `lines_max` lines wait to be written, and counts them.
    pub(super) fn lossy(name: &str, lines_max: usize, sink: impl Sink) -> Self {
        Self::new(name, lines_max, true, sink)
    }

    fn new(name: &str, lines_max: usize, is_lossy: bool, sink: impl Sink) -> Self {
        let tally = Arc::new(Tally::default());
        let (channel, guard) = NonBlockingBuilder::default()
            .lossy(is_lossy)
            .buffered_lines_limit(lines_max)
            .thread_name(name)
            .finish(Outlet { sink, batch: Batch::default(), tally: Arc::clone(&tally) });
        let dropped = channel.error_counter();
        Self { inlet: Inlet { channel, dropped, tally }, guard: Some(guard) }
    }

    /// An end to put lines into.
    pub(super) fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// Waits until the sink has dealt with every line handed over so far; says whether it has.
    pub(super) fn drain(&self, within: Duration) -> bool {
        self.inlet.tally.wait(within, || self.inlet.dropped())
    }

    /// Ends the thread if it has nothing left to do. One that hangs in a write is left alone: its
    /// guard would wait in vain, print, and panic where printing fails.
    pub(super) fn end(&mut self) {
        let is_idle = self.drain(Duration::ZERO);
        if let Some(guard) = self.guard.take() {
            if is_idle { drop(guard) } else { mem::forget(guard) }
        }
    }
}

/// The end of a [`Channel`] that takes lines.
#[derive(Clone, Debug)]
pub(super) struct Inlet {
    channel: NonBlocking,
    dropped: ErrorCounter,
    tally: Arc<Tally>,
}

impl Inlet {
    /// Hands over one line; after the end of its channel it goes nowhere.
    pub(super) fn hand(&self, line: &[u8]) {
        // Counted first: a line that is counted late could be taken for one that is written.
        self.tally.handed.fetch_add(1, SeqCst);
        if self.channel.clone().write_all(line).is_err() {
            self.tally.handed.fetch_sub(1, SeqCst);
        }
    }

    fn dropped(&self) -> u64 {
        u64::try_from(self.dropped.dropped_lines()).unwrap_or(u64::MAX)
    }
}

/// The writing end, on the channel's own thread. It gathers lines until none waits any more, which
/// the thread tells by a flush, or until they are many.
struct Outlet<S> {
    sink: S,
    batch: Batch,
    tally: Arc<Tally>,
}

impl<S: Sink> Outlet<S> {
    fn write_batch(&mut self) {
        if self.batch.len() > 0 {
            self.sink.lines(&self.batch);
            self.tally.settle(self.batch.len() as u64);
            self.batch.clear();
        }
    }
}

impl<S: Sink> Write for Outlet<S> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.is_empty() {
            // A message to the sink itself keeps its place among the lines.
            self.write_batch();
            self.sink.line(line);
            self.tally.settle(1);
        } else {
            self.batch.push(line);
            if self.batch.text().len() >= BATCH_MAX {
                self.write_batch();
            }
        }
        Ok(line.len())
    }

    // `write_all` as provided would pass over an empty line.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        self.write(line).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.batch.len() > 0 {
            self.write_batch();
            // Whoever waits for the next line spins before it sleeps, and is woken for each one:
            // under load that costs more than the lines. A pause lets them gather.
            self.tally.gather();
        }
        Ok(())
    }
}

/// Lines handed over, lines dealt with.
#[derive(Debug, Default)]
struct Tally {
    handed: AtomicU64,
    settled: AtomicU64,
    /// Whether somebody waits: only then does a line cost a lock.
    awaited: AtomicBool,
    lock: Mutex<Hurry>,
    changed: Condvar,
    hurried: Condvar,
}

/// Whether lines are written without letting more gather: the end of a program waits for them.
type Hurry = bool;

impl Tally {
    fn settle(&self, lines: u64) {
        self.settled.fetch_add(lines, SeqCst);
        // Either this sees that somebody waits, or who begins to wait sees the lines just counted.
        if self.awaited.load(SeqCst) {
            let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.changed.notify_all();
        }
    }

    fn gather(&self) {
        let held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.hurried.wait_timeout_while(held, LOG_GATHER, |is_hurried| !*is_hurried));
    }

    fn wait(&self, within: Duration, dropped: impl Fn() -> u64) -> bool {
        let handed = self.handed.load(SeqCst);
        let is_open = || self.settled.load(SeqCst) + dropped() < handed;
        self.awaited.store(true, SeqCst);
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        *held = true;
        self.hurried.notify_all();
        drop(self.changed.wait_timeout_while(held, within, |_| is_open()));
        self.awaited.store(false, SeqCst);
        !is_open()
    }
}

/// Hands each line to the file and, if there is one and the line is for it, the console.
#[derive(Debug)]
pub(super) struct Tee {
    file: Inlet,
    console: Option<Inlet>,
}

impl Tee {
    /// Joins two inlets.
    pub(super) fn new(file: Inlet, console: Option<Inlet>) -> Self {
        Self { file, console }
    }
}

impl<'a> MakeWriter<'a> for Tee {
    type Writer = Branches<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Branches { file: &self.file, console: self.console.as_ref() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let console = self.console.as_ref().filter(|_| meta.target() != FILE_ONLY);
        Branches { file: &self.file, console }
    }
}

/// Where one line goes.
pub(super) struct Branches<'a> {
    file: &'a Inlet,
    console: Option<&'a Inlet>,
}

impl Write for Branches<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file.hand(line);
        if let Some(console) = self.console {
            console.hand(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many lines a lossy channel has not shown.
#[derive(Debug)]
pub(super) struct Unseen {
    inlet: Inlet,
    failed: Arc<AtomicU64>,
}

impl Unseen {
    /// Counts what `channel` dropped and what its sink `failed` to write.
    pub(super) fn new(channel: &Channel, failed: Arc<AtomicU64>) -> Self {
        Self { inlet: channel.inlet(), failed }
    }

    /// Lines so far.
    pub(super) fn count(&self) -> u64 {
        self.inlet.dropped().saturating_add(self.failed.load(SeqCst))
    }
}
