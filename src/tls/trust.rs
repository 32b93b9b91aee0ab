//! Whom a client trusts: keys that it knows, or certificates that an authority signed.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerIncompatible, RootCertStore,
    SignatureScheme,
};

use super::identity::pin_of;
use super::provider;
use crate::pin::Pin;

/// Which servers are trusted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Trust {
    /// Whoever proves to have one of these keys.
    Pinned(Vec<Pin>),
    /// Whoever has a certificate for the name that was asked for, from one of these authorities.
    Authorities(Arc<RootCertStore>),
    /// Anybody: the caller looks at the key afterwards, and says nothing secret before.
    FirstContact,
}

/// Why a server is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Untrusted {
    /// It has another key than the ones that are trusted.
    #[error("the server has the key {found}, which is not the expected one")]
    OtherKey {
        /// The pin of its key.
        found: Pin,
    },
    /// Its certificate is not what the authorities vouch for.
    #[error("the server's certificate is not accepted: {0}")]
    Certificate(String),
}

/// Why there are no authorities.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The text holds no certificate of an authority, or a broken one.
    #[error("there is no certificate in it, or a broken one")]
    Authorities,
    /// The library refuses.
    #[error("TLS cannot be used: {0}")]
    Setup(String),
}

impl Untrusted {
    /// What an error of the library says of the certificate, if it is about that.
    pub(super) fn of(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(cause))) => {
                cause.downcast_ref::<Self>().cloned().or_else(|| Some(Self::Certificate(cause.to_string())))
            }
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                Some(Self::Certificate(error.to_string()))
            }
            _ => None,
        }
    }
}

impl Trust {
    /// The authorities in a PEM text.
    ///
    /// # Errors
    /// If there is none.
    pub fn authorities(pem: &[u8]) -> Result<Self, TrustError> {
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| TrustError::Authorities)?;
            store.add(certificate).map_err(|_| TrustError::Authorities)?;
        }
        if store.is_empty() { Err(TrustError::Authorities) } else { Ok(Self::Authorities(Arc::new(store))) }
    }

    /// How a client that trusts so shakes hands.
    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        let setup = |error: &dyn fmt::Display| TrustError::Setup(error.to_string());
        let provider = provider();
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Authorities(store) => {
                WebPkiServerVerifier::builder_with_provider(Arc::clone(store), Arc::clone(&provider))
                    .build()
                    .map_err(|error| setup(&error))?
            }
            Self::Pinned(pins) => {
                Arc::new(Keys { pins: Some(pins.clone()), provider: Arc::clone(&provider) })
            }
            Self::FirstContact => Arc::new(Keys { pins: None, provider: Arc::clone(&provider) }),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| setup(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// Looks at the key alone. That the server has it, it proves by its signature.
#[derive(Debug)]
struct Keys {
    /// `None` accepts any.
    pins: Option<Vec<Pin>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Keys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = pin_of(end_entity).ok_or(CertificateError::BadEncoding)?;
        match &self.pins {
            Some(pins) if !pins.contains(&found) => {
                let cause = OtherError(Arc::new(Untrusted::OtherKey { found }));
                Err(CertificateError::Other(cause).into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
