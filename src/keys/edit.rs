//! Keys are added and revoked, by one program at a time, while a server may be running.
//!
//! Whoever edits holds a lock on a file of its own, reads all keys, and writes all of them anew beside the
//! old file, which then loses its name to the new one. So a reader sees the old keys or the new ones,
//! and whatever kills the program leaves one or the other.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;

use super::file::{KEYS_FILE, read_keys};
use super::format::render;
use super::{Key, KeysError};
use crate::error::{Code, in_words, is_no_space};
use crate::fileops;
use crate::limits::{KEYS_FILE_MAX, KEYS_LOCK_PROBE, KEYS_LOCK_TIMEOUT, KEYS_MAX};
use crate::token::KeyId;

/// Name of the file whose lock says that the keys are being edited.
const LOCK_FILE: &str = "keys.lock";
/// Name of the file that is written before it becomes the file of keys.
const STAGED_FILE: &str = "keys.toml.new";
/// Only the owner may read or write the keys.
const KEYS_MODE: u32 = 0o600;

/// Adds a key to those of a state folder, which must exist.
///
/// # Errors
/// [`KeysError::Exists`] if a key that has not expired at `now` has its name, and whatever keeps the
/// keys from being read or written.
pub fn add(state: &Path, new: Key, now: Timestamp) -> Result<(), KeysError> {
    let editing = Editing::begin(state)?;
    let mut keys = editing.read()?;
    if keys.iter().any(|key| key.name == new.name && !key.is_expired(now)) {
        return Err(KeysError::Exists(new.name));
    }
    keys.push(new);
    editing.write(&keys)
}

/// Takes away the key with this name or identifier, and gives it back. If an expired key has the same
/// name, it goes as well.
///
/// # Errors
/// [`KeysError::NotFound`], and whatever keeps the keys from being read or written.
pub fn revoke(state: &Path, name_or_id: &str) -> Result<Vec<Key>, KeysError> {
    let editing = Editing::begin(state)?;
    let (revoked, kept): (Vec<Key>, Vec<Key>) =
        editing.read()?.into_iter().partition(|key| is_called(key, name_or_id));
    if revoked.is_empty() {
        return Err(KeysError::NotFound(name_or_id.to_owned()));
    }
    editing.write(&kept)?;
    Ok(revoked)
}

/// What is to be changed of a key; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// When it ends; `Some(None)`: never.
    pub expires: Option<Option<Timestamp>>,
    /// Bytes that the files it stores may have in all; `Some(None)`: as many as there is room for.
    pub quota: Option<Option<u64>>,
}

/// Changes the key with this name or identifier, and gives it back as it is then. If an expired key has the same
/// name, the newer one is meant. The token stays the same.
///
/// # Errors
/// [`KeysError::NotFound`], and whatever keeps the keys from being read or written.
pub fn change(state: &Path, name_or_id: &str, change: Change) -> Result<Key, KeysError> {
    let editing = Editing::begin(state)?;
    let mut keys = editing.read()?;
    let meant = keys.iter_mut().rev().find(|key| is_called(key, name_or_id));
    let key = meant.ok_or_else(|| KeysError::NotFound(name_or_id.to_owned()))?;
    key.expires = change.expires.unwrap_or(key.expires);
    key.quota = change.quota.unwrap_or(key.quota);
    let changed = key.clone();
    editing.write(&keys)?;
    Ok(changed)
}

/// All keys of a state folder, in the order in which they were made.
///
/// # Errors
/// Whatever keeps them from being read.
pub fn list(state: &Path) -> Result<Vec<Key>, KeysError> {
    read_keys(&state.join(KEYS_FILE))
}

/// The keys, and nobody else edits them as long as it lives.
struct Editing {
    state: PathBuf,
    path: PathBuf,
    _lock: File,
}

impl Editing {
    fn begin(state: &Path) -> Result<Self, KeysError> {
        let path = state.join(KEYS_FILE);
        let failed = |error: io::Error| unwritable(&path, &error);
        let folder = File::open(state).map_err(failed)?;
        let lock = fileops::open_or_create(&state.join(LOCK_FILE)).map_err(failed)?;
        give_to_owner_of(&folder, &lock).map_err(failed)?;
        let began = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Self { state: state.to_owned(), path, _lock: lock }),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if began.elapsed() >= KEYS_LOCK_TIMEOUT => {
                    return Err(KeysError::Busy { path: path.display().to_string() });
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(KEYS_LOCK_PROBE),
            }
        }
    }

    fn read(&self) -> Result<Vec<Key>, KeysError> {
        read_keys(&self.path)
    }

    fn write(&self, keys: &[Key]) -> Result<(), KeysError> {
        let text = render(keys);
        if keys.len() > KEYS_MAX || text.len() as u64 > KEYS_FILE_MAX {
            return Err(KeysError::TooMany { path: self.path.display().to_string() });
        }
        self.replace(text.as_bytes()).map_err(|error| unwritable(&self.path, &error))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let (staged, name) = (OsStr::new(STAGED_FILE), OsStr::new(KEYS_FILE));
        let folder = File::open(&self.state)?;
        // Somebody who was killed may have left one.
        match fileops::remove_file_at(&folder, staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = fileops::create_new_at(&folder, staged, KEYS_MODE)?;
        let written = give_to_owner_of(&folder, &file)
            .and_then(|()| fileops::write_all_at(&file, bytes, 0))
            .and_then(|()| fileops::sync_file(&file))
            .and_then(|()| fileops::rename_at(&folder, staged, name));
        if let Err(error) = written {
            // If that fails too, the next one who edits removes it.
            let _ = fileops::remove_file_at(&folder, staged);
            return Err(error);
        }
        fileops::sync_folder(&self.state)
    }
}

fn is_called(key: &Key, name_or_id: &str) -> bool {
    key.name.as_str() == name_or_id || Some(key.id) == KeyId::parse(name_or_id)
}

/// Where the superuser edits the keys of another user's server, they stay that user's.
fn give_to_owner_of(folder: &File, file: &File) -> io::Result<()> {
    let (of_folder, of_file) = (folder.metadata()?, file.metadata()?);
    if rustix::process::geteuid().is_root() && of_folder.uid() != of_file.uid() {
        fileops::set_owner(file, of_folder.uid(), of_folder.gid())?;
    }
    Ok(())
}

fn unwritable(path: &Path, error: &io::Error) -> KeysError {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => Code::NotAllowed,
        _ if is_no_space(error) => Code::NoSpace,
        _ => Code::LocalIo,
    };
    KeysError::Unwritable { path: path.display().to_string(), cause: in_words(error), code }
}
