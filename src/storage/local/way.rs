//! The way to a folder in which something is to be changed.
//!
//! It is walked as a file is opened, component by component with open folders, so nothing that others do to the tree
//! meanwhile leads it out of the root or into the server's own folders. What is missing is made in the open folder
//! where it is missing. Where it ends there is an open folder, and everything happens in that one.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, stat, statat};
use rustix::io::Errno;

use super::{FOLDER, LEADS_OUT, LocalDisk, Patience, Walk, identity, open, open_error};
use crate::fileops;
use crate::limits::{DEPTH_MAX, WAY_TRIES};
use crate::names::{self, FileName};
use crate::staged::{Chain, FolderId, StageError, folder_id};
use crate::storage::{ChangeError, OpenError};

/// What a folder may get that is needed and was not named.
pub(super) const IMPLIED_MODE: u32 = 0o777;

/// Where a way has led: an open folder.
pub(super) struct End {
    /// Opened so that it can be flushed.
    pub(super) folder: Arc<File>,
    /// The folders that were made on the way, or by others a moment ago.
    pub(super) made: Chain,
    /// Whether the last one was made now.
    pub(super) is_new: bool,
    /// The folders from the root to this one.
    passed: Vec<FolderId>,
}

impl End {
    /// What has a name here; it is not followed if it is a link.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Stat>, ChangeError> {
        match statat(&*self.folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(open_error(error).into()),
        }
    }

    /// Whether the way has led through this folder.
    pub(super) fn is_beneath(&self, folder: FolderId) -> bool {
        self.passed.contains(&folder)
    }

    /// Waits until everything that happened to names here is on the disk.
    pub(super) fn flush(&self) -> Result<(), ChangeError> {
        fileops::sync_open_folder(&self.folder).map_err(ChangeError::Io)?;
        self.made.flush().map_err(staging)
    }
}

impl LocalDisk {
    /// The way to the folder that holds a name.
    pub(super) fn way_above(&self, name: &FileName, make: bool) -> Result<End, ChangeError> {
        let count = name.components().count();
        let way = Walk::part_of(self, name, count - 1, Patience::Waits)?;
        let end = way.end_in_folder(make.then_some(IMPLIED_MODE))?;
        if self.is_own_name(&end.folder, name.base())? {
            return Err(OpenError::Refused("it is one of the server's own files").into());
        }
        Ok(end)
    }

    /// The way to a folder, which is made with `mode` if it is missing.
    pub(super) fn way_to(&self, name: &FileName, mode: u32) -> Result<End, ChangeError> {
        Walk::new(self, name, Patience::Waits)?.end_in_folder(Some(mode))
    }

    /// Whether a name in an open folder is that of one of the server's own folders, be it there or not.
    fn is_own_name(&self, folder: &File, name: &[u8]) -> Result<bool, OpenError> {
        let here = identity(&fstat(folder).map_err(open_error)?);
        Ok(self.hidden.iter().any(|hidden| {
            let above = hidden.parent().filter(|_| hidden.file_name() == Some(OsStr::from_bytes(name)));
            above.and_then(|above| stat(above).ok()).is_some_and(|above| identity(&above) == here)
        }))
    }

    /// Whether one of the server's own folders lies in this one, or is it.
    pub(super) fn holds_hidden(&self, folder: FolderId) -> Result<bool, OpenError> {
        for hidden in &self.hidden {
            let mut here = match open(rustix::fs::CWD, hidden.as_path(), FOLDER, Patience::Waits) {
                Ok(here) => here,
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => return Err(open_error(error)),
            };
            let mut id = identity(&fstat(&here).map_err(open_error)?);
            // Upwards, until the top, which is its own parent.
            loop {
                if id == folder {
                    return Ok(true);
                }
                here = open(&here, "..", FOLDER, Patience::Waits).map_err(open_error)?;
                let above = identity(&fstat(&here).map_err(open_error)?);
                if above == id {
                    break;
                }
                id = above;
            }
        }
        Ok(false)
    }

    /// What is shown of a name.
    pub(super) fn shown_path(&self, name: &FileName) -> PathBuf {
        match &self.pushed {
            Some(pushed) if name.is_pushed() => pushed.join(OsStr::from_bytes(name.base())),
            _ => self.root.join(OsStr::from_bytes(name.as_bytes())),
        }
    }
}

