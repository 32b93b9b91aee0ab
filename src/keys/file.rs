//! The keys of the state folder, as a running server sees them.
//!
//! Every look-up compares what lies there with what was read last, and reads it again if it is another
//! file. Editing gives the name to a new file, and the one that was read last is kept open, so that its
//! inode number cannot come back for another. A file that is not there holds no keys; one that cannot
//! be understood as a whole, or that others may change, lets nobody in.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;

use super::format::{self, Fault};
use super::{Key, KeyStore, KeysError};
use crate::error::in_words;
use crate::limits::KEYS_FILE_MAX;
use crate::token::KeyId;

/// Name of the file.
pub(super) const KEYS_FILE: &str = "keys.toml";
/// Bits of a mode that let others than the owner at a file.
const OTHERS: u32 = 0o077;

/// The file of keys in a state folder.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    seen: Seen,
    keys: Result<HashMap<KeyId, Arc<Key>>, KeysError>,
    /// What was read, kept open.
    _file: Option<File>,
}

/// What lay there when it was looked at last.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// It has not been looked at, or what was seen is not to be relied upon.
    Nothing,
    Missing,
    File(Stamp),
}

/// What tells one state of the file from another.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// All that a file of keys holds.
struct Whole {
    stamp: Stamp,
    keys: Vec<Key>,
    file: File,
}

impl KeyFile {
    /// The keys in this state folder. Nothing is read yet.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        let loaded = Loaded { seen: Seen::Nothing, keys: Ok(HashMap::new()), _file: None };
        Self { path: state.join(KEYS_FILE), loaded: Mutex::new(loaded) }
    }

    /// Reads the keys now, so that what is wrong with them is told before anybody asks; how many there are.
    ///
    /// # Errors
    /// [`KeysError`], as later for every look-up.
    pub fn check(&self) -> Result<usize, KeysError> {
        self.with_keys(HashMap::len)
    }

    fn with_keys<T>(&self, look: impl FnOnce(&HashMap<KeyId, Arc<Key>>) -> T) -> Result<T, KeysError> {
        let seen = match std::fs::metadata(&self.path) {
            Ok(data) => Seen::File(Stamp::of(&data)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::Missing,
            Err(error) => return Err(unreadable(&self.path, &error)),
        };
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.seen != seen {
            *loaded = Loaded::read(&self.path);
        }
        loaded.keys.as_ref().map(look).map_err(KeysError::clone)
    }
}

impl KeyStore for KeyFile {
    fn find(&self, id: &KeyId) -> Result<Option<Arc<Key>>, KeysError> {
        self.with_keys(|keys| keys.get(id).cloned())
    }

    fn has_any(&self) -> bool {
        self.with_keys(|keys| !keys.is_empty()).unwrap_or(false)
    }
}

impl Loaded {
    fn read(path: &Path) -> Self {
        match read(path) {
            Ok(None) => Self { seen: Seen::Missing, keys: Ok(HashMap::new()), _file: None },
            Ok(Some(Whole { stamp, keys, file })) => {
                let keys = keys.into_iter().map(|key| (key.id, Arc::new(key))).collect();
                Self { seen: Seen::File(stamp), keys: Ok(keys), _file: Some(file) }
            }
            Err((stamp, error)) => {
                // What is wrong with a file stays wrong until it changes; what kept it from being read
                // may be over at any time.
                Self { seen: stamp.map_or(Seen::Nothing, Seen::File), keys: Err(error), _file: None }
            }
        }
    }
}

impl Stamp {
    fn of(data: &std::fs::Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }
}

/// All keys of a file, or none if it is not there.
pub(super) fn read_keys(path: &Path) -> Result<Vec<Key>, KeysError> {
    match read(path) {
        Ok(whole) => Ok(whole.map(|whole| whole.keys).unwrap_or_default()),
        Err((_, error)) => Err(error),
    }
}

/// Reads the file; `None` if it is not there. An error that is one of the file as it is comes with what
/// tells this file.
fn read(path: &Path) -> Result<Option<Whole>, (Option<Stamp>, KeysError)> {
    let failed = |error: io::Error| (None, unreadable(path, &error));
    // Not to wait where somebody has put a pipe in its place.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let data = file.metadata().map_err(failed)?;
    let shown = || path.display().to_string();
    let fault = |error| Err((Some(Stamp::of(&data)), error));
    if !data.is_file() {
        return fault(KeysError::Wrong { path: shown(), message: "it is not a file".to_owned() });
    }
    if data.mode() & OTHERS != 0 {
        return fault(KeysError::Permissive { path: shown() });
    }
    let mut bytes = Vec::new();
    (&mut file).take(KEYS_FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > KEYS_FILE_MAX {
        return fault(KeysError::TooMany { path: shown() });
    }
    let Ok(text) = String::from_utf8(bytes) else {
        return fault(KeysError::Wrong { path: shown(), message: "it is not text".to_owned() });
    };
    match format::parse(&text) {
        Ok(keys) => Ok(Some(Whole { stamp: Stamp::of(&data), keys, file })),
        Err(Fault::TooMany) => fault(KeysError::TooMany { path: shown() }),
        Err(Fault::Wrong(message)) => fault(KeysError::Wrong { path: shown(), message }),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> KeysError {
    KeysError::Unreadable { path: path.display().to_string(), cause: in_words(error) }
}
