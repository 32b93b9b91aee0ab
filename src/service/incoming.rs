//! A file that comes in from its first byte to its last, as dialects bring it that know neither blocks nor resume.
//!
//! 1. [`Service::incoming`] finds a name that nothing has and nobody writes: the one that was asked for, or one made
//!    of it. Nothing is ever replaced.
//! 2. [`Incoming::take`] writes what has come, at the place behind all before it.
//! 3. [`Incoming::store`] compares size and SHA-256 with what was announced, and commits. What it returns is on the
//!    disk under its name and survives a power cut.
//!
//! Whatever ends an upload before that leaves nothing of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};

use super::access::{Caller, Denied, Permit};
use super::uploads::{Begun, Hand, Next, Offer, Outcome, UploadError};
use super::{Event, Service};
use crate::error::Code;
use crate::limits::{CONDUIT_BUSY_PROBE, CONDUIT_BUSY_WAIT, CONDUIT_NAMES_MAX, UPLOAD_OPEN_TIMEOUT};
use crate::names;
use crate::rights::Verb;
use crate::tree::{BLOCK_LEN, BlockHasher, HASH_LEN, Root, Tree, Value, block_count, block_span};

/// Length of a SHA-256 digest, in bytes.
pub(crate) const SHA256_LEN: usize = 32;

const GIVEN_UP: &str = "the client gave it up";

/// What is announced of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    /// Bytes.
    pub(crate) size: u64,
    /// Of all of them.
    pub(crate) sha256: [u8; SHA256_LEN],
}

/// Why a file cannot come in, or was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The caller may not.
    #[error(transparent)]
    Denied(Denied),
    /// Something stands in the way: the kind, and what the peer is told.
    #[error("{1}")]
    Failed(Code, String),
}

impl From<UploadError> for Refusal {
    fn from(error: UploadError) -> Self {
        Self::Failed(error.code(), error.text())
    }
}

/// A file that is coming in. Dropped before it is stored, nothing is left of it.
pub(crate) struct Incoming {
    service: Service,
    permit: Permit,
    announced: Announced,
    hand: Hand,
    /// Bytes that have come.
    taken: u64,
    /// Blocks before this one are this upload's to write.
    claimed: u64,
    /// Whether it was told already that nothing is missing: of an empty file nothing ever is.
    is_settling: bool,
    sha256: Sha256,
    hasher: BlockHasher,
    hashes: Vec<[u8; HASH_LEN]>,
    began: Instant,
    is_over: bool,
}

impl Service {
    /// Begins to receive a file under `name`, or, where that is taken, under one made of it.
    pub(crate) async fn incoming(
        &self,
        caller: &Caller,
        name: &[u8],
        announced: Announced,
    ) -> Result<Incoming, Refusal> {
        let mut taken = Refusal::from(UploadError::Exists);
        for number in 0..CONDUIT_NAMES_MAX {
            let tried = if number == 0 { name.to_vec() } else { other_name(name, unix_now(), number) };
            let permit = self.permit(caller, Verb::Put, &tried).map_err(|denied| {
                if let Denied::Name(error) = denied {
                    let (peer, cause) = (caller.peer(), error.to_string());
                    self.tell(&Event::Refused { peer, name: &tried, cause: &cause });
                }
                Refusal::Denied(denied)
            })?;
            match self.begin_incoming(&permit, announced, number == 0).await {
                Err(refusal @ Refusal::Failed(Code::Exists, _)) => taken = refusal,
                outcome => return outcome,
            }
        }
        Err(taken)
    }

