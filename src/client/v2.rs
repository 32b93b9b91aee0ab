//! One attempt to fetch a file over wire format v2 (`docs/protocol.md`), going on with what is there.
//!
//! 1. The hello asks for the first blocks that are missing, as far as that is known.
//! 2. FILE says which version the server has. Another one than that of which a part is here: the values
//!    of its blocks are fetched and compared, and equal blocks are kept.
//! 3. Links ([`work`]) fetch runs of blocks from one queue; each block is checked, written, recorded.
//! 4. If the server did not know the root, the values are merged and compared with it in the end.
//! 5. The part gets its name. Whatever ends an attempt before, the part stays for the next one.
//!
//! A stream gets its blocks in order, each proven before it is passed on ([`pour`]).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::attempt::{Attempt, Got, blocking};
use super::{Event, FetchError, Overwrite, Target};
use crate::codec::WireError;
use crate::codec::v2::{ByteRange, File, Get, RequestId, Stat, TransferId};
use crate::digest::Digest;
use crate::error::Code;
use crate::exchange::Heard;
use crate::limits::{
    BLOCKS_MAX, PROGRESS_INTERVAL, SYNC_BYTES, SYNC_INTERVAL, V2_LINK_BLOCKS_MIN, V2_RUN_BLOCKS_MAX,
};
use crate::names::base;
use crate::staged::{Part, Source};
use crate::tree::{BlockSet, Root, Tree, Value, block_count};

pub(super) mod ask;
pub(super) mod link;
mod pour;
mod queue;
mod work;

use link::{Arrived, Link, Opening, Parked, Patience};
use queue::Queue;
use work::Shared;

/// What one attempt leaves for the next.
#[derive(Default)]
pub(super) struct Remains {
    /// The part of the target, locked.
    part: Option<Part>,
    /// What was there before was forgotten, as was asked for.
    restarted: bool,
    /// Bytes that did not have to be fetched, as of the first attempt.
    resumed: Option<u64>,
    /// The blocks that are here do not merge to the root, so each of them is to be compared.
    suspect: bool,
    /// A server spoke version 2: silence is no sign of another version any more.
    has_spoken: bool,
    /// How far a stream has come.
    poured: pour::Poured,
    /// Blocks by which attempts came further than all before them.
    pub(super) blocks: u64,
    /// The most blocks that were ever there. A server whose file becomes another one again and again
    /// could have the same few blocks fetched for ever.
    most: u64,
}

/// Why there is no file after an attempt.
pub(super) enum Stop {
    /// It failed.
    Failed(FetchError),
    /// The server speaks version 1 only, as it seems; `said_so` tells whether it answered so.
    Old {
        /// The server.
        peer: SocketAddr,
        /// It did not just fall silent.
        said_so: bool,
    },
}

impl From<FetchError> for Stop {
    fn from(error: FetchError) -> Self {
        Self::Failed(error)
    }
}

impl Remains {
    /// Whether a server that does not answer a hello is more likely away than of version 1.
    pub(super) fn expects_v2(&self) -> bool {
        self.has_spoken || self.part.as_ref().is_some_and(|part| part.kept().is_some())
    }

    /// Lets go of the part: its blocks stay on the disk, if there are any.
    pub(super) fn release(&mut self) {
        self.part = None;
    }
}

/// Makes one attempt.
pub(super) async fn run(attempt: &Attempt<'_>, remains: &mut Remains) -> Result<Got, Stop> {
    match attempt.target {
        Target::File(_) => Download { attempt, remains, arrived: Arc::default() }.run().await,
        Target::Stream(_) | Target::Stdout => pour::run(attempt, remains).await,
    }
}

/// A file and the link on which it was described; some of its blocks may be on their way.
struct Described {
    link: Link,
    source: Source,
    /// The request that is running, and its blocks.
    running: Option<(RequestId, Range<u64>)>,
}

struct Download<'a> {
    attempt: &'a Attempt<'a>,
    remains: &'a mut Remains,
    arrived: Arc<Arrived>,
}

