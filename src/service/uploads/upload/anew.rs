//! Uploads in dialects that know no blocks: all of a file comes, in its order, and what is left of another attempt is
//! of no use to it.

use std::sync::{Arc, PoisonError};

use super::{Need, Pen, begin};
use crate::error::Code;
use crate::service::lock;
use crate::service::uploads::UploadError;
use crate::tree::BlockSet;

impl Pen {
    /// Whatever is there of the file is forgotten: all of it is to come. Blocks.
    ///
    /// # Errors
    /// [`UploadError::Superseded`] if another attempt has taken over, and if the disk refuses.
    pub(crate) fn start_over(&self) -> Result<(), UploadError> {
        let upload = &self.grip.upload;
        let _alone = upload.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fence = upload.fence_mut();
        let is_ours = fence.generation == self.grip.generation;
        let held = fence.part.as_mut().filter(|_| is_ours).ok_or(UploadError::Superseded)?;
        begin(held, &BlockSet::default())?;
        let mut state = lock(&upload.state);
        state.need = Need::Nothing;
        state.is_claimed = false;
        state.resume(&held.part, upload.size);
        Ok(())
    }

    /// The upload has failed, and what is there of it goes with it. Blocks.
    pub(crate) fn discard(&self, code: Code, text: &str, cause: &str) {
        let upload = &self.grip.upload;
        let alone = upload.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fence = upload.fence_mut();
        if fence.generation == self.grip.generation
            && let Some(part) = fence.part.as_mut().and_then(|held| Arc::get_mut(&mut held.part))
        {
            // What cannot be removed now is swept when it is old.
            let _ = part.discard();
        }
        drop(fence);
        drop(alone);
        self.fail(code, text, cause);
    }
}
