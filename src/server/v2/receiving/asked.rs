//! Files that this end asks for, as a client asks in a download: runs of blocks, a few ahead.
//!
//! What arrives is written beside (`keeping`), while more is received and asked for.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::keeping::Arrived;
use super::{Following, Of, Stretch};
use crate::codec::WireError;
use crate::codec::v2::{ByteRange, ErrorCode, File, Get, Put, RequestId, ServerFrame, Stat};
use crate::error::Code;
use crate::exchange::{Data, Heard, Requester};
use crate::limits::{UPLOAD_HASHING_MAX, V2_PUTS_MAX, V2_RUNS_AHEAD};
use crate::server::end::End;
use crate::server::v2::{Connection, Done};
use crate::service::access::Permit;
use crate::service::uploads::{Begun, Hand, Next, Offer, Outcome, UploadError};
use crate::tree::BlockHasher;

/// The files that one connection is putting and that this end asks for.
pub(in crate::server::v2) struct Puts {
    pub(super) asks: Requester,
    pub(super) puts: BTreeMap<RequestId, Upload>,
    /// What each request of this end is for.
    pub(super) of: BTreeMap<RequestId, RequestId>,
    pub(super) arrived: Arrived,
    /// The block that each request of this end is at.
    pub(super) hashing: BTreeMap<RequestId, BlockHasher>,
    /// Until when the client may compute what was asked for, and whether it has said that it does.
    patience: Option<Instant>,
    has_said_wait: bool,
}

pub(super) struct Upload {
    pub(super) put: Put,
    pub(super) permit: Permit,
    /// None as long as it is looked at.
    pub(super) hand: Option<Hand>,
    pending: VecDeque<RequestId>,
    /// It waits for something to stir.
    watching: Option<AbortHandle>,
}

impl Default for Puts {
    fn default() -> Self {
        Self {
            asks: Requester::of_offers(),
            puts: BTreeMap::new(),
            of: BTreeMap::new(),
            arrived: Arrived::default(),
            hashing: BTreeMap::new(),
            patience: None,
            has_said_wait: false,
        }
    }
}

impl Puts {
    pub(in crate::server::v2) fn is_empty(&self) -> bool {
        self.puts.is_empty()
    }

    pub(in crate::server::v2) fn numbers(&self) -> impl Iterator<Item = RequestId> {
        self.puts.keys().copied()
    }

    /// Whether there is one of this number.
    pub(in crate::server::v2) fn has(&self, request: RequestId) -> bool {
        self.puts.contains_key(&request)
    }

    /// Whether something that has arrived is being written or recorded.
    pub(in crate::server::v2) fn is_at_work(&self) -> bool {
        self.arrived.is_at_work()
    }

    /// Whether the client owes an answer.
    pub(in crate::server::v2) fn lack_input(&self) -> bool {
        self.asks.in_flight() > 0
    }

    /// Whether the client has said that it computes what was asked for, and may do so.
    pub(in crate::server::v2) fn may_compute(&mut self, now: Instant) -> bool {
        std::mem::take(&mut self.has_said_wait) && self.patience.is_some_and(|until| now < until)
    }

    /// Says why nothing more will come.
    pub(in crate::server::v2) fn blame(&self, cause: &str) {
        self.puts.values().filter_map(|put| put.hand.as_ref()).for_each(|hand| hand.blame(cause));
    }
}

