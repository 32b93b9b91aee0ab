//! Small files that are put as a whole: proven in memory, made durable together, and then acknowledged.
//!
//! 1. An edge asks for [`Room`] when it has all bytes of a file; while there is none it reads no further.
//! 2. [`Service::store_whole`] compares the bytes with their root and lets the file wait.
//! 3. One thread stages what waits into a group (`small/batch.rs`), another one makes a group durable and gives its
//!    files their names. While a group is flushed the next one grows; so the more come, the larger the
//!    groups are, and who comes alone does not wait for others.
//! 4. Whoever waits is told when its file is on the disk under its name and in the catalog.
//!
//! The threads end when nothing waits. A group whose flush failed is told to all who are in it, and is never
//! flushed again.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::batch::{Asker, Batch, Wanted};
use super::naming::Named;
use super::{Offer, Stored, UploadError};
use crate::limits::{GROUP_FILES_MAX, GROUP_PROBE, SMALL_FILE_MAX, WHOLE_FILE_COST, WHOLE_WAITING_BYTES};
use crate::names::FileName;
use crate::service::access::Permit;
use crate::service::history::Dialect;
use crate::service::{Event, Inner, Service, lock};
use crate::staged::group::GroupNames;
use crate::storage::ChangeError;
use crate::tree::Root;

mod batch;

/// A small file with all of its bytes.
pub(crate) struct WholeFile {
    /// What has the name already is replaced, if it is a file.
    pub(crate) replace: bool,
    /// Nothing is to be done if a file of this size and time has the name already.
    pub(crate) unless_same: bool,
    /// When it was modified: seconds since 1970, and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// Its permission bits.
    pub(crate) mode: u32,
    /// What its bytes have to make.
    pub(crate) root: Root,
    /// All of them.
    pub(crate) bytes: Vec<u8>,
}

