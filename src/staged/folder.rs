//! A folder that is being received: many files, flushed together.
//!
//! A folder that does not exist yet is staged as a whole, as a hidden sibling, and renamed once. So
//! files get their names in it at once, and a file's time, which is set after all bytes were written, tells a
//! whole file from a half-written one. Into a folder that exists each file is staged under a hidden name
//! beside its target. How it begins is in `open`, how it ends in `finish`. A sync point flushes the whole file system once for all files before; only then do
//! those of an existing folder get their names. A flush that failed is never tried again.
//!
//! What an earlier run has left of a new folder stands in the same boot and on the same mount
//! ([`Home`]); after a power cut only what had not been changed since the last sync point began, and the
//! rest is removed. Two names that lead to one file here are told; no name leads out of the folder; no
//! symbolic link is followed. Who may write to an existing folder can still take from it what was
//! received, or rename its folders while a large file, which is opened by its path, comes in.
//!
//! The folders that are named, and what is known of each file to notice collisions, are kept in memory:
//! the caller bounds them by what it names.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;

use self::given::Given;
use self::group::{Group, Waiting};
use self::lock::Lock;
use self::look::named;
use self::note::{Moment, NEVER};
use self::parents::Parents;
use super::beside::{self, failed, shown};
use super::home::Home;
use super::journal::TOKEN_LEN;
use super::{Replace, StageError, sparse};
use crate::fileops;
use crate::names::FileName;

mod finish;
mod given;
mod group;
mod lock;
mod look;
mod note;
mod open;
mod parents;
mod rest;

pub(super) use open::{PROBE, mask_of};

/// The permission bits that a source may set.
const MODE: u32 = 0o777;
/// What a folder needs so that files can be put into it.
const WHILE_RECEIVING: u32 = 0o700;

/// What a file or folder is to be like in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its permission bits; those above 0o777, and those of the process's mask, are left out.
    pub mode: u32,
    /// When it was modified: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
    /// Whether a file's pages of zeros become holes.
    pub sparse: bool,
}

/// What lies under a name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Missing,
    /// A file with the size and the time that were asked for, whose bytes are there.
    Same,
    /// Something else that a file replaces.
    Different,
}

/// Where a large file is to be received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargePlace {
    /// What [`Part::open`](super::Part::open) is called with.
    pub path: PathBuf,
    /// What [`Part::commit`](super::Part::commit) is called with. If that finds that the name is taken,
    /// another name of the source has led to it.
    pub replace: Replace,
}

/// A folder in the making, locked against a second receiver. Several threads may call it at once.
///
/// Dropped without a commit, what is in a new folder stays for the next run, if there is any file; in an
/// existing folder the files that have their names. Else nothing is left, and no folder made for it.
#[derive(Debug)]
pub struct StagedFolder {
    target: PathBuf,
    /// The staged folder, or the existing one.
    path: PathBuf,
    top: Arc<File>,
    home: Home,
    lock: Lock,
    /// The folders that were made above the target.
    made: Vec<PathBuf>,
    parents: Parents,
    given: Given,
    /// The small files that wait, if the folder exists.
    group: Option<Group>,
    /// The mask of this process: the permission bits that nothing gets.
    mask: u32,
    sync: bool,
    /// Whether an earlier run has left something here.
    resumed: bool,
    /// Whether nothing hidden of an earlier run is in an existing folder any more, as far as can be told.
    is_swept: bool,
    /// The folders whose mode and time are to be set in the end; the empty name is the top.
    folders: Mutex<BTreeMap<Box<[u8]>, Attributes>>,
    /// The large files that have been begun and not finished.
    large: Mutex<BTreeSet<FileName>>,
    /// Names that could not be given outside of a sync point.
    refused: Mutex<Vec<(FileName, StageError)>>,
    /// Whether something came since the last sync point.
    changed: AtomicBool,
    received: AtomicBool,
    distrusted: AtomicBool,
    committed: bool,
    /// Held by a sync point.
    syncing: Mutex<()>,
}

