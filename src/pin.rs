//! Pins: what a client remembers of a server's key.
//!
//! A pin is the SHA-256 digest of the certificate's public key (its DER-encoded `SubjectPublicKeyInfo`,
//! RFC 7469, section 2.4), so a certificate may be renewed with the same key. It is written in URL-safe
//! Base64, 43 letters, and so fits into `oneport://host:port#pin`.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

const PIN_TEXT_LEN: usize = 43;
/// Before the letters of a pin in texts for people, and in files.
const ALGORITHM: &str = "sha256:";

/// The digest of a public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

/// A word that is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin is sha256: and {PIN_TEXT_LEN} letters, digits, - or _ (the first word may be left out)")]
pub struct PinError;

impl Pin {
    /// The pin of a public key.
    #[must_use]
    pub fn of(public_key_info: &[u8]) -> Self {
        Self(Sha256::digest(public_key_info).into())
    }

    /// Its letters alone, as they stand in an address.
    #[must_use]
    pub fn letters(&self) -> String {
        Base64UrlUnpadded::encode_string(&self.0)
    }
}

/// With or without `sha256:`.
impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let letters = text.strip_prefix(ALGORITHM).unwrap_or(text);
        let mut pin = [0; 32];
        let decoded = Base64UrlUnpadded::decode(letters, &mut pin).map_err(|_| PinError)?;
        if letters.len() == PIN_TEXT_LEN && decoded.len() == 32 { Ok(Self(pin)) } else { Err(PinError) }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", self.letters())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_as_they_are_shown() {
        let pin = Pin::of(b"a public key");
        assert_eq!(pin.to_string().parse(), Ok(pin));
        assert_eq!(pin.letters().parse(), Ok(pin));
        assert_eq!(pin.letters().len(), PIN_TEXT_LEN);
        // The last letter holds two bits that mean nothing; only one way to write them counts.
        for text in
            ["", "sha256:", "sha1:AAAA", &"A".repeat(42), &"A".repeat(44), &format!("{}B", "A".repeat(42))]
        {
            assert_eq!(text.parse::<Pin>(), Err(PinError), "{text}");
        }
    }
}
