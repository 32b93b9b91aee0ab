//! Open versions of files, as version 2 serves them.
//!
//! A name is opened to a [`Version`]: an open file, told apart from what the name meant before and
//! will mean later by a [`Token`]. Whoever asks for the same version while somebody has it open gets
//! the very same one, also after the name was given to another file; so all share the values of
//! its blocks ([`blocks`]), each hashed once. A whole tree is remembered, in memory and in the
//! catalog, under the rules of [`super::digests`]; and a version that was opened before its file had
//! been quiet for as long is shared only with those who ask for it by its token, as its name may
//! have come to mean other bytes without a trace. Who may open what is the store's business.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::catalog::Catalog;
use crate::limits::{BLOCKS_HASHING_MAX, BLOCKS_MAX, HASH_CHUNK, SMALL_FILE_MAX, TREES_BYTES_MAX, TREES_MAX};
use crate::names::FileName;
use crate::storage::{FileTime, IDENTITY_TOKEN_LEN, Identity, OpenError, StoredFile};
use crate::tree::{BlockHash, HASH_LEN, Root, Tree, block_count};

use super::access::Permit;
use super::digests::{HashError, is_settled, now};
use super::memory::Memory;
use super::registry::Registry;
use super::{Service, ServiceError, cold, lock, read_whole};

mod blocks;

use blocks::Blocks;

/// Length of a token, in bytes.
pub(crate) const TOKEN_LEN: usize = IDENTITY_TOKEN_LEN;

/// What tells one version of a file from another, to a peer: opaque, and the same after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token([u8; TOKEN_LEN]);

impl Token {
    /// The token of a version.
    pub(crate) fn of(identity: &Identity) -> Self {
        Self(identity.token())
    }

    /// A token as a peer said it; `None` for zero, which means any version.
    pub(crate) fn from_bytes(bytes: [u8; TOKEN_LEN]) -> Option<Self> {
        (bytes != [0; TOKEN_LEN]).then_some(Self(bytes))
    }

    /// Its bytes, never all zero.
    pub(crate) fn as_bytes(&self) -> &[u8; TOKEN_LEN] {
        &self.0
    }
}

type Key = (FileName, Token);

/// The versions of one service.
pub(super) struct Versions {
    shared: Arc<Shared>,
}

/// What versions have in common.
struct Shared {
    open: Registry<Key, Version>,
    known: Mutex<Memory<Identity, Arc<Tree>>>,
    catalog: Arc<dyn Catalog>,
    turns: Arc<Semaphore>,
    /// Buffers to hash with, no more than there are turns.
    buffers: Mutex<Vec<Vec<u8>>>,
    #[cfg(test)]
    hashed: std::sync::atomic::AtomicU64,
}

/// An open version of a file.
pub(crate) struct Version {
    shared: Arc<Shared>,
    key: Key,
    file: Arc<StoredFile>,
    /// Whether nobody can have changed its bytes since without leaving a trace.
    is_settled: bool,
    small: Option<Bytes>,
    blocks: Mutex<Blocks>,
}

impl Service {
    /// Opens a file for version 2: at once if all that is needed is in memory, else off the async
    /// threads. The `wanted` version is returned if it is still open somewhere under this name and
    /// has its bytes; otherwise what the name means now, which may have been `opened` a moment ago. A
    /// thread that it takes holds the `turn` until it is done, whatever becomes of whoever waits.
    pub(crate) async fn open_version(
        &self,
        permit: &Permit,
        wanted: Option<Token>,
        opened: Option<StoredFile>,
        turn: Option<Arc<OwnedSemaphorePermit>>,
    ) -> Result<Arc<Version>, ServiceError> {
        let (versions, name) = (&self.inner.versions, permit.name());
        if name.is_pushed()
            && let Some(version) = self.pushed_version(name)
        {
            return Ok(version);
        }
        if let Some(version) = wanted.and_then(|token| versions.still_open(name, token)) {
            return Ok(version);
        }
        let opened = match opened.map(Ok).or_else(|| self.inner.storage.open_now(name)) {
            None => None,
            Some(opened) => match versions.admit_now(name, opened?)? {
                Admitted::Version(version) => return Ok(version),
                Admitted::Cold(file) => Some(file),
            },
        };
        let (inner, name) = (Arc::clone(&self.inner), name.clone());
        let admission = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let file = match opened {
                Some(file) => file,
                None => inner.storage.open(&name)?,
            };
            inner.versions.admit(&name, file)
        });
        admission.await.map_err(|aborted| ServiceError::Unavailable(aborted.to_string()))?
    }
}

