//! One file that is coming in, shared by all connections that bring it.
//!
//! Whoever writes or records does so under the fence: a connection of an earlier attempt finds another number
//! there, and nothing that it brings is written any more. The lock of the fence is taken before that of the state.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Claim, Offer, Reservation, UploadError};
use crate::error::Code;
use crate::exchange::Queue;
use crate::limits::{SYNC_BYTES, SYNC_INTERVAL};
use crate::names::FileName;
use crate::service::access::Permit;
use crate::service::accounts::Account;
use crate::service::live::Moving;
use crate::service::{Service, lock};
use crate::staged::{Part, Source};
use crate::token::KeyId;
use crate::tree::{BlockSet, HASH_LEN, Root, block_count, block_span};

mod anew;
mod hand;
mod settle;

pub(crate) use hand::{Hand, Next};

/// What came of an upload, for every connection of it.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It is stored and survives a power cut.
    Stored(Root),
    /// It is not: what the peer is told.
    Failed(Code, String),
}

/// A file that is coming in.
pub(super) struct Upload {
    service: Service,
    /// What stands for it: the name that it is to have, unless it is given one when all of it is here.
    name: FileName,
    pub(super) key: Option<KeyId>,
    pub(super) size: u64,
    fence: RwLock<Fence>,
    state: Mutex<State>,
    /// Held by a sync point, and by whoever needs the part for itself.
    syncing: Mutex<()>,
    stirred: watch::Sender<()>,
}

/// What only the present attempt may touch.
struct Fence {
    generation: u64,
    part: Option<Held>,
}

/// The part, and the right to have it open: given back when it is closed.
pub(super) struct Held {
    pub(super) part: Arc<Part>,
    pub(super) source: Source,
    /// Who stores it.
    pub(super) permit: Permit,
    pub(super) reservation: Reservation,
    pub(super) _claim: Claim,
    pub(super) _gate: OwnedSemaphorePermit,
    pub(super) _place: OwnedSemaphorePermit,
}

struct State {
    generation: u64,
    offer: Offer,
    queue: Queue,
    /// Blocks that are not recorded; none before the part is open.
    left: Option<u64>,
    /// Bytes of the blocks that are recorded.
    have: u64,
    /// How many connections bring it.
    hands: u64,
    need: Need,
    /// A connection asks for what is needed.
    is_claimed: bool,
    is_settling: bool,
    /// How often the values were compared.
    rounds: u32,
    /// The name that the server has given it.
    given: Option<FileName>,
    outcome: Option<Outcome>,
    account: Option<Arc<Account>>,
    /// Bytes recorded since the last sync point, and when that was.
    unsynced: u64,
    synced_at: Instant,
}

/// What has to be known before it goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Root,
    Values,
}

/// The right to write, as long as no later attempt has taken over.
#[derive(Clone)]
pub(crate) struct Pen {
    pub(super) grip: Arc<Grip>,
}

/// What a connection has taken upon itself. It is given back when nobody writes for that connection any more:
/// else two could write the same block, and one of them after it was recorded.
pub(super) struct Grip {
    upload: Arc<Upload>,
    generation: u64,
    pub(super) flying: Mutex<BTreeSet<u64>>,
    has_claim: AtomicBool,
}

impl Upload {
    pub(super) fn new(service: &Service, name: &FileName, key: Option<KeyId>, offer: Offer) -> Arc<Self> {
        let size = offer.size;
        let state = State {
            generation: 0,
            offer,
            queue: Queue::default(),
            left: None,
            have: 0,
            hands: 0,
            need: Need::Nothing,
            is_claimed: false,
            is_settling: false,
            rounds: 0,
            given: None,
            outcome: None,
            account: None,
            unsynced: 0,
            synced_at: Instant::now(),
        };
        Arc::new(Self {
            service: service.clone(),
            name: name.clone(),
            key,
            size,
            fence: RwLock::new(Fence { generation: 0, part: None }),
            state: Mutex::new(state),
            syncing: Mutex::default(),
            stirred: watch::Sender::new(()),
        })
    }

    /// What stands for it while it is under way.
    pub(super) fn slot(&self) -> &FileName {
        &self.name
    }

