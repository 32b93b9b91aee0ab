//! A file that is still being received, hidden beside its target until it is whole.
//!
//! The commit rule: stage under a hidden name in the target's own folder; flush the file; rename it;
//! flush the folder and every new one above it. So the target's name holds the old file, nothing,
//! or the whole new file, whatever happens when. Whether the bytes are the right ones is for the
//! caller to know before it commits.
//!
//! The staged name is short whatever the target's, and locked: two receivers of one target never
//! mix. What a killed receiver left behind is taken over by the next one.

use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::digest::Md5;
use crate::error::{Code, in_words, is_no_space};
use crate::fileops;
use crate::names::STAGED_PREFIX;

/// What happens to a target that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// It stays; committing fails.
    Never,
    /// It is replaced.
    Always,
}

/// Why a file could not be staged or committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// An operation on a file or folder failed.
    #[error("cannot {operation} {path}: {}", in_words(.source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The disk has less room than the file needs.
    #[error("not enough space for {path}: {needed} bytes are needed, {free} are free")]
    NoSpace {
        /// The target.
        path: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The target exists and is not to be replaced.
    #[error("{0} exists already and is not replaced")]
    Exists(String),
    /// The target is a folder or something else that a file cannot replace.
    #[error("{0} is not a file and is not replaced")]
    NotAFile(String),
    /// Another receiver is at it.
    #[error("another client is receiving {0} at this moment; wait for it, or save under another name")]
    Busy(String),
    /// Something stands where the staged file should be that is not ours.
    #[error("{0} is in the way and is not a file of this user; remove it")]
    InTheWay(String),
}

impl StageError {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Io { source, .. } if is_no_space(source) => Code::NoSpace,
            Self::NoSpace { .. } => Code::NoSpace,
            Self::Exists(_) | Self::Busy(_) => Code::Exists,
            Self::Io { .. } | Self::NotAFile(_) | Self::InTheWay(_) => Code::LocalIo,
        }
    }
}

/// A file in the making. Dropped without a commit, it is removed, with the folders made for it.
#[derive(Debug)]
pub struct StagedFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
    made: Vec<PathBuf>,
    committed: bool,
}

impl StagedFile {
    /// Stages a file that will become `target`, with room for `size` bytes. Missing folders are made.
    ///
    /// # Errors
    /// [`StageError`]; nothing is left behind then.
    pub fn create(target: &Path, size: u64) -> Result<Self, StageError> {
        let folder = folder_of(target);
        let made = fileops::create_folders(folder).map_err(failed("create the folder", folder))?;
        let staged = open_staged(target, folder);
        let (file, path) = match staged {
            Ok(staged) => staged,
            Err(error) => {
                fileops::remove_folders(&made);
                return Err(error);
            }
        };
        let staged = Self { file, path, target: target.to_owned(), made, committed: false };
        fileops::truncate(&staged.file).map_err(failed("write", &staged.path))?;
        make_room(&staged.file, &staged.target, size)?;
        Ok(staged)
    }

