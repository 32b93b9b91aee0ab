//! A checksum that the user knows from elsewhere.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use super::FetchError;
use crate::digest::{Digest, Md5, Md5Hasher};
use crate::limits::HASH_CHUNK;
use crate::text;
use crate::tree::Root;

/// Length of a SHA-256 digest, in bytes.
const SHA256_LEN: usize = 32;

/// What a file has to be, whatever the server says: `blake3=HEX`, `sha256=HEX` or `md5=HEX`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checksum {
    /// Its BLAKE3 digest.
    Blake3(Root),
    /// Its SHA-256 digest (FIPS 180-4).
    Sha256([u8; SHA256_LEN]),
    /// Its MD5 digest (RFC 1321).
    Md5(Md5),
}

/// What is wrong with a checksum as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a checksum; write blake3=HEX, sha256=HEX or md5=HEX")]
pub struct ChecksumError(String);

impl FromStr for Checksum {
    type Err = ChecksumError;

    fn from_str(text: &str) -> Result<Self, ChecksumError> {
        let error = || ChecksumError(text::shown(text.as_bytes()).to_string());
        let (algorithm, hex) = text.split_once(['=', ':']).ok_or_else(error)?;
        let hex = hex.trim().as_bytes();
        match algorithm.trim().to_ascii_lowercase().as_str() {
            "blake3" | "b3" => Root::parse_hex(hex).map(Self::Blake3),
            // A root is 32 bytes of hexadecimal digits too.
            "sha256" | "sha-256" => Root::parse_hex(hex).map(|bytes| Self::Sha256(*bytes.as_bytes())),
            "md5" => Md5::parse_hex(hex).map(Self::Md5),
            _ => None,
        }
        .ok_or_else(error)
    }
}

impl Checksum {
    /// Compares with a digest that the server said, if it is of the same kind.
    pub(super) fn compare(&self, digest: Digest) -> Result<(), FetchError> {
        let (wanted, found) = match (self, digest) {
            (Self::Blake3(wanted), Digest::Blake3(found)) if *wanted != found => {
                (wanted.to_string(), found.to_string())
            }
            (Self::Md5(wanted), Digest::Md5(found)) if *wanted != found => {
                (wanted.to_string(), found.to_string())
            }
            _ => return Ok(()),
        };
        Err(FetchError::OtherFile { algorithm: self.algorithm(), wanted, found })
    }

    /// Compares with the bytes of a file. May block.
    pub(super) fn check_file(&self, file: &File) -> Result<(), FetchError> {
        self.check_bytes(|buffer, offset| file.read_at(buffer, offset))
    }

    /// Compares with bytes that are read piece by piece, each behind the one before, until there are none.
    pub(super) fn check_bytes(
        &self,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    ) -> Result<(), FetchError> {
        let mut checking = Checking::new(self.clone());
        let mut buffer = vec![0; HASH_CHUNK];
        let mut offset = 0;
        loop {
            match read(&mut buffer, offset) {
                Ok(0) => return checking.finish(),
                Ok(count) => {
                    checking.update(&buffer[..count]);
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let path = "the received file".to_owned();
                    return Err(FetchError::Output { path, source });
                }
            }
        }
    }

    /// Whether it is a digest that version 2 proves by itself.
    pub(super) fn is_blake3(&self) -> bool {
        matches!(self, Self::Blake3(_))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Blake3(_) => "BLAKE3",
            Self::Sha256(_) => "SHA-256",
            Self::Md5(_) => "MD5",
        }
    }
}

/// A comparison piece by piece.
pub(super) struct Checking {
    wanted: Checksum,
    hasher: Hasher,
}

enum Hasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
    Md5(Md5Hasher),
}

impl Checking {
    pub(super) fn new(wanted: Checksum) -> Self {
        let hasher = match wanted {
            Checksum::Blake3(_) => Hasher::Blake3(Box::default()),
            Checksum::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Checksum::Md5(_) => Hasher::Md5(Md5Hasher::default()),
        };
        Self { wanted, hasher }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match &mut self.hasher {
            Hasher::Blake3(hasher) => drop(hasher.update(bytes)),
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Md5(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Result<(), FetchError> {
        let found = match self.hasher {
            Hasher::Blake3(hasher) => Checksum::Blake3(Root::from_bytes(hasher.finalize().into())),
            Hasher::Sha256(hasher) => Checksum::Sha256(hasher.finalize().into()),
            Hasher::Md5(hasher) => Checksum::Md5(hasher.finish()),
        };
        if found == self.wanted {
            return Ok(());
        }
        let algorithm = self.wanted.algorithm();
        Err(FetchError::OtherFile { algorithm, wanted: self.wanted.hex(), found: found.hex() })
    }
}

impl Checksum {
    fn hex(&self) -> String {
        match self {
            Self::Blake3(root) => root.to_string(),
            Self::Sha256(bytes) => Root::from_bytes(*bytes).to_string(),
            Self::Md5(md5) => md5.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn checksums_are_read_in_every_form_and_nothing_else_is() {
        let sha256 = format!("sha256={SHA256_ABC}").parse().unwrap();
        assert!(matches!(sha256, Checksum::Sha256(_)));
        let upper = format!("SHA256:{}", SHA256_ABC.to_ascii_uppercase());
        assert_eq!(upper.parse(), Ok(sha256));
        assert_eq!("md5=900150983cd24fb0d6963f7d28e17f72".parse(), Ok(Checksum::Md5(Md5::of(b"abc"))));
        let blake3 = format!("blake3={}", Root::of(b"abc"));
        assert_eq!(blake3.parse(), Ok(Checksum::Blake3(Root::of(b"abc"))));
        for wrong in ["", "md5", "md5=", "md5=12", "sha1=00", SHA256_ABC, "sha256=xyz"] {
            assert!(wrong.parse::<Checksum>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_bytes_decide_for_every_algorithm() {
        for right in [
            format!("sha256={SHA256_ABC}"),
            format!("md5={}", Md5::of(b"abc")),
            format!("blake3={}", Root::of(b"abc")),
        ] {
            let finish = |bytes: &[u8]| {
                let mut checking = Checking::new(right.parse().unwrap());
                checking.update(bytes);
                checking.finish()
            };
            assert!(finish(b"abc").is_ok(), "{right}");
            assert!(matches!(finish(b"abd"), Err(FetchError::OtherFile { .. })), "{right}");
        }
    }

    #[test]
    fn a_digest_of_the_same_kind_is_compared_at_once() {
        let wanted = Checksum::Md5(Md5::of(b"abc"));
        assert!(wanted.compare(Digest::Md5(Md5::of(b"abc"))).is_ok());
        assert!(wanted.compare(Digest::Md5(Md5::of(b"x"))).is_err());
        assert!(wanted.compare(Digest::Blake3(Root::of(b"x"))).is_ok(), "it says nothing about that");
    }
}
