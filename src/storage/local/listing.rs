//! Lists what may be opened beneath a folder, a stretch at a time, in memory that does not depend on it.
//!
//! 1. The folder is walked to as [`Walk`] does, and so is each link that is met: what cannot be opened by
//!    its name is not listed, and the server's own folders are neither listed nor entered.
//! 2. The [cursor](Cursor) tells the folders that lead to where the last stretch ended, and the place in each
//!    of them. They are entered again by the same rules; one that is not there any more is passed over.
//! 3. From there the folders are read on, each entry before what is in it, until the stretch is long enough.
//!
//! Nothing is kept from one stretch to the next: a cursor means the same to every server of this folder.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, stat, statat};
use rustix::io::Errno;

use super::{LocalDisk, Patience, Place, Walk, open_error};
use crate::limits::{DEPTH_MAX, LIST_LINKS_MAX, LIST_LOOKED_MAX, LIST_READ, LIST_STRETCH, LIST_TIME};
use crate::listing::{Entry, Kind, Selection, Stretch};
use crate::names::FileName;
use crate::storage::{ListError, OpenError, PERMISSIONS};

mod cursor;
pub(super) mod folder;

use cursor::{Cursor, Place as Position};
use folder::{Folder, Raw};

/// A folder is opened to be read.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Bytes of a unit of [`Stat::st_blocks`].
const UNIT: u64 = 512;

/// Device and number of a folder there.
type Id = (u64, u64);

pub(super) fn list(
    disk: &LocalDisk,
    name: Option<&FileName>,
    selection: &Selection,
    cursor: &[u8],
) -> Result<Stretch, ListError> {
    let cursor = Cursor::parse(cursor).ok_or(ListError::Cursor)?;
    let components = name.into_iter().flat_map(FileName::components);
    let folders = match Walk::along(disk, components, Patience::Waits)?.arrive()? {
        Place::Folder(folders) => folders,
        Place::File(found) => {
            let entries = match cursor {
                Cursor::Beginning => vec![entry(Kind::File, &found, Bytes::new())],
                _ => Vec::new(),
            };
            return Ok(Stretch { entries, cursor: Cursor::End.to_bytes(), is_last: true });
        }
    };
    let is_beginning = matches!(cursor, Cursor::Beginning);
    let places = match cursor {
        Cursor::Beginning => vec![Position::beginning_of(Vec::new())],
        Cursor::End => {
            return Ok(Stretch { cursor: Cursor::End.to_bytes(), is_last: true, ..Stretch::default() });
        }
        Cursor::Within(places) if places.len() > 1 && !selection.recursive => return Err(ListError::Cursor),
        Cursor::Within(places) => places,
    };
    let mut lister = Lister::new(disk, name, selection, folders)?;
    let entries = if is_beginning && selection.itself { vec![lister.itself()?] } else { Vec::new() };
    lister.resume(places)?;
    lister.run(entries)
}

/// A folder that is being listed.
struct Level {
    /// What it is called in the one before it.
    name: Vec<u8>,
    folder: Folder,
    id: Id,
    /// It was reached by a link.
    by_link: bool,
}

/// A stretch that is being made.
struct Lister<'a> {
    disk: &'a LocalDisk,
    selection: &'a Selection,
    /// The name that was asked for.
    base: &'a [u8],
    hidden: Vec<Id>,
    /// The folders from the root to the one that was asked for.
    above: Vec<Id>,
    /// The folders that are being listed, each within the one before.
    levels: Vec<Level>,
    /// The relative name of the last level, with a `/` at its end unless it is empty.
    prefix: Vec<u8>,
    buffer: Vec<u8>,
}

/// What is known of something in a folder.
struct Found {
    entry: Entry,
    /// The folder to go into next.
    level: Option<Level>,
}

