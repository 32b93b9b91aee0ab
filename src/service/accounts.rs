//! The accounts of transfers of version 2 and of Conduit, which may be spread over requests and connections.
//!
//! Requests that say the same transfer number, from the same address and key and for the same file, share
//! one account: the log tells one transfer, however it is carried. What the client has already
//! counts as done. The end is told once, when the last request lets go of the account.
//! An upload has one as well, which nobody else finds: it shares it among its connections by itself.
//! Who asks for what, and whether it is answered, is not this module's business.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, Once};
use std::time::Instant;

use crate::catalog::history::Direction;
use crate::digest::Digest;
use crate::names::FileName;
use crate::progress::Steps;
use crate::token::KeyId;
use crate::tree::Root;

use super::access::{Caller, Permit};
use super::history::{Dialect, Ended};
use super::live::{Asked, Moving, What};
use super::registry::Registry;
use super::{Event, Service, lock};

/// Length of a transfer number, in bytes.
pub(crate) const TRANSFER_LEN: usize = 16;

pub(crate) const NO_TRANSFER: [u8; TRANSFER_LEN] = [0; TRANSFER_LEN];

/// Why a transfer ended of which nobody said why.
const ENDED: &str = "the connection ended";

/// What requests of one transfer have in common. The size keeps versions of a file apart.
type Key = (IpAddr, Option<KeyId>, [u8; TRANSFER_LEN], FileName, u64);

/// The accounts of transfers that have a number: no more than there are requests in flight.
pub(super) type Accounts = Registry<Key, Account>;

/// The account of one transfer. Dropping the last reference ends it.
pub(crate) struct Account {
    service: Service,
    caller: Caller,
    name: FileName,
    size: u64,
    have: u64,
    way: Way,
    /// None for a transfer that is not shared.
    key: Option<Key>,
    /// As others see it.
    moving: Arc<Moving>,
    /// Nothing else is told before the start was.
    begun: Once,
    state: Mutex<State>,
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    /// Only what is stored has come to its end.
    In,
}

impl Way {
    fn direction(self) -> Direction {
        match self {
            Self::Out => Direction::Download,
            Self::In => Direction::Upload,
        }
    }
}

struct State {
    /// Bytes sent for it; what is sent twice counts twice.
    sent: u64,
    steps: Steps,
    began: Instant,
    last: Instant,
    root: Option<Root>,
    /// The name that the server has given the file.
    given: Option<FileName>,
    cause: Option<String>,
}

impl Service {
    /// The account of a transfer: a new one, or, for a number other than zero, the one of the
    /// requests of the same peer and file that are running. `have` counts the bytes that this
    /// transfer need not move.
    pub(crate) fn account(
        &self,
        permit: &Permit,
        transfer: [u8; TRANSFER_LEN],
        size: u64,
        have: u64,
    ) -> Arc<Account> {
        let (caller, name) = (permit.caller(), permit.name());
        let key = (transfer != NO_TRANSFER)
            .then(|| (caller.peer().ip(), caller.key_id(), transfer, name.clone(), size));
        let shared = key.as_ref().and_then(|key| self.inner.accounts.get(key));
        let account = shared.unwrap_or_else(|| {
            let new = Account::new(self.clone(), permit, transfer, Way::Out, size, have, key.clone());
            let new = Arc::new(new);
            match key {
                Some(key) => self.inner.accounts.get_or_insert(key, &new, |_| true),
                None => new,
            }
        });
        account.begin();
        account.moving.join(caller.peer());
        account
    }

    /// Whether what is asked for was cancelled, so that it must not begin or go on: its client comes again, be it that
    /// it has not heard of it.
    pub(crate) fn is_cancelled(
        &self,
        permit: &Permit,
        transfer: [u8; TRANSFER_LEN],
        direction: Direction,
    ) -> bool {
        let asked = Asked { caller: permit.caller(), direction, name: permit.name(), transfer };
        self.inner.live.is_struck(&asked)
    }

    /// The account of an upload, of which `have` bytes are here already.
    pub(super) fn receiving(
        &self,
        permit: &Permit,
        transfer: [u8; TRANSFER_LEN],
        size: u64,
        have: u64,
    ) -> Arc<Account> {
        let account = Account::new(self.clone(), permit, transfer, Way::In, size, have, None);
        account.begin();
        Arc::new(account)
    }
}

impl Account {
    fn new(
        service: Service,
        permit: &Permit,
        transfer: [u8; TRANSFER_LEN],
        way: Way,
        size: u64,
        have: u64,
        key: Option<Key>,
    ) -> Self {
        let (caller, name) = (permit.caller().clone(), permit.name().clone());
        let (have, began) = (have.min(size), Instant::now());
        let mut steps = Steps::new(size);
        if have > 0 {
            // What the client has was told when it was sent.
            let _ = steps.reached(have);
        }
        let state = State { sent: 0, steps, began, last: began, root: None, given: None, cause: None };
        let (dialect, direction) = (Dialect::of(&caller), way.direction());
        let what =
            What { caller: caller.clone(), dialect, direction, name: name.clone(), size, have, transfer };
        let (moving, begun, state) = (service.inner.live.begin(what), Once::new(), Mutex::new(state));
        Self { service, caller, name, size, have, way, key, moving, begun, state }
    }

