//! The small files of an existing folder that wait for their names.
//!
//! Each lies under a hidden name beside its target until a flush has brought all of them to the disk.
//! Then they are renamed one by one. A name that leads to a file of this run is not given twice.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;

use super::super::beside::{self, failed, shown};
use super::super::home::Home;
use super::super::{Replace, StageError};
use super::given::Given;
use super::look::{self, Found, Identity, named};
use super::parents::Parents;
use super::rest;
use crate::digest::Md5;
use crate::fileops;
use crate::limits::FOLDER_GROUP_MAX;
use crate::names::{FileName, STAGED_PREFIX};

/// The files that wait.
#[derive(Debug)]
pub(super) struct Group {
    /// How all hidden names of this target begin; of no other target whatsoever.
    prefix: String,
    made: AtomicU64,
    waiting: Mutex<Vec<Waiting>>,
}

/// A file that waits for its name.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) name: FileName,
    number: u64,
    replace: Replace,
    identity: Identity,
}

impl Group {
    /// For an existing folder.
    pub(super) fn of(target: &Home) -> Self {
        let [one, other] = target.marks();
        let target = [one.to_be_bytes(), other.to_be_bytes()].concat();
        let digest = Md5::of(&target).to_string();
        let prefix = format!("{STAGED_PREFIX}{}-", &digest[..16]);
        Self { prefix, made: AtomicU64::new(0), waiting: Mutex::default() }
    }

    /// Removes what a receiver of this target has left that was killed; whether all of it is gone.
    pub(super) fn remove_left(&self, top: &File) -> bool {
        rest::remove_hidden(top, &self.prefix)
    }

    /// Makes a file under a hidden name and lets it be filled.
    pub(super) fn stage(
        &self,
        name: &FileName,
        parents: &Parents,
        mode: u32,
        replace: Replace,
        fill: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<Waiting, StageError> {
        let (folder, base) = parents.of(name)?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let hidden = self.hidden(number);
        let created = match fileops::create_new_at(&folder, OsStr::new(&hidden), mode) {
            // Left by a receiver that was killed, and not found: nobody else has such names.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fileops::remove_file_at(&folder, OsStr::new(&hidden))
                    .and_then(|()| fileops::create_new_at(&folder, OsStr::new(&hidden), mode))
            }
            created => created,
        };
        let shown = || parents.path(name.as_bytes());
        let file = created.map_err(|error| failed("create", &shown())(error))?;
        match fill(&file).and_then(|()| look::at_open(&file)) {
            Ok(Found { identity, .. }) => {
                // An earlier run may have received it as a large one: this name is kept from now on, and
                // nobody would look for that any more.
                for ending in [beside::JOURNAL, beside::PART] {
                    let begun = beside::hidden_name(Path::new(base), ending);
                    let _ = fileops::remove_file_at(&folder, OsStr::new(&begun));
                }
                Ok(Waiting { name: name.clone(), number, replace, identity })
            }
            Err(error) => {
                let _ = fileops::remove_file_at(&folder, OsStr::new(&hidden));
                Err(failed("write", &shown())(error))
            }
        }
    }

    /// Lets a file wait; whether there are as many as there may be.
    pub(super) fn wait(&self, waiting: Waiting) -> bool {
        let mut all = self.waiting();
        all.push(waiting);
        all.len() >= FOLDER_GROUP_MAX
    }

    /// Takes those that wait.
    pub(super) fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut self.waiting())
    }

    /// Gives a file its name, unless the name leads to what it must not replace: then it is removed.
    pub(super) fn name(&self, waiting: &Waiting, parents: &Parents, given: &Given) -> Result<(), StageError> {
        let (folder, base) = parents.of(&waiting.name)?;
        let hidden = self.hidden(waiting.number);
        let placed = self.place(waiting, &folder, OsStr::new(&hidden), base, parents, given);
        placed.inspect_err(|_| drop(fileops::remove_file_at(&folder, OsStr::new(&hidden))))
    }

    fn place(
        &self,
        waiting: &Waiting,
        folder: &File,
        hidden: &OsStr,
        base: &OsStr,
        parents: &Parents,
        given: &Given,
    ) -> Result<(), StageError> {
        // From now on another name that leads to it is noticed.
        given.made(waiting.identity);
        let failed =
            |error| named("rename the received file to", &parents.path(waiting.name.as_bytes()))(error);
        match fileops::rename_at_to_new(folder, hidden, base) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            renamed => return renamed.map_err(failed),
        }
        if let Some(found) = look::at(folder, base).map_err(failed)? {
            may_replace(&found, &waiting.name, waiting.replace, parents, given)?;
        }
        fileops::rename_at(folder, hidden, base).map_err(failed)
    }

    /// Removes a file that is not to get its name.
    pub(super) fn remove(&self, waiting: &Waiting, parents: &Parents) {
        if let Ok(Some((folder, _))) = parents.find(&waiting.name) {
            let _ = fileops::remove_file_at(&folder, OsStr::new(&self.hidden(waiting.number)));
        }
    }

    fn hidden(&self, number: u64) -> String {
        format!("{}{number:x}.part", self.prefix)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what lies under a name may be replaced. It belongs to this name from then on.
pub(super) fn may_replace(
    found: &Found,
    name: &FileName,
    replace: Replace,
    parents: &Parents,
    given: &Given,
) -> Result<(), StageError> {
    let path = || shown(&parents.path(name.as_bytes()));
    if !matches!(found.kind, FileType::RegularFile | FileType::Symlink) {
        return Err(StageError::NotAFile(path()));
    }
    claim(found, name, parents, given)?;
    match replace {
        Replace::Always => Ok(()),
        Replace::Never => Err(StageError::Exists(path())),
    }
}

/// Takes what a name leads to for this name.
pub(super) fn claim(
    found: &Found,
    name: &FileName,
    parents: &Parents,
    given: &Given,
) -> Result<(), StageError> {
    let is_entry = |name: &FileName| {
        let found = parents.find(name).ok().flatten();
        found.is_some_and(|(folder, base)| look::has_entry(&folder, base).unwrap_or_default())
    };
    if given.claim(found, name, &is_entry) {
        return Ok(());
    }
    Err(StageError::Collides { path: shown(&parents.path(name.as_bytes())) })
}
