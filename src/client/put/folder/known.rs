//! What a server has of a folder before anything is put: files of the same size and time need not be sent.
//!
//! It is a matter of speed. What a server does not list, or what is beyond the bound, is offered like anything else.

use std::collections::HashSet;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::client::folder::Quiet;
use crate::client::v2::listing::list;
use crate::client::{Backoff, Entry, FetchError, Kind, Selection, Server, Settings};
use crate::limits::{FOLDER_BATCHES, PUT_KNOWN_MAX};

/// Bytes of a digest that stand for a file: enough that no two of them are taken for one.
const MARK_LEN: usize = 16;

/// The files that a server has.
#[derive(Default)]
pub(super) struct Known(HashSet<[u8; MARK_LEN]>);

impl Known {
    /// Whether it has a file of this name within the folder, of this size and time.
    pub(super) fn has(&self, name: &[u8], size: u64, modified: (i64, u32)) -> bool {
        !self.0.is_empty() && self.0.contains(&mark(name, size, modified))
    }
}

fn mark(name: &[u8], size: u64, (seconds, nanoseconds): (i64, u32)) -> [u8; MARK_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_be_bytes()).update(&seconds.to_be_bytes()).update(&nanoseconds.to_be_bytes());
    hasher.update(name);
    let mut mark = [0; MARK_LEN];
    mark.copy_from_slice(&hasher.finalize().as_bytes()[..MARK_LEN]);
    mark
}

/// Asks what is in the folder `name` of `server`; nothing is known if it does not say so at once.
///
/// # Errors
/// [`FetchError::Interrupted`] if `stopping` is cancelled.
pub(super) async fn look(
    server: &Server,
    name: &[u8],
    selection: &Selection,
    settings: &Settings,
    stopping: &CancellationToken,
) -> Result<Known, FetchError> {
    let (batches, mut listed) = mpsc::channel::<Vec<Entry>>(FOLDER_BATCHES);
    let selection = Selection { follow_links: false, ..selection.clone() };
    let settings = Settings { backoff: Backoff { retries: 0, ..settings.backoff }, ..settings.clone() };
    let mut known = Known::default();
    let taking = async {
        while let Some(batch) = listed.recv().await {
            let files = batch.iter().filter(|entry| entry.kind == Kind::File);
            known.0.extend(files.map(|entry| mark(&entry.name, entry.size, entry.modified)));
            if known.0.len() >= PUT_KNOWN_MAX {
                break;
            }
        }
        drop(listed);
    };
    let listing = async {
        let listing = list(server, name, &selection, &settings, &Quiet, stopping, &batches).await;
        drop(batches);
        listing
    };
    // That it cannot be told, be it for want of a right, is no failure of what is wanted.
    let (_, ()) = tokio::join!(listing, taking);
    if stopping.is_cancelled() { Err(FetchError::Interrupted) } else { Ok(known) }
}
