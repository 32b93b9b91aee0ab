//! What is going on at this moment: who is connected, what is being moved, and what has been since the start.
//!
//! Connections and transfers enter themselves and are gone when they are dropped; only weak references are kept
//! here. Whoever asks walks through them in steps, so that neither memory nor a lock is held for long. Nothing is
//! decided here.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::watch;

use super::lock;
use crate::limits::CONTROL_PAGE;

mod counts;
mod moving;
mod presence;
mod struck;

pub(super) use counts::Counts;
pub(crate) use moving::Moving;
pub(super) use moving::What;
pub(crate) use presence::Presence;
pub(super) use struck::{Asked, Struck};

/// Letters that tell the ids of one run of the server from those of others.
const RUN_LETTERS: usize = 3;

/// What is going on.
pub(crate) struct Live {
    run: String,
    pub(super) began: Instant,
    pub(super) started: Timestamp,
    serial: AtomicU64,
    moving: Mutex<BTreeMap<u64, Weak<Moving>>>,
    present: Mutex<BTreeMap<u64, Weak<Presence>>>,
    door: Mutex<Door>,
    pub(super) counts: Counts,
    pub(super) struck: Struck,
    /// Stirred whenever a transfer is cancelled.
    cancels: watch::Sender<()>,
}

/// Where connections come in.
#[derive(Clone, Default)]
pub(super) struct Door {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) connections_max: usize,
}

impl Live {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            run: (0..RUN_LETTERS).map(|_| fastrand::lowercase()).collect(),
            began: Instant::now(),
            started: Timestamp::now(),
            serial: AtomicU64::new(0),
            moving: Mutex::default(),
            present: Mutex::default(),
            door: Mutex::default(),
            counts: Counts::default(),
            struck: Struck::default(),
            cancels: watch::Sender::new(()),
        })
    }

    /// Connections come in here from now on, so many at once.
    pub(crate) fn opens(&self, address: Option<SocketAddr>, connections_max: usize) {
        let mut door = lock(&self.door);
        door.addresses.extend(address);
        door.connections_max = door.connections_max.max(connections_max);
    }

    pub(super) fn door(&self) -> Door {
        lock(&self.door).clone()
    }

    /// Somebody has connected; gone when what is returned is dropped.
    pub(crate) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Arc<Presence> {
        let serial = self.next();
        let presence = Arc::new(Presence::new(Arc::clone(self), serial, peer));
        lock(&self.present).insert(serial, Arc::downgrade(&presence));
        presence
    }

    /// A transfer begins; it is over when what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>, what: What) -> Arc<Moving> {
        let serial = self.next();
        let id = format!("{}-{serial}", self.run);
        let moving = Arc::new(Moving::new(Arc::clone(self), serial, id, what));
        lock(&self.moving).insert(serial, Arc::downgrade(&moving));
        moving
    }

    fn next(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn leave(&self, presence: u64) {
        lock(&self.present).remove(&presence);
    }

    fn end(&self, moving: u64) {
        lock(&self.moving).remove(&moving);
    }

    /// The next few transfers behind this one.
    pub(super) fn moving(&self, behind: u64) -> Vec<Arc<Moving>> {
        // Nothing may be dropped under the lock: whatever is dropped takes itself out.
        step(&lock(&self.moving), behind)
    }

    /// The next few connections behind this one.
    pub(super) fn present(&self, behind: u64) -> Vec<Arc<Presence>> {
        step(&lock(&self.present), behind)
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> usize {
        lock(&self.present).len()
    }

    /// All transfers that are running, in steps.
    pub(super) fn all_moving(&self) -> impl Iterator<Item = Arc<Moving>> {
        let mut behind = 0;
        std::iter::from_fn(move || {
            let some = self.moving(behind);
            behind = some.last()?.serial();
            Some(some)
        })
        .flatten()
        .filter(|moving| moving.is_running())
    }

    /// The running transfer that is called so.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Moving>> {
        let (run, serial) = id.rsplit_once('-')?;
        let serial: u64 = serial.parse().ok().filter(|_| run == self.run)?;
        let found = lock(&self.moving).get(&serial).and_then(Weak::upgrade);
        found.filter(|moving| moving.is_running())
    }

    /// Hears whenever a transfer is cancelled.
    pub(crate) fn cancels(&self) -> watch::Receiver<()> {
        self.cancels.subscribe()
    }

    /// Ends a transfer, by the word of the holder of a key; `false` if somebody has done so before.
    pub(super) fn strike(&self, moving: &Moving, by: &str) -> bool {
        if !moving.strike(by) {
            return false;
        }
        self.struck.note(moving, Instant::now());
        self.cancels.send_replace(());
        true
    }

    /// Whether what is asked for was cancelled, and whoever asks has not heard of it, or goes on all the same.
    pub(super) fn is_struck(&self, asked: &Asked<'_>) -> bool {
        self.struck.is_struck(asked, Instant::now())
    }

    /// A client has heard that its transfer was cancelled.
    pub(crate) fn has_heard(&self, moving: &Moving) {
        self.struck.heard(moving);
    }
}

/// The next few that are still in use behind a number. What is dropped meanwhile is dropped by whoever gets them.
fn step<T>(all: &BTreeMap<u64, Weak<T>>, behind: u64) -> Vec<Arc<T>> {
    let next = all.range(behind.saturating_add(1)..).filter_map(|(_, one)| one.upgrade());
    next.take(CONTROL_PAGE).collect()
}

/// Whose a transfer is: its address, without the port.
fn address_of(moving: &Moving) -> IpAddr {
    moving.caller().peer().ip()
}

#[cfg(test)]
mod tests;
