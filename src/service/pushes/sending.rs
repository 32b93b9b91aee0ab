//! The sender's side: a push begins, its file comes in as an upload, and what came of it is waited for.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Board, Delivery, Push, PushBegun, PushError, PushOffer, State, Whole};
use crate::error::Code;
use crate::limits::{PUSH_ABSENT_MAX, PUSH_LINGER, PUSH_WAIT_MAX};
use crate::names::{FileName, PUSH_ID_LEN, PushId, ReceiverName};
use crate::rights::Verb;
use crate::service::access::{Caller, Permit};
use crate::service::{Event, Service, ServiceError};

/// What a connection of a sender holds of a push. It lives on for a while when the last one is gone.
pub(crate) struct PushHand(Arc<Held>);

struct Held {
    service: Service,
    file: FileName,
    id: PushId,
    receiver: ReceiverName,
    permit: Permit,
    state: watch::Receiver<State>,
}

impl Service {
    /// A sender offers a file to a receiver. Nothing has been asked for of it yet.
    ///
    /// # Errors
    /// [`PushError`]; unless the sender goes on after a failure, somebody has to listen.
    pub(crate) fn push(&self, caller: &Caller, offer: &PushOffer<'_>) -> Result<PushBegun, PushError> {
        // Who may send to nobody is told nothing of who there is.
        self.check(caller, Verb::Push, offer.receiver).map_err(PushError::Denied)?;
        let receiver = ReceiverName::parse(offer.receiver).map_err(|_| PushError::NoReceiver)?;
        let base = FileName::parse(offer.name).map_err(|error| PushError::Name(Some(error)))?;
        if !base.folder().is_empty() {
            return Err(PushError::Name(None));
        }
        let file = FileName::pushed(&kept_as(caller, &receiver, offer));
        let mut board = self.board();
        let known =
            |(name, transfer, _): &&(FileName, [u8; 16], _)| *name == file && *transfer == offer.transfer;
        if let Some(&(.., root)) = board.remembered.iter().rev().find(known) {
            return Ok(PushBegun::Received(root));
        }
        let is_there = board.receivers.contains_key(&receiver);
        let is_new = !board.pushes.contains_key(&file);
        if is_new {
            // The first word of a sender that went on after a failure may have been heard by a server before this one.
            if !is_there && offer.attempt <= 1 {
                return Err(PushError::Absent(receiver));
            }
            if !board.has_room(&receiver) {
                return Err(PushError::TooMany);
            }
            board.begin(&file, &receiver, &base, caller, offer, is_there);
        }
        let Some(push) = board.pushes.get_mut(&file) else { return Err(PushError::TooMany) };
        push.hands += 1;
        push.transfer = offer.transfer;
        let (id, state) = (push.id, push.state.subscribe());
        drop(board);
        if is_new {
            let (peer, key, size) = (caller.peer(), caller.key_name(), offer.size);
            self.tell(&Event::Pushing { peer, key, receiver: &receiver, name: &base, size, file: &file });
        }
        let permit = self.permit_pushed(caller, &file);
        let held = Held { service: self.clone(), file, id, receiver, permit: permit.clone(), state };
        Ok(PushBegun::Goes(permit, PushHand(Arc::new(held))))
    }
}

impl Board {
    fn begin(
        &mut self,
        file: &FileName,
        receiver: &ReceiverName,
        base: &FileName,
        caller: &Caller,
        offer: &PushOffer<'_>,
        is_there: bool,
    ) {
        let mut id = PushId::default();
        fastrand::fill(&mut id);
        let push = Push {
            id,
            receiver: receiver.clone(),
            base: base.clone(),
            size: offer.size,
            sender: caller.clone(),
            transfer: offer.transfer,
            began: Instant::now(),
            hands: 0,
            whole: None,
            reader: None,
            reservation: None,
            state: watch::Sender::new(State { is_there, delivery: None }),
        };
        self.ids.insert(id, file.clone());
        self.pushes.insert(file.clone(), push);
    }
}

