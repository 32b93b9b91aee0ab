//! Looks through a served folder for large files, as a convenience for whoever wants to prepare them.
//!
//! What it names may have changed a moment later, and is opened like any other name. Links are not
//! followed, so it ends; folders that cannot be read are passed over.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::names::{self, FileName};

pub(super) fn large_files(
    root: &Path,
    hidden: &[PathBuf],
    size: u64,
    count: usize,
) -> io::Result<Vec<FileName>> {
    let hidden: HashSet<(u64, u64)> = hidden
        .iter()
        .filter_map(|folder| folder.metadata().ok())
        .map(|found| (found.dev(), found.ino()))
        .collect();
    let mut found = Vec::new();
    let mut folders = vec![Vec::new()];
    while let Some(folder) = folders.pop() {
        let entries = match root.join(std::ffi::OsStr::from_bytes(&folder)).read_dir() {
            Ok(entries) => entries,
            Err(error) if folder.is_empty() => return Err(error),
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            let (Ok(metadata), base) = (entry.metadata(), entry.file_name()) else { continue };
            if names::is_reserved(base.as_bytes()) {
                continue;
            }
            let path = if folder.is_empty() {
                base.as_bytes().to_vec()
            } else {
                [folder.as_slice(), base.as_bytes()].join(&b'/')
            };
            // A name that cannot be asked for (too long, too deep) is not looked into either.
            let Ok(name) = FileName::parse(&path) else { continue };
            if metadata.is_dir() && !hidden.contains(&(metadata.dev(), metadata.ino())) {
                folders.push(path);
            } else if metadata.is_file() && metadata.len() >= size {
                found.push(name);
                if found.len() >= count {
                    return Ok(found);
                }
            }
        }
    }
    Ok(found)
}