    /// Tells the request and the start, once; whoever comes meanwhile waits until it is told.
    fn begin(&self) {
        let Self { ref caller, ref name, size, have, .. } = *self;
        let (peer, key) = (caller.peer(), caller.key_name());
        self.begun.call_once(|| {
            if self.way == Way::In {
                return self.service.tell(&Event::UploadStarted { peer, key, name, size, have });
            }
            self.service.tell(&Event::Requested { peer, name: name.as_bytes() });
            self.service.tell(&Event::Started { peer, key, name, size, have });
        });
    }

    /// Accounts for `count` more bytes that were sent, and tells the steps that they pass. Bytes
    /// that were sent before count too, but never beyond the size.
    pub(crate) fn advance(&self, count: u64) {
        self.moving.advance(count);
        let mut state = lock(&self.state);
        state.sent = state.sent.saturating_add(count);
        state.last = Instant::now();
        self.tell_steps(&mut state);
    }

    /// As others see it.
    pub(crate) fn moving(&self) -> &Arc<Moving> {
        &self.moving
    }

    /// The root of the file is known now.
    pub(crate) fn proven(&self, root: Root) {
        lock(&self.state).root = Some(root);
    }

    /// The file that came in is stored, with this root; under this name, if the server has given it one.
    pub(super) fn stored(&self, root: Root, given: Option<FileName>) {
        let mut state = lock(&self.state);
        state.last = Instant::now();
        state.given = given;
        state.root = Some(root);
    }

    /// Says why it will have ended, should it not be whole by then. The first cause counts.
    pub(crate) fn cut(&self, cause: &str) {
        lock(&self.state).cause.get_or_insert_with(|| cause.to_owned());
    }

    /// Bytes that are there or were sent: more than the size if some were sent again.
    fn done(&self, state: &State) -> u64 {
        self.have.saturating_add(state.sent)
    }

    fn tell_steps(&self, state: &mut State) {
        let Self { ref caller, ref name, size, .. } = *self;
        let peer = caller.peer();
        for percent in state.steps.reached(self.done(state)) {
            let done = state.steps.mark(percent);
            self.service.tell(&match self.way {
                Way::Out => Event::Progress { peer, name, percent, done, size },
                Way::In => Event::UploadProgress { peer, name, percent, done, size },
            });
        }
    }
}

impl Account {
    /// Notes in the history how it ended.
    fn note(&self, state: &State, cause: Option<&str>) {
        let Self { ref caller, ref name, size, .. } = *self;
        if name.is_pushed() {
            // Half of a push, which is noted as a whole.
            return;
        }
        let name = state.given.as_ref().unwrap_or(name);
        let direction = self.way.direction();
        let (moved, elapsed) = (state.sent, state.last - state.began);
        let (dialect, digest) = (Dialect::of(caller), state.root.map(Digest::Blake3));
        let cancelled_by = cause.and(self.moving.cancelled_by());
        let ended =
            Ended { caller, dialect, direction, name, size, moved, elapsed, digest, cause, cancelled_by };
        self.service.note(&ended);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.service.inner.accounts.forget(key);
        }
        if !self.begun.is_completed() {
            return;
        }
        let mut state = lock(&self.state);
        let Self { ref caller, ref name, size, have, .. } = *self;
        let (peer, key) = (caller.peer(), caller.key_name());
        let done = self.done(&state);
        if let Some(by) = self.moving.cancelled_by() {
            state.cause = Some(cancelled_by(by));
        }
        if self.way == Way::In {
            let Some(root) = state.root else {
                let (done, cause) = (done.min(size), state.cause.as_deref().unwrap_or(ENDED));
                self.service.tell(&Event::UploadCut { peer, key, name, done, size, have, cause });
                return self.note(&state, Some(cause));
            };
            self.tell_steps(&mut state);
            let elapsed = state.last - state.began;
            let (dialect, name) = (Dialect::of(caller), state.given.as_ref().unwrap_or(name));
            self.service.tell(&Event::Stored { peer, dialect, key, name, size, have, elapsed, root });
            return self.note(&state, None);
        }
        if done < size {
            let cause = state.cause.as_deref().unwrap_or(ENDED);
            self.service.tell(&Event::Cut { peer, key, name, done, size, have, cause });
            return self.note(&state, Some(cause));
        }
        // The one step of an empty file.
        self.tell_steps(&mut state);
        let (elapsed, digest) = (state.last - state.began, state.root.map(Digest::Blake3));
        self.service.tell(&Event::Finished { peer, key, name, size, have, elapsed, digest });
        self.note(&state, None);
    }
}

/// Why a transfer ended that somebody has cancelled.
pub(super) fn cancelled_by(by: &str) -> String {
    format!("cancelled by {by}")
}

#[cfg(test)]
#[path = "accounts/tests.rs"]
mod tests;
