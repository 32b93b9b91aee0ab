//! The folders on the way to the name that was opened last.
//!
//! Names that are asked for together mostly lie in the same folder. Whoever opens them one right after
//! the other, without waiting for anything between, keeps a trail: the way that they share is walked
//! once. Every name of a trail must have been asked for before the trail was begun; so the folders
//! were looked at after each of the names was asked for, as if each had been walked to alone.

use std::os::fd::OwnedFd;

/// Folders that were walked through a moment ago. It is not to be kept.
#[derive(Debug, Default)]
pub struct Trail {
    /// The root, once it was opened.
    pub(super) root: Option<OwnedFd>,
    /// Device and inode of the hidden folders that there are, once they were looked up.
    pub(super) hidden: Option<Vec<(u64, u64)>>,
    /// The folders beneath the root, each with its name in the one before it.
    pub(super) folders: Vec<(Vec<u8>, OwnedFd)>,
}
