//! How long a server is waited for: until the next thing comes, or a word that it will.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::Settings;

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub(in crate::client::v2) struct Patience {
    /// Longest wait for the next thing that brings the file on, or for a word that it will come.
    pub(in crate::client::v2) timeout: Duration,
    /// Longest wait while there are only such words.
    pub(in crate::client::v2) wait_max: Duration,
}

impl Patience {
    pub(in crate::client::v2) fn of(settings: &Settings) -> Self {
        Self { timeout: settings.timeout, wait_max: settings.wait_max }
    }
}

/// When the next thing has to have come.
pub(in crate::client::v2) struct Until {
    pub(in crate::client::v2) deadline: Instant,
    patience: Patience,
    /// However often the server says that it is still at it.
    at_last: Instant,
}

impl Until {
    pub(in crate::client::v2) fn new(patience: Patience) -> Self {
        let now = Instant::now();
        Self { deadline: now + patience.timeout, patience, at_last: now + patience.wait_max }
    }

    /// The server says that it is still at it.
    pub(in crate::client::v2) fn waits(&mut self) {
        self.deadline = (Instant::now() + self.patience.timeout).min(self.at_last.max(self.deadline));
    }
}
