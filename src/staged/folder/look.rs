//! What lies under a name, as far as receiving a folder cares.
//!
//! Nothing here changes anything, and no symbolic link is followed.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::StageError;
use super::super::beside::{failed, shown};
use super::note::Moment;

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) identity: Identity,
    pub(super) kind: FileType,
    pub(super) size: u64,
    pub(super) modified: Moment,
    pub(super) changed: Moment,
    /// How many names it has.
    pub(super) links: u64,
    pub(super) mode: u32,
}

/// What lies under a name in an open folder.
pub(super) fn at(folder: &File, name: &OsStr) -> io::Result<Option<Found>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(found(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What an open file or folder is.
pub(super) fn at_open(file: &File) -> io::Result<Found> {
    Ok(found(&rustix::fs::fstat(file)?))
}

/// Opens a file that lies in an open folder; never through a symbolic link.
pub(super) fn open_file(folder: &File, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?.into())
}

/// The names in an open folder and whether each one is a folder.
pub(super) fn names(folder: &File) -> io::Result<Vec<(OsString, bool)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let is_folder = match entry.file_type() {
            FileType::Unknown => at(folder, name)?.is_some_and(|found| found.kind == FileType::Directory),
            kind => kind == FileType::Directory,
        };
        names.push((name.to_owned(), is_folder));
    }
    Ok(names)
}

/// Whether an entry of an open folder is called exactly so. A file may have several entries (hard links),
/// and several names may lead to one entry (a file system that folds case); this tells them apart.
pub(super) fn has_entry(folder: &File, name: &OsStr) -> io::Result<bool> {
    let entries: HashSet<OsString> = names(folder)?.into_iter().map(|(name, _)| name).collect();
    Ok(entries.contains(name))
}

/// The error of an operation that was given a name: whether the name cannot be here at all is told.
pub(super) fn named<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> StageError + use<'a> {
    move |source| match source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NAMETOOLONG | Errno::INVAL | Errno::ILSEQ) => {
            StageError::Name { path: shown(path), source }
        }
        _ => failed(operation, path)(source),
    }
}

// The fields have other types on other systems.
#[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast, clippy::cast_lossless)]
fn found(stat: &Stat) -> Found {
    Found {
        identity: (stat.st_dev as u64, stat.st_ino as u64),
        kind: FileType::from_raw_mode(stat.st_mode),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        modified: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
        changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        links: stat.st_nlink as u64,
        mode: stat.st_mode as u32,
    }
}
