//! A folder that is being received: many files, flushed together.
//!
//! A folder that does not exist yet is staged as a whole, as a hidden sibling, and renamed once. So
//! files get their names in it at once, and its time, which is set after all bytes were written, tells a
//! whole file from a half-written one. Into a folder that exists each file is staged under a hidden name
//! beside its target. A sync point flushes the whole file system once for all files before; only then do
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

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;

use self::given::Given;
use self::group::{Group, Waiting};
use self::lock::Lock;
use self::look::named;
use self::note::{Moment, NEVER};
use self::parents::{Parents, cut};
use super::beside::{self, failed, folder_of, shown};
use super::home::{Home, Trust};
use super::journal::TOKEN_LEN;
use super::{Replace, StageError, sparse};
use crate::fileops;
use crate::limits::STAGING_TRIES;
use crate::names::FileName;

mod given;
mod group;
mod lock;
mod look;
mod note;
mod parents;
mod rest;

/// The permission bits that a source may set.
const MODE: u32 = 0o777;
/// What a folder needs so that files can be put into it.
const WHILE_RECEIVING: u32 = 0o700;
/// Ending of the name of a folder that is made to learn which permission bits this process may give.
const PROBE: &str = ".mode";

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
    /// Opens and locks the folder that is to become `target`, or `target` itself if it is a folder.
    /// Missing folders above are made. With `sync`, sync points and the commit flush; without, they do
    /// not. What an earlier run has left may have to be looked through. Blocks.
    ///
    /// # Errors
    /// [`StageError::Busy`] if another receiver is at it, [`StageError::NotAFolder`], and others.
    pub fn open(target: &Path, sync: bool) -> Result<Self, StageError> {
        Self::open_since(target, sync, None)
    }

    fn open_since(target: &Path, sync: bool, since: Option<[u8; TOKEN_LEN]>) -> Result<Self, StageError> {
        for _ in 0..STAGING_TRIES {
            match target.metadata() {
                Ok(found) if found.is_dir() => return Self::open_existing(target, sync, since),
                Ok(_) => return Err(StageError::NotAFolder(shown(target))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(named("look at", target)(error)),
            }
            if target.symlink_metadata().is_ok() {
                return Err(StageError::NotAFolder(shown(target)));
            }
            if let Some(new) = Self::open_new(target, sync, since)? {
                return Ok(new);
            }
        }
        Err(StageError::Busy(shown(target)))
    }

    /// Stages a folder that does not exist; `None` if it does by now.
    fn open_new(
        target: &Path,
        sync: bool,
        since: Option<[u8; TOKEN_LEN]>,
    ) -> Result<Option<Self>, StageError> {
        let above = folder_of(target);
        let made = fileops::create_folders(above).map_err(failed("create the folder", above))?;
        let taken = Lock::take(above.join(beside::hidden_name(target, beside::LOCK)), target);
        let lock = taken.inspect_err(|_| fileops::remove_folders(&made))?;
        let path = above.join(beside::hidden_name(target, beside::PART));
        // Who had the lock before may have finished.
        if target.symlink_metadata().is_ok() {
            if path.symlink_metadata().is_err() {
                lock.remove();
            }
            return Ok(None);
        }
        let place = make_or_find(&path).and_then(|resumed| Ok((Place::open(&path, since)?, resumed)));
        let (place, resumed) = match place {
            Ok(place) => place,
            Err(error) => {
                // Only if it is empty: else its note stays, too.
                if fileops::remove_folder(&path).is_ok() || path.symlink_metadata().is_err() {
                    lock.remove();
                }
                fileops::remove_folders(&made);
                return Err(error);
            }
        };
        let mut new = Self::around(target, path, place, lock, sync);
        new.made = made;
        new.resume(resumed)?;
        Ok(Some(new))
    }

    /// Finds out what of a new folder an earlier run has left, and notes since when it is in use.
    fn resume(&mut self, resumed: bool) -> Result<(), StageError> {
        let mut clock = NEVER;
        if resumed {
            let note = self.lock.note();
            let trust = note.map_or(Trust::Nothing, |note| note.home.trust(&self.home));
            clock = note.filter(|_| trust != Trust::Nothing).map_or(NEVER, |note| note.clock);
            // What is received now must not look as if it had been there when that note was made.
            if self.lock.clock()? <= clock {
                clock = NEVER;
            }
            let before = (trust != Trust::Written).then_some(clock);
            let left = rest::sift(&self.top, before).map_err(failed("look through", &self.path))?;
            self.given = Given::but(left);
            self.resumed = true;
        }
        if clock == NEVER && !self.lock.is_empty() {
            self.lock.forget()?;
        }
        self.lock.write(self.home, clock, false)?;
        let top = Attributes { mode: MODE, modified: UNKNOWN, sparse: false };
        self.top(&top);
        Ok(())
    }

    /// Opens a folder to which files are added.
    fn open_existing(target: &Path, sync: bool, since: Option<[u8; TOKEN_LEN]>) -> Result<Self, StageError> {
        remove_left_lock(target);
        // Every path to this folder must lead to the same lock.
        let lock = Lock::take(target.join(beside::hidden_name(Path::new(""), beside::LOCK)), target)?;
        let is_left = lock.note().is_some();
        let group = |place: &Place| {
            let group = Group::of((place.home.device, place.home.inode));
            if is_left {
                // Somebody was killed here. What is not found is hidden, and replaced when it is met.
                let _ = group.remove_left(&place.top);
            }
            lock.write(place.home, NEVER, false)?;
            Ok(group)
        };
        match Place::open(target, since).and_then(|place| Ok((group(&place)?, place))) {
            Ok((group, place)) => {
                let mut existing = Self::around(target, target.to_owned(), place, lock, sync);
                (existing.group, existing.given) = (Some(group), Given::nothing());
                Ok(existing)
            }
            Err(error) => {
                if !is_left {
                    lock.remove();
                }
                Err(error)
            }
        }
    }

    fn around(target: &Path, path: PathBuf, place: Place, lock: Lock, sync: bool) -> Self {
        let Place { top, home, mask } = place;
        Self {
            target: target.to_owned(),
            parents: Parents::new(Arc::clone(&top), &path),
            path,
            top,
            home,
            lock,
            made: Vec::new(),
            given: Given::but(HashSet::new()),
            group: None,
            mask,
            sync,
            resumed: false,
            folders: Mutex::default(),
            large: Mutex::default(),
            refused: Mutex::default(),
            changed: AtomicBool::new(true),
            received: AtomicBool::new(false),
            distrusted: AtomicBool::new(false),
            committed: false,
            syncing: Mutex::default(),
        }
    }

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
            fileops::remove_file_at(folder, base).map_err(failed("remove", &path))?;
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
        self.given.made(found.identity);
        self.finish(&file, attributes).map_err(failed("set mode and time of", &path))?;
        lock(&self.large).remove(name);
        self.received.store(true, Ordering::Release);
        self.changed.store(true, Ordering::Release);
        Ok(())
    }

    /// Mode first, then the time, which says that all is done.
    fn finish(&self, file: &File, attributes: &Attributes) -> io::Result<()> {
        let mode = attributes.mode & MODE & !self.mask;
        if look::at_open(file)?.mode & 0o7777 != mode {
            fileops::set_mode(file, mode)?;
        }
        if attributes.modified == UNKNOWN {
            return Ok(());
        }
        fileops::set_modified(file, attributes.modified)
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
            self.lock.forget()?;
            self.lock.write(self.home, NEVER, false)?;
        }
        Ok(())
    }

    /// Sets modes and times of folders, flushes everything, gives the folder its name, and flushes that.
    /// Returns its path and what could not be done.
    ///
    /// # Errors
    /// If that fails a new folder does not get its name, and what was received is kept for the next run.
    /// Only if flushing the folder above fails does it have its name already.
    pub fn commit(mut self) -> Result<(PathBuf, Vec<(FileName, StageError)>), StageError> {
        self.usable()?;
        let flush = || fileops::sync_file_system(&self.top);
        let mut refused = std::mem::take(&mut *lock(&self.refused));
        if self.resumed {
            self.tidy()?;
        }
        if let (Some(group), true) = (&self.group, self.sync) {
            refused.extend(self.flush_and_name(group, &flush)?);
        }
        refused.extend(self.finish_folders()?);
        if self.sync {
            self.flushed(flush())?;
        }
        if self.is_new() {
            fileops::rename_folder_to_new(&self.path, &self.target).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
                    StageError::Exists(shown(&self.target))
                }
                _ => named("rename the received folder to", &self.target)(error),
            })?;
        }
        self.committed = true;
        self.lock.remove();
        if self.sync && self.is_new() {
            beside::sync_folders(&self.target, &self.made)?;
        }
        Ok((self.target.clone(), refused))
    }

    /// Removes what this run was not given. Parts of files that it could not finish stay.
    fn tidy(&self) -> Result<(), StageError> {
        let mut hidden = BTreeSet::new();
        for name in lock(&self.large).iter() {
            let (above, base) = cut(name.as_bytes());
            for ending in [beside::PART, beside::JOURNAL] {
                let hidden_name = beside::hidden_name(Path::new(base), ending);
                let above = if above.is_empty() { Vec::new() } else { [above, b"/"].concat() };
                hidden.insert([above, hidden_name.into_bytes()].concat());
            }
        }
        let folders = lock(&self.folders);
        rest::tidy(&self.top, &self.given, &folders, &hidden).map_err(failed("look through", &self.path))
    }

    /// Gives the folders their modes and times, the deepest first.
    fn finish_folders(&self) -> Result<Vec<(FileName, StageError)>, StageError> {
        let mut refused = Vec::new();
        // What lies in a folder comes behind it in the order of bytes.
        for (name, attributes) in std::mem::take(&mut *lock(&self.folders)).into_iter().rev() {
            let path = self.parents.path(&name);
            let Ok(file_name) = FileName::parse(&name) else {
                self.finish(&self.top, &attributes).map_err(failed("set mode and time of", &path))?;
                continue;
            };
            let finished = self.parents.folder(&file_name, WHILE_RECEIVING).and_then(|(folder, _)| {
                self.finish(&folder, &attributes).map_err(failed("set mode and time of", &path))
            });
            refused.extend(finished.err().map(|error| (file_name, error)));
        }
        Ok(refused)
    }

    /// Forgets everything that is in a new folder, to begin anew. An existing one is left alone.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn discard(&mut self) -> Result<(), StageError> {
        if !self.is_new() {
            return Ok(());
        }
        self.lock.forget()?;
        rest::clear(&self.top).map_err(failed("clear", &self.path))?;
        self.parents.forget();
        self.given.forget();
        lock(&self.folders).retain(|name, _| name.is_empty());
        lock(&self.large).clear();
        self.received.store(false, Ordering::Release);
        self.resumed = false;
        self.lock.write(self.home, NEVER, false)
    }

    fn usable(&self) -> Result<(), StageError> {
        if self.distrusted.load(Ordering::Acquire) {
            return Err(StageError::FlushFailed(shown(&self.target)));
        }
        Ok(())
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let received = self.received.load(Ordering::Acquire);
        if let Some(group) = &self.group {
            group.take().iter().for_each(|waiting| group.remove(waiting, &self.parents));
            if !received {
                self.parents.remove_made();
            }
            self.lock.remove();
        } else if !received && rest::is_empty(&self.top).unwrap_or_default() {
            // What cannot be removed is taken over by the next receiver.
            let _ = rest::clear(&self.top);
            let _ = fileops::remove_folder(&self.path);
            self.lock.remove();
            fileops::remove_folders(&self.made);
        }
    }
}

