//! Digests: values that say what bytes a file holds.
//!
//! Only the words are here; who computes and who remembers them is not this module's business.
//! MD5 (RFC 1321) is what wire format v1 carries: a check against corruption, not against malice.
//! Version 2 carries the BLAKE3 root of [`crate::tree`].

use std::fmt;

use md5::{Digest as _, Md5 as Md5Core};

use crate::tree::Root;

/// Length of an MD5 digest in hexadecimal, in bytes.
pub const MD5_HEX_LEN: usize = 32;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The digest that went with a file, of whichever kind its wire format carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Digest {
    /// Of version 1.
    Md5(Md5),
    /// Of version 2.
    Blake3(Root),
}

impl Digest {
    /// How people call it.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Md5(_) => "MD5",
            Self::Blake3(_) => "BLAKE3",
        }
    }

    /// Its bytes as lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        match self {
            Self::Md5(md5) => md5.to_string(),
            Self::Blake3(root) => root.to_string(),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm(), self.to_hex())
    }
}

/// An MD5 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Md5([u8; 16]);

impl Md5 {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Md5Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// A digest kept elsewhere as its 16 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads 32 hexadecimal digits of either case; `None` for anything else.
    #[must_use]
    pub fn parse_hex(hex: &[u8]) -> Option<Self> {
        if hex.len() != MD5_HEX_LEN {
            return None;
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The digest as 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> [u8; MD5_HEX_LEN] {
        let mut hex = [0; MD5_HEX_LEN];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        hex
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_hex()))
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Md5({self})")
    }
}

/// Computes an [`Md5`] piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Md5Hasher(Md5Core);

impl Md5Hasher {
    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken in.
    #[must_use]
    pub fn finish(self) -> Md5 {
        Md5(self.0.finalize().into())
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_suite_of_rfc_1321_holds() {
        assert_eq!(Md5::of(b"").to_string(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(Md5::of(b"message digest").to_string(), "f96b697d7cb7938d525a2f31aaf161d0");
    }

    #[test]
    fn a_digest_is_shown_with_its_algorithm() {
        let (md5, root) = (Digest::Md5(Md5::of(b"")), Digest::Blake3(Root::of(b"")));
        assert_eq!(md5.to_string(), "MD5 d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(root.to_string(), format!("BLAKE3 {}", Root::of(b"")));
        assert_eq!(root.to_hex(), Root::of(b"").to_string());
    }

    #[test]
    fn hex_is_read_in_either_case_and_nothing_else_is() {
        let digest = Md5::of(b"abc");
        assert_eq!(Md5::parse_hex(&digest.to_hex()), Some(digest));
        assert_eq!(Md5::parse_hex(&digest.to_hex().to_ascii_uppercase()), Some(digest));
        assert_eq!(Md5::parse_hex(b"900150983cd24fb0d6963f7d28e17f7"), None);
        assert_eq!(Md5::parse_hex(b"900150983cd24fb0d6963f7d28e17f7g"), None);
        assert_eq!(Md5::parse_hex(b"900150983cd24fb0d6963f7d28e17f720"), None);
    }
}