/// Under which number a push is kept: the same when its sender begins anew.
fn kept_as(caller: &Caller, receiver: &ReceiverName, offer: &PushOffer<'_>) -> PushId {
    let key = caller.key_id().map(|key| key.to_string()).unwrap_or_default();
    let mut hasher = blake3::Hasher::new_derive_key("oneport 2026 file on its way");
    for part in [key.as_bytes(), receiver.as_str().as_bytes(), offer.name] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.update(&offer.token);
    hasher.update(&offer.size.to_be_bytes());
    hasher.update(&offer.modified.0.to_be_bytes());
    hasher.update(&offer.modified.1.to_be_bytes());
    let mut id = [0; PUSH_ID_LEN];
    hasher.finalize_xof().fill(&mut id);
    id
}

impl PushHand {
    /// The file is here: tells the receiver, and waits for what comes of it. A server that is `stopping` waits for a
    /// receiver that is at it, and for no other one.
    pub(crate) fn delivered(
        &self,
        stopping: &CancellationToken,
    ) -> impl Future<Output = Delivery> + Send + use<> {
        let (held, stopping) = (Arc::clone(&self.0), stopping.clone());
        async move { held.delivered(&stopping).await }
    }
}

impl Held {
    async fn delivered(&self, stopping: &CancellationToken) -> Delivery {
        let (service, file) = (&self.service, &self.file);
        match self.whole().await {
            Ok(whole) => service.board().has_come(file, self.id, whole),
            Err(error) => service.finish(file, self.id, Delivery::Failed(Code::LocalIo, error.to_string())),
        }
        let mut state = self.state.clone();
        loop {
            let State { is_there, delivery } = state.borrow_and_update().clone();
            if let Some(delivery) = delivery {
                return delivery;
            }
            let patience = if is_there { PUSH_WAIT_MAX } else { PUSH_ABSENT_MAX };
            let changed = timeout(patience, state.changed());
            let changed = tokio::select! {
                changed = changed => changed,
                () = stopping.cancelled(), if !is_there => {
                    let text = format!("the server stops, and '{}' is not there", self.receiver);
                    return Delivery::Failed(Code::LocalIo, text);
                }
            };
            match changed {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Delivery::Failed(Code::LocalIo, "it was given up".to_owned()),
                Err(_elapsed) => {
                    let text = format!("'{}' has not received it within {patience:?}", self.receiver);
                    service.finish(file, self.id, Delivery::Failed(Code::Timeout, text));
                }
            }
        }
    }

    /// What the listener is told of the file.
    async fn whole(&self) -> Result<Whole, String> {
        let version = self.service.open_version(&self.permit, None, None, None).await;
        let version = version.map_err(|error: ServiceError| error.to_string())?;
        let tree = version.complete().await.map_err(|error| error.to_string())?;
        Ok(Whole { version, root: tree.root() })
    }
}

impl Board {
    /// All of a file is here.
    fn has_come(&mut self, file: &FileName, id: PushId, whole: Whole) {
        let Some(push) = self.pushes.get_mut(file).filter(|push| push.id == id) else { return };
        if push.whole.replace(whole).is_some() {
            // Another connection of the sender was faster.
            return;
        }
        if let Some(receiver) = self.receivers.get_mut(&push.receiver) {
            receiver.waiting.push_back(file.clone());
            receiver.stirred.notify_one();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut board = self.service.board();
        let Some(push) = board.pushes.get_mut(&self.file).filter(|push| push.id == self.id) else { return };
        push.hands = push.hands.saturating_sub(1);
        let is_left = push.hands == 0;
        drop(board);
        if is_left {
            self.service.linger(&self.file, self.id);
        }
    }
}

impl Service {
    /// Gives a push up that nobody brings for a while, unless its receiver is at it.
    pub(super) fn linger(&self, file: &FileName, id: PushId) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (service, file) = (self.clone(), file.clone());
        runtime.spawn(async move {
            sleep(PUSH_LINGER).await;
            service.give_up_left(&file, id);
        });
    }

    /// The file stays: whoever comes back soon goes on with it.
    fn give_up_left(&self, file: &FileName, id: PushId) {
        let mut board = self.board();
        let Some(push) = board.pushes.get(file).filter(|push| push.id == id && push.hands == 0) else {
            return;
        };
        let is_told =
            board.receivers.get(&push.receiver).is_some_and(|receiver| receiver.told.contains(file));
        let left = if is_told { None } else { board.take(file, id) };
        drop(board);
        if let Some(push) = left {
            self.tell_end(&push, &Delivery::Failed(Code::Lost, "the sender went away".to_owned()));
        }
    }
}
