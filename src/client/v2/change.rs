//! What is changed on a server without moving bytes of files: removals and new names.

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::answers::not_there;
use super::link::{Arrived, Link};
use super::upload::{check_protocol, link_of};
use crate::client::pace::Pace;
use crate::client::put::check_name;
use crate::client::{FetchError, Observer, Server, Settings, Tried, with_retries};
use crate::codec::v2::{ClientFrame, Move, Remove};
use crate::exchange::{Heard, Requester};

/// Removes a file, a symbolic link as such or an empty folder; with `recursive` a folder with all that is in it.
///
/// # Errors
/// If it is not removed. Where the connection broke before the server's word arrived it may be removed all the same;
/// then the next attempt says that there is no such file.
pub async fn remove(
    server: &Server,
    name: &[u8],
    recursive: bool,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<(), FetchError> {
    check_name(name)?;
    let body = Remove { recursive, name: Bytes::copy_from_slice(name) };
    let ask = |requester: &mut Requester| requester.remove(body.clone());
    change(server, name, &ask, settings, observer, stopping).await
}

/// Gives a file or a folder on a server another name. Only a file is replaced, by a file, and only if `replace` says so.
///
/// # Errors
/// As [`remove`].
pub async fn rename(
    server: &Server,
    from: &[u8],
    to: &[u8],
    replace: bool,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<(), FetchError> {
    check_name(from)?;
    check_name(to)?;
    let body = Move { replace, from: Bytes::copy_from_slice(from), to: Bytes::copy_from_slice(to) };
    let ask = |requester: &mut Requester| requester.rename(body.clone());
    change(server, from, &ask, settings, observer, stopping).await
}

async fn change(
    server: &Server,
    name: &[u8],
    ask: &dyn Fn(&mut Requester) -> ClientFrame,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<(), FetchError> {
    check_protocol(server, settings)?;
    with_retries(settings, observer, stopping, async || {
        let changing = once(server, name, ask, settings, observer);
        let changed = stopping.run_until_cancelled(changing).await;
        Tried { result: changed.unwrap_or(Err(FetchError::Interrupted)), has_brought_something: false }
    })
    .await
}

async fn once(
    server: &Server,
    name: &[u8],
    ask: &dyn Fn(&mut Requester) -> ClientFrame,
    settings: &Settings,
    observer: &dyn Observer,
) -> Result<(), FetchError> {
    let counted = Arrived::leaving_at(&Pace::default());
    let mut link = link_of(Link::open(server, settings, observer, Arc::clone(&counted), ask).await?, server)?;
    let request = link.last();
    loop {
        match link.hear_along().await? {
            Heard::End { request: ended, .. } | Heard::Stored(ended, ..) if ended == request => return Ok(()),
            Heard::Failed(0, code, text) => return Err(link.ended(code, &text)),
            Heard::Failed(failed, code, text) if failed == request => {
                return Err(not_there(link.unchanged(code, &text, name), name));
            }
            _ => {}
        }
    }
}
