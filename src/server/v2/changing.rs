//! REMOVE, MOVE and the making of folders: allowed, done off the async threads, answered when they last.
//!
//! Few are done at the same time; the others wait in the socket of whoever sends them.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Connection, Done, End, NO_SUCH_FILE};
use crate::codec::v2::{Move, Remove, RequestId, ServerFrame};
use crate::error::Code;
use crate::limits::{V2_CHANGES_MAX, V2_WAIT_INTERVAL};
use crate::rights::Verb;
use crate::service::Event;
use crate::service::access::{Denied, Permit};
use crate::service::uploads::{Change, UploadError};

/// Said of a name that nothing can have here, whatever the reason.
const NO_SUCH_NAME: &str = "nothing can have this name here";

impl Connection<'_> {
    pub(super) fn hear_remove(&mut self, request: RequestId, remove: &Remove) -> Result<(), End> {
        self.responder.claim(request)?;
        if let Some(permit) = self.permit(request, Verb::Remove, &remove.name) {
            self.change(request, Change::Remove { permit, recursive: remove.recursive });
        }
        Ok(())
    }

    pub(super) fn hear_move(&mut self, request: RequestId, names: &Move) -> Result<(), End> {
        self.responder.claim(request)?;
        if let Some(from) = self.permit(request, Verb::Move, &names.from)
            && let Some(to) = self.permit(request, Verb::Put, &names.to)
        {
            self.change(request, Change::Move { from, to, replace: names.replace });
        }
        Ok(())
    }

    /// Makes a folder.
    pub(super) fn put_folder(&mut self, request: RequestId, permit: Permit, mode: u32) {
        self.change(request, Change::Folder { permit, mode });
    }

    /// Leave to do something to a name; without one the client has been told why.
    pub(super) fn permit(&mut self, request: RequestId, verb: Verb, name: &[u8]) -> Option<Permit> {
        match self.context.service.permit(&self.caller, verb, name) {
            Ok(permit) => Some(permit),
            Err(Denied::Name(error)) => {
                let (peer, cause) = (self.caller.peer(), error.to_string());
                self.context.service.tell(&Event::Refused { peer, name, cause: &cause });
                let (code, text) = match verb {
                    Verb::Put => (Code::NotAllowed, NO_SUCH_NAME),
                    _ => (Code::NotFound, NO_SUCH_FILE),
                };
                self.tell_failed(request, code, text);
                None
            }
            Err(denied) => {
                self.tell_failed(request, Code::NotAllowed, &denied.to_string());
                None
            }
        }
    }

    fn change(&mut self, request: RequestId, change: Change) {
        let (service, turns) = (self.context.service.clone(), Arc::clone(&self.openings));
        self.running.spawn(async move {
            let turn = turns.acquire_owned().await.ok().map(Arc::new);
            let held = turn.clone();
            let changing = tokio::task::spawn_blocking(move || {
                let _turn = held;
                service.change(&change)
            });
            let changed = changing.await.unwrap_or_else(|aborted| Err(UploadError::aborted(&aborted)));
            Done::Changed(request, changed, turn)
        });
        self.changing.insert(request);
    }

    /// Whether one more change may be begun.
    pub(super) fn may_change(&self) -> bool {
        self.changing.len() < V2_CHANGES_MAX
    }

    /// Tells what came of a change.
    pub(super) fn changed(&mut self, request: RequestId, changed: Result<(), UploadError>) {
        self.changing.remove(&request);
        match changed {
            Ok(()) => self.tell(&ServerFrame::End(request, None)),
            Err(error) => self.tell_failed(request, error.code(), &error.text()),
        }
    }

    /// When the client is to be told that this end is still at what it waits for.
    pub(super) fn still_at(&mut self) -> Option<Instant> {
        let is_at_nothing = self.changing.is_empty() && self.controls.is_empty();
        if is_at_nothing && self.wholes.in_hand().next().is_none() && self.pushing.waiting().next().is_none()
        {
            self.still_at = None;
        } else {
            self.still_at.get_or_insert_with(|| Instant::now() + V2_WAIT_INTERVAL);
        }
        self.still_at
    }

    /// Tells it, if it is time.
    pub(super) fn tell_still_at(&mut self) {
        let now = Instant::now();
        if self.still_at.is_some_and(|at| at <= now) {
            self.still_at = Some(now + V2_WAIT_INTERVAL);
            let (puts, wholes) = (self.puts.numbers(), self.wholes.in_hand());
            let (controls, pushes) = (self.controls.numbers(), self.pushing.waiting());
            let waiting =
                self.changing.iter().copied().chain(puts).chain(wholes).chain(controls).chain(pushes);
            let waiting: Vec<_> = waiting.collect();
            waiting.into_iter().for_each(|request| self.tell(&ServerFrame::Wait(request)));
        }
    }

    /// Sends a frame with the next write.
    pub(super) fn tell(&mut self, frame: &ServerFrame) {
        frame.encode(&mut self.output);
    }

    /// Says why a request of this edge has failed.
    pub(super) fn tell_failed(&mut self, request: RequestId, code: Code, text: &str) {
        let text = bytes::Bytes::copy_from_slice(text.as_bytes());
        self.tell(&ServerFrame::Error(request, code.into(), text));
    }
}
