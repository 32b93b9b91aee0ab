//! What every attempt at one file needs, whichever version of the protocol it speaks.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::{FetchError, Observer, Overwrite, Server, Settings, Target};
use crate::digest::Digest;
use crate::staged::{Attributes, Replace};

/// What every attempt at one file needs.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) server: &'a Server,
    pub(super) name: &'a [u8],
    pub(super) target: &'a Target,
    pub(super) settings: &'a Settings,
    pub(super) observer: &'a dyn Observer,
    pub(super) stopping: &'a CancellationToken,
    pub(super) pace: &'a Pace,
    /// Its size in bytes, if another one must not come.
    pub(super) size: Option<u64>,
}

/// A file that is where it should be.
pub(super) struct Got {
    pub(super) size: u64,
    pub(super) digest: Digest,
    /// It was there before.
    pub(super) unchanged: bool,
    /// Bytes that did not have to be fetched again.
    pub(super) resumed: u64,
    /// Its mode and times, if the server told them.
    pub(super) attributes: Option<Attributes>,
}

impl Attempt<'_> {
    /// Runs `work` unless whoever asked does not want it any more.
    pub(super) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        self.stopping.run_until_cancelled(work).await.unwrap_or(Err(FetchError::Interrupted))
    }

    /// What happens to a target that exists when the file is here.
    pub(super) fn replace(&self) -> Replace {
        match self.settings.overwrite {
            Overwrite::Never => Replace::Never,
            Overwrite::Different | Overwrite::Always => Replace::Always,
        }
    }
}

/// Runs work with a socket that has to be done by `deadline`, `after` its beginning.
pub(super) async fn within<T>(
    deadline: Instant,
    after: Duration,
    peer: SocketAddr,
    when: &str,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, FetchError> {
    match timeout_at(deadline, work).await {
        Ok(result) => result.map_err(|source| FetchError::Lost { peer, when: when.to_owned(), source }),
        Err(_elapsed) => Err(FetchError::Silent { peer, when: when.to_owned(), after }),
    }
}

/// Runs work that may wait for a disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    let aborted =
        |error| FetchError::Output { path: "the target".to_owned(), source: io::Error::other(error) };
    tokio::task::spawn_blocking(work).await.map_err(aborted)?
}
