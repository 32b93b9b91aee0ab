//! What one link does for a download: asks for runs of blocks, checks each block, keeps it.
//!
//! It runs in a thread of its own, with a runtime of its own, because it hashes and writes where it
//! receives: the bytes are still in the processor's cache then, and nothing has to be handed over. Two
//! such links use two processors. Bytes are written frame by frame, before their block is proven: what
//! counts is its record, which is made only after that, and a block that is not recorded is not there.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::link::{Arrived, Link};
use super::queue::Queue;
use crate::client::FetchError;
use crate::codec::v2::{ByteRange, ClientFrame, DATA_MAX, File, Get, RequestId, TransferId};
use crate::exchange::{Data, Heard, Requester};
use crate::limits::V2_RUNS_AHEAD;
use crate::staged::{Part, Source};
use crate::tree::{BlockHasher, block_span};

/// What the links of one download share.
pub(super) struct Shared {
    pub(super) part: Part,
    pub(super) source: Source,
    pub(super) name: bytes::Bytes,
    pub(super) transfer: TransferId,
    pub(super) have: u64,
    /// How many links there are to be.
    pub(super) links: u64,
    pub(super) arrived: Arc<Arrived>,
    pub(super) queue: Mutex<Queue>,
    /// Ended when one of the links fails, or nobody wants the file any more.
    pub(super) stop: CancellationToken,
}

/// Runs that were asked for and have not ended, the oldest first.
type Pending = VecDeque<(RequestId, Range<u64>)>;

impl Shared {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request for a run of blocks.
    pub(super) fn get(&self, run: &Range<u64>) -> Get {
        Get {
            name: self.name.clone(),
            transfer: self.transfer,
            have: self.have,
            token: self.source.token,
            ranges: vec![ByteRange::of_blocks(run, self.source.size)],
            ..Get::default()
        }
    }

    /// Fetches until nothing is left; `pending` was asked for already.
    pub(super) async fn work(&self, link: &mut Link, pending: Pending) -> Result<(), FetchError> {
        let mut buffer = vec![0; buffer_len(self.source.size)];
        let work = Work { shared: self, link, pending, buffer: &mut buffer, hasher: None };
        self.stop.run_until_cancelled(work.run()).await.unwrap_or(Err(FetchError::Interrupted))
    }

    /// Whether a file that the server describes is the one that is being fetched.
    pub(super) fn is_same(&self, file: &File) -> bool {
        self.source.is_same(&Source { size: file.size, root: file.root, token: file.token })
    }
}

/// The bytes of the largest frame of data, or those of the whole file if that is smaller.
fn buffer_len(size: u64) -> usize {
    usize::try_from(size.min(DATA_MAX)).unwrap_or(0)
}

struct Work<'a> {
    shared: &'a Shared,
    link: &'a mut Link,
    pending: Pending,
    buffer: &'a mut [u8],
    /// Has taken in what is here of the block that arrives.
    hasher: Option<BlockHasher>,
}

impl Work<'_> {
    async fn run(mut self) -> Result<(), FetchError> {
        loop {
            while self.pending.len() < V2_RUNS_AHEAD.min(self.link.requests()) {
                let Some(run) = self.shared.queue().take(self.shared.links) else { break };
                let get = self.shared.get(&run);
                let request = self.link.ask(|requester: &mut Requester| requester.get(get)).await?;
                self.pending.push_back((request, run));
            }
            if self.pending.is_empty() {
                return Ok(());
            }
            match self.link.hear().await? {
                Heard::File(_, file) if !self.shared.is_same(&file) => {
                    return Err(FetchError::SourceChanged { peer: self.link.peer() });
                }
                Heard::Data(data) => self.data(data).await?,
                Heard::End { request, .. } => self.pending.retain(|(pending, _)| *pending != request),
                Heard::Failed(_, code, text) => return Err(self.link.failed(code, &text)),
                _ => {}
            }
        }
    }

    async fn data(&mut self, data: Data) -> Result<(), FetchError> {
        let Some(block) = data.block else { return self.link.skip(data.len).await };
        let size = self.shared.source.size;
        // How long a frame may be was checked when its head was read.
        let place = usize::try_from(data.len).ok().and_then(|len| self.buffer.get_mut(..len));
        let place = place.unwrap_or_default();
        self.link.take(place).await?;
        let hasher = self.hasher.get_or_insert_with(|| BlockHasher::new(size, block));
        hasher.update(place);
        self.shared.part.write_at(place, data.offset)?;
        if !data.ends_block {
            return Ok(());
        }
        let hash = hasher.finish();
        self.hasher = None;
        if self.link.check(data.request, hash)? {
            return Ok(self.shared.part.record(block, *hash.as_bytes())?);
        }
        let span = block_span(size, block);
        self.shared.arrived.take_back(span.end - span.start);
        if self.shared.queue().repeat(block) {
            Ok(())
        } else {
            Err(FetchError::Damaged { peer: self.link.peer(), block })
        }
    }
}

/// The frame of a GET, for a hello.
pub(super) fn first(get: Get) -> impl FnOnce(&mut Requester) -> ClientFrame {
    move |requester| requester.get(get)
}