    /// A further connection, or another attempt, which takes over. Blocks while a write is under way.
    pub(super) fn join(self: &Arc<Self>, permit: &Permit, offer: Offer) -> Result<Hand, UploadError> {
        let key = permit.caller().key_id();
        let mut fence = self.fence_mut();
        let mut state = lock(&self.state);
        let is_same = state.offer.transfer == offer.transfer;
        let is_alike = (state.offer.token, self.size) == (offer.token, offer.size);
        if key != self.key || !is_alike {
            return Err(UploadError::Busy);
        }
        if is_same && offer.attempt < state.offer.attempt {
            return Err(UploadError::Superseded);
        }
        if !is_same || offer.attempt > state.offer.attempt {
            fence.generation += 1;
            state.generation = fence.generation;
            state.hands = 0;
            state.is_claimed = false;
            let root = offer.root.or(state.offer.root);
            state.offer = Offer { root, ..offer };
            if let Some(account) = state.account.take() {
                account.cut(&UploadError::Superseded.to_string());
            }
            if let Some(held) = &fence.part {
                state.resume(&held.part, self.size);
                // Whoever takes over is told of like whoever begins. While it is being opened, that is still to come.
                let has = if state.need == Need::Values { None } else { held.part.kept() };
                let have = has.map_or(0, |kept| kept.has().bytes(self.size));
                let account = self.service.receiving(permit, state.offer.transfer, self.size, have);
                account.moving().rank(state.offer.priority);
                state.account = Some(account);
            }
        }
        if let Some(account) = &state.account {
            account.moving().join(permit.caller().peer());
        }
        drop(state);
        let generation = fence.generation;
        drop(fence);
        self.stirred.send_replace(());
        Ok(Hand::new(self, generation))
    }

    /// The part is open. What it holds of something else is compared block by block, if it is the same key's.
    pub(super) fn opened(
        &self,
        held: Held,
        account: impl FnOnce(u64) -> Arc<Account>,
    ) -> Result<(), UploadError> {
        let mut fence = self.fence_mut();
        let kept = held.part.kept();
        let mut held = held;
        let mut need = Need::Nothing;
        let keep = match &kept {
            Some(kept) if kept.source.token == held.source.token && kept.source.size == self.size => {
                kept.has()
            }
            Some(kept) if is_of_one_key(&kept.source, &held.source) => {
                need = Need::Values;
                kept.has()
            }
            _ => BlockSet::default(),
        };
        if need == Need::Nothing {
            begin(&mut held, &keep)?;
        }
        let mut state = lock(&self.state);
        state.need = need;
        let have = if need == Need::Nothing && keep.count() > 0 { keep.bytes(self.size) } else { 0 };
        state.account = Some(account(have));
        if need == Need::Nothing {
            state.resume(&held.part, self.size);
        }
        fence.part = Some(held);
        drop(state);
        drop(fence);
        self.stirred.send_replace(());
        Ok(())
    }

    /// It ends here, for all who bring it. The part is closed before anybody is told.
    pub(super) fn end(&self, outcome: Outcome, cause: Option<&str>) {
        let held = self.fence_mut().part.take();
        drop(held);
        self.conclude(outcome, cause);
    }

    /// Whether this is the transfer by which it comes in, and it can still be ended: nothing of it is on its way to
    /// its name yet.
    pub(super) fn is_cancellable(&self, moving: &Arc<Moving>) -> bool {
        let fence = self.fence();
        let state = lock(&self.state);
        let is_it = |account: &Arc<Account>| Arc::ptr_eq(account.moving(), moving);
        fence.part.is_some() && state.outcome.is_none() && state.account.as_ref().is_some_and(is_it)
    }

    fn conclude(&self, outcome: Outcome, cause: Option<&str>) {
        self.service.inner.uploads.leave(&self.name, std::ptr::from_ref(self).addr());
        let mut state = lock(&self.state);
        let (account, given) = (state.account.take(), state.given.clone());
        let outcome = state.outcome.get_or_insert(outcome).clone();
        drop(state);
        if let Some(account) = account {
            match (&outcome, cause) {
                (Outcome::Stored(root), _) => account.stored(*root, given),
                (Outcome::Failed(_, text), cause) => account.cut(cause.unwrap_or(text)),
            }
        }
        self.stirred.send_replace(());
    }

