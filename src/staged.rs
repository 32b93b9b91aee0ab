//! Files that are still being received, hidden beside their targets until they are whole.
//!
//! The commit rule: stage under a hidden name in the target's own folder; flush the file; rename it;
//! flush the folder and every new one above it. So the target's name holds the old file, nothing,
//! or the whole new file, whatever happens when. Whether the bytes are the right ones is for the
//! caller to know before it commits.
//!
//! A [`StagedFile`] begins at nothing and leaves nothing. A [`Part`] has a journal beside it and can
//! be gone on with. Both are staged under the same name, which is short whatever the target's, and
//! locked: two receivers of one target never mix. A [`StagedFolder`] is many files, and flushes them
//! together; so does a [`Group`](group::Group), which is a server's.

use std::io;

use crate::error::{Code, in_words, is_no_space};

mod beside;
mod file;
mod folder;
pub mod group;
mod home;
pub mod journal;
mod left;
mod log;
mod made;
mod part;
mod place;
mod sparse;

pub(crate) use beside::make_room;
pub use file::StagedFile;
pub use folder::{Attributes, LargePlace, StagedFolder, Standing};
pub use home::Home;
pub use journal::Source;
pub(crate) use left::{Left, is_left_name};
pub(crate) use made::{Chain, FolderId, NewFolders, id as folder_id};
pub use part::{Kept, Part, Watch};
pub use place::{Held, Place};

/// What happens to a target that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// It stays; committing fails.
    Never,
    /// It is replaced.
    Always,
}

/// Why a file could not be staged or committed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// An operation on a file or folder failed.
    #[error("cannot {operation} {path}: {}", in_words(.source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The disk has less room than the file needs.
    #[error("not enough space for {path}: {needed} bytes are needed, {free} are free")]
    NoSpace {
        /// The target.
        path: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The target exists and is not to be replaced.
    #[error("{0} exists already and is not replaced")]
    Exists(String),
    /// The target is a folder or something else that a file cannot replace.
    #[error("{0} is not a file and is not replaced")]
    NotAFile(String),
    /// Another receiver is at it.
    #[error("another client is receiving {0} at this moment; wait for it, or save under another name")]
    Busy(String),
    /// Something stands where the staged file or its journal should be that is not ours.
    #[error("{0} is in the way and is not a file of this user; remove it")]
    InTheWay(String),
    /// An earlier flush failed, so what the disk holds of the received bytes is not known.
    #[error("a flush of {0} failed; what was received is not used, try again")]
    FlushFailed(String),
    /// The name leads to a file that another name of the same source has got already.
    #[error("{path} is the same file here as another one of these; it is not written twice")]
    Collides {
        /// The name that came second.
        path: String,
    },
    /// A folder is needed where something else is.
    #[error("{0} is not a folder and is not replaced")]
    NotAFolder(String),
    /// This file system has no such names.
    #[error("{path} cannot be the name of a file here: {}", in_words(.source))]
    Name {
        /// The name.
        path: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// The caller wanted no more while the received bytes were being looked through.
    #[error("stopped while looking through what was received of {0}")]
    Stopped(String),
}

impl StageError {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Io { source, .. } if is_no_space(source) => Code::NoSpace,
            Self::NoSpace { .. } => Code::NoSpace,
            Self::Exists(_) | Self::Busy(_) | Self::Collides { .. } => Code::Exists,
            Self::Io { .. } | Self::NotAFile(_) | Self::NotAFolder(_) | Self::Name { .. } => Code::LocalIo,
            Self::InTheWay(_) | Self::FlushFailed(_) => Code::LocalIo,
            Self::Stopped(_) => Code::Other,
        }
    }
}
