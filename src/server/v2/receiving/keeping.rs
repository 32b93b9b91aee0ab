//! What has arrived of files that were asked for is hashed, written, compared and recorded off the async threads, while
//! more is received: all that waits at a time, in order, so that a connection never has more than one thread.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::codec::v2::RequestId;
use crate::rights::Verb;
use crate::server::v2::{Connection, Done};
use crate::service::uploads::{Pen, UploadError};
use crate::tree::{BlockHasher, HASH_LEN};

/// A part of a block that has arrived.
pub(super) struct Piece {
    put: RequestId,
    pen: Pen,
    size: u64,
    block: u64,
    offset: u64,
    bytes: Bytes,
    /// What the block has to be, if this is the end of it.
    expected: Option<[u8; HASH_LEN]>,
}

/// Where a block is in what was asked for with one request.
#[derive(Clone, Copy, Debug)]
pub(in crate::server::v2) struct Stretch {
    /// The request of this end.
    pub(super) ask: RequestId,
    pub(super) block: u64,
    /// Where the last byte of the stretch is behind.
    pub(super) end: u64,
    /// What the block has to be, if the stretch ends it.
    pub(super) expected: Option<[u8; HASH_LEN]>,
}

/// The blocks that have begun, as far as they are hashed: one of each request of this end.
type Hashers = BTreeMap<RequestId, (u64, BlockHasher)>;

/// What has arrived and is not recorded yet.
#[derive(Default)]
pub(super) struct Arrived {
    waiting: Vec<(RequestId, Piece)>,
    /// Bytes of that, and of what a thread is at.
    held: usize,
    is_working: bool,
    /// None while a thread has them: then there are at most as many as requests of this end.
    hashers: Hashers,
}

impl Arrived {
    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether something is being written or waits for that.
    pub(super) fn is_at_work(&self) -> bool {
        self.is_working || !self.waiting.is_empty()
    }
}

/// What came of all that waited.
pub(in crate::server::v2) struct Kept {
    hashers: Hashers,
    held: usize,
    blocks: Vec<(RequestId, Did)>,
}

enum Did {
    Recorded,
    /// This block is not what it has to be.
    Damaged(u64),
    Failed(UploadError),
}

/// Hashes, writes, compares and records. Blocks.
fn work(pieces: Vec<(RequestId, Piece)>, mut hashers: Hashers) -> Kept {
    let (mut held, mut blocks) = (0, Vec::new());
    let mut failed = BTreeSet::new();
    for (ask, piece) in pieces {
        held += piece.bytes.len();
        let put = piece.put;
        if failed.contains(&put) {
            continue;
        }
        match keep(ask, piece, &mut hashers) {
            Ok(None) => {}
            Ok(Some(did)) => blocks.push((put, did)),
            Err(error) => {
                failed.insert(put);
                blocks.push((put, Did::Failed(error)));
            }
        }
    }
    Kept { hashers, held, blocks }
}

fn keep(ask: RequestId, piece: Piece, hashers: &mut Hashers) -> Result<Option<Did>, UploadError> {
    let Piece { pen, size, block, offset, bytes, expected, .. } = piece;
    let (at, hasher) = hashers.entry(ask).or_insert_with(|| (block, BlockHasher::new(size, block)));
    if *at != block {
        (*at, *hasher) = (block, BlockHasher::new(size, block));
    }
    hasher.update(&bytes);
    pen.write(&bytes, offset)?;
    let Some(expected) = expected else { return Ok(None) };
    let Some((_, hasher)) = hashers.remove(&ask) else { return Ok(None) };
    let hash = *hasher.finish().as_bytes();
    if hash != expected {
        return Ok(Some(Did::Damaged(block)));
    }
    pen.record(block, hash)?;
    Ok(Some(Did::Recorded))
}

impl Connection<'_> {
    /// Takes bytes of a file that was asked for; `left` of their stretch are still to come.
    pub(super) fn take_asked(&mut self, stretch: &Stretch, bytes: Bytes, left: u64) {
        let Some(&put) = self.puts.of.get(&stretch.ask) else { return };
        let Some(upload) = self.puts.puts.get(&put) else { return };
        let Some(hand) = &upload.hand else { return };
        let expected = stretch.expected.filter(|_| left == 0);
        // What was revoked or has expired is over, also in the middle of a file.
        if expected.is_some()
            && let Err(denied) = self.context.service.check(&self.caller, Verb::Put, &upload.put.name)
        {
            hand.blame(&denied.to_string());
            self.leave_put(put);
            return self.tell_failed(put, crate::error::Code::NotAllowed, &denied.to_string());
        }
        let piece = Piece {
            put,
            pen: hand.pen().clone(),
            size: upload.put.file.size,
            block: stretch.block,
            offset: stretch.end - left - bytes.len() as u64,
            bytes,
            expected,
        };
        self.puts.arrived.held += piece.bytes.len();
        self.puts.arrived.waiting.push((stretch.ask, piece));
        self.keep();
    }

    /// Gives a thread what waits, unless one is at work for this connection.
    fn keep(&mut self) {
        let arrived = &mut self.puts.arrived;
        if arrived.is_working || arrived.waiting.is_empty() {
            return;
        }
        arrived.is_working = true;
        let (pieces, hashers) = (std::mem::take(&mut arrived.waiting), std::mem::take(&mut arrived.hashers));
        let service = self.context.service.clone();
        self.running.spawn(async move {
            let _turn = service.writing_turn().await;
            Done::Kept(tokio::task::spawn_blocking(move || work(pieces, hashers)).await.ok())
        });
    }

    /// Takes what came of it.
    pub(in crate::server::v2) fn kept(&mut self, kept: Option<Kept>) {
        self.puts.arrived.is_working = false;
        let Some(Kept { hashers, held, blocks }) = kept else { return };
        let arrived = &mut self.puts.arrived;
        arrived.held -= held;
        arrived.hashers = hashers;
        // The end of a request may be heard before the end of its last block is worked on.
        let waits = |ask| arrived.waiting.iter().any(|&(of, _)| of == ask);
        arrived.hashers.retain(|&ask, _| self.puts.of.contains_key(&ask) || waits(ask));
        let mut stirred = BTreeSet::new();
        for (put, did) in blocks {
            match did {
                Did::Recorded => {}
                Did::Damaged(block) => {
                    let hand = self.puts.puts.get_mut(&put).and_then(|upload| upload.hand.as_mut());
                    if hand.is_some_and(|hand| !hand.repeat(block)) {
                        self.fail_put(put, &UploadError::Damaged);
                    }
                }
                // That is told when it is looked what to do next.
                Did::Failed(UploadError::Superseded) => {}
                Did::Failed(error) => self.fail_put(put, &error),
            }
            stirred.insert(put);
        }
        for put in stirred {
            self.go_on(put);
        }
        self.keep();
    }
}
