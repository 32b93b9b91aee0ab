//! Files that come in: who may store what, one writer for each name, and what "stored" means.
//!
//! An edge offers what a client puts, and gives blocks; nothing here knows frames. Whatever is answered with
//! [`Stored`] is on the disk under its name, and survives a power cut.

mod busy;
mod ledger;
mod naming;
mod settled;
mod small;
mod waiting;

pub(super) use busy::Busy;
pub(crate) use busy::Claim;
pub(super) use ledger::Ledger;
pub(crate) use ledger::Reservation;
pub(super) use naming::Naming;
pub use naming::{Namer, ToName};
pub(super) use small::Wholes;
pub(crate) use small::{Room, WholeFile};
pub(crate) use waiting::Waiting;

use crate::error::Code;
use crate::names::{FileName, NameError};
use crate::priority::Priority;
use crate::service::access::Denied;
use crate::staged::StageError;
use crate::storage::{ChangeError, OpenError};
use crate::tree::Root;

mod cancelling;
mod changing;
mod names;
mod upload;

pub(crate) use changing::Change;
pub(super) use names::Uploads;
pub(crate) use upload::{Hand, Next, Outcome, Pen};

/// Bytes of the identity of a part that tell whose key it is; the others tell the file.
const TOKEN_OF_KEY: usize = 8;

/// What a client offers to bring.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    /// A file that has the name is replaced.
    pub(crate) replace: bool,
    /// Nothing is done if a file of this size and time has the name.
    pub(crate) unless_same: bool,
    /// Bytes.
    pub(crate) size: u64,
    /// When it was changed: seconds since 1970, and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// Permission bits.
    pub(crate) mode: u32,
    /// The identity of its version on the client.
    pub(crate) token: [u8; 16],
    /// Its root, if it is known.
    pub(crate) root: Option<Root>,
    /// The number that all connections of one upload share.
    pub(crate) transfer: [u8; 16],
    /// A higher attempt takes over from all lower ones.
    pub(crate) attempt: u32,
    /// How urgent it is.
    pub(crate) priority: Priority,
}

/// How an upload begins.
pub(crate) enum Begun {
    /// The same is there already.
    Same,
    /// This very upload was stored a short while ago; under this name, if the server has given it one.
    Stored(Root, Option<FileName>),
    /// It goes on.
    Goes(Hand),
}

/// What came of a file that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is stored, with this root.
    New(Root),
    /// A file of the same size and time is there already; nothing was done.
    Same,
}

/// Why a file was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    /// Something else has the name and is not to be replaced.
    #[error("there is something of this name already, and it is not replaced")]
    Exists,
    /// Another upload of this name is under way.
    #[error("another client is storing, removing or renaming something of this name at this moment")]
    Busy,
    /// A later attempt at the same upload goes on elsewhere.
    #[error("another connection goes on with this upload")]
    Superseded,
    /// It is larger than this server takes.
    #[error("it has {size} bytes, and this server takes at most {max}")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The largest size in bytes.
        max: u64,
    },
    /// It does not fit into what the key may use.
    #[error("it needs {needed} bytes, and the key has {left} left of its quota")]
    Quota {
        /// Bytes.
        needed: u64,
        /// Bytes.
        left: u64,
    },
    /// Somebody who may has cancelled it.
    #[error("the transfer was cancelled by an operator of the server")]
    Cancelled,
    /// More are under way than this server takes.
    #[error("too many uploads are under way; try again later")]
    TooMany,
    /// The client cannot go on with it.
    #[error("the client gave it up: {0}")]
    Client(String),
    /// The bytes that came are not those that were announced.
    #[error("what arrived is not what was announced")]
    Damaged,
    /// It changed on the client while it was being fetched.
    #[error("the file changed while it was being sent")]
    SourceChanged,
    /// Its place cannot be had.
    #[error(transparent)]
    Place(#[from] ChangeError),
    /// It could not be staged or committed.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// What names files here has made none of its name.
    #[error("the server has made a name for it that is none: {0}")]
    NoName(NameError),
    /// What names files here has made a name that its client may not store.
    #[error("it would get a name under which it may not be stored: {0}")]
    NotThere(Denied),
    /// What the server has to remember of it cannot be written down.
    #[error("the catalog cannot be written: {0}")]
    Catalog(String),
}

impl UploadError {
    /// A piece of work on it has ended before its end.
    pub(crate) fn aborted(aborted: &tokio::task::JoinError) -> Self {
        Self::Place(ChangeError::Io(std::io::Error::other(aborted.to_string())))
    }

    /// The kind of failure, as the peer is told it.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Exists | Self::Busy | Self::Superseded | Self::Place(ChangeError::Exists) => Code::Exists,
            Self::NoName(_) | Self::NotThere(_) => Code::NotAllowed,
            Self::TooLarge { .. } | Self::Quota { .. } | Self::TooMany => Code::Limit,
            Self::Client(_) => Code::Other,
            Self::Cancelled => Code::Cancelled,
            Self::Damaged => Code::Checksum,
            Self::SourceChanged => Code::SourceChanged,
            Self::Place(ChangeError::NoSpace) => Code::NoSpace,
            Self::Place(ChangeError::Open(OpenError::NotFound)) => Code::NotFound,
            Self::Place(ChangeError::Open(OpenError::Refused(_))) => Code::NotAllowed,
            Self::Place(ChangeError::NotEmpty) => Code::Exists,
            Self::Place(_) | Self::Catalog(_) => Code::LocalIo,
            Self::Stage(StageError::Busy(_) | StageError::NotAFile(_)) => Code::Exists,
            Self::Stage(error) => error.code(),
        }
    }

    /// What the peer is told: nothing of where the server has its files.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Stage(StageError::Busy(_)) => Self::Busy.to_string(),
            Self::Stage(_) if self.code() == Code::NoSpace => ChangeError::NoSpace.to_string(),
            Self::Stage(StageError::Exists(_) | StageError::NotAFile(_)) => Self::Exists.to_string(),
            Self::Place(ChangeError::Io(_)) | Self::Stage(_) | Self::Catalog(_) => {
                "the server cannot store it now".to_owned()
            }
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
#[path = "uploads/offered_tests.rs"]
mod offered_tests;
#[cfg(test)]
mod tests;
