//! How receiving a folder begins: the lock, what an earlier run has left, and what is believed of it.
//!
//! 1. Who stages a new folder takes the lock beside the target; who adds to an existing one, the lock in
//!    it, wherever the path leads to it from.
//! 2. The folder is opened, and it is learnt which permission bits may be given there.
//! 3. In a new folder that an earlier run has left, what a power cut may have spoiled is removed; in an
//!    existing one, what a killed run has hidden.
//! 4. It is noted since when the folder is in use, before anything is received.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::super::StageError;
use super::super::beside::{self, failed, folder_of, shown};
use super::super::home::{Home, Trust};
use super::super::journal::TOKEN_LEN;
use super::given::Given;
use super::group::Group;
use super::lock::Lock;
use super::look::{self, named};
use super::note::NEVER;
use super::parents::Parents;
use super::{Attributes, MODE, StagedFolder, UNKNOWN, WHILE_RECEIVING, rest};
use crate::fileops;
use crate::limits::STAGING_TRIES;

/// Ending of the name of a folder that is made to learn which permission bits this process may give.
pub(in super::super) const PROBE: &str = ".mode";

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

    pub(super) fn open_since(
        target: &Path,
        sync: bool,
        since: Option<[u8; TOKEN_LEN]>,
    ) -> Result<Self, StageError> {
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
        let note = self.lock.note();
        if resumed {
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
        // The new note takes the place of the one before, so that whoever is killed here loses nothing; and it is
        // on the disk before anything is received that an older clock would speak of.
        let is_out_of_date = note.is_some_and(|note| note.clock != clock);
        self.lock.write(self.home, clock, is_out_of_date)?;
        let top = Attributes { mode: MODE, modified: UNKNOWN, sparse: false };
        self.top(&top);
        Ok(())
    }

    /// Opens a folder to which files are added.
    fn open_existing(target: &Path, sync: bool, since: Option<[u8; TOKEN_LEN]>) -> Result<Self, StageError> {
        remove_left_lock(target);
        // Every path to this folder must lead to the same lock.
        let lock = Lock::take(target.join(beside::hidden_name(Path::new(""), beside::LOCK)), target)?;
        let is_left = lock.was_there();
        let group = |place: &Place| {
            let group = Group::of(&place.home);
            // Somebody was killed here. What is not found is hidden, and replaced when it is met; and the
            // lock stays behind, so that the next run looks for it again.
            let is_swept = !is_left || group.remove_left(&place.top);
            lock.write(place.home, NEVER, false)?;
            Ok((group, is_swept))
        };
        match Place::open(target, since).and_then(|place| Ok((group(&place)?, place))) {
            Ok(((group, is_swept), place)) => {
                let mut existing = Self::around(target, target.to_owned(), place, lock, sync);
                existing.is_swept = is_swept;
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
            is_swept: true,
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
}

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
        let probe = beside::hidden_name(Path::new(""), PROBE);
        let mask = mask_of(&top, OsStr::new(&probe)).map_err(failed("create a folder in", path))?;
        Ok(Self { top, home, mask })
    }
}

/// Which permission bits the system takes from what is made in a folder. Nobody else may use the probe's name.
pub(in super::super) fn mask_of(folder: &File, probe: &OsStr) -> io::Result<u32> {
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
