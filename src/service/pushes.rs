//! Files for those who listen: who listens, what is on its way to whom, and what came of it.
//!
//! A push is an upload under a name that no peer can say, an announcement to the listener, and an ordinary download of
//! that name, which only the key that listens may read. So uploads, versions and accounts do the work; here is only
//! the board on which both sides meet ([`Board`]). A push lives as long as its sender, or the listener that has been
//! told of it; the bytes stay on the disk for a while longer, so that a sender that comes back goes on with them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::access::{Caller, Denied, Permit};
use super::history::{Dialect, Ended};
use super::uploads::Reservation;
use super::versions::Version;
use super::{Event, Service, lock};
use crate::catalog::history::Direction;
use crate::digest::Digest;
use crate::error::Code;
use crate::limits::{PUSHES_MAX, PUSHES_PER_RECEIVER_MAX, PUSHES_REMEMBERED_MAX};
use crate::names::{FileName, NameError, PushId, ReceiverName};
use crate::rights::Verb;
use crate::token::KeyId;
use crate::tree::Root;

mod listening;
mod sending;

pub(crate) use listening::{Announced, ListenError, Listening};
pub(crate) use sending::PushHand;

/// The board of a service.
#[derive(Default)]
pub(super) struct Pushes(Mutex<Board>);

#[derive(Default)]
struct Board {
    receivers: HashMap<ReceiverName, Receiver>,
    /// By the names under which they are kept.
    pushes: HashMap<FileName, Push>,
    /// Those names, by what listeners are told.
    ids: HashMap<PushId, FileName>,
    /// Pushes that were received a short while ago.
    remembered: VecDeque<(FileName, [u8; 16], Root)>,
    /// Number of the last listener.
    serial: u64,
}

/// Somebody who listens.
struct Receiver {
    key: KeyId,
    serial: u64,
    /// What it has not been told of yet.
    waiting: VecDeque<FileName>,
    /// What it has been told of, and has not answered.
    told: HashSet<FileName>,
    /// There is something new for it, or another one has taken over.
    stirred: Arc<Notify>,
}

/// A file on its way to a receiver.
struct Push {
    id: PushId,
    receiver: ReceiverName,
    /// What the sender calls it.
    base: FileName,
    size: u64,
    sender: Caller,
    transfer: [u8; 16],
    began: Instant,
    /// Connections of the sender.
    hands: usize,
    /// What it is, once all of it is here.
    whole: Option<Whole>,
    /// The key that was told of it, and may read it.
    reader: Option<KeyId>,
    /// What counts for the sender's key as long as it lies here.
    reservation: Option<Reservation>,
    state: watch::Sender<State>,
}

/// A file that has come in.
#[derive(Clone)]
pub(crate) struct Whole {
    /// It stays open, with its values, until it is received: nothing is hashed twice.
    pub(crate) version: Arc<Version>,
    /// Its root.
    pub(crate) root: Root,
}

/// What a sender waits for.
#[derive(Clone, Debug, Default)]
struct State {
    /// Whether its receiver listens.
    is_there: bool,
    delivery: Option<Delivery>,
}

/// What came of a push.
#[derive(Clone, Debug)]
pub(crate) enum Delivery {
    /// The receiver has it.
    Received(Root),
    /// It has not: what the sender is told.
    Failed(Code, String),
}

/// What a sender offers to a receiver.
#[derive(Clone, Debug)]
pub(crate) struct PushOffer<'a> {
    /// Who is to get it, as it was said.
    pub(crate) receiver: &'a [u8],
    /// What the sender calls it, as it was said.
    pub(crate) name: &'a [u8],
    /// Bytes.
    pub(crate) size: u64,
    /// When it was changed: seconds since 1970, and nanoseconds.
    pub(crate) modified: (i64, u32),
    /// The identity of its version at the sender.
    pub(crate) token: [u8; 16],
    /// The number that all connections of the sender share.
    pub(crate) transfer: [u8; 16],
    /// A sender that goes on after a failure counts this up.
    pub(crate) attempt: u32,
}

/// How a push begins.
pub(crate) enum PushBegun {
    /// This very one was received a short while ago.
    Received(Root),
    /// It is to be uploaded with this permit, and waited for with this hand.
    Goes(Permit, PushHand),
}

/// Why a file is not taken for a receiver. The text is for the peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// The sender may not.
    #[error(transparent)]
    Denied(Denied),
    /// Nobody can have this name.
    #[error("nobody listens under this name")]
    NoReceiver,
    /// Nobody listens under it.
    #[error("nobody listens as '{0}' at this moment")]
    Absent(ReceiverName),
    /// Nothing that is received can have this name.
    #[error("nothing can be received under this name")]
    Name(Option<NameError>),
    /// Too many are on their way.
    #[error("too many files are on their way to receivers; try again later")]
    TooMany,
}

impl PushError {
    /// The kind of failure, as the peer is told it.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Denied(_) | Self::Name(_) => Code::NotAllowed,
            Self::NoReceiver | Self::Absent(_) => Code::NotFound,
            Self::TooMany => Code::Limit,
        }
    }
}

