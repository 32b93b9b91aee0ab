//! CONTROL: what is asked of the server about itself, answered a page at a time.
//!
//! Pages are made off the async threads and sent one after the other: the next one is made when there is room for
//! what the one before has given. Whether the client may still ask is looked at anew for each.

use std::collections::BTreeMap;

use tokio::task::AbortHandle;

use super::{Connection, Done, End};
use crate::codec::v2::{ErrorCode, RequestId, ServerFrame};
use crate::control::Question;
use crate::error::Code;
use crate::limits::V2_CONTROLS_MAX;
use crate::service::control::{ControlError, Page, Place, verb_of};

/// The questions of a connection that have not been answered to the end.
#[derive(Default)]
pub(super) struct Controls(BTreeMap<RequestId, Asked>);

struct Asked {
    question: Question,
    running: Option<AbortHandle>,
}

impl Controls {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = RequestId> {
        self.0.keys().copied()
    }
}

impl Connection<'_> {
    pub(super) fn hear_control(&mut self, request: RequestId, question: Question) -> Result<(), End> {
        self.check_whole()?;
        self.responder.claim(request)?;
        if self.controls.0.len() >= V2_CONTROLS_MAX {
            self.tell_failed(request, Code::Limit, "too many questions are in flight on this connection");
            return Ok(());
        }
        self.controls.0.insert(request, Asked { question, running: None });
        self.make_page(request, Place::default());
        Ok(())
    }

    /// Has a part of an answer made, if that is allowed.
    fn make_page(&mut self, request: RequestId, place: Place) {
        let Some(asked) = self.controls.0.get_mut(&request) else { return };
        let service = self.context.service.clone();
        let question = asked.question.clone();
        let permit = match verb_of(&question) {
            Some(verb) => service
                .permit_control(&self.caller, verb)
                .map_err(|denied| (Code::NotAllowed, denied.to_string())),
            None => {
                let Question::Unknown(verb) = question else { return };
                let error = ControlError::Unknown(verb);
                Err((error.code(), error.to_string()))
            }
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err((code, text)) => {
                self.controls.0.remove(&request);
                return self.tell_failed(request, code, &text);
            }
        };
        asked.running = Some(self.running.spawn(async move {
            let making = tokio::task::spawn_blocking(move || service.answer(&permit, &question, place));
            let made = making.await.unwrap_or_else(|error| Err(ControlError::Aborted(error.to_string())));
            Done::Paged(request, made)
        }));
    }

    /// Tells a part of an answer.
    pub(super) fn paged(&mut self, request: RequestId, made: Result<Page, ControlError>) {
        if !self.controls.0.contains_key(&request) {
            return;
        }
        let next = match made {
            Ok(Page { records, next }) => {
                for record in records {
                    self.tell(&ServerFrame::Record(request, record.to_json().into()));
                }
                next
            }
            Err(error) => {
                self.controls.0.remove(&request);
                return self.tell_failed(request, error.code(), &error.to_string());
            }
        };
        match next {
            Some(place) => self.make_page(request, place),
            None => {
                self.controls.0.remove(&request);
                self.tell(&ServerFrame::End(request, None));
            }
        }
    }

    /// Gives a question up; `false` if there is none of this number.
    pub(super) fn give_up_control(&mut self, request: RequestId) -> bool {
        let Some(asked) = self.controls.0.remove(&request) else { return false };
        if let Some(running) = asked.running {
            running.abort();
        }
        self.tell(&ServerFrame::Error(request, ErrorCode::CANCELLED, "cancelled".into()));
        true
    }
}
