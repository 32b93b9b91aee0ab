//! How long to wait before trying again: doubling, capped, with a little chance added, so that many
//! clients of a server that comes back do not all arrive at once.

use std::time::Duration;

use crate::limits::{RETRIES, RETRY_DELAY, RETRY_DELAY_MAX, RETRY_JITTER_PERCENT};

/// A schedule of waits.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Waits in all.
    pub retries: u32,
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { retries: RETRIES, first: RETRY_DELAY, longest: RETRY_DELAY_MAX }
    }
}

impl Backoff {
    /// The waits, one after the other.
    pub(super) fn waits(&self) -> impl Iterator<Item = Duration> + use<> {
        let Self { retries, first, longest } = *self;
        (0..retries).map(move |index| {
            let base = first.saturating_mul(2_u32.saturating_pow(index)).min(longest);
            base.saturating_add(base.mul_f64(f64::from(RETRY_JITTER_PERCENT) / 100.0 * fastrand::f64()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_waits_are_sixty_three_seconds_in_all_and_never_less() {
        for _ in 0..1000 {
            let waits: Vec<Duration> = Backoff::default().waits().collect();
            assert_eq!(waits.len(), 6);
            for (wait, seconds) in waits.iter().zip([1, 2, 4, 8, 16, 32]) {
                let base = Duration::from_secs(seconds);
                assert!(*wait >= base && *wait <= base.mul_f64(1.1), "{wait:?} for {base:?}");
            }
            assert!(waits.iter().sum::<Duration>() >= Duration::from_secs(63));
        }
    }

    #[test]
    fn chance_is_really_added() {
        let waits = || Backoff::default().waits().collect::<Vec<_>>();
        assert_ne!(waits(), waits());
    }

    #[test]
    fn no_setting_overflows() {
        let extreme = Backoff { retries: 200, first: Duration::MAX, longest: Duration::MAX };
        assert_eq!(extreme.waits().last(), Some(Duration::MAX));
        assert_eq!(Backoff { retries: 0, ..extreme }.waits().count(), 0);
    }
}
