//! The download of one file into a part that may hold some of it: the steps of [`super`], one by one.
//!
//! It decides what is kept, what is fetched and when the file is done; [`super::crew`] fetches.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::answers::{file_of, size_again, values_of};
use super::link::{Arrived, Link, Opening};
use super::work::Shared;
use super::{Remains, Stop, crew, random};
use crate::client::attempt::{Attempt, Got, blocking};
use crate::client::{Event, FetchError, Overwrite, Settings, Target};
use crate::codec::WireError;
use crate::codec::v2::{ByteRange, Get, RequestId, Stat, TransferId};
use crate::digest::Digest;
use crate::error::Code;
use crate::exchange::Queue;
use crate::limits::{BLOCKS_MAX, V2_LINK_BLOCKS_MIN, V2_RUN_BLOCKS_MAX};
use crate::names::base;
use crate::staged::{Attributes, Kept, Part, Source};
use crate::tree::{BlockSet, Root, Tree, Value, block_count};

/// A file and the link on which it was described; some of its blocks may be on their way.
struct Described {
    link: Link,
    source: Source,
    /// The request that is running, and its blocks.
    running: Option<(RequestId, Range<u64>)>,
}

pub(super) struct Download<'a> {
    attempt: &'a Attempt<'a>,
    remains: &'a mut Remains,
    arrived: Arc<Arrived>,
    /// Mode and times of the file, as it was described.
    attributes: Option<Attributes>,
}

impl<'a> Download<'a> {
    pub(super) fn new(attempt: &'a Attempt<'a>, remains: &'a mut Remains) -> Self {
        Self { attempt, remains, arrived: Arrived::at(attempt.pace), attributes: None }
    }

    /// Makes one attempt.
    pub(super) async fn run(mut self) -> Result<Got, Stop> {
        let attempt = self.attempt;
        self.open_part_if_there().await?;
        let mut transfer = random();
        let described = match self.describe(transfer).await? {
            Ok(described) => described,
            Err(unchanged) => return Ok(unchanged),
        };
        let Described { mut link, source, mut running } = described;
        self.remains.has_spoken = true;
        self.compare_root(source.root)?;
        if block_count(source.size) > BLOCKS_MAX {
            return Err(link.violated(WireError::Size(source.size)).into());
        }
        let was_running = running.is_some();
        let keep = self.reconcile(&mut link, &source, &mut running).await?;
        if was_running && running.is_none() {
            // What the cancelled request said is here is not what is here.
            transfer = random();
        }
        if let Err(error) = self.begin(&source, &keep).await {
            return Err(self.doubt(&mut link, &source, running, error).await.into());
        }
        let have = self.count_on(&keep, source.size);
        let (name, size) = (base(attempt.name), source.size);
        let digest = source.root.map(Digest::Blake3);
        attempt.observer.observe(&Event::Started { name, size, digest, have });
        attempt.observer.observe(&Event::Progress { done: have, size });
        let fetching = self.fetch_until_proven(link, source, running, &keep, transfer);
        let (link, root) = Box::pin(fetching).await?;
        if let Err(error) = self.compare_root(Some(root)) {
            // What is here is proven to be the server's file, so going on with it is of no use.
            self.discard().await?;
            return Err(error.into());
        }
        // The server learns that it is done as soon as possible, not after the flush.
        drop(link);
        self.commit(size, root).await
    }

    /// Opens the part if an earlier client has left one.
    async fn open_part_if_there(&mut self) -> Result<(), FetchError> {
        let Target::File(path) = self.attempt.target else { return Ok(()) };
        if self.remains.part.is_none() && Part::is_there(path) {
            self.open_part().await?;
        }
        if self.attempt.settings.restart && !self.remains.restarted {
            self.discard().await?;
        }
        self.remains.restarted = true;
        Ok(())
    }

    /// Forgets what is in the part, if there is one.
    async fn discard(&mut self) -> Result<(), FetchError> {
        if let Some(mut part) = self.remains.part.take() {
            let discarding = blocking(move || part.discard().map(|()| part).map_err(Into::into));
            self.remains.part = Some(discarding.await?);
        }
        Ok(())
    }

