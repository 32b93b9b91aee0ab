//! Small files, read as a whole at one moment, for whoever asks for many of them.
//!
//! Nothing is kept of such a file and nobody shares it: it is opened, looked at, read, looked at again
//! and closed. What tells it from other versions is the same as that of a [`super::versions`] of it.
//! What is not in memory is left to the caller, who may wait for it elsewhere. Its bytes are not kept, but
//! their root is, under the rules of [`super::digests`]: the same folder is often fetched by many.

use std::io;
use std::sync::Mutex;

use crate::limits::{SMALL_FILE_MAX, SMALL_ROOTS_MAX};
use crate::storage::{FileTime, Identity, OpenError, StoredFile, Trail};
use crate::tree::Root;

use super::access::Permit;
use super::digests::{is_settled, now};
use super::memory::Memory;
use super::versions::Token;
use super::{Service, ServiceError, lock};

/// Roots are all of one size: their count is bound enough.
const WEIGHT: usize = 0;

/// The tokens and roots of small files that were read before.
pub(super) struct Roots(Mutex<Memory<Identity, (Token, Root)>>);

impl Default for Roots {
    fn default() -> Self {
        Self(Mutex::new(Memory::new(SMALL_ROOTS_MAX, usize::MAX)))
    }
}

impl Roots {
    /// The token of a version and the root of its `bytes`, of which nothing was changed while they were read,
    /// which `began` at this time at the latest.
    fn of(&self, identity: &Identity, bytes: &[u8], began: FileTime) -> (Token, Root) {
        if let Some(known) = lock(&self.0).recall(identity) {
            return known;
        }
        let told = (Token::of(identity), Root::of(bytes));
        if is_settled(identity, began) {
            lock(&self.0).remember(*identity, told, WEIGHT);
        }
        told
    }

    /// Reads a file that is small, whole, at one moment, of which nothing was read before it `began`.
    fn read(
        &self,
        file: StoredFile,
        most: u64,
        began: FileTime,
        bytes: &mut Vec<u8>,
        mut read: impl FnMut(&StoredFile, &mut [u8], u64) -> io::Result<Option<usize>>,
    ) -> Result<Reading, ServiceError> {
        let size = file.size();
        if size > most.min(SMALL_FILE_MAX) {
            return Ok(Reading::Open(file));
        }
        let len = usize::try_from(size).unwrap_or_default();
        bytes.resize(len, 0);
        let mut done = 0;
        while done < len {
            match read(&file, &mut bytes[done..], done as u64).map_err(OpenError::Unavailable)? {
                None => return Ok(Reading::Cold),
                Some(0) => return Ok(Reading::Open(file)),
                Some(count) => done += count,
            }
        }
        let (before, after) = (file.identity(), file.identity_now().map_err(OpenError::Unavailable)?);
        let (token, root) = if after == *before {
            self.of(before, bytes, began)
        } else if after.has_bytes_of(before) {
            (Token::of(before), Root::of(bytes))
        } else {
            return Ok(Reading::Open(file));
        };
        Ok(Reading::Whole(Small { size, modified: file.modified(), mode: file.mode(), token, root }))
    }
}

/// What a small file was when it was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Small {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// When its bytes were last changed: seconds since 1970, and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// Its permission bits: the lowest nine of its mode.
    pub(crate) mode: u32,
    /// What tells it from other versions.
    pub(crate) token: Token,
    /// The digest of its bytes.
    pub(crate) root: Root,
}

/// What came of an attempt to read a small file.
pub(crate) enum Reading {
    /// The bytes are in the buffer, and nothing else is.
    Whole(Small),
    /// It is not small, or changed while it was read: it is to be opened as any other file.
    Open(StoredFile),
    /// A disk would have to be waited for.
    Cold,
}

/// Bytes of the files that are read this way.
#[derive(Debug)]
pub(crate) struct Lane {
    /// No file was read before.
    began: FileTime,
    trail: Trail,
    bytes: Vec<u8>,
    /// A device that keeps everything in memory, if the last file lay on one.
    in_memory: Option<u64>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { began: now(), trail: Trail::default(), bytes: Vec::new(), in_memory: None }
    }
}

impl Lane {
    /// The bytes of the file that was read last.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Service {
    /// Reads a file of at most `most` bytes without waiting for a disk. All names that are asked for with
    /// the same `lane` must have been known before it was made.
    pub(crate) fn read_now(
        &self,
        permit: &Permit,
        most: u64,
        lane: &mut Lane,
    ) -> Result<Reading, ServiceError> {
        let file = match self.inner.storage.open_along(permit.name(), &mut lane.trail) {
            None => return Ok(Reading::Cold),
            Some(opened) => opened?,
        };
        let device = Some(file.identity().device);
        let is_in_memory = &mut lane.in_memory;
        self.inner.roots.read(file, most, lane.began, &mut lane.bytes, |file, bytes, offset| {
            if *is_in_memory == device {
                return file.read_at(bytes, offset).map(Some);
            }
            let told = file.read_now(bytes, offset);
            *is_in_memory = device.filter(|_| file.is_known_to_be_in_memory());
            told
        })
    }

    /// As [`Self::read_now`], but waits for the disk, which blocks.
    pub(crate) fn read_cold(
        &self,
        permit: &Permit,
        most: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<Reading, ServiceError> {
        let file = self.inner.storage.open(permit.name())?;
        self.inner
            .roots
            .read(file, most, now(), bytes, |file, bytes, offset| file.read_at(bytes, offset).map(Some))
    }
}

#[cfg(test)]
#[path = "small/tests.rs"]
mod tests;
