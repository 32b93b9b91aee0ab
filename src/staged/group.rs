//! Small files of a server that are made durable together: many files, one flush.
//!
//! 1. Each is staged under a hidden name in the folder of its target, which stays open as long as the group
//!    lives: five system calls a file (make, write, set the time, close, rename).
//! 2. One flush of the file system brings all of them to the disk; a file that is alone is flushed by itself.
//! 3. Then each gets its name, and the folders are flushed.
//!
//! A flush that failed is never tried again, and nobody's file gets its name by it. What has not got its name
//! is removed when the group is dropped. Whether the bytes are right, and who may have which name, was
//! decided before.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::beside::{self, MODE, failed, folder_of, shown};
use super::place::Held;
use super::{Place, Replace, StageError, made};
use crate::digest::Md5;
use crate::fileops;
use crate::limits::{GROUP_FOLDER_FLUSHES_MAX, STAGING_TRIES};
use crate::names::STAGED_PREFIX;

/// Hidden names that no other group, and no other process before or beside this one, gives.
#[derive(Debug)]
pub struct GroupNames {
    prefix: String,
    next: AtomicU64,
}

impl Default for GroupNames {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let digest = Md5::of(format!("{} {now}", std::process::id()).as_bytes()).to_string();
        Self { prefix: format!("{STAGED_PREFIX}{}-", &digest[..16]), next: AtomicU64::new(0) }
    }
}

