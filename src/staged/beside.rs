//! What stands beside a target while it is received: hidden names, the lock, room on the disk.
//!
//! The two kinds of staged files share this. A hidden name may be taken by anybody, so whatever is
//! found under one is used only if it is a plain file of this user with no other name; it is never
//! followed. Nothing here knows what the files hold.

use std::ffi::OsStr;
use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Stat, fstat, statat};
use rustix::io::Errno;

use super::made;
use super::place::Hidden;
use super::{Place, Replace, StageError};
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

/// The permission bits that anybody may set: the lowest nine of a mode.
pub(super) const MODE: u32 = 0o777;

/// What a new file may get, as any program makes them.
pub(super) const NEW_FILE: u32 = 0o666;

/// The hidden name with this ending for a target.
pub(super) fn hidden_name(target: &Path, ending: &str) -> String {
    let digest = Md5::of(target.file_name().unwrap_or_default().as_bytes()).to_string();
    format!("{STAGED_PREFIX}{}{ending}", &digest[..16])
}

/// Opens and locks the staged file of a target. A receiver that has just finished renames its staged
/// file, or removes it, and only then gives up its lock; so after locking one looks whether the name
/// still means the locked file.
pub(super) fn open_staged(place: &Place) -> Result<(File, Hidden), StageError> {
    let staged = place.hidden(PART);
    open_locked(place, &staged, place.path()).map(|file| (file, staged))
}

/// Opens and locks a file that is hidden in an open folder and stands for a target, or makes it.
pub(super) fn open_locked(folder: impl AsFd, hidden: &Hidden, target: &Path) -> Result<File, StageError> {
    let path = hidden.path.as_path();
    for _ in 0..STAGING_TRIES {
        let file =
            fileops::open_or_create_at(&folder, &hidden.name).map_err(in_the_way_or("create", path))?;
        let found = file.metadata().map_err(failed("look at", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StageError::Busy(shown(target))),
            Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
        }
        if !is_called(&file, &folder, &hidden.name) {
            continue;
        }
        if !is_ours(&found) {
            return Err(StageError::InTheWay(shown(path)));
        }
        return Ok(file);
    }
    Err(StageError::Busy(shown(target)))
}

/// Whether a name in an open folder means this very file.
pub(super) fn is_called(file: &File, folder: impl AsFd, name: &OsStr) -> bool {
    let named = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    let found = fstat(file);
    matches!((named, found), (Ok(named), Ok(found)) if made::id(&named) == made::id(&found))
}

/// What has a name in an open folder, which is not followed if it is a link.
pub(super) fn find(folder: impl AsFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether what stands under a staged name is a file that a receiver of this user made.
pub(super) fn is_ours(found: &Metadata) -> bool {
    found.is_file() && found.nlink() == 1 && found.uid() == rustix::process::geteuid().as_raw()
}

/// Opens a journal that lies under this name.
pub(super) fn open_journal(place: &Place, journal: &Hidden) -> Result<Option<File>, StageError> {
    match fileops::open_existing_at(place, &journal.name) {
        Ok(file) => ours(file, &journal.path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(in_the_way_or("open", &journal.path)(error)),
    }
}

/// Opens or makes an empty file for a journal that is to replace another one.
pub(super) fn empty_journal(place: &Place, journal: &Hidden) -> Result<File, StageError> {
    let path = journal.path.as_path();
    let opened = fileops::open_or_create_at(place, &journal.name);
    let file = ours(opened.map_err(in_the_way_or("create", path))?, path)?;
    fileops::truncate(&file).map_err(failed("write", path))?;
    Ok(file)
}

/// Removes a journal for ever: a power cut must not bring it back beside bytes that it does not mean,
/// so it is emptied on the disk first.
pub(super) fn forget_journal(place: &Place, journal: &Hidden) -> Result<(), StageError> {
    let Some(file) = open_journal(place, journal)? else { return Ok(()) };
    let path = journal.path.as_path();
    fileops::truncate(&file).map_err(failed("write", path))?;
    fileops::sync_file(&file).map_err(failed("flush", path))?;
    remove(place, journal).map_err(failed("remove", path))
}

/// Removes what has a hidden name in a place.
pub(super) fn remove(place: &Place, hidden: &Hidden) -> io::Result<()> {
    fileops::remove_file_at(place.folder(), &hidden.name)
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

/// Whether a file may get the name of a place; the permissions of the one that has it now, without the special bits.
pub(super) fn replaced_mode(place: &Place) -> Result<Option<u32>, StageError> {
    let Some(old) = place.found()? else { return Ok(None) };
    match FileType::from_raw_mode(old.st_mode) {
        // The field has other types on other systems.
        #[allow(clippy::unnecessary_cast)]
        FileType::RegularFile => Ok(Some(old.st_mode as u32 & MODE)),
        FileType::Symlink => Ok(None),
        _ => Err(StageError::NotAFile(shown(place.path()))),
    }
}

/// Hands the permissions of a file that is replaced on to the new one, without the special bits.
pub(super) fn adopt_permissions(file: &File, staged: &Hidden, place: &Place) -> Result<(), StageError> {
    let Some(mode) = replaced_mode(place)? else { return Ok(()) };
    fileops::set_mode(file, mode).map_err(failed("set the permissions of", &staged.path))
}

/// Gives a staged file its name.
pub(super) fn rename_to_target(place: &Place, staged: &Hidden, replace: Replace) -> Result<(), StageError> {
    let renamed = match replace {
        Replace::Always => fileops::rename_at(place.folder(), &staged.name, place.name()),
        Replace::Never => fileops::rename_at_to_new(place.folder(), &staged.name, place.name()),
    };
    renamed.map_err(|error| not_renamed(place, error))
}

/// Gives a file that is staged in one place its name in another.
pub(super) fn move_to_target(
    from: &Place,
    staged: &Hidden,
    to: &Place,
    replace: Replace,
) -> Result<(), StageError> {
    let moved = match replace {
        Replace::Always => fileops::move_at(from.folder(), &staged.name, to.folder(), to.name()),
        Replace::Never => fileops::move_at_to_new(from.folder(), &staged.name, to.folder(), to.name()),
    };
    moved.map_err(|error| not_renamed(to, error))
}

fn not_renamed(place: &Place, error: io::Error) -> StageError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => StageError::Exists(shown(place.path())),
        io::ErrorKind::IsADirectory => StageError::NotAFile(shown(place.path())),
        _ => failed("rename the received file to", place.path())(error),
    }
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
