//! What happens, as it happens.
//!
//! The one stream that logs, counters and later listeners hear. Names and causes are as they came:
//! whoever shows them escapes them.

use std::net::SocketAddr;
use std::time::Duration;

use super::history::Dialect;
use crate::control::Direction;
use crate::digest::{Digest, Md5};
use crate::keys::KeyName;
use crate::names::{FileName, ReceiverName};
use crate::rights::Verb;
use crate::storage::{Removed, Swept};
use crate::tree::Root;

/// Hears of every event. Called on the async threads: it must not block.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, event: &Event<'_>);
}

/// Something that happened between the server and one peer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A connection was accepted.
    Opened {
        /// The peer's address.
        peer: SocketAddr,
    },
    /// A connection has shaken hands: what it says from now on is encrypted.
    Secured {
        /// The peer's address.
        peer: SocketAddr,
    },
    /// A connection has ended.
    Closed {
        /// The peer's address.
        peer: SocketAddr,
        /// Why, where it is not the ordinary end.
        cause: Option<&'a str>,
    },
    /// A peer asked for a file.
    Requested {
        /// The peer's address.
        peer: SocketAddr,
        /// The name as it was said, unchecked.
        name: &'a [u8],
    },
    /// A peer asked what is in a folder.
    Listing {
        /// The peer's address.
        peer: SocketAddr,
        /// The name as it was said, unchecked; `.` for the root.
        name: &'a [u8],
        /// It goes on with a listing that was begun before.
        is_continued: bool,
    },
    /// All of a folder that a peer wanted was listed.
    Listed {
        /// The peer's address.
        peer: SocketAddr,
        /// The name as it was said, unchecked; `.` for the root.
        name: &'a [u8],
        /// How many entries it was told.
        entries: u64,
    },
    /// A peer was told that there is no such file.
    Refused {
        /// The peer's address.
        peer: SocketAddr,
        /// The name as it was said, unchecked.
        name: &'a [u8],
        /// The true reason, which the peer was not told.
        cause: &'a str,
    },
    /// A peer may not do what it asked for.
    Denied {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// What it asked for.
        verb: Verb,
        /// The name as it was said, unchecked; empty for the root.
        name: &'a [u8],
        /// The true reason, of which the peer was told little.
        cause: &'a str,
    },
    /// A peer has shown a key.
    KeyAccepted {
        /// The peer's address.
        peer: SocketAddr,
        /// What the key is called.
        key: &'a KeyName,
    },
    /// A peer has shown something as a key that is none, or not any more.
    KeyRefused {
        /// The peer's address.
        peer: SocketAddr,
        /// The true reason, which the peer was not told.
        cause: &'a str,
    },
    /// A peer has sent a key over a connection that others may read.
    KeyInClear {
        /// The peer's address.
        peer: SocketAddr,
        /// Whether that is accepted from there.
        is_allowed: bool,
    },
    /// The keys cannot be read: nobody is let in by one until they can be again.
    KeysUnreadable {
        /// What happened, and what to do.
        cause: &'a str,
    },
    /// The keys can be read again.
    KeysReadable,
    /// A request could not be answered at the moment.
    Unavailable {
        /// The peer's address.
        peer: SocketAddr,
        /// The file asked for.
        name: &'a FileName,
        /// Why.
        cause: &'a str,
    },
    /// A file is about to be sent.
    Started {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The file.
        name: &'a FileName,
        /// Its size in bytes.
        size: u64,
        /// Bytes of it that the peer has already, from an earlier transfer.
        have: u64,
    },
    /// A step of ten percent was reached (one step of a hundred for small files).
    Progress {
        /// The peer's address.
        peer: SocketAddr,
        /// The file.
        name: &'a FileName,
        /// How far, in percent.
        percent: u8,
        /// Bytes that the peer has.
        done: u64,
        /// Bytes in all.
        size: u64,
    },
    /// The peer has the whole file.
    Finished {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The file.
        name: &'a FileName,
        /// Its size in bytes.
        size: u64,
        /// Bytes of it that the peer had before.
        have: u64,
        /// From the start to the last byte.
        elapsed: Duration,
        /// The digest that was sent with it, if one was.
        digest: Option<Digest>,
    },
    /// A small file was sent, all of it at once: nothing else is told of it.
    Sent {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The file.
        name: &'a FileName,
        /// Its size in bytes.
        size: u64,
        /// The digest that was sent with it.
        root: Root,
    },
    /// The digest of a file was computed, or found in the catalog, before anybody asked.
    HashedAhead {
        /// The file.
        name: &'a FileName,
        /// Its size in bytes.
        size: u64,
        /// How long it took.
        elapsed: Duration,
        /// The digest.
        md5: Md5,
    },
    /// Somebody has asked the server about itself, or to end a transfer.
    Steered {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// What it asked for.
        verb: Verb,
    },
    /// Somebody has ended a transfer of somebody else. How far it had come is told besides, as of any that is cut.
    Cancelled {
        /// The address of whoever has ended it.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// What the transfer was called.
        id: &'a str,
        /// The file.
        name: &'a FileName,
        /// The address of whose transfer it was.
        of: SocketAddr,
        /// Which way it went.
        direction: Direction,
    },
    /// What uploads had left and nobody went on with was removed.
    Swept {
        /// What it was.
        swept: Swept,
    },
    /// It could not be looked for.
    NotSwept {
        /// Why.
        cause: &'a str,
    },
    /// A transfer ended before its end.
    Cut {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The file.
        name: &'a FileName,
        /// Bytes that the peer has.
        done: u64,
        /// Bytes in all.
        size: u64,
        /// Bytes of it that the peer had before.
        have: u64,
        /// Why.
        cause: &'a str,
    },
    /// A small file came as a whole and was stored.
    Taken {
        /// The peer's address.
        peer: SocketAddr,
        /// How it came.
        dialect: Dialect,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The file.
        name: &'a FileName,
        /// Its size in bytes.
        size: u64,
        /// The digest of its bytes.
        root: Root,
    },
    /// A folder was made, or was there already.
    Made {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The folder.
        name: &'a FileName,
    },
    /// Something was removed.
    Removed {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// What had this name.
        name: &'a FileName,
        /// How much that was.
        removed: Removed,
    },
    /// Something was given another name.
    Moved {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The old name.
        from: &'a FileName,
        /// The new one.
        to: &'a FileName,
    },
    /// Something could not be stored, made, removed or renamed.
    NotChanged {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// Its name.
        name: &'a [u8],
        /// The true reason, of which the peer was told little.
        cause: &'a str,
    },
    /// A file is about to come in.
    UploadStarted {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The file.
        name: &'a FileName,
        /// Its size in bytes.
        size: u64,
        /// Bytes of it that are here already, from an earlier transfer.
        have: u64,
    },
    /// A step of ten percent of what comes in was reached (one step of a hundred for small files).
    UploadProgress {
        /// The peer's address.
        peer: SocketAddr,
        /// The file.
        name: &'a FileName,
        /// How far, in percent.
        percent: u8,
        /// Bytes that are here.
        done: u64,
        /// Bytes in all.
        size: u64,
    },
    /// A file has come in and is on the disk under its name.
    Stored {
        /// The peer's address.
        peer: SocketAddr,
        /// How it came.
        dialect: Dialect,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The file.
        name: &'a FileName,
        /// Its size in bytes.
        size: u64,
        /// Bytes of it that were here before.
        have: u64,
        /// From the start until it was stored.
        elapsed: Duration,
        /// What was stored.
        root: Root,
    },
    /// A client listens for files from now on.
    Listens {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The name under which it listens.
        receiver: &'a ReceiverName,
    },
    /// A client does not listen any more.
    ListensNoMore {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The name under which it listened.
        receiver: &'a ReceiverName,
    },
    /// A client sends a file to one who listens.
    Pushing {
        /// The sender's address.
        peer: SocketAddr,
        /// The key that the sender has shown.
        key: Option<&'a KeyName>,
        /// Who is to get it.
        receiver: &'a ReceiverName,
        /// What the sender calls it.
        name: &'a FileName,
        /// Its size in bytes.
        size: u64,
        /// Under which name it is told of while it is on its way.
        file: &'a FileName,
    },
    /// A receiver has a file that was sent to it, whole and verified.
    Delivered {
        /// The sender's address.
        peer: SocketAddr,
        /// The key that the sender has shown.
        key: Option<&'a KeyName>,
        /// Who has it.
        receiver: &'a ReceiverName,
        /// What the sender calls it.
        name: &'a FileName,
        /// Its size in bytes.
        size: u64,
        /// From the sender's first word until the receiver's last one.
        elapsed: Duration,
        /// The digest that the receiver has found.
        root: Root,
    },
    /// A receiver has not got a file that was sent to it.
    NotDelivered {
        /// The sender's address.
        peer: SocketAddr,
        /// The key that the sender has shown.
        key: Option<&'a KeyName>,
        /// Who was to get it.
        receiver: &'a ReceiverName,
        /// What the sender calls it.
        name: &'a FileName,
        /// Its size in bytes.
        size: u64,
        /// Why.
        cause: &'a str,
    },
    /// A file has not come in to its end.
    UploadCut {
        /// The peer's address.
        peer: SocketAddr,
        /// The key that it has shown.
        key: Option<&'a KeyName>,
        /// The file.
        name: &'a FileName,
        /// Bytes that are here.
        done: u64,
        /// Bytes in all.
        size: u64,
        /// Bytes of it that were here before.
        have: u64,
        /// Why.
        cause: &'a str,
    },
}
