//! What is changed on a server without moving bytes of files: removals and new names.

use tokio_util::sync::CancellationToken;

use crate::client::{FetchError, Observer, Server, Settings};

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
    let _ = (server, name, recursive, settings, observer, stopping);
    Err(FetchError::Interrupted)
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
    let _ = (server, from, to, replace, settings, observer, stopping);
    Err(FetchError::Interrupted)
}
