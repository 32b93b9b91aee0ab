//! What uploads have left behind and nobody goes on with is removed, at the start and now and then.
//!
//! A server that has no keys takes no uploads, and touches nothing.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Event, Service};
use crate::limits::{PUSH_SPOOL_AGE, SWEEP_INTERVAL};
use crate::names::FileName;
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
        let service = self.clone();
        // Whoever receives holds a lock on what it receives, which the store looks at.
        let swept = tokio::task::spawn_blocking(move || {
            let storage = &service.inner.storage;
            let is_owned = |file: &FileName| service.is_on_its_way(file);
            let pushed = storage.sweep_pushed(older_than.min(PUSH_SPOOL_AGE), &is_owned)?;
            let swept = storage.sweep(older_than, &|_| false)?;
            Ok(Swept { files: swept.files + pushed.files, bytes: swept.bytes + pushed.bytes })
        });
        match swept.await.unwrap_or_else(|aborted| Err(io::Error::other(aborted))) {
            Ok(Swept { files: 0, .. }) => {}
            Ok(swept) => self.tell(&Event::Swept { swept }),
            Err(error) => self.tell(&Event::NotSwept { cause: &error.to_string() }),
        }
    }
}
