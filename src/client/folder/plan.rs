//! What is to be done with each entry of a folder: made, fetched, kept, or told of as a failure.
//!
//! It runs in a thread of its own, because it looks at the disk.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Files, Item, Lane, Outcome, Shared, concerns_all};
use crate::client::{Entry, FetchError, Kind};
use crate::limits::{FOLDER_SMALL_MAX, NAME_MAX};
use crate::names::{FileName, NameError};
use crate::staged::{Attributes, StageError};
use crate::text;

/// Looks at all entries, as they come; no more files are added then. Blocks.
pub(super) fn run(
    shared: &Shared,
    files: &Files,
    mut listed: mpsc::Receiver<Vec<Entry>>,
) -> Result<(), FetchError> {
    let planned = match files {
        Files::Names(names) => names.iter().try_for_each(|name| of_name(shared, name)),
        Files::Folder { name, .. } => loop {
            let Some(batch) = listed.blocking_recv() else { break Ok(()) };
            if let Err(error) = batch.into_iter().try_for_each(|entry| of_entry(shared, name, entry)) {
                break Err(error);
            }
        },
    };
    shared.queue.close();
    planned
}

/// A file of which only the name is known: what it is, its description will tell.
fn of_name(shared: &Shared, name: &FileName) -> Result<(), FetchError> {
    shared.count_found(0);
    let remote = Bytes::copy_from_slice(name.as_bytes());
    add(shared, Lane::Small, Item { name: name.clone(), remote, listed: None, failures: 0 })
}

fn of_entry(shared: &Shared, folder: &[u8], entry: Entry) -> Result<(), FetchError> {
    shared.told.wait_for_room();
    if entry.name.is_empty() {
        let Entry { modified, mode, .. } = entry;
        return match entry.kind {
            Kind::Folder => {
                shared.staged.top(&Attributes { mode, modified, sparse: false });
                Ok(())
            }
            _ => Err(FetchError::NotAFolder(text::shown(folder).to_string())),
        };
    }
    let name = match FileName::parse(&entry.name) {
        Ok(name) => name,
        Err(error) => return tell(shared, &entry.name, unusable(&entry.name, error)),
    };
    let Entry { size, modified, mode, sparse, .. } = entry;
    let attributes = Attributes { mode, modified, sparse };
    match entry.kind {
        Kind::Folder => match shared.staged.folder(&name, &attributes) {
            Ok(()) => Ok(()),
            Err(error) => tell(shared, name.as_bytes(), error.into()),
        },
        Kind::Closed => {
            let path = shown(name.as_bytes());
            tell(shared, name.as_bytes(), FetchError::Unlisted(path))
        }
        Kind::Link => {
            shared.told.leave(Outcome::Skipped { name: name.as_bytes().to_vec() });
            Ok(())
        }
        Kind::File => {
            shared.count_found(size);
            let remote = joined(folder, name.as_bytes());
            if remote.len() > NAME_MAX {
                return lost(shared, name.as_bytes(), unusable(&remote, NameError::TooLong));
            }
            let item = Item { name, remote, listed: Some((size, attributes)), failures: 0 };
            of_file(shared, item, size, &attributes)
        }
    }
}

fn of_file(shared: &Shared, item: Item, size: u64, attributes: &Attributes) -> Result<(), FetchError> {
    match shared.keeps(&item, size, attributes) {
        Ok(true) => {
            shared.told.leave(Outcome::Kept { name: item.name, size });
            return Ok(());
        }
        Ok(false) => {}
        Err(error) => return lost(shared, item.name.as_bytes(), error),
    }
    let lane = if size > FOLDER_SMALL_MAX { Lane::Large } else { Lane::Small };
    add(shared, lane, item)
}

fn add(shared: &Shared, lane: Lane, item: Item) -> Result<(), FetchError> {
    if shared.queue.add(lane, item) { Ok(()) } else { Err(FetchError::Interrupted) }
}

/// A file that was found is not here, and will not be.
fn lost(shared: &Shared, name: &[u8], error: FetchError) -> Result<(), FetchError> {
    shared.count_done(0);
    tell(shared, name, error)
}

fn tell(shared: &Shared, name: &[u8], error: FetchError) -> Result<(), FetchError> {
    if concerns_all(&error) {
        return Err(error);
    }
    shared.told.leave(Outcome::Failed { name: name.to_vec(), error });
    Ok(())
}

/// A name that the server lists, and that no file can be asked for by.
fn unusable(name: &[u8], error: NameError) -> FetchError {
    let source = io::Error::new(io::ErrorKind::InvalidInput, error);
    StageError::Name { path: shown(name), source }.into()
}

fn joined(folder: &[u8], name: &[u8]) -> Bytes {
    if folder.is_empty() { Bytes::copy_from_slice(name) } else { [folder, b"/", name].concat().into() }
}

fn shown(name: &[u8]) -> String {
    text::shown(name).to_string()
}
