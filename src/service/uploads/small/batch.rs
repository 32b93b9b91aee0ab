//! Files that are staged, flushed, named and written down together, and then answered.
//!
//! The order is the commit rule's: stage, flush, rename, flush the folders, write the catalog, answer. A file
//! that cannot have its name fails alone; a flush that fails is everybody's failure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::sync::oneshot;

use super::{Room, WholeFile};
use crate::catalog::CatalogError;
use crate::limits::{GROUP_BYTES_MAX, GROUP_FILES_MAX, GROUP_FOLDERS_MAX, UPLOAD_SPACE_MARGIN};
use crate::service::Inner;
use crate::service::access::Permit;
use crate::service::uploads::ledger::Entry;
use crate::service::uploads::{Claim, Reservation, Stored, UploadError};
use crate::staged::group::{FileNumber, FolderNumber, Group, GroupFile, GroupNames};
use crate::staged::{Replace, StageError};
use crate::storage::{ChangeError, OpenError};
use crate::tree::Root;

/// A file that is to be stored, and who waits for that.
pub(super) struct Wanted {
    pub(super) permit: Permit,
    pub(super) file: WholeFile,
    /// A refusal does not matter if the same file is there already.
    pub(super) reservation: Result<Reservation, UploadError>,
    pub(super) asker: Asker,
    /// Given back with the bytes, when they are staged.
    pub(super) room: Room,
}

/// Who waits for an outcome, and the name that it has for itself until then.
pub(super) struct Asker {
    pub(super) reply: oneshot::Sender<Result<Stored, UploadError>>,
    pub(super) claim: Claim,
}

impl Asker {
    fn tell(self, outcome: Result<Stored, UploadError>) {
        // Whoever was told may ask for the same name at once.
        drop(self.claim);
        // Nobody may be listening any more: the connection is gone.
        let _ = self.reply.send(outcome);
    }
}

/// A file of the group.
struct Waiting {
    permit: Permit,
    number: FileNumber,
    replace: Replace,
    root: Root,
    size: u64,
    reservation: Reservation,
    asker: Asker,
}

/// A group and those who wait for it.
pub(super) struct Batch {
    group: Group,
    waiting: Vec<Waiting>,
    /// Of each folder: bytes that were free when it was opened, and bytes that had been staged by then.
    free: Vec<(u64, u64)>,
    /// Something did not fit in.
    is_full: bool,
}

