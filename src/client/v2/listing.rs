//! What is in a folder of a server, batch by batch.
//!
//! A batch is handed on before more is asked for, so whoever takes them slowly holds the server up and no
//! memory fills. A connection that breaks is replaced by one that goes on behind the last batch.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::answers::not_there;
use super::ask::link_of;
use super::link::Link;
use crate::client::{FetchError, Observer, Server, Settings, Tried, with_retries};
use crate::codec::v2::{ClientFrame, Entries, List};
use crate::exchange::{Heard, Requester};
use crate::limits::{LIST_KEEP_INTERVAL, LIST_WINDOW};
use crate::listing::{Entry, Selection};

/// Where a listing begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start<'a> {
    /// The name of the folder; empty for all that the server serves.
    pub folder: &'a [u8],
    /// Behind the [`Batch`] that had this cursor, of the same folder with the same selection; empty for the beginning.
    pub cursor: Bytes,
}

impl<'a> From<&'a [u8]> for Start<'a> {
    fn from(folder: &'a [u8]) -> Self {
        Self { folder, cursor: Bytes::new() }
    }
}

/// Some of what is in a folder, in the order of the listing: a folder comes before what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What was found. Each name is relative to the folder and stays in it.
    pub entries: Vec<Entry>,
    /// Where a listing goes on behind these.
    pub cursor: Bytes,
}

impl From<Batch> for Vec<Entry> {
    fn from(batch: Batch) -> Self {
        batch.entries
    }
}

/// Lists a folder of a server, or a file, into `batches`: of [`Batch`], or of `Vec<Entry>` where cursors are of no
/// interest. It ends when all was listed; it waits while nobody takes a batch.
///
/// # Errors
/// As [`fetch`](crate::client::fetch); a server of version 1 cannot list. If nobody can take a batch any more, it
/// was interrupted.
pub async fn list<'a, B: From<Batch>>(
    server: &Server,
    start: impl Into<Start<'a>>,
    selection: &Selection,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
    batches: &Sender<B>,
) -> Result<(), FetchError> {
    let Start { folder, mut cursor } = start.into();
    with_retries(settings, observer, stopping, async || {
        let before = cursor.clone();
        let list = List::new(Bytes::copy_from_slice(folder), selection, before.clone());
        let listing = list_once(server, list, &mut cursor, settings, observer, batches);
        let listed = stopping.run_until_cancelled(listing).await;
        let result = listed.unwrap_or(Err(FetchError::Interrupted));
        Tried { result, has_brought_something: cursor != before }
    })
    .await
}

async fn list_once<B: From<Batch>>(
    server: &Server,
    list: List,
    cursor: &mut Bytes,
    settings: &Settings,
    observer: &dyn Observer,
    batches: &Sender<B>,
) -> Result<(), FetchError> {
    let name = list.name.clone();
    // What does not fit into a request will not fit into the next one either.
    let fits = ClientFrame::List(1, list.clone()).encode(&mut BytesMut::new());
    fits.map_err(|source| FetchError::Selection { source })?;
    let first = |requester: &mut Requester| requester.list(list);
    let opening = Link::open_within(server, settings, observer, Arc::default(), LIST_WINDOW, first).await?;
    let mut link = link_of(opening)?;
    let request = link.last();
    loop {
        match link.hear().await? {
            Heard::Entries(_, entries) => {
                let window = ClientFrame::Window(request, entries.body_len());
                let Entries { cursor: behind, entries } = entries;
                let batch = Batch { entries, cursor: behind.clone() };
                hand_on(&mut link, batches, batch).await?;
                *cursor = behind;
                link.send(&window).await?;
            }
            Heard::End { .. } => return Ok(()),
            Heard::Failed(_, code, text) => return Err(not_there(link.failed(code, &text), &name)),
            _ => {}
        }
    }
}

/// Waits until a batch is taken. The server is told meanwhile that somebody is still there.
async fn hand_on<B: From<Batch>>(
    link: &mut Link,
    batches: &Sender<B>,
    batch: Batch,
) -> Result<(), FetchError> {
    loop {
        tokio::select! {
            biased;
            room = batches.reserve() => {
                room.map_err(|_closed| FetchError::Interrupted)?.send(batch.into());
                return Ok(());
            }
            () = sleep(LIST_KEEP_INTERVAL) => link.send(&ClientFrame::Ping(0, [0; 8])).await?,
        }
    }
}
