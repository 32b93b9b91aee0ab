//! One attempt to put a file, over as many links as are worth it.
//!
//! 1. The first link offers the file. Small ones go along with the offer ([`super::whole`]).
//! 2. Once the server asks for enough, further links make the same offer; the server shares out what it wants.
//! 3. Whichever link hears first what has come of the file ends the attempt. What the server has received of one that
//!    fails is there for the next.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use super::crew::{Quiet, in_runtime};
use super::give::{Giving, Shared, Stored};
use super::link::{Arrived, Link, Opening, Parked};
use super::{random, whole};
use crate::client::attempt::blocking;
use crate::client::pace::Pace;
use crate::client::put::UploadSource;
use crate::client::put::offer::Offer;
use crate::client::{Event, FetchError, Observer, Overwrite, Protocol, Server, Settings};
use crate::codec::v2::{Form, Push, Put, RequestId, TransferId};
use crate::digest::Digest;
use crate::exchange::Requester;
use crate::limits::{PROGRESS_INTERVAL, PUT_BUSY_TRIES, PUT_BUSY_WAIT, PUT_WHOLE_MAX, V2_LINK_BLOCKS_MIN};
use crate::names::{FileName, ReceiverName, base};
use crate::tree::{BLOCK_LEN, block_count};

/// A file that is to be put.
#[derive(Clone, Copy)]
pub(in crate::client) struct Job<'a> {
    pub(in crate::client) server: &'a Server,
    pub(in crate::client) source: &'a UploadSource,
    pub(in crate::client) name: &'a [u8],
    pub(in crate::client) settings: &'a Settings,
    pub(in crate::client) observer: &'a dyn Observer,
    pub(in crate::client) stopping: &'a CancellationToken,
    pub(in crate::client) pace: &'a Pace,
    /// Who is to get it, if it is not for the server.
    pub(in crate::client) receiver: Option<&'a ReceiverName>,
}

/// What one attempt leaves for the next.
pub(in crate::client) struct Remains {
    transfer: TransferId,
    attempt: u32,
    offer: Option<Arc<Offer>>,
    /// Bytes that the server had before the first attempt that it answered.
    had: Option<u64>,
    /// Blocks of which the server has said that it has them.
    pub(in crate::client) blocks: u64,
}

/// A file that the server has.
#[derive(Clone, Debug)]
pub(in crate::client) struct Given {
    /// Its name, if it is not the one that was asked for.
    pub(in crate::client) name: Option<FileName>,
    pub(in crate::client) size: u64,
    pub(in crate::client) stored: Stored,
    pub(in crate::client) resumed: u64,
}

impl Default for Remains {
    fn default() -> Self {
        Self { transfer: random(), attempt: 0, offer: None, had: None, blocks: 0 }
    }
}

/// Flags and description of an offer.
pub(super) fn put_of(
    settings: &Settings,
    form: Form,
    name: &[u8],
    transfer: TransferId,
    attempt: u32,
    file: crate::codec::v2::File,
) -> Put {
    let (replace, unless_same) = match settings.overwrite {
        // What an attempt before this one has stored, without its word being heard, must not stand in the way.
        Overwrite::Never => (false, attempt > 1),
        Overwrite::Different => (true, true),
        Overwrite::Always => (true, false),
    };
    let (name, priority) = (Bytes::copy_from_slice(name), settings.priority);
    Put { replace, unless_same, form, name, transfer, attempt, file, priority }
}

/// What an opening is for whoever wants to change something.
pub(super) fn link_of(opening: Opening, server: &Server) -> Result<Link, FetchError> {
    match opening {
        Opening::Link(link) => Ok(*link),
        Opening::Old { said_so: true, .. } => Err(FetchError::NoUploads { server: server.to_string() }),
        Opening::Old { peer, said_so: false } => Err(FetchError::Unanswered { peer }),
    }
}

