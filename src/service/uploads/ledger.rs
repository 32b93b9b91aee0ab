//! How many bytes each key has stored, so that none has more than its quota.
//!
//! What counts are the files that a key stored and that are still there under their names. Whoever stores a file
//! reserves its whole size before the first byte ([`Service::admit`]), and what is reserved counts as well: so
//! uploads at the same time never exceed a quota, and a file that is replaced counts until the new one has its
//! name. The reservation is given back with its owner, or becomes stored bytes when the catalog has them.
//!
//! The catalog is written after a file has its name and before that is answered. A crash between the two leaves a
//! file that counts for nobody, and what it replaced counting still: the sum may be off either way by the files
//! that were being stored at that moment, none of which was acknowledged. Before a refusal, what is
//! not on the disk as it was stored is looked for and forgotten, which puts too large a sum right.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Instant;

use super::UploadError;
use crate::catalog::{Catalog, CatalogError, OwnedChange, OwnedFile, Shift};
use crate::limits::{OWNED_UNWRITTEN_MAX, QUOTA_LOOK_INTERVAL, QUOTA_LOOKS};
use crate::names::FileName;
use crate::service::access::{Owner, Permit};
use crate::service::{Inner, Service, lock};
use crate::storage::OpenError;
use crate::token::KeyId;

/// What all keys have stored, as far as it was asked for.
pub(in crate::service) struct Ledger {
    catalog: Arc<dyn Catalog>,
    books: Mutex<HashMap<KeyId, Book>>,
    /// What could not be written yet. Whoever writes or reads the catalog holds it, so that books and catalog
    /// tell the same.
    unwritten: Mutex<Vec<Entry>>,
    has_unwritten: AtomicBool,
    /// Held by the one who looks for files that are gone.
    looking: Mutex<()>,
}

/// The sums of one key with a quota.
#[derive(Default)]
struct Book {
    stored: u64,
    reserved: u64,
    /// Where the next search for files that are gone goes on, and when the last one was.
    looked: Option<(Vec<u8>, Instant)>,
}

/// A change on its way to the catalog; its bytes are reserved until it is there.
pub(crate) struct Entry {
    change: OwnedChange,
    reservation: Reservation,
}

/// Bytes that count for a key as long as this lives.
#[must_use]
pub(crate) struct Reservation(Option<Reserved>);

struct Reserved {
    ledger: Arc<Ledger>,
    key: KeyId,
    bytes: u64,
}

impl Reservation {
    /// One that counts for nobody.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Whether it is one of a key with a quota.
    pub(crate) fn counts(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(Reserved { ledger, key, bytes }) = self.0.take()
            && let Some(book) = lock(&ledger.books).get_mut(&key)
        {
            book.reserved = book.reserved.saturating_sub(bytes);
        }
    }
}

impl Entry {
    /// This file was stored, with what was reserved for it.
    pub(crate) fn stored(permit: &Permit, size: u64, reservation: Reservation) -> Self {
        let key = permit.caller().key_id();
        Self { change: OwnedChange::Stored { name: permit.name().clone(), key, size }, reservation }
    }

    fn of(change: OwnedChange) -> Self {
        Self { change, reservation: Reservation::none() }
    }
}

impl Ledger {
    pub(in crate::service) fn new(catalog: Arc<dyn Catalog>) -> Arc<Self> {
        Arc::new(Self {
            catalog,
            books: Mutex::default(),
            unwritten: Mutex::default(),
            has_unwritten: AtomicBool::new(false),
            looking: Mutex::default(),
        })
    }

    /// Reserves if the sums are known and it fits; `None` if that takes more.
    fn reserve_now(self: &Arc<Self>, key: KeyId, quota: u64, bytes: u64) -> Option<Reservation> {
        if self.has_unwritten.load(Ordering::Acquire) {
            return None;
        }
        let mut books = lock(&self.books);
        let book = books.get_mut(&key)?;
        let fits = bytes <= quota.saturating_sub(book.stored.saturating_add(book.reserved));
        fits.then(|| {
            book.reserved += bytes;
            Reservation(Some(Reserved { ledger: Arc::clone(self), key, bytes }))
        })
    }

