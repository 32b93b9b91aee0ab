//! Which request has its turn next: those of the highest priority, and now and then one of the others.

use super::{Active, Responder, Wanted};
use crate::codec::v2::RequestId;
use crate::limits::PRIORITY_SHARE;
use crate::priority::Priority;

/// How many requests that move bytes have each priority.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    counts: [u16; Priority::COUNT],
    /// How many priorities that are.
    kinds: u8,
    /// Turns that those of the highest one had while others waited.
    favoured: u64,
}

impl Ranks {
    fn enter(&mut self, priority: Priority) {
        let count = &mut self.counts[usize::from(priority.number())];
        self.kinds += u8::from(*count == 0);
        *count += 1;
    }

    fn leave(&mut self, priority: Priority) {
        let count = &mut self.counts[usize::from(priority.number())];
        *count = count.saturating_sub(1);
        self.kinds = self.kinds.saturating_sub(u8::from(*count == 0));
    }
}

impl Responder {
    /// The highest priority of those requests that were begun and move bytes of files.
    #[must_use]
    pub fn rank(&self) -> Option<Priority> {
        let highest = self.ranks.counts.iter().rposition(|&count| count > 0);
        highest.and_then(|level| u8::try_from(level).ok()).map(Priority::at_most)
    }

    /// The priority of a request that was begun.
    #[must_use]
    pub fn priority(&self, request: RequestId) -> Option<Priority> {
        self.requests.get(&request)?.wanted.priority()
    }

    pub(super) fn enter(&mut self, request: RequestId, active: Active) {
        if let Some(priority) = active.wanted.priority() {
            self.ranks.enter(priority);
        }
        self.requests.insert(request, active);
    }

    pub(super) fn take_out(&mut self, request: RequestId) -> Option<Active> {
        let active = self.requests.remove(&request)?;
        if let Some(priority) = active.wanted.priority() {
            self.ranks.leave(priority);
        }
        Some(active)
    }

    /// Takes out the request whose turn it is.
    pub(super) fn next_turn(&mut self) -> Option<RequestId> {
        if self.ranks.kinds <= 1 {
            return self.turns.pop_front();
        }
        // What moves no bytes keeps nobody waiting for long.
        let rank = |request: &RequestId| self.priority(*request).unwrap_or(Priority::MOST);
        let best = self.turns.iter().map(rank).max()?;
        let lower = self.turns.iter().position(|request| rank(request) < best);
        let first = self.turns.iter().position(|request| rank(request) == best);
        let at = match lower {
            Some(lower) if self.ranks.favoured >= PRIORITY_SHARE => {
                self.ranks.favoured = 0;
                Some(lower)
            }
            lower => {
                self.ranks.favoured += u64::from(lower.is_some());
                first
            }
        };
        self.turns.remove(at?)
    }
}

impl Wanted {
    /// The priority of what moves bytes of a file.
    pub(super) fn priority(&self) -> Option<Priority> {
        match self {
            Self::Get(get) if !get.values_only => Some(get.priority),
            _ => None,
        }
    }
}
