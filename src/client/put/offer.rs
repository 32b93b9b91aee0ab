//! One version of a local file, open for as long as it is offered, and what is known of its blocks.
//!
//! All connections of an upload share it. A block is hashed when its value is asked for, once however many ask; when
//! all are known they make the tree, and with it the root. The file is compared with what it was after each block:
//! what changed is never told as the version that was offered. Everything here may block on the disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::UploadSource;
use crate::client::{Checksum, FetchError};
use crate::codec::v2;
use crate::digest::Digest;
use crate::limits::{BLOCKS_MAX, HASH_CHUNK, PUT_HASHING_PROBE};
use crate::storage::StoredFile;
use crate::text;
use crate::tree::{BLOCK_LEN, BlockHash, BlockHasher, Root, Tree, Value, block_count, block_span};

/// An open version of a local file.
#[derive(Debug)]
pub(in crate::client) struct Offer {
    file: StoredFile,
    /// What it is called, for people.
    shown: String,
    modified: (i64, u32),
    mode: u32,
    blocks: Mutex<Blocks>,
    /// A block that was being hashed no longer is.
    hashed: Condvar,
    #[cfg(test)]
    count: std::sync::atomic::AtomicU64,
}

#[derive(Debug)]
struct Blocks {
    tree: Option<Arc<Tree>>,
    /// By index; empty once there is a tree.
    values: Vec<Option<Value>>,
    /// How many of them are not known.
    missing: usize,
    /// All before this one are known.
    first_missing: usize,
    running: BTreeSet<u64>,
}

impl Offer {
    /// Opens what is offered.
    pub(in crate::client) fn open(source: &UploadSource) -> Result<Self, FetchError> {
        match source {
            UploadSource::File(path) => Self::open_path(path),
            UploadSource::Open { file, mode, modified } => {
                let shown = "standard input".to_owned();
                let own = file.try_clone();
                let own = own.map_err(|source| FetchError::Unreadable { path: shown.clone(), source })?;
                let offer = Self::new(own, shown)?;
                Ok(Self { modified: *modified, mode: *mode, ..offer })
            }
        }
    }

    /// Opens the regular file that has this path.
    pub(in crate::client) fn open_path(path: &Path) -> Result<Self, FetchError> {
        use rustix::fs::{Mode, OFlags, open};
        let shown = text::shown(path.as_os_str().as_bytes()).to_string();
        // A pipe that nobody writes to must not be waited for.
        let opened = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
        match opened {
            Ok(file) => Self::new(file.into(), shown),
            Err(error) => Err(FetchError::Unreadable { path: shown, source: error.into() }),
        }
    }

