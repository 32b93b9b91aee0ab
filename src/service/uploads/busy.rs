//! The names that somebody stores a file under at this moment: one writer each.
//!
//! Whoever stores, removes or renames claims the names first, whatever the way in which the bytes come, and
//! holds the claims until what was done is written down.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use tokio::time::{Instant, sleep};

use crate::limits::{WHOLE_AGAIN_PROBE, WHOLE_AGAIN_WAIT};
use crate::names::FileName;
use crate::service::lock;
use crate::token::KeyId;
use crate::tree::Root;

/// The names that are claimed: no more than there are uploads under way.
#[derive(Clone, Default)]
pub(in crate::service) struct Busy(Arc<Mutex<HashMap<FileName, Option<Same>>>>);

/// What a small file has in common with itself, when a client that was started anew brings it once more: whose it is,
/// and its root.
type Same = (Option<KeyId>, Root);

/// A name that nobody else writes as long as this lives.
#[must_use]
pub(crate) struct Claim {
    busy: Busy,
    name: FileName,
}

impl Busy {
    /// Claims a name, unless somebody has it.
    pub(in crate::service) fn claim(&self, name: &FileName) -> Option<Claim> {
        self.claim_as(name, None).ok()
    }

    /// Claims a name for a small file. Where this very file is being stored already, for a client that is gone,
    /// that is waited for: it takes no longer than a flush.
    pub(super) async fn claim_whole(&self, name: &FileName, same: Same) -> Option<Claim> {
        let deadline = Instant::now() + WHOLE_AGAIN_WAIT;
        loop {
            match self.claim_as(name, Some(same)) {
                Ok(claim) => return Some(claim),
                Err(by) if by == Some(same) && Instant::now() < deadline => sleep(WHOLE_AGAIN_PROBE).await,
                Err(_) => return None,
            }
        }
    }

    /// Claims a name; or tells who has it.
    fn claim_as(&self, name: &FileName, same: Option<Same>) -> Result<Claim, Option<Same>> {
        match lock(&self.0).entry(name.clone()) {
            Entry::Occupied(by) => Err(*by.get()),
            Entry::Vacant(free) => {
                free.insert(same);
                Ok(Claim { busy: self.clone(), name: name.clone() })
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.busy.0).remove(&self.name);
    }
}