impl Connection<'_> {
    /// Looks what to do with an offer.
    pub(in crate::server::v2) fn put_asked(&mut self, request: RequestId, permit: Permit, put: Put) {
        if self.puts.puts.len() >= V2_PUTS_MAX {
            return self.tell_failed(request, Code::Limit, "too many files are being put on this connection");
        }
        let offer = Offer {
            replace: put.replace,
            unless_same: put.unless_same,
            size: put.file.size,
            modified: put.file.modified,
            mode: put.file.mode,
            token: put.file.token,
            root: put.file.root,
            transfer: put.transfer,
            attempt: put.attempt,
            priority: put.priority,
        };
        let (service, turns, own) = (self.context.service.clone(), self.openings.clone(), permit.clone());
        self.running.spawn(async move {
            let _turn = turns.acquire_owned().await;
            let begun = tokio::task::spawn_blocking(move || service.offer(&own, offer)).await;
            Done::Offered(request, begun.unwrap_or_else(|aborted| Err(UploadError::aborted(&aborted))))
        });
        let upload = Upload { put, permit, hand: None, pending: VecDeque::new(), watching: None };
        self.puts.puts.insert(request, upload);
    }

    /// Takes what came of an offer.
    pub(in crate::server::v2) fn offered(&mut self, request: RequestId, begun: Result<Begun, UploadError>) {
        let Some(upload) = self.puts.puts.get_mut(&request) else { return };
        let stored = match begun {
            Ok(Begun::Goes(hand)) => {
                upload.hand = Some(hand);
                return self.go_on(request);
            }
            Ok(Begun::Same) => None,
            Ok(Begun::Stored(root, given)) => Some((root, given)),
            Err(error) => {
                let (permit, cause) = (upload.permit.clone(), error.to_string());
                self.context.service.not_stored(&permit, &cause);
                self.puts.puts.remove(&request);
                return self.put_failed(request, error.code(), &error.text());
            }
        };
        self.puts.puts.remove(&request);
        self.put_done(request, stored);
    }

    /// Does for an upload what can be done now.
    pub(in crate::server::v2) fn go_on(&mut self, request: RequestId) {
        loop {
            let Some(upload) = self.puts.puts.get_mut(&request) else { return };
            let Some(hand) = &mut upload.hand else { return };
            // Before it is looked what there is to do, so that nothing is missed.
            let mut stirs = hand.stirs();
            let next = match hand.over() {
                Some(outcome) => Next::Over(outcome),
                None if upload.pending.len() >= V2_RUNS_AHEAD => Next::Wait,
                None => hand.next(),
            };
            let size = upload.put.file.size;
            let get = Get {
                name: upload.put.name.clone(),
                transfer: upload.put.transfer,
                have: hand.have(),
                token: upload.put.file.token,
                ..Get::default()
            };
            let frame = match next {
                Next::Over(outcome) => return self.end_put(request, outcome),
                Next::Run(run) => {
                    self.puts.asks.get(Get { ranges: vec![ByteRange::of_blocks(&run, size)], ..get })
                }
                Next::Values => {
                    self.puts.patience = Some(Instant::now() + UPLOAD_HASHING_MAX);
                    self.puts.asks.get(Get { values_only: true, ..get })
                }
                Next::Root => {
                    self.puts.patience = Some(Instant::now() + UPLOAD_HASHING_MAX);
                    self.puts.asks.stat(Stat { root: true, name: upload.put.name.clone() })
                }
                Next::Settle => {
                    let pen = hand.pen().clone();
                    self.running.spawn(async move {
                        let _ = tokio::task::spawn_blocking(move || pen.settle()).await;
                        Done::Stirred(request)
                    });
                    continue;
                }
                Next::Wait => {
                    if upload.watching.as_ref().is_none_or(AbortHandle::is_finished) {
                        upload.watching = Some(self.running.spawn(async move {
                            let _ = stirs.changed().await;
                            Done::Stirred(request)
                        }));
                    }
                    return;
                }
            };
            let ask = self.puts.asks.last();
            upload.pending.push_back(ask);
            self.puts.of.insert(ask, request);
            if frame.encode(&mut self.output).is_err() {
                return self.fail_put(request, &UploadError::SourceChanged);
            }
        }
    }

    /// Tells how an upload has ended, and wants no more of it.
    fn end_put(&mut self, request: RequestId, outcome: Outcome) {
        let given = self.puts.puts.get(&request).and_then(|put| put.hand.as_ref()?.given());
        self.leave_put(request);
        match outcome {
            Outcome::Stored(root) => self.put_done(request, Some((root, given))),
            Outcome::Failed(code, text) => self.put_failed(request, code, &text),
        }
    }

    pub(super) fn leave_put(&mut self, request: RequestId) {
        let Some(upload) = self.puts.puts.remove(&request) else { return };
        if let Some(watching) = upload.watching {
            watching.abort();
        }
        for ask in upload.pending {
            self.puts.of.remove(&ask);
            self.puts.hashing.remove(&ask);
            if let Some(cancel) = self.puts.asks.cancel(ask) {
                let _ = cancel.encode(&mut self.output);
            }
        }
    }

    /// The upload cannot go on, on whatever connection.
    pub(super) fn fail_put(&mut self, request: RequestId, error: &UploadError) {
        let Some(hand) = self.puts.puts.get(&request).and_then(|upload| upload.hand.as_ref()) else { return };
        let (pen, own) = (hand.pen().clone(), Outcome::Failed(error.code(), error.text()));
        let (code, text, cause) = (error.code(), error.text(), error.to_string());
        // It closes files.
        drop(tokio::task::spawn_blocking(move || pen.fail(code, &text, &cause)));
        self.end_put(request, own);
    }

    /// The client gives an upload up; `false` if there is none of this number.
    pub(super) fn give_up_put(&mut self, request: RequestId) -> bool {
        let Some(upload) = self.puts.puts.get(&request) else { return false };
        if let Some(hand) = &upload.hand {
            hand.blame("the client cancelled it");
        }
        self.leave_put(request);
        let text = Bytes::from_static(b"cancelled");
        self.tell(&ServerFrame::Error(request, ErrorCode::CANCELLED, text));
        true
    }

    /// Hears what the client tells of a file that it has offered.
    pub(in crate::server::v2) fn hear_told(&mut self, frame: ServerFrame) -> Result<(), End> {
        let heard = match frame {
            ServerFrame::File(ask, file) => {
                let heard = self.puts.asks.handle(ServerFrame::File(ask, file))?;
                if let Heard::File(ask, file) = &heard
                    && let Some(&request) = self.puts.of.get(ask)
                {
                    self.described(request, *ask, file);
                }
                return Ok(());
            }
            other => self.puts.asks.handle(other)?,
        };
        match heard {
            Heard::Data(data) => self.data(data)?,
            Heard::End { request: ask, root, values } => {
                let Some(request) = self.puts.of.remove(&ask) else { return Ok(()) };
                let Some(upload) = self.puts.puts.get_mut(&request) else { return Ok(()) };
                upload.pending.retain(|&pending| pending != ask);
                if let (Some(root), Some(hand)) = (root, &mut upload.hand) {
                    if values.is_empty() {
                        if let Err(error) = hand.learn(root) {
                            self.fail_put(request, &error);
                            return Ok(());
                        }
                    } else {
                        let pen = hand.pen().clone();
                        self.puts.patience = None;
                        self.running.spawn(async move {
                            let compare = move || pen.compare(root, &values);
                            let _ = tokio::task::spawn_blocking(compare).await;
                            Done::Stirred(request)
                        });
                    }
                }
                self.go_on(request);
            }
            Heard::Failed(ask, code, text) => {
                let Some(request) = self.puts.of.remove(&ask) else { return Ok(()) };
                let error = match code.kind() {
                    Code::SourceChanged => UploadError::SourceChanged,
                    _ => UploadError::Client(String::from_utf8_lossy(&text).into_owned()),
                };
                self.fail_put(request, &error);
            }
            Heard::Waiting => self.puts.has_said_wait = true,
            Heard::Welcome(_) | Heard::Entries(..) | Heard::Pushed(..) | Heard::Pong(..) => {
                return Err(WireError::Order("something is told that was not asked for").into());
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a file is what was offered.
    fn described(&mut self, request: RequestId, ask: RequestId, file: &File) {
        let Some(upload) = self.puts.puts.get_mut(&request) else { return };
        let offered = &upload.put.file;
        let is_same = (file.size, file.token) == (offered.size, offered.token);
        let Some(hand) = &mut upload.hand else { return };
        let learnt = match file.root {
            _ if !is_same => Err(UploadError::SourceChanged),
            Some(root) => hand.learn(root),
            None => Ok(()),
        };
        // FILE ends a STAT, and of a GET it is the beginning.
        if !self.puts.asks.is_in_flight(ask) {
            upload.pending.retain(|&pending| pending != ask);
            self.puts.of.remove(&ask);
            self.puts.patience = None;
        }
        match learnt {
            Err(error) => self.fail_put(request, &error),
            Ok(()) => self.go_on(request),
        }
    }

    /// The head of some bytes, which follow.
    fn data(&mut self, data: Data) -> Result<(), End> {
        let of = match data.block {
            None => Of::Nobody,
            Some(block) => {
                let request = self.puts.of.get(&data.request);
                if !request.is_some_and(|request| self.puts.puts.contains_key(request)) {
                    return Err(WireError::Order("data came that was not asked for").into());
                }
                let (ask, end) = (data.request, data.offset + data.len);
                Of::Asked(Stretch { ask, block, end, ends_block: data.ends_block })
            }
        };
        self.following = Some(Following { of, left: data.len });
        Ok(())
    }
}
