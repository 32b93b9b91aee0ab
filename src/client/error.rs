//! What can go wrong while a file is fetched or put, and whether trying again may help.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::distrust::Distrust;
use crate::codec::WireError;
use crate::digest::Md5;
use crate::error::{Code, in_words, is_no_space};
use crate::names::NameError;
use crate::staged::StageError;

/// Why a file was not fetched, or not put.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The server says that there is no such file.
    #[error("the server has no file '{0}'; check the name, capital letters count")]
    NotFound(String),
    /// The server refuses for another reason.
    #[error("the server refused '{name}': {text}")]
    Refused {
        /// The file asked for.
        name: String,
        /// The server's words, made safe to show.
        text: String,
    },
    /// No address of the server could be connected to.
    #[error(
        "cannot connect to {server}: {source}; check that the server is running and the address is right"
    )]
    Connect {
        /// The server.
        server: String,
        /// Why the last address failed.
        #[source]
        source: io::Error,
    },
    /// The connection ended or broke before the whole file had arrived.
    #[error("the connection to {peer} was lost {when}: {}", in_words(.source))]
    Lost {
        /// The server.
        peer: SocketAddr,
        /// How far it had come.
        when: String,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The server was silent for too long.
    #[error("{peer} sent nothing for {} s {when} (--timeout)", .after.as_secs_f32())]
    Silent {
        /// The server.
        peer: SocketAddr,
        /// How far it had come.
        when: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The server did not answer the greeting of version 2.
    #[error("{peer} did not answer")]
    Unanswered {
        /// The server.
        peer: SocketAddr,
    },
    /// The server speaks version 1 only, and something was asked for that version 1 has not.
    #[error(
        "{peer} speaks only version 1 of the protocol, which cannot do this; leave --protocol out to fetch from it"
    )]
    OldServer {
        /// The server.
        peer: SocketAddr,
    },
    /// The server is not spoken to, because it is not trusted.
    #[error(transparent)]
    Untrusted(#[from] Box<Distrust>),
    /// A key is to be shown, and the server speaks version 1, or version 1 was asked for.
    #[error(
        "version 1 of the protocol has no keys, and {server} is to be spoken to in it; none was sent. Leave the \
         key out, or --protocol v1"
    )]
    KeyNeedsV2 {
        /// The server.
        server: String,
    },
    /// What is to be listed does not fit into a request.
    #[error("this cannot be asked for: {source}")]
    Selection {
        /// What does not fit.
        #[source]
        source: WireError,
    },
    /// The file became another one while it was fetched.
    #[error("the file changed on {peer} while it was fetched")]
    SourceChanged {
        /// The server.
        peer: SocketAddr,
    },
    /// The file became another one after a part of it had been passed on.
    #[error("the file changed on {peer} after a part of it had been written; fetch it again")]
    StreamChanged {
        /// The server.
        peer: SocketAddr,
    },
    /// Somebody who may has cancelled the transfer on the server.
    #[error("the transfer was cancelled by an operator of the server at {peer}")]
    Cancelled {
        /// The server.
        peer: SocketAddr,
    },
    /// The server is older than what it was asked.
    #[error("the server at {peer} does not know this request; it is of an older version")]
    Unknowing {
        /// The server.
        peer: SocketAddr,
    },
    /// The server cannot read the file now.
    #[error("{peer} cannot send the file now: {text}")]
    Unavailable {
        /// The server.
        peer: SocketAddr,
        /// The server's words, made safe to show.
        text: String,
    },
    /// The server refused for a reason of its own.
    #[error("{peer} refused: {text}")]
    Failed {
        /// The server.
        peer: SocketAddr,
        /// The kind of failure.
        code: Code,
        /// The server's words, made safe to show.
        text: String,
    },
    /// A block arrived damaged again and again.
    #[error("block {block} arrived damaged from {peer} again and again; the network or a memory is faulty")]
    Damaged {
        /// The server.
        peer: SocketAddr,
        /// The block.
        block: u64,
    },
    /// The blocks that the server proved do not make the file that it says it has.
    #[error("what {peer} says of the file contradicts itself")]
    Contradiction {
        /// The server.
        peer: SocketAddr,
    },
    /// The server does not keep to version 2 of the protocol, or the network changed its words.
    #[error("{peer} broke the protocol: {source}")]
    Violated {
        /// The server.
        peer: SocketAddr,
        /// What it did.
        #[source]
        source: WireError,
    },
    /// The server has a file of this name, but not the one that the user knows.
    #[error("the server's file has {algorithm} {found}, not {wanted} (--checksum); nothing was saved")]
    OtherFile {
        /// How the checksum is computed.
        algorithm: &'static str,
        /// The checksum that the user gave.
        wanted: String,
        /// The checksum of the server's file.
        found: String,
    },
    /// What was asked for as a folder is a file.
    #[error("'{0}' is a file and no folder; fetch it without -r")]
    NotAFolder(String),
    /// The server cannot list a folder.
    #[error("the server cannot list the folder '{0}'")]
    Unlisted(String),
    /// A local file cannot be read.
    #[error("cannot read {path}: {}", in_words(.source))]
    Unreadable {
        /// The file.
        path: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The server cannot be given files at all.
    #[error(
        "{server} does not take files: it speaks a version of the protocol that cannot store, remove or rename"
    )]
    NoUploads {
        /// The server.
        server: String,
    },
    /// The server does not bring files to those who listen.
    #[error("{server} does not know how to send files to clients that listen; it is older than this client")]
    NoPushes {
        /// The server.
        server: String,
    },
    /// A file that was sent to this client is larger than it takes.
    #[error("it has {size} bytes, and at most {max} are taken (--max-size)")]
    Unwanted {
        /// Its size in bytes.
        size: u64,
        /// The largest size in bytes.
        max: u64,
    },
    /// The server cannot store the file now.
    #[error("{peer} cannot store it now: {text}")]
    Unstored {
        /// The server.
        peer: SocketAddr,
        /// The server's words, made safe to show.
        text: String,
    },
    /// A local file became another one while it was sent.
    #[error("{path} changed while it was being sent")]
    LocalChanged {
        /// The file.
        path: String,
    },
    /// The server says that it has stored something else than what was sent.
    #[error("{peer} says that it stored '{name}', but with other bytes than were sent")]
    StoredOther {
        /// The server.
        peer: SocketAddr,
        /// The file on the server.
        name: String,
    },
    /// A local file is not the one that the user knows.
    #[error("{path} has {algorithm} {found}, not {wanted} (--checksum); nothing was sent")]
    OtherSource {
        /// The file.
        path: String,
        /// How the checksum is computed.
        algorithm: &'static str,
        /// The checksum that the user gave.
        wanted: String,
        /// The checksum of the file.
        found: String,
    },
    /// What was to be sent as a file is something else.
    #[error("{path} is not a regular file; add -r if it is a folder")]
    NotALocalFile {
        /// What it is called.
        path: String,
    },
    /// What was to be sent as a folder is something else.
    #[error("{path} is not a folder; send it without -r")]
    NotALocalFolder {
        /// What it is called.
        path: String,
    },
    /// A name that nothing on a server can have.
    #[error("'{name}' cannot be a name on a server: {source}")]
    Name {
        /// The name, made safe to show.
        name: String,
        /// Why not.
        #[source]
        source: NameError,
    },
    /// A local file is larger than the protocol can carry.
    #[error("{path} is too large: it has {size} bytes, and at most {max} can be sent")]
    TooLarge {
        /// The file.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// The largest size in bytes.
        max: u64,
    },
    /// The server does not keep to the protocol.
    #[error("{peer} does not speak the protocol: {source}")]
    Protocol {
        /// The server.
        peer: SocketAddr,
        /// What it did.
        #[source]
        source: WireError,
    },
    /// What arrived is not what the server said it would send.
    #[error("what arrived from {peer} has MD5 {received}, but the server announced {announced}")]
    Checksum {
        /// The server.
        peer: SocketAddr,
        /// The digest of what arrived.
        received: Md5,
        /// The digest in the header.
        announced: Md5,
    },
    /// The target cannot be written.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A stream that the verified file goes to cannot be written.
    #[error("cannot write to {path}: {}", in_words(.source))]
    Output {
        /// The stream.
        path: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Whoever asked does not want it any more.
    #[error("interrupted")]
    Interrupted,
}

