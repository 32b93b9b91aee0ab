//! The names that are being uploaded, one upload each, and what was stored a short while ago.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::settled::Settled;
use super::upload::{Hand, Held, Outcome, Upload};
use super::{Begun, Claim, Offer, Reservation, TOKEN_OF_KEY, UploadError};
use crate::control::Direction;
use crate::limits::{UPLOAD_CLOSE_TIMEOUT, UPLOADS_MAX, UPLOADS_REMEMBERED_MAX, UPLOADS_WRITING_MAX};
use crate::names::FileName;
use crate::service::access::{Caller, Permit};
use crate::service::{Event, Service, lock};
use crate::staged::{Part, Source};
use crate::storage::OpenError;
use crate::token::KeyId;
use crate::tree::Root;

/// All uploads of a server.
pub(in crate::service) struct Uploads {
    names: Mutex<HashMap<FileName, Entry>>,
    remembered: Mutex<VecDeque<Remembered>>,
    /// Places to have a part open.
    places: Arc<Semaphore>,
    /// Turns to take a thread for writing.
    turns: Arc<Semaphore>,
    /// Bytes that wait to be written.
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) settled: Settled,
}

struct Entry {
    upload: Weak<Upload>,
    /// Held by whoever has the part of this name open: the next one has to wait until it is closed.
    gate: Arc<Semaphore>,
}

/// Something that was stored a short while ago: who asks again has missed the answer.
struct Remembered {
    /// What stood for it while it was under way.
    slot: FileName,
    /// The name that the server has given it.
    given: Option<FileName>,
    key: Option<KeyId>,
    transfer: [u8; 16],
    size: u64,
    modified: (i64, u32),
    root: Root,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            names: Mutex::default(),
            remembered: Mutex::default(),
            places: Arc::new(Semaphore::new(UPLOADS_MAX)),
            turns: Arc::new(Semaphore::new(UPLOADS_WRITING_MAX)),
            waiting: Arc::default(),
            settled: Settled::default(),
        }
    }
}

impl Uploads {
    /// The upload that has this name, and lies at this place in memory, is over, and its part is closed.
    pub(super) fn leave(&self, name: &FileName, upload: usize) {
        let mut names = lock(&self.names);
        // No other upload lies there as long as the entry refers to it.
        if names.get(name).is_some_and(|entry| entry.upload.as_ptr().addr() == upload) {
            names.remove(name);
        }
    }

    /// The upload of this name that is under way.
    pub(super) fn running(&self, name: &FileName) -> Option<Arc<Upload>> {
        lock(&self.names).get(name).and_then(|entry| entry.upload.upgrade())
    }

    /// All uploads that are under way: no more than [`UPLOADS_MAX`].
    pub(super) fn all_running(&self) -> Vec<Arc<Upload>> {
        lock(&self.names).values().filter_map(|entry| entry.upload.upgrade()).collect()
    }

    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        lock(&self.names).len()
    }

    /// What is asked for again soon is answered at once.
    pub(super) fn remember(
        &self,
        (slot, given): (&FileName, Option<&FileName>),
        key: Option<KeyId>,
        offer: &Offer,
        root: Root,
    ) {
        let mut remembered = lock(&self.remembered);
        if remembered.len() >= UPLOADS_REMEMBERED_MAX {
            remembered.pop_front();
        }
        let Offer { transfer, size, modified, .. } = *offer;
        let (slot, given) = (slot.clone(), given.cloned());
        remembered.push_back(Remembered { slot, given, key, transfer, size, modified, root });
    }

    pub(super) fn remembered(
        &self,
        slot: &FileName,
        key: Option<KeyId>,
        offer: &Offer,
    ) -> Option<(Root, Option<FileName>)> {
        let remembered = lock(&self.remembered);
        let is_it = |stored: &&Remembered| {
            let is_same_file = (stored.size, stored.modified) == (offer.size, offer.modified);
            stored.slot == *slot && stored.key == key && stored.transfer == offer.transfer && is_same_file
        };
        remembered.iter().rev().find(is_it).map(|stored| (stored.root, stored.given.clone()))
    }
}

impl Service {
    /// A connection offers a file. Looks what is there, and finds the upload that it belongs to, or begins one. Blocks.
    ///
    /// # Errors
    /// If something is there that is not to be replaced, or another client uploads it.
    pub(crate) fn offer(&self, permit: &Permit, offer: Offer) -> Result<Begun, UploadError> {
        let (slot, key) = (self.slot(permit, &offer.token), permit.caller().key_id());
        if self.is_cancelled(permit, offer.transfer, Direction::Upload) {
            return Err(UploadError::Cancelled);
        }
        let uploads = &self.inner.uploads;
        if let Some(upload) = uploads.running(&slot) {
            return upload.join(permit, offer).map(Begun::Goes);
        }
        self.inner.settle()?;
        let known = uploads.remembered(&slot, key, &offer);
        if self.gives_names(permit) {
            // What has the name that was asked for is of no interest.
            return match known {
                Some((root, Some(given))) if self.holds(&given, &offer)? => {
                    Ok(Begun::Stored(root, Some(given)))
                }
                _ => self.begin_upload(permit, slot, offer),
            };
        }
        let held = match self.inner.storage.open(permit.name()) {
            Ok(file) => Some((file.size(), file.modified())),
            Err(OpenError::NotFound) => None,
            Err(OpenError::Refused(_)) => return Err(UploadError::Exists),
            Err(error) => return Err(UploadError::Place(error.into())),
        };
        let is_same = held == Some((offer.size, offer.modified));
        if is_same && let Some((root, given)) = known {
            return Ok(Begun::Stored(root, given));
        }
        if is_same && offer.unless_same {
            return Ok(Begun::Same);
        }
        if held.is_some() && !offer.replace {
            return Err(UploadError::Exists);
        }
        self.begin_upload(permit, slot, offer)
    }

