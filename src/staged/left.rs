//! What receivers have left behind that nobody goes on with: found by its name, removed under its lock.
//!
//! A receiver holds the lock of its part as long as it lives. Who sweeps takes that lock first, so whoever begins at
//! the same instant either has it already, and keeps everything, or begins anew.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::beside::{self, JOURNAL, NEW_JOURNAL, PART};
use crate::fileops;
use crate::names::STAGED_PREFIX;

/// Bytes of a unit of the room that a file takes.
const UNIT: u64 = 512;

/// What stays although it has such a name.
pub(crate) struct Left<'a> {
    /// Whatever was changed after this is in use.
    before: SystemTime,
    is_owned: &'a dyn Fn(&Metadata) -> bool,
}

/// Whether a name is one of a part or of its journals.
pub(crate) fn is_left_name(name: &[u8]) -> bool {
    name.starts_with(STAGED_PREFIX.as_bytes()) && stem(name).is_some()
}

/// A name without its ending.
fn stem(name: &[u8]) -> Option<&[u8]> {
    [NEW_JOURNAL, JOURNAL, PART].iter().find_map(|ending| name.strip_suffix(ending.as_bytes()))
}

impl<'a> Left<'a> {
    /// Everything that was not changed for so long, and that `is_owned` does not know.
    pub(crate) fn since(age: Duration, is_owned: &'a dyn Fn(&Metadata) -> bool) -> Self {
        let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        Self { before, is_owned }
    }

    /// Removes what has a hidden name in an open folder, with what belongs to it, if nobody uses it. Returns how much
    /// room each of the files has taken.
    pub(crate) fn remove(&self, folder: &File, name: &OsStr) -> Vec<u64> {
        let Some(stem) = stem(name.as_bytes()) else { return Vec::new() };
        let of = |ending: &str| OsString::from_vec([stem, ending.as_bytes()].concat());
        let (part, journals) = (of(PART), [of(JOURNAL), of(NEW_JOURNAL)]);
        let is_part = part == name;
        if !is_part && !matches!(beside::find(folder, &part), Ok(None)) {
            // It goes with its part.
            return Vec::new();
        }
        let opened = if is_part {
            fileops::open_existing_at(folder, &part)
        } else {
            // To have the lock, somebody has to make what is locked.
            self.may_go(folder, name).and_then(|()| fileops::open_or_create_at(folder, &part))
        };
        let Ok(file) = opened else { return Vec::new() };
        let is_free = file.try_lock().is_ok() && beside::is_called(&file, folder, &part);
        if !is_free || (is_part && !self.is_left(&file)) {
            return Vec::new();
        }
        let journals = journals.iter().filter(|journal| !matches!(beside::find(folder, journal), Ok(None)));
        let journals: Vec<&OsString> = journals.collect();
        if journals.iter().any(|journal| self.may_go(folder, journal).is_err()) {
            return Vec::new();
        }
        let mut names: Vec<&OsStr> = journals.into_iter().map(OsString::as_os_str).collect();
        names.push(&part);
        let mut rooms: Vec<u64> = names.iter().filter_map(|name| remove_one(folder, name)).collect();
        if !is_part {
            // It was made a moment ago.
            rooms.pop();
        }
        rooms
    }

    /// Whether an unlocked file in an open folder is nobody's.
    fn may_go(&self, folder: &File, name: &OsStr) -> std::io::Result<()> {
        let is_left = self.is_left(&fileops::open_existing_at(folder, name)?);
        if is_left { Ok(()) } else { Err(std::io::ErrorKind::WouldBlock.into()) }
    }

    fn is_left(&self, file: &File) -> bool {
        let Ok(found) = file.metadata() else { return false };
        // The time of the last change of attributes, because the other one may be set to that of the source.
        let changed =
            u64::try_from(found.ctime()).map(|ctime| SystemTime::UNIX_EPOCH + Duration::from_secs(ctime));
        let is_old = changed.is_ok_and(|changed| changed < self.before);
        beside::is_ours(&found) && is_old && !(self.is_owned)(&found)
    }
}

/// Removes a file; the room it has taken.
fn remove_one(folder: &File, name: &OsStr) -> Option<u64> {
    let room = fileops::open_existing_at(folder.as_fd(), name).and_then(|file| file.metadata());
    let room = room.map_or(0, |found| found.blocks().saturating_mul(UNIT));
    fileops::remove_file_at(folder, name).ok().map(|()| room)
}