impl Download<'_> {
    async fn run(mut self) -> Result<Got, Stop> {
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
        let have = if keep.count() == 0 { 0 } else { keep.bytes(source.size) };
        let resumed = self.remains.resumed.get_or_insert(have);
        // Another version may have less of what was here.
        *resumed = (*resumed).min(have);
        self.arrived.begin(have, source.size);
        let (name, size) = (base(attempt.name), source.size);
        let digest = source.root.map(Digest::Blake3);
        attempt.observer.observe(&Event::Started { name, size, digest, have });
        attempt.observer.observe(&Event::Progress { done: have, size });
        let (link, root) = self.fetch(link, source, running, &keep, transfer).await?;
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
        let (path, sync) = (path.clone(), self.attempt.settings.sync);
        let stopped = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&stopped);
        let opening = blocking(move || {
            let mut watch = |_, _| match watched.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            Ok(Part::open(&path, sync, &mut watch)?)
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
        let opening = Link::open(
            attempt.server,
            Patience::of(settings),
            attempt.observer,
            Arc::clone(&self.arrived),
            make,
        );
        let mut link = match attempt.unless_stopped(opening).await? {
            Opening::Link(link) => *link,
            Opening::Old { peer, said_so } => return Err(Stop::Old { peer, said_so }),
        };
        let file = attempt.unless_stopped(file_of(&mut link, attempt.name)).await?;
        let source = Source { size: file.size, root: file.root, token: file.token };
        if compares && let Some(root) = file.root {
            let (target, size, digest) = (attempt.target.clone(), file.size, Digest::Blake3(root));
            if attempt.unless_stopped(blocking(move || Ok(target.holds(size, digest)))).await? {
                return Ok(Err(Got { size, digest, unchanged: true, resumed: 0 }));
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
        // Values that were taken on trust have to be looked at again once there is a root to prove them.
        let is_on_trust = kept.source.root.is_none() && source.root.is_some();
        let is_suspect = std::mem::take(&mut self.remains.suspect) || is_on_trust;
        if kept.source.is_same(source) && !is_suspect {
            return Ok(kept.has());
        }
        if let Some((request, _)) = running.take() {
            link.cancel(request).await?;
        }
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
        let bytes = |blocks: &BlockSet, size| if blocks.count() == 0 { 0 } else { blocks.bytes(size) };
        let is_changed = !kept.source.is_same(source) || keep != kept.has();
        let (had, kept) = (bytes(&kept.has(), kept.source.size), bytes(&keep, source.size));
        if is_changed {
            self.attempt.observer.observe(&Event::Changed { kept, had });
        }
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
        match self.attempt.unless_stopped(self.size_again(link, running)).await {
            Ok(size) if size == source.size => error,
            Ok(_) => FetchError::Contradiction { peer: link.peer() },
            Err(error) => error,
        }
    }

    async fn size_again(
        &self,
        link: &mut Link,
        running: Option<(RequestId, Range<u64>)>,
    ) -> Result<u64, FetchError> {
        if let Some((request, _)) = running {
            link.cancel(request).await?;
        }
        let name = bytes::Bytes::copy_from_slice(self.attempt.name);
        link.ask(|requester| requester.stat(Stat { root: false, name })).await?;
        Ok(file_of(link, self.attempt.name).await?.size)
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
        let links = (left / V2_LINK_BLOCKS_MIN).clamp(1, attempt.settings.links.max(1));
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
        let worked = self.work_until_all_is_here(link, &shared, pending).await;
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
        if !self.is_proven(root, source.size) {
            self.remains.suspect = true;
            return Err(FetchError::Contradiction { peer: link.peer() });
        }
        Ok((link, root))
    }

    /// What a link that could not be had was to fetch is left in the queue: another round fetches it.
    async fn work_until_all_is_here(
        &self,
        mut link: Link,
        shared: &Arc<Shared>,
        mut pending: VecDeque<(RequestId, Range<u64>)>,
    ) -> Result<Link, FetchError> {
        loop {
            link = self.work(link, shared, std::mem::take(&mut pending)).await?;
            if shared.queue().left() == 0 {
                return Ok(link);
            }
        }
    }

    /// Lets the links work, shows how far they are, and makes sync points meanwhile.
    async fn work(
        &self,
        link: Link,
        shared: &Arc<Shared>,
        pending: VecDeque<(RequestId, Range<u64>)>,
    ) -> Result<Link, FetchError> {
        let attempt = self.attempt;
        let mut links = JoinSet::new();
        let first = (link.park()?, pending);
        let own = Arc::clone(shared);
        links.spawn_blocking(move || in_runtime(first_link(first, &own)));
        for _ in 1..shared.links {
            let (own, server) = (Arc::clone(shared), attempt.server.clone());
            let patience = Patience::of(attempt.settings);
            links.spawn_blocking(move || in_runtime(further_link(&server, patience, &own)));
        }
        let mut syncs = Syncs::new(attempt.settings.sync, self.arrived.done());
        let mut ticks = interval(PROGRESS_INTERVAL);
        let (mut back, mut failed) = (None, None);
        loop {
            tokio::select! {
                ended = links.join_next() => match ended {
                    None => break,
                    Some(Ok(Ok(parked))) => back = back.or(parked),
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
                    attempt.observer.observe(&Event::Progress { done: self.done(shared), size: shared.source.size });
                    if let Err(error) = syncs.poll(shared, self.arrived.done()).await {
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
        attempt.observer.observe(&Event::Progress { done: self.done(shared), size: shared.source.size });
        let Some(parked) = back else { return Err(FetchError::Interrupted) };
        parked.unpark()
    }

    fn done(&self, shared: &Shared) -> u64 {
        self.arrived.done().min(shared.source.size)
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
        Ok(Got { size, digest: Digest::Blake3(root), unchanged: false, resumed })
    }
}

/// Waits for the description of the file that was asked for last.
async fn file_of(link: &mut Link, name: &[u8]) -> Result<File, FetchError> {
    loop {
        match link.hear().await? {
            Heard::File(_, file) => return Ok(file),
            Heard::Data(data) if data.block.is_none() => link.skip(data.len).await?,
            Heard::Failed(request, code, text) if request == link.last() => {
                return Err(not_there(link.failed(code, &text), name));
            }
            Heard::Failed(..) => {}
            _ => return Err(link.violated(WireError::Order("something else came than a file's description"))),
        }
    }
}

/// Tells a missing file as such.
fn not_there(error: FetchError, name: &[u8]) -> FetchError {
    let name = crate::text::shown(name).to_string();
    match error {
        FetchError::Failed { code: crate::error::Code::NotFound, .. } => FetchError::NotFound(name),
        FetchError::Failed { code: crate::error::Code::NotAllowed, text, .. } => {
            FetchError::Refused { name, text }
        }
        other => other,
    }
}

/// The value of each block of the version `source`, or its root if it has only one.
async fn values_of(
    link: &mut Link,
    get: Get,
    source: &Source,
) -> Result<Vec<(u64, [u8; crate::tree::HASH_LEN])>, FetchError> {
    let request = link.ask(|requester| requester.get(get)).await?;
    loop {
        match link.hear().await? {
            Heard::File(described, file)
                if described == request
                    && !source.is_same(&Source { size: file.size, root: file.root, token: file.token }) =>
            {
                return Err(FetchError::SourceChanged { peer: link.peer() });
            }
            Heard::End { request: ended, values, .. } if ended == request => return Ok(values),
            Heard::Failed(failed, code, text) if failed == request => return Err(link.failed(code, &text)),
            Heard::Data(data) => link.skip(data.len).await?,
            _ => {}
        }
    }
}

/// Runs one link's work in a runtime of its own, on this thread.
fn in_runtime<T>(work: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let failed = |source| FetchError::Output { path: "this machine's resources".to_owned(), source };
    runtime.map_err(failed)?.block_on(work)
}

async fn first_link(
    (parked, pending): (Parked, VecDeque<(RequestId, Range<u64>)>),
    shared: &Shared,
) -> Result<Option<Parked>, FetchError> {
    let mut link = parked.unpark()?;
    shared.work(&mut link, pending).await?;
    link.park().map(Some)
}

/// A further link is a matter of speed: if it cannot be had, the others do its work.
async fn further_link(
    server: &super::Server,
    patience: Patience,
    shared: &Shared,
) -> Result<Option<Parked>, FetchError> {
    let Some(run) = shared.queue().take(shared.links) else { return Ok(None) };
    let first = work::first(shared.get(&run));
    let opening = Link::open(server, patience, &Quiet, Arc::clone(&shared.arrived), first);
    let Some(Ok(Opening::Link(mut link))) = shared.stop.run_until_cancelled(opening).await else {
        shared.queue().give_back(run);
        return Ok(None);
    };
    let pending = std::iter::once((link.last(), run)).collect();
    shared.work(&mut link, pending).await?;
    Ok(None)
}

/// Hears nothing: what further links do is not worth telling.
struct Quiet;

impl super::Observer for Quiet {
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

/// A number that no other transfer has; never zero.
fn random() -> TransferId {
    let mut id = TransferId::default();
    while id == TransferId::default() {
        fastrand::fill(&mut id);
    }
    id
}
