//! LISTEN, PUSH and RECEIVED: files for those who listen.
//!
//! A file that is pushed comes in as one that is put (`receiving`), under a name that the service gives it. Its sender
//! is not answered when it is here, but when its receiver has it. A client that listens is told of files on this
//! connection, and fetches them on others.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;

use super::{Connection, Done, End};
use crate::codec::v2::{ErrorCode, File, Listen, Push, Pushed, Put, Received, RequestId, ServerFrame};
use crate::error::Code;
use crate::limits::{LISTEN_SILENCE_MAX, V2_PUTS_MAX};
use crate::names::FileName;
use crate::service::pushes::{Announced, Delivery, ListenError, Listening, PushBegun, PushHand, PushOffer};
use crate::text;
use crate::tree::Root;

/// What a connection has to do with files for those who listen.
#[derive(Default)]
pub(super) struct Pushing {
    /// This client listens, with this request.
    listening: Option<(RequestId, Listening)>,
    /// Waits for something to tell it.
    stirs: Option<AbortHandle>,
    /// Files that this client sends.
    sent: BTreeMap<RequestId, Sent>,
}

struct Sent {
    hand: PushHand,
    /// It is here, and its receiver is waited for.
    waits: Option<AbortHandle>,
}

impl Pushing {
    fn stop_waiting(&mut self) {
        if let Some(stirs) = self.stirs.take() {
            stirs.abort();
        }
    }

    fn stop_listening(&mut self) {
        self.listening = None;
        self.stop_waiting();
    }

    /// Whether nothing is on its way, from this client or to it. A listener that says no more can answer nothing.
    pub(super) fn is_empty(&self, input_ended: bool) -> bool {
        let told = || self.listening.as_ref().is_some_and(|(_, listening)| listening.has_told());
        self.sent.is_empty() && (input_ended || !told())
    }

    /// The requests of which only the receiver is waited for.
    pub(super) fn waiting(&self) -> impl Iterator<Item = RequestId> {
        self.sent.iter().filter(|(_, sent)| sent.waits.is_some()).map(|(&request, _)| request)
    }
}

