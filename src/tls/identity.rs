//! Who a server is: its private key, and the certificate that goes with it.

use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use zeroize::Zeroizing;

use super::provider;
use crate::pin::Pin;

/// Name in a self-made certificate. Nobody compares it: the key is what a client pins.
const COMMON_NAME: &str = "oneport";
/// Years between which a self-made certificate holds: as long as its key is kept.
const VALID: (i32, i32) = (2020, 4096);

/// A private key and its certificates.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pin: Pin,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text holds no certificate, or none that can be read.
    #[error("there is no certificate in it, or a broken one")]
    Certificate,
    /// The text holds no private key, or none that can be read.
    #[error("there is no private key in it, or a broken one")]
    Key,
    /// They do not belong together, or are of a kind that is not known.
    #[error("certificate and key cannot be used together: {0}")]
    Pair(#[from] rustls::Error),
    /// No key could be made.
    #[error("no key could be made: {0}")]
    Making(#[from] rcgen::Error),
}

impl Identity {
    /// Makes a key, and a certificate that it signs itself. Both are returned in PEM as well, the
    /// certificate first.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn make() -> Result<(Self, String, String), IdentityError> {
        let key = make_key()?;
        let certificate = certificate_for(&key)?;
        let identity = Self::from_pem(certificate.as_bytes(), key.as_bytes())?;
        Ok((identity, certificate, key.to_string()))
    }

    /// Reads certificates, the server's own first, and its private key from PEM texts.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates).collect();
        let chain = chain.map_err(|_| IdentityError::Certificate)?;
        let own = chain.first().ok_or(IdentityError::Certificate)?;
        let pin = pin_of(own).ok_or(IdentityError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| IdentityError::Key)?;
        let identity = Self { chain, key, pin };
        identity.server_config()?;
        Ok(identity)
    }

    /// What clients pin.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// How a server with this identity shakes hands.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// Says nothing of the key.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.pin)
    }
}

/// Makes a private key, in PEM.
pub(super) fn make_key() -> Result<Zeroizing<String>, IdentityError> {
    Ok(Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem()))
}

/// A certificate, in PEM, that a private key signs for itself. The key is all that it depends on.
pub(super) fn certificate_for(key: &str) -> Result<String, IdentityError> {
    let key = KeyPair::from_pem(key).map_err(|_| IdentityError::Key)?;
    let mut params = CertificateParams::new(vec![COMMON_NAME.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    params.not_before = rcgen::date_time_ymd(VALID.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(VALID.1, 1, 1);
    Ok(params.self_signed(&key)?.pem())
}

/// The pin of a certificate's key.
pub(super) fn pin_of(certificate: &CertificateDer<'_>) -> Option<Pin> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    Some(Pin::of(&parsed.subject_public_key_info()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_identity_reads_back_as_the_same() {
        let (made, certificate, key) = Identity::make().unwrap();
        let read = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(read.pin(), made.pin());
        assert_ne!(Identity::make().unwrap().0.pin(), made.pin());
        assert!(!format!("{made:?}").contains(key.lines().nth(1).unwrap()));
    }

    #[test]
    fn what_does_not_belong_together_is_no_identity() {
        let ((_, certificate, key), (_, other, _)) = (Identity::make().unwrap(), Identity::make().unwrap());
        let of = |certificate: &str, key: &str| {
            Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap_err()
        };
        assert!(matches!(of(&other, &key), IdentityError::Pair(_)));
        assert!(matches!(of(&key, &key), IdentityError::Certificate));
        assert!(matches!(of(&certificate, &certificate), IdentityError::Key));
        assert!(matches!(of("", ""), IdentityError::Certificate));
        assert!(matches!(of(&certificate.replace('M', "N"), &key), IdentityError::Certificate));
    }
}
