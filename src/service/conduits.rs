//! Those who listen over Conduit, and what is pushed to them.
//!
//! A connection enters itself ([`Service::listen_conduit`]) and takes orders, one after the other. Whoever pushes names
//! a session, or a name that several may have, and hears from each of them what came of it. Who may push what is
//! decided before, by a permit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::access::{Denied, Permit};
use super::{Service, ServiceError, lock};
use crate::limits::{CONDUIT_LISTENERS_MAX, CONDUIT_PUSH_TIMEOUT, CONDUIT_PUSHES_MAX, HASH_CHUNK};
use crate::rights::Verb;
use crate::storage::StoredFile;

use super::incoming::SHA256_LEN;

/// All who listen, by their sessions.
#[derive(Default)]
pub(super) struct Conduits(Mutex<HashMap<String, Listener>>);

struct Listener {
    name: String,
    orders: mpsc::Sender<Order>,
}

/// A file that is to be sent to somebody.
#[derive(Clone)]
pub(crate) struct Pushed {
    pub(crate) permit: Permit,
    /// The last component of its name: the receiver decides where that goes.
    pub(crate) name: String,
    pub(crate) file: Arc<StoredFile>,
    pub(crate) sha256: [u8; SHA256_LEN],
}

/// What a connection is to push, and who wants to know what came of it.
pub(crate) struct Order {
    pub(crate) pushed: Pushed,
    pub(crate) reply: oneshot::Sender<Result<(), String>>,
}

/// A connection that listens; as long as this lives.
pub(crate) struct Listening {
    service: Service,
    session: String,
}

/// What came of a push to one receiver.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) session: String,
    pub(crate) name: String,
    /// All of it was taken; else why not.
    pub(crate) outcome: Result<(), String>,
}

/// Why nothing was pushed to anybody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// The caller may not.
    #[error(transparent)]
    Denied(Denied),
    /// Nobody who listens is called that.
    #[error("no client of this name is connected")]
    Nobody,
    /// There is no such file, or it cannot be read.
    #[error(transparent)]
    File(#[from] ServiceError),
}

impl Service {
    /// Enters a connection that listens, called `name`. `None` if there are too many.
    pub(crate) fn listen_conduit(
        &self,
        session: &str,
        name: &str,
    ) -> Option<(Listening, mpsc::Receiver<Order>)> {
        let (orders, taken) = mpsc::channel(CONDUIT_PUSHES_MAX);
        let mut listeners = lock(&self.inner.conduits.0);
        if listeners.len() >= CONDUIT_LISTENERS_MAX {
            return None;
        }
        match listeners.entry(session.to_owned()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => free.insert(Listener { name: name.to_owned(), orders }),
        };
        Some((Listening { service: self.clone(), session: session.to_owned() }, taken))
    }

    /// Those who listen: their sessions and their names.
    pub(crate) fn conduit_listeners(&self) -> Vec<(String, String)> {
        let listeners = lock(&self.inner.conduits.0);
        listeners.iter().map(|(session, listener)| (session.clone(), listener.name.clone())).collect()
    }

    /// Pushes a file to the session `to`, or to all who are called that; returns when it is known what came of it
    /// for each of them.
    pub(crate) async fn push_conduit(&self, permit: &Permit, to: &str) -> Result<Vec<Delivery>, PushError> {
        self.check(permit.caller(), Verb::Push, permit.name().as_bytes()).map_err(PushError::Denied)?;
        let receivers = self.receivers(to);
        if receivers.is_empty() {
            return Err(PushError::Nobody);
        }
        let pushed = self.pushed(permit).await?;
        let mut waiting = Vec::new();
        for (session, name, orders) in receivers {
            let (reply, told) = oneshot::channel();
            let sent = orders.try_send(Order { pushed: pushed.clone(), reply });
            let refused = sent.err().map(|_| "too many files are being pushed to it, or it is gone");
            waiting.push((session, name, refused, told));
        }
        let mut deliveries = Vec::new();
        for (session, name, refused, told) in waiting {
            let outcome = match refused {
                Some(text) => Err(text.to_owned()),
                None => match timeout(CONDUIT_PUSH_TIMEOUT, told).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_gone)) => Err("its connection ended".to_owned()),
                    Err(_elapsed) => Err("it took too long".to_owned()),
                },
            };
            deliveries.push(Delivery { session, name, outcome });
        }
        Ok(deliveries)
    }

    fn receivers(&self, to: &str) -> Vec<(String, String, mpsc::Sender<Order>)> {
        let listeners = lock(&self.inner.conduits.0);
        let is_meant = |session: &String, listener: &Listener| session == to || listener.name == to;
        let meant = listeners.iter().filter(|(session, listener)| is_meant(session, listener));
        meant
            .map(|(session, listener)| (session.clone(), listener.name.clone(), listener.orders.clone()))
            .collect()
    }

    /// Opens and hashes a file that is to be pushed.
    async fn pushed(&self, permit: &Permit) -> Result<Pushed, PushError> {
        let name = std::str::from_utf8(permit.name().base());
        let unsaid = |_| ServiceError::Unavailable("its name is no text, and cannot be said here".to_owned());
        let name = name.map_err(unsaid)?.to_owned();
        let version = self.open_version(permit, None, None, None).await?;
        let file = Arc::clone(version.file());
        let hashing = tokio::task::spawn_blocking(move || sha256_of(&file).map(|sha256| (file, sha256)));
        let unavailable = |cause: String| ServiceError::Unavailable(cause);
        let hashed = hashing.await.map_err(|aborted| unavailable(aborted.to_string()))?;
        let (file, sha256) = hashed.map_err(|error| unavailable(error.to_string()))?;
        Ok(Pushed { permit: permit.clone(), name, file, sha256 })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        lock(&self.service.inner.conduits.0).remove(&self.session);
    }
}

fn sha256_of(file: &StoredFile) -> std::io::Result<[u8; SHA256_LEN]> {
    let (mut hasher, mut buffer, mut at) = (Sha256::new(), vec![0; HASH_CHUNK], 0);
    while at < file.size() {
        let wanted = usize::try_from(file.size() - at).unwrap_or(usize::MAX).min(HASH_CHUNK);
        match file.read_at(&mut buffer[..wanted], at)? {
            0 => return Err(std::io::Error::other("it became shorter while it was read")),
            count => {
                hasher.update(&buffer[..count]);
                at += count as u64;
            }
        }
    }
    Ok(hasher.finalize().into())
}
