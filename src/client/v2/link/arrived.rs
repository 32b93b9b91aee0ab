//! How far a file has come, or gone, counted by all links that bring it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::client::pace::Pace;

/// How many bytes of a file are here, counted by all its links, which keep one pace.
#[derive(Debug, Default)]
pub(in crate::client::v2) struct Arrived {
    done: AtomicU64,
    size: AtomicU64,
    /// How fast more may arrive, or leave.
    pub(in crate::client::v2) pace: Pace,
    /// It goes to the server.
    is_leaving: bool,
}

impl Arrived {
    /// None so far.
    pub(in crate::client::v2) fn at(pace: &Pace) -> Arc<Self> {
        Arc::new(Self { pace: pace.clone(), ..Self::default() })
    }

    /// None so far of what goes to the server.
    pub(in crate::client::v2) fn leaving_at(pace: &Pace) -> Arc<Self> {
        Arc::new(Self { pace: pace.clone(), is_leaving: true, ..Self::default() })
    }

    pub(in crate::client::v2) fn begin(&self, have: u64, size: u64) {
        self.done.store(have, Ordering::Relaxed);
        self.size.store(size, Ordering::Relaxed);
    }

    pub(in crate::client::v2) fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    /// Bytes that turned out to be worth nothing.
    pub(in crate::client::v2) fn take_back(&self, count: u64) {
        let _ = self
            .done
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |done| Some(done.saturating_sub(count)));
    }

    pub(in crate::client::v2) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn shown(&self) -> String {
        match self.size.load(Ordering::Relaxed) {
            0 if self.is_leaving => "before it answered".to_owned(),
            0 => "before the file came".to_owned(),
            size if self.is_leaving => format!("after {} of {size} bytes were sent", self.done().min(size)),
            size => format!("after {} of {size} bytes", self.done()),
        }
    }
}
