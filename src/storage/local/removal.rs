//! Removes what has a name beneath the root, in folders that are held open.
//!
//! 1. The way leads to the folder that holds the name; what is found there is not followed if it is a link.
//! 2. A folder that holds one of the server's own is refused before anything is touched.
//! 3. A folder is emptied from within: each one in it is opened in the open one above, looked at, and removed there by
//!    its name when it is empty. Memory is bounded by the depth. Another file system is never entered.
//! 4. In the end the folder that held the name is flushed, so a power cut brings nothing back that can be reached.
//!
//! What a receiver is staging in a folder keeps that folder; what one has left goes with it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, fstat, statat};
use rustix::io::Errno;

use super::change::{HOLDS_HIDDEN, NOT_A_FILE, changed};
use super::listing::folder::{Folder, Raw};
use super::way::kind;
use super::{LocalDisk, identity, open_error};
use crate::fileops;
use crate::limits::{REMOVE_DEPTH_MAX, REMOVE_ROUNDS, WALK_READ};
use crate::names::{self, FileName};
use crate::staged::{FolderId, Left, is_left_name};
use crate::storage::{ChangeError, OpenError, Removed};

pub(super) fn remove(disk: &LocalDisk, name: &FileName, recursive: bool) -> Result<Removed, ChangeError> {
    let above = disk.way_above(name, false)?;
    let found = above.find(name.base())?.ok_or(OpenError::NotFound)?;
    let base = OsStr::from_bytes(name.base());
    let mut removed = Removed::default();
    match kind(&found) {
        FileType::RegularFile | FileType::Symlink => {
            fileops::remove_file_at(&above.folder, base).map_err(replaced)?;
            removed.count(&found);
        }
        FileType::Directory if disk.holds_hidden(identity(&found))? => return Err(HOLDS_HIDDEN.into()),
        FileType::Directory => {
            if recursive {
                let top = Level::open(&above.folder, name.base())?;
                let hidden = disk.hidden_now().collect();
                let device = identity(&fstat(&above.folder).map_err(open_error)?).0;
                let mut emptier = Emptier { hidden, device, levels: Vec::new(), removed: &mut removed };
                emptier.begin(top)?;
                emptier.run()?;
            }
            fileops::remove_folder_at(&above.folder, base).map_err(replaced)?;
            removed.folders += 1;
        }
        _ => return Err(NOT_A_FILE.into()),
    }
    above.flush()?;
    Ok(removed)
}

impl Removed {
    fn count(&mut self, found: &rustix::fs::Stat) {
        self.files += 1;
        if kind(found) == FileType::RegularFile {
            self.bytes += u64::try_from(found.st_size).unwrap_or_default();
        }
    }
}

/// The error of removing what may have become something else since it was looked at.
fn replaced(error: io::Error) -> ChangeError {
    match Errno::from_io_error(&error) {
        Some(Errno::ISDIR | Errno::NOTDIR) => {
            ChangeError::Io(io::Error::other("it was replaced meanwhile; try again"))
        }
        _ => changed(error),
    }
}

/// A folder that is being emptied.
struct Level {
    /// What it is called in the one before it.
    name: Vec<u8>,
    file: File,
    folder: Folder,
    /// How often it was looked through.
    rounds: u32,
}

impl Level {
    fn open(above: &File, name: &[u8]) -> Result<Self, ChangeError> {
        let file = fileops::open_folder_at(above, OsStr::from_bytes(name)).map_err(replaced)?;
        let folder = file.try_clone().map_err(ChangeError::Io)?;
        Ok(Self { name: name.to_vec(), file, folder: Folder::new(folder.into()), rounds: 0 })
    }
}

struct Emptier<'a> {
    hidden: Vec<FolderId>,
    /// The only one that is entered.
    device: u64,
    levels: Vec<Level>,
    removed: &'a mut Removed,
}

impl Emptier<'_> {
    /// Empties the first level, and removes all others.
    fn run(&mut self) -> Result<(), ChangeError> {
        let mut buffer = Vec::with_capacity(WALK_READ);
        while let Some(level) = self.levels.last_mut() {
            match level.folder.next(&mut buffer) {
                Ok(Some(raw)) => self.take(&raw)?,
                Ok(None) | Err(Errno::NOENT) => self.leave()?,
                Err(error) => return Err(open_error(error).into()),
            }
        }
        Ok(())
    }

    /// Removes something in the last level, or goes into it.
    fn take(&mut self, raw: &Raw) -> Result<(), ChangeError> {
        let Some(here) = self.levels.last() else { return Ok(()) };
        let name = OsStr::from_bytes(&raw.name);
        let found = match statat(here.file.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(open_error(error).into()),
        };
        let is_folder = kind(&found) == FileType::Directory;
        if !is_folder && is_left_name(&raw.name) {
            return self.take_left(name);
        }
        if names::is_reserved(&raw.name) {
            return Err(HOLDS_HIDDEN.into());
        }
        if is_folder {
            return self.enter(&raw.name);
        }
        match fileops::remove_file_at(&here.file, name) {
            Ok(()) => self.removed.count(&found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(replaced(error)),
        }
        Ok(())
    }

    /// Removes what a receiver has left, unless one is at it.
    fn take_left(&mut self, name: &OsStr) -> Result<(), ChangeError> {
        let Some(here) = self.levels.last() else { return Ok(()) };
        // A file that is a moment old may be locked next.
        Left::since(Duration::ZERO, &|_| false).remove(&here.file, name);
        Ok(())
    }

    fn enter(&mut self, name: &[u8]) -> Result<(), ChangeError> {
        let Some(here) = self.levels.last() else { return Ok(()) };
        if self.levels.len() > REMOVE_DEPTH_MAX {
            return Err(OpenError::Refused("it lies too deep").into());
        }
        let level = Level::open(&here.file, name)?;
        self.begin(level)
    }

    /// Takes a folder that was opened as the next level, if it may be emptied.
    fn begin(&mut self, level: Level) -> Result<(), ChangeError> {
        let id = identity(&fstat(&level.file).map_err(open_error)?);
        if self.hidden.contains(&id) {
            return Err(HOLDS_HIDDEN.into());
        }
        if id.0 != self.device {
            return Err(OpenError::Refused("another file system is mounted in it").into());
        }
        self.levels.push(level);
        Ok(())
    }

    /// Removes the last level, which should be empty; the first one is left to who has opened it.
    fn leave(&mut self) -> Result<(), ChangeError> {
        let Some(mut left) = self.levels.pop() else { return Ok(()) };
        let Some(above) = self.levels.last() else { return Ok(()) };
        match fileops::remove_folder_at(&above.file, OsStr::from_bytes(&left.name)) {
            Ok(()) => self.removed.folders += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Something came meanwhile, or was passed over because entries were removed.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && left.rounds < REMOVE_ROUNDS => {
                left.rounds += 1;
                let again = left.file.try_clone().map_err(ChangeError::Io)?;
                rustix::fs::seek(&again, rustix::fs::SeekFrom::Start(0)).map_err(open_error)?;
                left.folder = Folder::new(again.into());
                self.levels.push(left);
            }
            Err(error) => return Err(replaced(error)),
        }
        Ok(())
    }
}
