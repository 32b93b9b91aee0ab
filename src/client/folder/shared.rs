//! What everybody who works on a folder shares: what is still to be fetched, where it goes, what is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use super::sums::{Outcome, Told};
use super::{Item, Lane, Queue, Totals};
use crate::client::pace::Pace;
use crate::client::{FetchError, Overwrite, Server, Settings};
use crate::digest::Digest;
use crate::error::Code;
use crate::staged::{Attributes, Replace, StageError, StagedFolder, Standing};
use crate::text;
use crate::tree::Root;

/// What everybody who works on a folder shares.
pub(in crate::client) struct Shared {
    pub(in crate::client) server: Server,
    pub(in crate::client) settings: Settings,
    pub(in crate::client) pace: Pace,
    pub(in crate::client) staged: StagedFolder,
    pub(in crate::client) queue: Queue,
    /// How many take small files from the queue.
    pub(in crate::client) links: usize,
    pub(super) counts: Counts,
    pub(in crate::client) told: Told,
    pub(super) stop: CancellationToken,
}

/// What has been counted so far.
#[derive(Debug, Default)]
pub(in crate::client) struct Counts {
    files: AtomicU64,
    bytes: AtomicU64,
    files_done: AtomicU64,
    bytes_done: AtomicU64,
}

impl Counts {
    pub(in crate::client) fn found(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Of one file `after` bytes are where they are to be, and `before` were counted.
    pub(in crate::client) fn moved(&self, before: u64, after: u64) {
        self.bytes_done.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    }

    /// A file is settled whose bytes were counted.
    pub(in crate::client) fn settled(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
    }

    /// Files that are settled.
    pub(in crate::client) fn files_done(&self) -> u64 {
        self.files_done.load(Ordering::Relaxed)
    }

    pub(in crate::client) fn totals(&self, is_complete: bool) -> Totals {
        let Self { files, bytes, files_done, bytes_done } = self;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (bytes, bytes_done) = (of(bytes), of(bytes_done));
        Totals {
            files: of(files),
            bytes: bytes.max(bytes_done),
            files_done: of(files_done),
            bytes_done,
            is_complete,
        }
    }
}

impl Shared {
    pub(in crate::client) fn replace(&self) -> Replace {
        match self.settings.overwrite {
            Overwrite::Never => Replace::Never,
            Overwrite::Different | Overwrite::Always => Replace::Always,
        }
    }

    /// Nobody wants anything any more.
    pub(super) fn end(&self) {
        self.stop.cancel();
        self.queue.stop();
    }

    /// Whether a file need not be fetched, because what lies here is the same: it is kept then. That it
    /// must not be replaced is an error.
    pub(in crate::client) fn keeps(
        &self,
        item: &Item,
        size: u64,
        attributes: &Attributes,
    ) -> Result<bool, FetchError> {
        let standing = self.staged.standing(&item.name, size, attributes.modified)?;
        let may_stay = self.settings.overwrite != Overwrite::Always || self.staged.is_new();
        if standing != Standing::Same || !may_stay {
            let must_stay = self.settings.overwrite == Overwrite::Never && !self.staged.is_new();
            return match standing {
                Standing::Same | Standing::Different if must_stay => {
                    Err(StageError::Exists(text::shown(item.name.as_bytes()).to_string()).into())
                }
                _ => Ok(false),
            };
        }
        self.staged.keep(&item.name)?;
        self.count_done(size);
        Ok(true)
    }

    pub(super) fn count_found(&self, bytes: u64) {
        self.counts.found(bytes);
    }

    /// Of one file `after` bytes are here, and `before` were counted.
    pub(super) fn count_bytes(&self, before: u64, after: u64) {
        self.counts.moved(before, after);
    }

    pub(super) fn count_done(&self, bytes: u64) {
        self.counts.settled();
        self.counts.moved(0, bytes);
    }

    /// Tells that a file was saved, or why not, and settles it. What keeps all files from being saved is
    /// an error.
    pub(in crate::client) fn made(
        &self,
        item: Item,
        size: u64,
        root: Root,
        made: Result<(), FetchError>,
    ) -> Result<(), FetchError> {
        match made {
            Ok(()) => {
                self.count_bytes(0, size);
                self.got(item, size, Digest::Blake3(root));
                Ok(())
            }
            Err(error) => self.failed(item, error),
        }
    }

    /// A file was fetched, and its bytes were counted; it is settled.
    pub(in crate::client) fn got(&self, item: Item, size: u64, digest: Digest) {
        self.counts.settled();
        self.tell(Outcome::Got { name: item.name, size, digest });
    }

    /// Tells that a file is not here, and settles it. What concerns all files is an error.
    pub(in crate::client) fn failed(&self, item: Item, error: FetchError) -> Result<(), FetchError> {
        if concerns_all(&error) {
            self.queue.give_back(Lane::Small, item);
            return Err(error);
        }
        self.counts.settled();
        self.tell(Outcome::Failed { name: item.name.as_bytes().to_vec(), error });
        Ok(())
    }

    /// A file is here already; it is settled.
    pub(in crate::client) fn kept(&self, item: Item, size: u64) {
        self.tell(Outcome::Kept { name: item.name, size });
    }

    fn tell(&self, outcome: Outcome) {
        self.told.leave(outcome);
        self.queue.settle(1);
    }

    /// Files that are settled.
    pub(super) fn files_done(&self) -> u64 {
        self.counts.files_done()
    }

    pub(super) fn totals(&self) -> Totals {
        self.counts.totals(self.queue.is_closed())
    }
}

/// Whether no other file could be fetched and saved, or put, either.
pub(in crate::client) fn concerns_all(error: &FetchError) -> bool {
    let disk = matches!(error, FetchError::Stage(StageError::FlushFailed(_)));
    disk || matches!(error.code(), Code::NoSpace | Code::Connect | Code::Lost | Code::Timeout)
        || matches!(
            error,
            FetchError::Interrupted
                | FetchError::Violated { .. }
                | FetchError::OldServer { .. }
                | FetchError::KeyNeedsV2 { .. }
                | FetchError::NoUploads { .. }
                | FetchError::Untrusted(_)
        )
}
