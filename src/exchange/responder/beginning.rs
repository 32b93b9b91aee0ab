//! How a request begins: taken in, held back until there is room, opened, or answered at once.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::waiting::Held;
use super::{Active, Ask, Listing, Responder, State, Wanted};
use crate::codec::WireError;
use crate::codec::v2::{File, RequestId, ServerFrame, Token, put_data_head};
use crate::error::Code;
use crate::limits::{SMALL_FILE_MAX, V2_OPEN_MAX, V2_OPENING_MAX, V2_REQUESTS_MAX};
use crate::tree::BlockSet;

impl Responder {
    pub(super) fn begin(
        &mut self,
        request: RequestId,
        wanted: Wanted,
        name: Bytes,
        token: Option<Token>,
        now: Instant,
    ) -> Result<(), WireError> {
        self.claim(request)?;
        if self.in_flight() >= usize::try_from(V2_REQUESTS_MAX).unwrap_or(usize::MAX) {
            self.say(request, Code::Limit.into(), "too many requests are in flight");
            return Ok(());
        }
        let transfer = wanted.transfer();
        let held = Held { wanted, name, token, window: self.window };
        if !self.waiting.push(request, held, now) {
            self.say(
                request,
                Code::Limit.into(),
                "the names and ranges of the requests in flight are too long",
            );
        } else if let Some(transfer) = transfer {
            self.transfers.join(transfer, request);
        }
        Ok(())
    }

    /// The next thing to be done outside.
    pub fn ask(&mut self) -> Option<Ask> {
        loop {
            if let Some(ask) = self.asks.pop_front() {
                return Some(ask);
            }
            let is_opening = |active: &&Active| matches!(active.state, State::Opening);
            if self.requests.len() >= V2_OPEN_MAX
                || self.requests.values().filter(is_opening).count() >= V2_OPENING_MAX
            {
                return None;
            }
            let (request, held, said) = self.waiting.pop()?;
            if let Some(ask) = self.begin_held(request, held, said) {
                return Some(ask);
            }
        }
    }

    /// Begins a request that has waited.
    fn begin_held(&mut self, request: RequestId, held: Held, said: Instant) -> Option<Ask> {
        let Held { wanted, name, token, window } = held;
        let (transfer, small) = match &wanted {
            Wanted::List(_) => {
                let state = State::Listing(Listing::Resting);
                self.enter(request, Active { wanted, state, window, said, is_queued: false });
                self.list_on(request);
                return None;
            }
            Wanted::Stat { .. } => (None, None),
            // Values move nothing of the file.
            Wanted::Get(get) if get.values_only => (None, None),
            Wanted::Get(get) => {
                let is_of_its_own = wanted.transfer().is_none() && get.have == 0;
                (Some((get.transfer, get.have)), is_of_its_own.then_some(window.min(SMALL_FILE_MAX)))
            }
        };
        let active = Active { wanted, state: State::Opening, window, said, is_queued: false };
        self.enter(request, active);
        Some(Ask::Open { request, name, token, transfer, small })
    }

    /// Sends a whole small file that was read, into `out` and behind all that is to be sent before it, and
    /// ends its request; `false`, and nothing is sent, if that is not what it asked for.
    /// `file` has its root.
    pub fn whole(&mut self, request: RequestId, file: &File, bytes: &[u8], out: &mut BytesMut) -> bool {
        let Some(Active { wanted: Wanted::Get(get), window, .. }) = self.requests.get(&request) else {
            return false;
        };
        let is_all = || get.blocks(file.size).is_ok_and(|blocks| blocks == BlockSet::all(file.size));
        if file.size > *window || get.values_only || !(get.ranges.is_empty() || is_all()) {
            return false;
        }
        out.extend_from_slice(&self.frames.split());
        ServerFrame::File(request, file.clone()).encode(out);
        if !bytes.is_empty() {
            put_data_head(request, 0, bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
        ServerFrame::End(request, file.root).encode(out);
        if let Some(ended) = self.take_out(request) {
            self.leave(request, &ended.wanted);
        }
        true
    }
}
