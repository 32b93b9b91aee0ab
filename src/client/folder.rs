//! A whole folder, or a list of files, fetched in one go: verified, resumable, one bad file not stopping the rest.
//!
//! 1. The server's folder is listed while files are fetched already; a list of names needs no listing.
//! 2. Each entry is compared with what lies here ([`plan`]): what is the same is kept.
//! 3. Small files are asked for many at a time ([`super::v2::small`]), large ones one by one, each with a part
//!    of its own that can be gone on with ([`large`]). Both take from one bounded [`queue`].
//! 4. What was saved is flushed in groups while more arrives; at the end a new folder gets its name.
//!
//! Whoever calls hears of every file; a file that fails is told and counted, and the others go on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::attempt::blocking;
use super::pace::Pace;
use super::secure;
use super::v2::listing::list;
use super::{Entry, Event, FetchError, Observer, Selection, Server, Settings, Tried, v2, with_retries};
use crate::limits::{FOLDER_BATCHES, FOLDER_LINKS, PROGRESS_INTERVAL};
use crate::names::FileName;
use crate::staged::StagedFolder;

mod flushes;
mod large;
mod plan;
pub(super) mod queue;
mod shared;
pub(super) mod sums;

use flushes::Flushes;
use queue::Queue;
pub(super) use queue::{Item, Lane};
pub(super) use shared::Counts;
pub(super) use shared::Shared;
pub(super) use shared::concerns_all;
use sums::{Outcome, Sums, Told};

/// What is fetched.
#[derive(Clone, Debug)]
pub enum Files {
    /// What the server lists of a folder.
    Folder {
        /// The folder's name; empty for all that is served.
        name: Vec<u8>,
        /// What of it.
        selection: Selection,
    },
    /// Files with these names, under the same names here.
    Names(Vec<FileName>),
}

/// What has come of a folder.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FolderFetched {
    /// Where it is.
    pub path: PathBuf,
    /// Files that were fetched.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were here already.
    pub unchanged: u64,
    /// Files and folders that are not here.
    pub failed: u64,
    /// Links that were not followed.
    pub skipped: u64,
    /// Bytes of large files that were here from an earlier attempt.
    pub resumed: u64,
    /// The whole time, waits included.
    pub elapsed: Duration,
}

/// How far a folder has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Files that are known of.
    pub files: u64,
    /// Their bytes, as far as they are known.
    pub bytes: u64,
    /// Files that are settled: here, or never will be.
    pub files_done: u64,
    /// Bytes that are here or need not be fetched.
    pub bytes_done: u64,
    /// Whether all files are known of.
    pub is_complete: bool,
}

/// Fetches `files` from `server` into the folder `target`; gives up at once when `stopping` is cancelled.
///
/// # Errors
/// What concerns all files. What has arrived is kept for the next time; a target that did not
/// exist does not exist then either. A file that fails is told to `observer` and counted in the result.
pub async fn fetch_folder(
    server: &Server,
    files: &Files,
    target: &Path,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<FolderFetched, FetchError> {
    let began = Instant::now();
    let met = with_retries(settings, observer, stopping, async || {
        let meeting = stopping.run_until_cancelled(secure::meet(server, settings, observer)).await;
        Tried { result: meeting.unwrap_or(Err(FetchError::Interrupted)), has_brought_something: false }
    });
    met.await?;
    let (path, sync, restart) = (target.to_owned(), settings.sync, settings.restart);
    let staged = blocking(move || {
        if restart {
            let mut staged = StagedFolder::open(&path, sync)?;
            staged.discard()?;
            return Ok(staged);
        }
        Ok(StagedFolder::open(&path, sync)?)
    });
    let staged = staged.await?;
    let shared = Arc::new(Shared {
        server: server.clone(),
        settings: settings.clone(),
        pace: Pace::of(settings),
        staged,
        queue: Queue::new(),
        links: FOLDER_LINKS.min(usize::try_from(settings.links).unwrap_or(FOLDER_LINKS)),
        counts: Counts::default(),
        told: Told::default(),
        stop: stopping.child_token(),
    });
    let threads = TaskTracker::new();
    let run = Run { shared: &shared, observer, sums: Sums::default(), threads };
    let result = run.run(files).await;
    // Everybody who held it has ended.
    let Some(Shared { staged, .. }) = Arc::into_inner(shared) else { return Err(unended()) };
    let mut sums = match result {
        Ok(sums) => sums,
        Err(error) => {
            // What has come, and waits for a flush to get its name, is not lost; why it could not is told by
            // the next run.
            let _ = blocking(move || Ok(staged.sync_point()?)).await;
            return Err(if stopping.is_cancelled() { FetchError::Interrupted } else { error });
        }
    };
    let (path, unnamed) = blocking(move || Ok(staged.commit()?)).await?;
    sums.lost(observer, unnamed);
    let Sums { files, bytes, unchanged, failed, skipped, resumed } = sums;
    Ok(FolderFetched { path, files, bytes, unchanged, failed, skipped, resumed, elapsed: began.elapsed() })
}

/// The main thread's part: it lets everybody work, listens, and flushes now and then. Who fails ends the
/// others, and each of them comes to an end of its own: nobody writes any more when a run is over.
struct Run<'a> {
    shared: &'a Arc<Shared>,
    observer: &'a dyn Observer,
    sums: Sums,
    /// Threads that look at the disk or fetch small files.
    threads: TaskTracker,
}

