//! The values of the blocks of one version, as they become known, and the tree that they grow into.
//!
//! A block is hashed when somebody asks for its value, once however many ask, and not at all if none
//! of them waits any more when its turn comes. Whoever hashed the last one makes the tree before
//! the value is told, so whoever has seen all values finds the tree. Nothing here blocks an async
//! thread: files are read and trees are made on blocking ones.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::limits::HASH_CHUNK;
use crate::storage::{FileTime, StoredFile};
use crate::tree::{BlockHash, BlockHasher, HASH_LEN, Tree, Value, block_count, block_span};

use super::super::digests::{HashError, now};
use super::super::lock;
use super::{Version, may_be_remembered};

/// Stands for a value that is not known: no block that anybody will ever see has it.
const UNKNOWN: [u8; HASH_LEN] = [0; HASH_LEN];

type Outcome = Option<Result<Value, HashError>>;

/// What is known of the blocks of a version.
pub(super) struct Blocks {
    tree: Option<Arc<Tree>>,
    /// By index; empty until the first is asked for, and again when there is a tree.
    values: Vec<[u8; HASH_LEN]>,
    /// How many of them are not known.
    missing: usize,
    /// When the first was asked for.
    began: FileTime,
    /// Those that are being hashed, with all who wait for them.
    running: HashMap<u64, Arc<watch::Sender<Outcome>>>,
}

impl Blocks {
    pub(super) fn new(tree: Option<Arc<Tree>>) -> Self {
        Self { tree, values: Vec::new(), missing: 0, began: (0, 0), running: HashMap::new() }
    }

    pub(super) fn tree(&self) -> Option<Arc<Tree>> {
        self.tree.clone()
    }

    fn prepare(&mut self, count: u64) -> Result<(), HashError> {
        if self.values.is_empty() {
            let count = usize::try_from(count).map_err(|_| HashError::Stopped)?;
            // Zeroed memory costs nothing until it is written to.
            self.values = vec![UNKNOWN; count];
            self.missing = count;
            self.began = now();
        }
        Ok(())
    }

    fn known(&self, index: u64) -> Option<Value> {
        let index = usize::try_from(index).ok()?;
        match &self.tree {
            Some(tree) => tree.values().get(index).copied(),
            None => self.values.get(index).filter(|value| **value != UNKNOWN).copied().map(Value::from_bytes),
        }
    }

    /// Notes a value; all of them, and when the first was asked for, if it was the last one.
    fn note(&mut self, index: u64, value: Value) -> Option<(Vec<Value>, FileTime)> {
        let place = usize::try_from(index).ok().and_then(|index| self.values.get_mut(index))?;
        if *place == UNKNOWN {
            *place = *value.as_bytes();
            self.missing -= 1;
        }
        let all = || self.values.iter().copied().map(Value::from_bytes).collect();
        (self.missing == 0).then(|| (all(), self.began))
    }

    fn grown(&mut self, tree: Arc<Tree>) {
        self.tree = Some(tree);
        self.values = Vec::new();
    }

    /// A block whose value is not known, from `from` on if there is one; if all are known, one that is
    /// still running.
    fn next_missing(&self, from: u64) -> Option<u64> {
        let start = usize::try_from(from).unwrap_or(usize::MAX).min(self.values.len());
        let first_in = |values: &[[u8; HASH_LEN]]| values.iter().position(|value| *value == UNKNOWN);
        let behind = first_in(&self.values[start..]).map(|ahead| start + ahead);
        let place = behind.or_else(|| first_in(&self.values[..start]));
        place.map(|index| index as u64).or_else(|| self.running.keys().next().copied())
    }
}

/// A value that is there, or that is being waited for.
enum Asked {
    Known(Value),
    Running(watch::Receiver<Outcome>),
}

impl Version {
    /// The value of a block of a file of several: known already, or hashed now.
    pub(crate) async fn value(self: &Arc<Self>, index: u64) -> Result<Value, HashError> {
        match self.ask(index)? {
            Asked::Known(value) => Ok(value),
            Asked::Running(mut outcome) => {
                let told = outcome.wait_for(Option::is_some).await.map_err(|_| HashError::Stopped)?;
                told.clone().unwrap_or(Err(HashError::Stopped))
            }
        }
    }

