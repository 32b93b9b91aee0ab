//! Who may do what: decided here before anything is dispatched, and nowhere else.
//!
//! An edge knows a `Caller` for each connection. Whatever it wants from the service it has to ask for by
//! a `Permit`, and `Service::permit` is the only maker of those: it compares what the verb needs with
//! what everybody may, and then with what the caller's key allows, which is looked up anew each time. A
//! refusal is made before anything is looked for on the disk, so it tells nothing of what is there.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use jiff::Timestamp;

use super::address::{Net, client_of};
use super::attempts::{Attempts, Turn};
use super::uploads::{Naming, ToName};
use super::{Event, Service, lock};
use crate::keys::{Key, KeyName, KeyStore, NoKeys};
use crate::limits::PLAINTEXT_WARNED_MAX;
use crate::names::{self, FileName, NameError};
use crate::rights::{Grant, Right, Rights, Verb};
use crate::text;
use crate::token::{KeyId, Token, TokenError, TokenHash};

mod conduit;

/// What decides who may do what.
pub struct Access {
    everybody: Grant,
    keys: Box<dyn KeyStore>,
    /// What whoever may read the server's state folder shows as a key.
    owner: Option<Arc<Key>>,
    /// What the key of an unknown identifier is compared with, so that it takes as long.
    nobody: TokenHash,
    plaintext: Vec<Net>,
    attempts: Attempts,
    /// Whoever shows Conduit's password has this key; without it that dialect is not served.
    conduit: Option<Arc<Key>>,
    /// Size of the largest file that is taken, in bytes.
    upload_max: Option<u64>,
    /// What is asked besides, of all that is allowed.
    check: Option<Box<Check>>,
    /// How files are called that are stored, if not as their clients ask.
    naming: Option<Naming>,
    /// The keys cannot be read, and that was told.
    is_failing: AtomicBool,
    /// Clients that were warned of for sending keys in clear.
    warned: Mutex<HashSet<IpAddr>>,
}

/// Says of what rights and keys allow whether it is really allowed.
pub type Check = dyn Fn(&Asked<'_>) -> bool + Send + Sync;

/// Something that a caller asks for and that rights and keys allow.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Asked<'a> {
    /// Where the caller is.
    pub peer: SocketAddr,
    /// The name of the key that it has shown, if any.
    pub key: Option<&'a KeyName>,
    /// What it wants to do.
    pub verb: Verb,
    /// To which file or folder, as the caller said it: nobody has looked at these bytes yet. Empty for all that is served.
    pub name: &'a [u8],
}

/// Who asks. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    peer: SocketAddr,
    /// Nobody on the way can read the connection.
    is_secret: bool,
    key: Option<Arc<Key>>,
}

/// Whose the files are that a caller stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Its key; without one they are nobody's.
    pub(crate) key: Option<KeyId>,
    /// Bytes that they may have in all.
    pub(crate) quota: Option<u64>,
}

/// That a caller may do something to one thing: a file, or the folder or file of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Permit<T = FileName> {
    caller: Caller,
    name: T,
}

/// Why a caller may not. The text is for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// It has shown no key.
    #[error("a key with the right to {} is needed", .0.name())]
    NeedsKey(Right),
    /// It has, but that does not allow it, or not any more.
    #[error("the key does not allow this")]
    NotAllowed,
    /// Rights and keys would allow it, but whoever runs the server does not.
    #[error("the server does not allow this")]
    Checked,
    /// What it names cannot be the name of a file.
    #[error("{0}")]
    Name(NameError),
}

/// Why a key is of no use here. The text is for the peer, and the same whatever is wrong with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAccepted {
    /// It is none, or none any more.
    #[error("the key is not accepted")]
    Key,
    /// Somebody on the way may have read it.
    #[error("keys are not accepted over an unencrypted connection; use TLS")]
    Clear,
}

const UNUSABLE: &str = "the keys cannot be read";