    /// Opens the part, hashing what cannot be believed of it.
    async fn open_part(&mut self) -> Result<(), FetchError> {
        let Target::File(path) = self.attempt.target else { return Ok(()) };
        let Settings { sync, sparse, .. } = *self.attempt.settings;
        let path = path.clone();
        let stopped = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&stopped);
        let opening = blocking(move || {
            let mut watch = |_, _| match watched.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            Ok(Part::open(&path, sync, &mut watch)?.sparse(sparse))
        });
        let mut opening = std::pin::pin!(opening);
        let opened = tokio::select! {
            opened = &mut opening => opened,
            () = self.attempt.stopping.cancelled() => {
                stopped.store(true, Ordering::Relaxed);
                // The lock has to be free again before this program ends.
                let _ = opening.await;
                Err(FetchError::Interrupted)
            }
        };
        self.remains.part = Some(opened?);
        Ok(())
    }

    /// Connects and learns what the file is. `Err` holds a target that is the same already.
    async fn describe(&mut self, transfer: TransferId) -> Result<Result<Described, Got>, Stop> {
        let attempt = self.attempt;
        let kept = self.remains.part.as_ref().and_then(Part::kept);
        let missing = kept.as_ref().map(|kept| kept.has().missing(kept.source.size));
        let compares = attempt.settings.overwrite == Overwrite::Different
            && attempt.target.path().is_some_and(std::path::Path::is_file);
        let first = match &missing {
            // The size is not known: the first blocks, as many as there may be.
            None => Some(0..V2_RUN_BLOCKS_MAX),
            Some(missing) => missing.first().map(|run| run.start..run.end.min(run.start + V2_RUN_BLOCKS_MAX)),
        };
        let first = first.filter(|_| !compares);
        let name = bytes::Bytes::copy_from_slice(attempt.name);
        let make = |requester: &mut crate::exchange::Requester| match &first {
            None => requester.stat(Stat { root: true, name }),
            Some(run) => {
                let size = kept.as_ref().map_or(u64::MAX, |kept| kept.source.size);
                let has = kept.as_ref().map_or(0, |kept| kept.has().bytes(kept.source.size));
                let token = kept.as_ref().map_or([0; 16], |kept| kept.source.token);
                let ranges = vec![ByteRange::of_blocks(run, size)];
                requester.get(Get { name, transfer, have: has, token, ranges, ..Get::default() })
            }
        };
        let settings = attempt.settings;
        let opening = Link::open(attempt.server, settings, attempt.observer, Arc::clone(&self.arrived), make);
        let mut link = match attempt.unless_stopped(opening).await? {
            Opening::Link(link) => *link,
            Opening::Old { peer, said_so } => return Err(Stop::Old { peer, said_so }),
        };
        let file = attempt.unless_stopped(file_of(&mut link, attempt.name)).await?;
        self.attributes = Some(Attributes { mode: file.mode, modified: file.modified, sparse: false });
        if attempt.size.is_some_and(|size| size != file.size) {
            return Err(FetchError::Contradiction { peer: link.peer() }.into());
        }
        let source = Source { size: file.size, root: file.root, token: file.token };
        if compares && let Some(root) = file.root {
            let (target, size, digest) = (attempt.target.clone(), file.size, Digest::Blake3(root));
            if attempt.unless_stopped(blocking(move || Ok(target.holds(size, digest)))).await? {
                return Ok(Err(Got {
                    size,
                    digest,
                    unchanged: true,
                    resumed: 0,
                    attributes: self.attributes,
                }));
            }
        }
        let running = first.map(|run| (link.last(), run.start..run.end.min(block_count(file.size))));
        Ok(Ok(Described { link, source, running }))
    }

    /// Which of the blocks that are here belong to `source` too.
    async fn reconcile(
        &mut self,
        link: &mut Link,
        source: &Source,
        running: &mut Option<(RequestId, Range<u64>)>,
    ) -> Result<BlockSet, FetchError> {
        let Some(kept) = self.remains.part.as_ref().and_then(Part::kept) else {
            return Ok(BlockSet::default());
        };
        if kept.source.is_same(source) {
            // Blocks that were taken on trust are merged and compared with the root in the end: looking
            // at each of them now would throw away what is on its way.
            return Ok(kept.has());
        }
        if let Some((request, _)) = running.take() {
            link.cancel(request).await?;
        }
        self.equal_blocks(link, source, &kept).await
    }

    /// Which of the blocks that are here have the values that they have in `source`.
    async fn equal_blocks(
        &self,
        link: &mut Link,
        source: &Source,
        kept: &Kept,
    ) -> Result<BlockSet, FetchError> {
        let get = Get {
            name: bytes::Bytes::copy_from_slice(self.attempt.name),
            token: source.token,
            values_only: true,
            ..Get::default()
        };
        let values = self.attempt.unless_stopped(values_of(link, get, source)).await?;
        let mut keep = BlockSet::default();
        for (index, hash) in values {
            if kept.blocks.get(&index) == Some(&hash) {
                // They are ascending.
                let _ = keep.push(index..index + 1);
            }
        }
        let (had, kept) = (bytes_of(&kept.has(), kept.source.size), bytes_of(&keep, source.size));
        self.attempt.observer.observe(&Event::Changed { kept, had });
        Ok(keep)
    }

    /// Prepares the part for this version of the file.
    async fn begin(&mut self, source: &Source, keep: &BlockSet) -> Result<(), FetchError> {
        if self.remains.part.is_none() {
            self.open_part().await?;
        }
        let Some(mut part) = self.remains.part.take() else { return Ok(()) };
        let (source, keep) = (source.clone(), keep.clone());
        let begun = blocking(move || {
            let begun = part.begin(&source, &keep);
            Ok((part, begun))
        });
        let (part, begun) = begun.await?;
        self.remains.part = Some(part);
        Ok(begun?)
    }

    /// Why a file that there is no room for cannot be had: maybe only its size was damaged on its way.
    async fn doubt(
        &self,
        link: &mut Link,
        source: &Source,
        running: Option<(RequestId, Range<u64>)>,
        error: FetchError,
    ) -> FetchError {
        if error.code() != Code::NoSpace {
            return error;
        }
        match self.attempt.unless_stopped(size_again(link, self.attempt.name, running)).await {
            Ok(size) if size == source.size => error,
            Ok(_) => FetchError::Contradiction { peer: link.peer() },
            Err(error) => error,
        }
    }

    /// Begins to count with the blocks that are kept; returns how many bytes they are.
    fn count_on(&mut self, keep: &BlockSet, size: u64) -> u64 {
        let have = bytes_of(keep, size);
        let resumed = self.remains.resumed.get_or_insert(have);
        // Another version may have less of what was here.
        *resumed = (*resumed).min(have);
        self.arrived.begin(have, size);
        have
    }

    /// Fetches what is missing, and proves all of it. What was received while the root was not known, maybe
    /// by an earlier program, was taken on trust until then: if it does not make the file, each block
    /// is compared, and those that differ are fetched again.
    async fn fetch_until_proven(
        &mut self,
        link: Link,
        source: Source,
        running: Option<(RequestId, Range<u64>)>,
        keep: &BlockSet,
        transfer: TransferId,
    ) -> Result<(Link, Root), FetchError> {
        // What may never be needed takes no room on the stack of whoever waits.
        let (mut link, root) = Box::pin(self.fetch(link, source.clone(), running, keep, transfer)).await?;
        if self.is_proven(root, source.size) {
            return Ok((link, root));
        }
        let source = Source { root: Some(root), ..source };
        let Some(kept) = self.remains.part.as_ref().and_then(Part::kept) else {
            return Err(FetchError::Contradiction { peer: link.peer() });
        };
        let keep = self.attempt.unless_stopped(self.equal_blocks(&mut link, &source, &kept)).await?;
        self.begin(&source, &keep).await?;
        let size = source.size;
        self.count_on(&keep, size);
        let (link, root) = Box::pin(self.fetch(link, source, None, &keep, random())).await?;
        if self.is_proven(root, size) {
            Ok((link, root))
        } else {
            Err(FetchError::Contradiction { peer: link.peer() })
        }
    }

    /// Fetches the missing blocks; returns one of the links, and the root.
    async fn fetch(
        &mut self,
        link: Link,
        source: Source,
        running: Option<(RequestId, Range<u64>)>,
        keep: &BlockSet,
        transfer: TransferId,
    ) -> Result<(Link, Root), FetchError> {
        let attempt = self.attempt;
        let Some(part) = self.remains.part.take() else {
            return Err(FetchError::Interrupted);
        };
        let mut missing = keep.missing(source.size);
        if let Some((_, run)) = &running
            && let Some(first) = missing.first_mut().filter(|first| first.start == run.start)
        {
            first.start = run.end.min(first.end);
            missing.retain(|run| !run.is_empty());
        }
        let queue = Queue::new(missing);
        let left = queue.left();
        let links = (left / V2_LINK_BLOCKS_MIN).clamp(1, attempt.settings.links_max());
        let have = source.size.min(self.arrived.done());
        let shared = Arc::new(Shared {
            part,
            source,
            name: bytes::Bytes::copy_from_slice(attempt.name),
            transfer,
            have,
            links,
            arrived: Arc::clone(&self.arrived),
            queue: queue.into(),
            stop: attempt.stopping.child_token(),
        });
        let pending: VecDeque<_> = running.into_iter().collect();
        let before = shared.part.recorded().max(self.remains.most);
        let worked = crew::work(attempt, link, &shared, pending).await;
        self.remains.most = shared.part.recorded().max(before);
        self.remains.blocks += self.remains.most - before;
        let source = shared.source.clone();
        // Every link and every flush has ended: nobody else holds it any more.
        self.remains.part = Arc::into_inner(shared).map(|shared| shared.part);
        let mut link = worked?;
        let root = match source.root {
            Some(root) => root,
            None => attempt.unless_stopped(self.root_of(&mut link, &source)).await?,
        };
        Ok((link, root))
    }

    /// The root of a file that the server had not known when it began to send.
    async fn root_of(&self, link: &mut Link, source: &Source) -> Result<Root, FetchError> {
        let name = bytes::Bytes::copy_from_slice(self.attempt.name);
        link.ask(|requester| requester.stat(Stat { root: true, name })).await?;
        let file = file_of(link, self.attempt.name).await?;
        let is_same = Source { size: file.size, root: None, token: file.token }.is_same(source);
        file.root.filter(|_| is_same).ok_or(FetchError::SourceChanged { peer: link.peer() })
    }

    /// Whether the blocks that are here make the file with this root. What was received while the root
    /// was not known, maybe by an earlier program, was taken on trust until now.
    fn is_proven(&self, root: Root, size: u64) -> bool {
        let blocks = self.remains.part.as_ref().and_then(Part::kept).map(|kept| kept.blocks);
        let mut hashes = blocks.unwrap_or_default().into_values();
        match block_count(size) {
            // An empty file has nothing that could be recorded, and was proven when it was described.
            1 => size == 0 || hashes.next() == Some(*root.as_bytes()),
            _ => Tree::over(hashes.map(Value::from_bytes).collect()).is_some_and(|tree| tree.root() == root),
        }
    }

    /// What the user knows of the file, against what the server says.
    fn compare_root(&self, root: Option<Root>) -> Result<(), FetchError> {
        match (&self.attempt.settings.checksum, root) {
            (Some(checksum), Some(root)) => checksum.compare(Digest::Blake3(root)),
            _ => Ok(()),
        }
    }

    async fn commit(&mut self, size: u64, root: Root) -> Result<Got, Stop> {
        let Some(part) = self.remains.part.take() else { return Err(FetchError::Interrupted.into()) };
        let (replace, checksum) = (self.attempt.replace(), self.attempt.settings.checksum.clone());
        blocking(move || {
            if let Some(checksum) = checksum.filter(|checksum| !checksum.is_blake3()) {
                let mut part = part;
                if let Err(error) = checksum.check_file(part.file()) {
                    // What is here is proven to be the server's file, so going on with it is of no use.
                    part.discard()?;
                    return Err(error);
                }
                return Ok(part.commit(replace)?);
            }
            Ok(part.commit(replace)?)
        })
        .await?;
        let resumed = self.remains.resumed.unwrap_or(0);
        Ok(Got { size, digest: Digest::Blake3(root), unchanged: false, resumed, attributes: self.attributes })
    }
}

fn bytes_of(blocks: &BlockSet, size: u64) -> u64 {
    if blocks.count() == 0 { 0 } else { blocks.bytes(size) }
}