    /// As [`Self::reserve_now`], after the sums were read and what is gone was forgotten; blocks.
    fn reserve(
        self: &Arc<Self>,
        key: KeyId,
        quota: u64,
        bytes: u64,
        is_gone: &dyn Fn(&OwnedFile) -> bool,
    ) -> Result<Reservation, UploadError> {
        self.load(key).map_err(unwritable)?;
        if let Some(reservation) = self.reserve_now(key, quota, bytes) {
            return Ok(reservation);
        }
        self.forget_gone(key, is_gone).map_err(unwritable)?;
        self.reserve_now(key, quota, bytes).ok_or_else(|| {
            let books = lock(&self.books);
            let used = books.get(&key).map_or(0, |book| book.stored.saturating_add(book.reserved));
            UploadError::Quota { needed: bytes, left: quota.saturating_sub(used) }
        })
    }

    /// Sees to it that the sums of a key are in memory, and that the catalog lacks nothing.
    fn load(&self, key: KeyId) -> Result<(), CatalogError> {
        if self.has_unwritten.load(Ordering::Acquire) {
            self.write(Vec::new())?;
        }
        let _alone = lock(&self.unwritten);
        if !lock(&self.books).contains_key(&key) {
            let stored = self.catalog.owned_bytes(&key)?;
            lock(&self.books).insert(key, Book { stored, ..Book::default() });
        }
        Ok(())
    }

    /// Writes changes to the catalog, in one step, and what could not be written before. Blocks.
    ///
    /// # Errors
    /// If that is not possible. Then they are kept, so that nothing that is stored is free of charge, and tried
    /// again when something is to be written or reserved.
    pub(in crate::service) fn write(&self, entries: Vec<Entry>) -> Result<(), CatalogError> {
        let mut unwritten = lock(&self.unwritten);
        unwritten.extend(entries);
        if unwritten.is_empty() {
            return Ok(());
        }
        let changes: Vec<OwnedChange> = unwritten.iter().map(|entry| entry.change.clone()).collect();
        match self.catalog.write_owned(&changes) {
            Ok(shifts) => {
                self.settle(&shifts, &mut unwritten);
                self.has_unwritten.store(false, Ordering::Release);
                Ok(())
            }
            Err(error) => {
                unwritten.truncate(OWNED_UNWRITTEN_MAX);
                self.has_unwritten.store(true, Ordering::Release);
                Err(error)
            }
        }
    }

    /// What was reserved becomes what is stored, at one moment.
    fn settle(&self, shifts: &[Shift], written: &mut Vec<Entry>) {
        let mut books = lock(&self.books);
        for mut entry in written.drain(..) {
            if let Some(Reserved { key, bytes, .. }) = entry.reservation.0.take()
                && let Some(book) = books.get_mut(&key)
            {
                book.reserved = book.reserved.saturating_sub(bytes);
            }
        }
        for Shift { key, gained, lost } in shifts {
            if let Some(book) = books.get_mut(key) {
                book.stored = (book.stored + gained).saturating_sub(*lost);
            }
        }
    }