impl Access {
    /// Keys from `keys`. Unless `require_key`, everybody may read. Keys may come in clear from these
    /// networks, and from this machine.
    #[must_use]
    pub fn new(keys: impl KeyStore, require_key: bool, plaintext: Vec<Net>) -> Self {
        Self {
            everybody: if require_key { Grant::default() } else { Grant::reading() },
            keys: Box::new(keys),
            owner: None,
            nobody: Token::new(&[0; crate::token::TOKEN_RANDOM]).hash(),
            plaintext,
            attempts: Attempts::default(),
            conduit: None,
            upload_max: None,
            check: None,
            naming: None,
            is_failing: AtomicBool::new(false),
            warned: Mutex::default(),
        }
    }

    /// Takes no file of more than `max` bytes, if there is a limit.
    #[must_use]
    pub fn with_upload_max(self, max: Option<u64>) -> Self {
        Self { upload_max: max, ..self }
    }

    /// Whoever shows this token may see and steer the server, and send to those who listen, under the name [`KeyName::OWNER`].
    #[must_use]
    pub fn with_owner(self, token: &Token) -> Self {
        let grant = Grant { rights: Rights::from_iter([Right::Push, Right::Admin]), prefix: Box::default() };
        let (id, name, hash, created) = (token.id(), KeyName::owner(), token.hash(), Timestamp::now());
        let key = Key { id, name, hash, grant, created, expires: None, quota: None };
        Self { owner: Some(Arc::new(key)), ..self }
    }