impl<'a> Lister<'a> {
    fn new(
        disk: &'a LocalDisk,
        name: Option<&'a FileName>,
        selection: &'a Selection,
        mut folders: Vec<OwnedFd>,
    ) -> Result<Self, OpenError> {
        let hidden = disk.hidden.iter().filter_map(|folder| stat(folder).ok()).map(|found| id(&found));
        let here = folders.pop().ok_or(OpenError::NotFound)?;
        let above: Result<Vec<Id>, Errno> = folders.iter().map(|folder| Ok(id(&fstat(folder)?))).collect();
        let here = openat(here, ".", READ, Mode::empty()).map_err(open_error)?;
        let found = fstat(&here).map_err(open_error)?;
        let level = Level { name: Vec::new(), folder: Folder::new(here), id: id(&found), by_link: false };
        Ok(Self {
            disk,
            selection,
            base: name.map(FileName::as_bytes).unwrap_or_default(),
            hidden: hidden.collect(),
            above: above.map_err(open_error)?,
            levels: vec![level],
            prefix: Vec::new(),
            buffer: Vec::with_capacity(LIST_READ),
        })
    }

    /// Goes to where the stretch before has ended, or as far on the way there as there still is one.
    fn resume(&mut self, places: Vec<Position>) -> Result<(), ListError> {
        for (depth, Position { name, offset }) in places.into_iter().enumerate() {
            if depth > 0 {
                let raw = Raw { name, kind: FileType::Unknown, behind: 0 };
                let Some(Found { level: Some(level), .. }) = self.look(&raw)? else { return Ok(()) };
                self.enter(level);
            }
            if let Some(level) = self.levels.last_mut() {
                level.folder.seek(offset);
            }
        }
        Ok(())
    }

    /// The folder that was asked for.
    fn itself(&self) -> Result<Entry, OpenError> {
        let top = self.levels.first().ok_or(OpenError::NotFound)?;
        let found = fstat(top.folder.as_fd()).map_err(open_error)?;
        Ok(entry(Kind::Folder, &found, Bytes::new()))
    }

    fn run(mut self, mut entries: Vec<Entry>) -> Result<Stretch, ListError> {
        let deadline = Instant::now() + LIST_TIME;
        let (mut bytes, mut looked) = (0, 0);
        while let Some(level) = self.levels.last_mut() {
            match level.folder.next(&mut self.buffer) {
                Ok(Some(raw)) => {
                    looked += 1;
                    if let Some(Found { entry, level }) = self.look(&raw)? {
                        bytes += entry.wire_len();
                        entries.push(entry);
                        level.into_iter().for_each(|level| self.enter(level));
                    }
                }
                // At its end, or removed meanwhile.
                Ok(None) | Err(Errno::NOENT) => self.leave(),
                Err(Errno::INVAL) => return Err(ListError::Cursor),
                Err(error) => return Err(OpenError::Unavailable(error.into()).into()),
            }
            if bytes >= LIST_STRETCH || looked >= LIST_LOOKED_MAX || Instant::now() >= deadline {
                break;
            }
        }
        let is_last = self.levels.is_empty();
        let cursor = if is_last { Cursor::End } else { Cursor::Within(self.places()) };
        Ok(Stretch { entries, cursor: cursor.to_bytes(), is_last })
    }

    fn places(self) -> Vec<Position> {
        let place = |level: Level| Position { name: level.name, offset: level.folder.offset() };
        self.levels.into_iter().map(place).collect()
    }

    fn enter(&mut self, level: Level) {
        self.prefix.extend_from_slice(&level.name);
        self.prefix.push(b'/');
        self.levels.push(level);
    }

    fn leave(&mut self) {
        if let Some(left) = self.levels.pop() {
            let len = self.prefix.len().saturating_sub(left.name.len() + 1);
            self.prefix.truncate(len);
        }
    }

