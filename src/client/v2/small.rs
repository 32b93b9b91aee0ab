//! Small files, many at a time on one connection.
//!
//! Requests go out while answers come in, so a long way costs nothing but its first round trip. A file is
//! held in memory until all of it is proven, and only then it is made. One that turns out to be
//! large is given to whoever fetches those, and so is one that has grown when there is no room for it; one
//! that was asked for when the connection broke comes back to the queue.

use std::collections::HashMap;

use tokio::time::timeout;

use super::link::{Arrived, Link, Opening};
use crate::client::folder::queue::Weighed;
use crate::client::folder::{Item, Lane, Shared};
use crate::client::{FetchError, Observer};
use crate::codec::v2::{ByteRange, ErrorCode, File, Get, RequestId};
use crate::error::Code;
use crate::exchange::{Data, Heard, Requester};
use crate::limits::{
    FOLDER_FILE_TRIES, FOLDER_HELD_MAX, FOLDER_LINGER, FOLDER_PIPELINE, FOLDER_PIPELINE_BYTES, FOLDER_READ,
    FOLDER_SMALL_MAX,
};
use crate::staged::Attributes;
use crate::tree::{BLOCK_LEN, BlockHash, Root};

/// Fetches small files until there are no more, or one of them cannot be saved for a reason that
/// concerns all. A connection that has nothing to do for long is closed.
pub(in crate::client) async fn run(shared: &Shared, observer: &dyn Observer) -> Result<(), FetchError> {
    while shared.queue.wait(Lane::Small).await {
        let Some(first) = shared.queue.take(Lane::Small) else { continue };
        let link = match open(shared, &first, observer).await {
            Ok(link) => link,
            Err(error) => {
                shared.queue.give_back(Lane::Small, first);
                return Err(error);
            }
        };
        let mut work = Work { shared, link, pending: HashMap::new(), bytes: 0, held: 0, whole: Vec::new() };
        let request = work.link.last();
        work.remember(request, first);
        let worked = work.run().await;
        for pending in work.pending.into_values() {
            shared.queue.give_back(Lane::Small, pending.item);
        }
        worked?;
    }
    Ok(())
}

async fn open(shared: &Shared, first: &Item, observer: &dyn Observer) -> Result<Link, FetchError> {
    let (settings, get) = (&shared.settings, get(first));
    let counted = Arrived::at(&shared.pace);
    let opening = Link::open(&shared.server, settings, observer, counted, |requester| requester.get(get));
    match opening.await? {
        Opening::Link(mut link) => {
            link.read_ahead(FOLDER_READ);
            Ok(*link)
        }
        Opening::Old { peer, said_so: true } => Err(FetchError::OldServer { peer }),
        Opening::Old { peer, said_so: false } => Err(FetchError::Unanswered { peer }),
    }
}

/// Asks for a whole file, as far as it is small.
fn get(item: &Item) -> Get {
    let ranges = match &item.listed {
        Some(_) => Vec::new(),
        // It may be of any size.
        None => vec![ByteRange { offset: 0, len: BLOCK_LEN }],
    };
    Get { proven: true, name: item.remote.clone(), ranges, ..Get::default() }
}

/// A file that was asked for.
struct Pending {
    item: Item,
    file: Option<File>,
    /// Bytes that it is expected to bring.
    expected: u64,
    /// What has arrived, if it comes in pieces.
    bytes: Vec<u8>,
}

struct Work<'a> {
    shared: &'a Shared,
    link: Link,
    pending: HashMap<RequestId, Pending>,
    /// Bytes that the files in flight are expected to bring.
    bytes: u64,
    /// Bytes of those whose description has come: they may lie in memory.
    held: u64,
    /// Room for a file that comes in one piece.
    whole: Vec<u8>,
}