    /// Whether a file of the size and time of what is offered has this name. Blocks.
    pub(super) fn holds(&self, name: &FileName, offer: &Offer) -> Result<bool, UploadError> {
        match self.inner.storage.open(name) {
            Ok(file) => Ok((file.size(), file.modified()) == (offer.size, offer.modified)),
            Err(OpenError::NotFound | OpenError::Refused(_)) => Ok(false),
            Err(error) => Err(UploadError::Place(error.into())),
        }
    }

    fn begin_upload(&self, permit: &Permit, slot: FileName, offer: Offer) -> Result<Begun, UploadError> {
        let new = Upload::new(self, &slot, permit.caller().key_id(), offer.clone());
        let mut names = lock(&self.inner.uploads.names);
        let entry = names
            .entry(slot)
            .or_insert_with(|| Entry { upload: Weak::new(), gate: Arc::new(Semaphore::new(1)) });
        if let Some(running) = entry.upload.upgrade() {
            drop(names);
            // It came in between.
            return running.join(permit, offer).map(Begun::Goes);
        }
        entry.upload = Arc::downgrade(&new);
        let gate = Arc::clone(&entry.gate);
        drop(names);
        let hand = Hand::new(&new, 0);
        let (service, permit) = (self.clone(), permit.clone());
        // Not a matter of this connection alone: others may have joined when it ends.
        tokio::spawn(async move {
            if let Err(error) = service.open_upload(&new, permit.clone(), offer, gate).await {
                let cause = error.to_string();
                // It has no account yet that could tell.
                service.not_stored(&permit, &cause);
                new.end(Outcome::Failed(error.code(), error.text()), Some(&cause));
            }
        });
        Ok(Begun::Goes(hand))
    }

    async fn open_upload(
        &self,
        upload: &Arc<Upload>,
        permit: Permit,
        offer: Offer,
        gate: Arc<Semaphore>,
    ) -> Result<(), UploadError> {
        let reservation = self.admit(&permit, offer.size).await?;
        let place = Arc::clone(&self.inner.uploads.places).try_acquire_owned();
        let place = place.map_err(|_| UploadError::TooMany)?;
        let gate = timeout(UPLOAD_CLOSE_TIMEOUT, gate.acquire_owned()).await;
        let gate = gate.ok().and_then(Result::ok).ok_or(UploadError::Busy)?;
        // Behind the gate: who had it open before has let go of its name. Whoever stores it as a whole, or changes
        // its name, is another one.
        let claim = self.inner.busy.claim(upload.slot()).ok_or(UploadError::Busy)?;
        let (service, upload) = (self.clone(), Arc::clone(upload));
        let opening = tokio::task::spawn_blocking(move || {
            let held =
                service.open_part(upload.slot(), &permit, &offer, (reservation, claim), (gate, place))?;
            upload.opened(held, |have| {
                let account = service.receiving(&permit, offer.transfer, offer.size, have);
                account.moving().rank(offer.priority);
                account
            })
        });
        opening.await.unwrap_or_else(|aborted| Err(UploadError::aborted(&aborted)))
    }

    fn open_part(
        &self,
        slot: &FileName,
        permit: &Permit,
        offer: &Offer,
        (reservation, claim): (Reservation, Claim),
        (gate, open): (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> Result<Held, UploadError> {
        let place = self.inner.storage.place(slot)?;
        let watch = &mut |_, _| std::ops::ControlFlow::Continue(());
        let part = Arc::new(Part::open_at(place, true, watch)?);
        let token = token_of(permit.caller(), &offer.token);
        let source = Source { size: offer.size, root: offer.root, token };
        let permit = permit.clone();
        Ok(Held { part, source, permit, reservation, _claim: claim, _gate: gate, _place: open })
    }

    /// Tells the observer that nothing was stored.
    pub(crate) fn not_stored(&self, permit: &Permit, cause: &str) {
        let (peer, key) = (permit.caller().peer(), permit.caller().key_name());
        self.tell(&Event::NotChanged { peer, key, name: permit.name().as_bytes(), cause });
    }

    /// A turn to take a thread for what has arrived.
    pub(crate) async fn writing_turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.inner.uploads.turns).acquire_owned().await.ok()
    }

    /// Such a turn, if there is one at once.
    pub(crate) fn writing_turn_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.inner.uploads.turns).try_acquire_owned().ok()
    }
}

/// The identity of a version of a file as one key brings it: nobody goes on with what another key has brought.
fn token_of(caller: &Caller, token: &[u8; 16]) -> [u8; 16] {
    let key = caller.key_id().map(|key| key.to_string()).unwrap_or_default();
    let of_key = blake3::derive_key("oneport 2026 upload part of a key", key.as_bytes());
    let of_file = blake3::derive_key("oneport 2026 upload part of a file", &[&of_key[..], token].concat());
    let mut mixed = [0; 16];
    mixed[..TOKEN_OF_KEY].copy_from_slice(&of_key[..TOKEN_OF_KEY]);
    mixed[TOKEN_OF_KEY..].copy_from_slice(&of_file[TOKEN_OF_KEY..16]);
    mixed
}
