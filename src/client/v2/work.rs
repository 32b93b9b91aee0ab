//! What one link does for a download: asks for runs of blocks, checks each block, keeps it.
//!
//! It runs in a thread of its own, with a runtime of its own, because it hashes and writes where it
//! receives: the bytes are still in the processor's cache then, and nothing has to be handed over. Two
//! such links use two processors. Bytes are written frame by frame, before their block is proven: what
//! counts is its record, which is made only after that, and a block that is not recorded is not there.
//! While another link writes, this one goes on receiving; at the end of a block it waits.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::link::{Arrived, Link};
use crate::client::FetchError;
use crate::codec::WireError;
use crate::codec::v2::{ByteRange, ClientFrame, File, Get, RequestId, TransferId};
use crate::exchange::{Data, Heard, Queue, Requester};
use crate::limits::{V2_PIECE, V2_RUNS_AHEAD};
use crate::staged::{Part, Source};
use crate::tree::{BLOCK_LEN, BlockHasher, block_span};

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

/// What came of a link's work.
pub(super) enum Worked {
    /// Nothing is left to fetch.
    Done,
    /// The connection broke. What it was to bring is in the queue again.
    Broke {
        /// How it broke.
        error: FetchError,
        /// It had brought a block: another one in its place may do so, too.
        has_brought: bool,
    },
}

/// Runs that were asked for and have not ended, without what has come of them, the oldest first.
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
    pub(super) async fn work(&self, link: &mut Link, pending: Pending) -> Result<Worked, FetchError> {
        let mut buffer = vec![0; buffer_len(self.source.size)];
        let unwritten = Unwritten { buffer: &mut buffer, len: 0, offset: 0 };
        let mut work = Work { shared: self, link, pending, unwritten, hashing: None, has_brought: false };
        match self.stop.run_until_cancelled(work.run()).await.unwrap_or(Err(FetchError::Interrupted)) {
            Ok(()) => Ok(Worked::Done),
            Err(error @ (FetchError::Lost { .. } | FetchError::Silent { .. })) => Ok(work.broke(error)),
            Err(error) => Err(error),
        }
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

/// Bytes that have arrived and are still to be written.
struct Unwritten<'a> {
    buffer: &'a mut [u8],
    /// How many there are.
    len: usize,
    /// Where the first one belongs.
    offset: u64,
}

impl Unwritten<'_> {
    /// Whether these bytes can be written together with those that are here.
    fn is_followed_by(&self, data: &Data) -> bool {
        let room = (self.buffer.len() - self.len) as u64;
        self.len == 0 || (data.offset == self.offset + self.len as u64 && data.len <= room)
    }

    /// The place for these bytes, which count as here from now on. They follow those that are.
    fn place(&mut self, data: &Data) -> &mut [u8] {
        if self.len == 0 {
            self.offset = data.offset;
        }
        let begin = self.len;
        // How long a frame may be was checked when its head was read.
        self.len = self.buffer.len().min(begin + usize::try_from(data.len).unwrap_or(0));
        &mut self.buffer[begin..self.len]
    }

    /// Writes what is here, unless another link is writing and this may wait.
    fn write(&mut self, part: &Part, may_wait: bool) -> Result<(), FetchError> {
        let bytes = &self.buffer[..self.len];
        if may_wait {
            part.write_at(bytes, self.offset)?;
        } else if !part.write_at_now(bytes, self.offset)? {
            return Ok(());
        }
        self.len = 0;
        Ok(())
    }
}

struct Work<'a> {
    shared: &'a Shared,
    link: &'a mut Link,
    pending: Pending,
    unwritten: Unwritten<'a>,
    /// The block that has begun to arrive.
    hashing: Option<Hashing>,
    /// A block has come, and was proven.
    has_brought: bool,
}

/// What is here of a block, hashed: of one request, without a gap, and just as it was written. Else
/// the bytes of a proven block could lie somewhere else than where they belong.
struct Hashing {
    request: RequestId,
    block: u64,
    /// Where its next byte belongs.
    next: u64,
    hasher: BlockHasher,
}

impl Hashing {
    fn new(data: &Data, block: u64, size: u64) -> Self {
        let next = block_span(size, block).start;
        Self { request: data.request, block, next, hasher: BlockHasher::new(size, block) }
    }

    fn is_followed_by(&self, data: &Data, block: u64) -> bool {
        (self.request, self.block, self.next) == (data.request, block, data.offset)
    }

    fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.next += bytes.len() as u64;
    }
}

impl Work<'_> {
    async fn run(&mut self) -> Result<(), FetchError> {
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

    /// Leaves what it has not brought to the other links.
    fn broke(self, error: FetchError) -> Worked {
        if let Some(hashing) = self.hashing {
            let begin = block_span(self.shared.source.size, hashing.block).start;
            self.shared.arrived.take_back(hashing.next - begin);
        }
        let mut queue = self.shared.queue();
        for (_, run) in self.pending.into_iter().rev() {
            queue.give_back(run);
        }
        Worked::Broke { error, has_brought: self.has_brought }
    }

    async fn data(&mut self, data: Data) -> Result<(), FetchError> {
        let Some(block) = data.block else { return self.link.skip(data.len).await };
        let size = self.shared.source.size;
        // Requests of one transfer are answered one after the other.
        let mut hashing = self.hashing.take().unwrap_or_else(|| Hashing::new(&data, block, size));
        if !hashing.is_followed_by(&data, block) {
            return Err(self.link.violated(WireError::Order("a block comes in the middle of another one")));
        }
        for piece in pieces(data) {
            if !self.unwritten.is_followed_by(&piece) {
                self.unwritten.write(&self.shared.part, true)?;
            }
            let place = self.unwritten.place(&piece);
            self.link.take(place).await?;
            hashing.update(place);
            self.unwritten.write(&self.shared.part, piece.ends_block)?;
        }
        if !data.ends_block {
            self.hashing = Some(hashing);
            return Ok(());
        }
        let hash = hashing.hasher.finish();
        if let Some((_, run)) = self.pending.iter_mut().find(|(request, _)| *request == data.request) {
            run.start = block + 1;
        }
        if self.link.check(data.request, hash)? {
            self.has_brought = true;
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

/// The bytes of a frame in pieces, each of which stays in the processor's cache while it is received, hashed
/// and written.
fn pieces(data: Data) -> impl Iterator<Item = Data> {
    let end = data.offset + data.len;
    let starts = (data.offset..end).step_by(V2_PIECE);
    starts.map(move |offset| {
        let len = (end - offset).min(V2_PIECE as u64);
        Data { offset, len, ends_block: data.ends_block && offset + len == end, ..data }
    })
}

/// The frame of a GET, for a hello.
pub(super) fn first(get: Get) -> impl FnOnce(&mut Requester) -> ClientFrame {
    move |requester| requester.get(get)
}
