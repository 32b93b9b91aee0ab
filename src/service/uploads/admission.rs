//! What an upload may use: asked before anything of it is opened, and settled when it is stored.

use super::UploadError;
use crate::service::Service;
use crate::service::access::Permit;

/// Leave to store so many bytes. Dropped without being stored, they are free again.
#[derive(Debug)]
#[must_use]
pub(crate) struct Admission(());

impl Service {
    /// Whether a key may store a file of this size now.
    ///
    /// # Errors
    /// [`UploadError::TooLarge`] and [`UploadError::Quota`].
    #[allow(clippy::unused_async, reason = "whoever counts may have to ask the catalog")]
    pub(super) async fn admission(&self, _permit: &Permit, _size: u64) -> Result<Admission, UploadError> {
        Ok(Admission(()))
    }
}

impl Admission {
    /// The file has its name. Blocks.
    ///
    /// # Errors
    /// [`UploadError::Catalog`] if that cannot be written down.
    #[allow(clippy::unnecessary_wraps, reason = "whoever counts may fail to write")]
    pub(super) fn stored(self) -> Result<(), UploadError> {
        Ok(())
    }
}
