//! Where served files come from: the contract that every store keeps.
//!
//! A store opens a name and nothing else: who may open it is decided above. What it returns is
//! pinned: it stays readable, with the bytes it had, when the name is replaced or removed.
//! The local disk is [`local`].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::names::FileName;

pub mod local;

/// A place that files are served from. Calls may block: keep them off the async threads.
pub trait Storage: Send + Sync + 'static {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`OpenError`] says whether asking again could help.
    fn open(&self, name: &FileName) -> Result<StoredFile, OpenError>;
}

/// Why a file could not be opened. Peers are told nothing of it but that there is no file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file.
    #[error("no such file")]
    NotFound,
    /// There is something, but it is not served.
    #[error("{0}")]
    Refused(&'static str),
    /// It cannot be told now; it may well work later.
    #[error("cannot be opened now: {0}")]
    Unavailable(#[source] io::Error),
}

/// A moment as file systems keep it: seconds and nanoseconds since 1970.
pub type FileTime = (i64, i64);

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device that holds it.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its bytes were last changed.
    pub modified: FileTime,
    /// When its bytes or its attributes were last changed.
    pub changed: FileTime,
}

/// An open regular file and what it was when it was opened.
#[derive(Debug)]
pub struct StoredFile {
    file: File,
    identity: Identity,
}

impl StoredFile {
    /// Takes an open file; `None` if it is not a regular one.
    ///
    /// # Errors
    /// If the operating system does not tell its attributes.
    pub fn new(file: File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let identity = Identity::of(&metadata);
        Ok(Some(Self { file, identity }))
    }

    /// What the file was when it was opened.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.identity.size
    }

    /// What the file is now.
    ///
    /// # Errors
    /// If the operating system does not tell.
    pub fn identity_now(&self) -> io::Result<Identity> {
        Ok(Identity::of(&self.file.metadata()?))
    }

    /// Whether its bytes are still those that it had when it was opened, as far as size and
    /// modification time tell. The time of the last status change is left out on purpose: it also
    /// moves when the file is merely unlinked, replaced or linked, and then the bytes stay.
    ///
    /// # Errors
    /// If the operating system does not tell.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        let now = self.identity_now()?;
        Ok(now.size == self.identity.size && now.modified == self.identity.modified)
    }

    /// Reads at a position, leaving all positions as they are; 0 at the end of the file.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl AsFd for StoredFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Identity {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