impl Walk<'_> {
    /// Walks to a folder; what is missing is made, the last one with `make` as its mode.
    fn end_in_folder(mut self, make: Option<u32>) -> Result<End, ChangeError> {
        let (mut made, mut is_new) = (Chain::default(), false);
        while let Some(component) = self.ahead.pop() {
            is_new = false;
            match component.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    self.folders.pop();
                    if self.folders.is_empty() {
                        return Err(LEADS_OUT.into());
                    }
                    continue;
                }
                reserved if names::is_reserved(reserved) => {
                    return Err(OpenError::Refused("it leads to the server's own files").into());
                }
                _ => {}
            }
            let mode = if self.ahead.is_empty() { make } else { make.map(|_| IMPLIED_MODE) };
            is_new = self.folder_step(&component, mode, &mut made)?;
        }
        let here = self.folders.last().ok_or(LEADS_OUT)?;
        let folder = fileops::open_folder_at(here, OsStr::new(".")).map_err(refused)?;
        let passed = self.folders.iter().map(|folder| fstat(folder).map(|found| identity(&found)));
        let passed = passed.collect::<Result<_, _>>().map_err(open_error)?;
        Ok(End { folder: Arc::new(folder), made, is_new, passed })
    }

    /// Enters a folder, or makes it first, or follows a link; whether it was made.
    fn folder_step(
        &mut self,
        component: &[u8],
        make: Option<u32>,
        made: &mut Chain,
    ) -> Result<bool, ChangeError> {
        let name = OsStr::from_bytes(component);
        for _ in 0..WAY_TRIES {
            let here = self.folders.last().ok_or(LEADS_OUT)?;
            match (open(here, name, FOLDER | OFlags::NOFOLLOW, Patience::Waits), make) {
                (Ok(folder), _) => {
                    let id = folder_id(&fstat(&folder).map_err(open_error)?);
                    let here = here.try_clone().map(File::from).map_err(ChangeError::Io)?;
                    let known = self.disk.new.find(id, &here).map_err(ChangeError::Io)?;
                    known.into_iter().for_each(|known| made.push(known));
                    self.enter(folder)?;
                    return Ok(false);
                }
                (Err(Errno::LOOP | Errno::NOTDIR), _) => {
                    return match self.follow(component) {
                        // It is no link either.
                        Err(OpenError::NotFound) if make.is_some() => Err(ChangeError::Exists),
                        followed => Ok(followed.map(|_| false)?),
                    };
                }
                (Err(Errno::NOENT), Some(mode)) => {
                    if self.folders.len() > DEPTH_MAX {
                        return Err(OpenError::Refused("it lies too deep").into());
                    }
                    if let Some(folder) = self.make(name, mode, made)? {
                        self.enter(folder)?;
                        return Ok(true);
                    }
                }
                (Err(error), _) => return Err(open_error(error).into()),
            }
        }
        Err(ChangeError::Io(io::Error::other("others make and remove its folder all the time")))
    }

    /// Makes a folder where the walk stands; `None` if somebody else was faster.
    fn make(&self, name: &OsStr, mode: u32, made: &mut Chain) -> Result<Option<OwnedFd>, ChangeError> {
        let here = self.folders.last().ok_or(LEADS_OUT)?;
        let above = Arc::new(File::from(here.try_clone().map_err(ChangeError::Io)?));
        let open = || {
            let folder = openat(above.as_fd(), name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
            let id = folder_id(&fstat(&folder)?);
            Ok((folder, id))
        };
        match self.disk.new.make(&above, name, mode, &self.disk.root, open) {
            Ok(Some((folder, new))) => {
                made.push(new);
                Ok(Some(folder))
            }
            // Gone again, or replaced.
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
                ) =>
            {
                Ok(None)
            }
            Ok(None) => Ok(None),
            Err(error) => Err(super::change::changed(error)),
        }
    }
}

/// The type of what was found.
pub(super) fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

/// The error of a step that the system refused.
fn refused(error: io::Error) -> ChangeError {
    match Errno::from_io_error(&error) {
        Some(errno) => open_error(errno).into(),
        None => ChangeError::Io(error),
    }
}

/// The error of what the staging area could not do.
pub(super) fn staging(error: StageError) -> ChangeError {
    match error {
        StageError::Io { source, .. } => ChangeError::Io(source),
        other => ChangeError::Io(io::Error::other(other.to_string())),
    }
}
