//! Flushing what was saved, in groups, while more arrives.

use std::sync::Arc;
use std::time::Instant;

use super::{Shared, Totals, aborted};
use crate::client::FetchError;
use crate::limits::{FOLDER_SYNC_FILES, SYNC_BYTES, SYNC_INTERVAL};
use crate::names::FileName;
use crate::staged::StageError;

/// When what was saved is flushed, and the flush that is under way.
pub(super) struct Flushes {
    wanted: bool,
    files: u64,
    bytes: u64,
    at: Instant,
    running: Option<tokio::task::JoinHandle<Result<Unnamed, FetchError>>>,
}

pub(super) type Unnamed = Vec<(FileName, StageError)>;

impl Flushes {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, files: 0, bytes: 0, at: Instant::now(), running: None }
    }

    /// Begins a flush if one is due; says what the last one could not give its name.
    pub(super) async fn poll(&mut self, shared: &Arc<Shared>) -> Result<Unnamed, FetchError> {
        let unnamed = match self.running.take() {
            Some(running) if running.is_finished() => running.await.map_err(aborted)??,
            running @ Some(_) => {
                self.running = running;
                return Ok(Vec::new());
            }
            None => Vec::new(),
        };
        let Totals { files_done, bytes_done, .. } = shared.totals();
        let is_due = files_done - self.files >= FOLDER_SYNC_FILES
            || bytes_done - self.bytes >= SYNC_BYTES
            || (files_done > self.files && self.at.elapsed() >= SYNC_INTERVAL);
        if self.wanted && is_due {
            (self.files, self.bytes, self.at) = (files_done, bytes_done, Instant::now());
            let shared = Arc::clone(shared);
            self.running = Some(tokio::task::spawn_blocking(move || Ok(shared.staged.sync_point()?)));
        }
        Ok(unnamed)
    }

    /// Waits for the one that is under way.
    pub(super) async fn end(self) -> Result<Unnamed, FetchError> {
        match self.running {
            Some(running) => running.await.map_err(aborted)?,
            None => Ok(Vec::new()),
        }
    }
}