    fn new(file: File, shown: String) -> Result<Self, FetchError> {
        let file = match StoredFile::new(file) {
            Ok(Some(file)) => file,
            Ok(None) => return Err(FetchError::NotALocalFile { path: shown }),
            Err(source) => return Err(FetchError::Unreadable { path: shown, source }),
        };
        let (size, max) = (file.size(), BLOCKS_MAX.saturating_mul(BLOCK_LEN));
        if size > max {
            return Err(FetchError::TooLarge { path: shown, size, max });
        }
        let missing = usize::try_from(block_count(size)).unwrap_or(usize::MAX);
        let (values, running) = (Vec::new(), BTreeSet::new());
        let blocks = Blocks { tree: None, values, missing, first_missing: 0, running };
        let (modified, mode) = (file.modified(), file.mode());
        Ok(Self {
            file,
            shown,
            modified,
            mode,
            blocks: Mutex::new(blocks),
            hashed: Condvar::new(),
            #[cfg(test)]
            count: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// The open file.
    pub(in crate::client) fn file(&self) -> &StoredFile {
        &self.file
    }

    /// Its size in bytes.
    pub(in crate::client) fn size(&self) -> u64 {
        self.file.size()
    }

    /// What it is, as a peer is told.
    pub(in crate::client) fn described(&self) -> v2::File {
        let root = self.tree().map(|tree| tree.root());
        let token = self.file.identity().token();
        v2::File { size: self.size(), modified: self.modified, mode: self.mode, token, root }
    }

    /// The tree, if it is known by now.
    pub(in crate::client) fn tree(&self) -> Option<Arc<Tree>> {
        self.blocks().tree.clone()
    }

    /// Whether its bytes are still those that it was opened with. A file that cannot be asked has changed.
    pub(in crate::client) fn is_unchanged(&self) -> bool {
        self.file.is_unchanged().unwrap_or(false)
    }

    /// What it means that it is not what it was.
    pub(in crate::client) fn changed(&self) -> FetchError {
        FetchError::LocalChanged { path: self.shown.clone() }
    }

    /// What it means that it cannot be read.
    pub(in crate::client) fn unreadable(&self, source: io::Error) -> FetchError {
        FetchError::Unreadable { path: self.shown.clone(), source }
    }

    /// Reads all of it, which has to be small, and makes its tree.
    pub(in crate::client) fn read_whole(&self) -> Result<(Vec<u8>, Root), FetchError> {
        let mut bytes = vec![0; usize::try_from(self.size()).unwrap_or(usize::MAX)];
        let mut done = 0;
        while done < bytes.len() {
            let read = self.file.read_at(&mut bytes[done..], done as u64);
            match read.map_err(|error| self.unreadable(error))? {
                0 => return Err(self.changed()),
                count => done += count,
            }
        }
        if !self.is_unchanged() {
            return Err(self.changed());
        }
        let root = Root::of(&bytes);
        Ok((bytes, root))
    }

    /// The value of a block of several, hashed now unless it is known. Waits for whoever hashes it already.
    pub(in crate::client) fn value(&self, index: u64) -> Result<Value, FetchError> {
        loop {
            if let Some(value) = self.learn(index)? {
                return Ok(value);
            }
        }
    }

    /// Hashes one more block of which the value is not known; the tree when there is none left.
    pub(in crate::client) fn grow(&self) -> Result<Option<Arc<Tree>>, FetchError> {
        let missing = {
            let mut blocks = self.blocks();
            if let Some(tree) = &blocks.tree {
                return Ok(Some(Arc::clone(tree)));
            }
            blocks.prepare(self.size());
            match blocks.next_missing() {
                Some(index) => index,
                // The last ones are being hashed elsewhere.
                None => {
                    drop(self.hashed.wait_timeout(blocks, PUT_HASHING_PROBE));
                    return Ok(self.tree());
                }
            }
        };
        self.learn(missing)?;
        Ok(self.tree())
    }

    /// All of its tree.
    pub(in crate::client) fn complete(&self) -> Result<Arc<Tree>, FetchError> {
        loop {
            if let Some(tree) = self.grow()? {
                return Ok(tree);
            }
        }
    }

    /// How many blocks were hashed so far.
    #[cfg(test)]
    pub(super) fn hashed(&self) -> u64 {
        self.count.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a block, hashed now unless it is known; `None` if somebody else hashed it meanwhile, or it is
    /// the only one.
    fn learn(&self, index: u64) -> Result<Option<Value>, FetchError> {
        let mut blocks = self.blocks();
        if let Some(value) = blocks.known(index) {
            return Ok(Some(value));
        }
        blocks.prepare(self.size());
        if !blocks.running.insert(index) {
            drop(self.hashed.wait_timeout(blocks, PUT_HASHING_PROBE));
            return Ok(None);
        }
        drop(blocks);
        let hash = self.hash(index);
        let mut blocks = self.blocks();
        blocks.running.remove(&index);
        let value = hash.map(|hash| match hash {
            BlockHash::Sole(root) => {
                blocks.tree = Some(Arc::new(Tree::sole(root)));
                None
            }
            BlockHash::Among(value) => {
                blocks.note(index, value);
                Some(value)
            }
        });
        drop(blocks);
        self.hashed.notify_all();
        value
    }

    /// Reads and hashes a block of a file that is still what it was when it was opened.
    fn hash(&self, index: u64) -> Result<BlockHash, FetchError> {
        #[cfg(test)]
        self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let span = block_span(self.size(), index);
        let mut hasher = BlockHasher::new(self.size(), index);
        let mut buffer = vec![0; HASH_CHUNK];
        let mut offset = span.start;
        while offset < span.end {
            let left = usize::try_from(span.end - offset).unwrap_or(HASH_CHUNK).min(buffer.len());
            let read = self.file.read_at(&mut buffer[..left], offset);
            match read.map_err(|error| self.unreadable(error))? {
                0 => return Err(self.changed()),
                count => {
                    hasher.update(&buffer[..count]);
                    offset += count as u64;
                }
            }
        }
        if self.is_unchanged() { Ok(hasher.finish()) } else { Err(self.changed()) }
    }

    /// Compares it with what the user knows of it: all of it is read, unless that is its root and known.
    pub(in crate::client) fn check(&self, checksum: &Checksum) -> Result<(), FetchError> {
        let checked = match checksum {
            Checksum::Blake3(_) => checksum.compare(Digest::Blake3(self.complete()?.root())),
            _ => checksum.check_bytes(|buffer, offset| self.file.read_at(buffer, offset)),
        };
        match checked {
            Err(FetchError::OtherFile { algorithm, wanted, found }) => {
                let path = self.shown.clone();
                Err(FetchError::OtherSource { path, algorithm, wanted, found })
            }
            Err(FetchError::Output { source, .. }) => Err(self.unreadable(source)),
            Ok(()) if !self.is_unchanged() => Err(self.changed()),
            checked => checked,
        }
    }
}

impl Blocks {
    fn prepare(&mut self, size: u64) {
        if self.values.is_empty() && self.tree.is_none() {
            self.values = vec![None; usize::try_from(block_count(size)).unwrap_or(usize::MAX)];
        }
    }

    fn known(&self, index: u64) -> Option<Value> {
        let index = usize::try_from(index).ok()?;
        match &self.tree {
            Some(tree) => tree.values().get(index).copied(),
            None => self.values.get(index).copied().flatten(),
        }
    }

    /// Notes a value; makes the tree if it was the last one.
    fn note(&mut self, index: u64, value: Value) {
        let place = usize::try_from(index).ok().and_then(|index| self.values.get_mut(index));
        if let Some(place) = place
            && place.replace(value).is_none()
        {
            self.missing -= 1;
        }
        if self.missing == 0 {
            let values = self.values.drain(..).flatten().collect();
            self.tree = Tree::over(values).map(Arc::new);
        }
    }

    /// A block that nobody hashes yet.
    fn next_missing(&mut self) -> Option<u64> {
        while self.values.get(self.first_missing).is_some_and(Option::is_some) {
            self.first_missing += 1;
        }
        let rest = self.values.iter().enumerate().skip(self.first_missing);
        let unknown = rest.filter(|(_, value)| value.is_none());
        let mut indices = unknown.filter_map(|(index, _)| u64::try_from(index).ok());
        indices.find(|index| !self.running.contains(index))
    }
}
