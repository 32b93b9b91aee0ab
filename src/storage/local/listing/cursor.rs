//! Where a listing stands, as bytes that a client keeps and gives back.
//!
//! ```text
//! nothing                                     the beginning
//! 01                                          the end
//! 01  u64 place  (u16 length, name, u64 place)*
//!                                             the place in the folder that was asked for, and in each
//!                                             folder within the one before it
//! ```
//! They come back from strangers: they are read strictly, names are those of folders beneath the root,
//! and a place is only ever handed to the file system.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::names::FileName;

/// Version of the form.
const VERSION: u8 = 1;

/// Where a listing stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    Beginning,
    End,
    /// In the last of these folders, each of which lies in the one before.
    Within(Vec<Place>),
}

/// A place in a folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// What the folder is called in the one before it; empty for the first one.
    pub(super) name: Vec<u8>,
    /// What the file system calls the place behind the entry that was listed last.
    pub(super) offset: u64,
}

impl Place {
    pub(super) fn beginning_of(name: Vec<u8>) -> Self {
        Self { name, offset: 0 }
    }
}

impl Cursor {
    /// Reads a cursor; `None` if it is none.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::Beginning);
        }
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        if bytes.is_empty() {
            return Some(Self::End);
        }
        let mut places = vec![Place { name: Vec::new(), offset: bytes.try_get_u64().ok()? }];
        while !bytes.is_empty() {
            let len = usize::from(bytes.try_get_u16().ok()?);
            let name = bytes.split_off(..len)?.to_vec();
            places.push(Place { name, offset: bytes.try_get_u64().ok()? });
        }
        let names: Vec<_> = places[1..].iter().map(|place| place.name.as_slice()).collect();
        let is_plain = names.iter().all(|name| !name.contains(&b'/'))
            && (names.is_empty() || FileName::parse(&names.join(&b'/')).is_ok());
        is_plain.then_some(Self::Within(places))
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Beginning => {}
            Self::End => bytes.put_u8(VERSION),
            Self::Within(places) => {
                bytes.put_u8(VERSION);
                for (depth, place) in places.iter().enumerate() {
                    if depth > 0 {
                        // A component, which is far shorter than 64 KiB.
                        bytes.put_u16(u16::try_from(place.name.len()).unwrap_or(u16::MAX));
                        bytes.put_slice(&place.name);
                    }
                    bytes.put_u64(place.offset);
                }
            }
        }
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::v2::CURSOR_MAX;
    use crate::limits::{COMPONENT_MAX, DEPTH_MAX, NAME_MAX};

    fn within(places: &[(&[u8], u64)]) -> Cursor {
        Cursor::Within(
            places.iter().map(|(name, offset)| Place { name: name.to_vec(), offset: *offset }).collect(),
        )
    }

    #[test]
    fn cursors_come_back_as_they_went() {
        for cursor in [
            Cursor::Beginning,
            Cursor::End,
            within(&[(b"", 7)]),
            within(&[(b"", u64::MAX), (b"a\xff", 0), (b"b", 9)]),
        ] {
            assert_eq!(Cursor::parse(&cursor.to_bytes()), Some(cursor));
        }
    }

    #[test]
    fn the_longest_cursor_fits_into_a_frame() {
        let places = 1 + DEPTH_MAX;
        assert!(1 + NAME_MAX + places * (8 + 2) <= CURSOR_MAX);
        let long = vec![b'x'; COMPONENT_MAX];
        assert!(within(&[(b"", 1), (&long, 2)]).to_bytes().len() < CURSOR_MAX);
    }

    #[test]
    fn names_that_lead_elsewhere_make_no_cursor() {
        for name in [
            &b""[..],
            b".",
            b"..",
            b"/",
            b"a/b",
            b"/etc",
            b".oneport",
            b".ONEPORT-x.part",
            b"a\0",
            b"?oneport/",
        ] {
            assert_eq!(Cursor::parse(&within(&[(b"", 1), (name, 2)]).to_bytes()), None, "{name:?}");
        }
        let deep = vec![(&b"a"[..], 0); 200];
        assert_eq!(Cursor::parse(&within(&deep).to_bytes()), None);
        assert_eq!(Cursor::parse(&[2]), None, "another version");
        let whole = within(&[(b"", 1), (b"a", 2)]).to_bytes();
        for len in (2..whole.len()).filter(|len| *len != 9) {
            assert_eq!(Cursor::parse(&whole[..len]), None, "{len} bytes of it");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(cursor) = Cursor::parse(&bytes) {
                prop_assert_eq!(cursor.to_bytes(), bytes);
            }
        }
    }
}
