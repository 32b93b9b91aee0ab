//! What has happened since the start, counted as it is told.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::control::Status;
use crate::service::Event;

/// Counts of what has happened.
#[derive(Default)]
pub(in crate::service) struct Counts {
    accepted: AtomicU64,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    stored: AtomicU64,
    stored_bytes: AtomicU64,
    cut: AtomicU64,
    cancelled: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    /// Something has happened.
    pub(in crate::service) fn hear(&self, event: &Event<'_>) {
        match *event {
            Event::Opened { .. } => add(&self.accepted, 1),
            Event::Finished { size, have, .. } => both(&self.sent, &self.sent_bytes, size - have.min(size)),
            Event::Sent { size, .. } => both(&self.sent, &self.sent_bytes, size),
            Event::Cut { done, have, .. } => both(&self.cut, &self.sent_bytes, done.saturating_sub(have)),
            Event::Stored { size, have, .. } => {
                both(&self.stored, &self.stored_bytes, size - have.min(size));
            }
            Event::Taken { size, .. } => both(&self.stored, &self.stored_bytes, size),
            Event::UploadCut { done, have, .. } => {
                both(&self.cut, &self.stored_bytes, done.saturating_sub(have));
            }
            Event::Cancelled { .. } => add(&self.cancelled, 1),
            Event::Refused { .. } | Event::Denied { .. } | Event::NotChanged { .. } => {
                add(&self.refused, 1);
            }
            _ => {}
        }
    }

    /// What they have come to.
    pub(in crate::service) fn tell(&self, status: &mut Status) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        status.accepted = count(&self.accepted);
        (status.sent, status.sent_bytes) = (count(&self.sent), count(&self.sent_bytes));
        (status.stored, status.stored_bytes) = (count(&self.stored), count(&self.stored_bytes));
        (status.cut, status.cancelled) = (count(&self.cut), count(&self.cancelled));
        status.refused = count(&self.refused);
    }
}

fn both(files: &AtomicU64, bytes: &AtomicU64, count: u64) {
    add(files, 1);
    add(bytes, count);
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
