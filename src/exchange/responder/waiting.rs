//! Requests that wait to be begun: read, in the order of their numbers, with nothing opened for them.
//!
//! What they take is bounded in number by the responder and in bytes here. All of them are told
//! together that the server is still at it, so that however many there are, one time is to be kept.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::Wanted;
use crate::codec::v2::{ByteRange, RequestId, Token};
use crate::limits::{V2_WAIT_INTERVAL, V2_WAITING_BYTES};

/// A request that has not been begun.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) wanted: Wanted,
    pub(super) name: Bytes,
    pub(super) token: Option<Token>,
    pub(super) window: u64,
}

impl Held {
    /// Bytes that the client chose to make it take.
    fn weight(&self) -> usize {
        let others = match &self.wanted {
            Wanted::Stat { .. } => 0,
            Wanted::Get(get) => get.ranges.len() * size_of::<ByteRange>(),
            Wanted::List(list) => list.weight(),
        };
        self.name.len() + others
    }
}

/// The requests that wait, the next one first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    requests: BTreeMap<RequestId, Held>,
    bytes: usize,
    /// When all that wait were last told so, or the first of them came.
    said: Option<Instant>,
}

impl Waiting {
    /// Puts a request behind the others; `false` if they take too much already.
    pub(super) fn push(&mut self, request: RequestId, mut held: Held, now: Instant) -> bool {
        let weight = held.weight();
        if self.bytes + weight > V2_WAITING_BYTES {
            return false;
        }
        // What it was read from may be much larger than it is.
        held.name = Bytes::copy_from_slice(&held.name);
        self.bytes += weight;
        self.said.get_or_insert(now);
        self.requests.insert(request, held);
        true
    }

    /// Takes out the next one, and since when the client may not have heard of it.
    pub(super) fn pop(&mut self) -> Option<(RequestId, Held, Instant)> {
        let said = self.said?;
        let (request, held) = self.requests.pop_first()?;
        self.let_go(&held);
        Some((request, held, said))
    }

    /// Takes out one of them.
    pub(super) fn remove(&mut self, request: RequestId) -> Option<Held> {
        let held = self.requests.remove(&request)?;
        self.let_go(&held);
        Some(held)
    }

    fn let_go(&mut self, held: &Held) {
        self.bytes -= held.weight();
        if self.requests.is_empty() {
            self.said = None;
        }
    }

    /// One of them.
    pub(super) fn get_mut(&mut self, request: RequestId) -> Option<&mut Held> {
        self.requests.get_mut(&request)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// When they have to be told that they are waited with.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.said.map(|said| said + V2_WAIT_INTERVAL)
    }

    /// All that have to be told so now; they count as told.
    pub(super) fn due(&mut self, now: Instant) -> impl Iterator<Item = RequestId> {
        let is_due = self.deadline().is_some_and(|deadline| now >= deadline);
        if is_due {
            self.said = Some(now);
        }
        self.requests.keys().copied().filter(move |_| is_due)
    }
}
