//! A whole local folder, stored on the server in one go, one bad file not stopping the rest.
//!
//! 1. The server is asked what it has ([`known`]), where that need not be put again.
//! 2. The folder is walked ([`walk`]) while files are put already; whoever is faster waits at a bounded queue.
//! 3. Small files and folders are offered many at a time ([`crate::client::v2::whole`]), large files one by one, each
//!    as a file of its own is put ([`large`]). What the server has already it keeps, and says so.
//! 4. A connection that breaks is made anew, and what was not answered is offered again.
//!
//! Whoever calls hears of every file; a file that fails is told and counted, and the others go on.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::known::Known;
use super::check_name;
use crate::client::attempt::blocking;
use crate::client::folder::queue::Queue;
use crate::client::folder::sums::{Sums, Told};
use crate::client::folder::{Counts, Quiet, why};
use crate::client::pace::Pace;
use crate::client::v2::{self, upload};
use crate::client::{
    Event, FetchError, Observer, Overwrite, Selection, Server, Settings, Tried, secure, with_retries,
};
use crate::limits::{FOLDER_LINKS, PROGRESS_INTERVAL};
use crate::text;

mod known;
mod large;
mod shared;
mod walk;

pub(in crate::client) use shared::{Item, PutShared, What};

/// What has come of a folder that was put.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FolderPut {
    /// Files that were stored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were on the server already, with the same size and time.
    pub unchanged: u64,
    /// Folders that the server has now.
    pub folders: u64,
    /// Files and folders that are not on the server.
    pub failed: u64,
    /// Links that were not followed, and what is neither a file nor a folder.
    pub skipped: u64,
    /// Bytes of large files that the server had from an earlier attempt.
    pub resumed: u64,
    /// The whole time, waits included.
    pub elapsed: Duration,
}

/// Stores what is in the local folder `local` in the folder `name` of `server` (empty for its root); gives up at
/// once when `stopping` is cancelled.
///
/// # Errors
/// What concerns all files. What has been stored stays. A file that fails is told to `observer` and counted in the
/// result.
pub async fn put_folder(
    server: &Server,
    local: &Path,
    name: &[u8],
    selection: &Selection,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<FolderPut, FetchError> {
    let began = Instant::now();
    upload::check_protocol(server, settings)?;
    if !name.is_empty() {
        check_name(name)?;
    }
    let path = local.to_owned();
    blocking(move || check_local(&path)).await?;
    let met = with_retries(settings, observer, stopping, async || {
        let meeting = stopping.run_until_cancelled(secure::meet(server, settings, observer)).await;
        Tried { result: meeting.unwrap_or(Err(FetchError::Interrupted)), has_brought_something: false }
    });
    met.await?;
    let known = match settings.overwrite {
        Overwrite::Different => known::look(server, name, selection, settings, stopping).await?,
        Overwrite::Never | Overwrite::Always => Known::default(),
    };
    let shared = Arc::new(PutShared {
        server: server.clone(),
        settings: Settings { checksum: None, ..settings.clone() },
        pace: Pace::of(settings),
        local: local.to_owned(),
        remote: name.to_vec(),
        selection: selection.clone(),
        known,
        queue: Queue::new(),
        links: FOLDER_LINKS.min(usize::try_from(settings.links).unwrap_or(FOLDER_LINKS)).max(1),
        counts: Counts::default(),
        folders: AtomicU64::new(0),
        resumed: AtomicU64::new(0),
        told: Told::default(),
        stop: stopping.child_token(),
    });
    let run = Run { shared: &shared, observer, sums: Sums::default(), threads: TaskTracker::new() };
    let Sums { files, bytes, unchanged, failed, skipped, .. } = match run.run().await {
        Ok(sums) => sums,
        Err(_) if stopping.is_cancelled() => return Err(FetchError::Interrupted),
        Err(error) => return Err(error),
    };
    let folders = shared.folders.load(Ordering::Relaxed);
    let resumed = shared.resumed.load(Ordering::Relaxed);
    Ok(FolderPut { files, bytes, unchanged, folders, failed, skipped, resumed, elapsed: began.elapsed() })
}

/// What is to be put has to be a folder.
fn check_local(local: &Path) -> Result<(), FetchError> {
    let path = text::shown(local.as_os_str().as_bytes()).to_string();
    match local.metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(FetchError::NotALocalFolder { path }),
        Err(source) => Err(FetchError::Unreadable { path, source }),
    }
}