    /// Writes all of `bytes` at a position.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), StageError> {
        fileops::write_all_at(&self.file, bytes, offset).map_err(failed("write", &self.target))
    }

    /// Gives the file its name; flushes it first, and its folder after, if `sync` says so.
    ///
    /// # Errors
    /// If that fails the target is as it was. A failed flush is final: what is on the disk then is
    /// unknown, so the staged file is removed. Only if flushing the folder fails does the target
    /// hold the new file already, though a power cut might undo that.
    pub fn commit(mut self, replace: Replace, sync: bool) -> Result<(), StageError> {
        self.adopt_permissions()?;
        if sync {
            fileops::sync_file(&self.file).map_err(failed("flush", &self.target))?;
        }
        let renamed = match replace {
            Replace::Always => fileops::rename(&self.path, &self.target),
            Replace::Never => fileops::rename_to_new(&self.path, &self.target),
        };
        renamed.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => StageError::Exists(shown(&self.target)),
            io::ErrorKind::IsADirectory => StageError::NotAFile(shown(&self.target)),
            _ => failed("rename the received file to", &self.target)(error),
        })?;
        self.committed = true;
        if sync {
            // The folder of the file, and then the folder of each folder that was made for it.
            let parents = self.made.iter().rev().map(|made| folder_of(made));
            for folder in std::iter::once(folder_of(&self.target)).chain(parents) {
                fileops::sync_folder(folder).map_err(failed("flush the folder", folder))?;
            }
        }
        Ok(())
    }

    /// A file that is replaced hands its permissions on, without the special bits.
    fn adopt_permissions(&self) -> Result<(), StageError> {
        match self.target.symlink_metadata() {
            Ok(old) if old.is_file() => {
                let permissions = Permissions::from_mode(old.mode() & 0o777);
                fileops::set_permissions(&self.file, permissions)
                    .map_err(failed("set the permissions of", &self.path))
            }
            Ok(old) if old.is_symlink() => Ok(()),
            Ok(_) => Err(StageError::NotAFile(shown(&self.target))),
            Err(_) => Ok(()),
        }
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.committed {
            // It is hidden and will be taken over by the next receiver, if it cannot be removed now.
            let _ = fileops::remove_file(&self.path);
            fileops::remove_folders(&self.made);
        }
    }
}

/// The name of the staged file for a target of this name.
fn staged_name(target: &Path) -> String {
    let digest = Md5::of(target.file_name().unwrap_or_default().as_bytes()).to_string();
    format!("{STAGED_PREFIX}{}.part", &digest[..16])
}

/// Opens and locks the staged file of a target. A receiver that has just finished renames its staged
/// file, or removes it, and only then gives up its lock; so after locking one looks whether the name
/// still means the locked file.
fn open_staged(target: &Path, folder: &Path) -> Result<(File, PathBuf), StageError> {
    /// Receivers that may finish one after the other while we try.
    const TRIES: usize = 100;
    let path = folder.join(staged_name(target));
    for _ in 0..TRIES {
        let file = fileops::open_or_create(&path).map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
                StageError::InTheWay(shown(&path))
            }
            _ => failed("create", &path)(error),
        })?;
        let found = file.metadata().map_err(failed("look at", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StageError::Busy(shown(target))),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        let named = path.symlink_metadata().ok();
        if named.is_none_or(|named| (named.dev(), named.ino()) != (found.dev(), found.ino())) {
            continue;
        }
        if !is_ours(&found) {
            return Err(StageError::InTheWay(shown(&path)));
        }
        return Ok((file, path));
    }
    Err(StageError::Busy(shown(target)))
}

/// Whether what stands under a staged name is a file that a receiver of this user made.
fn is_ours(found: &Metadata) -> bool {
    found.is_file() && found.nlink() == 1 && found.uid() == rustix::process::geteuid().as_raw()
}

/// Makes room for `size` bytes in a file that is to become, or to be copied to, `target`.
///
/// # Errors
/// [`StageError::NoSpace`] if the disk is too small, known before any byte is written.
pub(crate) fn make_room(file: &File, target: &Path, size: u64) -> Result<(), StageError> {
    let free = free_space(file).map_err(failed("ask for the free space for", target))?;
    let no_space = || StageError::NoSpace { path: shown(target), needed: size, free };
    if size > free {
        return Err(no_space());
    }
    if fileops::is_in_memory(file) {
        // Memory has no order that a reservation could improve, and taking it all beforehand costs
        // time in which nothing is received (a tenth of a second for 1 GiB).
        return Ok(());
    }
    match fileops::reserve(file, size) {
        Err(error) if is_no_space(&error) => Err(no_space()),
        result => result.map_err(failed("reserve space for", target)),
    }
}

fn free_space(file: &File) -> io::Result<u64> {
    let found = rustix::fs::fstatvfs(file)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The folder that holds `path`.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != OsStr::new("") => folder,
        _ => Path::new("."),
    }
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StageError + use<'a> {
    move |source| StageError::Io { operation, path: shown(path), source }
}

fn shown(path: &Path) -> String {
    crate::text::shown(path.as_os_str().as_bytes()).to_string()
}

#[cfg(test)]
#[path = "staged/tests.rs"]
mod tests;