/// Room in memory for a file that waits to be stored.
#[must_use]
pub(crate) struct Room(#[expect(dead_code, reason = "held, not looked at")] Option<OwnedSemaphorePermit>);

/// The files that wait, and who works on them.
pub(in crate::service) struct Wholes {
    room: Arc<Semaphore>,
    names: Arc<GroupNames>,
    state: Mutex<State>,
    /// Something waits, or a group has been done with.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Wanted>,
    /// Somebody stages what waits.
    is_staging: bool,
    /// A group is being made durable.
    is_flushing: bool,
}

/// What the one who stages has to do next.
enum Step {
    Stage(Vec<Wanted>),
    Flush,
    End,
}

impl Default for Wholes {
    fn default() -> Self {
        Self {
            room: Arc::new(Semaphore::new(WHOLE_WAITING_BYTES as usize)),
            names: Arc::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }
}

impl Service {
    /// Waits until there is room for a file of `size` bytes: whoever comes first is first.
    pub(crate) async fn room(&self, size: u64) -> Room {
        // Nobody ever closes it.
        Room(Arc::clone(&self.inner.wholes.room).acquire_many_owned(cost(size)).await.ok())
    }

    /// Room for a file of `size` bytes, if there is any just now.
    pub(crate) fn room_now(&self, size: u64) -> Option<Room> {
        let room = Arc::clone(&self.inner.wholes.room).try_acquire_many_owned(cost(size)).ok()?;
        Some(Room(Some(room)))
    }

    /// Stores a file whose bytes are all here. When this returns [`Stored::New`], the file is on the disk under
    /// its name, and survives a power cut.
    ///
    /// # Errors
    /// [`UploadError`]; nothing is left of the file, except where the names of a folder could not be flushed, or
    /// the catalog not be written: then it may be there, and counts.
    pub(crate) async fn store_whole(
        &self,
        permit: &Permit,
        file: WholeFile,
        room: Room,
    ) -> Result<Stored, UploadError> {
        let file = proven(file).await?;
        // Before it is reserved: whoever stores the same has reserved it, too.
        let same = (permit.caller().key_id(), file.root);
        let claim = self.inner.busy.claim_whole(permit.name(), same).await.ok_or(UploadError::Busy)?;
        let reservation = match self.admit(permit, file.bytes.len() as u64).await {
            // What is there already needs no room.
            Err(refusal @ UploadError::Quota { .. }) if file.unless_same => Err(refusal),
            admitted => Ok(admitted?),
        };
        let (reply, told) = oneshot::channel();
        let permit = permit.clone();
        self.inner.add(Wanted { permit, file, reservation, asker: Asker { reply, claim }, room });
        told.await.unwrap_or_else(|_| Err(given_up()))
    }

    /// As [`Self::store_whole`], under the name that the server gives it, which is returned if it gives one; and tells the
    /// observer. `transfer` is what all attempts at it have in common.
    pub(crate) async fn take_whole(
        &self,
        permit: &Permit,
        file: WholeFile,
        room: Room,
        transfer: [u8; 16],
    ) -> Result<(Stored, Option<FileName>), UploadError> {
        let size = file.bytes.len() as u64;
        let outcome = if self.gives_names(permit) {
            self.store_named(permit, file, room, transfer).await
        } else {
            self.store_whole(permit, file, room).await.map(|stored| (stored, None))
        };
        let (peer, key, name) = (permit.caller().peer(), permit.caller().key_name(), permit.name());
        match &outcome {
            Ok((Stored::New(root), given)) => {
                let (dialect, name) = (Dialect::V2, given.as_ref().unwrap_or(name));
                self.tell(&Event::Taken { peer, dialect, key, name, size, root: *root });
            }
            Ok((Stored::Same, _)) => {}
            Err(error) => {
                let cause = error.to_string();
                self.tell(&Event::NotChanged { peer, key, name: name.as_bytes(), cause: &cause });
            }
        }
        outcome
    }
}

impl Service {
    /// Stores a file under the name that the server gives it; an attempt whose end was not heard of may have done so.
    async fn store_named(
        &self,
        permit: &Permit,
        mut file: WholeFile,
        room: Room,
        transfer: [u8; 16],
    ) -> Result<(Stored, Option<FileName>), UploadError> {
        let (slot, key) = (self.slot(permit, &transfer), permit.caller().key_id());
        // An attempt before this one may still be at it.
        let _claim = self.inner.busy.claim_whole(&slot, (key, file.root)).await.ok_or(UploadError::Busy)?;
        let offer = Offer {
            priority: crate::priority::Priority::default(),
            replace: file.replace,
            unless_same: file.unless_same,
            size: file.bytes.len() as u64,
            modified: file.modified,
            mode: file.mode,
            token: transfer,
            root: Some(file.root),
            transfer,
            attempt: 0,
        };
        let (service, asked, known, said) = (self.clone(), permit.clone(), slot.clone(), offer.clone());
        let looking =
            tokio::task::spawn_blocking(move || match service.inner.uploads.remembered(&known, key, &said) {
                Some((root, Some(given))) if service.holds(&given, &said)? => Ok(Err((root, given))),
                _ => service.name_for(&asked).map(Ok),
            });
        let Named { permit, is_only } = match looking.await.map_err(|_| given_up())?? {
            Ok(Some(named)) => named,
            Ok(None) => Named { permit: permit.clone(), is_only: true },
            Err((root, given)) => return Ok((Stored::New(root), Some(given))),
        };
        (file.replace, file.unless_same) = (file.replace && is_only, file.unless_same && is_only);
        let stored = self.store_whole(&permit, file, room).await?;
        let given = permit.name().clone();
        if let Stored::New(root) = stored {
            self.inner.uploads.remember((&slot, Some(&given)), key, &offer, root);
        }
        Ok((stored, Some(given)))
    }
}

/// What a file takes of the room that there is.
fn cost(size: u64) -> u32 {
    let bytes = u32::try_from(size).unwrap_or(u32::MAX);
    bytes.saturating_add(WHOLE_FILE_COST).min(WHOLE_WAITING_BYTES)
}

/// Compares the bytes of a file with its root.
async fn proven(file: WholeFile) -> Result<WholeFile, UploadError> {
    let is_right = |file: &WholeFile| Root::of(&file.bytes) == file.root;
    let (file, is_right) = if file.bytes.len() as u64 <= SMALL_FILE_MAX {
        let is_right = is_right(&file);
        (file, is_right)
    } else {
        let proving = tokio::task::spawn_blocking(move || {
            let is_right = is_right(&file);
            (file, is_right)
        });
        proving.await.map_err(|_| given_up())?
    };
    if is_right { Ok(file) } else { Err(UploadError::Damaged) }
}

fn given_up() -> UploadError {
    ChangeError::Io(io::Error::other("it was given up while it was being stored")).into()
}

impl Inner {
    /// Lets a file wait, and sees to it that somebody works on it.
    fn add(self: &Arc<Self>, wanted: Wanted) {
        let is_first = {
            let mut state = lock(&self.wholes.state);
            state.waiting.push_back(wanted);
            !std::mem::replace(&mut state.is_staging, true)
        };
        self.wholes.changed.notify_all();
        if is_first {
            let (groups, flushed) = sync_channel(1);
            let (stager, flusher) = (Arc::clone(self), Arc::clone(self));
            tokio::task::spawn_blocking(move || flusher.flush_groups(&flushed));
            tokio::task::spawn_blocking(move || stager.stage_groups(&groups));
        }
    }

    /// Stages what waits until nothing does.
    fn stage_groups(&self, groups: &SyncSender<Batch>) {
        let _lost = OnPanic(&self.wholes);
        let mut batch = Batch::new(&self.wholes.names);
        loop {
            match self.wholes.next(&batch) {
                Step::Stage(wanted) => {
                    let back = wanted.into_iter().filter_map(|wanted| batch.stage(self, wanted)).collect();
                    self.wholes.put_back(back);
                }
                Step::Flush => {
                    let group = std::mem::replace(&mut batch, Batch::new(&self.wholes.names));
                    if groups.send(group).is_err() {
                        // That thread was lost. Those who wait are told by the group that is dropped.
                        lock(&self.wholes.state).is_flushing = false;
                    }
                }
                Step::End => return,
            }
        }
    }

    fn flush_groups(&self, groups: &Receiver<Batch>) {
        while let Ok(batch) = groups.recv() {
            let _done = Flushed(&self.wholes);
            batch.commit(self);
        }
    }
}

impl Wholes {
    /// Lets files that did not fit into a group wait for the next one, before all others.
    fn put_back(&self, back: Vec<Wanted>) {
        let mut state = lock(&self.state);
        back.into_iter().rev().for_each(|wanted| state.waiting.push_front(wanted));
    }

    /// Says what is to be done next; waits while there is nothing.
    fn next(&self, batch: &Batch) -> Step {
        let mut state = lock(&self.state);
        loop {
            if !state.is_flushing && !batch.is_empty() {
                state.is_flushing = true;
                return Step::Flush;
            }
            if !state.waiting.is_empty() && !batch.is_full() {
                let count = state.waiting.len().min(GROUP_FILES_MAX);
                return Step::Stage(state.waiting.drain(..count).collect());
            }
            if !state.is_flushing && state.waiting.is_empty() {
                // Whoever comes next finds nobody, and begins anew.
                state.is_staging = false;
                return Step::End;
            }
            let waited = self.changed.wait_timeout(state, GROUP_PROBE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Says that a group was done with, also where the thread panics.
struct Flushed<'a>(&'a Wholes);

impl Drop for Flushed<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).is_flushing = false;
        self.0.changed.notify_all();
    }
}

/// Says that nobody stages any more, where the thread panics.
struct OnPanic<'a>(&'a Wholes);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.state).is_staging = false;
        }
    }
}

#[cfg(test)]
#[path = "small/tests.rs"]
mod tests;
