//! A file that is received from its beginning to its end in one go.
//!
//! Version 1 and single streams use it. Nothing of it is kept if it is not committed; what a killed
//! receiver left behind is taken over by the next one.

use std::fs::File;
use std::path::Path;

use super::beside::{self, failed};
use super::place::Hidden;
use super::{Place, Replace, StageError};
use crate::fileops;

/// A file in the making. Dropped without a commit, it is removed, with the folders made for it.
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    staged: Hidden,
    place: Place,
    committed: bool,
}

impl StagedFile {
    /// Stages a file that will become `target`, with room for `size` bytes. Missing folders are made.
    ///
    /// # Errors
    /// [`StageError`]; nothing is left behind then.
    pub fn create(target: &Path, size: u64) -> Result<Self, StageError> {
        Self::create_at(Place::at(target)?, size)
    }

    /// As [`Self::create`], for a place that is there already.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_at(place: Place, size: u64) -> Result<Self, StageError> {
        let (file, name) = beside::open_staged(&place)?;
        let staged = Self { file, staged: name, place, committed: false };
        let place = &staged.place;
        // A journal that lies here is of other bytes than those that are written now.
        let journal = place.hidden(beside::JOURNAL);
        beside::forget_journal(place, &journal).inspect_err(|error| {
            // The part goes, and what its journal says with it, unless that is somebody else's.
            if matches!(error, StageError::Io { .. }) {
                let _ = beside::remove(place, &journal);
            }
        })?;
        fileops::truncate(&staged.file).map_err(failed("write", &staged.staged.path))?;
        beside::make_room(&staged.file, place.path(), size)?;
        Ok(staged)
    }

    /// The file, for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes all of `bytes` at a position.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), StageError> {
        fileops::write_all_at(&self.file, bytes, offset).map_err(failed("write", self.place.path()))
    }

    /// Gives the file its name; flushes it first, and its folder after, if `sync` says so.
    ///
    /// # Errors
    /// If that fails the target is as it was. A failed flush is final: what is on the disk then is
    /// unknown, so the staged file is removed. Only if flushing the folder fails does the target
    /// hold the new file already, though a power cut might undo that.
    pub fn commit(mut self, replace: Replace, sync: bool) -> Result<(), StageError> {
        beside::adopt_permissions(&self.file, &self.staged, &self.place)?;
        if sync {
            fileops::sync_file(&self.file).map_err(failed("flush", self.place.path()))?;
        }
        beside::rename_to_target(&self.place, &self.staged, replace)?;
        self.committed = true;
        self.place.keep();
        if sync {
            self.place.sync()?;
        }
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.committed {
            // It is hidden and will be taken over by the next receiver, if it cannot be removed now.
            let _ = beside::remove(&self.place, &self.staged);
        }
    }
}

#[cfg(test)]
#[path = "file/tests.rs"]
mod tests;
