//! A listing as it arrives: whether each entry is one that an honest server sends.

use bytes::Bytes;

use crate::codec::WireError;
use crate::codec::v2::{Entries, List};
use crate::listing::Kind;

/// A LIST that has not ended.
#[derive(Debug, Default)]
pub(super) struct Listing {
    has_entries: bool,
    /// The folder itself was asked for, too.
    with_itself: bool,
    /// What was asked for is itself a file: nothing more may come.
    is_file: bool,
    /// Where the last frame ended.
    cursor: Bytes,
}

impl Listing {
    pub(super) fn new(list: &List) -> Self {
        Self { with_itself: list.itself, ..Self::default() }
    }

    /// Looks at what has arrived.
    pub(super) fn take(&mut self, entries: &Entries) -> Result<(), WireError> {
        // Whoever came back with it would hear the same again; and so does whoever stays.
        if entries.cursor == self.cursor {
            return Err(WireError::Order("a listing does not come on"));
        }
        self.cursor = entries.cursor.clone();
        for entry in &entries.entries {
            if entry.check_name().is_err() {
                return Err(WireError::Frame("a listing names what cannot be in the folder"));
            }
            if self.is_file || (entry.name.is_empty() && self.has_entries) {
                return Err(WireError::Order("a listing of a file has other entries beside it"));
            }
            let is_folder = entry.kind == Kind::Folder;
            if entry.name.is_empty() && is_folder && !self.with_itself {
                return Err(WireError::Order("a listing has the folder itself, which nobody asked for"));
            }
            self.is_file = entry.name.is_empty() && !is_folder;
            self.has_entries = true;
        }
        Ok(())
    }
}