/// The time of a folder of which none was told.
const UNKNOWN: Moment = (i64::MIN, u32::MAX);

/// An open folder and what is to be known of it.
struct Place {
    top: Arc<File>,
    home: Home,
    mask: u32,
}

impl Place {
    fn open(path: &Path, since: Option<[u8; TOKEN_LEN]>) -> Result<Self, StageError> {
        let top = Arc::new(File::open(path).map_err(failed("open the folder", path))?);
        let home = Home::of(&top, since).map_err(failed("look at", path))?;
        let mask = mask(&top).map_err(failed("create a folder in", path))?;
        Ok(Self { top, home, mask })
    }
}

/// Which permission bits the system takes from what is made in a folder.
fn mask(folder: &File) -> io::Result<u32> {
    let probe = beside::hidden_name(Path::new(""), PROBE);
    let probe = OsStr::new(&probe);
    match fileops::create_folder_at(folder, probe, MODE) {
        // A killed receiver has left it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    let found = look::at(folder, probe)?;
    fileops::remove_folder_at(folder, probe)?;
    Ok(MODE & !found.map_or(MODE, |found| found.mode))
}

/// Makes the folder in which a new one is staged; whether an earlier run had made it.
fn make_or_find(path: &Path) -> Result<bool, StageError> {
    match fileops::create_private_folder(path) {
        Ok(()) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(named("create the folder", path)(error)),
    }
    let found = path.symlink_metadata().map_err(failed("look at", path))?;
    if !(found.is_dir() && found.uid() == rustix::process::geteuid().as_raw()) {
        return Err(StageError::InTheWay(shown(path)));
    }
    // An earlier run may have been about to finish it.
    let private = Permissions::from_mode(WHILE_RECEIVING);
    fileops::set_permissions_of(path, private).map_err(failed("set the permissions of", path))?;
    Ok(true)
}

/// Removes the lock of a new folder that has become `target`, if its receiver was killed just then.
fn remove_left_lock(target: &Path) {
    let Some(above) = target.parent().filter(|_| target.file_name().is_some()) else { return };
    let sibling = |ending| above.join(beside::hidden_name(target, ending));
    if sibling(beside::LOCK).symlink_metadata().is_ok()
        && let Ok(lock) = Lock::take(sibling(beside::LOCK), target)
        && sibling(beside::PART).symlink_metadata().is_err()
    {
        lock.remove();
    }
}

/// What a mutex holds, whatever a thread that panicked left.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "folder/tests.rs"]
mod tests;
