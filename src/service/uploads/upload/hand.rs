//! What a connection holds of an upload: what it is to do next, and what it has taken upon itself.

use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::{Grip, Need, Outcome, Pen, Upload};
use crate::names::FileName;
use crate::service::lock;
use crate::service::uploads::UploadError;
use crate::tree::{BlockSet, Root};

/// What a connection is to do next for an upload.
#[derive(Debug)]
pub(crate) enum Next {
    /// Ask for these blocks.
    Run(Range<u64>),
    /// Ask for the root.
    Root,
    /// Ask for the values of all blocks.
    Values,
    /// Everything is here: call [`Pen::settle`].
    Settle,
    /// Nothing, until something stirs.
    Wait,
    /// It has ended.
    Over(Outcome),
}

/// What a connection holds of an upload.
pub(crate) struct Hand {
    pen: Pen,
}

impl Hand {
    pub(in crate::service::uploads) fn new(upload: &Arc<Upload>, generation: u64) -> Self {
        lock(&upload.state).hands += 1;
        let (flying, has_claim) = (Mutex::default(), AtomicBool::new(false));
        let grip = Grip { upload: Arc::clone(upload), generation, flying, has_claim };
        Self { pen: Pen { grip: Arc::new(grip) } }
    }

    /// The right to write.
    pub(crate) fn pen(&self) -> &Pen {
        &self.pen
    }

    /// Hears when there may be something new for [`Self::next`].
    pub(crate) fn stirs(&self) -> watch::Receiver<()> {
        self.pen.grip.upload.stirred.subscribe()
    }

    /// How it has ended, for this connection.
    pub(crate) fn over(&self) -> Option<Outcome> {
        let state = lock(&self.pen.grip.upload.state);
        let is_stale = state.generation != self.pen.grip.generation;
        let superseded = || {
            let error = UploadError::Superseded;
            is_stale.then(|| Outcome::Failed(error.code(), error.text()))
        };
        state.outcome.clone().or_else(superseded)
    }

    /// What to do next.
    pub(crate) fn next(&mut self) -> Next {
        if let Some(outcome) = self.over() {
            return Next::Over(outcome);
        }
        let mut state = lock(&self.pen.grip.upload.state);
        if state.generation != self.pen.grip.generation {
            // That happened just now, and stirs.
            return Next::Wait;
        }
        if state.need != Need::Nothing {
            if std::mem::replace(&mut state.is_claimed, true) {
                return Next::Wait;
            }
            self.pen.grip.has_claim.store(true, Ordering::Relaxed);
            return if state.need == Need::Root { Next::Root } else { Next::Values };
        }
        if state.left == Some(0) {
            return if std::mem::replace(&mut state.is_settling, true) { Next::Wait } else { Next::Settle };
        }
        let hands = state.hands;
        match state.queue.take(hands) {
            Some(run) => {
                lock(&self.pen.grip.flying).extend(run.clone());
                Next::Run(run)
            }
            None => Next::Wait,
        }
    }

    /// Bytes of the file that are here already.
    pub(crate) fn have(&self) -> u64 {
        lock(&self.pen.grip.upload.state).have
    }

    /// The name that the server has given the file, if it has, and it is stored.
    pub(crate) fn given(&self) -> Option<FileName> {
        lock(&self.pen.grip.upload.state).given.clone()
    }

    /// A block arrived damaged; `false` if that was once too often.
    pub(crate) fn repeat(&mut self, block: u64) -> bool {
        lock(&self.pen.grip.flying).remove(&block);
        let may_again = lock(&self.pen.grip.upload.state).queue.repeat(block);
        self.pen.grip.upload.stirred.send_replace(());
        may_again
    }

    /// The client says what the root is.
    ///
    /// # Errors
    /// [`UploadError::SourceChanged`] if it said another one before.
    pub(crate) fn learn(&mut self, root: Root) -> Result<(), UploadError> {
        let mut state = lock(&self.pen.grip.upload.state);
        if *state.offer.root.get_or_insert(root) != root {
            return Err(UploadError::SourceChanged);
        }
        if state.need == Need::Root {
            state.need = Need::Nothing;
            state.is_claimed = false;
        }
        drop(state);
        self.pen.grip.has_claim.store(false, Ordering::Relaxed);
        self.pen.grip.upload.stirred.send_replace(());
        Ok(())
    }

    /// Says why this connection brings no more: told if nobody else brings it.
    pub(crate) fn blame(&self, cause: &str) {
        let state = lock(&self.pen.grip.upload.state);
        if state.generation == self.pen.grip.generation
            && state.hands == 1
            && let Some(account) = &state.account
        {
            account.cut(cause);
        }
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        let mut state = lock(&self.upload.state);
        if state.generation != self.generation {
            return;
        }
        state.hands = state.hands.saturating_sub(1);
        if *self.has_claim.get_mut() {
            state.is_claimed = false;
        }
        let mut runs = BlockSet::default();
        for &block in &*lock(&self.flying) {
            // They are ascending.
            let _ = runs.push(block..block + 1);
        }
        for run in runs.runs().iter().rev() {
            state.queue.give_back(run.clone());
        }
        drop(state);
        self.upload.stirred.send_replace(());
    }
}
