//! The wire formats, each in a file of its own: [`v1`], [`v2`] and [`conduit`].
//!
//! A decoder is a small state machine that is fed whatever has arrived and says `None` while that
//! is too little. It checks a length against its bound before it reserves anything. It never reads,
//! waits or knows the time. `docs/protocol.md` is the specification; its examples are the tests'.

use crate::tree::ProofError;

pub mod conduit;
pub mod v1;
pub mod v2;
#[cfg(test)]
mod vectors;

/// What a peer can do wrong on the wire. No variant carries text of the peer unescaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// An answer that starts with neither `OK` nor `ERROR`.
    #[error("the answer starts with neither OK nor ERROR: {0}")]
    Status(String),
    /// A name longer than the protocol allows.
    #[error("a name of {0} bytes is announced, more than is allowed")]
    NameLength(u32),
    /// A size that no file can have.
    #[error("a size of {0} bytes is announced, more than any file may have")]
    Size(u64),
    /// A checksum that is not 32 hexadecimal digits.
    #[error("the checksum is not 32 hexadecimal digits")]
    Checksum,
    /// Bytes after the end of what was announced.
    #[error("more bytes arrived than were announced")]
    Excess,
    /// The connection ended in the middle of a message.
    #[error("the connection ended in the middle of a message")]
    Truncated,
    /// A frame longer or shorter than any may be.
    #[error("a frame of {0} bytes is announced, which none may have")]
    FrameLength(u32),
    /// A frame of a kind that has to be known and is not.
    #[error("a frame is of the unknown kind {0:#04x}")]
    Kind(u8),
    /// A frame whose fields do not fit together.
    #[error("{0}")]
    Frame(&'static str),
    /// A frame where it has no place.
    #[error("{0}")]
    Order(&'static str),
    /// A welcome that cannot be read.
    #[error("the server's welcome cannot be read: {0}")]
    Hello(v2::HelloError),
    /// Values that prove nothing.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The connection itself failed. Decoders make no such error; the trait that they implement
    /// wants the conversion.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
