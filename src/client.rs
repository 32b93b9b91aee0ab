//! The fetching side: one file, whole and verified, through any number of attempts.
//!
//! [`fetch`] is called by the client program for each file. It knows the wire, the staged file and
//! time; it prints nothing: whoever wants to show or log what happens passes an [`Observer`].
//!
//! 1. An attempt says hello in version 2 of the protocol; a server that does not understand it is asked
//!    again in version 1, at once.
//! 2. Version 2 (`v2`) goes on with what is there and proves each block. Version 1 (`v1`) begins at
//!    nothing, and the checksum is compared at the end.
//! 3. Only then does the target get its name. A stream gets the bytes as they are proven, or, over
//!    version 1, when all of them are.
//! 4. What may work later is tried again, after a growing wait. An attempt that came further than all
//!    before it is not counted: only a server that gives nothing exhausts the retries.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::digest::Digest;
use crate::limits::{CLIENT_TIMEOUT, V2_LINKS, V2_WAIT_MAX};
use crate::priority::Priority;

mod attempt;
mod checksum;
mod connect;
mod distrust;
mod error;
mod events;
mod folder;
mod handle;
mod known_hosts;
mod listen;
mod pace;
mod push;
mod put;
mod retry;
mod secure;
mod security;
mod stream;
mod target;
mod v1;
mod v2;

pub use crate::listing::{Entry, Kind, Selection};
pub use crate::staged::Attributes;
pub use checksum::{Checksum, ChecksumError};
pub use connect::{Server, ServerError};
pub use distrust::Distrust;
pub use error::FetchError;
pub use events::{Event, Observer};
pub use folder::{Files, FolderFetched, Totals, fetch_folder};
pub use handle::{Client, ClientBuilder, Listing, Progress};
pub use known_hosts::{KnownHosts, KnownHostsError};
pub use listen::{Existing, Listen, Listened, Offered, Received, ReceivingObserver, listen};
pub use push::push;
pub use put::folder::{FolderPut, put_folder};
pub use put::{Put, UploadSource, put};
pub use retry::Backoff;
pub use security::{Security, TlsMode};
pub use target::Target;
pub use v2::ask::{Facts, Pinger, Verified, stat, verify};
pub use v2::change::{remove, rename};
pub use v2::control::{Said, control};
pub use v2::listing::{Batch, Start, list};

/// Which version of the protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The newest that the server understands.
    #[default]
    Auto,
    /// Version 1 only.
    V1,
    /// Version 2 only.
    V2,
}

/// Servers that are known to speak version 1 only, for as long as this is alive. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OldServers(Arc<Mutex<HashSet<String>>>);

impl OldServers {
    fn has(&self, server: &Server) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&server.to_string())
    }

    fn add(&self, server: &Server) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_string());
    }
}

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
    /// Longest time for which a server may only say that it is still at it (version 2).
    pub wait_max: Duration,
    /// What happens when the target exists.
    pub overwrite: Overwrite,
    /// Whether to wait until the file is on the disk.
    pub sync: bool,
    /// Which version of the protocol is spoken.
    pub protocol: Protocol,
    /// Connections at once for one file, at most (version 2).
    pub links: u64,
    /// Most bytes of a file per second, over all its connections. Below
    /// [`CLIENT_RATE_MIN`](crate::limits::CLIENT_RATE_MIN) servers may take the client for dead.
    pub limit_rate: Option<u64>,
    /// How urgent it is to the server, compared with what others ask of it (version 2).
    pub priority: Priority,
    /// Whether pages of zeros become holes (version 2).
    pub sparse: bool,
    /// Whether to forget what is there of an earlier attempt.
    pub restart: bool,
    /// What the file has to be.
    pub checksum: Option<Checksum>,
    /// Servers that need not be asked for version 2 again.
    pub old_servers: OldServers,
    /// Whom to trust, and the key to show.
    pub security: Security,
}

