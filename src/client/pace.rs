//! How fast the client reads: no faster than it was told to, over all connections of a file.
//!
//! What is not read fills the buffers of both ends, and then the server waits. So nothing of this is a
//! word of the protocol, and it holds for both versions.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::Settings;
use crate::limits::CLIENT_RATE_MIN;
use crate::rate::Limiter;

/// A pace that all connections of a file keep together. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace(Option<Arc<Limiter>>);

impl Pace {
    pub(super) fn of(settings: &Settings) -> Self {
        let new = |rate| Arc::new(Limiter::new(rate, Instant::now().into_std()));
        Self(settings.limit_rate.map(new))
    }

    /// How many bytes may be read before [`Self::rest`].
    pub(super) fn stretch(&self) -> usize {
        let turn = self.0.as_ref().map_or(u64::MAX, |limiter| limiter.turn());
        usize::try_from(turn).unwrap_or(usize::MAX)
    }

    /// So many bytes were read, at most a stretch; waits until it is time to read on. Whoever calls this
    /// must be able to give it up at any time.
    pub(super) async fn rest(&self, count: usize) {
        let Some(limiter) = &self.0 else { return };
        let now = Instant::now();
        let until = Instant::from_std(limiter.take(count as u64, now.into_std()).until);
        if until > now {
            sleep_until(until).await;
        }
    }
}

impl Settings {
    /// Connections at once for one file: where the rate is limited, no more than get enough of it that no
    /// server takes them for dead.
    pub(super) fn links_max(&self) -> u64 {
        let worth = self.limit_rate.map_or(u64::MAX, |rate| rate / CLIENT_RATE_MIN);
        self.links.min(worth).max(1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn all_who_read_keep_the_pace_together() {
        let limiter = Limiter::new(1_000_000, Instant::now().into_std());
        let pace = Pace(Some(Arc::new(limiter)));
        let began = Instant::now();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let pace = pace.clone();
                tokio::spawn(async move {
                    for _ in 0..75 {
                        pace.rest(1000).await;
                    }
                })
            })
            .collect();
        for reader in readers {
            reader.await.unwrap();
        }
        let took = began.elapsed();
        // All that there is to read, less the burst.
        assert!((Duration::from_millis(195)..Duration::from_millis(400)).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn without_a_limit_nothing_rests() {
        let (pace, began) = (Pace::default(), Instant::now());
        assert_eq!(pace.stretch(), usize::MAX);
        pace.rest(usize::MAX).await;
        assert!(began.elapsed() < Duration::from_millis(100));
    }
}