impl Batch {
    pub(super) fn new(names: &Arc<GroupNames>) -> Self {
        let group = Group::new(Arc::clone(names));
        Self { group, waiting: Vec::new(), free: Vec::new(), is_full: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full || self.waiting.len() >= GROUP_FILES_MAX || self.group.bytes() >= GROUP_BYTES_MAX
    }

    /// Stages a file, or says at once what else came of it; gives it back if it does not fit in.
    pub(super) fn stage(&mut self, inner: &Inner, wanted: Wanted) -> Option<Wanted> {
        if self.is_full() {
            return Some(wanted);
        }
        if let Err(error) = inner.settle() {
            wanted.asker.tell(Err(error));
            return None;
        }
        let folder = match self.folder(inner, &wanted.permit) {
            Ok(Some(folder)) => folder,
            Ok(None) => {
                self.is_full = true;
                return Some(wanted);
            }
            Err(error) => {
                wanted.asker.tell(Err(error));
                return None;
            }
        };
        let Wanted { permit, file, reservation, asker, room: _room } = wanted;
        match self.stage_in(folder, OsStr::from_bytes(permit.name().base()), &file, reservation) {
            Ok(Some((number, reservation))) => {
                let replace = if file.replace { Replace::Always } else { Replace::Never };
                let (root, size) = (file.root, file.bytes.len() as u64);
                self.waiting.push(Waiting { permit, number, replace, root, size, reservation, asker });
            }
            Ok(None) => asker.tell(Ok(Stored::Same)),
            Err(error) => asker.tell(Err(error)),
        }
        None
    }

    /// The folder of a file, open from now on; `None` if no more may be open in this group.
    fn folder(&mut self, inner: &Inner, permit: &Permit) -> Result<Option<FolderNumber>, UploadError> {
        let above = permit.name().folder();
        if let Some(folder) = self.group.folder(above) {
            return Ok(Some(folder));
        }
        let opened = self.group.folders();
        if opened >= GROUP_FOLDERS_MAX {
            return Ok(None);
        }
        let place = match inner.storage.place(permit.name()) {
            // It may be this group that has too many open.
            Err(error) if opened > 0 && !self.is_empty() && is_too_many(&error) => return Ok(None),
            place => place?,
        };
        let folder = self.group.add_folder(above, place)?;
        self.free.push((self.group.free(folder)?, self.group.bytes()));
        Ok(Some(folder))
    }

    /// Stages a file in its folder; `None` if the same one is there already.
    fn stage_in(
        &mut self,
        folder: FolderNumber,
        base: &OsStr,
        file: &WholeFile,
        reservation: Result<Reservation, UploadError>,
    ) -> Result<Option<(FileNumber, Reservation)>, UploadError> {
        let size = file.bytes.len() as u64;
        if file.unless_same && self.group.has_same(folder, base, size, file.modified)? {
            return Ok(None);
        }
        let reservation = reservation?;
        let (free, before) = self.free.get(folder.index()).copied().unwrap_or_default();
        let staged_since = self.group.bytes().saturating_sub(before);
        if staged_since.saturating_add(size).saturating_add(UPLOAD_SPACE_MARGIN) > free {
            return Err(ChangeError::NoSpace.into());
        }
        let staged = GroupFile { bytes: &file.bytes, mode: file.mode, modified: file.modified };
        Ok(Some((self.group.stage(folder, base, &staged)?, reservation)))
    }

    /// Makes the coming flush fail.
    #[cfg(test)]
    pub(super) fn break_flush(&mut self) {
        self.group.is_broken = true;
    }

    /// Makes all files durable, gives them their names, writes down whose they are, and tells those who wait.
    pub(super) fn commit(self, inner: &Inner) {
        let Self { mut group, waiting, .. } = self;
        if let Err(error) = group.flush() {
            // What was staged goes before anybody tries again.
            drop(group);
            let mut errors = errors_of(error);
            waiting.into_iter().for_each(|one| one.asker.tell(Err(errors(&one.permit).into())));
            return;
        }
        let mut named = Vec::with_capacity(waiting.len());
        for one in waiting {
            match group.publish(one.number, one.replace) {
                Ok(()) => named.push(one),
                Err(error) => one.asker.tell(Err(error.into())),
            }
        }
        let flushed = group.flush_names().inspect_err(|_| inner.doubt());
        drop(group);
        answer(inner, named, flushed);
    }
}

/// Writes down whose the files are that have their names, and tells those who wait. Even where a flush failed
/// the files are there, and count.
fn answer(inner: &Inner, named: Vec<Waiting>, flushed: Result<(), StageError>) {
    let mut entries = Vec::with_capacity(named.len());
    let mut told = Vec::with_capacity(named.len());
    for Waiting { permit, root, size, reservation, asker, .. } in named {
        let counts = reservation.counts();
        entries.push(Entry::stored(&permit, size, reservation));
        told.push((permit, root, counts, asker));
    }
    let written = inner.ledger.write(entries);
    let mut errors = flushed.err().map(errors_of);
    for (permit, root, counts, asker) in told {
        asker.tell(match (&mut errors, &written) {
            (Some(errors), _) => Err(errors(&permit).into()),
            (None, Err(CatalogError(cause))) if counts => Err(UploadError::Catalog(cause.clone())),
            (None, _) => Ok(Stored::New(root)),
        });
    }
}

/// What each of those is told whose flush failed: the first one why.
fn errors_of(error: StageError) -> impl FnMut(&Permit) -> StageError {
    let mut first = Some(error);
    move |permit| first.take().unwrap_or_else(|| StageError::FlushFailed(permit.name().to_string()))
}

fn is_too_many(error: &ChangeError) -> bool {
    let (ChangeError::Open(OpenError::Unavailable(error)) | ChangeError::Io(error)) = error else {
        return false;
    };
    let errno = error.raw_os_error();
    errno == Some(Errno::MFILE.raw_os_error()) || errno == Some(Errno::NFILE.raw_os_error())
}
