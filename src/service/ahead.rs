//! Digests of large files, computed before anybody asks.
//!
//! The original client gives up after 10 s of silence, and the digest precedes the data. So files
//! whose digest would take too long are looked for now and then, and hashed one by one with the
//! time that is left over. A client that asks in the middle joins the computation.

use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::digests::Priority;
use super::{Event, Service, Source};
use crate::digest::Md5Hasher;
use crate::limits::{
    HASH_AHEAD_FILES, HASH_AHEAD_INTERVAL, HASH_AHEAD_QUIET, HASH_AHEAD_SHARE, HASH_RATE_BUFFER,
    HASH_RATE_SAMPLE,
};
use crate::names::FileName;
use crate::storage::StoredFile;

impl Service {
    /// Hashes files whose digest would take longer than `threshold`, until `stopping` is cancelled.
    pub async fn hash_ahead(&self, threshold: Duration, stopping: CancellationToken) {
        let work = async {
            let Ok(rate) = tokio::task::spawn_blocking(bytes_per_second).await else { return };
            let size = u128::from(rate) * threshold.as_millis() / 1000;
            let size = u64::try_from(size).unwrap_or(u64::MAX);
            loop {
                let began = Instant::now();
                let names = self.large_files(size).await;
                let looking = began.elapsed();
                for name in names {
                    self.hash_one_ahead(&name).await;
                }
                tokio::time::sleep(HASH_AHEAD_INTERVAL.max(looking * HASH_AHEAD_SHARE)).await;
            }
        };
        stopping.run_until_cancelled(work).await;
    }

    async fn large_files(&self, size: u64) -> Vec<FileName> {
        let inner = std::sync::Arc::clone(&self.inner);
        let looked = tokio::task::spawn_blocking(move || inner.storage.large_files(size, HASH_AHEAD_FILES));
        // A folder that cannot be read now is looked through again in the next round.
        looked.await.ok().and_then(Result::ok).unwrap_or_default()
    }

    async fn hash_one_ahead(&self, name: &FileName) {
        let Ok(Source::Large(file)) = self.open_for_nobody(name).await else { return };
        if !is_quiet(&file) || self.inner.digests.recall(file.identity()).is_some() {
            return;
        }
        let began = Instant::now();
        if let Ok(md5) = self.inner.digests.md5(&file, Priority::Ahead).await {
            let (size, elapsed) = (file.size(), began.elapsed());
            self.tell(&Event::HashedAhead { name, size, elapsed, md5 });
        }
    }
}

/// Whether nobody has written to the file for a while.
fn is_quiet(file: &StoredFile) -> bool {
    let modified = Duration::from_secs(u64::try_from(file.identity().modified.0).unwrap_or(0));
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH + modified)
        .is_ok_and(|quiet| quiet >= HASH_AHEAD_QUIET)
}

fn bytes_per_second() -> u64 {
    // A small buffer again and again: giving back a large one would teach the system's allocator to
    // keep as much for itself from then on.
    let sample = vec![0_u8; HASH_RATE_BUFFER];
    let mut hasher = Md5Hasher::default();
    let began = Instant::now();
    for _ in 0..HASH_RATE_SAMPLE / HASH_RATE_BUFFER {
        hasher.update(&sample);
    }
    let _ = hasher.finish();
    let micros = began.elapsed().as_micros().max(1);
    u64::try_from(HASH_RATE_SAMPLE as u128 * 1_000_000 / micros).unwrap_or(u64::MAX)
}
