//! What stands beside a target while it is received: hidden names, the lock, room on the disk.
//!
//! The two kinds of staged files share this. A hidden name may be taken by anybody, so whatever is
//! found under one is used only if it is a plain file of this user with no other name; it is never
//! followed. Nothing here knows what the files hold.

use std::ffi::OsStr;
use std::fs::{File, Metadata, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{Replace, StageError};
use crate::digest::Md5;
use crate::error::is_no_space;
use crate::fileops;
use crate::limits::STAGING_TRIES;
use crate::names::STAGED_PREFIX;

/// Ending of the name of a file that is being received.
pub(super) const PART: &str = ".part";
/// Ending of the name of what is known of its bytes.
pub(super) const JOURNAL: &str = ".journal";
/// Ending of the name of a journal that is to replace another one.
pub(super) const NEW_JOURNAL: &str = ".journal-new";

/// Ending of the name of the lock of a folder that is being received.
pub(super) const LOCK: &str = ".lock";

/// The hidden name with this ending for a target.
pub(super) fn hidden_name(target: &Path, ending: &str) -> String {
    let digest = Md5::of(target.file_name().unwrap_or_default().as_bytes()).to_string();
    format!("{STAGED_PREFIX}{}{ending}", &digest[..16])
}

/// Opens and locks the staged file of a target. A receiver that has just finished renames its staged
/// file, or removes it, and only then gives up its lock; so after locking one looks whether the name
/// still means the locked file.
pub(super) fn open_staged(target: &Path, folder: &Path) -> Result<(File, PathBuf), StageError> {
    let path = folder.join(hidden_name(target, PART));
    open_locked(&path, target).map(|file| (file, path))
}

/// Opens and locks a file that is hidden under `path` and stands for a target, or makes it.
pub(super) fn open_locked(path: &Path, target: &Path) -> Result<File, StageError> {
    for _ in 0..STAGING_TRIES {
        let file = fileops::open_or_create(path).map_err(in_the_way_or("create", path))?;
        let found = file.metadata().map_err(failed("look at", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StageError::Busy(shown(target))),
            Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
        }
        let named = path.symlink_metadata().ok();
        if named.is_none_or(|named| (named.dev(), named.ino()) != (found.dev(), found.ino())) {
            continue;
        }
        if !is_ours(&found) {
            return Err(StageError::InTheWay(shown(path)));
        }
        return Ok(file);
    }
    Err(StageError::Busy(shown(target)))
}

/// Whether what stands under a staged name is a file that a receiver of this user made.
fn is_ours(found: &Metadata) -> bool {
    found.is_file() && found.nlink() == 1 && found.uid() == rustix::process::geteuid().as_raw()
}

/// Opens a journal that lies under this name.
pub(super) fn open_journal(path: &Path) -> Result<Option<File>, StageError> {
    match fileops::open_existing(path) {
        Ok(file) => ours(file, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(in_the_way_or("open", path)(error)),
    }
}

/// Opens or makes an empty file for a journal that is to replace another one.
pub(super) fn empty_journal(path: &Path) -> Result<File, StageError> {
    let file = ours(fileops::open_or_create(path).map_err(in_the_way_or("create", path))?, path)?;
    fileops::truncate(&file).map_err(failed("write", path))?;
    Ok(file)
}

/// Removes a journal for ever: a power cut must not bring it back beside bytes that it does not mean,
/// so it is emptied on the disk first.
pub(super) fn forget_journal(path: &Path) -> Result<(), StageError> {
    let Some(journal) = open_journal(path)? else { return Ok(()) };
    fileops::truncate(&journal).map_err(failed("write", path))?;
    fileops::sync_file(&journal).map_err(failed("flush", path))?;
    fileops::remove_file(path).map_err(failed("remove", path))
}

fn ours(file: File, path: &Path) -> Result<File, StageError> {
    let found = file.metadata().map_err(failed("look at", path))?;
    if is_ours(&found) { Ok(file) } else { Err(StageError::InTheWay(shown(path))) }
}

/// Makes room for `size` bytes in a file that is to become, or to be copied to, `target`.
///
/// # Errors
/// [`StageError::NoSpace`] if the disk is too small, known before any byte is written.
pub(crate) fn make_room(file: &File, target: &Path, size: u64) -> Result<(), StageError> {
    check_room(file, target, size)?;
    reserve(file, target, size)
}

/// Whether the disk has room for so many bytes more.
pub(super) fn check_room(file: &File, target: &Path, needed: u64) -> Result<(), StageError> {
    let free = free_space(file).map_err(failed("ask for the free space for", target))?;
    if needed > free {
        return Err(StageError::NoSpace { path: shown(target), needed, free });
    }
    Ok(())
}

/// Reserves what a file lacks to hold `size` bytes.
pub(super) fn reserve(file: &File, target: &Path, size: u64) -> Result<(), StageError> {
    if fileops::is_in_memory(file) {
        // Memory has no order that a reservation could improve, and taking it all beforehand costs
        // time in which nothing is received (a tenth of a second for 1 GiB).
        return Ok(());
    }
    match fileops::reserve(file, size) {
        Err(error) if is_no_space(&error) => {
            let free = free_space(file).map_err(failed("ask for the free space for", target))?;
            Err(StageError::NoSpace { path: shown(target), needed: size, free })
        }
        result => result.map_err(failed("reserve space for", target)),
    }
}

/// Hands the permissions of a file that is replaced on to the new one, without the special bits.
pub(super) fn adopt_permissions(file: &File, path: &Path, target: &Path) -> Result<(), StageError> {
    match target.symlink_metadata() {
        Ok(old) if old.is_file() => {
            let permissions = Permissions::from_mode(old.mode() & 0o777);
            fileops::set_permissions(file, permissions).map_err(failed("set the permissions of", path))
        }
        Ok(old) if old.is_symlink() => Ok(()),
        Ok(_) => Err(StageError::NotAFile(shown(target))),
        Err(_) => Ok(()),
    }
}

/// Gives a staged file the name of its target.
pub(super) fn rename_to_target(path: &Path, target: &Path, replace: Replace) -> Result<(), StageError> {
    let renamed = match replace {
        Replace::Always => fileops::rename(path, target),
        Replace::Never => fileops::rename_to_new(path, target),
    };
    renamed.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => StageError::Exists(shown(target)),
        io::ErrorKind::IsADirectory => StageError::NotAFile(shown(target)),
        _ => failed("rename the received file to", target)(error),
    })
}

/// Flushes the folder of a file, and then the folder of each folder that was made for it.
pub(super) fn sync_folders(target: &Path, made: &[PathBuf]) -> Result<(), StageError> {
    let parents = made.iter().rev().map(|made| folder_of(made));
    for folder in std::iter::once(folder_of(target)).chain(parents) {
        fileops::sync_folder(folder).map_err(failed("flush the folder", folder))?;
    }
    Ok(())
}

fn free_space(file: &File) -> io::Result<u64> {
    let found = rustix::fs::fstatvfs(file)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The folder that holds `path`.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != OsStr::new("") => folder,
        _ => Path::new("."),
    }
}

pub(super) fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> StageError + use<'a> {
    move |source| StageError::Io { operation, path: shown(path), source }
}

/// The error for what cannot be opened under a hidden name.
fn in_the_way_or<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StageError + use<'a> {
    move |error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP | Errno::ISDIR) => StageError::InTheWay(shown(path)),
        _ => failed(operation, path)(error),
    }
}

pub(super) fn shown(path: &Path) -> String {
    crate::text::shown(path.as_os_str().as_bytes()).to_string()
}
