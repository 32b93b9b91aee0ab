//! Conduit's password: whoever shows it has one key, called `conduit`, which is in no file.
//!
//! It is looked up like any other, so whatever asks what a key allows need not know where it comes from.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Access, Caller, NotAccepted};
use crate::keys::{Key, KeyName};
use crate::rights::{Grant, Right, Rights};
use crate::service::{Event, Service};
use crate::token::{KeyId, TokenHash};

impl Access {
    /// Serves Conduit to whoever shows the password of this hash; these are the rights that it gives.
    #[must_use]
    pub fn with_conduit(self, password: TokenHash, rights: Rights) -> Self {
        let key = Key {
            id: KeyId::CONDUIT,
            name: KeyName::conduit(),
            hash: password,
            grant: Grant { rights, prefix: Box::default() },
            created: Timestamp::now(),
            expires: None,
            quota: None,
        };
        Self { conduit: Some(Arc::new(key)), ..self }
    }
}

impl Service {
    /// Whether Conduit is served.
    pub(crate) fn serves_conduit(&self) -> bool {
        self.inner.access.conduit.is_some()
    }

    /// Whether whoever has shown Conduit's password may receive what is pushed.
    pub(crate) fn may_listen(&self, caller: &Caller) -> bool {
        caller.key.as_deref().is_some_and(|key| key.grant.rights.has(Right::Push))
    }

    /// Takes what a caller shows as the hash of Conduit's password, if it is a hash at all.
    pub(crate) fn authenticate_conduit(
        &self,
        caller: &Caller,
        shown: Option<TokenHash>,
    ) -> Result<Caller, NotAccepted> {
        let Caller { peer, is_secret, .. } = *caller;
        if !is_secret {
            self.check_clear(peer)?;
        }
        match &self.inner.access.conduit {
            // Compared in a time that tells nothing.
            Some(key) if shown.is_some_and(|shown| shown == key.hash) => {
                self.tell(&Event::KeyAccepted { peer, key: &key.name });
                Ok(Caller { key: Some(Arc::clone(key)), ..caller.clone() })
            }
            _ => {
                self.tell(&Event::KeyRefused { peer, cause: "it is not Conduit's password" });
                Err(NotAccepted::Key)
            }
        }
    }
}
