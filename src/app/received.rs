//! A file that has come in, as whoever waits for files is told of it, and the queue in front of that one.
//!
//! What is told has happened: the file is on the disk under its name. Nobody who is told can hold the server up: the
//! queue is bounded, and what does not fit into it is counted and logged, but not told. The files themselves are
//! there in any case.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::{error, warn};

use crate::digest::Digest;
use crate::keys::KeyName;
use crate::limits::RECEIVED_QUEUE_MAX;
use crate::names::FileName;

/// A file that was received: it is on the disk under its name, and survives a power cut.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Where it is.
    pub path: PathBuf,
    /// What it is called: on a server beneath the folder that is served, on a client as the server calls it.
    pub name: FileName,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of its bytes, which were compared with it.
    pub digest: Digest,
    /// The name of the key that its sender has shown; none on a client.
    pub key: Option<KeyName>,
    /// Who sent it; none where that is not known.
    pub peer: Option<SocketAddr>,
    /// In which dialect it came, as the history calls it: `v1`, `v2`.
    pub dialect: &'static str,
    /// When it was received, by the clock of this machine.
    pub time: SystemTime,
}

impl Received {
    /// A file that was received a moment ago, from nobody who is known.
    #[must_use]
    pub fn new(path: PathBuf, name: FileName, size: u64, digest: Digest) -> Self {
        Self { path, name, size, digest, key: None, peer: None, dialect: "v2", time: SystemTime::now() }
    }
}

/// What is called for each file that was received.
pub type OnReceived = dyn Fn(&Received) + Send + Sync;

/// The way to whoever is told.
#[derive(Debug)]
pub(super) struct Tell {
    queue: Sender<Received>,
    lost: AtomicU64,
}

impl Tell {
    /// A queue, and the task that takes from it. The task ends when the queue is empty and nobody can tell any more.
    pub(super) fn start(told: Arc<OnReceived>) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, waiting) = channel(RECEIVED_QUEUE_MAX);
        let task = tokio::spawn(call_all(waiting, told));
        (Self { queue, lost: AtomicU64::new(0) }, task)
    }

    /// Tells of a file, as soon as those before it have been told of. Never waits.
    pub(super) fn tell(&self, received: Received) {
        if self.queue.try_send(received).is_ok() {
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                warn!(
                    event = "not-told",
                    files = lost,
                    "{lost} files were received and nobody was told: too many at once"
                );
            }
        } else if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            // Once for each spell of trouble; how many there were is told when it is over.
            warn!(
                event = "not-told",
                "Nobody is told of some files that were received: {RECEIVED_QUEUE_MAX} wait already"
            );
        }
    }
}

impl Drop for Tell {
    fn drop(&mut self) {
        let lost = *self.lost.get_mut();
        if lost > 0 {
            warn!(
                event = "not-told",
                files = lost,
                "{lost} files were received and nobody was told: too many at once"
            );
        }
    }
}

/// One at a time, in their order, on a thread that may be kept waiting.
async fn call_all(mut waiting: Receiver<Received>, told: Arc<OnReceived>) {
    while let Some(received) = waiting.recv().await {
        let (told, name) = (Arc::clone(&told), received.name.clone());
        let called = tokio::task::spawn_blocking(move || told(&received)).await;
        if called.is_err_and(|error| error.is_panic()) {
            error!(event = "received-panicked", file = %name, "What is called for received files has failed for '{name}'");
        }
    }
}

#[cfg(test)]
#[path = "received/tests.rs"]
mod tests;
