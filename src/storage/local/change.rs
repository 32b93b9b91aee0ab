//! What is changed beneath the root: places to stage in, folders, removals, new names.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::LocalDisk;
use crate::error::is_no_space;
use crate::fileops;
use crate::names::FileName;
use crate::staged::{Place, StageError};
use crate::storage::{ChangeError, Removed};

fn path(disk: &LocalDisk, name: &FileName) -> PathBuf {
    disk.root.join(OsStr::from_bytes(name.as_bytes()))
}

pub(super) fn place(disk: &LocalDisk, name: &FileName) -> Result<Place, ChangeError> {
    Place::at(&path(disk, name)).map_err(|error| match error {
        StageError::Io { source, .. } => changed(source),
        other => ChangeError::Io(io::Error::other(other.to_string())),
    })
}

pub(super) fn make_folder(disk: &LocalDisk, name: &FileName) -> Result<(), ChangeError> {
    fileops::create_folders(&path(disk, name)).map(drop).map_err(changed)
}

pub(super) fn remove(disk: &LocalDisk, name: &FileName, _recursive: bool) -> Result<Removed, ChangeError> {
    let path = path(disk, name);
    let bytes = path.symlink_metadata().map_err(changed)?.len();
    fileops::remove_file(&path).map_err(changed)?;
    Ok(Removed { files: 1, folders: 0, bytes })
}

pub(super) fn rename(
    disk: &LocalDisk,
    from: &FileName,
    to: &FileName,
    replace: bool,
) -> Result<(), ChangeError> {
    let (from, to) = (path(disk, from), path(disk, to));
    if replace { fileops::rename(&from, &to) } else { fileops::rename_to_new(&from, &to) }.map_err(changed)
}

fn changed(error: io::Error) -> ChangeError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => ChangeError::Exists,
        io::ErrorKind::DirectoryNotEmpty => ChangeError::NotEmpty,
        io::ErrorKind::NotFound => crate::storage::OpenError::NotFound.into(),
        _ if is_no_space(&error) => ChangeError::NoSpace,
        _ => ChangeError::Io(error),
    }
}
