//! Transfers that were cancelled a short while ago, for clients that come again.
//!
//! A client that has heard of it gets nothing more for that transfer, on whatever connection. One that could not
//! be told, because its dialect has no words for it or because it took nothing any more, is told once when it asks
//! for the same file the next time.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Instant;

use super::{Moving, address_of};
use crate::control::Direction;
use crate::limits::{CANCELLED_REMEMBERED, CANCELLED_REMEMBERED_MAX};
use crate::names::FileName;
use crate::service::access::Caller;
use crate::service::accounts::TRANSFER_LEN;
use crate::service::lock;
use crate::token::KeyId;

/// What somebody asks for.
pub(in crate::service) struct Asked<'a> {
    pub(in crate::service) caller: &'a Caller,
    pub(in crate::service) direction: Direction,
    pub(in crate::service) name: &'a FileName,
    pub(in crate::service) transfer: [u8; TRANSFER_LEN],
}

/// Those that are remembered, the oldest first.
#[derive(Default)]
pub(in crate::service) struct Struck(Mutex<VecDeque<Entry>>);

struct Entry {
    address: IpAddr,
    key: Option<KeyId>,
    direction: Direction,
    name: FileName,
    transfer: [u8; TRANSFER_LEN],
    until: Instant,
    /// The client has heard of it.
    is_told: bool,
}

impl Struck {
    /// A transfer was cancelled.
    pub(super) fn note(&self, moving: &Moving, now: Instant) {
        let mut entries = lock(&self.0);
        while entries.len() >= CANCELLED_REMEMBERED_MAX || entries.front().is_some_and(|old| old.until <= now)
        {
            entries.pop_front();
        }
        entries.push_back(Entry {
            address: address_of(moving),
            key: moving.caller().key_id(),
            direction: moving.direction(),
            name: moving.name().clone(),
            transfer: moving.transfer(),
            until: now + CANCELLED_REMEMBERED,
            is_told: false,
        });
    }

    /// Its client has heard of it.
    pub(super) fn heard(&self, moving: &Moving) {
        let asked = Asked {
            caller: moving.caller(),
            direction: moving.direction(),
            name: moving.name(),
            transfer: moving.transfer(),
        };
        for entry in lock(&self.0).iter_mut().filter(|entry| entry.is_of(&asked)) {
            entry.is_told |= entry.transfer == asked.transfer;
        }
    }

    /// Whether what is asked for is to be refused, because it was cancelled.
    pub(super) fn is_struck(&self, asked: &Asked<'_>, now: Instant) -> bool {
        let mut entries = lock(&self.0);
        // Nothing was cancelled, mostly.
        if entries.is_empty() {
            return false;
        }
        let of_it = |entry: &Entry| entry.until > now && entry.is_of(asked);
        let has_number = asked.transfer != [0; TRANSFER_LEN];
        if has_number && entries.iter().any(|entry| of_it(entry) && entry.transfer == asked.transfer) {
            return true;
        }
        let untold = entries.iter().position(|entry| of_it(entry) && !entry.is_told);
        untold.and_then(|at| entries.remove(at)).is_some()
    }
}

impl Entry {
    fn is_of(&self, asked: &Asked<'_>) -> bool {
        let Asked { caller, direction, name, .. } = asked;
        (self.address, self.key, self.direction) == (caller.peer().ip(), caller.key_id(), *direction)
            && self.name == **name
    }
}
