//! One transfer as others see it while it runs, and the means by which they end it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::Live;
use crate::control::{Cancelled, Direction, Running};
use crate::limits::{CANCEL_GRACE, V2_LINKS_MAX};
use crate::names::FileName;
use crate::priority::Priority;
use crate::service::access::Caller;
use crate::service::accounts::TRANSFER_LEN;
use crate::service::history::Dialect;
use crate::service::lock;

/// What is moved, and for whom.
pub(in crate::service) struct What {
    pub(in crate::service) caller: Caller,
    pub(in crate::service) dialect: Dialect,
    pub(in crate::service) direction: Direction,
    pub(in crate::service) name: FileName,
    /// Bytes of the file.
    pub(in crate::service) size: u64,
    /// Bytes of it that need not be moved.
    pub(in crate::service) have: u64,
    /// The number that its requests share; zero for none.
    pub(in crate::service) transfer: [u8; TRANSFER_LEN],
}

/// A transfer that is running.
pub(crate) struct Moving {
    live: Arc<Live>,
    serial: u64,
    id: String,
    what: What,
    moved: AtomicU64,
    priority: AtomicU8,
    began: Instant,
    /// The connections that take part in it, as far as they are of interest.
    peers: Mutex<BTreeSet<SocketAddr>>,
    /// Who has cancelled it, and when.
    struck: OnceLock<(String, Instant)>,
    cancelled: CancellationToken,
}

impl Moving {
    pub(super) fn new(live: Arc<Live>, serial: u64, id: String, what: What) -> Self {
        let peers = Mutex::new(BTreeSet::from([what.caller.peer()]));
        let (moved, began) = (AtomicU64::new(0), Instant::now());
        let (struck, cancelled) = (OnceLock::new(), CancellationToken::new());
        let priority = AtomicU8::new(Priority::default().number());
        Self { live, serial, id, what, moved, priority, began, peers, struck, cancelled }
    }

    pub(in crate::service) fn serial(&self) -> u64 {
        self.serial
    }

    /// What it is called.
    pub(in crate::service) fn id(&self) -> &str {
        &self.id
    }

    /// Whose it is.
    pub(in crate::service) fn caller(&self) -> &Caller {
        &self.what.caller
    }

    /// The file.
    pub(in crate::service) fn name(&self) -> &FileName {
        &self.what.name
    }

    pub(in crate::service) fn direction(&self) -> Direction {
        self.what.direction
    }

    pub(super) fn transfer(&self) -> [u8; TRANSFER_LEN] {
        self.what.transfer
    }

    /// So many more bytes were moved.
    pub(in crate::service) fn advance(&self, count: u64) {
        self.moved.fetch_add(count, Ordering::Relaxed);
    }

    /// It is so urgent.
    pub(crate) fn rank(&self, priority: Priority) {
        self.priority.store(priority.number(), Ordering::Relaxed);
    }

    /// Another connection takes part in it.
    pub(in crate::service) fn join(&self, peer: SocketAddr) {
        let mut peers = lock(&self.peers);
        if (peers.len() as u64) < 2 * V2_LINKS_MAX {
            peers.insert(peer);
        }
    }

    /// Looks at each connection that takes part in it.
    pub(in crate::service) fn each_peer(&self, look: impl FnMut(&SocketAddr)) {
        lock(&self.peers).iter().for_each(look);
    }

    fn done(&self) -> u64 {
        self.what.have.saturating_add(self.moved.load(Ordering::Relaxed)).min(self.what.size)
    }

    /// Whether there is something left to be moved, and wanted. An upload is running until it is stored.
    pub(in crate::service) fn is_running(&self) -> bool {
        let is_moved = self.what.direction == Direction::Download && self.done() == self.what.size;
        self.struck.get().is_none() && !is_moved
    }

    pub(super) fn strike(&self, by: &str) -> bool {
        let is_first = self.struck.set((by.to_owned(), Instant::now())).is_ok();
        self.cancelled.cancel();
        is_first
    }

    /// Who has cancelled it, if somebody has.
    pub(crate) fn cancelled_by(&self) -> Option<&str> {
        self.struck.get().map(|(by, _)| by.as_str())
    }

    /// Waits until somebody cancels it.
    pub(crate) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Waits until somebody has cancelled it and the time is over in which what was under way had to be taken.
    pub(crate) async fn overdue(&self) {
        self.cancelled().await;
        if let Some((_, at)) = self.struck.get() {
            sleep_until((*at + CANCEL_GRACE).into()).await;
        }
    }

    /// What is said of it.
    pub(in crate::service) fn tell(&self) -> Running {
        let What { caller, dialect, direction, name, size, .. } = &self.what;
        let (moved, elapsed) = (self.moved.load(Ordering::Relaxed), self.began.elapsed());
        let rate = u128::from(moved) * 1000 / elapsed.as_millis().max(1);
        Running {
            id: self.id.clone(),
            peer: caller.peer().to_string(),
            key: caller.key_name().map(ToString::to_string),
            dialect: dialect.name().to_owned(),
            direction: direction.name().to_owned(),
            name: String::from_utf8_lossy(name.as_bytes()).into_owned(),
            size: *size,
            done: self.done(),
            moved,
            seconds: elapsed.as_secs(),
            rate: u64::try_from(rate).unwrap_or(u64::MAX),
            priority: self.priority.load(Ordering::Relaxed),
        }
    }

    /// What is said when it was cancelled.
    pub(in crate::service) fn tell_cancelled(&self) -> Cancelled {
        let Running { id, peer, key, direction, name, .. } = self.tell();
        Cancelled { id, peer, key, direction, name }
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.live.end(self.serial);
    }
}