impl Connection<'_> {
    /// How long nothing may be said on this connection.
    pub(super) fn idle_timeout(&self) -> Duration {
        match self.pushing.listening {
            Some(_) => LISTEN_SILENCE_MAX,
            None => self.context.settings.idle_timeout,
        }
    }

    pub(super) fn hear_listen(&mut self, request: RequestId, listen: &Listen) -> Result<(), End> {
        self.responder.claim(request)?;
        if self.pushing.listening.is_some() {
            self.tell_failed(request, Code::Limit, "this connection listens already");
            return Ok(());
        }
        match self.context.service.listen(&self.caller, &listen.receiver) {
            Ok(listening) => {
                self.pushing.listening = Some((request, listening));
                self.announce();
            }
            Err(error) => self.tell_failed(request, error.code(), &error.to_string()),
        }
        Ok(())
    }

    /// Tells the listener of what is there for it, and waits for more.
    pub(super) fn announce(&mut self) {
        loop {
            let Some((request, listening)) = &self.pushing.listening else { return };
            let request = *request;
            match listening.next() {
                Ok(Some(announced)) => {
                    let frame = ServerFrame::Pushed(request, pushed(announced));
                    self.tell(&frame);
                }
                Ok(None) => {
                    let stirs = listening.stirs();
                    self.pushing.stop_waiting();
                    self.pushing.stirs = Some(self.running.spawn(async move {
                        stirs.await;
                        Done::Announce
                    }));
                    return;
                }
                Err(error) => return self.listen_no_more(request, &error),
            }
        }
    }

    fn listen_no_more(&mut self, request: RequestId, error: &ListenError) {
        self.pushing.stop_listening();
        self.tell_failed(request, error.code(), &error.to_string());
    }

    /// The listener says what has come of a file.
    pub(super) fn hear_received(&mut self, request: RequestId, received: Received) {
        let Some((listens, listening)) = &self.pushing.listening else { return };
        if *listens != request {
            return;
        }
        let outcome = received.outcome.map_err(|(code, said)| (code.kind(), text::shown(&said).to_string()));
        listening.received(received.id, outcome);
    }

    pub(super) fn hear_push(&mut self, request: RequestId, push: Push) -> Result<(), End> {
        self.check_whole()?;
        self.responder.claim(request)?;
        if self.pushing.sent.len() >= V2_PUTS_MAX {
            self.tell_failed(request, Code::Limit, "too many files are being sent on this connection");
            return Ok(());
        }
        let Push { receiver, put } = push;
        let offer = PushOffer {
            receiver: &receiver,
            name: &put.name,
            size: put.file.size,
            modified: put.file.modified,
            token: put.file.token,
            transfer: put.transfer,
            attempt: put.attempt,
        };
        match self.context.service.push(&self.caller, &offer) {
            Ok(PushBegun::Received(root)) => self.tell(&ServerFrame::End(request, Some(root))),
            Ok(PushBegun::Goes(permit, hand)) => {
                self.pushing.sent.insert(request, Sent { hand, waits: None });
                // What is here already of this very file need not come again.
                self.put_asked(request, permit, Put { replace: true, unless_same: true, ..put });
                if !self.puts.has(request) {
                    self.pushing.sent.remove(&request);
                }
            }
            Err(error) => self.tell_failed(request, error.code(), &error.to_string()),
        }
        Ok(())
    }

    /// A file is here: that is all of one that was put, and half of one that is sent on.
    pub(super) fn put_done(&mut self, request: RequestId, stored: Option<(Root, Option<FileName>)>) {
        let Some(sent) = self.pushing.sent.get_mut(&request) else {
            return match stored {
                Some((root, given)) => self.tell_stored(request, root, given.as_ref()),
                None => self.tell(&ServerFrame::End(request, None)),
            };
        };
        let delivered = sent.hand.delivered(&self.context.stopping);
        sent.waits = Some(self.running.spawn(async move { Done::Delivered(request, delivered.await) }));
    }

    /// A file does not come.
    pub(super) fn put_failed(&mut self, request: RequestId, code: Code, text: &str) {
        self.pushing.sent.remove(&request);
        self.tell_failed(request, code, text);
    }

    /// What came of a file that was sent on.
    pub(super) fn delivered(&mut self, request: RequestId, delivery: Delivery) {
        if self.pushing.sent.remove(&request).is_none() {
            return;
        }
        match delivery {
            Delivery::Received(root) => self.tell(&ServerFrame::End(request, Some(root))),
            Delivery::Failed(code, text) => self.tell_failed(request, code, &text),
        }
    }

    /// The client does not want to listen any more, or to wait for a receiver; `false` if neither has this number, or
    /// the file itself is still coming.
    pub(super) fn give_up_push(&mut self, request: RequestId) -> bool {
        let listens = self.pushing.listening.as_ref().is_some_and(|(listens, _)| *listens == request);
        if listens {
            self.pushing.stop_listening();
        }
        let sent = self.pushing.sent.remove(&request);
        let Some(waits) = sent.and_then(|sent| sent.waits) else {
            if listens {
                self.tell_cancelled(request);
            }
            return listens;
        };
        waits.abort();
        self.tell_cancelled(request);
        true
    }

    fn tell_cancelled(&mut self, request: RequestId) {
        let text = Bytes::from_static(b"cancelled");
        self.tell(&ServerFrame::Error(request, ErrorCode::CANCELLED, text));
    }
}

fn pushed(announced: Announced) -> Pushed {
    let Announced { id, name, from, whole } = announced;
    let (version, root) = (whole.version, Some(whole.root));
    let (size, modified, mode) = (version.size(), version.modified(), version.mode());
    let file = File { size, modified, mode, token: *version.token().as_bytes(), root };
    Pushed { id, file, name: Bytes::copy_from_slice(name.as_bytes()), from: from.into() }
}
