//! What is in the local folder, found one entry after the other in memory that does not depend on how much there is.
//!
//! It runs in a thread of its own, because it looks at the disk, and waits where the queue is full. A folder comes
//! before what is in it. Links to files are the files; links to folders are followed only if that was asked for, and
//! never into a folder that lies above. What cannot be put is told and counted.

use std::fs::{Metadata, ReadDir};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::Bytes;

use super::{Item, PutShared, What, local_path};
use crate::client::folder::concerns_all;
use crate::client::folder::queue::Lane;
use crate::client::folder::sums::Outcome;
use crate::client::v2::random;
use crate::client::{FetchError, Selection};
use crate::limits::{DEPTH_MAX, PUT_WHOLE_MAX};
use crate::names::{FileName, NameError};
use crate::text;

/// The permission bits that a server is told.
const MODE: u32 = 0o777;
/// What a folder needs so that files can be put into it.
const WHILE_PUTTING: u32 = 0o700;

/// A folder that is being walked.
struct Level {
    entries: ReadDir,
    /// What it is called in the folder, with a `/` at its end unless it is empty.
    prefix: Vec<u8>,
    /// Device and number.
    id: (u64, u64),
}

/// Finds all that is to be put; no more is added then. Blocks.
pub(super) fn run(shared: &PutShared) -> Result<(), FetchError> {
    let walked = walk(shared);
    shared.queue.close();
    walked
}

fn walk(shared: &PutShared) -> Result<(), FetchError> {
    let top = shared.local.as_path();
    let unreadable = |source| FetchError::Unreadable { path: shown(top), source };
    let found = top.metadata().map_err(unreadable)?;
    let entries = top.read_dir().map_err(unreadable)?;
    if !shared.remote.is_empty() {
        add(shared, Lane::Small, item(shared, Vec::new(), folder(&found)))?;
    }
    let mut levels = vec![Level { entries, prefix: Vec::new(), id: id(&found) }];
    while let Some(level) = levels.last_mut() {
        if shared.queue.is_stopped() {
            return Err(FetchError::Interrupted);
        }
        shared.told.wait_for_room();
        match level.entries.next() {
            None => drop(levels.pop()),
            Some(Ok(entry)) => {
                let name = [level.prefix.as_slice(), entry.file_name().as_bytes()].concat();
                if let Some(level) = look(shared, &levels, name)? {
                    levels.push(level);
                }
            }
            Some(Err(source)) => {
                let name = level.prefix.strip_suffix(b"/").unwrap_or_default().to_vec();
                levels.pop();
                let path = shown(&local_path(top, &name));
                tell(shared, name, FetchError::Unreadable { path, source })?;
            }
        }
    }
    Ok(())
}

/// Looks at an entry; the folder to be walked next, if it is one.
fn look(shared: &PutShared, levels: &[Level], name: Vec<u8>) -> Result<Option<Level>, FetchError> {
    let Selection { recursive, follow_links, patterns, .. } = &shared.selection;
    if !patterns.include(&name) {
        return Ok(None);
    }
    let path = local_path(&shared.local, &name);
    let looked = path.symlink_metadata().and_then(|found| match found.is_symlink() {
        true => path.metadata().map(|found| (found, true)),
        false => Ok((found, false)),
    });
    let (found, is_link) = match looked {
        Ok(found) => found,
        Err(source) => {
            tell(shared, name, FetchError::Unreadable { path: shown(&path), source })?;
            return Ok(None);
        }
    };
    let is_in_itself = || levels.iter().any(|level| level.id == id(&found));
    if found.is_dir() && is_link && (!follow_links || is_in_itself()) {
        shared.told.leave(Outcome::Skipped { name });
    } else if found.is_dir() && *recursive {
        return enter(shared, name, &path, &found, levels.len());
    } else if found.is_file() {
        add_file(shared, name, &found, levels.len())?;
    } else if !found.is_dir() {
        shared.told.leave(Outcome::Special { name });
    }
    Ok(None)
}

fn add_file(shared: &PutShared, name: Vec<u8>, found: &Metadata, depth: usize) -> Result<(), FetchError> {
    let size = found.len();
    shared.counts.found(size);
    match check(shared, &name, depth) {
        Ok(name) if shared.is_known(&name, size, modified(found)) => return Ok(()),
        Ok(_) => {}
        Err(error) => {
            shared.counts.settled();
            return tell(shared, name, error);
        }
    }
    let lane = if size > PUT_WHOLE_MAX { Lane::Large } else { Lane::Small };
    add(shared, lane, item(shared, name, What::File(size)))
}

fn enter(
    shared: &PutShared,
    name: Vec<u8>,
    path: &Path,
    found: &Metadata,
    depth: usize,
) -> Result<Option<Level>, FetchError> {
    if let Err(error) = check(shared, &name, depth) {
        return tell(shared, name, error).map(|()| None);
    }
    let entries = match path.read_dir() {
        Ok(entries) => entries,
        Err(source) => {
            let error = FetchError::Unreadable { path: shown(path), source };
            return tell(shared, name, error).map(|()| None);
        }
    };
    let prefix = [name.as_slice(), b"/"].concat();
    add(shared, Lane::Small, item(shared, name, folder(found)))?;
    Ok(Some(Level { entries, prefix, id: id(found) }))
}

/// Its name, if a server may have something of it.
fn check(shared: &PutShared, name: &[u8], depth: usize) -> Result<FileName, FetchError> {
    let unfit = |source| FetchError::Name { name: text::shown(name).to_string(), source };
    if depth > DEPTH_MAX {
        return Err(unfit(NameError::TooDeep));
    }
    FileName::parse(&remote(shared, name)).and_then(|_| FileName::parse(name)).map_err(unfit)
}

fn item(shared: &PutShared, name: Vec<u8>, what: What) -> Item {
    let remote = remote(shared, &name);
    Item { name: name.into(), remote, what, transfer: random(), attempt: 1, failures: 0 }
}

/// What the server is to call something.
fn remote(shared: &PutShared, name: &[u8]) -> Bytes {
    match (shared.remote.as_slice(), name) {
        (b"", name) => Bytes::copy_from_slice(name),
        (folder, b"") => Bytes::copy_from_slice(folder),
        (folder, name) => [folder, b"/", name].concat().into(),
    }
}

fn folder(found: &Metadata) -> What {
    What::Folder { mode: found.mode() & MODE | WHILE_PUTTING, modified: modified(found) }
}

fn modified(found: &Metadata) -> (i64, u32) {
    (found.mtime(), u32::try_from(found.mtime_nsec()).unwrap_or(0))
}

fn id(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

fn add(shared: &PutShared, lane: Lane, item: Item) -> Result<(), FetchError> {
    if shared.queue.add(lane, item) { Ok(()) } else { Err(FetchError::Interrupted) }
}

fn tell(shared: &PutShared, name: Vec<u8>, error: FetchError) -> Result<(), FetchError> {
    if concerns_all(&error) {
        return Err(error);
    }
    shared.told.leave(Outcome::Failed { name, error });
    Ok(())
}

fn shown(path: &Path) -> String {
    text::shown(path.as_os_str().as_bytes()).to_string()
}