    fn fence_mut(&self) -> RwLockWriteGuard<'_, Fence> {
        self.fence.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn fence(&self) -> RwLockReadGuard<'_, Fence> {
        self.fence.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a sync point of what is recorded by now. Blocks; others go on meanwhile.
    fn sync(&self) -> Result<(), UploadError> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let part = self.fence().part.as_ref().map(|held| Arc::clone(&held.part));
        part.map_or(Ok(()), |part| Ok(part.sync_point()?))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Fence { part, .. } = self.fence.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (held, place) = (part.take(), std::ptr::from_ref(self).addr());
        let (service, name) = (self.service.clone(), self.name.clone());
        let close = move || {
            drop(held);
            service.inner.uploads.leave(&name, place);
        };
        // Closing a file may have to wait for a disk.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(close)),
            Err(_) => close(),
        }
    }
}

impl State {
    /// Everything that is not recorded is to be fetched.
    fn resume(&mut self, part: &Part, size: u64) {
        let has = part.kept().map(|kept| kept.has()).unwrap_or_default();
        let missing = if size == 0 { Vec::new() } else { has.missing(size) };
        self.queue = Queue::new(missing);
        self.left = Some(self.queue.left());
        self.have = has.bytes(size);
    }
}

/// Whether two parts are of one key, be it of one file or not.
fn is_of_one_key(one: &Source, two: &Source) -> bool {
    one.token[..super::TOKEN_OF_KEY] == two.token[..super::TOKEN_OF_KEY]
}

fn begin(held: &mut Held, keep: &BlockSet) -> Result<(), UploadError> {
    let Some(part) = Arc::get_mut(&mut held.part) else {
        return Err(UploadError::Catalog("the part is in use".to_owned()));
    };
    Ok(part.begin(&held.source, keep)?)
}

impl Pen {
    /// Writes bytes that have arrived. Blocks.
    ///
    /// # Errors
    /// [`UploadError::Superseded`] if another attempt has taken over: then nothing is written.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), UploadError> {
        let fence = self.grip.upload.fence();
        let held = fence.part.as_ref().filter(|_| fence.generation == self.grip.generation);
        Ok(held.ok_or(UploadError::Superseded)?.part.write_at(bytes, offset)?)
    }

    /// Records a block that is written and has this value. Blocks.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) fn record(&self, block: u64, hash: [u8; HASH_LEN]) -> Result<(), UploadError> {
        let fence = self.grip.upload.fence();
        let held = fence.part.as_ref().filter(|_| fence.generation == self.grip.generation);
        let part = &held.ok_or(UploadError::Superseded)?.part;
        part.record(block, hash)?;
        let is_new = lock(&self.grip.flying).remove(&block);
        let mut state = lock(&self.grip.upload.state);
        let span = block_span(self.grip.upload.size, block);
        let len = span.end - span.start;
        state.have += if is_new { len } else { 0 };
        state.left = Some(block_count(self.grip.upload.size).saturating_sub(part.recorded()));
        state.unsynced += len;
        let is_due = state.unsynced >= SYNC_BYTES || state.synced_at.elapsed() >= SYNC_INTERVAL;
        if is_due {
            (state.unsynced, state.synced_at) = (0, Instant::now());
        }
        let (is_last, account) = (state.left == Some(0), state.account.clone());
        drop(state);
        drop(fence);
        if let Some(account) = account {
            account.advance(len);
        }
        if is_last {
            self.grip.upload.stirred.send_replace(());
        } else if is_due {
            let upload = Arc::clone(&self.grip.upload);
            // A failure makes the part useless, which the next record tells.
            drop(tokio::task::spawn_blocking(move || upload.sync()));
        }
        Ok(())
    }

    /// The upload has failed, for all who bring it: what they are told, and the log. Blocks.
    pub(crate) fn fail(&self, code: Code, text: &str, cause: &str) {
        if !self.is_stale() {
            self.grip.upload.end(Outcome::Failed(code, text.to_owned()), Some(cause));
        }
    }

    fn is_stale(&self) -> bool {
        lock(&self.grip.upload.state).generation != self.grip.generation
    }
}
