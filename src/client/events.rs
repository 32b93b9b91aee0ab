//! What happens while a file is fetched or put, as it happens.

use std::net::SocketAddr;
use std::time::Duration;

use super::{FetchError, Server, Totals};
use crate::digest::Digest;
use crate::pin::Pin;

/// Hears of every event. Called on the receiving thread: it must not take long.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn observe(&self, event: &Event<'_>);
}

/// Something that happened while a file was fetched or put.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An address of the server is being tried.
    Connecting {
        /// The address.
        peer: SocketAddr,
    },
    /// The connection stands.
    Connected {
        /// The address.
        peer: SocketAddr,
    },
    /// The key of a server is remembered from now on.
    Remembered {
        /// The server.
        server: &'a Server,
        /// The pin of its key.
        pin: Pin,
        /// Where it is written.
        file: &'a str,
        /// The user had said that it is this key. Else nobody has compared it with anything.
        is_pinned: bool,
    },
    /// The server has the file and is going to send it; or it takes the file that is put, and has asked for the first
    /// of it. Told anew in each attempt.
    Started {
        /// What the server calls the file, unchecked.
        name: &'a [u8],
        /// Its size in bytes.
        size: u64,
        /// The digest that it must have, if it is known by now.
        digest: Option<Digest>,
        /// Bytes of it that are here already, or there, and need not be moved again.
        have: u64,
    },
    /// The server has another version of the file than the one of which a part is here.
    Changed {
        /// Bytes of the part that both versions have in common: they are kept.
        kept: u64,
        /// Bytes of the part.
        had: u64,
    },
    /// More bytes have arrived, or left.
    Progress {
        /// Bytes so far, in this attempt.
        done: u64,
        /// Bytes in all.
        size: u64,
    },
    /// A file of a folder is here, verified; or it is stored on the server.
    FileDone {
        /// Its name within the folder.
        name: &'a [u8],
        /// Its size in bytes.
        size: u64,
        /// Its digest.
        digest: Digest,
    },
    /// A file of a folder was here, or on the server, already, with the same size and time of modification.
    FileKept {
        /// Its name within the folder.
        name: &'a [u8],
        /// Its size in bytes.
        size: u64,
    },
    /// A file or a folder within a folder is not here, or not on the server; the others go on.
    FileFailed {
        /// Its name within the folder.
        name: &'a [u8],
        /// What went wrong.
        error: &'a FetchError,
    },
    /// A link to a folder was not followed.
    FileSkipped {
        /// Its name within the folder.
        name: &'a [u8],
    },
    /// What is neither a file nor a folder (a pipe, a socket, a device) was not put.
    FileSpecial {
        /// Its name within the folder.
        name: &'a [u8],
    },
    /// More bytes of a large file of a folder have arrived, or left.
    FileProgress {
        /// Its name within the folder.
        name: &'a [u8],
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        size: u64,
    },
    /// How far a folder has come.
    Total(Totals),
    /// An attempt failed; the next one comes after a wait.
    Waiting {
        /// The number of the next retry, counted from 1.
        retry: u32,
        /// How many there may be.
        retries: u32,
        /// How long the wait is.
        wait: Duration,
        /// What went wrong.
        error: &'a FetchError,
    },
}
