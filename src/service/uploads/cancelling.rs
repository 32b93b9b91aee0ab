//! The end of an upload by the word of somebody else than its client.
//!
//! What has come of it stays for whoever goes on with it another time, as after any cut.

use std::sync::Arc;

use super::UploadError;
use super::upload::{Outcome, Upload};
use crate::service::Service;
use crate::service::live::Moving;

impl Service {
    /// Whether a transfer is an upload that can still be ended. Blocks while something of it is being written.
    pub(in crate::service) fn may_cancel_upload(&self, moving: &Arc<Moving>) -> bool {
        self.cancellable_upload(moving).is_some()
    }

    /// Ends it, for all connections that bring it, unless it is on its way to its name by now. Blocks.
    pub(in crate::service) fn cancel_upload(&self, moving: &Arc<Moving>) {
        let Some(upload) = self.cancellable_upload(moving) else { return };
        let error = UploadError::Cancelled;
        self.inner.live.has_heard(moving);
        upload.end(Outcome::Failed(error.code(), error.text()), Some(&error.to_string()));
    }

    /// Looked for among all: where the server names what it receives, an upload is not found by its name.
    fn cancellable_upload(&self, moving: &Arc<Moving>) -> Option<Arc<Upload>> {
        self.inner.uploads.all_running().into_iter().find(|upload| upload.is_cancellable(moving))
    }
}
