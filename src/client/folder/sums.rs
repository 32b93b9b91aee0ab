//! What comes of the files of a folder, told and counted.

use crate::client::{Event, FetchError, Observer};
use crate::digest::Digest;
use crate::names::FileName;
use crate::staged::StageError;

/// What came of one entry.
pub(in crate::client) enum Outcome {
    /// It was fetched.
    Got { name: FileName, size: u64, digest: Digest },
    /// It was here already.
    Kept { name: FileName, size: u64 },
    /// It is not here.
    Failed { name: Vec<u8>, error: FetchError },
    /// It is a link that was not followed.
    Skipped { name: Vec<u8> },
}

/// What has been told of so far.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) unchanged: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) resumed: u64,
}

impl Sums {
    pub(super) fn hear(&mut self, observer: &dyn Observer, outcome: Outcome) {
        match outcome {
            Outcome::Got { name, size, digest } => {
                (self.files, self.bytes) = (self.files + 1, self.bytes + size);
                observer.observe(&Event::FileDone { name: name.as_bytes(), size, digest });
            }
            Outcome::Kept { name, size } => {
                self.unchanged += 1;
                observer.observe(&Event::FileKept { name: name.as_bytes(), size });
            }
            Outcome::Failed { name, error } => {
                self.failed += 1;
                observer.observe(&Event::FileFailed { name: &name, error: &error });
            }
            Outcome::Skipped { name } => {
                self.skipped += 1;
                observer.observe(&Event::FileSkipped { name: &name });
            }
        }
    }

    /// Files that had come, and could not get their names in the end.
    pub(super) fn lost(&mut self, observer: &dyn Observer, unnamed: Vec<(FileName, StageError)>) {
        for (name, error) in unnamed {
            self.failed += 1;
            self.files = self.files.saturating_sub(1);
            let error = FetchError::from(error);
            observer.observe(&Event::FileFailed { name: name.as_bytes(), error: &error });
        }
    }
}