/// What came of an opening that must not wait.
enum Admitted {
    Version(Arc<Version>),
    /// Something has to be waited for.
    Cold(StoredFile),
}

impl Versions {
    pub(super) fn new(catalog: Arc<dyn Catalog>) -> Self {
        let shared = Shared {
            open: Registry::default(),
            known: Mutex::new(Memory::new(TREES_MAX, TREES_BYTES_MAX)),
            catalog,
            turns: Arc::new(Semaphore::new(BLOCKS_HASHING_MAX)),
            buffers: Mutex::default(),
            #[cfg(test)]
            hashed: std::sync::atomic::AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    fn still_open(&self, name: &FileName, token: Token) -> Option<Arc<Version>> {
        let version = self.shared.open.get(&(name.clone(), token))?;
        version.is_unchanged().is_ok_and(|same| same).then_some(version)
    }

    /// Makes a version of an open file without waiting for anything.
    fn admit_now(&self, name: &FileName, file: StoredFile) -> Result<Admitted, ServiceError> {
        let key = (name.clone(), Token::of(file.identity()));
        if let Some(version) = self.shared.open.get(&key).filter(|version| version.is_settled) {
            return Ok(Admitted::Version(version));
        }
        check_size(file.size())?;
        let opened = now();
        if file.size() <= SMALL_FILE_MAX {
            return match read_whole(&file, |bytes, offset| file.read_now(bytes, offset))
                .map_err(unreadable)?
            {
                Some(bytes) => Ok(Admitted::Version(self.small(key, file, opened, bytes))),
                None => Ok(Admitted::Cold(file)),
            };
        }
        let known = lock(&self.shared.known).recall(file.identity());
        Ok(match known {
            Some(tree) => Admitted::Version(self.enter(key, file, opened, None, Some(tree))),
            None => Admitted::Cold(file),
        })
    }

    /// Makes a version of an open file; may block.
    fn admit(&self, name: &FileName, file: StoredFile) -> Result<Arc<Version>, ServiceError> {
        let key = (name.clone(), Token::of(file.identity()));
        if let Some(version) = self.shared.open.get(&key).filter(|version| version.is_settled) {
            return Ok(version);
        }
        check_size(file.size())?;
        let opened = now();
        if file.size() <= SMALL_FILE_MAX {
            let read = |bytes: &mut [u8], offset| file.read_at(bytes, offset).map(Some);
            let whole = read_whole(&file, read).and_then(|whole| whole.ok_or_else(cold));
            return Ok(self.small(key, file, opened, whole.map_err(unreadable)?));
        }
        let known = lock(&self.shared.known).recall(file.identity());
        let tree = match known {
            Some(tree) => Some(tree),
            None if block_count(file.size()) == 1 => Some(self.shared.sole(&file)?),
            None => self.shared.noted(file.identity()),
        };
        Ok(self.enter(key, file, opened, None, tree))
    }

    fn small(&self, key: Key, file: StoredFile, opened: FileTime, bytes: Vec<u8>) -> Arc<Version> {
        let tree = Arc::new(Tree::sole(Root::of(&bytes)));
        self.enter(key, file, opened, Some(bytes.into()), Some(tree))
    }

    fn enter(
        &self,
        key: Key,
        file: StoredFile,
        opened: FileTime,
        small: Option<Bytes>,
        tree: Option<Arc<Tree>>,
    ) -> Arc<Version> {
        let version = Version {
            shared: Arc::clone(&self.shared),
            key: key.clone(),
            is_settled: is_settled(file.identity(), opened),
            file: Arc::new(file),
            small,
            blocks: Mutex::new(Blocks::new(tree)),
        };
        self.shared.open.get_or_insert(key, &Arc::new(version), |used| used.is_settled)
    }
}

impl Shared {
    /// The tree of a file of one block. It is not in the catalog: reading it takes no longer.
    fn sole(&self, file: &StoredFile) -> Result<Arc<Tree>, ServiceError> {
        let began = now();
        let failed = |error: HashError| ServiceError::Unavailable(error.to_string());
        let BlockHash::Sole(root) = self.hash_block(file, 0).map_err(failed)? else {
            return Err(failed(HashError::NoValue(0)));
        };
        let tree = Arc::new(Tree::sole(root));
        if may_be_remembered(file, began) {
            self.keep(file.identity(), &tree);
        }
        Ok(tree)
    }

    /// What the catalog knows; may block.
    fn noted(&self, identity: &Identity) -> Option<Arc<Tree>> {
        let tree = Arc::new(self.catalog.tree(identity)?);
        self.keep(identity, &tree);
        Some(tree)
    }

    /// Remembers a tree in memory.
    fn keep(&self, identity: &Identity, tree: &Arc<Tree>) {
        lock(&self.known).remember(*identity, Arc::clone(tree), weight(tree));
    }

    /// Remembers a tree in memory and in the catalog.
    fn remember(&self, identity: &Identity, tree: &Arc<Tree>) {
        self.keep(identity, tree);
        self.catalog.remember_tree(identity, tree);
    }

    /// Reads and hashes one block; may block.
    fn hash_block(&self, file: &StoredFile, index: u64) -> Result<BlockHash, HashError> {
        #[cfg(test)]
        self.hashed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut buffer = lock(&self.buffers).pop().unwrap_or_else(|| vec![0; HASH_CHUNK]);
        let hash = blocks::hash(file, index, &mut buffer);
        let mut buffers = lock(&self.buffers);
        if buffers.len() < BLOCKS_HASHING_MAX {
            buffers.push(buffer);
        }
        hash
    }
}

impl Version {
    /// The open file.
    pub(crate) fn file(&self) -> &Arc<StoredFile> {
        &self.file
    }

    /// The name under which it was opened.
    pub(crate) fn name(&self) -> &FileName {
        &self.key.0
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.file.size()
    }

    /// When its bytes were last changed: seconds since 1970, and nanoseconds.
    pub(crate) fn modified(&self) -> (i64, u32) {
        self.file.modified()
    }

    /// Its permission bits: the lowest nine of its mode.
    pub(crate) fn mode(&self) -> u32 {
        self.file.mode()
    }

    /// What tells it from other versions.
    pub(crate) fn token(&self) -> Token {
        self.key.1
    }

    /// The bytes of a file of at most [`SMALL_FILE_MAX`] bytes, read in the opening.
    pub(crate) fn small(&self) -> Option<&Bytes> {
        self.small.as_ref()
    }

    /// The tree, if it is known by now; that of a file of one block always is.
    pub(crate) fn tree(&self) -> Option<Arc<Tree>> {
        lock(&self.blocks).tree()
    }

    /// Whether its bytes are still those that it was opened with ([`StoredFile::is_unchanged`]).
    pub(crate) fn is_unchanged(&self) -> io::Result<bool> {
        self.file.is_unchanged()
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        self.shared.open.forget(&self.key);
    }
}

fn check_size(size: u64) -> Result<(), ServiceError> {
    if block_count(size) > BLOCKS_MAX { Err(ServiceError::TooLarge(size)) } else { Ok(()) }
}

fn unreadable(error: io::Error) -> ServiceError {
    OpenError::Unavailable(error).into()
}

/// Whether what was hashed of a file since `began` belongs to its identity for good.
fn may_be_remembered(file: &StoredFile, began: FileTime) -> bool {
    let untouched = file.identity_now().is_ok_and(|now| now == *file.identity());
    untouched && is_settled(file.identity(), began)
}

/// Bytes of memory that a tree takes: its levels hold nearly two values for each block.
fn weight(tree: &Tree) -> usize {
    size_of::<Tree>() + 2 * HASH_LEN * tree.values().len()
}

#[cfg(test)]
#[path = "versions/tests.rs"]
mod tests;
