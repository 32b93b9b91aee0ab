//! What has a name although nobody knows whether that is on the disk.
//!
//! A server that is killed between giving a name and flushing it leaves one that looks as if it were stored, and a
//! folder that nobody knows to be new; so does a flush that fails. Before anything is said to be there, or
//! put into a folder that was there, all of that is flushed: once after the start, and after each failed flush.

use std::io;
use std::sync::Mutex;

use super::UploadError;
use crate::service::{Inner, lock};
use crate::storage::ChangeError;

/// Whether all names that can be seen are on the disk.
#[derive(Debug, Default)]
pub(in crate::service) struct Settled(Mutex<bool>);

impl Settled {
    /// Flushes with `flush` unless that was done already; whoever comes meanwhile waits for it.
    fn ensure(&self, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut is_settled = lock(&self.0);
        if !*is_settled {
            flush()?;
            *is_settled = true;
        }
        Ok(())
    }

    /// A flush has failed.
    fn doubt(&self) {
        *lock(&self.0) = false;
    }
}

impl Inner {
    /// Sees to it that what is there survives a power cut. Blocks.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(super) fn settle(&self) -> Result<(), UploadError> {
        let settled = self.uploads.settled.ensure(|| self.storage.settle());
        settled.map_err(|error| UploadError::Place(ChangeError::Io(error)))
    }

    /// Something may have got its name without being flushed.
    pub(super) fn doubt(&self) {
        self.uploads.settled.doubt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_flushed_once_and_again_after_a_flush_that_failed() {
        let (settled, mut flushes) = (Settled::default(), 0);
        let mut ensure = |works: bool| {
            let done = settled.ensure(|| {
                flushes += 1;
                if works { Ok(()) } else { Err(io::Error::other("the disk is broken")) }
            });
            (done.is_ok(), flushes)
        };
        assert_eq!(ensure(false), (false, 1), "nothing is believed before it was flushed");
        assert_eq!([ensure(true), ensure(true)], [(true, 2); 2]);
        settled.doubt();
        assert_eq!([ensure(true), ensure(true)], [(true, 3); 2]);
    }
}
