//! What the system remembers across restarts: the contract that every catalog keeps.
//!
//! A catalog makes things faster or accountable; it never stands between a reader and a file. Its
//! methods therefore say "not known" instead of failing, and report trouble once, to the log. Only who has
//! stored what must not be forgotten, so that a quota holds: those methods say whether they worked.
//! The embedded one is [`sqlite`].

use std::sync::Arc;

use crate::digest::Md5;
use crate::names::FileName;
use crate::storage::Identity;
use crate::token::KeyId;
use crate::tree::Tree;

pub mod history;
pub mod sqlite;

use history::{Step, Transfer};

/// A memory that outlives the process. Calls may block: keep them off the async threads.
pub trait Catalog: Send + Sync + 'static {
    /// The MD5 of this very version of a file, if it is known.
    fn md5(&self, identity: &Identity) -> Option<Md5>;

    /// Remembers the MD5 of this version of a file; what was known of other versions of it may be
    /// forgotten. Returns at once: writing happens elsewhere.
    fn remember_md5(&self, identity: &Identity, md5: Md5);

    /// The BLAKE3 tree of this very version of a file, if it is known.
    fn tree(&self, identity: &Identity) -> Option<Tree>;

    /// Remembers the tree of this version of a file, as [`Self::remember_md5`] does a digest.
    fn remember_tree(&self, identity: &Identity, tree: &Arc<Tree>);

    /// Keeps what came of a transfer, for a while. Returns at once: writing happens elsewhere.
    fn note_transfer(&self, _transfer: Transfer) {}

    /// The newest transfers, at most so many, the last one first.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    fn transfers(&self, _most: u32) -> Result<Vec<Transfer>, CatalogError> {
        Err(CatalogError::unable())
    }

    /// A step through the transfers, the newest first, each with the number under which it is noted.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    fn history(&self, _step: &Step) -> Result<Vec<(i64, Transfer)>, CatalogError> {
        Err(CatalogError::unable())
    }

    /// Writes down, in one step, who has stored what; when it returns, that outlives a power cut. Whose sums
    /// were shifted.
    ///
    /// # Errors
    /// If it cannot be written: nothing of it is, then.
    fn write_owned(&self, _changes: &[OwnedChange]) -> Result<Vec<Shift>, CatalogError> {
        Err(CatalogError::unable())
    }

    /// Bytes of all files that a key has stored.
    ///
    /// # Errors
    /// If that cannot be told.
    fn owned_bytes(&self, _key: &KeyId) -> Result<u64, CatalogError> {
        Err(CatalogError::unable())
    }

    /// At most `count` files that a key has stored, in the order of their names, behind the name `after`.
    ///
    /// # Errors
    /// If that cannot be told.
    fn owned_files(
        &self,
        _key: &KeyId,
        _after: &[u8],
        _count: usize,
    ) -> Result<Vec<OwnedFile>, CatalogError> {
        Err(CatalogError::unable())
    }
}

/// Why the catalog does not do what must not be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CatalogError(pub String);

impl CatalogError {
    fn unable() -> Self {
        Self("it keeps nothing".to_owned())
    }
}

/// A change of who has stored what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedChange {
    /// A file was stored, in place of what had its name.
    Stored {
        /// Its name.
        name: FileName,
        /// Whose it is; nobody's if no key was shown.
        key: Option<KeyId>,
        /// Its size in bytes.
        size: u64,
    },
    /// This name is gone, and what was beneath it.
    Removed(FileName),
    /// This name, and what is beneath it, has become another one.
    Renamed {
        /// The old name.
        from: FileName,
        /// The new one.
        to: FileName,
    },
    /// A file is not there any more, unless it was stored again since it was looked for.
    Gone {
        /// Its name.
        name: FileName,
        /// As in [`OwnedFile`].
        serial: i64,
    },
}

/// A file that a key has stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFile {
    /// Its name.
    pub name: FileName,
    /// Its size in bytes.
    pub size: u64,
    /// Tells this storing of it from others.
    pub serial: i64,
}

/// How the bytes that a key has stored have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// Whose they are.
    pub key: KeyId,
    /// Bytes that it has more.
    pub gained: u64,
    /// Bytes that it has less.
    pub lost: u64,
}

/// Remembers nothing: for a server whose catalog cannot be used.
#[derive(Clone, Copy, Debug)]
pub struct Forgetful;

impl Catalog for Forgetful {
    fn md5(&self, _: &Identity) -> Option<Md5> {
        None
    }

    fn remember_md5(&self, _: &Identity, _: Md5) {}

    fn tree(&self, _: &Identity) -> Option<Tree> {
        None
    }

    fn remember_tree(&self, _: &Identity, _: &Arc<Tree>) {}
}
