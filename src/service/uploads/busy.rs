//! The names that somebody stores a file under at this moment: one writer each.
//!
//! Whoever stores, removes or renames claims the names first, whatever the way in which the bytes come, and
//! holds the claims until what was done is written down.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::names::FileName;
use crate::service::lock;

/// The names that are claimed: no more than there are uploads under way.
#[derive(Clone, Default)]
pub(in crate::service) struct Busy(Arc<Mutex<HashSet<FileName>>>);

/// A name that nobody else writes as long as this lives.
#[must_use]
pub(crate) struct Claim {
    busy: Busy,
    name: FileName,
}

impl Busy {
    /// Claims a name, unless somebody has it.
    pub(in crate::service) fn claim(&self, name: &FileName) -> Option<Claim> {
        let is_free = lock(&self.0).insert(name.clone());
        is_free.then(|| Claim { busy: self.clone(), name: name.clone() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.busy.0).remove(&self.name);
    }
}
