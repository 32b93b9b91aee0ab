//! Limited rates: what all clients get together, and what each one gets.
//!
//! [`Rates`] belongs to the server; each connection gets a [`Throttle`] from it, which its
//! [`Wire`](super::wire::Wire) asks before it sends. Nothing is asked where nothing is limited. All
//! connections of a client share its rate; a client is an address, or a public IPv6 network of 64 bits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::{Instant, sleep_until};

use super::Settings;
use crate::limits::{RATE_CLIENTS_RESTING_MAX, RATE_FRAME_BYTES_MIN, RATE_FRAME_TURNS};
use crate::rate::{Due, Limiter};
use crate::service::address::client_of;

/// The limits that are in force.
pub(super) struct Rates {
    total: Option<Limiter>,
    clients: Option<Clients>,
}

/// The rate of each client.
struct Clients {
    rate: u64,
    table: Mutex<Table>,
}

/// Clients that have a connection, and those whose rate has not rested since they had one: whoever
/// comes back at once gets no second burst.
struct Table {
    limiters: HashMap<IpAddr, Limiter>,
    /// As many clients as this are a reason to look for those that can be forgotten.
    crowd: usize,
}

/// One connection's share of the limits.
pub(super) struct Throttle {
    /// The client's own limit, and the limit of all.
    limiters: [Option<Limiter>; 2],
    /// The most bytes of one turn.
    turn: u64,
    due: Due,
    /// Bytes that were granted and have not been sent.
    granted: u64,
}

impl Rates {
    pub(super) fn new(settings: &Settings) -> Self {
        let now = Instant::now().into_std();
        let total = settings.rate_limit.map(|rate| Limiter::new(rate, now));
        let clients = settings.rate_limit_per_client.map(Clients::new);
        Self { total, clients }
    }

    /// The share of a connection from this address; `None` if nothing is limited.
    pub(super) fn of(&self, address: IpAddr) -> Option<Throttle> {
        let own = self.clients.as_ref().map(|clients| clients.of(address, Instant::now()));
        let limiters = [own, self.total.clone()];
        let turn = limiters.iter().flatten().map(Limiter::turn).min()?;
        Some(Throttle { limiters, turn, due: Due::default(), granted: 0 })
    }
}

impl Clients {
    fn new(rate: u64) -> Self {
        let table = Table { limiters: HashMap::new(), crowd: RATE_CLIENTS_RESTING_MAX };
        Self { rate, table: Mutex::new(table) }
    }

    fn of(&self, address: IpAddr, now: Instant) -> Limiter {
        let now = now.into_std();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.limiters.len() >= table.crowd {
            table.forget(now);
        }
        let new = || Limiter::new(self.rate, now);
        table.limiters.entry(client_of(address)).or_insert_with(new).clone()
    }
}

impl Table {
    /// Forgets clients without a connection: those that have rested, and all of them if they are too many.
    fn forget(&mut self, now: std::time::Instant) {
        self.limiters.retain(|_, limiter| !(limiter.is_unshared() && limiter.is_rested(now)));
        if self.limiters.values().filter(|limiter| limiter.is_unshared()).count() > RATE_CLIENTS_RESTING_MAX {
            self.limiters.retain(|_, limiter| !limiter.is_unshared());
        }
        self.crowd = self.limiters.len() + RATE_CLIENTS_RESTING_MAX;
    }
}

impl Throttle {
    /// Waits for this connection's turn if it has nothing left of the last one; how many of `wanted` bytes
    /// may be sent now.
    pub(super) async fn allow(&mut self, wanted: u64) -> u64 {
        if self.granted == 0 {
            let granted = self.due.take(wanted, self.turn);
            // The client's own limit first: nobody takes a turn of all that it must not use yet.
            for limiter in self.limiters.iter().flatten() {
                let now = Instant::now();
                let from = Instant::from_std(limiter.take(granted, now.into_std()).from);
                if from > now {
                    sleep_until(from).await;
                }
            }
            self.granted = granted;
        }
        self.granted.min(wanted)
    }

    /// So many bytes were sent.
    pub(super) fn sent(&mut self, count: u64) {
        self.granted = self.granted.saturating_sub(count);
    }

    /// The most bytes that a frame of version 2 should have: while it is sent, no other file on the same
    /// connection is.
    pub(super) fn frame_max(&self) -> u64 {
        self.turn.saturating_mul(RATE_FRAME_TURNS).max(RATE_FRAME_BYTES_MIN)
    }
}

impl Drop for Throttle {
    /// What a connection that has ended did not send is for others.
    fn drop(&mut self) {
        if self.granted > 0 {
            self.limiters.iter().flatten().for_each(|limiter| limiter.give_back(self.granted));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_of_one_client_share_its_rate_and_it_is_remembered_until_it_has_rested() {
        let clients = Clients::new(1000);
        let now = Instant::now() + Duration::from_secs(60);
        let limiter = clients.of(address("192.0.2.1"), now);
        let _ = limiter.take(1, now.into_std());
        assert!(!clients.of(address("::ffff:192.0.2.1"), now).is_rested(now.into_std()), "the same");
        assert!(clients.of(address("192.0.2.2"), now).is_rested(now.into_std()), "another one");
        drop(limiter);
        let mut table = clients.table.lock().unwrap();
        table.forget(now.into_std());
        assert_eq!(table.limiters.len(), 1, "only one of them has moved anything");
        table.forget((now + Duration::from_secs(60)).into_std());
        assert_eq!(table.limiters.len(), 0);
    }

    #[test]
    fn the_table_of_clients_is_bounded_whoever_comes() {
        let clients = Clients::new(1000);
        let now = Instant::now() + Duration::from_secs(60);
        let held = clients.of(address("192.0.2.1"), now);
        for i in 0..10 * u32::try_from(RATE_CLIENTS_RESTING_MAX).unwrap() {
            let limiter = clients.of(IpAddr::V4(i.into()), now);
            let _ = limiter.take(1, now.into_std());
        }
        let table = clients.table.lock().unwrap();
        assert!(table.limiters.len() <= 2 * RATE_CLIENTS_RESTING_MAX + 1, "{}", table.limiters.len());
        assert!(table.limiters.contains_key(&address("192.0.2.1")), "who is connected is not forgotten");
        drop(held);
    }

    #[tokio::test]
    async fn what_was_granted_and_not_sent_is_there_for_others() {
        let limiter = Limiter::new(100_000, Instant::now().into_std());
        let share = || {
            let limiters = [None, Some(limiter.clone())];
            Throttle { turn: limiter.turn(), limiters, due: Due::default(), granted: 0 }
        };
        let mut one = share();
        assert_eq!(one.allow(u64::MAX).await, limiter.turn());
        one.sent(24);
        assert_eq!(one.allow(10).await, 10);
        assert_eq!(one.allow(u64::MAX).await, limiter.turn() - 24, "the rest of the turn");
        let before = limiter.take(0, Instant::now().into_std()).from;
        drop(one);
        let after = limiter.take(0, Instant::now().into_std()).from;
        assert_eq!(before - after, Duration::from_micros(10 * (limiter.turn() - 24)));
    }
}