/// Whether the user has demanded what uploads need.
pub(in crate::client) fn check_protocol(server: &Server, settings: &Settings) -> Result<(), FetchError> {
    match settings.protocol {
        Protocol::V1 => Err(FetchError::NoUploads { server: server.to_string() }),
        Protocol::Auto | Protocol::V2 => Ok(()),
    }
}

/// Makes one attempt.
pub(in crate::client) async fn run(job: &Job<'_>, remains: &mut Remains) -> Result<Given, FetchError> {
    let offer = offer(job, remains).await?;
    remains.attempt = remains.attempt.saturating_add(1);
    let size = offer.size();
    if size <= PUT_WHOLE_MAX && job.receiver.is_none() {
        let putting = whole(job, &offer, remains);
        let (stored, name) =
            job.stopping.run_until_cancelled(putting).await.unwrap_or(Err(FetchError::Interrupted))?;
        return Ok(Given { name, size, stored, resumed: 0 });
    }
    let put =
        put_of(job.settings, Form::Asked, job.name, remains.transfer, remains.attempt, offer.described());
    let arrived = Arrived::leaving_at(job.pace);
    let receiver = job.receiver.map(|receiver| Bytes::copy_from_slice(receiver.as_str().as_bytes()));
    let mut shared = Shared::new(offer, put, arrived, job.stopping.child_token());
    shared.receiver = receiver;
    let shared = Arc::new(shared);
    let stored = Box::pin(attempt(job, &shared)).await;
    if let Some(had) = shared.had() {
        remains.had.get_or_insert(had);
        remains.blocks = remains.blocks.max(shared.most() / BLOCK_LEN);
    }
    let stored = match stored {
        Err(_) if job.stopping.is_cancelled() => return Err(FetchError::Interrupted),
        stored => stored?,
    };
    let resumed = match stored {
        Stored::New(_) => remains.had.unwrap_or(size),
        Stored::Same => 0,
    };
    Ok(Given { name: shared.given_name.get().cloned(), size, stored, resumed })
}

/// Puts a small file, and waits where the server still stores it for a connection that broke.
async fn whole(
    job: &Job<'_>,
    offer: &Arc<Offer>,
    remains: &mut Remains,
) -> Result<(Stored, Option<FileName>), FetchError> {
    let mut tries = 0;
    loop {
        let put = whole::one(job, offer, remains.transfer, remains.attempt).await;
        let code = put.as_ref().err().map(FetchError::code);
        let is_busy = code.is_some_and(|code| whole::is_in_its_own_way(code, remains.attempt));
        if !is_busy || tries == PUT_BUSY_TRIES {
            return put;
        }
        tries += 1;
        remains.attempt = remains.attempt.saturating_add(1);
        sleep(PUT_BUSY_WAIT).await;
    }
}

/// What is offered: what was offered before, unless it has changed.
async fn offer(job: &Job<'_>, remains: &mut Remains) -> Result<Arc<Offer>, FetchError> {
    if let Some(offer) = remains.offer.as_ref().filter(|offer| offer.is_unchanged()) {
        return Ok(Arc::clone(offer));
    }
    let offer = Arc::new(Offer::open(job.source)?);
    if let Some(checksum) = job.settings.checksum.clone() {
        let own = Arc::clone(&offer);
        // It changes nothing, so it can be left behind.
        let checking = blocking(move || own.check(&checksum));
        job.stopping.run_until_cancelled(checking).await.unwrap_or(Err(FetchError::Interrupted))?;
    }
    remains.offer = Some(Arc::clone(&offer));
    Ok(offer)
}

async fn open(
    server: &Server,
    settings: &Settings,
    observer: &dyn Observer,
    shared: &Shared,
) -> Result<Link, FetchError> {
    let (arrived, put) = (Arc::clone(&shared.arrived), shared.put.clone());
    let first = |requester: &mut Requester| match shared.receiver.clone() {
        Some(receiver) => requester.push(Push { receiver, put }),
        None => requester.put(put),
    };
    let opening = Link::open(server, settings, observer, arrived, first).await?;
    link_of(opening, server)
}

