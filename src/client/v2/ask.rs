//! Questions about files and servers that move no file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::answers::file_of;
use super::link::{Link, Opening};
use crate::client::attempt::blocking;
use crate::client::target::root_of;
use crate::client::{FetchError, Observer, Server, Settings, Target, Tried, with_retries};
use crate::codec::v2::{ClientFrame, Stat};
use crate::exchange::Requester;
use crate::tree::Root;

/// What a server says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// Bytes.
    pub size: u64,
    /// When its bytes were last changed: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
    /// Permission bits.
    pub mode: u32,
    /// What tells this version from others on this server, in hexadecimal digits.
    pub identity: String,
    /// Its BLAKE3 digest.
    pub root: Root,
}

/// How a local file compares with the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// What the server has.
    pub facts: Facts,
    /// Bytes of the local file.
    pub size: u64,
    /// The local file's digest.
    pub root: Root,
}

impl Verified {
    /// Whether both are the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.root == self.facts.root && self.size == self.facts.size
    }
}

/// Asks a server what a file is. The server may have to read all of it to tell its digest.
///
/// # Errors
/// As [`fetch`](crate::client::fetch); a server of version 1 cannot tell.
pub async fn stat(
    server: &Server,
    name: &[u8],
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<Facts, FetchError> {
    with_retries(settings, observer, stopping, async || {
        let asking = stat_once(server, name, settings, observer);
        let asked = stopping.run_until_cancelled(asking).await;
        Tried { result: asked.unwrap_or(Err(FetchError::Interrupted)), has_brought_something: false }
    })
    .await
}

async fn stat_once(
    server: &Server,
    name: &[u8],
    settings: &Settings,
    observer: &dyn Observer,
) -> Result<Facts, FetchError> {
    let said = bytes::Bytes::copy_from_slice(name);
    let first = |requester: &mut Requester| requester.stat(Stat { root: true, name: said });
    let opening = Link::open(server, settings, observer, Arc::default(), first).await?;
    let mut link = link_of(opening)?;
    let file = file_of(&mut link, name).await?;
    let root = file.root.ok_or(FetchError::Contradiction { peer: link.peer() })?;
    let identity = file.token.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Facts { size: file.size, modified: file.modified, mode: file.mode, identity, root })
}

/// Compares a local file with the server's, without fetching it.
///
/// # Errors
/// As [`stat`], and if the local file cannot be read.
pub async fn verify(
    server: &Server,
    name: &[u8],
    target: &Target,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
) -> Result<Verified, FetchError> {
    let local = target.clone();
    let hashing = blocking(move || {
        let path = local.path().map(ToOwned::to_owned).unwrap_or_default();
        root_of(&path).map_err(|source| FetchError::Unreadable { path: local.shown(), source })
    });
    let hashed = stopping.run_until_cancelled(hashing).await;
    let (size, root) = hashed.unwrap_or(Err(FetchError::Interrupted))?;
    let facts = stat(server, name, settings, observer, stopping).await?;
    Ok(Verified { facts, size, root })
}

/// A connection that answers pings.
pub struct Pinger {
    link: Link,
    sent: u64,
}

impl Pinger {
    /// Connects.
    ///
    /// # Errors
    /// As [`stat`].
    pub async fn open(
        server: &Server,
        settings: &Settings,
        observer: &dyn Observer,
    ) -> Result<Self, FetchError> {
        let first = |_: &mut Requester| ClientFrame::Ping(0, [0; 8]);
        let opening = Link::open(server, settings, observer, Arc::default(), first).await?;
        let mut link = link_of(opening)?;
        link.hear_pong([0; 8]).await?;
        Ok(Self { link, sent: 0 })
    }

    /// The server's address.
    #[must_use]
    pub fn peer(&self) -> std::net::SocketAddr {
        self.link.peer()
    }

    /// Sends a ping; the time until it came back.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ping(&mut self) -> Result<Duration, FetchError> {
        self.sent += 1;
        let bytes = self.sent.to_be_bytes();
        let began = Instant::now();
        self.link.send(&ClientFrame::Ping(0, bytes)).await?;
        self.link.hear_pong(bytes).await?;
        Ok(began.elapsed())
    }
}

pub(super) fn link_of(opening: Opening) -> Result<Link, FetchError> {
    match opening {
        Opening::Link(link) => Ok(*link),
        Opening::Old { peer, said_so: true } => Err(FetchError::OldServer { peer }),
        Opening::Old { peer, said_so: false } => Err(FetchError::Unanswered { peer }),
    }
}
