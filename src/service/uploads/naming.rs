//! Names that the server gives to what it receives, where somebody has said how.
//!
//! A client asks for a name; under which one its file is stored is decided once, when all of it is here. Until then the
//! upload has a slot of its own, which follows from the key, the name that was asked for, and the file: so an upload that
//! was cut is gone on with as any other, and two files that are to have one name do not get into each other's way.
//! Whatever makes the names is believed in nothing: what it says is parsed like a name of a peer, and has to be one that
//! the key may store.

use std::sync::Mutex;

use jiff::Timestamp;

use super::UploadError;
use crate::keys::KeyName;
use crate::limits::{NAMES_TRIED_MAX, SLOT_BYTES};
use crate::names::FileName;
use crate::rights::Verb;
use crate::service::access::Permit;
use crate::service::{Service, lock};
use crate::storage::OpenError;

/// Makes the name under which a file is stored: the bytes of a name beneath the folder that is served.
pub type Namer = dyn Fn(&ToName<'_>) -> Vec<u8> + Send + Sync;

/// A file that is to have a name.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ToName<'a> {
    /// What the client has asked for.
    pub name: &'a FileName,
    /// The name of the key that it has shown.
    pub key: Option<&'a KeyName>,
    /// When the file was received.
    pub time: Timestamp,
    /// A number, from 1 on: a higher one for each file since the server was started. If there is something of the name that
    /// was made, another one is asked for with another number; a maker whose names do not depend on it is asked for
    /// no other.
    pub counter: u64,
}

impl<'a> ToName<'a> {
    /// A file that is to have a name.
    #[must_use]
    pub fn new(name: &'a FileName, key: Option<&'a KeyName>, time: Timestamp, counter: u64) -> Self {
        Self { name, key, time, counter }
    }
}

/// How names are made.
pub(in crate::service) struct Naming {
    make: Box<Namer>,
    next: Mutex<u64>,
}

/// Under which name a file is to be stored.
pub(super) struct Named {
    pub(super) permit: Permit,
    /// No other number would have made another name: whether the file replaces one of this name is for the client to say.
    pub(super) is_only: bool,
}

impl Naming {
    pub(in crate::service) fn new(make: Box<Namer>) -> Self {
        Self { make, next: Mutex::new(1) }
    }
}

impl Service {
    fn naming(&self) -> Option<&Naming> {
        self.inner.access.naming()
    }

    /// How this file gets a name that its client has not asked for, if it does. What goes on to somebody who listens has
    /// no name here.
    fn naming_of(&self, permit: &Permit) -> Option<&Naming> {
        self.naming().filter(|_| !permit.name().is_pushed())
    }

    /// Whether this file gets a name that its client has not asked for.
    pub(super) fn gives_names(&self, permit: &Permit) -> bool {
        self.naming_of(permit).is_some()
    }

    /// What stands for an upload while it is under way: the name that it is to have, or a slot of its own. `which` tells one
    /// file from others that are to have the same name.
    pub(super) fn slot(&self, permit: &Permit, which: &[u8; 16]) -> FileName {
        if !self.gives_names(permit) {
            return permit.name().clone();
        }
        let key = permit.caller().key_id().map(|key| key.to_string()).unwrap_or_default();
        let asked = [which, key.as_bytes(), b"/", permit.name().as_bytes()].concat();
        let hash = blake3::derive_key("oneport 2026 slot of an upload", &asked);
        let digits: String = hash[..SLOT_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        // Digits are a name; else what was asked for is one.
        FileName::parse(digits.as_bytes()).unwrap_or_else(|_| permit.name().clone())
    }

    /// The name for a file that has come in; `None` if it is to have the one that was asked for. Blocks.
    ///
    /// # Errors
    /// If there is no name for it.
    pub(super) fn name_for(&self, permit: &Permit) -> Result<Option<Named>, UploadError> {
        let Some(naming) = self.naming_of(permit) else { return Ok(None) };
        let (key, time) = (permit.caller().key_name(), Timestamp::now());
        let make = |counter| (naming.make)(&ToName::new(permit.name(), key, time, counter));
        let parsed = |counter| FileName::parse(&make(counter)).map_err(UploadError::NoName);
        // Two that come at the same time are to get two numbers.
        let mut next = lock(&naming.next);
        let is_only = make(*next) == make(next.saturating_add(1));
        if !is_only {
            *next = first_free(*next, |counter| self.is_free(&parsed(counter)?))?;
        }
        let name = parsed(*next)?;
        *next = next.saturating_add(1);
        drop(next);
        let permit = self.permit(permit.caller(), Verb::Put, name.as_bytes());
        Ok(Some(Named { permit: permit.map_err(UploadError::NotThere)?, is_only }))
    }

    fn is_free(&self, name: &FileName) -> Result<bool, UploadError> {
        match self.inner.storage.open(name) {
            Err(OpenError::NotFound) => Ok(true),
            Ok(_) | Err(OpenError::Refused(_)) => Ok(false),
            Err(error) => Err(UploadError::Place(error.into())),
        }
    }
}

/// A number from `first` on that is free, though the one before it is not: found by looking ahead in growing steps, and
/// then back. Where numbers were used in their order, that is the first one that is free.
fn first_free(
    first: u64,
    mut is_free: impl FnMut(u64) -> Result<bool, UploadError>,
) -> Result<u64, UploadError> {
    let (mut taken, mut step) = (None, 1_u64);
    let mut free = first;
    let mut tries = 0;
    while !is_free(free)? {
        tries += 1;
        if tries == NAMES_TRIED_MAX {
            return Err(UploadError::Exists);
        }
        taken = Some(free);
        free = free.saturating_add(step);
        step = step.saturating_mul(2);
    }
    let Some(mut taken) = taken else { return Ok(free) };
    while free - taken > 1 {
        let between = taken + (free - taken) / 2;
        if is_free(between)? { free = between } else { taken = between }
    }
    Ok(free)
}

#[cfg(test)]
#[path = "naming/tests.rs"]
mod tests;
