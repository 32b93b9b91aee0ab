//! A limited rate: a bucket that grants bytes in the order in which they are asked for.
//!
//! A bucket knows no clock; whoever asks says what time it is, and waits itself for the time that it is
//! told. It is a ledger of one line: the moment at which all that was granted will have been moved at
//! the rate. A grant begins where the one before it ends, so nobody is passed over, nothing is
//! rounded away, and who is late may catch up as far as the burst goes. Grants are small: whoever
//! asks again for each of them takes turns with all others, and all get equally much.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{
    RATE_BURST, RATE_TURN, RATE_TURN_BYTES_MAX, RATE_TURN_BYTES_MIN, RATE_TURN_MAX, RATE_TURNS_DUE,
};

const NANOS: u128 = 1_000_000_000;

/// What may be moved at a rate.
#[derive(Debug)]
struct Bucket {
    /// Bytes per second, at least 1.
    rate: u64,
    /// When all that was granted will have been moved.
    free: Instant,
    /// What the division by the rate left over, in bytes × 10⁹.
    carry: u128,
}

/// A rate that is shared by all who hold a clone of it.
#[derive(Clone, Debug)]
pub struct Limiter {
    bucket: Arc<Mutex<Bucket>>,
    turn: u64,
}

/// When bytes that were granted may be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Not before this moment.
    pub from: Instant,
    /// By then they will have been moved at the rate; the next grant begins here.
    pub until: Instant,
}

/// The bytes of a turn at a rate: few enough that others get their turn soon, and enough
/// that they are worth a system call.
#[must_use]
pub fn turn(rate: u64) -> u64 {
    let within =
        |time: Duration| u64::try_from(u128::from(rate) * time.as_nanos() / NANOS).unwrap_or(u64::MAX);
    let least = RATE_TURN_BYTES_MIN.min(within(RATE_TURN_MAX)).max(1);
    within(RATE_TURN).clamp(least, RATE_TURN_BYTES_MAX)
}

/// What is due to one of those who take turns (deficit round robin): what it did not use of its last turns,
/// within a bound, it may use in the next. Else whoever has small things to move would get less.
#[derive(Debug, Default)]
pub struct Due(u64);

impl Due {
    /// How many of `wanted` bytes to take where a turn has so many.
    pub fn take(&mut self, wanted: u64, turn: u64) -> u64 {
        let most = turn.saturating_add(self.0);
        let bytes = wanted.min(most);
        self.0 = (most - bytes).min(turn.saturating_mul(RATE_TURNS_DUE));
        bytes
    }
}

impl Limiter {
    /// So many bytes per second (0 counts as 1), and a whole burst to begin with.
    #[must_use]
    pub fn new(rate: u64, now: Instant) -> Self {
        let rate = rate.max(1);
        let bucket = Bucket { rate, free: earliest(now), carry: 0 };
        Self { bucket: Arc::new(Mutex::new(bucket)), turn: turn(rate) }
    }

    /// How many bytes to take at a time, so that all take turns.
    #[must_use]
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// Grants so many bytes, which should be no more than a turn.
    #[must_use]
    pub fn take(&self, bytes: u64, now: Instant) -> Grant {
        self.lock().take(bytes, now)
    }

    /// Takes back bytes that were granted and will not be moved.
    pub fn give_back(&self, bytes: u64) {
        self.lock().give_back(bytes);
    }

    /// Whether it is as if nothing had ever been granted.
    #[must_use]
    pub fn is_rested(&self, now: Instant) -> bool {
        self.lock().free <= earliest(now)
    }

    /// Whether nobody else holds it.
    #[must_use]
    pub fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.bucket) == 1
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was not moved before this moment will not be caught up with.
fn earliest(now: Instant) -> Instant {
    now.checked_sub(RATE_BURST).unwrap_or(now)
}

impl Bucket {
    fn take(&mut self, bytes: u64, now: Instant) -> Grant {
        let earliest = earliest(now);
        if self.free < earliest {
            (self.free, self.carry) = (earliest, 0);
        }
        let from = self.free;
        let whole = u128::from(bytes) * NANOS + self.carry;
        let time = duration(whole / u128::from(self.rate));
        self.carry = whole % u128::from(self.rate);
        // No end of time is that near: a turn lasts at most RATE_TURN_MAX, or one byte.
        self.free = from.checked_add(time).unwrap_or(from);
        Grant { from, until: self.free }
    }

    fn give_back(&mut self, bytes: u64) {
        let time = duration(u128::from(bytes) * NANOS / u128::from(self.rate));
        self.free = self.free.checked_sub(time).unwrap_or(self.free);
    }
}

fn duration(nanos: u128) -> Duration {
    u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
}

#[cfg(test)]
#[path = "rate/tests.rs"]
mod tests;
