//! A server within another program: everything of its own, and nothing of the process.
//!
//! [`ServerBuilder`] takes what a user wants, claims folders, identity and port, and starts a [`Server`] in the
//! caller's runtime. The `server` program is built on it. No signal is caught here, no log is opened, no limit of
//! the process is changed: what is logged goes to whatever `tracing` subscriber the caller has, and several servers
//! and clients can live in one process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Failure, keys};
use crate::error::Code;
use crate::keys::{Key, KeyNameError, KeysError};
use crate::pin::Pin;
use crate::rights::Grant;
use crate::tls::Serving;
use crate::token::Token;

mod builder;
mod start;

pub use builder::ServerBuilder;
pub use start::Claimed;

/// A running server. It stops when [`Self::shutdown`] is called, when the token of
/// [`ServerBuilder::stopped_by`] is cancelled, or when this is dropped: then it ends by itself, in the background.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    pin: Option<Pin>,
    state: PathBuf,
    stopping: CancellationToken,
    /// To have the identity exchanged.
    tls: Option<Tls>,
    serving: JoinHandle<Stopped>,
    _stop: DropGuard,
}

/// What new connections shake hands with.
struct Tls(Serving);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// How a server has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// Everything that was under way came to its end; else it took longer than the drain timeout, and was cut. Uploads
    /// and downloads of version 2 that were cut can be gone on with.
    pub drained: bool,
}

/// Why a server did not start. Each of them says what happened, to what, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The folder cannot be served.
    #[error("{0}")]
    Root(Failure),
    /// The state folder cannot be used, or another server uses it.
    #[error("{0}")]
    State(Failure),
    /// The keys cannot be read.
    #[error("{0}")]
    Keys(Failure),
    /// The identity cannot be read, made or used.
    #[error("{0}")]
    Identity(Failure),
    /// The address cannot be listened on.
    #[error("{0}")]
    Listen(Failure),
    /// The catalog is one of a newer program.
    #[error("{0}")]
    Catalog(Failure),
    /// There is no runtime to start it in, or that is ending.
    #[error("{0}")]
    Runtime(Failure),
}

impl StartError {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        self.failure().code
    }

    fn failure(&self) -> &Failure {
        match self {
            Self::Root(failure)
            | Self::State(failure)
            | Self::Keys(failure)
            | Self::Identity(failure)
            | Self::Listen(failure)
            | Self::Catalog(failure)
            | Self::Runtime(failure) => failure,
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self { code: error.code(), text: error.to_string() }
    }
}

/// A server that ended without being asked to, because something in it failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server failed: {0}")]
pub struct ServeError(String);

/// Why a key was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// A key cannot be called that.
    #[error(transparent)]
    Name(#[from] KeyNameError),
    /// The keys cannot be edited.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The system has no random numbers.
    #[error("the system has no random numbers; no key was made")]
    Chance,
}

impl Server {
    /// A server of the files in the folder `root`, yet to be started.
    #[must_use]
    pub fn builder(root: impl Into<PathBuf>) -> ServerBuilder {
        ServerBuilder::new(root.into())
    }

    /// Where it listens, with the port that the system picked if none was named.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// By what clients tell it from others; none if it does not speak TLS.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        self.pin
    }

    /// Makes a key that does not expire and has no quota: it is accepted from now on. What is returned is its secret
    /// word, which is kept nowhere else. May block for a moment.
    ///
    /// # Errors
    /// [`IssueError`]: another key has the name, or the keys in the state folder cannot be written.
    pub fn issue_key(&self, name: &str, grant: Grant) -> Result<Token, IssueError> {
        issue(&self.state, name, grant)
    }

    /// Takes a key away, by its name or its identifier: it is not accepted from now on, nor by what is under way with it. How
    /// many there were. May block for a moment.
    ///
    /// # Errors
    /// [`KeysError`]: there is none, or the keys in the state folder cannot be written.
    pub fn revoke_key(&self, name_or_id: &str) -> Result<usize, KeysError> {
        crate::keys::revoke(&self.state, name_or_id).map(|revoked| revoked.len())
    }

    /// No new connection is accepted from now on. Running transfers go on for the drain timeout.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Stops it and waits until it has: until running transfers have ended or the drain timeout is over, everybody who is
    /// to be told of received files was told, and another server can use its folders and its port.
    ///
    /// # Errors
    /// If something in it had failed.
    pub async fn shutdown(self) -> Result<Stopped, ServeError> {
        self.stop();
        self.ended().await
    }

    /// Waits until it has stopped, whoever stops it.
    ///
    /// # Errors
    /// If something in it failed.
    pub async fn ended(mut self) -> Result<Stopped, ServeError> {
        (&mut self.serving).await.map_err(|aborted| ServeError(aborted.to_string()))
    }

    pub(super) fn serving(&self) -> Option<Serving> {
        self.tls.as_ref().map(|Tls(serving)| serving.clone())
    }
}

/// Makes a key in a state folder.
fn issue(state: &Path, name: &str, grant: Grant) -> Result<Token, IssueError> {
    let (name, created) = (name.parse()?, keys::whole_second(Timestamp::now()));
    let token = keys::new_token().map_err(|_| IssueError::Chance)?;
    let (id, hash) = (token.id(), token.hash());
    let key = Key { id, name, hash, grant, created, expires: None, quota: None };
    crate::keys::add(state, key, created)?;
    Ok(token)
}
