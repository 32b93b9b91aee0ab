//! One connection as others see it while it is open.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::Timestamp;

use super::Live;
use crate::control::Connected;
use crate::keys::KeyName;
use crate::service::control::IDLE;
use crate::service::history::Dialect;
use crate::service::lock;

/// What a connection speaks that has not said enough to tell.
const UNKNOWN: &str = "unknown";

/// A connection that is open.
pub(crate) struct Presence {
    live: Arc<Live>,
    serial: u64,
    peer: SocketAddr,
    began: Instant,
    since: Timestamp,
    is_secured: AtomicBool,
    said: Mutex<Said>,
    sent: AtomicU64,
    received: AtomicU64,
}

/// What a client has said of itself.
#[derive(Default)]
struct Said {
    dialect: Option<Dialect>,
    key: Option<KeyName>,
}

impl Presence {
    pub(super) fn new(live: Arc<Live>, serial: u64, peer: SocketAddr) -> Self {
        Self {
            live,
            serial,
            peer,
            began: Instant::now(),
            since: Timestamp::now(),
            is_secured: AtomicBool::new(false),
            said: Mutex::default(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    pub(in crate::service) fn serial(&self) -> u64 {
        self.serial
    }

    pub(in crate::service) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// It is encrypted from now on.
    pub(crate) fn secured(&self) {
        self.is_secured.store(true, Ordering::Relaxed);
    }

    /// It has turned out which dialect the client speaks.
    pub(crate) fn speaks(&self, dialect: Dialect) {
        lock(&self.said).dialect = Some(dialect);
    }

    /// The client has shown a key that is called so.
    pub(crate) fn shows(&self, key: Option<&KeyName>) {
        lock(&self.said).key = key.cloned();
    }

    /// So many bytes were sent.
    pub(crate) fn sent(&self, count: u64) {
        self.sent.fetch_add(count, Ordering::Relaxed);
    }

    /// So many bytes have come.
    pub(crate) fn received(&self, count: u64) {
        self.received.fetch_add(count, Ordering::Relaxed);
    }

    /// What is said of it, as of one that moves nothing.
    pub(in crate::service) fn tell(&self) -> Connected {
        let said = lock(&self.said);
        let key = said.key.as_ref().map(ToString::to_string);
        let dialect = said.dialect.map_or(UNKNOWN, Dialect::name).to_owned();
        drop(said);
        Connected {
            peer: self.peer.to_string(),
            key,
            dialect,
            secure: self.is_secured.load(Ordering::Relaxed),
            since: format!("{:.0}", self.since),
            seconds: self.began.elapsed().as_secs(),
            doing: IDLE.to_owned(),
            transfers: Vec::new(),
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.live.leave(self.serial);
    }
}
