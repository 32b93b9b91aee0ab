//! Sends a local file to somebody who listens, by way of the server both are connected to.
//!
//! The server pulls the file as in an upload ([`super::put()`]), and answers when the receiver has it and has found the
//! same digest. So an attempt that breaks off costs what was under way, on either side, and nothing else.

use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::put::put_at;
use super::{FetchError, Observer, Put, Server, Settings, UploadSource};
use crate::names::ReceiverName;

/// Sends a local file to whoever listens on `server` as `receiver`, who is told that it is called `name` and decides
/// where it lands; gives up at once when `stopping` is cancelled. When this returns the receiver has it, whole and on
/// its disk. [`Put::unchanged`] is never set.
///
/// # Errors
/// The error of the last attempt: that nobody listens under this name ([`Code::NotFound`](crate::error::Code)), what the
/// receiver said when it did not take the file, or what [`put`](super::put()) may fail with. Where the server's
/// last word did not arrive the receiver may have the file all the same.
pub async fn push(
    server: &Server,
    receiver: &ReceiverName,
    source: &UploadSource,
    name: &[u8],
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<Put, FetchError> {
    let pace = Pace::of(settings);
    let pushing = put_at(&pace, Some(receiver), server, source, name, settings, observer, stopping);
    pushing.await.map_err(|error| match error {
        FetchError::NoUploads { server } => FetchError::NoPushes { server },
        other => other,
    })
}
