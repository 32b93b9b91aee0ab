//! Which files of a folder belong to this run, so that no two names of a source become one file.
//!
//! Nothing is assumed of how a file system compares names. What a name leads to is looked at where it
//! leads to something, and recognised by device and inode. In a new folder everything is this run's
//! but what an earlier run has left, so only that is remembered; in an existing folder everything is
//! somebody else's but what this run was given.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::look::{Found, Identity};
use crate::names::FileName;

/// The files of this run.
#[derive(Debug)]
pub(super) struct Given(Mutex<Files>);

#[derive(Debug)]
enum Files {
    /// In a new folder: those that an earlier run has left and no name of this run has led to.
    Left(HashSet<Identity>),
    /// In an existing folder: those that this run was given.
    Given {
        sole: HashSet<Identity>,
        /// Those that have several names (hard links): the names of them that were given.
        linked: HashMap<Identity, Vec<FileName>>,
    },
}

impl Given {
    /// For a new folder in which an earlier run has left these.
    pub(super) fn but(left: HashSet<Identity>) -> Self {
        Self(Mutex::new(Files::Left(left)))
    }

    /// For an existing folder.
    pub(super) fn nothing() -> Self {
        Self(Mutex::new(Files::Given { sole: HashSet::new(), linked: HashMap::new() }))
    }

    /// Takes what a name leads to for this name; `false` if another name has led to it. `is_entry` tells
    /// whether a name is that of an entry of its folder just as it stands: such names are different files
    /// even where these are hard links of each other.
    pub(super) fn claim(&self, found: &Found, name: &FileName, is_entry: &dyn Fn(&FileName) -> bool) -> bool {
        match &mut *self.files() {
            Files::Left(left) => left.remove(&found.identity),
            Files::Given { sole, linked } => {
                if let Some(names) = linked.get_mut(&found.identity) {
                    let is_another =
                        !names.contains(name) && is_entry(name) && names.first().is_some_and(is_entry);
                    if is_another {
                        names.push(name.clone());
                    }
                    return is_another;
                }
                if found.links > 1 && !sole.contains(&found.identity) {
                    linked.insert(found.identity, vec![name.clone()]);
                    return true;
                }
                sole.insert(found.identity)
            }
        }
    }

    /// Remembers a file that this run has made.
    pub(super) fn made(&self, identity: Identity) {
        match &mut *self.files() {
            Files::Left(_) => {}
            Files::Given { sole, linked } => {
                linked.remove(&identity);
                sole.insert(identity);
            }
        }
    }

    /// Remembers that an earlier run has left this, and that it cannot be replaced.
    pub(super) fn left(&self, identity: Identity) {
        if let Files::Left(left) = &mut *self.files() {
            left.insert(identity);
        }
    }

    /// Whether an earlier run has left this, and nothing of this run has led to it.
    pub(super) fn is_left(&self, identity: Identity) -> bool {
        match &*self.files() {
            Files::Left(left) => left.contains(&identity),
            Files::Given { .. } => false,
        }
    }

    /// Forgets what was left, because it is no more.
    pub(super) fn forget(&self) {
        if let Files::Left(left) = &mut *self.files() {
            left.clear();
        }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
