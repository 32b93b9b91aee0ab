//! What clients hear while they have to wait for this server.

use std::time::Instant;

use super::{Active, Responder};
use crate::codec::v2::ServerFrame;
use crate::limits::{V2_OPEN_MAX, V2_WAIT_INTERVAL};

impl Responder {
    /// When [`Self::tick`] has something to do, if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let begun = self.requests.values().filter(|active| active.is_waiting());
        let begun = begun.map(|active| active.said + V2_WAIT_INTERVAL).min();
        let waiting = self.waiting.deadline().filter(|_| !self.is_held_up());
        begun.into_iter().chain(waiting).min()
    }

    /// Tells clients that wait for this server that it is still at it.
    pub fn tick(&mut self, now: Instant) {
        for (request, active) in &mut self.requests {
            if active.is_waiting() && now >= active.said + V2_WAIT_INTERVAL {
                active.said = now;
                ServerFrame::Wait(*request).encode(&mut self.frames);
            }
        }
        if !self.is_held_up() {
            for request in self.waiting.due(now) {
                ServerFrame::Wait(request).encode(&mut self.frames);
            }
        }
    }

    /// Whether it is only the client that keeps requests from being begun: it has opened the window of
    /// none of those that are served.
    fn is_held_up(&self) -> bool {
        let is_shut = |active: &Active| active.window == 0 && !active.is_waiting();
        self.requests.len() >= V2_OPEN_MAX && self.requests.values().all(is_shut)
    }
}
