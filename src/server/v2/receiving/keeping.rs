//! What has arrived of files that were asked for is hashed, written and recorded, off the async threads: one
//! stretch after the other, so that a connection never has more than one thread.

use bytes::Bytes;

use crate::codec::v2::RequestId;
use crate::rights::Verb;
use crate::server::v2::{Connection, Done};
use crate::service::uploads::{Pen, UploadError};
use crate::tree::{BlockHasher, HASH_LEN, ProofError};

/// Something to be done with what has arrived.
pub(in crate::server::v2) struct Step {
    put: RequestId,
    pen: Pen,
    what: What,
}

enum What {
    Write { ask: RequestId, offset: u64, bytes: Bytes, hasher: Option<Box<BlockHasher>>, ends_block: bool },
    Record { block: u64, hash: [u8; HASH_LEN] },
}

/// What came of it.
pub(in crate::server::v2) struct Kept {
    put: RequestId,
    what: Did,
}

enum Did {
    Written { ask: RequestId, len: usize, hasher: Option<Box<BlockHasher>>, ends_block: bool },
    Recorded,
    Failed { len: usize, ends_block: bool, error: UploadError },
}

impl Step {
    /// Blocks.
    fn run(self) -> Kept {
        let Self { put, pen, what } = self;
        let what = match what {
            What::Write { ask, offset, bytes, mut hasher, ends_block } => {
                if let Some(hasher) = &mut hasher {
                    hasher.update(&bytes);
                }
                let len = bytes.len();
                match pen.write(&bytes, offset) {
                    Ok(()) => Did::Written { ask, len, hasher, ends_block },
                    Err(error) => Did::Failed { len, ends_block, error },
                }
            }
            What::Record { block, hash } => match pen.record(block, hash) {
                Ok(()) => Did::Recorded,
                Err(error) => Did::Failed { len: 0, ends_block: false, error },
            },
        };
        Kept { put, what }
    }
}

impl Connection<'_> {
    /// Takes bytes of a file that was asked for.
    pub(super) fn take_asked(&mut self, ask: RequestId, offset: u64, bytes: Bytes, ends_block: bool) {
        let Some(&put) = self.puts.of.get(&ask) else { return };
        let Some(pen) =
            self.puts.puts.get(&put).and_then(|upload| upload.hand.as_ref()).map(|hand| hand.pen())
        else {
            return;
        };
        self.puts.held += bytes.len();
        self.puts.is_comparing |= ends_block;
        let what = What::Write { ask, offset, bytes, hasher: None, ends_block };
        self.puts.waiting.push(Step { put, pen: pen.clone(), what });
        self.keep();
    }

    /// Gives a thread what waits, unless one is at work for this connection.
    fn keep(&mut self) {
        if self.puts.is_working || self.puts.waiting.is_empty() {
            return;
        }
        // A block is hashed in order: one step of each request at a time.
        let mut step = self.puts.waiting.remove(0);
        if let What::Write { ask, hasher, .. } = &mut step.what {
            *hasher = self.puts.hashing.get_mut(ask).and_then(|at| at.hasher.take());
        }
        self.puts.is_working = true;
        let service = self.context.service.clone();
        self.running.spawn(async move {
            let _turn = service.writing_turn().await;
            Done::Kept(tokio::task::spawn_blocking(move || step.run()).await.ok())
        });
    }

    /// Takes what came of a step.
    pub(in crate::server::v2) fn kept(&mut self, kept: Option<Kept>) {
        self.puts.is_working = false;
        let Some(Kept { put, what }) = kept else { return };
        match what {
            Did::Written { ask, len, hasher, ends_block } => {
                self.puts.held -= len;
                let Some(at) = self.puts.hashing.get_mut(&ask) else {
                    self.puts.is_comparing &= !ends_block;
                    return self.keep();
                };
                at.hasher = hasher;
                if ends_block {
                    self.puts.is_comparing = false;
                    self.compare(put, ask);
                }
            }
            Did::Recorded => self.go_on(put),
            Did::Failed { len, ends_block, error } => {
                self.puts.held -= len;
                self.puts.is_comparing &= !ends_block;
                match error {
                    // That is told when it is looked what to do next.
                    UploadError::Superseded => self.go_on(put),
                    error => self.fail_put(put, &error),
                }
            }
        }
        self.keep();
    }

    /// A block is written: it is recorded if it is what it has to be.
    fn compare(&mut self, put: RequestId, ask: RequestId) {
        let Some(at) = self.puts.hashing.remove(&ask) else { return };
        let (Some(hasher), Some(upload)) = (at.hasher, self.puts.puts.get_mut(&put)) else { return };
        let Some(hand) = upload.hand.as_mut() else { return };
        let hash = hasher.finish();
        match self.puts.asks.check(ask, hash) {
            Ok(()) => {}
            Err(ProofError::Block(block)) if hand.repeat(block) => return,
            Err(_) => return self.fail_put(put, &UploadError::Damaged),
        }
        let pen = hand.pen().clone();
        // What was revoked or has expired is over, also in the middle of a file.
        if let Err(denied) = self.context.service.check(&self.caller, Verb::Put, &upload.put.name) {
            hand.blame(&denied.to_string());
            self.leave_put(put);
            return self.tell_failed(put, crate::error::Code::NotAllowed, &denied.to_string());
        }
        let what = What::Record { block: at.block, hash: *hash.as_bytes() };
        self.puts.waiting.insert(0, Step { put, pen, what });
    }
}