    /// What something in the last level is, if it is listed.
    fn look(&self, raw: &Raw) -> Result<Option<Found>, ListError> {
        let relative = [self.prefix.as_slice(), &raw.name].concat();
        let separator: &[u8] = if self.base.is_empty() { b"" } else { b"/" };
        let whole = [self.base, separator, &relative].concat();
        let (Ok(whole), Ok(_), Some(here)) =
            (FileName::parse(&whole), FileName::parse(&relative), self.levels.last())
        else {
            return Ok(None);
        };
        let is_other = !matches!(
            raw.kind,
            FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Unknown
        );
        if is_other || !self.selection.patterns.include(&relative) {
            return Ok(None);
        }
        let relative = Bytes::from(relative);
        let here = here.folder.as_fd();
        // What is gone by now, or cannot be looked at, cannot be opened either.
        let Ok(found) = statat(here, OsStr::from_bytes(&raw.name), AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(None);
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {
                Ok(Some(Found { entry: entry(Kind::File, &found, relative), level: None }))
            }
            FileType::Directory => self.folder(&whole, relative, &raw.name, &found, false, |flags| {
                openat(here, OsStr::from_bytes(&raw.name), flags, Mode::empty())
            }),
            FileType::Symlink => self.follow(&whole, relative, &raw.name),
            _ => Ok(None),
        }
    }

    /// What a link leads to, if that is listed.
    fn follow(&self, whole: &FileName, relative: Bytes, name: &[u8]) -> Result<Option<Found>, ListError> {
        let folders = match Walk::new(self.disk, whole, Patience::Waits).and_then(Walk::arrive) {
            Ok(Place::File(found)) => {
                return Ok(Some(Found { entry: entry(Kind::File, &found, relative), level: None }));
            }
            Ok(Place::Folder(folders)) => folders,
            Err(error @ OpenError::Unavailable(_)) => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        let Some(target) = folders.last() else { return Ok(None) };
        let found = fstat(target).map_err(open_error)?;
        let links = self.levels.iter().filter(|level| level.by_link).count();
        if !self.selection.follow_links || links >= usize::from(LIST_LINKS_MAX) {
            return Ok(Some(Found { entry: entry(Kind::Link, &found, relative), level: None }));
        }
        self.folder(whole, relative, name, &found, true, |flags| openat(target, ".", flags, Mode::empty()))
    }

    /// What a folder is, unless it is one of the server's own.
    fn folder(
        &self,
        whole: &FileName,
        relative: Bytes,
        name: &[u8],
        found: &Stat,
        by_link: bool,
        open: impl FnOnce(OFlags) -> Result<OwnedFd, Errno>,
    ) -> Result<Option<Found>, ListError> {
        if self.is_hidden(id(found)) {
            return Ok(None);
        }
        let told = |kind| Ok(Some(Found { entry: entry(kind, found, relative.clone()), level: None }));
        if self.is_within_itself(id(found)) {
            return told(Kind::Link);
        }
        if !self.selection.recursive {
            return told(Kind::Folder);
        }
        if whole.components().count() >= DEPTH_MAX {
            return told(Kind::Closed);
        }
        let folder = match open(READ) {
            Ok(folder) => folder,
            Err(Errno::ACCESS | Errno::PERM) => return told(Kind::Closed),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(OpenError::Unavailable(error.into()).into()),
        };
        // Another one may have taken its name in between.
        let opened = id(&fstat(&folder).map_err(open_error)?);
        if opened != id(found) && (self.is_hidden(opened) || self.is_within_itself(opened)) {
            return Ok(None);
        }
        let level = Level { name: name.to_vec(), folder: Folder::new(folder), id: opened, by_link };
        Ok(Some(Found { entry: entry(Kind::Folder, found, relative), level: Some(level) }))
    }

    fn is_hidden(&self, folder: Id) -> bool {
        self.hidden.contains(&folder)
    }

    /// Whether a folder is one of those that it would be listed in.
    fn is_within_itself(&self, folder: Id) -> bool {
        self.above.contains(&folder) || self.levels.iter().any(|level| level.id == folder)
    }
}

fn id(found: &Stat) -> Id {
    (found.st_dev, found.st_ino)
}

fn entry(kind: Kind, found: &Stat, name: Bytes) -> Entry {
    let size = u64::try_from(found.st_size).unwrap_or(0);
    let room = u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(UNIT);
    Entry {
        kind,
        sparse: kind == Kind::File && room < size,
        size,
        modified: (found.st_mtime, u32::try_from(found.st_mtime_nsec).unwrap_or(0)),
        mode: found.st_mode & PERMISSIONS,
        name,
    }
}

#[cfg(test)]
#[path = "listing/tests.rs"]
mod tests;