impl StagedFolder {
    /// Whether the target does not exist yet and is renamed as a whole.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.group.is_none()
    }

    /// Says what the folder itself is to be like, if it is new; else it stays as it is.
    pub fn top(&self, attributes: &Attributes) {
        if self.is_new() {
            lock(&self.folders).insert(Box::default(), *attributes);
        }
    }

    /// Makes a folder and what is missing above it. Its mode and time are set in the end; one that had
    /// been in an existing folder keeps its own.
    ///
    /// # Errors
    /// [`StageError::NotAFolder`] if something else is there, [`StageError::Collides`] if it is the same
    /// as another one here.
    pub fn folder(&self, name: &FileName, attributes: &Attributes) -> Result<(), StageError> {
        self.usable()?;
        // If this run is killed, it is nearly as it is to be.
        let (_, is_made) = self.parents.folder(name, attributes.mode & MODE | WHILE_RECEIVING)?;
        if self.is_new() || is_made {
            lock(&self.folders).insert(name.as_bytes().into(), *attributes);
        }
        self.changed.store(true, Ordering::Release);
        Ok(())
    }

    /// What lies under the name of a file. [`Standing::Same`] is a file of this size, with this time of
    /// modification as far as the file system can keep it, whose bytes survived. In an existing folder
    /// bytes that were received without `sync` are believed, too.
    ///
    /// # Errors
    /// [`StageError::NotAFile`] if it is something that a file does not replace, and
    /// [`StageError::NotAFolder`] if something else is above it.
    pub fn standing(&self, name: &FileName, size: u64, modified: (i64, u32)) -> Result<Standing, StageError> {
        self.usable()?;
        if self.is_new() && !self.resumed {
            return Ok(Standing::Missing);
        }
        let path = || self.parents.path(name.as_bytes());
        let Some((folder, base)) = self.parents.find(name)? else { return Ok(Standing::Missing) };
        let found = look::at(&folder, base).map_err(|error| named("look at", &path())(error))?;
        match found {
            None => Ok(Standing::Missing),
            Some(found) if found.kind == FileType::Symlink => Ok(Standing::Different),
            Some(found) if found.kind != FileType::RegularFile => Err(StageError::NotAFile(shown(&path()))),
            Some(found) if found.size != size => Ok(Standing::Different),
            Some(found) => {
                let is_same = found.modified == modified
                    || self.lock.kept_as(modified).is_ok_and(|kept| kept == found.modified);
                Ok(if is_same { Standing::Same } else { Standing::Different })
            }
        }
    }

    /// Keeps a file that is there as it is. It counts for collisions from now on.
    ///
    /// # Errors
    /// [`StageError::Collides`] if another name has led to it, and if no file is there.
    pub fn keep(&self, name: &FileName) -> Result<(), StageError> {
        self.usable()?;
        let path = || self.parents.path(name.as_bytes());
        let (folder, base) = self.parents.of(name)?;
        match look::at(&folder, base).map_err(|error| named("look at", &path())(error))? {
            Some(found) if found.kind == FileType::RegularFile => {
                group::claim(&found, name, &self.parents, &self.given)?;
                self.received.store(true, Ordering::Release);
                Ok(())
            }
            Some(_) => Err(StageError::NotAFile(shown(&path()))),
            None => Err(failed("keep", &path())(io::ErrorKind::NotFound.into())),
        }
    }

    /// Stores a small file whose bytes are known to be right. In a new folder it has its name then; in
    /// an existing one it gets it with the next sync point, or at once if nothing is flushed.
    ///
    /// # Errors
    /// If it cannot be stored; nothing is left of it then.
    pub fn small(
        &self,
        name: &FileName,
        bytes: &[u8],
        attributes: &Attributes,
        replace: Replace,
    ) -> Result<(), StageError> {
        self.usable()?;
        let fill = |file: &File| {
            if attributes.sparse {
                sparse::write_new(file, bytes)?;
            } else if !bytes.is_empty() {
                fileops::write_all_at(file, bytes, 0)?;
            }
            // The time comes last: it says that the bytes are there.
            fileops::set_modified(file, attributes.modified)?;
            if self.sync { fileops::sync_by_itself(file) } else { Ok(()) }
        };
        let mode = attributes.mode & MODE;
        match &self.group {
            None => self.small_in_new(name, mode, fill)?,
            Some(group) => {
                let waiting = group.stage(name, &self.parents, mode, replace, fill)?;
                if !self.sync {
                    group.name(&waiting, &self.parents, &self.given)?;
                } else if group.wait(waiting) {
                    let refused = self.sync_point()?;
                    lock(&self.refused).extend(refused);
                }
            }
        }
        self.received.store(true, Ordering::Release);
        self.changed.store(true, Ordering::Release);
        Ok(())
    }

    fn small_in_new(
        &self,
        name: &FileName,
        mode: u32,
        fill: impl Fn(&File) -> io::Result<()>,
    ) -> Result<(), StageError> {
        self.clock_is_right()?;
        let path = || self.parents.path(name.as_bytes());
        let (folder, base) = self.parents.of(name)?;
        let created = match fileops::create_new_at(&folder, base, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.make_way(name, &folder, base)?;
                fileops::create_new_at(&folder, base, mode)
            }
            created => created,
        };
        let file = created.map_err(|error| match error.kind() {
            // It came between: another name is this one here.
            io::ErrorKind::AlreadyExists => StageError::Collides { path: shown(&path()) },
            _ => named("create", &path())(error),
        })?;
        fill(&file).map_err(|error| {
            let _ = fileops::remove_file_at(&folder, base);
            failed("write", &path())(error)
        })
    }

    /// Removes what an earlier run has left of a file of a new folder.
    fn make_way(&self, name: &FileName, folder: &File, base: &OsStr) -> Result<(), StageError> {
        let path = self.parents.path(name.as_bytes());
        if let Some(found) = look::at(folder, base).map_err(failed("look at", &path))? {
            group::may_replace(&found, name, Replace::Always, &self.parents, &self.given)?;
            fileops::remove_file_at(folder, base).map_err(|error| {
                // It must not pass for what this run was given: the end tries to remove it again.
                self.given.left(found.identity);
                failed("remove", &path)(error)
            })?;
        }
        Ok(())
    }

    /// Where a large file is to be received with a [`Part`](super::Part), which flushes or not as this
    /// does. The folders above it are there then, reached without passing a symbolic link. May be asked
    /// again for the same name.
    ///
    /// # Errors
    /// [`StageError::Exists`], [`StageError::NotAFile`] and [`StageError::Collides`] if the name cannot
    /// be had, known before anything is received.
    pub fn large(&self, name: &FileName, replace: Replace) -> Result<LargePlace, StageError> {
        self.usable()?;
        self.clock_is_right()?;
        let path = self.parents.path(name.as_bytes());
        let (folder, base) = self.parents.of(name)?;
        let found = look::at(&folder, base).map_err(named("look at", &path))?;
        let is_begun = lock(&self.large).contains(name);
        let replace = match found {
            Some(found) => {
                if self.is_new() {
                    self.make_way(name, &folder, base)?;
                    Replace::Never
                } else {
                    if !is_begun {
                        group::may_replace(&found, name, replace, &self.parents, &self.given)?;
                    }
                    replace
                }
            }
            None => Replace::Never,
        };
        lock(&self.large).insert(name.clone());
        Ok(LargePlace { path, replace })
    }

    /// Sets mode and time of a large file that has been committed at its place.
    ///
    /// # Errors
    /// If the disk refuses, or something else lies there.
    pub fn large_done(&self, name: &FileName, attributes: &Attributes) -> Result<(), StageError> {
        self.usable()?;
        let path = self.parents.path(name.as_bytes());
        let (folder, base) = self.parents.of(name)?;
        let file = look::open_file(&folder, base).map_err(failed("open", &path))?;
        let found = look::at_open(&file).map_err(failed("look at", &path))?;
        if found.kind != FileType::RegularFile {
            return Err(StageError::NotAFile(shown(&path)));
        }
        // It is worth nothing, but this name may be kept from now on, and then nobody looks for it.
        let journal = beside::hidden_name(Path::new(base), beside::JOURNAL);
        let _ = fileops::remove_file_at(&folder, OsStr::new(&journal));
        self.given.made(found.identity);
        self.finish(&file, attributes).map_err(failed("set mode and time of", &path))?;
        lock(&self.large).remove(name);
        self.received.store(true, Ordering::Release);
        self.changed.store(true, Ordering::Release);
        Ok(())
    }

    /// Flushes everything given so far, and in an existing folder gives the files that wait their names
    /// and flushes those; does nothing without `sync`. Others may go on meanwhile. Returns the names that
    /// could not be given, and why. Blocks.
    ///
    /// # Errors
    /// If the disk refuses. After a failed flush nothing more is taken, and no file that waits gets its
    /// name.
    pub fn sync_point(&self) -> Result<Vec<(FileName, StageError)>, StageError> {
        self.sync_point_by(&|| fileops::sync_file_system(&self.top))
    }

    fn sync_point_by(
        &self,
        flush: &dyn Fn() -> io::Result<()>,
    ) -> Result<Vec<(FileName, StageError)>, StageError> {
        self.usable()?;
        let _alone = lock(&self.syncing);
        self.usable()?;
        let mut refused = std::mem::take(&mut *lock(&self.refused));
        if self.sync && self.changed.swap(false, Ordering::AcqRel) {
            match &self.group {
                None => self.flush_new(flush)?,
                Some(group) => {
                    refused.extend(self.flush_and_name(group, flush)?);
                    self.flushed(flush())?;
                }
            }
        }
        Ok(refused)
    }

    /// Flushes a new folder and notes it.
    fn flush_new(&self, flush: &dyn Fn() -> io::Result<()>) -> Result<(), StageError> {
        self.clock_is_right()?;
        let clock = self.lock.clock()?;
        self.flushed(flush())?;
        self.lock.write(self.home, clock, true).inspect_err(|_| self.distrust())
    }

    /// Flushes the files that wait and gives them their names.
    fn flush_and_name(
        &self,
        group: &Group,
        flush: &dyn Fn() -> io::Result<()>,
    ) -> Result<Vec<(FileName, StageError)>, StageError> {
        let waiting = group.take();
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        if let Err(error) = self.flushed(flush()) {
            waiting.iter().for_each(|waiting| group.remove(waiting, &self.parents));
            return Err(error);
        }
        let name = |waiting: Waiting| {
            let named = group.name(&waiting, &self.parents, &self.given);
            named.err().map(|error| (waiting.name, error))
        };
        Ok(waiting.into_iter().filter_map(name).collect())
    }

    /// Passes the outcome of a flush on; after a failed one nothing since the last sync point is believed.
    fn flushed(&self, flushed: io::Result<()>) -> Result<(), StageError> {
        flushed.map_err(failed("flush", &self.path)).inspect_err(|_| self.distrust())
    }

    fn distrust(&self) {
        self.distrusted.store(true, Ordering::Release);
        // As if the power had been cut just now.
        let home = Home { since: [0; TOKEN_LEN], ..self.home };
        if self.is_new() && self.lock.write(home, self.lock.last_clock(), true).is_err() {
            let _ = self.lock.forget();
        }
    }

    /// Sees to it that no file looks older than the last sync point because the clock was set.
    fn clock_is_right(&self) -> Result<(), StageError> {
        if self.is_new() && self.sync && self.lock.clock_went_back() {
            self.lock.write(self.home, NEVER, true)?;
        }
        Ok(())
    }

    fn usable(&self) -> Result<(), StageError> {
        if self.distrusted.load(Ordering::Acquire) {
            return Err(StageError::FlushFailed(shown(&self.target)));
        }
        Ok(())
    }
}

/// The time of a folder of which none was told.
const UNKNOWN: Moment = (i64::MIN, u32::MAX);

/// What a mutex holds, whatever a thread that panicked left.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "folder/tests.rs"]
mod tests;