impl GroupNames {
    fn next(&self) -> String {
        format!("{}{:x}.part", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// A file that is to be staged, whose bytes are known to be right.
#[derive(Clone, Copy, Debug)]
pub struct GroupFile<'a> {
    /// All of its bytes.
    pub bytes: &'a [u8],
    /// Its permission bits; those above 0o777, and those of the process's mask, are left out.
    pub mode: u32,
    /// When it was modified: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
}

/// A folder of a group, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderNumber(usize);

impl FolderNumber {
    /// The number: folders are counted from 0 in the order in which they were added.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// A file of a group, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileNumber(usize);

#[derive(Debug)]
struct Folder {
    /// The place of the first file that came to it.
    place: Place,
    device: u64,
    /// A file has got its name in it.
    has_new: bool,
}

#[derive(Debug)]
struct Staged {
    folder: FolderNumber,
    base: OsString,
    /// Gone with the name.
    hidden: Option<OsString>,
}

/// Files that are staged and made durable together.
#[derive(Debug)]
pub struct Group {
    names: Arc<GroupNames>,
    numbers: HashMap<Box<[u8]>, FolderNumber>,
    folders: Vec<Folder>,
    files: Vec<Staged>,
    /// The file of a group of one.
    only: Option<File>,
    bytes: u64,
    /// As if the disk were broken.
    #[cfg(test)]
    pub(crate) is_broken: bool,
}

impl Group {
    /// One without files.
    #[must_use]
    pub fn new(names: Arc<GroupNames>) -> Self {
        let (numbers, folders, files) = (HashMap::new(), Vec::new(), Vec::new());
        Self {
            names,
            numbers,
            folders,
            files,
            only: None,
            bytes: 0,
            #[cfg(test)]
            is_broken: false,
        }
    }

    /// How many files are staged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How many bytes they have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many folders are open.
    #[must_use]
    pub fn folders(&self) -> usize {
        self.folders.len()
    }

    /// The folder that was added with this word.
    #[must_use]
    pub fn folder(&self, word: &[u8]) -> Option<FolderNumber> {
        self.numbers.get(word).copied()
    }

    /// Opens the folder of a place, to be found by `word` from now on.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn add_folder(&mut self, word: &[u8], place: Place) -> Result<FolderNumber, StageError> {
        // It was opened before anything is written: a flush tells what failed since then.
        let found = rustix::fs::fstat(place.folder())
            .map_err(|error| failed("look at", folder_of(place.path()))(error.into()))?;
        let (device, _) = made::id(&found);
        let number = FolderNumber(self.folders.len());
        self.folders.push(Folder { place, device, has_new: false });
        self.numbers.insert(word.into(), number);
        Ok(number)
    }

    /// Bytes that are free where a folder lies; what is staged already is not counted off as long as the file
    /// system has not placed it.
    ///
    /// # Errors
    /// If the disk does not tell.
    pub fn free(&self, folder: FolderNumber) -> Result<u64, StageError> {
        let folder = &self.folders[folder.0];
        let found = rustix::fs::fstatvfs(folder.place.folder())
            .map_err(|error| failed("ask for the free space of", &folder.path())(error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Whether a file of this size and time has this name.
    ///
    /// # Errors
    /// If the disk does not tell.
    pub fn has_same(
        &self,
        folder: FolderNumber,
        base: &OsStr,
        size: u64,
        modified: (i64, u32),
    ) -> Result<bool, StageError> {
        let folder = &self.folders[folder.0];
        match folder.look(base).map_err(failed("look at", &folder.path().join(base)))? {
            Some(Held::File { size: found, modified: at, .. }) => Ok(found == size && at == modified),
            _ => Ok(false),
        }
    }

    /// Makes a file under a hidden name and writes it.
    ///
    /// # Errors
    /// If the disk refuses; nothing is left of it then.
    pub fn stage(
        &mut self,
        folder: FolderNumber,
        base: &OsStr,
        file: &GroupFile<'_>,
    ) -> Result<FileNumber, StageError> {
        let within = &self.folders[folder.0];
        let target = within.path().join(base);
        let created = self.create(within.open(), file.mode & MODE);
        let (made, hidden) = created.map_err(failed("create", &target))?;
        if let Err(error) = fill(&made, file) {
            let _ = fileops::remove_file_at(within.open(), &hidden);
            return Err(failed("write", &target)(error));
        }
        self.only = self.files.is_empty().then_some(made);
        self.bytes += file.bytes.len() as u64;
        self.files.push(Staged { folder, base: base.to_owned(), hidden: Some(hidden) });
        Ok(FileNumber(self.files.len() - 1))
    }

    fn create(&self, folder: &File, mode: u32) -> io::Result<(File, OsString)> {
        for _ in 0..STAGING_TRIES {
            let hidden = OsString::from(self.names.next());
            match fileops::create_new_at(folder, &hidden, mode) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|file| (file, hidden)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Waits until all staged files are on the disk.
    ///
    /// # Errors
    /// If one of them may not be; then none of this group must get its name.
    pub fn flush(&mut self) -> Result<(), StageError> {
        #[cfg(test)]
        if self.is_broken {
            self.only = None;
            return self.flush_by(&|_| Err(io::Error::other("the disk is broken")));
        }
        self.flush_by(&fileops::sync_file_system)
    }

    fn flush_by(&mut self, sync: &dyn Fn(&File) -> io::Result<()>) -> Result<(), StageError> {
        if let Some(only) = self.only.take() {
            let folder = self.files.first().map(|staged| self.folders[staged.folder.0].path());
            return fileops::sync_file(&only).map_err(failed("flush a file in", &folder.unwrap_or_default()));
        }
        self.sync_devices(sync, |_| true)
    }

    /// Flushes the file system of each folder that `is_meant`, once.
    fn sync_devices(
        &self,
        sync: &dyn Fn(&File) -> io::Result<()>,
        is_meant: impl Fn(&Folder) -> bool,
    ) -> Result<(), StageError> {
        let mut done = HashSet::new();
        for folder in self.folders.iter().filter(|&folder| is_meant(folder)) {
            if done.insert(folder.device) {
                sync(folder.open()).map_err(failed("flush the file system of", &folder.path()))?;
            }
        }
        Ok(())
    }

    /// Gives a file its name. Only a file or a link is replaced, and only where that is wanted.
    ///
    /// # Errors
    /// [`StageError::Exists`] and [`StageError::NotAFile`] if something has the name, and whatever the disk
    /// says; the staged file is gone then.
    pub fn publish(&mut self, file: FileNumber, replace: Replace) -> Result<(), StageError> {
        let Staged { folder, base, hidden } = &mut self.files[file.0];
        let Some(hidden) = hidden.take() else { return Ok(()) };
        let folder = &mut self.folders[folder.0];
        let placed = place(folder, &hidden, base, replace);
        match &placed {
            Ok(()) => {
                folder.has_new = true;
                folder.place.keep();
            }
            Err(_) => drop(fileops::remove_file_at(folder.open(), &hidden)),
        }
        placed
    }

    /// Waits until the names that were given are on the disk, and the folders that were made for them.
    ///
    /// # Errors
    /// If one of them may not be.
    pub fn flush_names(&self) -> Result<(), StageError> {
        let named = || self.folders.iter().filter(|folder| folder.has_new);
        if named().count() <= GROUP_FOLDER_FLUSHES_MAX {
            return named().try_for_each(|folder| folder.place.sync());
        }
        self.sync_devices(&fileops::sync_file_system, |folder| folder.has_new)?;
        named().for_each(|folder| folder.place.synced());
        Ok(())
    }
}

impl Folder {
    fn open(&self) -> &File {
        self.place.folder()
    }

    /// What is shown of it.
    fn path(&self) -> PathBuf {
        folder_of(self.place.path()).to_owned()
    }

    /// What has a name in it.
    fn look(&self, base: &OsStr) -> io::Result<Option<Held>> {
        Ok(beside::find(self.open(), base)?.as_ref().map(Held::of))
    }
}

/// What has not got its name goes.
impl Drop for Group {
    fn drop(&mut self) {
        for Staged { folder, hidden, .. } in &self.files {
            if let Some(hidden) = hidden {
                let _ = fileops::remove_file_at(self.folders[folder.0].open(), hidden);
            }
        }
    }
}

fn fill(made: &File, file: &GroupFile<'_>) -> io::Result<()> {
    if !file.bytes.is_empty() {
        fileops::write_all_at(made, file.bytes, 0)?;
    }
    fileops::set_modified(made, file.modified)?;
    fileops::sync_by_itself(made)
}

fn place(folder: &Folder, hidden: &OsStr, base: &OsStr, replace: Replace) -> Result<(), StageError> {
    let path = folder.path().join(base);
    let failed = |error| failed("rename the received file to", &path)(error);
    match fileops::rename_at_to_new(folder.open(), hidden, base) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        renamed => return renamed.map_err(failed),
    }
    match folder.look(base).map_err(failed)? {
        Some(Held::Folder | Held::Other) => Err(StageError::NotAFile(shown(&path))),
        Some(_) if replace == Replace::Never => Err(StageError::Exists(shown(&path))),
        _ => fileops::rename_at(folder.open(), hidden, base).map_err(failed),
    }
}

#[cfg(test)]
#[path = "group/tests.rs"]
mod tests;
