//! What uploads have left behind and nobody goes on with is removed, at the start and now and then.
//!
//! A server that has no keys takes no uploads, and touches nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Event, Service};
use crate::limits::SWEEP_INTERVAL;
use crate::storage::Swept;

impl Service {
    /// Removes parts of uploads that have not been gone on with for `older_than`, until `stopping` is cancelled.
    pub async fn sweep(&self, older_than: Duration, stopping: CancellationToken) {
        let work = async {
            loop {
                if self.inner.access.has_keys() {
                    self.sweep_once(older_than).await;
                }
                tokio::time::sleep(SWEEP_INTERVAL.min(older_than)).await;
            }
        };
        stopping.run_until_cancelled(work).await;
    }

    async fn sweep_once(&self, older_than: Duration) {
        let inner = Arc::clone(&self.inner);
        // Whoever receives holds a lock on what it receives, which the store looks at.
        let swept = tokio::task::spawn_blocking(move || inner.storage.sweep(older_than, &|_| false));
        match swept.await.unwrap_or_else(|aborted| Err(io::Error::other(aborted))) {
            Ok(Swept { files: 0, .. }) => {}
            Ok(swept) => self.tell(&Event::Swept { swept }),
            Err(error) => self.tell(&Event::NotSwept { cause: &error.to_string() }),
        }
    }
}
