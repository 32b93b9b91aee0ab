//! The offering side: a local file, stored on the server whole and verified, through any number of attempts.
//!
//! [`put`] is called by the client program for each file. The server pulls: it asks for what it has not, and says
//! "stored" only when all of it is on its disk. So an attempt that breaks off costs what was under way and nothing
//! else. Nothing here prints: whoever wants to show what happens passes an [`Observer`].

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::v2::give::Stored;
use super::v2::upload::{self, Given, Job, Remains};
use super::{FetchError, Observer, Server, Settings, Tried, with_retries};
use crate::names::{FileName, ReceiverName};
use crate::text;
use crate::tree::Root;

pub(super) mod folder;
mod input;
pub(super) mod offer;

/// What is offered to a server.
#[derive(Debug)]
pub enum UploadSource {
    /// The regular file that has this path; symbolic links are followed.
    File(PathBuf),
    /// An open regular file, from its beginning to its end, whatever its position is.
    Open {
        /// The file.
        file: File,
        /// Permission bits that it is to have on the server: the lowest nine of a mode.
        mode: u32,
        /// When it was last changed, as the server is told: seconds since 1970, and nanoseconds.
        modified: (i64, u32),
    },
}

/// A file that is on the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Put {
    /// Its size in bytes.
    pub size: u64,
    /// Its BLAKE3 digest; none if the same was there already and nobody had to compute it.
    pub root: Option<Root>,
    /// The name under which it is stored, if that is not the one that was asked for: a server may name what it receives.
    pub name: Option<FileName>,
    /// The whole time, waits included.
    pub elapsed: Duration,
    /// A file of the same size and time was there already, and was left alone. An attempt whose end was not heard of
    /// may have stored it.
    pub unchanged: bool,
    /// Bytes that the server had already from an earlier program's attempt.
    pub resumed: u64,
}

/// Stores a local file on `server` as `name`; gives up at once when `stopping` is cancelled.
///
/// # Errors
/// The error of the last attempt. Whatever it is, the server has under that name what it had before, or the whole
/// file if only its word did not arrive; what it has received is kept there for the next time.
pub async fn put(
    server: &Server,
    source: &UploadSource,
    name: &[u8],
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<Put, FetchError> {
    let pace = Pace::of(settings);
    put_at(&pace, None, server, source, name, settings, observer, stopping).await
}

/// As [`put`], at a pace that others may keep, too; or to a receiver.
#[allow(clippy::too_many_arguments, reason = "they are what `put` and `push` are given")]
pub(super) async fn put_at(
    pace: &Pace,
    receiver: Option<&ReceiverName>,
    server: &Server,
    source: &UploadSource,
    name: &[u8],
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<Put, FetchError> {
    let began = Instant::now();
    check_name(name)?;
    upload::check_protocol(server, settings)?;
    let job = Job { server, source, name, settings, observer, stopping, pace, receiver };
    let mut remains = Remains::default();
    let given = with_retries(settings, observer, stopping, async || {
        let before = remains.blocks;
        let result = Box::pin(upload::run(&job, &mut remains)).await;
        Tried { result, has_brought_something: remains.blocks > before }
    });
    let Given { name, size, stored, resumed } = given.await?;
    let (root, unchanged) = match stored {
        Stored::New(root) => (Some(root), false),
        Stored::Same => (None, true),
    };
    Ok(Put { size, root, name, elapsed: began.elapsed(), unchanged, resumed })
}

/// Whether something on a server may have this name at all.
pub(super) fn check_name(name: &[u8]) -> Result<(), FetchError> {
    let unfit = |source| FetchError::Name { name: text::shown(name).to_string(), source };
    FileName::parse(name).map(drop).map_err(unfit)
}

#[cfg(test)]
#[path = "put/tests.rs"]
mod tests;
