//! The identity with which a server shakes hands now. It can be exchanged while connections are open: those
//! go on with the one that they began with.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

use super::{Identity, IdentityError};

/// A server's identity, as its connections share it. A clone is the same one.
#[derive(Clone)]
pub struct Serving(Arc<RwLock<Arc<ServerConfig>>>);

impl Serving {
    /// Begins with this identity.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn new(identity: &Identity) -> Result<Self, IdentityError> {
        Ok(Self(Arc::new(RwLock::new(identity.server_config()?))))
    }

    /// New connections get this identity from now on.
    ///
    /// # Errors
    /// If it cannot be used; then the one before stays.
    pub fn replace(&self, identity: &Identity) -> Result<(), IdentityError> {
        let config = identity.server_config()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// What a connection that begins now needs.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}
