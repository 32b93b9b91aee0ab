//! What the system remembers across restarts: the contract that every catalog keeps.
//!
//! A catalog makes things faster or accountable; it never stands between a reader and a file. Its
//! methods therefore say "not known" instead of failing, and report trouble once, to the log.
//! The embedded one is [`sqlite`].

use std::sync::Arc;

use crate::digest::Md5;
use crate::storage::Identity;
use crate::tree::Tree;

pub mod history;
pub mod sqlite;

use history::{HistoryError, Transfer};

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
    fn note_transfer(&self, transfer: Box<Transfer>);

    /// The newest transfers, at most so many, the last one first.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    fn transfers(&self, most: u32) -> Result<Vec<Transfer>, HistoryError>;
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

    fn note_transfer(&self, _: Box<Transfer>) {}

    fn transfers(&self, _: u32) -> Result<Vec<Transfer>, HistoryError> {
        Err(HistoryError)
    }
}
