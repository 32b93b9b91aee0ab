//! What everybody who works on a folder that is put shares: what is still to be put, and what is counted.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::known::Known;
use super::local_path;
use crate::client::folder::queue::{Lane, Queue, Weighed};
use crate::client::folder::sums::{Outcome, Told};
use crate::client::folder::{Counts, concerns_all};
use crate::client::pace::Pace;
use crate::client::v2::give::Stored;
use crate::client::{FetchError, Selection, Server, Settings, Totals};
use crate::codec::v2::TransferId;
use crate::digest::Digest;
use crate::names::FileName;

/// What everybody who works on a folder that is put shares.
pub(in crate::client) struct PutShared {
    pub(in crate::client) server: Server,
    pub(in crate::client) settings: Settings,
    pub(in crate::client) pace: Pace,
    /// The folder here.
    pub(super) local: PathBuf,
    /// What it is called on the server; empty for its root.
    pub(super) remote: Vec<u8>,
    pub(super) selection: Selection,
    /// What the server has already.
    pub(super) known: Known,
    pub(in crate::client) queue: Queue<Item>,
    /// How many take small files from the queue.
    pub(in crate::client) links: usize,
    pub(super) counts: Counts,
    /// Folders that the server has.
    pub(super) folders: AtomicU64,
    /// Bytes of large files that the server had.
    pub(super) resumed: AtomicU64,
    pub(in crate::client) told: Told,
    pub(super) stop: CancellationToken,
}

/// Something that is to be put.
#[derive(Clone, Debug)]
pub(in crate::client) struct Item {
    /// Its name within the folder.
    pub(in crate::client) name: Bytes,
    /// What the server is to call it.
    pub(in crate::client) remote: Bytes,
    pub(in crate::client) what: What,
    /// The upload that it is, and which attempt at it comes next.
    pub(in crate::client) transfer: TransferId,
    pub(in crate::client) attempt: u32,
    /// How often it came to nothing for a reason of its own.
    pub(in crate::client) failures: u32,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client) enum What {
    /// A file of about so many bytes.
    File(u64),
    /// A folder.
    Folder {
        /// Permission bits.
        mode: u32,
        /// When it was last changed: seconds since 1970, and nanoseconds.
        modified: (i64, u32),
    },
}

impl Weighed for Item {
    fn expected(&self) -> u64 {
        match self.what {
            What::File(size) => size,
            What::Folder { .. } => 0,
        }
    }
}

impl Item {
    /// As it is to be offered after it may have been once.
    pub(in crate::client) fn again(self) -> Self {
        Self { attempt: self.attempt.saturating_add(1), ..self }
    }
}

impl PutShared {
    /// Where something is here.
    pub(in crate::client) fn path_of(&self, item: &Item) -> PathBuf {
        local_path(&self.local, &item.name)
    }

    /// Nobody wants anything any more.
    pub(super) fn end(&self) {
        self.stop.cancel();
        self.queue.stop();
    }

    /// The server has a file that was found already; whether that is so.
    pub(super) fn is_known(&self, name: &FileName, size: u64, modified: (i64, u32)) -> bool {
        let is_known = self.known.has(name.as_bytes(), size, modified);
        if is_known {
            self.counts.moved(0, size);
            self.counts.settled();
            self.told.leave(Outcome::Kept { name: name.clone(), size });
        }
        is_known
    }

    /// The server has a small file; it is settled.
    pub(in crate::client) fn put(&self, item: &Item, size: u64, stored: Stored) {
        self.counts.moved(0, size);
        self.settled(item, size, stored);
    }

    /// The server has a file whose bytes were counted; it is settled.
    pub(super) fn settled(&self, item: &Item, size: u64, stored: Stored) {
        self.counts.settled();
        // It was checked when it was found.
        if let Ok(name) = FileName::parse(&item.name) {
            self.told.leave(match stored {
                Stored::New(root) => Outcome::Got { name, size, digest: Digest::Blake3(root) },
                Stored::Same => Outcome::Kept { name, size },
            });
        }
        self.queue.settle(1);
    }

    /// The server has a folder; it is settled.
    pub(in crate::client) fn made(&self) {
        self.folders.fetch_add(1, Ordering::Relaxed);
        self.queue.settle(1);
    }

    /// Tells that something is not on the server, and settles it. What concerns all files is an error.
    pub(in crate::client) fn failed(&self, item: Item, error: FetchError) -> Result<(), FetchError> {
        if concerns_all(&error) {
            self.queue.give_back(Lane::Small, item);
            return Err(error);
        }
        if matches!(item.what, What::File(_)) {
            self.counts.settled();
        }
        self.told.leave(Outcome::Failed { name: item.name.to_vec(), error });
        self.queue.settle(1);
        Ok(())
    }

    pub(super) fn totals(&self) -> Totals {
        self.counts.totals(self.queue.is_closed())
    }
}
