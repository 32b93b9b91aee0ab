//! A file that is received piece by piece, maybe by several clients one after the other.
//!
//! Blocks come in any order and from several threads: the bytes of a block are written first, then
//! its record is appended to the journal, so a kill costs the blocks that are under way. A sync point
//! flushes the part, then says so in the journal, then flushes that. What is found when a part is
//! opened again is believed as far as [`Home`] allows, and else read and hashed; whether it belongs to
//! what a server has now is for the caller to know. A flush that failed is never tried again: a
//! system may report it once and drop the bytes, so the part is given up.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::beside::{self, failed, folder_of, shown};
use super::home::Home;
use super::journal::{Entry, Header, Source, TOKEN_LEN};
use super::log::Log;
use super::place::Hidden;
use super::{Place, StageError, sparse};
use crate::fileops;
use crate::limits::BLOCKS_MAX;
use crate::tree::{BlockSet, HASH_LEN, block_count, block_span};

mod flushed;
mod found;

/// Bytes of a block as the system counts them for a file.
const ALLOCATION_UNIT: u64 = 512;

/// Told how many of how many bytes have been hashed; says whether to go on.
pub type Watch<'a> = dyn FnMut(u64, u64) -> ControlFlow<()> + 'a;

/// What a part holds already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What was being received.
    pub source: Source,
    /// The value of each block that is there, or the root if it is the only one.
    pub blocks: BTreeMap<u64, [u8; HASH_LEN]>,
}

impl Kept {
    /// The blocks that are there.
    #[must_use]
    pub fn has(&self) -> BlockSet {
        let mut set = BlockSet::default();
        for &index in self.blocks.keys() {
            // They are ascending.
            let _ = set.push(index..index + 1);
        }
        set
    }
}

/// A part file, locked, with its journal. Dropped without a commit, both stay if any block is
/// recorded; else they are removed, with the folders made for them.
#[derive(Debug)]
pub struct Part {
    file: File,
    staged: Hidden,
    journal: Hidden,
    place: Place,
    /// Stands for the present boot and mount in place of what the system says.
    since: Option<[u8; TOKEN_LEN]>,
    sync: bool,
    /// Whether pages of zeros become holes.
    sparse: bool,
    committed: bool,
    state: Mutex<State>,
    /// Held by a sync point. The system tells a failed flush to one of those who wait, so there is one.
    syncing: Mutex<()>,
    /// Held by who writes bytes. The system lets one at a time write to a file, and the others burn
    /// their processor's time meanwhile.
    writing: Mutex<()>,
}

/// What is known of the bytes of a part.
#[derive(Debug, Default)]
struct State {
    source: Option<Source>,
    blocks: BTreeMap<u64, Entry>,
    /// The journal, if it can be appended to as it is.
    log: Option<Log>,
    /// The blocks of so many records are on the disk.
    covered: u32,
    /// The last record of a block is before this one.
    recorded: u32,
    /// Whether bytes may be recorded.
    begun: bool,
    /// Whether a journal, of whatever kind, lies beside the part.
    has_journal: bool,
    /// Whether the names of part and journal are on the disk.
    named: bool,
    /// Whether a flush failed.
    distrusted: bool,
}

impl Part {
    /// Opens and locks the part of a target, or makes it, with missing folders. What its journal says
    /// is believed or checked, which may read all of the part; `watch` is told and may stop it. With
    /// `sync`, sync points and the commit flush; without, they do not. Blocks.
    ///
    /// # Errors
    /// [`StageError::Busy`] if another receiver is at it, [`StageError::Stopped`] if `watch` said so,
    /// and others; what was received is kept then.
    pub fn open(target: &Path, sync: bool, watch: &mut Watch<'_>) -> Result<Self, StageError> {
        Self::open_since(target, sync, None, watch)
    }

