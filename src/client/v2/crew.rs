//! The links of a download at work: started, watched, and ended together.
//!
//! While they work, progress is told and what has arrived is flushed now and then. A link that breaks costs what it
//! was just bringing: the others go on, and another one takes its place.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::link::{Link, Opening, Parked};
use super::work::{self, Shared, Worked};
use crate::client::attempt::Attempt;
use crate::client::{Event, FetchError, Observer, Server, Settings};
use crate::codec::v2::RequestId;
use crate::limits::{PROGRESS_INTERVAL, SYNC_BYTES, SYNC_INTERVAL};

/// What a link that could not be had was to fetch is left in the queue: another round fetches it.
pub(super) async fn work(
    attempt: &Attempt<'_>,
    mut link: Link,
    shared: &Arc<Shared>,
    mut pending: VecDeque<(RequestId, Range<u64>)>,
) -> Result<Link, FetchError> {
    loop {
        link = round(attempt, link, shared, std::mem::take(&mut pending)).await?;
        if shared.queue().left() == 0 {
            return Ok(link);
        }
    }
}

/// Lets the links work, shows how far they are, and makes sync points meanwhile.
async fn round(
    attempt: &Attempt<'_>,
    link: Link,
    shared: &Arc<Shared>,
    pending: VecDeque<(RequestId, Range<u64>)>,
) -> Result<Link, FetchError> {
    let mut links = JoinSet::new();
    let first = (link.park()?, pending);
    let own = Arc::clone(shared);
    links.spawn_blocking(move || in_runtime(first_link(first, &own)));
    let further = || {
        let (own, server) = (Arc::clone(shared), attempt.server.clone());
        let settings = attempt.settings.clone();
        move || in_runtime(further_link(&server, &settings, &own))
    };
    for _ in 1..shared.links {
        links.spawn_blocking(further());
    }
    let mut syncs = Syncs::new(attempt.settings.sync, shared.arrived.done());
    let mut ticks = interval(PROGRESS_INTERVAL);
    let (mut back, mut broke, mut failed) = (None, None, None);
    loop {
        tokio::select! {
            ended = links.join_next() => match ended {
                None => break,
                Some(Ok(Ok(Ended::Parked(parked)))) => back = back.or(Some(parked)),
                Some(Ok(Ok(Ended::NotHad))) => {}
                Some(Ok(Ok(Ended::Broke { error, has_brought }))) => {
                    // Where no other one works, the attempt has failed, and the next one waits a little.
                    if has_brought && !links.is_empty() {
                        links.spawn_blocking(further());
                    }
                    broke = broke.or(Some(error));
                }
                Some(Ok(Err(error))) => {
                    shared.stop.cancel();
                    // The first failure is the cause of the others.
                    failed = failed.or(Some(error));
                }
                Some(Err(aborted)) => {
                    shared.stop.cancel();
                    let source = std::io::Error::other(aborted);
                    failed = failed.or(Some(FetchError::Output { path: "the target".to_owned(), source }));
                }
            },
            _ = ticks.tick() => {
                attempt.observer.observe(&Event::Progress { done: done(shared), size: shared.source.size });
                if let Err(error) = syncs.poll(shared, shared.arrived.done()).await {
                    shared.stop.cancel();
                    failed = failed.or(Some(error));
                }
            }
        }
    }
    syncs.end().await?;
    if attempt.stopping.is_cancelled() {
        return Err(FetchError::Interrupted);
    }
    if let Some(error) = failed {
        return Err(error);
    }
    attempt.observer.observe(&Event::Progress { done: done(shared), size: shared.source.size });
    match back {
        Some(parked) => parked.unpark(),
        None => Err(broke.unwrap_or(FetchError::Interrupted)),
    }
}

/// Bytes that are here; what arrives twice does not count for more than the file has.
fn done(shared: &Shared) -> u64 {
    shared.arrived.done().min(shared.source.size)
}

