//! Digests of files: computed once, however many ask, and remembered.
//!
//! A digest belongs to an [`Identity`]: when a file changes, its identity does. It is remembered
//! only if the file had been quiet for [`DIGEST_SETTLED`] when hashing began and was untouched when
//! it ended, because a change within one tick of a coarse clock leaves no trace.
//! A computation that nobody waits for any more is given up.
//! The bounded memory here answers first; behind it stands the catalog, which outlives the process.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, oneshot, watch};

use crate::catalog::Catalog;
use crate::digest::{Md5, Md5Hasher};
use crate::limits::{DIGEST_SETTLED, DIGESTS_MAX, HASH_CHUNK, HASHING_MAX};
use crate::storage::{FileTime, Identity, StoredFile};

use super::lock;
use super::memory::Memory;

/// Why there is no digest.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum HashError {
    /// The file is not what it was when it was opened.
    #[error("the file changed while it was being hashed")]
    Changed,
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Io(Arc<io::Error>),
    /// There is no such block, or only one, which has no value.
    #[error("block {0} of the file has no value")]
    NoValue(u64),
    /// Whoever computed it was stopped.
    #[error("hashing was stopped")]
    Stopped,
}

/// Digests are all of one size: their count is bound enough.
const WEIGHT: usize = 0;

type Outcome = Option<Result<Md5, HashError>>;

/// A running computation, alive as long as somebody waits for it.
struct Job {
    outcome: watch::Receiver<Outcome>,
}

/// How urgent a digest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// A peer waits for it.
    Now,
    /// Nobody has asked yet: only time that is left over is spent on it.
    Ahead,
}

/// The digests of one service.
pub(crate) struct Digests {
    shared: Arc<Shared>,
}

struct Shared {
    known: Mutex<Memory<Identity, Md5>>,
    catalog: Arc<dyn Catalog>,
    running: Mutex<HashMap<Identity, Weak<Job>>>,
    turns: Semaphore,
}

