//! Listings of folders, off the async threads and few at a time.

use std::sync::Arc;

use super::access::Permit;
use super::{Service, ServiceError};
use crate::listing::{Selection, Stretch};
use crate::names::FileName;
use crate::storage::ListError;

/// Why there is no stretch of a listing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListingError {
    /// There is no such folder, or it cannot be told now.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The cursor is not one that this server gave.
    #[error("the cursor is none")]
    Cursor,
}

impl Service {
    /// The stretch of a listing that begins at a cursor.
    pub(crate) async fn list(
        &self,
        permit: Permit<Option<FileName>>,
        selection: Arc<Selection>,
        cursor: bytes::Bytes,
    ) -> Result<Stretch, ListingError> {
        let unavailable = |cause: String| ListingError::Service(ServiceError::Unavailable(cause));
        let turns = Arc::clone(&self.inner.listings);
        let turn = turns.acquire_owned().await.map_err(|closed| unavailable(closed.to_string()))?;
        let inner = Arc::clone(&self.inner);
        let listing = tokio::task::spawn_blocking(move || {
            // Given back when the work is done, whether anybody still waits for it or not.
            let _turn = turn;
            inner.storage.list(permit.name().as_ref(), &selection, &cursor)
        });
        match listing.await.map_err(|aborted| unavailable(aborted.to_string()))? {
            Ok(stretch) => Ok(stretch),
            Err(ListError::Cursor) => Err(ListingError::Cursor),
            Err(ListError::Open(error)) => Err(ServiceError::from(error).into()),
        }
    }
}
