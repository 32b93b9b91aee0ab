//! What one link does for a download: asks for runs of blocks, checks each block, keeps it.
//!
//! It runs in a thread of its own, with a runtime of its own, because it hashes and writes where it
//! receives: a block is still in the processor's cache then, and nothing has to be handed over. Two
//! such links use two processors.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::link::{Arrived, Link};
use super::queue::Queue;
use crate::client::FetchError;
use crate::codec::v2::{ByteRange, ClientFrame, File, Get, RequestId, TransferId};
use crate::exchange::{Data, Heard, Requester};
use crate::limits::V2_RUNS_AHEAD;
use crate::staged::{Part, Source};
use crate::tree::{BLOCK_LEN, BlockHash, block_span};

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
        let work = Work { shared: self, link, pending, buffer: &mut buffer };
        self.stop.run_until_cancelled(work.run()).await.unwrap_or(Err(FetchError::Interrupted))
    }

    /// Whether a file that the server describes is the one that is being fetched.
    pub(super) fn is_same(&self, file: &File) -> bool {
        self.source.is_same(&Source { size: file.size, root: file.root, token: file.token })
    }
}

/// A block's bytes, or those of the whole file if that is smaller.
fn buffer_len(size: u64) -> usize {
    usize::try_from(size.min(BLOCK_LEN)).unwrap_or(0)
}

struct Work<'a> {
    shared: &'a Shared,
    link: &'a mut Link,
    pending: Pending,
    buffer: &'a mut [u8],
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
        let span = block_span(size, block);
        let within = |at: u64| usize::try_from(at - span.start).unwrap_or(usize::MAX);
        // Where it lies within its block was checked when it was announced.
        let place = self.buffer.get_mut(within(data.offset)..within(data.offset + data.len));
        self.link.take(place.unwrap_or_default()).await?;
        if !data.ends_block {
            return Ok(());
        }
        let bytes = &self.buffer[..within(span.end)];
        let hash = BlockHash::of(size, block, bytes);
        if self.link.check(data.request, hash)? {
            self.shared.part.write_at(bytes, span.start)?;
            self.shared.part.record(block, *hash.as_bytes())?;
            return Ok(());
        }
        self.shared.arrived.take_back(bytes.len() as u64);
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