impl Run<'_> {
    /// Works until everything is settled, and ends everybody whatever happens.
    async fn run(mut self, files: &Files) -> Result<Sums, FetchError> {
        let worked = self.work(files).await;
        self.shared.end();
        self.shared.told.close();
        self.threads.close();
        self.threads.wait().await;
        // However it ended, what is here is in the log.
        self.sums.hear_all(self.observer, self.shared.told.take());
        worked.map(|()| self.sums)
    }

    async fn work(&mut self, files: &Files) -> Result<(), FetchError> {
        let Run { shared, observer, sums, threads } = self;
        let (shared, observer) = (*shared, *observer);
        let (entries, listed) = mpsc::channel(FOLDER_BATCHES);
        let (own, own_files) = (Arc::clone(shared), files.clone());
        let planning = threads.spawn_blocking(move || plan::run(&own, &own_files, listed));
        let resumed = AtomicU64::new(0);
        let mut all = std::pin::pin!(async {
            let ended = tokio::join!(
                or_end(shared, listing(shared, files, entries, observer)),
                or_end(shared, async { planning.await.map_err(aborted)? }),
                or_end(shared, small(shared, observer, threads)),
                or_end(shared, second(shared, threads)),
                large::run(shared, observer, &resumed),
            );
            [ended.0, ended.1, ended.2, ended.3, ended.4].into_iter().fold(Ok(()), why)
        });
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        let (mut flushes, mut flushed) = (Flushes::new(shared.settings.sync), Ok(()));
        let worked = loop {
            tokio::select! {
                ended = &mut all => break ended,
                () = shared.told.many() => sums.hear_all(observer, shared.told.take()),
                _ = ticks.tick() => {
                    sums.hear_all(observer, shared.told.take());
                    observer.observe(&Event::Total(shared.totals()));
                    match flushes.poll(shared).await {
                        Ok(unnamed) => sums.lost(observer, unnamed),
                        Err(error) => flushed = or_end(shared, async { Err(error) }).await,
                    }
                }
                () = shared.stop.cancelled(), if !shared.queue.is_stopped() => shared.end(),
            }
        };
        sums.hear_all(observer, shared.told.take());
        // It is waited for whatever happened.
        let last = flushes.end().await;
        [flushed, worked].into_iter().fold(Ok(()), why)?;
        sums.lost(observer, last?);
        sums.resumed = resumed.load(Ordering::Relaxed);
        observer.observe(&Event::Total(shared.totals()));
        Ok(())
    }
}

/// Ends everybody if this work fails. What fails after that is no reason of its own.
async fn or_end(
    shared: &Shared,
    work: impl Future<Output = Result<(), FetchError>>,
) -> Result<(), FetchError> {
    let result = work.await;
    if result.is_err() && shared.stop.is_cancelled() {
        return Err(FetchError::Interrupted);
    }
    if result.is_err() {
        shared.end();
    }
    result
}

/// Of two results, why it ended: whoever was only interrupted does not know.
pub(super) fn why(one: Result<(), FetchError>, other: Result<(), FetchError>) -> Result<(), FetchError> {
    match (one, other) {
        (Ok(()) | Err(FetchError::Interrupted), Err(error)) => Err(error),
        (one, _) => one,
    }
}

/// Lists what the planner compares; a list of names needs no listing.
async fn listing(
    shared: &Shared,
    files: &Files,
    entries: mpsc::Sender<Vec<Entry>>,
    observer: &dyn Observer,
) -> Result<(), FetchError> {
    let Files::Folder { name, selection } = files else { return Ok(()) };
    list(&shared.server, name.as_slice(), selection, &shared.settings, observer, &shared.stop, &entries).await
}

/// Fetches small files, through any number of connections, one after the other. Each works in a thread of
/// its own: files are verified and made where they are received.
async fn small(
    shared: &Arc<Shared>,
    observer: &dyn Observer,
    threads: &TaskTracker,
) -> Result<(), FetchError> {
    let done = || shared.files_done();
    let attempts = with_retries(&shared.settings, observer, &shared.stop, async || {
        let before = done();
        let own = Arc::clone(shared);
        let work = threads.spawn_blocking(move || {
            v2::in_runtime(async {
                let work = v2::small::run(&own, &Quiet);
                own.stop.run_until_cancelled(work).await.unwrap_or(Err(FetchError::Interrupted))
            })
        });
        let result = work.await.map_err(aborted).flatten();
        Tried { result, has_brought_something: done() > before }
    });
    attempts.await
}

/// A second connection for small files is a matter of speed: what it could not fetch comes back to the
/// queue, and the first one fetches it.
async fn second(shared: &Arc<Shared>, threads: &TaskTracker) -> Result<(), FetchError> {
    if shared.links < 2 {
        return Ok(());
    }
    match small(shared, &Quiet, threads).await {
        Err(error) if error.may_pass() => Ok(()),
        result => result,
    }
}

/// Hears nothing.
pub(super) struct Quiet;

impl Observer for Quiet {
    fn observe(&self, _: &Event<'_>) {}
}

fn aborted(error: tokio::task::JoinError) -> FetchError {
    FetchError::Output { path: "the target".to_owned(), source: io::Error::other(error) }
}

fn unended() -> FetchError {
    FetchError::Output { path: "the target".to_owned(), source: io::Error::other("a thread has not ended") }
}