/// As for the `client` program: whoever is asked for a file replaces what is there, and waits for it to be on the disk.
impl Default for Settings {
    fn default() -> Self {
        Self {
            backoff: Backoff::default(),
            timeout: CLIENT_TIMEOUT,
            wait_max: V2_WAIT_MAX,
            overwrite: Overwrite::Always,
            sync: true,
            protocol: Protocol::Auto,
            links: V2_LINKS,
            limit_rate: None,
            priority: Priority::default(),
            sparse: false,
            restart: false,
            checksum: None,
            old_servers: OldServers::default(),
            security: Security::default(),
        }
    }
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
    pub digest: Digest,
    /// The whole time, waits included.
    pub elapsed: Duration,
    /// It was there already, the same as the server's, and was left alone.
    pub unchanged: bool,
    /// Bytes that were there already from an earlier program's attempt.
    pub resumed: u64,
    /// Its mode and times on the server, if that told them.
    pub attributes: Option<Attributes>,
}

/// Fetches the file `name` from `server` into `target`; gives up at once when `stopping` is cancelled.
///
/// # Errors
/// The error of the last attempt. Whatever it is, the target is as it was before; what has arrived
/// over version 2 is kept beside it for the next time.
pub async fn fetch(
    server: &Server,
    name: &[u8],
    target: &Target,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<Fetched, FetchError> {
    let pace = pace::Pace::of(settings);
    fetch_at(&pace, None, server, name, target, settings, observer, stopping).await
}

/// As [`fetch`], at a pace that others may keep, too; only a file of `size` bytes, if that is known.
#[allow(clippy::too_many_arguments, reason = "they are what `fetch` is given")]
async fn fetch_at(
    pace: &pace::Pace,
    size: Option<u64>,
    server: &Server,
    name: &[u8],
    target: &Target,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<Fetched, FetchError> {
    let began = Instant::now();
    target.check(settings.overwrite)?;
    let attempt = attempt::Attempt { server, name, target, settings, observer, stopping, pace, size };
    let mut remains = v2::Remains::default();
    let got = with_retries(settings, observer, stopping, async || {
        let before = remains.blocks;
        let got = try_once(&attempt, &mut remains).await;
        Tried { result: got, has_brought_something: remains.blocks > before }
    });
    let attempt::Got { size, digest, unchanged, resumed, attributes } = got.await?;
    let path = target.path().map(ToOwned::to_owned);
    Ok(Fetched { path, size, digest, elapsed: began.elapsed(), unchanged, resumed, attributes })
}

/// What came of an attempt.
struct Tried<T> {
    result: Result<T, FetchError>,
    /// It failed, but less is left to do than ever before.
    has_brought_something: bool,
}

/// Makes attempts until one succeeds, fails for good, or nothing came of too many.
async fn with_retries<T>(
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
    mut attempt: impl AsyncFnMut() -> Tried<T>,
) -> Result<T, FetchError> {
    let mut waits = settings.backoff.waits();
    let mut retry = 0;
    loop {
        let Tried { result, has_brought_something } = attempt().await;
        let error = match result {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        if has_brought_something {
            waits = settings.backoff.waits();
            retry = 0;
        }
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

/// One attempt, in the version of the protocol that the server understands.
async fn try_once(
    attempt: &attempt::Attempt<'_>,
    remains: &mut v2::Remains,
) -> Result<attempt::Got, FetchError> {
    let settings = attempt.settings;
    let has_key = settings.security.key.is_some();
    let is_old = settings.protocol == Protocol::Auto && settings.old_servers.has(attempt.server);
    if (settings.protocol == Protocol::V1 || is_old) && !has_key {
        return v1::run(attempt).await;
    }
    let (peer, said_so) = match Box::pin(v2::run(attempt, remains)).await {
        Ok(got) => return Ok(got),
        Err(v2::Stop::Failed(error)) => return Err(error),
        Err(v2::Stop::Old { peer, said_so }) => (peer, said_so),
    };
    if has_key && said_so {
        return Err(FetchError::KeyNeedsV2 { server: attempt.server.to_string() });
    }
    if settings.protocol == Protocol::V2 && said_so {
        return Err(FetchError::OldServer { peer });
    }
    if settings.protocol == Protocol::V2 || has_key || (!said_so && remains.expects_v2()) {
        // More likely it is away than of another version, and version 1 would begin at nothing.
        return Err(FetchError::Unanswered { peer });
    }
    if said_so {
        settings.old_servers.add(attempt.server);
    }
    remains.release();
    v1::run(attempt).await
}
