//! The account of one transfer of version 1: who gets what, how far it is, how it ended.
//!
//! Every transfer that is begun is told to have ended, once: whole, or cut, even if the task that
//! carries it is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::digest::{Digest, Md5};
use crate::names::FileName;
use crate::progress::Steps;

use super::access::Caller;
use super::accounts::{NO_TRANSFER, cancelled_by};
use super::history::{Dialect, Ended};
use super::live::{Moving, What};
use super::{Event, Service};
use crate::catalog::history::Direction;

/// A running transfer.
pub(crate) struct Transfer<'a> {
    service: &'a Service,
    caller: &'a Caller,
    name: &'a FileName,
    size: u64,
    done: u64,
    steps: Steps,
    began: Instant,
    ended: bool,
    moving: Arc<Moving>,
}

impl<'a> Transfer<'a> {
    pub(super) fn begin(service: &'a Service, caller: &'a Caller, name: &'a FileName, size: u64) -> Self {
        let (peer, key) = (caller.peer(), caller.key_name());
        service.tell(&Event::Started { peer, key, name, size, have: 0 });
        let (steps, began) = (Steps::new(size), Instant::now());
        let (dialect, direction, transfer) = (Dialect::V1, Direction::Download, NO_TRANSFER);
        let (caller_of_it, name_of_it) = (caller.clone(), name.clone());
        let what =
            What { caller: caller_of_it, dialect, direction, name: name_of_it, size, have: 0, transfer };
        let moving = service.inner.live.begin(what);
        Self { service, caller, name, size, done: 0, steps, began, ended: false, moving }
    }

    /// As others see it.
    pub(crate) fn moving(&self) -> &Arc<Moving> {
        &self.moving
    }

    /// Bytes moved so far.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Accounts for `count` more bytes. Each step that they pass is told with the bytes that it
    /// stands for, however far beyond it the transfer is by then.
    pub(crate) fn advance(&mut self, count: u64) {
        self.done += count;
        self.moving.advance(count);
        let Self { caller, name, size, .. } = *self;
        let peer = caller.peer();
        for percent in self.steps.reached(self.done) {
            let done = self.steps.mark(percent);
            self.service.tell(&Event::Progress { peer, name, percent, done, size });
        }
    }

    /// How long it has taken so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// All of it arrived.
    pub(crate) fn finish(mut self, md5: Md5, elapsed: Duration) {
        self.ended = true;
        let Self { caller, name, size, .. } = self;
        let (peer, key) = (caller.peer(), caller.key_name());
        let digest = Some(Digest::Md5(md5));
        self.service.tell(&Event::Finished { peer, key, name, size, have: 0, elapsed, digest });
        self.note(size, elapsed, digest, None);
    }

    fn note(&self, moved: u64, elapsed: Duration, digest: Option<Digest>, cause: Option<&str>) {
        let Self { service, caller, name, size, .. } = *self;
        let (dialect, direction) = (Dialect::V1, Direction::Download);
        let cancelled_by = cause.and(self.moving.cancelled_by());
        let ended =
            Ended { caller, dialect, direction, name, size, moved, elapsed, digest, cause, cancelled_by };
        service.note(&ended);
    }

    /// It ends here, for this reason.
    pub(crate) fn cut(mut self, cause: &str) {
        self.tell_cut(cause);
    }

    fn tell_cut(&mut self, cause: &str) {
        self.ended = true;
        let Self { caller, name, done, size, .. } = *self;
        let (peer, key) = (caller.peer(), caller.key_name());
        let cancelled = self.moving.cancelled_by().map(cancelled_by);
        let cause = cancelled.as_deref().unwrap_or(cause);
        self.service.tell(&Event::Cut { peer, key, name, done, size, have: 0, cause });
        self.note(done, self.elapsed(), None, Some(cause));
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.tell_cut("the server stopped it");
        }
    }
}