    async fn begin_incoming(
        &self,
        permit: &Permit,
        announced: Announced,
        is_first: bool,
    ) -> Result<Incoming, Refusal> {
        let (token, transfer) = (fastrand::u128(..).to_be_bytes(), fastrand::u128(..).to_be_bytes());
        let modified = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offer = Offer {
            priority: crate::priority::Priority::default(),
            replace: false,
            unless_same: false,
            size: announced.size,
            modified: (i64::try_from(modified.as_secs()).unwrap_or(i64::MAX), modified.subsec_nanos()),
            mode: 0o666,
            // Nobody else ever brings the same: neither goes another one on with it, nor it with another one.
            token,
            root: None,
            transfer,
            attempt: 0,
        };
        let deadline = Instant::now() + if is_first { CONDUIT_BUSY_WAIT } else { Duration::ZERO };
        let begun = loop {
            let (service, permit, offer) = (self.clone(), permit.clone(), offer.clone());
            let offering = tokio::task::spawn_blocking(move || service.offer(&permit, offer)).await;
            match offering.unwrap_or_else(|aborted| Err(UploadError::aborted(&aborted))) {
                // One whose connection was cut a moment ago is being given up.
                Err(UploadError::Busy) if Instant::now() < deadline => sleep(CONDUIT_BUSY_PROBE).await,
                begun => break begun?,
            }
        };
        let Begun::Goes(hand) = begun else { return Err(UploadError::Exists.into()) };
        let mut incoming = Incoming {
            service: self.clone(),
            permit: permit.clone(),
            announced,
            hand,
            taken: 0,
            claimed: 0,
            is_settling: false,
            sha256: Sha256::new(),
            hasher: BlockHasher::new(announced.size, 0),
            hashes: Vec::new(),
            began: Instant::now(),
            is_over: false,
        };
        match timeout(UPLOAD_OPEN_TIMEOUT, incoming.ready()).await {
            Ok(outcome) => outcome.map(|()| incoming),
            Err(_elapsed) => Err(UploadError::Busy.into()),
        }
    }
}

impl Incoming {
    /// Bytes in all.
    pub(crate) fn size(&self) -> u64 {
        self.announced.size
    }

    /// Since when.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Waits until its part is open and holds nothing.
    async fn ready(&mut self) -> Result<(), Refusal> {
        loop {
            let mut stirs = self.hand.stirs();
            match self.hand.next() {
                Next::Run(run) => {
                    self.claimed = run.end;
                    return Ok(());
                }
                Next::Settle => {
                    self.is_settling = true;
                    return Ok(());
                }
                Next::Over(outcome) => return Err(self.ended(outcome)),
                Next::Values | Next::Root => {
                    let pen = self.hand.pen().clone();
                    let started = tokio::task::spawn_blocking(move || pen.start_over()).await;
                    started.unwrap_or_else(|aborted| Err(UploadError::aborted(&aborted)))?;
                }
                Next::Wait => drop(stirs.changed().await),
            }
        }
    }