/// Runs one link's work in a runtime of its own, on this thread.
pub(in crate::client) fn in_runtime<T>(
    work: impl Future<Output = Result<T, FetchError>>,
) -> Result<T, FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let failed = |source| FetchError::Output { path: "this machine's resources".to_owned(), source };
    runtime.map_err(failed)?.block_on(work)
}

/// How a link's work ended, if nothing came to light that ends the work of all.
enum Ended {
    /// Nothing was left to fetch.
    Parked(Parked),
    /// It could not be had.
    NotHad,
    /// As [`Worked::Broke`].
    Broke { error: FetchError, has_brought: bool },
}

async fn first_link(
    (parked, pending): (Parked, VecDeque<(RequestId, Range<u64>)>),
    shared: &Shared,
) -> Result<Ended, FetchError> {
    worked(parked.unpark()?, pending, shared).await
}

async fn worked(
    mut link: Link,
    pending: VecDeque<(RequestId, Range<u64>)>,
    shared: &Shared,
) -> Result<Ended, FetchError> {
    match shared.work(&mut link, pending).await? {
        Worked::Done => link.park().map(Ended::Parked),
        Worked::Broke { error, has_brought } => Ok(Ended::Broke { error, has_brought }),
    }
}

/// A further link is a matter of speed: if it cannot be had, the others do its work.
async fn further_link(server: &Server, settings: &Settings, shared: &Shared) -> Result<Ended, FetchError> {
    let Some(run) = shared.queue().take(shared.links) else { return Ok(Ended::NotHad) };
    let first = work::first(shared.get(&run));
    let opening = Link::open(server, settings, &Quiet, Arc::clone(&shared.arrived), first);
    let link = match shared.stop.run_until_cancelled(opening).await {
        Some(Ok(Opening::Link(link))) => link,
        // One that is not the server is no matter of speed.
        Some(Err(error @ FetchError::Untrusted(_))) => {
            shared.queue().give_back(run);
            return Err(error);
        }
        _ => {
            shared.queue().give_back(run);
            return Ok(Ended::NotHad);
        }
    };
    let pending = std::iter::once((link.last(), run)).collect();
    worked(*link, pending, shared).await
}

/// Hears nothing: what further links do is not worth telling.
pub(super) struct Quiet;

impl Observer for Quiet {
    fn observe(&self, _: &Event<'_>) {}
}

/// When a sync point is due, and the one that is being made.
struct Syncs {
    wanted: bool,
    /// What had arrived at the last one, and when that was.
    done: u64,
    at: Instant,
    running: Option<tokio::task::JoinHandle<Result<(), FetchError>>>,
}

impl Syncs {
    fn new(wanted: bool, done: u64) -> Self {
        Self { wanted, done, at: Instant::now(), running: None }
    }

    /// Begins a sync point if one is due; tells how the last one ended.
    async fn poll(&mut self, shared: &Arc<Shared>, done: u64) -> Result<(), FetchError> {
        match self.running.take() {
            Some(running) if running.is_finished() => flat(running.await)?,
            running @ Some(_) => {
                self.running = running;
                return Ok(());
            }
            None => {}
        }
        let is_due = done.saturating_sub(self.done) >= SYNC_BYTES
            || (done > self.done && self.at.elapsed() >= SYNC_INTERVAL);
        if self.wanted && is_due {
            (self.done, self.at) = (done, Instant::now());
            let shared = Arc::clone(shared);
            self.running = Some(tokio::task::spawn_blocking(move || Ok(shared.part.sync_point()?)));
        }
        Ok(())
    }

    /// Waits for the one that is being made.
    async fn end(self) -> Result<(), FetchError> {
        match self.running {
            Some(running) => flat(running.await),
            None => Ok(()),
        }
    }
}

fn flat(ended: Result<Result<(), FetchError>, tokio::task::JoinError>) -> Result<(), FetchError> {
    let aborted =
        |error| FetchError::Output { path: "the target".to_owned(), source: std::io::Error::other(error) };
    ended.map_err(aborted)?
}
