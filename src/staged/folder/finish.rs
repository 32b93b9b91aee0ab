//! How receiving a folder ends: as what it is to be, forgotten, or left for the next run.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::super::StageError;
use super::super::beside::{self, failed, shown};
use super::look::{self, named};
use super::note::NEVER;
use super::parents::cut;
use super::{Attributes, MODE, StagedFolder, UNKNOWN, WHILE_RECEIVING, lock, rest};
use crate::fileops;
use crate::names::FileName;

impl StagedFolder {
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
        if self.is_swept {
            self.lock.remove();
        }
        if self.sync && self.is_new() {
            beside::sync_folders(&self.target, &self.made)?;
        } else if self.sync {
            // Everything is on the disk; a lock that a power cut brings back would only lie about.
            fileops::sync_file(&self.top).map_err(failed("flush", &self.path))?;
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
    pub(super) fn finish_folders(&self) -> Result<Vec<(FileName, StageError)>, StageError> {
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

    /// Mode first, then the time, which says that all is done.
    pub(super) fn finish(&self, file: &File, attributes: &Attributes) -> io::Result<()> {
        attributes.set(file, self.mask)
    }
}

impl Attributes {
    /// Gives them to a file or folder, but for the permission bits that the mask takes away.
    pub(in super::super) fn set(&self, file: &File, mask: u32) -> io::Result<()> {
        let mode = self.mode & MODE & !mask;
        if look::at_open(file)?.mode & 0o7777 != mode {
            fileops::set_mode(file, mode)?;
        }
        if self.modified == UNKNOWN {
            return Ok(());
        }
        fileops::set_modified(file, self.modified)
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
            if self.is_swept {
                self.lock.remove();
            }
        } else if !received && rest::is_empty(&self.top).unwrap_or_default() {
            // What cannot be removed is taken over by the next receiver.
            let _ = rest::clear(&self.top);
            let _ = fileops::remove_folder(&self.path);
            self.lock.remove();
            fileops::remove_folders(&self.made);
        }
    }
}
