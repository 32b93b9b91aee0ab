//! What is changed beneath the root: places to stage in, new folders, new names.
//!
//! Every change happens in a folder that was walked to ([`End`]) and is held open, and is flushed before it is told as
//! done. What is removed is in `removal`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::way::{End, kind};
use super::{LocalDisk, identity};
use crate::error::is_no_space;
use crate::fileops;
use crate::names::FileName;
use crate::staged::Place;
use crate::storage::{ChangeError, OpenError};

/// What a folder needs so that files can be put into it.
const USABLE: u32 = 0o700;

pub(super) const NOT_A_FILE: OpenError = OpenError::Refused("it is not a regular file");
pub(super) const HOLDS_HIDDEN: OpenError = OpenError::Refused("it holds the server's own files");

pub(super) fn place(disk: &LocalDisk, name: &FileName) -> Result<Place, ChangeError> {
    let End { folder, made, .. } = disk.way_above(name, true)?;
    Ok(Place::within(folder, disk.shown_path(name), made))
}

pub(super) fn make_folder(disk: &LocalDisk, name: &FileName, mode: u32) -> Result<(), ChangeError> {
    let end = disk.way_to(name, (mode & 0o777) | USABLE)?;
    if end.is_new {
        // Its own attributes are on the disk then, too.
        end.flush()?;
    } else {
        end.made.flush().map_err(super::way::staging)?;
    }
    end.made.keep();
    Ok(())
}

pub(super) fn rename(
    disk: &LocalDisk,
    from: &FileName,
    to: &FileName,
    replace: bool,
) -> Result<(), ChangeError> {
    let old = disk.way_above(from, false)?;
    let found = old.find(from.base())?.ok_or(OpenError::NotFound)?;
    let is_folder = may_move(disk, &found)?;
    if is_folder && to.as_bytes().strip_prefix(from.as_bytes()).is_some_and(|rest| rest.starts_with(b"/")) {
        return Err(INTO_ITSELF.into());
    }
    let new = disk.way_above(to, true)?;
    if is_folder && new.is_beneath(identity(&found)) {
        return Err(INTO_ITSELF.into());
    }
    let may_replace = replace && !is_folder && is_replaceable(new.find(to.base())?.as_ref())?;
    let (from, to) = (OsStr::from_bytes(from.base()), OsStr::from_bytes(to.base()));
    if may_replace {
        fileops::move_at(&old.folder, from, &new.folder, to)
    } else {
        fileops::move_at_to_new(&old.folder, from, &new.folder, to)
    }
    .map_err(moved)?;
    new.made.keep();
    new.flush()?;
    old.flush()
}

const INTO_ITSELF: OpenError = OpenError::Refused("a folder cannot be moved into itself");

/// Whether what was found is a folder, if it may be moved at all.
fn may_move(disk: &LocalDisk, found: &Stat) -> Result<bool, ChangeError> {
    match kind(found) {
        FileType::RegularFile | FileType::Symlink => Ok(false),
        FileType::Directory if disk.holds_hidden(identity(found))? => Err(HOLDS_HIDDEN.into()),
        FileType::Directory => Ok(true),
        _ => Err(NOT_A_FILE.into()),
    }
}

/// Whether there is something that a file replaces.
fn is_replaceable(found: Option<&Stat>) -> Result<bool, ChangeError> {
    match found.map(kind) {
        None => Ok(false),
        Some(FileType::RegularFile | FileType::Symlink) => Ok(true),
        Some(_) => Err(ChangeError::Exists),
    }
}

fn moved(error: io::Error) -> ChangeError {
    match Errno::from_io_error(&error) {
        Some(Errno::XDEV) => ChangeError::Io(io::Error::other(
            "the new name lies on another file system; copy it there, and remove it here",
        )),
        Some(Errno::INVAL) => INTO_ITSELF.into(),
        // Something was put there meanwhile.
        Some(Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY) => ChangeError::Exists,
        _ => changed(error),
    }
}

pub(super) fn changed(error: io::Error) -> ChangeError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => ChangeError::Exists,
        io::ErrorKind::DirectoryNotEmpty => ChangeError::NotEmpty,
        io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename => OpenError::NotFound.into(),
        io::ErrorKind::PermissionDenied => OpenError::Refused("permission denied").into(),
        _ if is_no_space(&error) => ChangeError::NoSpace,
        _ => ChangeError::Io(error),
    }
}

#[cfg(test)]
#[path = "change/tests.rs"]
mod tests;
