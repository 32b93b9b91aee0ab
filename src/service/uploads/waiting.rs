//! How many bytes of uploads are in memory because they are not written yet, over all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::service::Service;

/// Bytes that wait to be written; counted until this is dropped.
pub(crate) struct Waiting {
    all: Arc<AtomicUsize>,
    len: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(self.len, Ordering::Relaxed);
    }
}

impl Service {
    /// Counts bytes that have arrived.
    pub(crate) fn waits(&self, len: usize) -> Waiting {
        let all = Arc::clone(&self.inner.uploads.waiting);
        all.fetch_add(len, Ordering::Relaxed);
        Waiting { all, len }
    }

    /// Bytes that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.uploads.waiting.load(Ordering::Relaxed)
    }
}
