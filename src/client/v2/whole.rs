//! Small files that go along with their offers, many at a time on one connection.
//!
//! Each is read and hashed in memory, so what the server proves is what was read at one moment. Offers go out while
//! answers come in, and the other way round: a long way costs nothing but its first round trip, and neither end waits
//! for the other to read. Of a connection that breaks, what was not answered comes back to the queue.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until, timeout};

use super::give::Stored;
use super::link::{Arrived, Link};
use super::upload::{Job, link_of, put_of};
use crate::client::attempt::blocking;
use crate::client::folder::queue::Lane;
use crate::client::put::folder::{Item, PutShared, What};
use crate::client::put::offer::Offer;
use crate::client::{Event, FetchError, Observer};
use crate::codec::WireError;
use crate::codec::v2::{ClientFrame, ErrorCode, File, Form, Put, RequestId, TransferId};
use crate::digest::Digest;
use crate::error::Code;
use crate::exchange::{Heard, Requester};
use crate::limits::{
    FOLDER_FILE_TRIES, FOLDER_LINGER, FOLDER_PIPELINE, FOLDER_PIPELINE_BYTES, FOLDER_READ, PUT_BUSY_TRIES,
    PUT_BUSY_WAIT, PUT_WHOLE_MAX,
};
use crate::names::{FileName, base};
use crate::text;
use crate::tree::Root;

/// Puts one small file.
pub(super) async fn one(
    job: &Job<'_>,
    offer: &Arc<Offer>,
    transfer: TransferId,
    attempt: u32,
) -> Result<(Stored, Option<FileName>), FetchError> {
    let own = Arc::clone(offer);
    let (bytes, root) = blocking(move || own.read_whole()).await?;
    let file = File { root: Some(root), ..offer.described() };
    let size = file.size;
    let put = put_of(job.settings, Form::Whole, job.name, transfer, attempt, file);
    let arrived = Arrived::leaving_at(job.pace);
    let first = put.clone();
    let opening =
        Link::open(job.server, job.settings, job.observer, arrived, |requester| requester.put(first));
    let mut link = link_of(opening.await?, job.server)?;
    let digest = Some(Digest::Blake3(root));
    job.observer.observe(&Event::Started { name: base(job.name), size, digest, have: 0 });
    let request = link.last();
    give(&mut link, request, &bytes).await?;
    loop {
        match link.hear_along().await? {
            Heard::End { request: ended, root: stored, .. } if ended == request => {
                let stored = stored_as(&link, &put, stored)?;
                job.observer.observe(&Event::Progress { done: size, size });
                return Ok((stored, None));
            }
            Heard::Stored(ended, root, name) if ended == request => {
                let (stored, name) = (stored_as(&link, &put, Some(root))?, link.named(&name)?);
                job.observer.observe(&Event::Progress { done: size, size });
                return Ok((stored, Some(name)));
            }
            Heard::Failed(0, code, text) => return Err(link.ended(code, &text)),
            Heard::Failed(failed, code, text) if failed == request => {
                return Err(link.unchanged(code, &text, job.name));
            }
            _ => {}
        }
    }
}

/// Whether what is in the way of a file may be the very same, which the server still stores for a connection that broke.
pub(super) fn is_in_its_own_way(code: Code, attempt: u32) -> bool {
    code == Code::Exists && attempt > 1
}

/// Sends the bytes of a file behind its offer.
async fn give(link: &mut Link, request: RequestId, bytes: &[u8]) -> Result<(), FetchError> {
    if bytes.is_empty() {
        return Ok(());
    }
    link.put_along(&ClientFrame::Bytes { request, offset: 0, len: bytes.len() as u64 })?;
    link.give_along(bytes).await;
    Ok(())
}

/// What the server says to have stored has to be what was sent.
fn stored_as(link: &Link, put: &Put, stored: Option<Root>) -> Result<Stored, FetchError> {
    match stored {
        Some(root) if Some(root) == put.file.root => Ok(Stored::New(root)),
        Some(_) => {
            let name = text::shown(&put.name).to_string();
            Err(FetchError::StoredOther { peer: link.peer(), name })
        }
        None if put.unless_same => Ok(Stored::Same),
        None => Err(link.violated(WireError::Order("it says that the file was there, which was not asked"))),
    }
}

