//! What an earlier run has left in a folder: found, believed or removed.
//!
//! A walk sees the contents of a folder before the folder itself, follows no link and is bounded in
//! depth and entries. In a folder that exists it passes over what it cannot open.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::given::Given;
use super::look::{self, Identity};
use super::note::Moment;
use super::parents::open_at;
use super::{Attributes, WHILE_RECEIVING};
use crate::fileops;
use crate::limits::{DEPTH_MAX, FOLDER_WALK_MAX};
use crate::names::is_reserved;

/// An entry that a walk has come to.
struct Entry<'a> {
    above: &'a File,
    base: &'a OsStr,
    /// From the top.
    name: &'a [u8],
    is_folder: bool,
}

impl Entry<'_> {
    fn is_hidden(&self) -> bool {
        is_reserved(self.base.as_bytes())
    }

    fn remove(&self) -> io::Result<()> {
        let remove = if self.is_folder { fileops::remove_folder_at } else { fileops::remove_file_at };
        remove(self.above, self.base)
    }
}

/// The files that lie in a new folder. With `before`, those that were changed then or later are removed:
/// a power cut may have left anything of them. What is hidden has a journal of its own.
pub(super) fn sift(top: &File, before: Option<Moment>) -> io::Result<HashSet<Identity>> {
    let mut left = HashSet::new();
    each_entered(top, &mut |entry| {
        if entry.is_folder || entry.is_hidden() {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(found) = look::at(entry.above, entry.base)? else { return Ok(ControlFlow::Continue(())) };
        let is_whole = before.is_none_or(|before| found.changed < before);
        if found.kind == FileType::RegularFile && is_whole {
            left.insert(found.identity);
        } else {
            entry.remove()?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(left)
}

/// Removes from a new folder what this run was not given: files and folders of an earlier one, and hidden
/// files but those in `hidden`.
pub(super) fn tidy(
    top: &File,
    given: &Given,
    folders: &BTreeMap<Box<[u8]>, Attributes>,
    hidden: &BTreeSet<Vec<u8>>,
) -> io::Result<()> {
    each_entered(top, &mut |entry| {
        if entry.is_folder {
            if !folders.contains_key(entry.name) {
                // One that was not named but holds something stays.
                let _ = entry.remove();
            }
        } else if entry.is_hidden() {
            if !hidden.contains(entry.name) {
                entry.remove()?;
            }
        } else if let Some(found) = look::at(entry.above, entry.base)?
            && given.is_left(found.identity)
        {
            entry.remove()?;
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Removes everything in a folder.
pub(super) fn clear(top: &File) -> io::Result<()> {
    each(top, &mut |entry| entry.remove().map(ControlFlow::Continue))
}

/// Whether there is nothing but folders in a folder.
pub(super) fn is_empty(top: &File) -> io::Result<bool> {
    let mut is_empty = true;
    each(top, &mut |entry| {
        is_empty &= entry.is_folder;
        Ok(if is_empty { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(is_empty)
}

/// Removes the files whose names begin so, wherever they lie in an existing folder; whether it is
/// certain that there are no more. Where looking or removing is not allowed there is nothing to be done.
pub(super) fn remove_hidden(top: &File, prefix: &str) -> bool {
    let mut is_sure = true;
    let mut remove = |entry: &Entry<'_>| {
        if !entry.is_folder && entry.base.as_bytes().starts_with(prefix.as_bytes()) {
            is_sure &= entry.remove().is_ok_or_forbidden();
        }
        Ok(ControlFlow::Continue(()))
    };
    let mut walk = Walk { left: FOLDER_WALK_MAX, enter: false, has_passed_over: false, visit: &mut remove };
    let walked = walk.folder(top, &mut Vec::new(), DEPTH_MAX).map(drop).is_ok_or_forbidden();
    let has_passed_over = walk.has_passed_over;
    is_sure && walked && !has_passed_over
}

trait OrForbidden {
    /// Whether it was done, or never can be.
    fn is_ok_or_forbidden(&self) -> bool;
}

impl OrForbidden for io::Result<()> {
    fn is_ok_or_forbidden(&self) -> bool {
        let forbidden = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
        self.as_ref().err().is_none_or(|error| forbidden.contains(&error.kind()))
    }
}

fn each(top: &File, visit: &mut Visit<'_>) -> io::Result<()> {
    Walk { left: FOLDER_WALK_MAX, enter: false, has_passed_over: false, visit }
        .folder(top, &mut Vec::new(), DEPTH_MAX)
        .map(|_| ())
}

/// As [`each`], in a folder of which an earlier run may have been about to finish the folders: files can be
/// put into all of them after that. One that cannot be opened is an error: nothing is known of what lies there.
fn each_entered(top: &File, visit: &mut Visit<'_>) -> io::Result<()> {
    Walk { left: FOLDER_WALK_MAX, enter: true, has_passed_over: false, visit }
        .folder(top, &mut Vec::new(), DEPTH_MAX)
        .map(|_| ())
}

type Visit<'a> = dyn FnMut(&Entry<'_>) -> io::Result<ControlFlow<()>> + 'a;

struct Walk<'a, 'b> {
    /// Entries that may still be looked at.
    left: usize,
    enter: bool,
    /// Whether a folder could not be opened although that is allowed.
    has_passed_over: bool,
    visit: &'a mut Visit<'b>,
}

impl Walk<'_, '_> {
    fn folder(&mut self, folder: &File, name: &mut Vec<u8>, depth: usize) -> io::Result<ControlFlow<()>> {
        let len = name.len();
        for (base, is_folder) in look::names(folder)? {
            self.left = self.left.checked_sub(1).ok_or(io::ErrorKind::FileTooLarge)?;
            if len > 0 {
                name.push(b'/');
            }
            name.extend_from_slice(base.as_bytes());
            if is_folder && depth > 0 && self.inner(folder, &base, name, depth - 1)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            let flow = (self.visit)(&Entry { above: folder, base: &base, name, is_folder })?;
            name.truncate(len);
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn inner(
        &mut self,
        folder: &File,
        base: &OsStr,
        name: &mut Vec<u8>,
        depth: usize,
    ) -> io::Result<ControlFlow<()>> {
        let found = if self.enter { look::at(folder, base)? } else { None };
        if found.is_some_and(|found| found.mode & WHILE_RECEIVING != WHILE_RECEIVING) {
            fileops::set_mode_at(folder, base, WHILE_RECEIVING)?;
        }
        match open_at(folder, base) {
            Ok(inner) => self.folder(&inner, name, depth),
            Err(error) if self.enter => Err(error.into()),
            Err(error) => {
                self.has_passed_over |= !matches!(
                    error,
                    Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::NOTDIR | Errno::LOOP
                );
                Ok(ControlFlow::Continue(()))
            }
        }
    }
}