impl Service {
    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        lock(&self.inner.pushes.0)
    }

    /// Whom a permission about a file on its way is to be asked for: the verb that stands behind `verb`, and the
    /// receiver. None if the file is none of the caller's business.
    pub(super) fn stands_for(
        &self,
        caller: &Caller,
        verb: Verb,
        name: &[u8],
    ) -> Option<(Verb, ReceiverName)> {
        let board = self.board();
        let push = board.pushes.get(&crate::names::pushed_id(name).map(|id| FileName::pushed(&id))?)?;
        let key = caller.key_id();
        let behind = match verb {
            Verb::Put if push.sender.key_id() == key => Verb::Push,
            Verb::Get | Verb::Stat if key.is_some() && push.reader == key => Verb::Listen,
            _ => return None,
        };
        Some((behind, push.receiver.clone()))
    }

    /// The file that a listener was told of under this name, as it is kept.
    pub(super) fn pushed_file(&self, caller: &Caller, name: &[u8]) -> Option<FileName> {
        let id = crate::names::pushed_id(name)?;
        let board = self.board();
        let file = board.ids.get(&id)?;
        let is_for_it = board.pushes.get(file)?.reader == Some(caller.key_id()?);
        is_for_it.then(|| file.clone())
    }

    /// The open version of a file that is all here and on its way.
    pub(super) fn pushed_version(&self, file: &FileName) -> Option<Arc<Version>> {
        let whole = self.board().pushes.get(file)?.whole.clone()?;
        Some(whole.version)
    }

    /// Whether a file is on its way, or somebody brings it.
    pub(super) fn is_on_its_way(&self, file: &FileName) -> bool {
        self.board().pushes.contains_key(file)
    }

    /// Keeps what counts for the sender's key until the push is over.
    pub(super) fn keep_reservation(&self, file: &FileName, reservation: Reservation) {
        if let Some(push) = self.board().pushes.get_mut(file) {
            push.reservation = Some(reservation);
        }
    }

    /// A push is over: the file goes, and then everybody hears of it.
    fn finish(&self, file: &FileName, id: PushId, delivery: Delivery) {
        let (service, file) = (self.clone(), file.clone());
        drop(tokio::task::spawn_blocking(move || {
            // What cannot be removed now is swept later.
            let _ = service.inner.storage.remove(&file, false);
            service.conclude(&file, id, &delivery);
        }));
    }

    fn conclude(&self, file: &FileName, id: PushId, delivery: &Delivery) {
        let Some(push) = self.board().take(file, id) else { return };
        if let Delivery::Received(root) = delivery {
            self.board().remember(file, push.transfer, *root);
        }
        push.state.send_modify(|state| state.delivery = Some(delivery.clone()));
        self.tell_end(&push, delivery);
    }

    fn tell_end(&self, push: &Push, delivery: &Delivery) {
        let Push { sender, receiver, base: name, size, began, .. } = push;
        let (peer, key, size, elapsed) = (sender.peer(), sender.key_name(), *size, began.elapsed());
        let (digest, cause) = match delivery {
            Delivery::Received(root) => {
                self.tell(&Event::Delivered { peer, key, receiver, name, size, elapsed, root: *root });
                (Some(Digest::Blake3(*root)), None)
            }
            Delivery::Failed(_, cause) => {
                self.tell(&Event::NotDelivered { peer, key, receiver, name, size, cause });
                (None, Some(cause.as_str()))
            }
        };
        // Both parts of a receiver's name and of a file's are such that together they are a name.
        let Ok(whole) = FileName::parse(&[receiver.as_str().as_bytes(), b"/", name.as_bytes()].concat())
        else {
            return;
        };
        let (dialect, direction) = (Dialect::V2, Direction::Push);
        let moved = if cause.is_none() { size } else { 0 };
        self.note(&Ended {
            caller: sender,
            dialect,
            direction,
            name: &whole,
            size,
            moved,
            elapsed,
            digest,
            cause,
            cancelled_by: None,
        });
    }
}

impl Board {
    /// Takes a push off the board.
    fn take(&mut self, file: &FileName, id: PushId) -> Option<Push> {
        if self.pushes.get(file)?.id != id {
            return None;
        }
        let push = self.pushes.remove(file)?;
        self.ids.remove(&id);
        if let Some(receiver) = self.receivers.get_mut(&push.receiver) {
            receiver.waiting.retain(|waiting| waiting != file);
            if receiver.told.remove(file) {
                // Whoever waits for its answers may have none to wait for any more.
                receiver.stirred.notify_one();
            }
        }
        Some(push)
    }

    fn remember(&mut self, file: &FileName, transfer: [u8; 16], root: Root) {
        if self.remembered.len() >= PUSHES_REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back((file.clone(), transfer, root));
    }

    /// Whether there is room for one more on its way to this receiver.
    fn has_room(&self, receiver: &ReceiverName) -> bool {
        let to_it = self.pushes.values().filter(|push| push.receiver == *receiver).count();
        self.pushes.len() < PUSHES_MAX && to_it < PUSHES_PER_RECEIVER_MAX
    }
}