/// Puts small files and folders until there are no more, or one of them fails for a reason that concerns all. A
/// connection that has nothing to do for long is closed.
pub(in crate::client) async fn run(shared: &PutShared, observer: &dyn Observer) -> Result<(), FetchError> {
    while shared.queue.wait(Lane::Small).await {
        let Some(item) = shared.queue.take(Lane::Small) else { continue };
        let Some(first) = prepared(shared, item)? else { continue };
        let link = match open(shared, &first, observer).await {
            Ok(link) => link,
            Err(error) => {
                shared.queue.give_back(Lane::Small, first.item.again());
                return Err(error);
            }
        };
        let mut work = Work { shared, link, pending: HashMap::new(), bytes: 0, is_known: false, rest: None };
        let request = work.link.last();
        let begun = work.follow(request, first).await;
        let worked = if begun.is_ok() { work.run().await } else { begun };
        for pending in work.pending.into_values() {
            shared.queue.give_back(Lane::Small, pending.item.again());
        }
        worked?;
    }
    Ok(())
}

/// An offer that is ready to be made, and the bytes that follow it.
struct Prepared {
    item: Item,
    put: Put,
    bytes: Vec<u8>,
}

/// What is to be offered, read if it is a file; `None` if it is not to be offered here, or cannot be.
fn prepared(shared: &PutShared, item: Item) -> Result<Option<Prepared>, FetchError> {
    let offer_of =
        |form, file| put_of(&shared.settings, form, &item.remote, item.transfer, item.attempt, file);
    if let What::Folder { mode, modified } = item.what {
        let put = offer_of(Form::Folder, File { size: 0, modified, mode, token: item.transfer, root: None });
        return Ok(Some(Prepared { item, put, bytes: Vec::new() }));
    }
    let offer = match Offer::open_path(&shared.path_of(&item)) {
        Ok(offer) if offer.size() > PUT_WHOLE_MAX => {
            // It has grown since it was found.
            let item = Item { what: What::File(offer.size()), ..item };
            shared.queue.give_back(Lane::Large, item);
            return Ok(None);
        }
        Ok(offer) => offer,
        Err(error) => return shared.failed(item, error).map(|()| None),
    };
    match offer.read_whole() {
        Ok((bytes, root)) => {
            let put = offer_of(Form::Whole, File { root: Some(root), ..offer.described() });
            Ok(Some(Prepared { item, put, bytes }))
        }
        Err(error) => again(shared, item, error).map(|()| None),
    }
}

async fn open(shared: &PutShared, first: &Prepared, observer: &dyn Observer) -> Result<Link, FetchError> {
    let (counted, put) = (Arrived::leaving_at(&shared.pace), first.put.clone());
    let opening =
        Link::open(&shared.server, &shared.settings, observer, counted, |requester| requester.put(put));
    let mut link = link_of(opening.await?, &shared.server)?;
    link.read_ahead(FOLDER_READ);
    Ok(link)
}

/// Tries a file again that failed for a reason of its own, unless that is of no use.
fn again(shared: &PutShared, mut item: Item, error: FetchError) -> Result<(), FetchError> {
    item.failures += 1;
    if error.may_pass() && item.failures < FOLDER_FILE_TRIES {
        shared.queue.give_back(Lane::Small, item.again());
        return Ok(());
    }
    shared.failed(item, error)
}

/// Something that was offered and is not answered yet.
struct Pending {
    item: Item,
    put: Put,
}

struct Work<'a> {
    shared: &'a PutShared,
    link: Link,
    pending: HashMap<RequestId, Pending>,
    /// Bytes of what is not answered.
    bytes: u64,
    /// The server has answered an offer.
    is_known: bool,
    /// Until then nothing is offered: the server still stores what is in the way.
    rest: Option<Instant>,
}