    /// As [`Self::open`], for a place that is there already.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_at(place: Place, sync: bool, watch: &mut Watch<'_>) -> Result<Self, StageError> {
        Self::open_in(place, sync, None, watch)
    }

    fn open_since(
        target: &Path,
        sync: bool,
        since: Option<[u8; TOKEN_LEN]>,
        watch: &mut Watch<'_>,
    ) -> Result<Self, StageError> {
        Self::open_in(Place::at(target)?, sync, since, watch)
    }

    fn open_in(
        place: Place,
        sync: bool,
        since: Option<[u8; TOKEN_LEN]>,
        watch: &mut Watch<'_>,
    ) -> Result<Self, StageError> {
        let (file, staged) = beside::open_staged(&place)?;
        let journal = place.hidden(beside::JOURNAL);
        let found = found::look(&file, &place, &journal, since, watch);
        let state = found.inspect_err(|_| {
            if file.metadata().is_ok_and(|found| found.len() == 0) {
                let _ = beside::remove(&place, &staged);
            }
        })?;
        let (state, syncing, writing) = (Mutex::new(state), Mutex::default(), Mutex::default());
        let (sparse, committed) = (false, false);
        Ok(Self { file, staged, journal, place, since, sync, sparse, committed, state, syncing, writing })
    }

    /// Says that pages of zeros become holes, so that no room is made for all of the file beforehand.
    /// Whatever lay there before, a block that is written is what was given.
    #[must_use]
    pub fn sparse(mut self, sparse: bool) -> Self {
        self.sparse = sparse;
        self
    }

    /// Whether an earlier receiver has left a part of this target.
    #[must_use]
    pub fn is_there(target: &Path) -> bool {
        let journal = folder_of(target).join(beside::hidden_name(target, beside::JOURNAL));
        journal.symlink_metadata().is_ok()
    }

    /// How many blocks are there.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.state().blocks.len() as u64
    }

    /// The file, for reading.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What is there of which source, as of now; `None` if no block is.
    #[must_use]
    pub fn kept(&self) -> Option<Kept> {
        let state = self.state();
        let source = state.source.clone().filter(|_| !state.blocks.is_empty())?;
        let blocks = state.blocks.iter().map(|(&index, entry)| (index, entry.hash)).collect();
        Some(Kept { source, blocks })
    }

    /// Forgets everything that is there.
    ///
    /// # Errors
    /// If the disk refuses. What is there is worth nothing then either, and goes when this is dropped.
    pub fn discard(&mut self) -> Result<(), StageError> {
        let State { has_journal, distrusted, .. } = *self.state();
        self.forget(has_journal).inspect_err(|_| self.state().distrusted = true)?;
        *self.state() = State { distrusted, ..State::default() };
        Ok(())
    }

    fn forget(&self, has_journal: bool) -> Result<(), StageError> {
        if has_journal {
            beside::forget_journal(&self.place, &self.journal)?;
        }
        fileops::truncate(&self.file).map_err(failed("write", self.place.path()))
    }

    /// Begins to receive `source`, or goes on with it. Of what is there the blocks `keep` stay, which
    /// the caller knows to be the same in `source`; the others are forgotten. Then makes room for
    /// the rest. The journal goes on as it is if it can, else another one takes its place.
    ///
    /// # Errors
    /// [`StageError::NoSpace`], and if the disk refuses.
    pub fn begin(&mut self, source: &Source, keep: &BlockSet) -> Result<(), StageError> {
        let source = source.clone();
        self.usable(&self.state())?;
        if block_count(source.size) > BLOCKS_MAX {
            return Err(failed("receive as many blocks as", self.place.path())(
                io::ErrorKind::FileTooLarge.into(),
            ));
        }
        let (blocks, goes_on) = self.staying(&source, keep);
        let found = self.file.metadata().map_err(failed("look at", &self.staged.path))?;
        if !self.sparse {
            let held: u64 = blocks.keys().map(|&index| span_len(source.size, index)).sum();
            let present = found.blocks().saturating_mul(ALLOCATION_UNIT).max(held);
            beside::check_room(&self.file, self.place.path(), source.size.saturating_sub(present))?;
        }

        if blocks.is_empty() {
            self.discard()?;
            self.state().source = Some(source.clone());
        } else if !goes_on {
            self.replace_journal(&source, &blocks)?;
        }
        if found.len() > source.size {
            self.set_length(source.size)?;
        }
        if !self.sparse {
            beside::reserve(&self.file, self.place.path(), source.size)?;
        }
        // A reservation makes it so long, but not every file system has them.
        self.set_length(source.size)?;
        self.state().begun = true;
        Ok(())
    }

    /// The blocks that stay in a part that is to become `source`, and whether the journal says all
    /// of that already.
    fn staying(&self, source: &Source, keep: &BlockSet) -> (BTreeMap<u64, Entry>, bool) {
        let state = self.state();
        let Some(old) = &state.source else { return (BTreeMap::new(), false) };
        // A hash is of certain bytes, and of a block alone or among others.
        let is_alike = |index| {
            block_span(old.size, index) == block_span(source.size, index)
                && (block_count(old.size) == 1) == (block_count(source.size) == 1)
        };
        let mut blocks = BTreeMap::new();
        for run in keep.runs() {
            let run = state.blocks.range(run.clone());
            blocks.extend(run.filter(|(index, _)| is_alike(**index)).map(|(&index, &entry)| (index, entry)));
        }
        let is_known = source.is_same(old) && (old.root.is_some() || source.root.is_none());
        let goes_on = state.log.is_some() && is_known && blocks.len() == state.blocks.len();
        (blocks, goes_on)
    }

    /// Puts a journal of `source` that holds `blocks` in the place of the one that is there.
    fn replace_journal(&self, source: &Source, blocks: &BTreeMap<u64, Entry>) -> Result<(), StageError> {
        let header = self.header(source)?;
        let new = self.place.hidden(beside::NEW_JOURNAL);
        let file = beside::empty_journal(&self.place, &new)?;
        let written = Log::begin_with(file, &header, blocks, self.state().covered);
        let written = written.inspect_err(|_| drop(beside::remove(&self.place, &new)));
        let (log, blocks, covered) = written.map_err(failed("write", &new.path))?;
        // The old one must not come back with a power cut, beside bytes that it does not mean: so
        // this is flushed even where nothing else is.
        let flushed = self.trusted(fileops::sync_data(&log.file()).map_err(failed("flush", &new.path)));
        flushed.inspect_err(|_| drop(beside::remove(&self.place, &new)))?;
        let renamed = fileops::rename_at(self.place.folder(), &new.name, &self.journal.name);
        let renamed = renamed.inspect_err(|_| drop(beside::remove(&self.place, &new)));
        renamed.map_err(failed("rename a journal to", &self.journal.path))?;
        self.trusted(self.place.sync())?;
        *self.state() = State {
            source: Some(source.clone()),
            recorded: log.records(),
            blocks,
            log: Some(log),
            covered,
            has_journal: true,
            named: true,
            ..State::default()
        };
        Ok(())
    }

    /// Writes all of `bytes` at a position. What was recorded must not be written to.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StageError> {
        let _alone = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_alone(bytes, offset)
    }

    /// As [`Self::write_at`], unless it would have to wait for another thread's writing: `false` then.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub fn write_at_now(&self, bytes: &[u8], offset: u64) -> Result<bool, StageError> {
        let _alone = match self.writing.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        self.write_alone(bytes, offset).map(|()| true)
    }

    fn write_alone(&self, bytes: &[u8], offset: u64) -> Result<(), StageError> {
        let write = if self.sparse { sparse::write_over } else { fileops::write_all_at };
        write(&self.file, bytes, offset).map_err(failed("write", self.place.path()))
    }

    /// Reads from a position what fits into `buffer`, or what is there; returns how many bytes.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, StageError> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(failed("read", &self.staged.path)),
            }
        }
    }

    /// Records that all bytes of a block were written: its value, or the root if it is the only one.
    ///
    /// # Errors
    /// If the disk refuses (then only this block is not recorded), after a failed flush, and for a
    /// block that the source has not.
    pub fn record(&self, index: u64, hash: [u8; HASH_LEN]) -> Result<(), StageError> {
        let mut state = self.state();
        self.usable(&state)?;
        let is_known = state.source.as_ref().is_some_and(|source| index < block_count(source.size));
        if !(state.begun && is_known) {
            return Err(failed("record a block of", self.place.path())(io::ErrorKind::InvalidInput.into()));
        }
        if state.blocks.get(&index).is_some_and(|known| known.hash == hash) {
            return Ok(());
        }
        let number = self.log(&mut state)?.append_block(index, hash);
        let number = number.map_err(failed("write", &self.journal.path))?;
        state.blocks.insert(index, Entry { hash, number });
        state.recorded = number + 1;
        Ok(())
    }

    /// The journal, which is made when there is something to be said.
    fn log<'a>(&self, state: &'a mut State) -> Result<&'a mut Log, StageError> {
        let log = match (state.log.take(), &state.source) {
            (Some(log), _) => log,
            (None, Some(source)) => {
                let header = self.header(source)?;
                let file = fileops::create_new_at(self.place.folder(), &self.journal.name, beside::NEW_FILE);
                let file = file.map_err(failed("create", &self.journal.path))?;
                state.has_journal = true;
                let begun = Log::begin(file, &header);
                begun
                    .inspect_err(|_| drop(beside::remove(&self.place, &self.journal)))
                    .map_err(failed("write", &self.journal.path))?
            }
            (None, None) => {
                return Err(failed("write", &self.journal.path)(io::ErrorKind::InvalidInput.into()));
            }
        };
        Ok(state.log.insert(log))
    }

    fn set_length(&self, size: u64) -> Result<(), StageError> {
        fileops::set_length(&self.file, size).map_err(failed("set the length of", &self.staged.path))
    }

    fn header(&self, source: &Source) -> Result<Header, StageError> {
        let home = Home::of(&self.file, self.since).map_err(failed("look at", &self.staged.path))?;
        let salt = fastrand::u128(..).to_be_bytes();
        Ok(Header { source: source.clone(), home, salt })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usable(&self, state: &State) -> Result<(), StageError> {
        if state.distrusted { Err(StageError::FlushFailed(shown(self.place.path()))) } else { Ok(()) }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let has_bytes = state.source.as_ref().is_some_and(|source| source.size > 0);
        if self.committed || (has_bytes && !state.blocks.is_empty() && !state.distrusted) {
            return;
        }
        // What cannot be removed now is hidden and worth nothing to the next receiver.
        if state.has_journal {
            let _ = beside::remove(&self.place, &self.journal);
        }
        let _ = beside::remove(&self.place, &self.staged);
    }
}

fn span_len(size: u64, index: u64) -> u64 {
    let span = block_span(size, index);
    span.end - span.start
}

#[cfg(test)]
#[path = "part/tests.rs"]
mod tests;