impl Digests {
    pub(crate) fn new(catalog: Arc<dyn Catalog>) -> Self {
        let shared = Shared {
            known: Mutex::new(Memory::new(DIGESTS_MAX, usize::MAX)),
            catalog,
            running: Mutex::default(),
            turns: Semaphore::new(HASHING_MAX),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The MD5 of this version of a file, if it can be told without any wait.
    pub(crate) fn recall(&self, identity: &Identity) -> Option<Md5> {
        lock(&self.shared.known).recall(identity)
    }

    /// The MD5 of `file`.
    pub(crate) async fn md5(&self, file: &Arc<StoredFile>, priority: Priority) -> Result<Md5, HashError> {
        if let Some(md5) = self.recall(file.identity()) {
            return Ok(md5);
        }
        let job = self.join_or_start(file, priority);
        let mut outcome = job.outcome.clone();
        let told = outcome.wait_for(Option::is_some).await.map_err(|_| HashError::Stopped)?;
        told.clone().unwrap_or(Err(HashError::Stopped))
    }

    fn join_or_start(&self, file: &Arc<StoredFile>, priority: Priority) -> Arc<Job> {
        let mut running = lock(&self.shared.running);
        if let Some(job) = running.get(file.identity()).and_then(Weak::upgrade) {
            return job;
        }
        let (teller, outcome) = watch::channel(None);
        let job = Arc::new(Job { outcome });
        let interest = Arc::downgrade(&job);
        running.insert(*file.identity(), interest.clone());
        tokio::spawn(compute(Arc::clone(&self.shared), Arc::clone(file), priority, interest, teller));
        job
    }
}

/// Looks into the catalog, or waits for a turn and hashes; remembers, tells.
async fn compute(
    shared: Arc<Shared>,
    file: Arc<StoredFile>,
    priority: Priority,
    interest: Weak<Job>,
    teller: watch::Sender<Outcome>,
) {
    let outcome = match look_up(&shared, &file).await {
        Some(md5) => Ok(Hashed { md5, settled: true, noted: true }),
        None if priority == Priority::Now => take_turn(&shared, &file, &interest).await,
        None => hash_aside(&file, &interest).await,
    };
    let identity = *file.identity();
    if let Ok(Hashed { md5, settled: true, .. }) = outcome {
        lock(&shared.known).remember(identity, md5, WEIGHT);
    }
    let mut running = lock(&shared.running);
    if running.get(&identity).is_some_and(|entry| entry.ptr_eq(&interest)) {
        running.remove(&identity);
    }
    drop(running);
    if let Ok(Hashed { md5, settled: true, noted: false }) = outcome {
        shared.catalog.remember_md5(&identity, md5);
    }
    let _ = teller.send(Some(outcome.map(|hashed| hashed.md5)));
}

async fn look_up(shared: &Arc<Shared>, file: &Arc<StoredFile>) -> Option<Md5> {
    let (shared, identity) = (Arc::clone(shared), *file.identity());
    tokio::task::spawn_blocking(move || shared.catalog.md5(&identity)).await.ok().flatten()
}

async fn take_turn(
    shared: &Arc<Shared>,
    file: &Arc<StoredFile>,
    interest: &Weak<Job>,
) -> Result<Hashed, HashError> {
    let _turn = shared.turns.acquire().await.map_err(|_closed| HashError::Stopped)?;
    let (file, interest) = (Arc::clone(file), interest.clone());
    let hashing = tokio::task::spawn_blocking(move || hash(&file, || interest.strong_count() > 0));
    hashing.await.unwrap_or(Err(HashError::Stopped))
}

/// Hashes on a thread that runs only when no other wants to. One after the other asks for this, so
/// it needs no turn.
async fn hash_aside(file: &Arc<StoredFile>, interest: &Weak<Job>) -> Result<Hashed, HashError> {
    let (file, interest) = (Arc::clone(file), interest.clone());
    let (teller, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("hash-ahead".into()).spawn(move || {
        // On Linux this concerns the calling thread alone; elsewhere the thread is as urgent as others.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::nice(LOWEST_PRIORITY);
        let _ = teller.send(hash(&file, || interest.strong_count() > 0));
    });
    thread.map_err(|error| HashError::Io(Arc::new(error)))?;
    told.await.unwrap_or(Err(HashError::Stopped))
}

/// The nicest that a thread can be.
#[cfg(target_os = "linux")]
const LOWEST_PRIORITY: i32 = 19;

struct Hashed {
    md5: Md5,
    /// May be remembered.
    settled: bool,
    /// Is in the catalog already.
    noted: bool,
}

fn hash(file: &StoredFile, wanted: impl Fn() -> bool) -> Result<Hashed, HashError> {
    let failed = |error| HashError::Io(Arc::new(error));
    let began = now();
    let mut hasher = Md5Hasher::default();
    let mut buffer = vec![0; HASH_CHUNK];
    let mut offset = 0;
    while offset < file.size() {
        if !wanted() {
            return Err(HashError::Stopped);
        }
        let left = usize::try_from(file.size() - offset).unwrap_or(HASH_CHUNK).min(HASH_CHUNK);
        let count = file.read_at(&mut buffer[..left], offset).map_err(failed)?;
        if count == 0 {
            return Err(HashError::Changed);
        }
        hasher.update(&buffer[..count]);
        offset += count as u64;
    }
    if !file.is_unchanged().map_err(failed)? {
        return Err(HashError::Changed);
    }
    let untouched = file.identity_now().map_err(failed)? == *file.identity();
    let settled = untouched && is_settled(file.identity(), began);
    Ok(Hashed { md5: hasher.finish(), settled, noted: false })
}

/// Whether a file had been quiet for long enough when hashing began.
pub(super) fn is_settled(identity: &Identity, began: FileTime) -> bool {
    let quiet = i64::try_from(DIGEST_SETTLED.as_secs()).unwrap_or(i64::MAX);
    let latest = (began.0 - quiet, began.1);
    identity.modified <= latest && identity.changed <= latest
}

pub(super) fn now() -> FileTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), i64::from(since.subsec_nanos()))
}

#[cfg(test)]
#[path = "digests/tests.rs"]
mod tests;
