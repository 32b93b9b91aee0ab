//! What was received is flushed, in between and in the end, and gets its name.

use std::io;
use std::sync::PoisonError;

use super::Part;
use crate::fileops;
use crate::staged::beside::{self, failed, folder_of};
use crate::staged::folder::{PROBE, mask_of};
use crate::staged::journal::Record;
use crate::staged::place::Place;
use crate::staged::{Attributes, Replace, StageError};

impl Part {
    /// Flushes what has been recorded and says so in the journal; does nothing if that is nothing new,
    /// or without `sync`. Others may write and record meanwhile. Blocks.
    ///
    /// # Errors
    /// If the disk refuses. After a failed flush nothing more can be recorded or committed.
    pub fn sync_point(&self) -> Result<(), StageError> {
        self.sync_point_by(|| fileops::sync_data(&self.file))
    }

    pub(super) fn sync_point_by(&self, flush: impl FnOnce() -> io::Result<()>) -> Result<(), StageError> {
        if !self.sync {
            return Ok(());
        }
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let (records, named) = {
            let state = self.state();
            self.usable(&state)?;
            match &state.log {
                Some(log) if state.recorded > state.covered => (log.records(), state.named),
                _ => return Ok(()),
            }
        };
        self.trusted(flush().map_err(failed("flush", self.place.path())))?;
        if !named {
            self.trusted(self.place.sync())?;
        }
        let journal = {
            let mut state = self.state();
            let log = self.log(&mut state)?;
            log.append(Record::Synced { covered: records }).map_err(failed("write", &self.journal.path))?;
            let journal = log.file();
            (state.covered, state.named) = (records, true);
            journal
        };
        self.trusted(fileops::sync_data(&journal).map_err(failed("flush", &self.journal.path)))
    }

    /// Gives the file its name and removes the journal; flushes the file first, and its folder after,
    /// with `sync`.
    ///
    /// # Errors
    /// If that fails the target is as it was, and what was received is kept, except after a failed
    /// flush. Only if flushing the folder fails does the target hold the new file already, though a
    /// power cut might undo that.
    pub fn commit(self, replace: Replace) -> Result<(), StageError> {
        self.usable(&self.state())?;
        beside::adopt_permissions(&self.file, &self.staged, &self.place)?;
        self.commit_as_it_is(replace)
    }

    /// As [`Self::commit`], for a file that is to have these attributes, whatever those of the one that it
    /// replaces. [`Attributes::sparse`] is not looked at here.
    ///
    /// # Errors
    /// As [`Self::commit`]. With [`Replace::Never`] what was received is kept, too: who is told that the name is
    /// taken may come back and replace it.
    pub fn commit_with(self, replace: Replace, attributes: &Attributes) -> Result<(), StageError> {
        self.usable(&self.state())?;
        beside::replaced_mode(&self.place)?;
        let path = self.staged.path.as_path();
        let mask = self.mask().map_err(failed("create a folder in", folder_of(path)))?;
        let set = attributes.set(&self.file, mask);
        set.map_err(failed("set mode and time of", path))?;
        self.commit_as_it_is(replace)
    }

    /// As [`Self::commit`], but the file gets its name in another place than the one that it was staged for. Both have to be
    /// on one file system.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn commit_at(mut self, place: Place, replace: Replace) -> Result<(), StageError> {
        self.usable(&self.state())?;
        beside::adopt_permissions(&self.file, &self.staged, &place)?;
        if self.sync {
            self.trusted(fileops::sync_file(&self.file).map_err(failed("flush", self.place.path())))?;
        }
        beside::move_to_target(&self.place, &self.staged, &place, replace)?;
        self.committed = true;
        place.keep();
        self.remove_own_journal();
        if self.sync {
            place.sync()?;
            self.place.sync()?;
        }
        Ok(())
    }

    /// Which permission bits the system takes from what is made beside the part.
    fn mask(&self) -> io::Result<u32> {
        mask_of(self.place.folder(), &self.place.hidden(PROBE).name)
    }

    fn commit_as_it_is(mut self, replace: Replace) -> Result<(), StageError> {
        if self.sync {
            self.trusted(fileops::sync_file(&self.file).map_err(failed("flush", self.place.path())))?;
        }
        beside::rename_to_target(&self.place, &self.staged, replace)?;
        self.committed = true;
        self.place.keep();
        self.remove_own_journal();
        if self.sync {
            self.place.sync()?;
        }
        Ok(())
    }

    /// Removes the journal after the part has gone. From then on the next receiver may be at work,
    /// so it is looked whose journal it is; one that stays is of a file that is no part any more.
    fn remove_own_journal(&self) {
        let state = self.state();
        let Some(log) = &state.log else { return };
        if beside::is_called(&log.file(), &self.place, &self.journal.name) {
            let _ = beside::remove(&self.place, &self.journal);
        }
    }

    /// Passes the outcome of a flush on; after a failed one the journal is worth nothing.
    pub(super) fn trusted(&self, flushed: Result<(), StageError>) -> Result<(), StageError> {
        flushed.inspect_err(|_| {
            self.state().distrusted = true;
            // If that fails too, the part is removed when it is dropped.
            if let Ok(Some(journal)) = beside::open_journal(&self.place, &self.journal) {
                let _ = fileops::truncate(&journal);
                let _ = fileops::sync_file(&journal);
            }
        })
    }
}