impl Work<'_> {
    /// Offers until there is nothing to do for a while.
    async fn run(&mut self) -> Result<(), FetchError> {
        loop {
            self.offer().await?;
            if self.pending.is_empty() {
                if let Some(until) = self.rest.take() {
                    sleep_until(until).await;
                    continue;
                }
                match timeout(FOLDER_LINGER, self.shared.queue.wait(Lane::Small)).await {
                    Ok(true) => continue,
                    Ok(false) | Err(_) => return Ok(()),
                }
            }
            match self.link.hear_along().await? {
                Heard::End { request, root, .. } => self.ended(request, root)?,
                Heard::Stored(request, root, _name) => self.ended(request, Some(root))?,
                Heard::Failed(0, code, text) if self.is_known => return Err(self.link.failed(code, &text)),
                Heard::Failed(0, code, text) => return Err(self.link.ended(code, &text)),
                Heard::Failed(request, code, text) => self.refused(request, code, &text)?,
                _ => {}
            }
        }
    }

    /// Offers more, if it is worth it.
    async fn offer(&mut self) -> Result<(), FetchError> {
        if self.rest.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let most = FOLDER_PIPELINE.min(self.link.requests());
        let mut free = most.saturating_sub(self.pending.len());
        if free < most.div_ceil(4) && !self.pending.is_empty() {
            return Ok(());
        }
        while free > 0 && self.bytes < FOLDER_PIPELINE_BYTES {
            self.shared.told.wait_for_room();
            let bytes = FOLDER_PIPELINE_BYTES - self.bytes;
            let taken = self.shared.queue.take_share(Lane::Small, free.min(BATCH), bytes, self.shared.links);
            if taken.is_empty() {
                return Ok(());
            }
            free -= taken.len().min(free);
            let mut taken = taken.into_iter();
            while let Some(item) = taken.next() {
                let offered = self.offer_one(item).await;
                if offered.is_err() {
                    taken.for_each(|item| self.shared.queue.give_back(Lane::Small, item));
                    return offered;
                }
            }
        }
        Ok(())
    }

    async fn offer_one(&mut self, item: Item) -> Result<(), FetchError> {
        let Some(prepared) = prepared(self.shared, item)? else { return Ok(()) };
        let put = prepared.put.clone();
        let request = self.link.ask_along(|requester: &mut Requester| requester.put(put))?;
        self.follow(request, prepared).await
    }

    /// Sends the bytes behind an offer that was made.
    async fn follow(&mut self, request: RequestId, prepared: Prepared) -> Result<(), FetchError> {
        let Prepared { item, put, bytes } = prepared;
        self.bytes += put.file.size;
        self.pending.insert(request, Pending { item, put });
        give(&mut self.link, request, &bytes).await
    }

    fn forget(&mut self, request: RequestId) -> Option<Pending> {
        let pending = self.pending.remove(&request)?;
        self.bytes = self.bytes.saturating_sub(pending.put.file.size);
        Some(pending)
    }

    fn ended(&mut self, request: RequestId, root: Option<Root>) -> Result<(), FetchError> {
        self.is_known = true;
        let Some(Pending { item, put }) = self.forget(request) else { return Ok(()) };
        if put.form == Form::Folder {
            self.shared.made();
            return Ok(());
        }
        match stored_as(&self.link, &put, root) {
            Ok(stored) => self.shared.put(&item, put.file.size, stored),
            Err(error @ FetchError::StoredOther { .. }) => again(self.shared, item, error)?,
            Err(error) => {
                self.shared.queue.give_back(Lane::Small, item);
                return Err(error);
            }
        }
        Ok(())
    }

    fn refused(&mut self, request: RequestId, code: ErrorCode, text: &[u8]) -> Result<(), FetchError> {
        self.is_known = true;
        let Some(Pending { mut item, put }) = self.forget(request) else { return Ok(()) };
        if is_in_its_own_way(code.kind(), item.attempt) && item.failures < PUT_BUSY_TRIES {
            item.failures += 1;
            self.shared.queue.give_back(Lane::Small, item.again());
            self.rest = Some(Instant::now() + PUT_BUSY_WAIT);
            return Ok(());
        }
        let error = match code.kind() {
            Code::SourceChanged => FetchError::LocalChanged { path: text::shown(&item.name).to_string() },
            _ => self.link.unchanged(code, text, &put.name),
        };
        again(self.shared, item, error)
    }
}

/// Files that are taken from the queue at once: others want some too.
const BATCH: usize = 64;
