//! Listings of folders in words: what is asked for, what is found, and how far it has come.
//!
//! These are the words of the store, of both ends of the wire and of the client alike. Who may list what,
//! and how, is not decided here.

use bytes::Bytes;

use crate::names::{FileName, NameError};
use crate::patterns::Patterns;

/// What of a folder is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Also what is in the folders in it, and so on.
    pub recursive: bool,
    /// Links to folders are folders.
    pub follow_links: bool,
    /// Also the folder itself, first and with an empty name.
    pub itself: bool,
    /// What is included and what is not.
    pub patterns: Patterns,
}

/// Something in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// It occupies less room than its size.
    pub sparse: bool,
    /// Bytes; of a folder what its file system says.
    pub size: u64,
    /// When it was last changed: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
    /// Permission bits: the lowest nine.
    pub mode: u32,
    /// Its name relative to the folder that was asked for: empty for that itself, or if it is a file.
    pub name: Bytes,
}

/// What an entry of a listing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, or a link to one.
    File,
    /// A folder.
    Folder,
    /// A link to a folder that is not followed, or a folder that lies within itself because of one.
    Link,
    /// A folder that cannot be listed.
    Closed,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::File, Self::Folder, Self::Link, Self::Closed];
}

/// An entry on the wire without its name: kind, flags, size, time, mode, length of the name.
const ENTRY_LEN: usize = 1 + 1 + 8 + (8 + 4) + 4 + 2;

impl Entry {
    /// Bytes that it takes on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        ENTRY_LEN + self.name.len()
    }

    /// Looks at a name that came from a peer: whether it stays in the folder that was asked for.
    ///
    /// # Errors
    /// If it does not, or names what is never served.
    pub fn check_name(&self) -> Result<(), NameError> {
        match self.kind {
            Kind::File | Kind::Folder if self.name.is_empty() => Ok(()),
            _ => FileName::parse(&self.name).map(drop),
        }
    }
}

/// A stretch of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// What was found: possibly nothing, however much was looked at.
    pub entries: Vec<Entry>,
    /// Where the next stretch begins.
    pub cursor: Bytes,
    /// There is no next one.
    pub is_last: bool,
}