    /// Forgets files of a key that are gone from the disk, if nobody has looked just now: a bounded number of
    /// them, the next ones with the next call.
    fn forget_gone(&self, key: KeyId, is_gone: &dyn Fn(&OwnedFile) -> bool) -> Result<(), CatalogError> {
        let _looking = match self.looking.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Ok(guard) => guard,
        };
        let looked = lock(&self.books).get(&key).and_then(|book| book.looked.clone());
        let after = match looked {
            Some((_, at)) if at.elapsed() < QUOTA_LOOK_INTERVAL => return Ok(()),
            Some((after, _)) => after,
            None => Vec::new(),
        };
        let files = self.catalog.owned_files(&key, &after, QUOTA_LOOKS)?;
        let next = if files.len() < QUOTA_LOOKS { None } else { files.last() };
        let next = next.map(|file| file.name.as_bytes().to_vec()).unwrap_or_default();
        if let Some(book) = lock(&self.books).get_mut(&key) {
            book.looked = Some((next, Instant::now()));
        }
        let gone = files.into_iter().filter(|file| is_gone(file));
        self.write(
            gone.map(|OwnedFile { name, serial, .. }| Entry::of(OwnedChange::Gone { name, serial }))
                .collect(),
        )
    }

    /// Bytes that count for a key, and how many of them are reserved, if that was asked for before.
    #[cfg(test)]
    pub(in crate::service) fn sums(&self, key: &KeyId) -> Option<(u64, u64)> {
        lock(&self.books).get(key).map(|book| (book.stored + book.reserved, book.reserved))
    }
}

impl Service {
    /// Whether a file of `size` bytes may come, before its first byte does; what is reserved for it until it is
    /// stored. Whether there is room on the disk is for whoever stages it to see.
    ///
    /// # Errors
    /// [`UploadError::TooLarge`], [`UploadError::Quota`], and [`UploadError::Catalog`] where what a key with a quota
    /// has stored cannot be told.
    pub(crate) async fn admit(&self, permit: &Permit, size: u64) -> Result<Reservation, UploadError> {
        if let Some(max) = self.upload_max().filter(|&max| size > max) {
            return Err(UploadError::TooLarge { size, max });
        }
        let Owner { key: Some(key), quota: Some(quota) } = self.owner(permit.caller()) else {
            return Ok(Reservation::none());
        };
        if let Some(reservation) = self.inner.ledger.reserve_now(key, quota, size) {
            return Ok(reservation);
        }
        let inner = Arc::clone(&self.inner);
        let reserving = tokio::task::spawn_blocking(move || {
            inner.ledger.reserve(key, quota, size, &|file| inner.is_gone(file))
        });
        reserving.await.map_err(|aborted| UploadError::Catalog(aborted.to_string()))?
    }

    /// Writes down that a file was stored, before that is answered. Blocks.
    ///
    /// # Errors
    /// [`UploadError::Catalog`] if that is not possible and its key has a quota. The file is there and counts.
    pub(crate) fn note_stored(
        &self,
        permit: &Permit,
        size: u64,
        reservation: Reservation,
    ) -> Result<(), UploadError> {
        if permit.name().is_pushed() {
            // It counts as long as it is on its way, and belongs to nobody afterwards.
            self.keep_reservation(permit.name(), reservation);
            return Ok(());
        }
        let counts = reservation.counts();
        match self.inner.ledger.write(vec![Entry::stored(permit, size, reservation)]) {
            Err(error) if counts => Err(unwritable(error)),
            _ => Ok(()),
        }
    }

    /// Writes down that a file, or a folder with all that was in it, is gone: what it took is free again. What
    /// cannot be written is kept and tried again. Blocks.
    pub(crate) fn note_removed(&self, name: &FileName) {
        let _ = self.inner.ledger.write(vec![Entry::of(OwnedChange::Removed(name.clone()))]);
    }

    /// Writes down that a file, or a folder with all that is in it, has another name; as [`Self::note_removed`].
    pub(crate) fn note_renamed(&self, from: &FileName, to: &FileName) {
        let change = OwnedChange::Renamed { from: from.clone(), to: to.clone() };
        let _ = self.inner.ledger.write(vec![Entry::of(change)]);
    }
}

impl Inner {
    /// Whether a file that a key has stored is certainly not there any more as it was.
    fn is_gone(&self, file: &OwnedFile) -> bool {
        match self.storage.open(&file.name) {
            Ok(found) => found.size() != file.size,
            Err(OpenError::NotFound) => true,
            // A client may store a file that the server itself must not read: it is there all the same.
            Err(_) => false,
        }
    }
}

fn unwritable(error: CatalogError) -> UploadError {
    UploadError::Catalog(error.0)
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
