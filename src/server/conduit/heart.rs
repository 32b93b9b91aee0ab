//! Whether a client is there: when to ask, and when to give it up. The time is passed in.

use std::time::Instant;

use crate::limits::{CONDUIT_DEAD_AFTER, CONDUIT_PING_INTERVAL};

/// When the client was heard and asked last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heart {
    heard: Instant,
    asked: Instant,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing before this moment.
    At(Instant),
    /// A ping.
    Ping,
    /// Its end.
    Dead,
}

impl Heart {
    /// It has just been heard.
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, asked: now }
    }

    /// A whole frame has come.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A ping goes out.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked = now;
    }

    /// What is due now.
    pub(super) fn due(&self, now: Instant) -> Due {
        let (dead, ask) = (self.heard + CONDUIT_DEAD_AFTER, self.asked + CONDUIT_PING_INTERVAL);
        match () {
            () if now >= dead => Due::Dead,
            () if now >= ask => Due::Ping,
            () => Due::At(dead.min(ask)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_client_is_asked_every_half_minute_and_given_up_after_three_that_it_was_silent() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heart = Heart::new(start);
        assert_eq!(heart.due(at(29)), Due::At(at(30)));
        for asked in [30, 60] {
            assert_eq!(heart.due(at(asked)), Due::Ping);
            heart.asked(at(asked));
        }
        assert_eq!(heart.due(at(89)), Due::At(at(90)), "both are due then, and its end counts");
        assert_eq!(heart.due(at(90)), Due::Dead);
        heart.heard(at(89));
        assert_eq!(heart.due(at(90)), Due::Ping);
        heart.asked(at(90));
        assert_eq!(heart.due(at(91)), Due::At(at(120)));
    }
}