    /// The tree, for which what is missing is hashed, block by block: as nothing of it is done for
    /// anybody else, it is given up when this is dropped, and others go on from there.
    pub(crate) async fn complete(self: &Arc<Self>) -> Result<Arc<Tree>, HashError> {
        let mut next = 0;
        loop {
            let missing = {
                let mut blocks = lock(&self.blocks);
                if let Some(tree) = blocks.tree() {
                    return Ok(tree);
                }
                blocks.prepare(block_count(self.size()))?;
                blocks.next_missing(next)
            };
            let Some(index) = missing else { return Err(HashError::Stopped) };
            self.value(index).await?;
            next = index + 1;
        }
    }

    fn ask(self: &Arc<Self>, index: u64) -> Result<Asked, HashError> {
        let count = block_count(self.size());
        if count == 1 || index >= count {
            return Err(HashError::NoValue(index));
        }
        let mut blocks = lock(&self.blocks);
        // The last one is known but running while the tree is made.
        if let Some(teller) = blocks.running.get(&index) {
            return Ok(Asked::Running(teller.subscribe()));
        }
        if let Some(value) = blocks.known(index) {
            return Ok(Asked::Known(value));
        }
        blocks.prepare(count)?;
        let (teller, outcome) = watch::channel(None);
        let teller = Arc::new(teller);
        blocks.running.insert(index, Arc::clone(&teller));
        tokio::spawn(hash_in_turn(Arc::clone(self), index, teller));
        Ok(Asked::Running(outcome))
    }

    /// Takes a block out of the running ones if nobody waits for it.
    fn is_unwanted(&self, index: u64, teller: &watch::Sender<Outcome>) -> bool {
        let mut blocks = lock(&self.blocks);
        // Nobody can begin to wait meanwhile: that takes the same lock.
        let unwanted = teller.is_closed();
        if unwanted {
            blocks.running.remove(&index);
        }
        unwanted
    }

    /// Hashes a block and notes its value; makes the tree if it was the last one. May block.
    fn hash_one(&self, index: u64) -> Result<Value, HashError> {
        let BlockHash::Among(value) = self.shared.hash_block(&self.file, index)? else {
            return Err(HashError::NoValue(index));
        };
        let all = lock(&self.blocks).note(index, value);
        let Some((values, began)) = all else { return Ok(value) };
        let Some(tree) = Tree::over(values).map(Arc::new) else { return Ok(value) };
        if may_be_remembered(&self.file, began) {
            self.shared.remember(self.file.identity(), &tree);
        }
        lock(&self.blocks).grown(tree);
        Ok(value)
    }
}

async fn hash_in_turn(version: Arc<Version>, index: u64, teller: Arc<watch::Sender<Outcome>>) {
    let turn = Arc::clone(&version.shared.turns).acquire_owned().await;
    if version.is_unwanted(index, &teller) {
        return;
    }
    let outcome = {
        let version = Arc::clone(&version);
        // The turn is held until the thread is done, whatever becomes of this task.
        let hashing = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            version.hash_one(index)
        });
        hashing.await.unwrap_or(Err(HashError::Stopped))
    };
    lock(&version.blocks).running.remove(&index);
    // Whoever is told finds nothing of this still open.
    drop(version);
    teller.send_replace(Some(outcome));
}

/// Reads and hashes a block of a file that is still what it was when it was opened.
pub(super) fn hash(file: &StoredFile, index: u64, buffer: &mut [u8]) -> Result<BlockHash, HashError> {
    let failed = |error| HashError::Io(Arc::new(error));
    let span = block_span(file.size(), index);
    let mut hasher = BlockHasher::new(file.size(), index);
    let mut offset = span.start;
    while offset < span.end {
        let left = usize::try_from(span.end - offset).unwrap_or(HASH_CHUNK).min(buffer.len());
        match file.read_at(&mut buffer[..left], offset).map_err(failed)? {
            0 => return Err(HashError::Changed),
            count => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
        }
    }
    if !file.is_unchanged().map_err(failed)? {
        return Err(HashError::Changed);
    }
    Ok(hasher.finish())
}
