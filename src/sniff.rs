//! Which dialect a connection speaks, told from its first bytes.
//!
//! Pure: the caller reads, this module looks. It never needs more than [`SNIFF_MAX`] bytes and
//! never takes any away.

/// The most bytes that are needed to tell any dialect.
pub const SNIFF_MAX: usize = 6;

/// A way of speaking that starts differently from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// Length-prefixed native protocol: a big-endian length under 16 MiB.
    Native,
    /// A TLS handshake record (RFC 8446, section 5.1).
    Tls,
    /// A Conduit frame.
    Conduit,
    /// HTTP/1.1 or HTTP/2.
    Http,
    /// A proxy's header, version 1 or 2.
    ProxyHeader,
    /// None of these.
    Unknown,
}

impl Dialect {
    /// What to call the dialect in a log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Tls => "TLS",
            Self::Conduit => "Conduit",
            Self::Http => "HTTP",
            Self::ProxyHeader => "proxy header",
            Self::Unknown => "unknown",
        }
    }
}

/// Tells the dialect, or `None` while `bytes` are too few to tell.
#[must_use]
pub fn sniff(bytes: &[u8]) -> Option<Dialect> {
    match *bytes.first()? {
        0x00 => Some(Dialect::Native),
        0x16 => bytes.get(1).map(|&version| match version {
            0x03 => Dialect::Tls,
            _ => Dialect::Unknown,
        }),
        b'C' => begins(bytes, b"CNDT", Dialect::Conduit, Dialect::Http),
        b'P' => begins(bytes, b"PROXY ", Dialect::ProxyHeader, Dialect::Http),
        b'\r' => begins(bytes, b"\r\n\r\n", Dialect::ProxyHeader, Dialect::Unknown),
        b'A'..=b'Z' => Some(Dialect::Http),
        _ => Some(Dialect::Unknown),
    }
}

fn begins(bytes: &[u8], magic: &[u8], then: Dialect, otherwise: Dialect) -> Option<Dialect> {
    if bytes.starts_with(magic) {
        Some(then)
    } else if magic.starts_with(bytes) {
        None
    } else {
        Some(otherwise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_is_told_from_its_first_bytes_and_not_from_fewer() {
        let cases: [(&[u8], usize, Dialect); 12] = [
            (b"\0\0\0\x08file.txt", 1, Dialect::Native),
            (b"\x16\x03\x01\x02\x00", 2, Dialect::Tls),
            (b"\x16\x04", 2, Dialect::Unknown),
            (b"CNDT\x01\x00", 4, Dialect::Conduit),
            (b"CONNECT host", 2, Dialect::Http),
            (b"GET / HTTP/1.1", 1, Dialect::Http),
            (b"POST /upload", 2, Dialect::Http),
            (b"PRI * HTTP/2.0", 3, Dialect::Http),
            (b"PROPFIND /", 4, Dialect::Http),
            (b"PROXY TCP4 ", 6, Dialect::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n", 4, Dialect::ProxyHeader),
            (b"\x01", 1, Dialect::Unknown),
        ];
        for (bytes, needed, dialect) in cases {
            assert!(needed <= SNIFF_MAX);
            for count in 0..=bytes.len() {
                let told = sniff(&bytes[..count]);
                assert_eq!(told, (count >= needed).then_some(dialect), "{bytes:?} at {count}");
            }
        }
    }

    #[test]
    fn no_byte_makes_it_wait_beyond_its_bound() {
        for first in 0..=255 {
            assert!(sniff(&[first; SNIFF_MAX]).is_some());
        }
    }
}
