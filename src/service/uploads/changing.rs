//! Folders are made, things removed and renamed: each at once, and told when it lasts.

use super::UploadError;
use crate::names::FileName;
use crate::service::access::Permit;
use crate::service::{Event, Service};
use crate::storage::{ChangeError, Removed};

/// Something that is done to names, with leave for all of them.
#[derive(Debug)]
pub(crate) enum Change {
    /// Make a folder.
    Folder {
        /// Leave for its name.
        permit: Permit,
        /// Its permission bits, if it is made.
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
        let done = self.change_alone(change);
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
        done.map(drop)
    }

    /// Changes what nobody else is writing to, and writes down what has become of whose files.
    fn change_alone(&self, change: &Change) -> Result<Removed, UploadError> {
        let mut claims = Vec::new();
        for name in change.names() {
            claims.push(self.inner.busy.claim(name).ok_or(UploadError::Busy)?);
        }
        self.inner.settle()?;
        let done = self.apply(change).inspect_err(|error| {
            if matches!(error, ChangeError::Io(_)) {
                self.inner.doubt();
            }
        })?;
        match change {
            Change::Folder { .. } => {}
            Change::Remove { permit, .. } => self.note_removed(permit.name()),
            Change::Move { from, to, .. } => self.note_renamed(from.name(), to.name()),
        }
        drop(claims);
        Ok(done)
    }

    fn apply(&self, change: &Change) -> Result<Removed, ChangeError> {
        let storage = &self.inner.storage;
        match change {
            Change::Folder { permit, mode } => {
                storage.make_folder_with(permit.name(), *mode).map(|()| Removed::default())
            }
            Change::Remove { permit, recursive } => storage.remove(permit.name(), *recursive),
            Change::Move { from, to, replace } => {
                storage.rename(from.name(), to.name(), *replace).map(|()| Removed::default())
            }
        }
    }
}

impl Change {
    /// The names that something is taken from, or given to.
    fn names(&self) -> impl Iterator<Item = &FileName> {
        let (one, two) = match self {
            Self::Folder { .. } => (None, None),
            Self::Remove { permit, .. } => (Some(permit), None),
            // A name that is its own new one is for the store to refuse.
            Self::Move { from, to, .. } => (Some(from), (from.name() != to.name()).then_some(to)),
        };
        one.into_iter().chain(two).map(Permit::name)
    }

    fn permit(&self) -> &Permit {
        match self {
            Self::Folder { permit, .. } | Self::Remove { permit, .. } => permit,
            Self::Move { from, .. } => from,
        }
    }
}
