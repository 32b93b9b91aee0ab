//! How an upload comes to its end: what is here is proven, gets its name, and is acknowledged; or it is found out what of
//! it does not belong to the file.

use std::sync::{Arc, PoisonError};

use super::{Held, Need, Outcome, Pen, begin};
use crate::fileops;
use crate::limits::UPLOAD_ROUNDS_MAX;
use crate::service::access::Permit;
use crate::service::uploads::naming::Named;
use crate::service::uploads::{Claim, Offer, UploadError};
use crate::service::{Service, lock};
use crate::staged::{Part, Replace};
use crate::tree::{BlockSet, HASH_LEN, Root, Tree, Value, block_count};

impl Pen {
    /// All blocks are recorded: proves them, commits the file, and ends the upload; or says what is missing for
    /// that. Blocks.
    pub(crate) fn settle(&self) {
        if let Err(error) = self.try_settle() {
            // Whoever has taken over meanwhile hears it as well: the part may be gone.
            let cause = error.to_string();
            self.grip.upload.end(Outcome::Failed(error.code(), error.text()), Some(&cause));
        }
        lock(&self.grip.upload.state).is_settling = false;
        self.grip.upload.stirred.send_replace(());
    }

    fn try_settle(&self) -> Result<(), UploadError> {
        let upload = &self.grip.upload;
        let _alone = upload.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fence = upload.fence_mut();
        let Some(held) = &fence.part else { return Ok(()) };
        let mut state = lock(&upload.state);
        if state.left != Some(0) || state.need != Need::Nothing {
            return Ok(());
        }
        let empty = (upload.size == 0).then(|| Root::of(b""));
        let Some(root) = state.offer.root.or(empty) else {
            state.need = Need::Root;
            return Ok(());
        };
        if empty.is_some_and(|empty| empty != root) {
            return Err(UploadError::Damaged);
        }
        if empty.is_none() && root_of(&held.part, upload.size) != Some(root) {
            state.rounds += 1;
            if state.rounds > UPLOAD_ROUNDS_MAX {
                return Err(UploadError::Damaged);
            }
            state.need = Need::Values;
            return Ok(());
        }
        let offer = state.offer.clone();
        drop(state);
        let Some(Held { part, permit, reservation, _claim: claim, _gate: gate, _place: place, .. }) =
            fence.part.take()
        else {
            return Ok(());
        };
        drop(fence);
        let part =
            Arc::into_inner(part).ok_or_else(|| UploadError::Catalog("the part is in use".to_owned()))?;
        let attributes = set_attributes(&part, &offer);
        attributes.map_err(|error| UploadError::Place(crate::storage::ChangeError::Io(error)))?;
        let given = commit(&upload.service, part, &permit, offer.replace)?;
        let (permit, given) = match given {
            Some((permit, claim)) => (permit.clone(), Some((permit.name().clone(), claim))),
            None => (permit, None),
        };
        upload.service.note_stored(&permit, upload.size, reservation)?;
        let name = given.as_ref().map(|(name, _claim)| name);
        upload.service.inner.uploads.remember((&upload.name, name), upload.key, &offer, root);
        lock(&upload.state).given = name.cloned();
        drop((claim, given, gate, place));
        upload.conclude(Outcome::Stored(root), None);
        Ok(())
    }

    /// The values of all blocks, as the client tells them: those that are here and equal stay. Blocks.
    pub(crate) fn compare(&self, root: Root, values: &[(u64, [u8; HASH_LEN])]) {
        if let Err(error) = self.try_compare(root, values) {
            self.fail(error.code(), &error.text(), &error.to_string());
        }
        self.grip.upload.stirred.send_replace(());
    }

    fn try_compare(&self, root: Root, values: &[(u64, [u8; HASH_LEN])]) -> Result<(), UploadError> {
        let upload = &self.grip.upload;
        let _alone = upload.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fence = upload.fence_mut();
        if fence.generation != self.grip.generation {
            return Ok(());
        }
        let Some(held) = &mut fence.part else { return Ok(()) };
        let kept = held.part.kept().map(|kept| kept.blocks).unwrap_or_default();
        let mut keep = BlockSet::default();
        for (index, hash) in values {
            if kept.get(index) == Some(hash) {
                // They are ascending.
                let _ = keep.push(*index..*index + 1);
            }
        }
        held.source.root = Some(root);
        begin(held, &keep)?;
        let mut state = lock(&upload.state);
        if state.offer.root.is_some_and(|known| known != root) {
            return Err(UploadError::SourceChanged);
        }
        state.offer.root = Some(root);
        state.need = Need::Nothing;
        state.is_claimed = false;
        state.resume(&held.part, upload.size);
        Ok(())
    }
}

/// Gives a part that is whole its name: the one that it was asked for, or else one of the server's, which is returned. Blocks.
fn commit(
    service: &Service,
    part: Part,
    permit: &Permit,
    replace: bool,
) -> Result<Option<(Permit, Claim)>, UploadError> {
    let replace = if replace { Replace::Always } else { Replace::Never };
    let Some(Named { permit, is_only }) = service.name_for(permit)? else {
        let committed = part.commit(replace);
        return Ok(committed.map(|()| None).inspect_err(|_| service.inner.doubt())?);
    };
    let claim = service.inner.busy.claim(permit.name()).ok_or(UploadError::Busy)?;
    let place = service.inner.storage.place(permit.name())?;
    let replace = if is_only { replace } else { Replace::Never };
    part.commit_at(place, replace).inspect_err(|_| service.inner.doubt())?;
    Ok(Some((permit, claim)))
}

/// The root that the recorded blocks make, if they are all there.
fn root_of(part: &Part, size: u64) -> Option<Root> {
    let blocks = part.kept()?.blocks;
    if blocks.len() as u64 != block_count(size) {
        return None;
    }
    let mut hashes = blocks.into_values();
    match block_count(size) {
        1 => hashes.next().map(Root::from_bytes),
        _ => Tree::over(hashes.map(Value::from_bytes).collect()).map(|tree| tree.root()),
    }
}

/// Gives a staged file the time and the mode that it has on the client. Nobody gets a right that the server's umask
/// keeps from them.
fn set_attributes(part: &Part, offer: &Offer) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    /// Whoever may read may execute, if the client says so.
    const READ: u32 = 0o444;
    let given = part.file().metadata()?.mode() & 0o666;
    fileops::set_mode(part.file(), offer.mode & (given | ((given & READ) >> 2)))?;
    fileops::set_modified(part.file(), offer.modified)
}
