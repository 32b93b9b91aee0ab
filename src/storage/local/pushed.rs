//! The folder of files that are on their way to receivers: sweeps what was given up there.
//!
//! It is flat, and nobody but this server has anything in it. How old something is tells the time of its last change
//! of whatever kind, because the time of modification is the sender's.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;

use super::listing::folder::Folder;
use crate::fileops;
use crate::limits::WALK_READ;
use crate::names::FileName;
use crate::staged::{Left, is_left_name};
use crate::storage::Swept;

pub(super) fn sweep(
    folder: &Path,
    older_than: Duration,
    is_owned: &dyn Fn(&FileName) -> bool,
) -> io::Result<Swept> {
    let keep_none = |_: &std::fs::Metadata| false;
    let left = Left::since(older_than, &keep_none);
    let file = fileops::open_folder(folder)?;
    let mut entries = Folder::new(file.try_clone()?.into());
    let (mut swept, mut buffer) = (Swept::default(), Vec::with_capacity(WALK_READ));
    let before = SystemTime::now().checked_sub(older_than).unwrap_or(UNIX_EPOCH);
    while let Some(raw) = entries.next(&mut buffer)? {
        if is_left_name(&raw.name) {
            let rooms = left.remove(&file, OsStr::from_bytes(&raw.name));
            swept.files += rooms.len() as u64;
            swept.bytes += rooms.iter().sum::<u64>();
            continue;
        }
        let Some(name) = FileName::pushed_base(&raw.name).filter(|name| !is_owned(name)) else { continue };
        let Ok(found) = folder.join(OsStr::from_bytes(name.base())).symlink_metadata() else { continue };
        let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(found.ctime()).unwrap_or_default());
        let is_file = matches!(raw.kind, FileType::RegularFile | FileType::Unknown) && found.is_file();
        if is_file
            && changed <= before
            && fileops::remove_file_at(&file, OsStr::from_bytes(&raw.name)).is_ok()
        {
            swept.files += 1;
            swept.bytes += found.len();
        }
    }
    Ok(swept)
}
