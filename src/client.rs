//! The fetching side: one file, whole and verified, through any number of attempts.
//!
//! [`fetch`] is called by the client program for each file. It knows the wire, the staged file and
//! time; it prints nothing: whoever wants to show or log what happens passes an [`Observer`].
//!
//! 1. An attempt connects, asks, reads the header, and stages the target.
//! 2. The data goes through the pipeline in `receive`; size and digest are compared.
//! 3. Only then does the target get its name (or the stream its bytes).
//! 4. What may work later is tried again, from the start, after a growing wait.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::digest::Md5;

mod attempt;
mod connect;
mod error;
mod events;
mod receive;
mod retry;
mod target;

pub use connect::{Server, ServerError};
pub use error::FetchError;
pub use events::{Event, Observer};
pub use retry::Backoff;
pub use target::Target;

/// What happens when the target exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// It stays, and that is a failure.
    Never,
    /// It stays if it is the same as the server's, and is replaced otherwise.
    Different,
    /// It is replaced.
    Always,
}

/// How files are fetched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Longest time to connect, and to wait for the next byte.
    pub timeout: Duration,
    /// What happens when the target exists.
    pub overwrite: Overwrite,
    /// Whether to wait until the file is on the disk.
    pub sync: bool,
}

/// A file that was fetched.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fetched {
    /// Where it is; `None` for standard output.
    pub path: Option<PathBuf>,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest, as the server said it and as it was verified.
    pub md5: Md5,
    /// The whole time, waits included.
    pub elapsed: Duration,
    /// It was there already, the same as the server's, and was left alone.
    pub unchanged: bool,
}

/// Fetches the file `name` from `server` into `target`; gives up at once when `stopping` is cancelled.
///
/// # Errors
/// The error of the last attempt. Whatever it is, the target is as it was before.
pub async fn fetch(
    server: &Server,
    name: &str,
    target: &Target,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<Fetched, FetchError> {
    let began = Instant::now();
    target.check(settings.overwrite)?;
    let attempt = attempt::Attempt { server, name, target, settings, observer, stopping };
    let mut waits = settings.backoff.waits();
    let mut retry = 0;
    loop {
        let error = match attempt.run().await {
            Ok((size, md5, unchanged)) => {
                let path = target.path().map(ToOwned::to_owned);
                return Ok(Fetched { path, size, md5, elapsed: began.elapsed(), unchanged });
            }
            Err(error) => error,
        };
        let wait = match waits.next() {
            Some(wait) if error.may_pass() => wait,
            _ => return Err(error),
        };
        retry += 1;
        let retries = settings.backoff.retries;
        observer.observe(&Event::Waiting { retry, retries, wait, error: &error });
        if stopping.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return Err(FetchError::Interrupted);
        }
    }
}