    /// Asks `check` besides, of everything that rights and keys allow: it can forbid, and never allow. It is asked for
    /// each request, for each stretch of a listing and at the end of each block of a transfer, on the threads that serve
    /// all connections: it must not wait for anything.
    #[must_use]
    pub fn with_check(self, check: impl Fn(&Asked<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self { check: Some(Box::new(check)), ..self }
    }

    /// Has `make` say under which name a file is stored.
    #[must_use]
    pub fn with_names(self, make: impl Fn(&ToName<'_>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { naming: Some(Naming::new(Box::new(make))), ..self }
    }

    pub(super) fn naming(&self) -> Option<&Naming> {
        self.naming.as_ref()
    }

    /// Whether anybody has a key.
    pub(super) fn has_keys(&self) -> bool {
        self.keys.has_any()
    }

    /// Everybody may read, and there are no keys.
    #[must_use]
    pub fn open() -> Self {
        Self::new(NoKeys, false, Vec::new())
    }
}

impl Caller {
    /// Whoever is at the other end of a connection from `peer`, `is_secured` by encryption or not.
    pub(crate) fn new(peer: SocketAddr, is_secured: bool) -> Self {
        let is_secret = is_secured || peer.ip().to_canonical().is_loopback();
        Self { peer, is_secret, key: None }
    }

    /// Where it is.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What its key is called, if it has shown one.
    pub(crate) fn key_name(&self) -> Option<&KeyName> {
        self.key.as_deref().map(|key| &key.name)
    }

    /// Which key it has shown.
    pub(crate) fn key_id(&self) -> Option<KeyId> {
        self.key.as_deref().map(|key| key.id)
    }
}

impl<T> Permit<T> {
    /// Who may.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What it is for.
    pub(crate) fn name(&self) -> &T {
        &self.name
    }
}

impl Permit {
    /// Leave for the same file, for one to whom it is pushed by whoever may do that.
    pub(crate) fn handed_to(&self, receiver: &Caller) -> Self {
        Self { caller: receiver.clone(), name: self.name.clone() }
    }
}

#[cfg(test)]
impl Permit {
    /// One that nobody has looked at, for tests of what takes permits.
    pub(crate) fn unchecked(peer: &str, name: &str) -> Self {
        let caller = Caller::new(peer.parse().unwrap(), false);
        Self { caller, name: FileName::parse(name.as_bytes()).unwrap() }
    }
}

impl Service {
    /// Whether `caller` may do `verb` to the file `name`, as bytes that nobody has looked at yet.
    pub(crate) fn permit(&self, caller: &Caller, verb: Verb, name: &[u8]) -> Result<Permit, Denied> {
        if names::may_be_pushed(name)
            && matches!(verb, Verb::Get | Verb::Stat)
            && let Some(file) = self.pushed_file(caller, name)
        {
            self.check(caller, verb, file.as_bytes())?;
            return Ok(Permit { caller: caller.clone(), name: file });
        }
        self.check(caller, verb, name)?;
        let name = FileName::parse(name).map_err(Denied::Name)?;
        Ok(Permit { caller: caller.clone(), name })
    }

    /// What a sender needs to bring a file for a receiver; [`Self::push`] has looked whether it may.
    pub(super) fn permit_pushed(&self, caller: &Caller, file: &FileName) -> Permit {
        Permit { caller: caller.clone(), name: file.clone() }
    }

    /// As [`Self::permit`], to list a folder: the root if the name is empty.
    pub(crate) fn permit_listing(
        &self,
        caller: &Caller,
        name: &[u8],
    ) -> Result<Permit<Option<FileName>>, Denied> {
        self.check(caller, Verb::List, name)?;
        let name = (!name.is_empty()).then(|| FileName::parse(name)).transpose().map_err(Denied::Name)?;
        Ok(Permit { caller: caller.clone(), name })
    }

    /// Whether `caller` may ask the server about itself, or steer it: what this verb stands for.
    pub(crate) fn permit_control(&self, caller: &Caller, verb: Verb) -> Result<Permit<Verb>, Denied> {
        // It concerns all that is served: a key that is limited to a part of it does not do.
        self.check(caller, verb, b"")?;
        Ok(Permit { caller: caller.clone(), name: verb })
    }

    /// Whether what a caller was permitted to do is still permitted to it: to be asked now and then by
    /// whatever takes long. A refusal is told to the observer.
    pub(crate) fn check(&self, caller: &Caller, verb: Verb, name: &[u8]) -> Result<(), Denied> {
        if names::may_be_pushed(name)
            && let Some((verb, receiver)) = self.stands_for(caller, verb, name)
        {
            return self.check(caller, verb, receiver.as_str().as_bytes());
        }
        let Some(right) = verb.needs() else { return Ok(()) };
        let allowed = match &caller.key {
            _ if self.inner.access.everybody.allows(right, name) => Ok(()),
            None => Err((Denied::NeedsKey(right), String::from("no key was shown"))),
            Some(key) => self.allowed_by(key, right, name).map_err(|cause| (Denied::NotAllowed, cause)),
        };
        let Err((denied, cause)) = allowed.and_then(|()| self.asked(caller, verb, name)) else {
            return Ok(());
        };
        let (peer, key) = (caller.peer, caller.key_name());
        self.tell(&Event::Denied { peer, key, verb, name, cause: &cause });
        Err(denied)
    }

    /// What is allowed is asked about once more, where somebody wants to be asked.
    fn asked(&self, caller: &Caller, verb: Verb, name: &[u8]) -> Result<(), (Denied, String)> {
        let Some(check) = &self.inner.access.check else { return Ok(()) };
        match check(&Asked { peer: caller.peer, key: caller.key_name(), verb, name }) {
            true => Ok(()),
            false => Err((Denied::Checked, "the access check of this server refuses it".to_owned())),
        }
    }

    /// Whether a key that was shown still allows something; else why not.
    fn allowed_by(&self, shown: &Key, right: Right, name: &[u8]) -> Result<(), String> {
        let key = match self.find(&shown.id) {
            Ok(Some(key)) if key.hash == shown.hash => key,
            Ok(_) => return Err("the key was revoked".to_owned()),
            Err(()) => return Err(UNUSABLE.to_owned()),
        };
        if key.is_expired(Timestamp::now()) {
            return Err("the key has expired".to_owned());
        }
        if key.grant.allows(right, name) {
            return Ok(());
        }
        let Grant { rights, prefix } = &key.grant;
        let beneath = if prefix.is_empty() { String::new() } else { format!(" of {}", text::shown(prefix)) };
        Err(format!("the key allows {rights}{beneath} only"))
    }

    /// Whose the files are that a caller stores, as its key says at this moment, or as it said when it was shown.
    pub(crate) fn owner(&self, caller: &Caller) -> Owner {
        let Some(shown) = &caller.key else { return Owner { key: None, quota: None } };
        let found = self.find(&shown.id).ok().flatten();
        Owner { key: Some(shown.id), quota: found.map_or(shown.quota, |key| key.quota) }
    }

    /// Size of the largest file that is taken, in bytes, if there is a limit.
    pub(crate) fn upload_max(&self) -> Option<u64> {
        self.inner.access.upload_max
    }

    /// Takes the word that a caller shows as its key: the caller with that key, if it is one.
    pub(crate) fn authenticate(
        &self,
        caller: &Caller,
        shown: &Result<Token, TokenError>,
    ) -> Result<Caller, NotAccepted> {
        let Caller { peer, is_secret, .. } = *caller;
        if !is_secret {
            self.check_clear(peer)?;
        }
        let now = Timestamp::now();
        let found = match shown {
            Ok(token) => self.match_token(token),
            Err(error) => Err(error.to_string()),
        };
        let found = found.and_then(|key| match key.is_expired(now) {
            true => Err(format!("the key {} has expired", key.name)),
            false => Ok(key),
        });
        match found {
            Ok(key) => {
                self.tell(&Event::KeyAccepted { peer, key: &key.name });
                Ok(Caller { key: Some(key), ..caller.clone() })
            }
            Err(cause) => {
                self.tell(&Event::KeyRefused { peer, cause: &cause });
                Err(NotAccepted::Key)
            }
        }
    }

    /// The key that a token is of; else why it is none.
    fn match_token(&self, token: &Token) -> Result<Arc<Key>, String> {
        let found = self.find(&token.id()).map_err(|()| UNUSABLE.to_owned())?;
        // Compared in any case, and in a time that tells nothing.
        let hash = found.as_deref().map_or(&self.inner.access.nobody, |key| &key.hash);
        let is_it = token.hash() == *hash;
        match found {
            Some(key) if is_it => Ok(key),
            Some(key) => Err(format!("it has the id of the key {}, but not its secret", key.name)),
            None => Err("there is no such key, or not any more".to_owned()),
        }
    }

    /// Looks a key up. That the keys cannot be read is told once, until they can be again.
    fn find(&self, id: &KeyId) -> Result<Option<Arc<Key>>, ()> {
        let Access { keys, owner, conduit, is_failing, .. } = &self.inner.access;
        if let Some(key) = [owner, conduit].into_iter().flatten().find(|key| key.id == *id) {
            return Ok(Some(Arc::clone(key)));
        }
        match keys.find(id) {
            Ok(found) => {
                if is_failing.load(Ordering::Relaxed) && is_failing.swap(false, Ordering::Relaxed) {
                    self.tell(&Event::KeysReadable);
                }
                Ok(found)
            }
            Err(error) => {
                if !is_failing.swap(true, Ordering::Relaxed) {
                    self.tell(&Event::KeysUnreadable { cause: &error.to_string() });
                }
                Err(())
            }
        }
    }

    /// Whether keys may come in clear from there.
    fn check_clear(&self, peer: SocketAddr) -> Result<(), NotAccepted> {
        let Access { plaintext, warned, .. } = &self.inner.access;
        if !plaintext.iter().any(|net| net.contains(peer.ip())) {
            self.tell(&Event::KeyInClear { peer, is_allowed: false });
            return Err(NotAccepted::Clear);
        }
        let mut warned = lock(warned);
        if warned.len() >= PLAINTEXT_WARNED_MAX {
            warned.clear();
        }
        let is_first = warned.insert(client_of(peer.ip()));
        drop(warned);
        if is_first {
            self.tell(&Event::KeyInClear { peer, is_allowed: true });
        }
        Ok(())
    }

    /// A key was not accepted: when that may be said, or `None` if it must not be said at all.
    pub(crate) fn failed_attempt(&self, peer: IpAddr, now: Instant) -> Option<Turn> {
        self.inner.access.attempts.failed(peer, now)
    }
}

#[cfg(test)]
#[path = "access/tests.rs"]
mod tests;
