//! Failed attempts to show a key, slowed for each address.
//!
//! A key is always looked at at once, and a good one is never delayed, so an honest client behind the
//! address of a guessing one notices nothing. It is the answer to a failure that waits for its turn,
//! in a ledger as that of `crate::rate`: an address has a few at once and then one a second. Few answers
//! wait at a time; further failures get none. The time is passed in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use super::address::client_of;
use super::lock;
use crate::limits::{
    ATTEMPT_INTERVAL, ATTEMPT_WAIT_MAX, ATTEMPTS_ADDRESSES_MAX, ATTEMPTS_BURST, ATTEMPTS_WAITING_MAX,
};

/// The ledger. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempts(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    addresses: HashMap<IpAddr, Entry>,
    /// As many addresses as this are a reason to look for those that can be forgotten.
    crowd: usize,
}

#[derive(Debug)]
struct Entry {
    /// When all failures so far will have been answered.
    free: Instant,
    /// Answers that wait.
    waiting: u32,
}

/// The turn of one failure's answer. It is waiting for as long as this lives.
#[derive(Debug)]
pub(crate) struct Turn {
    /// When the answer may be given.
    pub(crate) at: Instant,
    address: IpAddr,
    attempts: Attempts,
}

impl Attempts {
    /// An attempt has failed: when it may be answered, or `None` if it must not be answered at all.
    pub(crate) fn failed(&self, address: IpAddr, now: Instant) -> Option<Turn> {
        let address = client_of(address);
        let mut table = self.table();
        if table.addresses.len() >= table.crowd.max(ATTEMPTS_ADDRESSES_MAX) {
            table.forget(now);
        }
        let earliest = earliest(now);
        let entry = table.addresses.entry(address).or_insert(Entry { free: earliest, waiting: 0 });
        if entry.waiting >= ATTEMPTS_WAITING_MAX {
            return None;
        }
        entry.waiting += 1;
        let at = entry.free.max(earliest).min(now + ATTEMPT_WAIT_MAX);
        entry.free = at + ATTEMPT_INTERVAL;
        Some(Turn { at, address, attempts: self.clone() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0)
    }
}

impl Table {
    /// Forgets addresses of which no answer waits: those that have rested, and all if they are too many.
    fn forget(&mut self, now: Instant) {
        let earliest = earliest(now);
        self.addresses.retain(|_, entry| entry.waiting > 0 || entry.free > earliest);
        let resting = self.addresses.values().filter(|entry| entry.waiting == 0).count();
        if resting >= ATTEMPTS_ADDRESSES_MAX / 2 {
            self.addresses.retain(|_, entry| entry.waiting > 0);
        }
        // Twice as many as have to be kept, so that looking through them stays rare.
        self.crowd = 2 * self.addresses.len();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(entry) = self.attempts.table().addresses.get_mut(&self.address) {
            entry.waiting = entry.waiting.saturating_sub(1);
        }
    }
}

/// What was not used before this moment is not saved up.
fn earliest(now: Instant) -> Instant {
    now.checked_sub(ATTEMPT_INTERVAL * (ATTEMPTS_BURST - 1)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Some moment that has a past.
    fn moment() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn a_few_failures_are_answered_at_once_and_then_one_a_second() {
        let (attempts, now) = (Attempts::default(), moment());
        let turns: Vec<Turn> = (0..8).map(|_| attempts.failed(address("192.0.2.1"), now).unwrap()).collect();
        let waits: Vec<_> =
            turns.iter().map(|turn| turn.at.saturating_duration_since(now).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 3]);
        let other = attempts.failed(address("192.0.2.2"), now).unwrap();
        assert!(other.at <= now, "another address has turns of its own");
        drop(turns);
        let rested = now + Duration::from_secs(60);
        let turns: Vec<Turn> =
            (0..6).map(|_| attempts.failed(address("192.0.2.1"), rested).unwrap()).collect();
        assert_eq!(turns.iter().filter(|turn| turn.at <= rested).count(), 5, "a rest is no credit");
    }

    #[test]
    fn few_answers_of_an_address_wait_and_none_for_long() {
        let (attempts, now) = (Attempts::default(), moment());
        let from = |attempts: &Attempts| attempts.failed(address("2001:db8::1"), now);
        let turns: Vec<Turn> = std::iter::from_fn(|| from(&attempts)).take(1000).collect();
        assert_eq!(turns.len(), ATTEMPTS_WAITING_MAX as usize);
        assert!(attempts.failed(address("2001:db8::2"), now).is_none(), "the whole network is one");
        drop(turns);
        // Who gives up and comes again gets no further than the longest wait.
        for _ in 0..1000 {
            assert!(from(&attempts).unwrap().at <= now + ATTEMPT_WAIT_MAX);
        }
    }

    #[test]
    fn the_table_is_bounded_whoever_comes_and_who_waits_is_not_forgotten() {
        let (attempts, now) = (Attempts::default(), moment());
        let _held: Vec<Turn> =
            (0..ATTEMPTS_WAITING_MAX).map(|_| attempts.failed(address("192.0.2.1"), now).unwrap()).collect();
        for number in 0..10 * u32::try_from(ATTEMPTS_ADDRESSES_MAX).unwrap() {
            drop(attempts.failed(IpAddr::V4(number.into()), now));
            assert!(attempts.table().addresses.len() <= ATTEMPTS_ADDRESSES_MAX + 1);
        }
        assert!(attempts.failed(address("192.0.2.1"), now).is_none());
        attempts.table().forget(now + Duration::from_secs(60));
        assert_eq!(attempts.table().addresses.len(), 1, "whoever has rested is forgotten");
    }
}
