//! Which requests share a transfer, and which of them is served now: the one with the lowest number.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::v2::{RequestId, TransferId};

/// The requests in flight of each transfer; those that are of no transfer are not here.
#[derive(Debug, Default)]
pub(super) struct Transfers(BTreeMap<TransferId, BTreeSet<RequestId>>);

impl Transfers {
    /// A request of a transfer has come.
    pub(super) fn join(&mut self, transfer: TransferId, request: RequestId) {
        self.0.entry(transfer).or_default().insert(request);
    }

    /// A request of a transfer has ended; says which one is served next.
    pub(super) fn leave(&mut self, transfer: TransferId, request: RequestId) -> Option<RequestId> {
        let line = self.0.get_mut(&transfer)?;
        line.remove(&request);
        let next = line.first().copied();
        if next.is_none() {
            self.0.remove(&transfer);
        }
        next
    }

    /// Whether a request is served now, and not only after others.
    pub(super) fn is_first(&self, transfer: TransferId, request: RequestId) -> bool {
        self.0.get(&transfer).and_then(BTreeSet::first).is_none_or(|&first| first == request)
    }

    /// How many requests of a transfer are in flight.
    pub(super) fn count(&self, transfer: TransferId) -> usize {
        self.0.get(&transfer).map_or(0, BTreeSet::len)
    }
}
