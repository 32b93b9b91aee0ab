//! Sweeps what was staged beneath the root and given up.
//!
//! It goes through all folders, one piece of one at a time, and pauses now and then. No link is followed, none of the
//! server's own folders is entered, and no other file system. What is in use is told by its lock ([`Left`]).

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::fs::{FileType, fstat};

use super::listing::folder::{Folder, Raw};
use super::{LocalDisk, identity};
use crate::fileops;
use crate::limits::{DEPTH_MAX, SWEEP_ENTRIES, SWEEP_PAUSE, WALK_READ};
use crate::names;
use crate::staged::{FolderId, Left, is_left_name};
use crate::storage::{Identity, Swept};

pub(super) fn sweep(
    disk: &LocalDisk,
    older_than: Duration,
    is_owned: &dyn Fn(&Identity) -> bool,
) -> io::Result<Swept> {
    let is_owned = |found: &Metadata| is_owned(&Identity::of(found));
    let left = Left::since(older_than, &is_owned);
    let root = fileops::open_folder(&disk.root)?;
    let device = identity(&fstat(&root)?).0;
    let hidden: Vec<FolderId> = disk.hidden_now().collect();
    let (mut swept, mut looked) = (Swept::default(), 0);
    let mut buffer = Vec::with_capacity(WALK_READ);
    let mut levels = vec![Level::of(root)?];
    while let Some(level) = levels.last_mut() {
        // A folder that cannot be read is passed over.
        let Ok(Some(raw)) = level.folder.next(&mut buffer) else {
            levels.pop();
            continue;
        };
        looked += 1;
        if looked % SWEEP_ENTRIES == 0 {
            std::thread::sleep(SWEEP_PAUSE);
        }
        if is_left_name(&raw.name) {
            let rooms = left.remove(&level.file, OsStr::from_bytes(&raw.name));
            swept.files += rooms.len() as u64;
            swept.bytes += rooms.iter().sum::<u64>();
        } else if levels.len() <= DEPTH_MAX {
            let entered = enter(levels.last(), &raw, device, &hidden);
            entered.into_iter().for_each(|level| levels.push(level));
        }
    }
    Ok(swept)
}

/// A folder that is being swept.
struct Level {
    file: File,
    folder: Folder,
}

impl Level {
    fn of(file: File) -> io::Result<Self> {
        let folder = file.try_clone()?;
        Ok(Self { file, folder: Folder::new(folder.into()) })
    }
}

/// Opens a folder that may be entered.
fn enter(here: Option<&Level>, raw: &Raw, device: u64, hidden: &[FolderId]) -> Option<Level> {
    let may_be_one = matches!(raw.kind, FileType::Directory | FileType::Unknown);
    if !may_be_one || names::is_reserved(&raw.name) {
        return None;
    }
    let file = fileops::open_folder_at(&here?.file, OsStr::from_bytes(&raw.name)).ok()?;
    let id = identity(&fstat(&file).ok()?);
    if id.0 != device || hidden.contains(&id) {
        return None;
    }
    Level::of(file).ok()
}
