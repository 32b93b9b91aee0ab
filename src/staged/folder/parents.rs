//! The folders of a folder that is being received, each opened beneath the one above it.
//!
//! A component is opened relative to the open folder above and never through a symbolic link, so no
//! name leads out of the folder that was opened first, whatever others do meanwhile to the tree. Each
//! folder is looked at when it is opened: two names that lead to one folder are told. The last few
//! folders are kept open, because thousands of files often lie in one.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::super::StageError;
use super::super::beside::{failed, shown};
use super::look::{self, Identity, named};
use crate::fileops;
use crate::limits::FOLDERS_OPEN_MAX;
use crate::names::FileName;

/// What a folder may get that is needed and was not named.
const IMPLIED_MODE: u32 = 0o777;

/// An open folder and all beneath it.
#[derive(Debug)]
pub(super) struct Parents {
    top: Arc<File>,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The folders that are open, the last used ones first.
    open: VecDeque<(Box<[u8]>, Arc<File>)>,
    /// The name under which each folder was opened.
    names: HashMap<Identity, Box<[u8]>>,
    /// The folders that were made.
    made: BTreeSet<Box<[u8]>>,
}

impl Parents {
    /// Everything beneath an open folder, which lies at `path`.
    pub(super) fn new(top: Arc<File>, path: &Path) -> Self {
        Self { top, path: path.to_owned(), state: Mutex::default() }
    }

    /// Where a name leads, to show it and to open it by others.
    pub(super) fn path(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }

    /// The folder that holds a name, made if it is missing, and the last component.
    pub(super) fn of<'a>(&self, name: &'a FileName) -> Result<(Arc<File>, &'a OsStr), StageError> {
        let (parent, base) = cut(name.as_bytes());
        Ok((self.open(&mut self.state(), parent, Some(IMPLIED_MODE))?, base))
    }

    /// The folder that holds a name, if it is there, and the last component.
    pub(super) fn find<'a>(&self, name: &'a FileName) -> Result<Option<(Arc<File>, &'a OsStr)>, StageError> {
        let (parent, base) = cut(name.as_bytes());
        match self.open(&mut self.state(), parent, None) {
            Ok(parent) => Ok(Some((parent, base))),
            Err(StageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A folder, which is made with `mode` if it is missing; and whether it was made by this receiver.
    pub(super) fn folder(&self, name: &FileName, mode: u32) -> Result<(Arc<File>, bool), StageError> {
        let mut state = self.state();
        let (parent, _) = cut(name.as_bytes());
        self.open(&mut state, parent, Some(IMPLIED_MODE))?;
        let folder = self.open(&mut state, name.as_bytes(), Some(mode))?;
        Ok((folder, state.made.contains(name.as_bytes())))
    }

    /// Removes the folders that were made, as far as they are empty.
    pub(super) fn remove_made(&self) {
        let state = &mut *self.state();
        // What lies in a folder comes behind it in the order of bytes.
        for name in std::mem::take(&mut state.made).into_iter().rev() {
            let (parent, base) = cut(&name);
            if let Ok(parent) = self.open(state, parent, None) {
                let _ = fileops::remove_folder_at(&parent, base);
            }
        }
        *state = State::default();
    }

    /// Forgets what is open, because it is no more.
    pub(super) fn forget(&self) {
        *self.state() = State::default();
    }

    fn open(&self, state: &mut State, name: &[u8], make: Option<u32>) -> Result<Arc<File>, StageError> {
        if name.is_empty() {
            return Ok(Arc::clone(&self.top));
        }
        if let Some(at) = state.open.iter().position(|(open, _)| **open == *name) {
            if at > 0
                && let Some(found) = state.open.remove(at)
            {
                state.open.push_front(found);
            }
            return Ok(Arc::clone(&state.open[0].1));
        }
        let (parent, base) = cut(name);
        let above = self.open(state, parent, make.map(|_| IMPLIED_MODE))?;
        let folder = match open_at(&above, base) {
            Err(Errno::NOENT) if make.is_some() => {
                self.make(state, &above, name, make.unwrap_or(IMPLIED_MODE))?;
                open_at(&above, base)
            }
            opened => opened,
        };
        let folder = folder.map_err(|error| self.error(name, error))?;
        let found = look::at_open(&folder).map_err(failed("look at", &self.path(name)))?;
        if state.names.entry(found.identity).or_insert_with(|| name.into()).as_ref() != name {
            return Err(StageError::Collides { path: shown(&self.path(name)) });
        }
        state.open.truncate(FOLDERS_OPEN_MAX - 1);
        state.open.push_front((name.into(), Arc::clone(&folder)));
        Ok(folder)
    }

    fn make(&self, state: &mut State, above: &File, name: &[u8], mode: u32) -> Result<(), StageError> {
        let (_, base) = cut(name);
        match fileops::create_folder_at(above, base, mode) {
            Ok(()) => {
                state.made.insert(name.into());
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(named("create the folder", &self.path(name))(error)),
        }
    }

    fn error(&self, name: &[u8], error: Errno) -> StageError {
        match error {
            Errno::NOTDIR | Errno::LOOP | Errno::MLINK => StageError::NotAFolder(shown(&self.path(name))),
            error => named("open the folder", &self.path(name))(error.into()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a folder that lies in an open one; never through a symbolic link.
pub(super) fn open_at(above: &File, base: &OsStr) -> Result<Arc<File>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    openat(above, base, flags, Mode::empty()).map(|folder| Arc::new(folder.into()))
}

/// The name of the folder, empty for the top, and the last component.
pub(super) fn cut(name: &[u8]) -> (&[u8], &OsStr) {
    match name.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&name[..at], OsStr::from_bytes(&name[at + 1..])),
        None => (b"", OsStr::from_bytes(name)),
    }
}
