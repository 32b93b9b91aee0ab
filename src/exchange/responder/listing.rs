//! Listings on the server's end: one stretch after the other, as far as their windows go.
//!
//! A stretch is asked for only when it can be sent, and few at a time for the whole connection: so a
//! client that lists much and reads nothing costs no more memory than one that lists once.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::{Active, Ask, Responder, State, Wanted};
use crate::codec::v2::{Entries, List, RequestId, ServerFrame};
use crate::limits::V2_STRETCHES_MAX;
use crate::listing::Stretch;

/// What a LIST asks for.
#[derive(Debug)]
pub(super) struct Wish {
    /// Its cursor is where the next stretch begins.
    list: List,
    /// Bytes by which the last stretch was longer than its window: they count against the next one.
    overshot: u64,
}

impl Wish {
    /// Bytes that the client chose to make it take.
    pub(super) fn weight(&self) -> usize {
        self.list.weight()
    }
}

/// A LIST in flight.
#[derive(Debug)]
pub(super) enum Listing {
    /// Nothing is under way: its window is used up, or it waits for its turn.
    Resting,
    /// A stretch was asked for.
    Asked,
    /// A stretch is there, to be sent.
    Ready(Stretch),
}

/// Which listings of a connection may go on.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Stretches that were asked for or wait to be sent.
    held: usize,
    /// Listings that would go on if fewer were held, the next one first.
    waiting: VecDeque<RequestId>,
}

impl Responder {
    /// Asks for the next stretch of a listing, if its window is open and it is its turn.
    pub(super) fn list_on(&mut self, request: RequestId) {
        let Some(active) = self.requests.get_mut(&request) else { return };
        let (Wanted::List(wish), State::Listing(listing @ Listing::Resting)) =
            (&mut active.wanted, &mut active.state)
        else {
            return;
        };
        let paid = active.window.min(wish.overshot);
        active.window -= paid;
        wish.overshot -= paid;
        if active.window == 0 {
            return;
        }
        if self.listings.held >= V2_STRETCHES_MAX {
            if !self.listings.waiting.contains(&request) {
                self.listings.waiting.push_back(request);
            }
            return;
        }
        self.listings.held += 1;
        *listing = Listing::Asked;
        self.asks.push_back(Ask::List(request, Box::new(wish.list.clone())));
    }

    /// The next stretch of a listing is known.
    pub fn listed(&mut self, request: RequestId, stretch: Stretch, now: Instant) {
        let Some(active) = self.requests.get_mut(&request) else { return };
        if let State::Listing(listing @ Listing::Asked) = &mut active.state {
            *listing = Listing::Ready(stretch);
            active.said = now;
            self.queue(request);
        }
    }

    /// Sends the stretch of a listing that is there, if one is.
    pub(super) fn send_stretch(&mut self, request: RequestId, now: Instant) -> Option<Bytes> {
        let active = self.requests.get_mut(&request)?;
        let (Wanted::List(wish), State::Listing(listing)) = (&mut active.wanted, &mut active.state) else {
            return None;
        };
        let Listing::Ready(stretch) = listing else { return None };
        let stretch = std::mem::take(stretch);
        *listing = Listing::Resting;
        active.said = now;
        let Stretch { entries, cursor, is_last } = stretch;
        wish.list.cursor = cursor.clone();
        let mut frames = BytesMut::new();
        // Whoever comes back at the end is told no more than that.
        if !(is_last && entries.is_empty()) {
            let entries = Entries { cursor, entries };
            let len = entries.body_len();
            wish.overshot += len.saturating_sub(active.window);
            active.window = active.window.saturating_sub(len);
            ServerFrame::Entries(request, entries).encode(&mut frames);
        }
        self.listings.held -= 1;
        if is_last {
            ServerFrame::End(request, None).encode(&mut frames);
            self.forget(request);
        }
        // Whoever has waited comes first.
        self.next_listing();
        self.list_on(request);
        Some(frames.freeze())
    }

    /// A request was removed: what it held is free for others.
    pub(super) fn listing_ended(&mut self, request: RequestId, ended: &Active) {
        self.listings.waiting.retain(|&waiting| waiting != request);
        if matches!(ended.state, State::Listing(Listing::Asked | Listing::Ready(_))) {
            self.listings.held -= 1;
            self.next_listing();
        }
    }

    fn next_listing(&mut self) {
        while self.listings.held < V2_STRETCHES_MAX {
            let Some(request) = self.listings.waiting.pop_front() else { break };
            self.list_on(request);
        }
    }
}

impl Listing {
    /// Whether it is this server that keeps the client waiting.
    pub(super) fn is_waiting(&self, window: u64) -> bool {
        match self {
            Self::Asked => true,
            Self::Resting => window > 0,
            Self::Ready(_) => false,
        }
    }
}

impl Wanted {
    /// The list that was asked for.
    pub(super) fn list(list: List) -> Self {
        Self::List(Box::new(Wish { list, overshot: 0 }))
    }
}