/// The main thread's part: it lets everybody work and listens. Who fails ends the others.
struct Run<'a> {
    shared: &'a Arc<PutShared>,
    observer: &'a dyn Observer,
    sums: Sums,
    /// Threads that look at the disk or put small files.
    threads: TaskTracker,
}

impl Run<'_> {
    /// Works until everything is settled, and ends everybody whatever happens.
    async fn run(mut self) -> Result<Sums, FetchError> {
        let worked = self.work().await;
        self.shared.end();
        self.shared.told.close();
        self.threads.close();
        self.threads.wait().await;
        self.sums.hear_all(self.observer, self.shared.told.take());
        worked.map(|()| self.sums)
    }

    async fn work(&mut self) -> Result<(), FetchError> {
        let Run { shared, observer, sums, threads } = self;
        let (shared, observer) = (*shared, *observer);
        let own = Arc::clone(shared);
        let walking = threads.spawn_blocking(move || walk::run(&own));
        let mut all = std::pin::pin!(async {
            let ended = tokio::join!(
                or_end(shared, async { walking.await.map_err(aborted)? }),
                or_end(shared, small(shared, observer, threads)),
                or_end(shared, second(shared, threads)),
                large::run(shared, observer),
            );
            [ended.0, ended.1, ended.2, ended.3].into_iter().fold(Ok(()), why)
        });
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        let worked = loop {
            tokio::select! {
                ended = &mut all => break ended,
                () = shared.told.many() => sums.hear_all(observer, shared.told.take()),
                _ = ticks.tick() => {
                    sums.hear_all(observer, shared.told.take());
                    observer.observe(&Event::Total(shared.totals()));
                }
                () = shared.stop.cancelled(), if !shared.queue.is_stopped() => shared.end(),
            }
        };
        sums.hear_all(observer, shared.told.take());
        worked?;
        observer.observe(&Event::Total(shared.totals()));
        Ok(())
    }
}

/// Ends everybody if this work fails. What fails after that is no reason of its own.
async fn or_end(
    shared: &PutShared,
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

/// Puts small files, through any number of connections, one after the other. Each works in a thread of its own:
/// files are read and hashed where they are sent.
async fn small(
    shared: &Arc<PutShared>,
    observer: &dyn Observer,
    threads: &TaskTracker,
) -> Result<(), FetchError> {
    let done = || shared.counts.files_done() + shared.folders.load(Ordering::Relaxed);
    let attempts = with_retries(&shared.settings, observer, &shared.stop, async || {
        let before = done();
        let own = Arc::clone(shared);
        let work = threads.spawn_blocking(move || {
            v2::in_runtime(async {
                let work = v2::whole::run(&own, &Quiet);
                own.stop.run_until_cancelled(work).await.unwrap_or(Err(FetchError::Interrupted))
            })
        });
        let result = work.await.map_err(aborted).flatten();
        Tried { result, has_brought_something: done() > before }
    });
    attempts.await
}

/// A second connection for small files is a matter of speed: what it could not put comes back to the queue.
async fn second(shared: &Arc<PutShared>, threads: &TaskTracker) -> Result<(), FetchError> {
    if shared.links < 2 {
        return Ok(());
    }
    match small(shared, &Quiet, threads).await {
        Err(error) if error.may_pass() => Ok(()),
        result => result,
    }
}

fn aborted(error: tokio::task::JoinError) -> FetchError {
    FetchError::Output { path: "this machine's resources".to_owned(), source: io::Error::other(error) }
}

/// A name within the folder as a path here.
fn local_path(local: &Path, name: &[u8]) -> PathBuf {
    local.join(std::ffi::OsStr::from_bytes(name))
}
