//! What comes of the files of a folder, told and counted.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::client::{Event, FetchError, Observer};
use crate::digest::Digest;
use crate::limits::FOLDER_OUTCOMES;
use crate::names::FileName;
use crate::staged::StageError;

/// What came of one entry.
#[derive(Debug)]
pub(in crate::client) enum Outcome {
    /// It was fetched.
    Got { name: FileName, size: u64, digest: Digest },
    /// It was here already.
    Kept { name: FileName, size: u64 },
    /// It is not here.
    Failed { name: Vec<u8>, error: FetchError },
    /// It is a link that was not followed.
    Skipped { name: Vec<u8> },
    /// It is neither a file nor a folder.
    Special { name: Vec<u8> },
}

/// Outcomes that are still to be told. Whoever tells them looks now and then and takes all that are there:
/// waking it for each would cost more than the rest of a small file.
#[derive(Debug, Default)]
pub(in crate::client) struct Told {
    state: Mutex<Left>,
    /// There are many.
    many: Notify,
    /// There is room.
    room: Condvar,
}

#[derive(Debug, Default)]
struct Left {
    outcomes: Vec<Outcome>,
    /// Nobody listens any more.
    is_closed: bool,
}

impl Told {
    fn state(&self) -> MutexGuard<'_, Left> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves an outcome to be told.
    pub(in crate::client) fn leave(&self, outcome: Outcome) {
        let mut state = self.state();
        state.outcomes.push(outcome);
        if state.outcomes.len() == FOLDER_OUTCOMES {
            self.many.notify_one();
        }
    }

    /// Waits while there are too many. Blocks: not for whoever tells them.
    pub(in crate::client) fn wait_for_room(&self) {
        let full = |state: &mut Left| !state.is_closed && state.outcomes.len() >= FOLDER_OUTCOMES;
        drop(self.room.wait_while(self.state(), full));
    }

    /// Takes what is there.
    pub(in crate::client) fn take(&self) -> Vec<Outcome> {
        let outcomes = std::mem::take(&mut self.state().outcomes);
        self.room.notify_all();
        outcomes
    }

    /// Waits until there are many.
    pub(in crate::client) async fn many(&self) {
        self.many.notified().await;
    }

    /// Nobody listens any more.
    pub(in crate::client) fn close(&self) {
        self.state().is_closed = true;
        self.room.notify_all();
    }
}

/// What has been told of so far.
#[derive(Debug, Default)]
pub(in crate::client) struct Sums {
    pub(in crate::client) files: u64,
    pub(in crate::client) bytes: u64,
    pub(in crate::client) unchanged: u64,
    pub(in crate::client) failed: u64,
    pub(in crate::client) skipped: u64,
    pub(in crate::client) resumed: u64,
}

impl Sums {
    pub(in crate::client) fn hear_all(&mut self, observer: &dyn Observer, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            self.hear(observer, outcome);
        }
    }

    fn hear(&mut self, observer: &dyn Observer, outcome: Outcome) {
        match outcome {
            Outcome::Got { name, size, digest } => {
                (self.files, self.bytes) = (self.files + 1, self.bytes + size);
                observer.observe(&Event::FileDone { name: name.as_bytes(), size, digest });
            }
            Outcome::Kept { name, size } => {
                self.unchanged += 1;
                observer.observe(&Event::FileKept { name: name.as_bytes(), size });
            }
            Outcome::Failed { name, error } => {
                self.failed += 1;
                observer.observe(&Event::FileFailed { name: &name, error: &error });
            }
            Outcome::Skipped { name } => {
                self.skipped += 1;
                observer.observe(&Event::FileSkipped { name: &name });
            }
            Outcome::Special { name } => {
                self.skipped += 1;
                observer.observe(&Event::FileSpecial { name: &name });
            }
        }
    }

    /// Files that had come, and could not get their names in the end.
    pub(in crate::client) fn lost(&mut self, observer: &dyn Observer, unnamed: Vec<(FileName, StageError)>) {
        for (name, error) in unnamed {
            self.failed += 1;
            self.files = self.files.saturating_sub(1);
            let error = FetchError::from(error);
            observer.observe(&Event::FileFailed { name: name.as_bytes(), error: &error });
        }
    }
}