/// Offers the file and lets the links give it.
async fn attempt(job: &Job<'_>, shared: &Arc<Shared>) -> Result<Stored, FetchError> {
    let opening = open(job.server, job.settings, job.observer, shared);
    let link = shared.stop.run_until_cancelled(opening).await.unwrap_or(Err(FetchError::Interrupted))?;
    let mut links = JoinSet::new();
    let (first, own) = ((link.last(), link.park()?), Arc::clone(shared));
    links.spawn_blocking(move || (true, in_runtime(first_link(first, &own))));
    let result = watch(job, shared, &mut links).await;
    // Nobody works on when the attempt is over.
    shared.stop.cancel();
    while links.join_next().await.is_some() {}
    result
}

type Links = JoinSet<(bool, Result<Option<Stored>, FetchError>)>;

/// Starts further links, tells how far the file is, and hears how the links end.
async fn watch(job: &Job<'_>, shared: &Arc<Shared>, links: &mut Links) -> Result<Stored, FetchError> {
    let size = shared.offer.size();
    let (mut ticks, mut has_begun) = (interval(PROGRESS_INTERVAL), false);
    loop {
        tokio::select! {
            () = shared.asked.cancelled(), if !has_begun => {
                has_begun = true;
                let have = shared.had().unwrap_or(0);
                let digest = shared.put.file.root.map(Digest::Blake3);
                job.observer.observe(&Event::Started { name: base(job.name), size, digest, have });
                let worth = block_count(size.saturating_sub(have)) / V2_LINK_BLOCKS_MIN;
                for _ in 1..worth.min(job.settings.links_max()) {
                    let (own, server) = (Arc::clone(shared), job.server.clone());
                    let settings = job.settings.clone();
                    links.spawn_blocking(move || (false, in_runtime(further_link(&server, &settings, &own))));
                }
            }
            ended = links.join_next() => match ended {
                Some(Ok((_, Ok(Some(stored))))) => {
                    if has_begun {
                        job.observer.observe(&Event::Progress { done: size, size });
                    }
                    return Ok(stored);
                }
                // It was a matter of speed.
                Some(Ok((false, Ok(None)))) => {}
                Some(Ok((_, Err(error)))) => return Err(error),
                Some(Err(aborted)) => return Err(resources(std::io::Error::other(aborted))),
                Some(Ok((true, Ok(None)))) | None => return Err(FetchError::Interrupted),
            },
            _ = ticks.tick(), if has_begun => {
                job.observer.observe(&Event::Progress { done: shared.arrived.done().min(size), size });
            }
        }
    }
}

fn resources(source: std::io::Error) -> FetchError {
    FetchError::Output { path: "this machine's resources".to_owned(), source }
}

async fn first_link(
    (put, parked): (RequestId, Parked),
    shared: &Shared,
) -> Result<Option<Stored>, FetchError> {
    let mut link = parked.unpark()?;
    Giving::new(shared, &mut link, put).run().await.map(Some)
}

/// A further link is a matter of speed: if it cannot be had, or breaks, the server asks the others. Only what is wrong
/// with the file, or with whom is spoken to, is wrong for all.
async fn further_link(
    server: &Server,
    settings: &Settings,
    shared: &Shared,
) -> Result<Option<Stored>, FetchError> {
    let opening = open(server, settings, &Quiet, shared);
    let opened = shared.stop.run_until_cancelled(opening).await.unwrap_or(Err(FetchError::Interrupted));
    let given = match opened {
        Ok(mut link) => {
            let put = link.last();
            Giving::new(shared, &mut link, put).run().await
        }
        Err(error) => Err(error),
    };
    match given {
        Ok(stored) => Ok(Some(stored)),
        Err(
            error @ (FetchError::Untrusted(_)
            | FetchError::LocalChanged { .. }
            | FetchError::Unreadable { .. }
            | FetchError::StoredOther { .. }),
        ) => Err(error),
        Err(_) => Ok(None),
    }
}
