//! TLS 1.3 (RFC 8446) for both ends: who a server is, whom a client trusts, and a connection's records.
//!
//! Nothing here knows a socket: `Session` is fed what has come and says what is to be sent, and whoever owns
//! the socket moves the bytes. There is no older version, no resumption and no early data, so nothing that
//! was recorded can be played again.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

mod home;
mod identity;
mod serving;
mod session;
mod trust;

pub use home::HomeError;
pub use identity::{Identity, IdentityError};
pub use serving::Serving;
pub(crate) use session::{Opened, Session};
pub use trust::{Trust, TrustError, Untrusted};

/// Why a TLS connection cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer's certificate is not one that is trusted here.
    #[error(transparent)]
    Untrusted(#[from] trust::Untrusted),
    /// The peer, or somebody between, does not keep to TLS 1.3, or the peer gave up.
    #[error("{0}")]
    Broken(rustls::Error),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match trust::Untrusted::of(&error) {
            Some(untrusted) => Self::Untrusted(untrusted),
            None => Self::Broken(error),
        }
    }
}

/// What both ends can do, the fastest cipher first.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    let cipher_suites =
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() })
}
