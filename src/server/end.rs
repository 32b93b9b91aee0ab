//! How a connection ends, other than in the ordinary way.

use super::wire::WireEnd;
use crate::codec::WireError;
use crate::codec::conduit::FrameError;
use crate::service::access::NotAccepted;
use crate::sniff::Dialect;

/// How a connection ended other than in the ordinary way: a cause for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The peer closed before it had asked for anything.
    #[error("closed without a request")]
    NoRequest,
    /// The peer did not finish its request in time.
    #[error("no full request within {} s", .0.as_secs_f32())]
    RequestTimeout(std::time::Duration),
    /// The peer speaks something that is not served.
    #[error("not served: {}", .0.name())]
    NotServed(Dialect),
    /// The peer came without TLS to a server that demands it.
    #[error("refused: without TLS (--tls require)")]
    Plain,
    /// The peer needs something that this server does not have.
    #[error("the client needs the capability {0}, which is not known")]
    Lacking(String),
    /// The peer has shown a key that is not accepted.
    #[error("{0}")]
    NotAccepted(NotAccepted),
    /// Nothing was said or sent for too long.
    #[error("idle for {} s", .0.as_secs_f32())]
    Idle(std::time::Duration),
    /// The peer broke the rules of its dialect.
    #[error(transparent)]
    Protocol(#[from] WireError),
    /// A frame of Conduit that cannot be understood.
    #[error(transparent)]
    Conduit(#[from] FrameError),
    /// A Conduit client that has said something else before the password.
    #[error("it did not show the password first")]
    NoPassword,
    /// A Conduit client that has said again who it is.
    #[error("a frame of the beginning came later")]
    PasswordAgain,
    /// A Conduit client that has not answered to pings.
    #[error("nothing was heard for {} s, pings notwithstanding", .0.as_secs_f32())]
    Dead(std::time::Duration),
    /// The connection broke.
    #[error(transparent)]
    Wire(#[from] WireEnd),
    /// What the peer has to bring comes too slowly.
    #[error("fewer than {0} bytes a second came")]
    Slow(u64),
    /// The peer closed while it still had to bring something.
    #[error("closed before all that was due had come")]
    Unfinished,
    /// A transfer was cancelled, and the peer has not taken what was under way of it.
    #[error("a transfer was cancelled, and what was under way of it was not taken")]
    Cancelled,
    /// The server stops and the peer had not asked for anything yet.
    #[error("the server is stopping")]
    Stopping,
    /// What happened has been told already, with the transfer or the request.
    #[error("closed before the end")]
    Told,
}