impl Work<'_> {
    /// Fetches until there is nothing to do for a while.
    async fn run(&mut self) -> Result<(), FetchError> {
        loop {
            self.ask()?;
            if self.pending.is_empty() {
                match timeout(FOLDER_LINGER, self.shared.queue.wait(Lane::Small)).await {
                    Ok(true) => continue,
                    Ok(false) | Err(_) => return Ok(()),
                }
            }
            match self.link.hear().await? {
                Heard::File(request, file) => self.described(request, file)?,
                Heard::Data(data) => self.data(data).await?,
                Heard::End { request, .. } => self.ended(request)?,
                Heard::Failed(request, code, text) => self.refused(request, code, &text)?,
                _ => {}
            }
        }
    }

    /// Asks for more files, if it is worth it.
    fn ask(&mut self) -> Result<(), FetchError> {
        let most = FOLDER_PIPELINE.min(self.link.requests());
        let free = most.saturating_sub(self.pending.len());
        if self.bytes >= FOLDER_PIPELINE_BYTES || (free < most.div_ceil(4) && !self.pending.is_empty()) {
            return Ok(());
        }
        self.shared.told.wait_for_room();
        let bytes = FOLDER_PIPELINE_BYTES - self.bytes;
        for item in self.shared.queue.take_share(Lane::Small, free, bytes, self.shared.links) {
            let get = get(&item);
            let request = self.link.ask_along(|requester: &mut Requester| requester.get(get))?;
            self.remember(request, item);
        }
        Ok(())
    }

    fn remember(&mut self, request: RequestId, item: Item) {
        let expected = item.expected();
        self.bytes += expected;
        self.pending.insert(request, Pending { item, file: None, expected, bytes: Vec::new() });
    }

    fn forget(&mut self, request: RequestId) -> Option<Pending> {
        let pending = self.pending.remove(&request)?;
        self.bytes = self.bytes.saturating_sub(pending.expected);
        if let Some(file) = &pending.file {
            self.held = self.held.saturating_sub(file.size);
        }
        Some(pending)
    }

    fn described(&mut self, request: RequestId, file: File) -> Result<(), FetchError> {
        let Some(pending) = self.pending.get_mut(&request) else { return Ok(()) };
        let (size, attributes) = (file.size, attributes_of(&file, pending.item.listed.as_ref()));
        let is_new = pending.item.listed.is_none();
        let keeps = if is_new { self.shared.keeps(&pending.item, size, &attributes) } else { Ok(false) };
        let is_large = size > FOLDER_SMALL_MAX;
        // Files of a server that have grown, or are larger than was expected, must not fill the memory.
        let is_too_much = self.held.saturating_add(size) > FOLDER_HELD_MAX;
        if matches!(keeps, Ok(false)) && !is_large && !is_too_much {
            self.bytes = self.bytes.saturating_sub(pending.expected) + size;
            self.held += size;
            (pending.file, pending.expected) = (Some(file), size);
            return Ok(());
        }
        self.link.cancel_along(request)?;
        let Some(Pending { item, .. }) = self.forget(request) else { return Ok(()) };
        match keeps {
            Ok(true) => self.shared.kept(item, size),
            Ok(false) => {
                // What is known by now makes room for it the next time, unless that is not true again.
                let lane = if is_new && !is_large { Lane::Small } else { Lane::Large };
                self.shared.queue.give_back(lane, Item { listed: Some((size, attributes)), ..item });
            }
            Err(error) => self.shared.failed(item, error)?,
        }
        Ok(())
    }

    async fn data(&mut self, data: Data) -> Result<(), FetchError> {
        let request = data.request;
        let pending = self.pending.get_mut(&request);
        let (Some(_), Some((pending, file))) =
            (data.block, pending.and_then(|pending| pending.file.clone().map(|file| (pending, file))))
        else {
            return self.link.skip(data.len).await;
        };
        let (size, len) = (index(file.size), index(data.len));
        let bytes = if data.len == file.size {
            self.whole.resize(self.whole.len().max(len), 0);
            &mut self.whole
        } else {
            pending.bytes.resize(size, 0);
            &mut pending.bytes
        };
        let start = index(data.offset);
        let place = bytes.get_mut(start..start + len).unwrap_or_default();
        self.link.take(place).await?;
        if !data.ends_block {
            return Ok(());
        }
        let bytes = &bytes[..size];
        let hash = BlockHash::of(file.size, 0, bytes);
        let is_right = self.link.check(request, hash)?;
        if is_right {
            let attributes = attributes_of(&file, pending.item.listed.as_ref());
            let name = &pending.item.name;
            let made = self.shared.staged.small(name, bytes, &attributes, self.shared.replace());
            let digest = file.root.unwrap_or_else(|| Root::of(bytes));
            let Some(Pending { item, .. }) = self.forget(request) else { return Ok(()) };
            return self.shared.made(item, file.size, digest, made.map_err(Into::into));
        }
        let error = FetchError::Damaged { peer: self.link.peer(), block: 0 };
        let Some(Pending { item, .. }) = self.forget(request) else { return Ok(()) };
        self.again(item, error)
    }

    /// An empty file is all there when its description has come.
    fn ended(&mut self, request: RequestId) -> Result<(), FetchError> {
        let Some(Pending { item, file: Some(file), .. }) = self.forget(request) else { return Ok(()) };
        let attributes = attributes_of(&file, item.listed.as_ref());
        let made = self.shared.staged.small(&item.name, &[], &attributes, self.shared.replace());
        self.shared.made(item, 0, Root::of(&[]), made.map_err(Into::into))
    }

    fn refused(&mut self, request: RequestId, code: ErrorCode, text: &[u8]) -> Result<(), FetchError> {
        let Some(Pending { item, .. }) = self.forget(request) else { return Ok(()) };
        let error = match self.link.failed(code, text) {
            FetchError::Failed { code: Code::NotFound, .. } => {
                FetchError::NotFound(crate::text::shown(&item.remote).to_string())
            }
            error => error,
        };
        self.again(item, error)
    }

    /// Tries a file again that failed for a reason of its own, unless that is of no use.
    fn again(&mut self, mut item: Item, error: FetchError) -> Result<(), FetchError> {
        item.failures += 1;
        if error.may_pass() && item.failures < FOLDER_FILE_TRIES {
            self.shared.queue.give_back(Lane::Small, item);
            return Ok(());
        }
        self.shared.failed(item, error)
    }
}

fn attributes_of(file: &File, listed: Option<&(u64, Attributes)>) -> Attributes {
    let sparse = listed.is_some_and(|(_, attributes)| attributes.sparse);
    Attributes { mode: file.mode, modified: file.modified, sparse }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