impl FetchError {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound(_) => Code::NotFound,
            Self::Selection { .. }
            | Self::Name { .. }
            | Self::NotALocalFile { .. }
            | Self::NotALocalFolder { .. } => Code::Usage,
            Self::Refused { .. } => Code::NotAllowed,
            Self::Connect { .. } => Code::Connect,
            Self::Lost { .. } => Code::Lost,
            Self::Silent { .. } => Code::Timeout,
            Self::Unanswered { .. } => Code::Lost,
            Self::Cancelled { .. } => Code::Cancelled,
            Self::Unknowing { .. }
            | Self::OldServer { .. }
            | Self::KeyNeedsV2 { .. }
            | Self::NoUploads { .. }
            | Self::NoPushes { .. } => Code::Unsupported,
            Self::Untrusted(distrust) => distrust.code(),
            Self::SourceChanged { .. } | Self::StreamChanged { .. } | Self::LocalChanged { .. } => {
                Code::SourceChanged
            }
            Self::TooLarge { .. } | Self::Unwanted { .. } => Code::Limit,
            Self::Unavailable { .. } | Self::Unstored { .. } => Code::Other,
            Self::Failed { code, .. } => *code,
            Self::Protocol { .. } | Self::Violated { .. } => Code::Protocol,
            Self::Checksum { .. }
            | Self::Damaged { .. }
            | Self::Contradiction { .. }
            | Self::StoredOther { .. }
            | Self::OtherSource { .. }
            | Self::OtherFile { .. } => Code::Checksum,
            Self::Stage(error) => error.code(),
            Self::Output { source, .. } if is_no_space(source) => Code::NoSpace,
            Self::Output { .. } | Self::Unreadable { .. } => Code::LocalIo,
            Self::NotAFolder(_) => Code::Usage,
            Self::Unlisted(_) => Code::NotAllowed,
            Self::Interrupted => Code::Other,
        }
    }

    /// Whether the same request may succeed later. A refusal, a peer of another kind and trouble on
    /// this machine do not go away by asking again.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Lost { .. }
            | Self::Silent { .. }
            | Self::Unanswered { .. }
            | Self::SourceChanged { .. }
            | Self::Unavailable { .. }
            | Self::Unstored { .. }
            | Self::LocalChanged { .. }
            | Self::StoredOther { .. }
            | Self::Damaged { .. }
            | Self::Contradiction { .. }
            | Self::Violated { .. }
            | Self::Checksum { .. } => true,
            Self::NotFound(_)
            | Self::Cancelled { .. }
            | Self::Unknowing { .. }
            | Self::Selection { .. }
            | Self::Refused { .. }
            | Self::OldServer { .. }
            | Self::KeyNeedsV2 { .. }
            | Self::NoUploads { .. }
            | Self::NoPushes { .. }
            | Self::Unwanted { .. }
            | Self::OtherSource { .. }
            | Self::NotALocalFile { .. }
            | Self::NotALocalFolder { .. }
            | Self::Name { .. }
            | Self::TooLarge { .. }
            | Self::Untrusted(_)
            | Self::StreamChanged { .. }
            | Self::Failed { .. }
            | Self::Protocol { .. }
            | Self::OtherFile { .. }
            | Self::Unreadable { .. }
            | Self::Stage(_)
            | Self::Output { .. }
            | Self::NotAFolder(_)
            | Self::Unlisted(_)
            | Self::Interrupted => false,
        }
    }
}
