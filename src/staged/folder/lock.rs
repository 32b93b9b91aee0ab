//! The lock of a folder that is being received, which also holds the note about it.
//!
//! Who has locked the file is the only receiver. The file lies on the same file system as what is
//! received, so it also tells what that makes of a time, and what time it is there. It is removed when
//! nothing is left to be gone on with; one that is found tells that an earlier run did not end well.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::fs::CWD;

use super::super::StageError;
use super::super::beside::{self, failed};
use super::super::home::Home;
use super::super::place::Hidden;
use super::note::{Moment, NEVER, NOTE_LEN, Note, SLOTS};
use crate::fileops;

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    /// Whether somebody left it.
    was_there: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The last note that was read or written.
    note: Option<Note>,
    /// What the clock of this machine said when the clock of the note was read.
    read: Option<SystemTime>,
}

impl Lock {
    /// Takes the lock under this name.
    pub(super) fn take(path: PathBuf, target: &Path) -> Result<Self, StageError> {
        let was_there = path.symlink_metadata().is_ok();
        let hidden = Hidden { name: path.clone().into(), path };
        let file = beside::open_locked(CWD, &hidden, target)?;
        let path = hidden.path;
        let notes = SLOTS.iter().filter_map(|&slot| {
            let mut bytes = [0; NOTE_LEN];
            file.read_exact_at(&mut bytes, slot).ok().and_then(|()| Note::decode(&bytes))
        });
        let note = notes.max_by_key(|note| note.number);
        Ok(Self { file, path, was_there, state: Mutex::new(State { note, read: None }) })
    }

    /// Whether an earlier receiver has left it, because it was killed or the power was cut. Its note may
    /// be lost then.
    pub(super) fn was_there(&self) -> bool {
        self.was_there
    }

    /// What an earlier receiver has noted last, or this one.
    pub(super) fn note(&self) -> Option<Note> {
        self.state().note
    }

    /// Writes a note in the place of the older one; it is on the disk when this returns if `flush` says so.
    pub(super) fn write(&self, home: Home, clock: Moment, flush: bool) -> Result<(), StageError> {
        let mut state = self.state();
        let number = state.note.map_or(0, |note| note.number.saturating_add(1));
        let note = Note { number, home, clock };
        let slot = SLOTS[number as usize % SLOTS.len()];
        fileops::write_all_at(&self.file, &note.encode(), slot).map_err(failed("write", &self.path))?;
        state.note = Some(note);
        if clock == NEVER {
            state.read = None;
        }
        if flush {
            fileops::sync_data(&self.file).map_err(failed("flush", &self.path))?;
        }
        Ok(())
    }

    /// Forgets all notes for ever: a power cut must not bring them back beside other files.
    pub(super) fn forget(&self) -> Result<(), StageError> {
        let mut state = self.state();
        fileops::truncate(&self.file).map_err(failed("write", &self.path))?;
        fileops::sync_file(&self.file).map_err(failed("flush", &self.path))?;
        *state = State { note: None, read: None };
        Ok(())
    }

    /// What time it is on this file system. What is changed from now on gets no earlier one.
    pub(super) fn clock(&self) -> Result<Moment, StageError> {
        let mut state = self.state();
        state.read = Some(SystemTime::now());
        self.ask((0, 0)).map(|(_, clock)| clock).map_err(failed("set the time of", &self.path))
    }

    /// Whether the machine's clock shows an earlier time than when that of the note was read. Then what
    /// is written now would look as if it had been on the disk before.
    pub(super) fn clock_went_back(&self) -> bool {
        self.state().read.is_some_and(|read| SystemTime::now() < read)
    }

    /// What this file system makes of a time of modification.
    pub(super) fn kept_as(&self, modified: Moment) -> io::Result<Moment> {
        let _alone = self.state();
        self.ask(modified).map(|(kept, _)| kept)
    }

    /// Gives the lock file a time; returns what became of it, and when that was.
    fn ask(&self, modified: Moment) -> io::Result<(Moment, Moment)> {
        fileops::set_modified(&self.file, modified)?;
        let found = self.file.metadata()?;
        let nanoseconds = |value: i64| u32::try_from(value).unwrap_or_default();
        Ok((
            (found.mtime(), nanoseconds(found.mtime_nsec())),
            (found.ctime(), nanoseconds(found.ctime_nsec())),
        ))
    }

    /// Removes the file; the lock is given up when this is dropped.
    pub(super) fn remove(&self) {
        // One that stays says of nothing that it is there.
        if fileops::remove_file(&self.path).is_err() {
            let _ = self.forget();
        }
    }

    /// What was changed before this moment is on the disk.
    pub(super) fn last_clock(&self) -> Moment {
        self.note().map_or(NEVER, |note| note.clock)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