    /// Takes the next bytes. Off the async threads; given up in the middle, all of it is.
    pub(crate) async fn take(mut self, bytes: Vec<u8>) -> Result<Self, Refusal> {
        // What was taken away since is over, also in the middle of a file.
        let (caller, name) = (self.permit.caller(), self.permit.name().as_bytes());
        self.service.check(caller, Verb::Put, name).map_err(Refusal::Denied)?;
        let turn = self.service.writing_turn().await;
        let writing = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            self.take_now(&bytes).map(|()| self)
        });
        writing.await.unwrap_or_else(|aborted| Err(UploadError::aborted(&aborted).into()))
    }

    fn take_now(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let size = self.announced.size;
        if bytes.len() as u64 > size - self.taken {
            return Err(self.damaged());
        }
        self.sha256.update(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let block = self.taken / BLOCK_LEN;
            self.claim(block)?;
            let left = block_span(size, block).end - self.taken;
            let (now, later) = rest.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(rest.len()));
            let pen = self.hand.pen();
            pen.write(now, self.taken)?;
            self.hasher.update(now);
            self.taken += now.len() as u64;
            if now.len() as u64 == left {
                let hash = *self.hasher.finish().as_bytes();
                pen.record(block, hash)?;
                self.hashes.push(hash);
                self.hasher = BlockHasher::new(size, block + 1);
            }
            rest = later;
        }
        Ok(())
    }

    /// Sees to it that a block is this upload's to write: they are given out in runs.
    fn claim(&mut self, block: u64) -> Result<(), Refusal> {
        while block >= self.claimed {
            match self.hand.next() {
                Next::Run(run) => self.claimed = run.end,
                Next::Over(outcome) => return Err(self.ended(outcome)),
                _ => return Err(UploadError::Superseded.into()),
            }
        }
        Ok(())
    }

    /// All has come: compares it with what was announced, and commits it.
    pub(crate) async fn store(self) -> Result<Permit, Refusal> {
        let storing = tokio::task::spawn_blocking(move || self.store_now());
        storing.await.unwrap_or_else(|aborted| Err(UploadError::aborted(&aborted).into()))
    }

    fn store_now(mut self) -> Result<Permit, Refusal> {
        let found: [u8; SHA256_LEN] = std::mem::take(&mut self.sha256).finalize().into();
        if self.taken != self.announced.size || found != self.announced.sha256 {
            return Err(self.damaged());
        }
        let root = self.root().ok_or(UploadError::Damaged)?;
        self.hand.learn(root)?;
        if self.is_settling {
            self.hand.pen().settle();
        }
        loop {
            match self.hand.next() {
                Next::Settle => self.hand.pen().settle(),
                Next::Over(Outcome::Stored(_)) => {
                    self.is_over = true;
                    return Ok(self.permit.clone());
                }
                Next::Over(outcome) => return Err(self.ended(outcome)),
                _ => return Err(self.damaged()),
            }
        }
    }

    fn root(&mut self) -> Option<Root> {
        match block_count(self.announced.size) {
            1 => Some(self.hashes.first().map_or_else(|| Root::of(b""), |hash| Root::from_bytes(*hash))),
            _ => {
                let values = std::mem::take(&mut self.hashes).into_iter().map(Value::from_bytes);
                Tree::over(values.collect()).map(|tree| tree.root())
            }
        }
    }

    /// What has come is not what was announced. Blocks.
    fn damaged(&mut self) -> Refusal {
        let (code, text) = (UploadError::Damaged.code(), UploadError::Damaged.to_string());
        self.is_over = true;
        self.hand.pen().discard(code, &text, &text);
        Refusal::Failed(code, text)
    }

    /// It has ended elsewhere.
    fn ended(&mut self, outcome: Outcome) -> Refusal {
        self.is_over = true;
        match outcome {
            Outcome::Failed(code, text) => Refusal::Failed(code, text),
            Outcome::Stored(_) => UploadError::Exists.into(),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let pen = self.hand.pen().clone();
        let discard = move || pen.discard(Code::Lost, GIVEN_UP, GIVEN_UP);
        // It closes and removes files.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(discard)),
            Err(_) => discard(),
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A name like `name`, with a time and a number before what stands behind its last point: `a/b_1700000000.txt`,
/// then `a/b_1700000000_2.txt`.
fn other_name(name: &[u8], seconds: u64, number: u32) -> Vec<u8> {
    let base = names::base(name);
    let above = name.len() - base.len();
    // A point at the beginning hides a file, and ends no stem.
    let stem = base.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0).unwrap_or(base.len());
    let (before, behind) = name.split_at(above + stem);
    let suffix = if number > 1 { format!("_{seconds}_{number}") } else { format!("_{seconds}") };
    [before, suffix.as_bytes(), behind].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_name_keeps_its_folder_and_its_ending() {
        for (name, number, other) in [
            ("a.txt", 1, "a_7.txt"),
            ("a.txt", 2, "a_7_2.txt"),
            ("x.y/a", 1, "x.y/a_7"),
            ("x/a.tar.gz", 1, "x/a.tar_7.gz"),
            (".hidden", 1, ".hidden_7"),
            ("a.", 1, "a_7."),
        ] {
            assert_eq!(other_name(name.as_bytes(), 7, number), other.as_bytes(), "{name}");
        }
    }
}
