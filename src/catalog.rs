//! What the system remembers across restarts: the contract that every catalog keeps.
//!
//! A catalog makes things faster or accountable; it never stands between a reader and a file. Its
//! methods therefore say "not known" instead of failing, and report trouble once, to the log.
//! The embedded one is [`sqlite`].

use crate::digest::Md5;
use crate::storage::Identity;

pub mod sqlite;

/// A memory that outlives the process. Calls may block: keep them off the async threads.
pub trait Catalog: Send + Sync + 'static {
    /// The MD5 of this very version of a file, if it is known.
    fn md5(&self, identity: &Identity) -> Option<Md5>;

    /// Remembers the MD5 of this version of a file; what was known of other versions of it may be
    /// forgotten. Returns at once: writing happens elsewhere.
    fn remember_md5(&self, identity: &Identity, md5: Md5);
}

/// Remembers nothing: for a server whose catalog cannot be used.
#[derive(Clone, Copy, Debug)]
pub struct Forgetful;

impl Catalog for Forgetful {
    fn md5(&self, _: &Identity) -> Option<Md5> {
        None
    }

    fn remember_md5(&self, _: &Identity, _: Md5) {}
}
