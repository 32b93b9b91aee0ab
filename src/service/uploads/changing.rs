//! Folders are made, things removed and renamed: each at once, and told when it lasts.

use super::UploadError;
use crate::service::access::Permit;
use crate::service::{Event, Service};
use crate::storage::{ChangeError, Removed};

/// Something that is done to names, with leave for all of them.
#[derive(Debug)]
pub(crate) enum Change {
    /// Make a folder.
    Folder {
        /// Its name.
        permit: Permit,
        /// Its permission bits.
        mode: u32,
    },
    /// Remove something.
    Remove {
        /// Its name.
        permit: Permit,
        /// A folder goes with all that is in it.
        recursive: bool,
    },
    /// Give something another name.
    Move {
        /// The old name.
        from: Permit,
        /// The new one.
        to: Permit,
        /// A file that has the new name is replaced.
        replace: bool,
    },
}

impl Service {
    /// Changes something, and tells the observer. What was changed survives a power cut. Blocks.
    pub(crate) fn change(&self, change: &Change) -> Result<(), UploadError> {
        let done = self.apply(change);
        let permit = change.permit();
        let (peer, key) = (permit.caller().peer(), permit.caller().key_name());
        match (&done, change) {
            (Ok(_), Change::Folder { permit, .. }) => {
                self.tell(&Event::Made { peer, key, name: permit.name() });
            }
            (Ok(removed), Change::Remove { permit, .. }) => {
                self.tell(&Event::Removed { peer, key, name: permit.name(), removed: *removed });
            }
            (Ok(_), Change::Move { from, to, .. }) => {
                self.tell(&Event::Moved { peer, key, from: from.name(), to: to.name() });
            }
            (Err(error), _) => {
                let (name, cause) = (permit.name().as_bytes(), error.to_string());
                self.tell(&Event::NotChanged { peer, key, name, cause: &cause });
            }
        }
        Ok(done.map(drop)?)
    }

    fn apply(&self, change: &Change) -> Result<Removed, ChangeError> {
        let storage = &self.inner.storage;
        match change {
            // The mode is the store's matter: folders have the one that the server's umask gives.
            Change::Folder { permit, mode: _ } => {
                storage.make_folder(permit.name()).map(|()| Removed::default())
            }
            Change::Remove { permit, recursive } => storage.remove(permit.name(), *recursive),
            Change::Move { from, to, replace } => {
                storage.rename(from.name(), to.name(), *replace).map(|()| Removed::default())
            }
        }
    }
}

impl Change {
    fn permit(&self) -> &Permit {
        match self {
            Self::Folder { permit, .. } | Self::Remove { permit, .. } => permit,
            Self::Move { from, .. } => from,
        }
    }
}
