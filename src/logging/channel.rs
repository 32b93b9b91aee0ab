//! Bounded queues between whoever logs and whoever writes.
//!
//! A channel is a queue and the thread that empties it, with lines counted on both sides: at the end
//! of a program it is known when the last one has been written. The file's channel makes callers
//! wait when it is full, so nothing is dropped; the console's drops, so nobody waits for it.
//!
//! Lines are copied into the batches in which they will be written: a line costs a lock and a copy,
//! and no memory of its own that one thread would take and another give back.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

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
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Channel {
    /// A channel that makes whoever logs wait while `lines_max` lines wait to be written.
    pub(super) fn patient(name: &str, lines_max: usize, sink: impl Sink) -> io::Result<Self> {
        Self::new(name, lines_max, false, sink)
    }

    /// A channel that drops lines while `lines_max` lines wait to be written, and counts them.
    pub(super) fn lossy(name: &str, lines_max: usize, sink: impl Sink) -> io::Result<Self> {
        Self::new(name, lines_max, true, sink)
    }

    fn new(name: &str, lines_max: usize, is_lossy: bool, sink: impl Sink) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            lines_max,
            is_lossy,
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            hurried: Condvar::new(),
        });
        let own = Arc::clone(&queue);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || own.write_into(sink))?;
        Ok(Self { queue, thread: Some(thread) })
    }

    /// An end to put lines into.
    pub(super) fn inlet(&self) -> Inlet {
        Inlet { queue: Arc::clone(&self.queue) }
    }

    /// Waits until the sink has dealt with every line handed over so far; says whether it has.
    pub(super) fn drain(&self, within: Duration) -> bool {
        let mut state = self.queue.lock();
        // Nobody gathers any more: the end of a program waits for this.
        state.is_hurried = true;
        self.queue.hurried.notify_all();
        state.patient += 1;
        let handed = state.handed;
        let is_open = |state: &mut State| state.settled < handed && !state.is_ended;
        let waited = self.queue.emptied.wait_timeout_while(state, within, is_open);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.patient -= 1;
        state.settled >= handed
    }

    /// Ends the thread if it has nothing left to do. One that hangs in a write is left alone.
    pub(super) fn end(&mut self) {
        let is_idle = self.drain(Duration::ZERO);
        self.queue.lock().is_closed = true;
        self.queue.filled.notify_all();
        if let Some(thread) = self.thread.take().filter(|_| is_idle) {
            // A sink that panicked has ended too.
            let _ = thread.join();
        }
    }
}

/// What both sides of a channel share.
#[derive(Debug)]
struct Queue {
    lines_max: usize,
    is_lossy: bool,
    state: Mutex<State>,
    /// There are lines, or there will be none any more.
    filled: Condvar,
    /// Lines were taken or written.
    emptied: Condvar,
    /// Lines are not to gather any more.
    hurried: Condvar,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    /// Lines in the batches.
    waiting: usize,
    /// An empty batch that was used before.
    spare: Batch,
    /// The thread waits for lines. Only then is it woken.
    is_asleep: bool,
    /// Nothing is taken any more.
    is_closed: bool,
    /// The thread is no more.
    is_ended: bool,
    /// The thread writes what there is without letting more gather.
    is_hurried: bool,
    /// How many wait until lines were taken or written. Only they are woken.
    patient: usize,
    /// Lines taken, and lines dealt with.
    handed: u64,
    settled: u64,
    dropped: u64,
}

impl State {
    fn push(&mut self, line: &[u8]) {
        // An empty line is a message to the sink: it has a batch of its own, which keeps its place.
        let has_room = |last: &Batch| !line.is_empty() && (1..BATCH_MAX).contains(&last.text().len());
        if !self.batches.back().is_some_and(has_room) {
            self.batches.push_back(mem::take(&mut self.spare));
        }
        if let Some(last) = self.batches.back_mut() {
            last.push(line);
            self.waiting += 1;
            self.handed += 1;
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand(&self, line: &[u8]) {
        let mut state = self.lock();
        if !state.is_closed && state.waiting >= self.lines_max {
            if self.is_lossy {
                state.dropped += 1;
                return;
            }
            let is_full = |state: &mut State| !state.is_closed && state.waiting >= self.lines_max;
            state.patient += 1;
            state = self.emptied.wait_while(state, is_full).unwrap_or_else(PoisonError::into_inner);
            state.patient -= 1;
        }
        if state.is_closed {
            return;
        }
        state.push(line);
        if mem::take(&mut state.is_asleep) {
            drop(state);
            self.filled.notify_one();
        }
    }

    /// The thread: writes batch after batch until the channel is closed and nothing waits.
    fn write_into(&self, mut sink: impl Sink) {
        let _ending = Ending(self);
        while let Some(mut batch) = self.take() {
            if batch.text().is_empty() {
                sink.line(&[]);
            } else {
                sink.lines(&batch);
            }
            let is_full = self.settle(&mut batch);
            if !is_full {
                // A thread that is woken for each line costs more than the lines do under load. A
                // pause lets them gather.
                self.gather();
            }
        }
    }

    fn gather(&self) {
        let is_patient = |state: &mut State| !state.is_hurried;
        drop(self.hurried.wait_timeout_while(self.lock(), LOG_GATHER, is_patient));
    }

    /// Wakes whoever waits for lines to be taken or written.
    fn tell(&self, state: &State) {
        if state.patient > 0 {
            self.emptied.notify_all();
        }
    }

    fn take(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.batches.pop_front() {
                state.waiting -= batch.len();
                self.tell(&state);
                return Some(batch);
            }
            if state.is_closed {
                return None;
            }
            state.is_asleep = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts a batch as written and keeps its room for another; says whether a full one waits.
    fn settle(&self, batch: &mut Batch) -> bool {
        let mut state = self.lock();
        state.settled += batch.len() as u64;
        batch.clear();
        state.spare = mem::take(batch);
        self.tell(&state);
        // The last one may still be growing.
        state.batches.len() > 1
    }
}

/// However the thread ends, nobody waits for it any longer.
struct Ending<'a>(&'a Queue);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        (state.is_closed, state.is_ended) = (true, true);
        self.0.emptied.notify_all();
    }
}

/// The end of a [`Channel`] that takes lines.
#[derive(Clone, Debug)]
pub(super) struct Inlet {
    queue: Arc<Queue>,
}

impl Inlet {
    /// Hands over one line; after the end of its channel it goes nowhere.
    pub(super) fn hand(&self, line: &[u8]) {
        self.queue.hand(line);
    }

    fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }
}

/// Hands each line to the file and, if there is one, the console.
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
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Tee {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file.hand(line);
        if let Some(console) = &self.console {
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
