//! Folders that were made on the way to a place: each is flushed once, or removed if it came to nothing.
//!
//! Several places may lie in one new folder. They share what is known of it, so that whichever is committed
//! first flushes its entry, no matter who made it, and nobody removes it while another one counts on it.
//! Folders are held open, never found again by their paths.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{AtFlags, statat};

use super::StageError;
use super::beside::failed;
use crate::fileops;

/// Device and inode.
pub(crate) type FolderId = (u64, u64);

/// A folder that was made. The last one who lets go of it removes it, if it is empty and was not kept.
#[derive(Debug)]
pub(crate) struct Made {
    /// The folder above it.
    above: Arc<File>,
    name: OsString,
    id: FolderId,
    /// What is shown of the folder above it.
    path: PathBuf,
    /// Whether its entry is on the disk.
    is_flushed: AtomicBool,
    is_kept: AtomicBool,
    /// Where others find it meanwhile.
    known: Option<Arc<NewFolders>>,
}

impl Made {
    /// A folder of this name and identity in an open folder, which is shown as `path`.
    pub(super) fn new(above: Arc<File>, name: &OsStr, id: FolderId, path: &Path) -> Arc<Self> {
        Arc::new(Self::of(above, name, id, path, None))
    }

    fn of(above: Arc<File>, name: &OsStr, id: FolderId, path: &Path, known: Option<Arc<NewFolders>>) -> Self {
        let (is_flushed, is_kept) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { above, name: name.to_owned(), id, path: path.to_owned(), is_flushed, is_kept, known }
    }

    /// Waits until its entry in the folder above is on the disk.
    fn flush(&self) -> Result<(), StageError> {
        if self.is_flushed.load(Ordering::Acquire) {
            return Ok(());
        }
        fileops::sync_open_folder(&self.above).map_err(failed("flush the folder", &self.path))?;
        self.flushed();
        Ok(())
    }

    /// Says that its entry is on the disk, because its file system was flushed after it was made.
    fn flushed(&self) {
        self.is_flushed.store(true, Ordering::Release);
    }

    /// Says that it stays, even if it should be empty one day.
    fn keep(&self) {
        self.is_kept.store(true, Ordering::Release);
    }

    /// Removes it if it is empty and still itself; whether it is gone.
    fn remove(&self) -> bool {
        let found = statat(&*self.above, &*self.name, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| id(&found) == self.id)
            && fileops::remove_folder_at(&self.above, &self.name).is_ok()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let is_gone = !self.is_kept.load(Ordering::Acquire) && self.remove();
        let Some(known) = &self.known else { return };
        if !is_gone {
            // Somebody's part lies in it. Nobody who comes later would know that it was never flushed.
            let _ = self.flush();
        }
        let mut folders = known.folders();
        if folders.get(&self.id).is_some_and(|known| std::ptr::eq(known.as_ptr(), self)) {
            folders.remove(&self.id);
        }
    }
}

/// The folders on one way that may not be on the disk yet, the outermost one first.
#[derive(Debug, Default)]
pub(crate) struct Chain(Vec<Arc<Made>>);

impl Chain {
    /// Adds the next one.
    pub(crate) fn push(&mut self, made: Arc<Made>) {
        self.0.push(made);
    }

    /// Waits until their entries are on the disk.
    pub(crate) fn flush(&self) -> Result<(), StageError> {
        self.0.iter().rev().try_for_each(|made| made.flush())
    }

    /// Says that their entries are on the disk.
    pub(crate) fn flushed(&self) {
        self.0.iter().for_each(|made| made.flushed());
    }

    /// Says that they stay.
    pub(crate) fn keep(&self) {
        self.0.iter().for_each(|made| made.keep());
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // The innermost one first: the others are not empty before.
        while self.0.pop().is_some() {}
    }
}

/// The folders of a store that were made and may not be on the disk yet.
#[derive(Debug, Default)]
pub(crate) struct NewFolders(Mutex<HashMap<FolderId, Weak<Made>>>);

impl NewFolders {
    /// Makes a folder in an open one, which is shown as `path`; `None` if there is something already. `open` then
    /// opens and identifies it; if that fails it is removed again.
    pub(crate) fn make<T>(
        self: &Arc<Self>,
        above: &Arc<File>,
        name: &OsStr,
        mode: u32,
        path: &Path,
        open: impl FnOnce() -> io::Result<(T, FolderId)>,
    ) -> io::Result<Option<(T, Arc<Made>)>> {
        // Who finds it in the file system asks for it here, and has to wait until it is known.
        let mut folders = self.folders();
        match fileops::create_folder_at(above, name, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            made => made?,
        }
        // If it cannot be opened, nobody would know later that it was never flushed.
        let (opened, id) = open().inspect_err(|_| drop(fileops::remove_folder_at(above, name)))?;
        let made = Arc::new(Made::of(Arc::clone(above), name, id, path, Some(Arc::clone(self))));
        folders.insert(id, Arc::downgrade(&made));
        Ok(Some((opened, made)))
    }

    /// What is known of a folder that was found, if it may not be on the disk. One that is just being given up is
    /// flushed here.
    pub(crate) fn find(&self, id: FolderId, above: &File) -> io::Result<Option<Arc<Made>>> {
        let Some(known) = self.folders().get(&id).map(Weak::upgrade) else { return Ok(None) };
        match known {
            Some(made) => Ok(Some(made)),
            None => fileops::sync_open_folder(above).map(|()| None),
        }
    }

    fn folders(&self) -> MutexGuard<'_, HashMap<FolderId, Weak<Made>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Device and inode.
#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "they differ from system to system")]
pub(crate) fn id(found: &rustix::fs::Stat) -> FolderId {
    (found.st_dev as u64, found.st_ino as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_opened_once_it_is_made_is_removed() {
        let site = tempfile::tempdir().unwrap();
        let above = Arc::new(File::open(site.path()).unwrap());
        let new = Arc::new(NewFolders::default());
        let refuse = || Err::<((), FolderId), _>(io::Error::other("too many open files"));
        assert!(new.make(&above, OsStr::new("made"), 0o777, site.path(), refuse).is_err());
        assert!(!site.path().join("made").exists());
        assert!(new.folders().is_empty());
    }
}
