//! The receiver's side: somebody listens under a name, is told of files, and says what came of them.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::Notify;

use super::{Board, Delivery, Receiver, Whole};
use crate::error::Code;
use crate::limits::{LISTENERS_MAX, LISTENERS_PER_KEY_MAX};
use crate::names::{FileName, PushId, ReceiverName};
use crate::rights::Verb;
use crate::service::access::{Caller, Denied};
use crate::service::{Event, Service};
use crate::token::KeyId;
use crate::tree::Root;

/// Somebody who listens, as long as this lives.
pub(crate) struct Listening {
    service: Service,
    caller: Caller,
    name: ReceiverName,
    serial: u64,
    stirred: Arc<Notify>,
}

/// Why nobody listens under a name. The text is for the peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// The key does not allow it, or not any more.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nobody can have this name.
    #[error("the name to listen under is 1 to 64 letters, digits, '.', '_' or '-'")]
    Name,
    /// Somebody else listens under it.
    #[error("somebody with another key listens under this name")]
    Taken,
    /// Another connection with the same key listens under it now.
    #[error("another listener with this key has taken this name over")]
    TakenOver,
    /// There are too many already.
    #[error("too many clients listen already")]
    TooMany,
}

impl ListenError {
    /// The kind of failure, as the peer is told it.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Denied(_) => Code::NotAllowed,
            Self::Name => Code::Usage,
            Self::Taken | Self::TakenOver => Code::Exists,
            Self::TooMany => Code::Limit,
        }
    }
}

/// A file that a listener is told of.
pub(crate) struct Announced {
    pub(crate) id: PushId,
    pub(crate) name: FileName,
    /// What the sender's key is called.
    pub(crate) from: String,
    pub(crate) whole: Whole,
}

impl Service {
    /// A caller listens under a name from now on; one with the same key and name does not any more.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(crate) fn listen(&self, caller: &Caller, name: &[u8]) -> Result<Listening, ListenError> {
        self.check(caller, Verb::Listen, name)?;
        let name = ReceiverName::parse(name).map_err(|_| ListenError::Name)?;
        // Whoever has the right has a key.
        let key = caller.key_id().ok_or(ListenError::Taken)?;
        let stirred = Arc::new(Notify::new());
        let serial = self.board().enter(&name, key, &stirred)?;
        let (peer, shown) = (caller.peer(), caller.key_name());
        self.tell(&Event::Listens { peer, key: shown, receiver: &name });
        Ok(Listening { service: self.clone(), caller: caller.clone(), name, serial, stirred })
    }
}

impl Board {
    fn enter(&mut self, name: &ReceiverName, key: KeyId, stirred: &Arc<Notify>) -> Result<u64, ListenError> {
        match self.receivers.get(name) {
            Some(there) if there.key != key => return Err(ListenError::Taken),
            Some(_) => {}
            None => {
                let of_key = self.receivers.values().filter(|receiver| receiver.key == key).count();
                if self.receivers.len() >= LISTENERS_MAX || of_key >= LISTENERS_PER_KEY_MAX {
                    return Err(ListenError::TooMany);
                }
            }
        }
        self.serial += 1;
        let (mut waiting, serial) = (VecDeque::new(), self.serial);
        for (file, push) in self.pushes.iter().filter(|(_, push)| push.receiver == *name) {
            push.state.send_modify(|state| state.is_there = true);
            if push.whole.is_some() {
                waiting.push_back(file.clone());
            }
        }
        if !waiting.is_empty() {
            stirred.notify_one();
        }
        let new = Receiver { key, serial, waiting, told: HashSet::new(), stirred: Arc::clone(stirred) };
        if let Some(before) = self.receivers.insert(name.clone(), new) {
            before.stirred.notify_one();
        }
        Ok(serial)
    }
}

impl Listening {
    /// Ends when there may be something new to be told.
    pub(crate) fn stirs(&self) -> impl Future<Output = ()> + Send + use<> {
        let stirred = Arc::clone(&self.stirred);
        async move { stirred.notified().await }
    }

    /// Whether it waits for an answer about anything.
    pub(crate) fn has_told(&self) -> bool {
        let board = self.service.board();
        let own = board.receivers.get(&self.name).filter(|receiver| receiver.serial == self.serial);
        own.is_some_and(|receiver| !receiver.told.is_empty())
    }

    /// The next file to be told of, if there is one.
    ///
    /// # Errors
    /// [`ListenError`] if it must not listen any more.
    pub(crate) fn next(&self) -> Result<Option<Announced>, ListenError> {
        loop {
            let mut board = self.service.board();
            let own = board.receivers.get_mut(&self.name).filter(|receiver| receiver.serial == self.serial);
            let own = own.ok_or(ListenError::TakenOver)?;
            let Some(file) = own.waiting.pop_front() else { return Ok(None) };
            drop(board);
            // A key that was revoked is told of nothing.
            self.service.check(&self.caller, Verb::Listen, self.name.as_str().as_bytes())?;
            if let Some(announced) = self.service.board().announce(&file, self.serial, self.caller.key_id()) {
                return Ok(Some(announced));
            }
        }
    }

    /// What came of a file that was told of.
    pub(crate) fn received(&self, id: PushId, outcome: Result<Root, (Code, String)>) {
        let board = self.service.board();
        let Some(file) = board.ids.get(&id).cloned() else { return };
        let told = board.receivers.get(&self.name).filter(|receiver| receiver.serial == self.serial);
        if told.is_none_or(|receiver| !receiver.told.contains(&file)) {
            return;
        }
        let root = board.pushes.get(&file).and_then(|push| Some(push.whole.as_ref()?.root));
        drop(board);
        let delivery = match outcome {
            Ok(received) if Some(received) == root => Delivery::Received(received),
            Ok(_) => Delivery::Failed(
                Code::Checksum,
                format!("'{}' says that it received it, but with other bytes", self.name),
            ),
            Err((code, text)) => Delivery::Failed(code, format!("'{}' did not take it: {text}", self.name)),
        };
        self.service.finish(&file, id, delivery);
    }
}

impl Board {
    fn announce(&mut self, file: &FileName, serial: u64, key: Option<KeyId>) -> Option<Announced> {
        let push = self.pushes.get_mut(file)?;
        let whole = push.whole.clone()?;
        let receiver = self.receivers.get_mut(&push.receiver).filter(|receiver| receiver.serial == serial)?;
        receiver.told.insert(file.clone());
        push.reader = key;
        let from = push.sender.key_name().map(ToString::to_string).unwrap_or_default();
        Some(Announced { id: push.id, name: push.base.clone(), from, whole })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut board = self.service.board();
        if board.receivers.get(&self.name).is_none_or(|receiver| receiver.serial != self.serial) {
            return;
        }
        board.receivers.remove(&self.name);
        let mut left = Vec::new();
        for (file, push) in board.pushes.iter().filter(|(_, push)| push.receiver == self.name) {
            push.state.send_modify(|state| state.is_there = false);
            if push.hands == 0 {
                left.push((file.clone(), push.id));
            }
        }
        drop(board);
        for (file, id) in left {
            self.service.linger(&file, id);
        }
        let (peer, key) = (self.caller.peer(), self.caller.key_name());
        self.service.tell(&Event::ListensNoMore { peer, key, receiver: &self.name });
    }
}
