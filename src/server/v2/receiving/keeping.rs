//! What has arrived of files that were asked for: it is hashed at once, compared at the end of each block, and written
//! and recorded off the async threads, while more is received.
//!
//! What waits is given to a thread a block at a time: waking one for each piece would cost more than the writing.
//! A connection never has more than one thread.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Stretch;
use crate::codec::v2::RequestId;
use crate::error::Code;
use crate::limits::{UPLOAD_HELD_MAX, UPLOADS_HELD_MAX, V2_PIECE};
use crate::rights::Verb;
use crate::server::v2::{Connection, Done};
use crate::service::uploads::{Pen, UploadError, Waiting};
use crate::tree::{BlockHasher, HASH_LEN, ProofError};

/// A part of a block that has arrived.
struct Piece {
    put: RequestId,
    pen: Pen,
    offset: u64,
    bytes: Bytes,
    /// The block that ends here, and what it was found to be; nothing if it is damaged.
    ends: Option<(u64, Option<[u8; HASH_LEN]>)>,
    _counted: Waiting,
}

/// What has arrived and is not written yet.
#[derive(Default)]
pub(super) struct Arrived {
    waiting: Vec<Piece>,
    /// A block has ended since a thread was given what had waited.
    is_due: bool,
    /// Bytes of all that, and of what a thread is at.
    held: usize,
    is_working: bool,
}

impl Arrived {
    /// Whether more may be held, where all connections hold `all` bytes. Some of it is always possible.
    pub(super) fn has_room(&self, all: usize) -> bool {
        self.held < V2_PIECE || (self.held < UPLOAD_HELD_MAX && all < UPLOADS_HELD_MAX)
    }

    /// Whether something is being written, or waits for that and ends a block: the rest is worth nothing by itself.
    pub(super) fn is_at_work(&self) -> bool {
        self.is_working || self.is_due
    }
}

/// What came of all that waited.
pub(in crate::server::v2) struct Kept {
    held: usize,
    puts: BTreeSet<RequestId>,
    damaged: Vec<(RequestId, u64)>,
    failed: Vec<(RequestId, UploadError)>,
}

/// Writes and records. Blocks.
fn work(pieces: Vec<Piece>) -> Kept {
    let mut kept = Kept { held: 0, puts: BTreeSet::new(), damaged: Vec::new(), failed: Vec::new() };
    for Piece { put, pen, offset, bytes, ends, _counted } in pieces {
        kept.held += bytes.len();
        if kept.failed.iter().any(|&(failed, _)| failed == put) {
            continue;
        }
        let written = pen.write(&bytes, offset).and_then(|()| match ends {
            Some((block, Some(hash))) => pen.record(block, hash),
            Some((block, None)) => {
                kept.damaged.push((put, block));
                Ok(())
            }
            None => Ok(()),
        });
        match written {
            Ok(()) => drop(kept.puts.insert(put)),
            Err(error) => kept.failed.push((put, error)),
        }
    }
    kept
}

impl Connection<'_> {
    /// Takes bytes of a file that was asked for; `left` of their stretch are still to come.
    pub(super) fn take_asked(&mut self, stretch: &Stretch, bytes: Bytes, left: u64) {
        let &Stretch { ask, block, end, ends_block } = stretch;
        let Some(&put) = self.puts.of.get(&ask) else { return };
        let Some(upload) = self.puts.puts.get_mut(&put) else { return };
        let Some(hand) = upload.hand.as_mut() else { return };
        let hasher = self.puts.hashing.entry(ask);
        let hasher = hasher.or_insert_with(|| BlockHasher::new(upload.put.file.size, block));
        hasher.update(&bytes);
        let mut ends = None;
        if ends_block && left == 0 {
            let hash = hasher.finish();
            self.puts.hashing.remove(&ask);
            let is_right = match self.puts.asks.check(ask, hash) {
                Ok(()) => true,
                // It is asked for again when nothing of it is written any more.
                Err(ProofError::Block(_)) => false,
                Err(_) => return self.fail_put(put, &UploadError::Damaged),
            };
            ends = Some((block, is_right.then_some(*hash.as_bytes())));
            // What was revoked or has expired is over, also in the middle of a file.
            if let Err(denied) =
                self.context.service.check(&self.caller, Verb::Put, upload.permit.name().as_bytes())
            {
                hand.blame(&denied.to_string());
                self.leave_put(put);
                return self.tell_failed(put, Code::NotAllowed, &denied.to_string());
            }
        }
        let (pen, offset) = (hand.pen().clone(), end - left - bytes.len() as u64);
        let _counted = self.context.service.waits(bytes.len());
        let arrived = &mut self.puts.arrived;
        arrived.held += bytes.len();
        arrived.is_due |= ends.is_some();
        arrived.waiting.push(Piece { put, pen, offset, bytes, ends, _counted });
        self.keep();
    }

    /// Whether more may be held of what arrives.
    pub(super) fn has_room_for_arrivals(&self) -> bool {
        self.puts.arrived.has_room(self.context.service.waiting())
    }

    /// Gives a thread what waits, if it is worth it, unless one is at work for this connection.
    fn keep(&mut self) {
        let has_room = self.has_room_for_arrivals();
        let arrived = &mut self.puts.arrived;
        if arrived.is_working || arrived.waiting.is_empty() || (has_room && !arrived.is_due) {
            return;
        }
        (arrived.is_working, arrived.is_due) = (true, false);
        let pieces = std::mem::take(&mut arrived.waiting);
        let service = self.context.service.clone();
        match service.writing_turn_now() {
            Some(turn) => drop(self.running.spawn_blocking(move || {
                let _turn = turn;
                Done::Kept(Some(work(pieces)))
            })),
            None => drop(self.running.spawn(async move {
                let _turn = service.writing_turn().await;
                Done::Kept(tokio::task::spawn_blocking(move || work(pieces)).await.ok())
            })),
        }
    }

    /// Takes what came of it.
    pub(in crate::server::v2) fn kept(&mut self, kept: Option<Kept>) {
        self.puts.arrived.is_working = false;
        let Some(Kept { held, puts, damaged, failed }) = kept else { return };
        self.puts.arrived.held -= held;
        for (put, error) in failed {
            match error {
                // That is told when it is looked what to do next.
                UploadError::Superseded => self.go_on(put),
                error => self.fail_put(put, &error),
            }
        }
        for (put, block) in damaged {
            let hand = self.puts.puts.get_mut(&put).and_then(|upload| upload.hand.as_mut());
            if hand.is_some_and(|hand| !hand.repeat(block)) {
                self.fail_put(put, &UploadError::Damaged);
            }
        }
        for put in puts {
            self.go_on(put);
        }
        self.keep();
    }
}
