//! The format of a journal: what is known of the bytes in a part file.
//!
//! A header is followed by records of one size; a reader believes them up to the first bad one. Every
//! number is unsigned and big-endian. Whatever the bytes are, reading them takes no more memory than
//! they have, and no more than [`BLOCKS_MAX`] blocks.
//!
//! | offset | header field | meaning |
//! |---|---|---|
//! | 0 | 8 bytes | `oneportj` |
//! | 8 | u32 | version of this format, 1; of another version nothing is believed |
//! | 12 | u32 | flags: 1, the root is known |
//! | 16 | u64 | size of the source in bytes |
//! | 24 | 32 bytes | root of the source, or zeros |
//! | 56 | 16 bytes | identity of the source, as its server says it |
//! | 72 | 3 × u64 | the part's device, inode and time of birth |
//! | 96 | 16 bytes | since when it is in use: the boot of this machine and the mount |
//! | 112 | 16 bytes | random, so that no record of another journal fits |
//! | 128 | 16 bytes | check value: the beginning of the BLAKE3 digest of all before |
//!
//! | offset | record field | meaning |
//! |---|---|---|
//! | 0 | u32 | kind: 1, a block; 2, a sync point |
//! | 4 | u32 | index of the block; or how many records there were before the flush began |
//! | 8 | 32 bytes | value of the block, or root if it is the only one; zeros for a sync point |
//! | 40 | 8 bytes | check value: the beginning of the BLAKE3 digest, keyed with that of the header, of the record's number (u32, from 0) and all before |

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::home::Home;
use crate::limits::{BLOCKS_MAX, JOURNAL_RECORDS_MAX};
use crate::tree::{HASH_LEN, Root, block_count};

/// Bytes of a header.
pub const HEADER_LEN: usize = 144;
/// Bytes of a record.
pub const RECORD_LEN: usize = 48;

const MAGIC: &[u8; 8] = b"oneportj";
const VERSION: u32 = 1;
const FLAG_ROOT: u32 = 1;
const KIND_BLOCK: u32 = 1;
const KIND_SYNCED: u32 = 2;
const HEADER_CHECK_LEN: usize = 16;
const RECORD_CHECK_LEN: usize = 8;

/// Length of a source's identity and of a journal's salt, in bytes.
pub const TOKEN_LEN: usize = 16;

/// What is being received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its size in bytes.
    pub size: u64,
    /// Its root, if it is known.
    pub root: Option<Root>,
    /// The identity of this version of it, as its server says it; all zero if it has none.
    pub token: [u8; TOKEN_LEN],
}

impl Source {
    /// Whether both are the same bytes: by their roots, or, while one is not known, by the identity.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.size == other.size
            && match (self.root, other.root) {
                (Some(one), Some(two)) => one == two,
                _ => self.token == other.token && self.token != [0; TOKEN_LEN],
            }
    }
}

/// The beginning of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the part is to become.
    pub source: Source,
    /// The part file that is meant.
    pub home: Home,
    /// Sets this journal apart from every other one.
    pub salt: [u8; TOKEN_LEN],
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let Source { size, root, token } = &self.source;
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&if root.is_some() { FLAG_ROOT } else { 0 }.to_be_bytes());
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(root.map_or([0; HASH_LEN], |root| *root.as_bytes()).as_slice());
        bytes.extend_from_slice(token);
        for number in [self.home.device, self.home.inode, self.home.born] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.home.since);
        bytes.extend_from_slice(&self.salt);
        let check = header_check(&bytes);
        bytes.extend_from_slice(&check);
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&bytes);
        header
    }

    /// A header of this version without any fault.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let (body, check) = bytes.split_last_chunk::<HEADER_CHECK_LEN>()?;
        let mut rest = body;
        let is_known = &take::<8>(&mut rest)? == MAGIC && take_u32(&mut rest)? == VERSION;
        if !is_known || *check != header_check(body) {
            return None;
        }
        let flags = take_u32(&mut rest)?;
        let size = take_u64(&mut rest)?;
        let root = take::<HASH_LEN>(&mut rest)?;
        let root = match flags {
            0 => None,
            FLAG_ROOT => Some(Root::from_bytes(root)),
            _ => return None,
        };
        if block_count(size) > BLOCKS_MAX {
            return None;
        }
        let source = Source { size, root, token: take(&mut rest)? };
        let (device, inode, born) = (take_u64(&mut rest)?, take_u64(&mut rest)?, take_u64(&mut rest)?);
        let home = Home { device, inode, born, since: take(&mut rest)? };
        Some(Self { source, home, salt: take(&mut rest)? })
    }
}

/// What the records of one journal are checked with.
#[derive(Clone, Debug)]
pub struct Key([u8; blake3::KEY_LEN]);

impl Key {
    /// The key of the journal with this header.
    #[must_use]
    pub fn of(header: &[u8; HEADER_LEN]) -> Self {
        Self(blake3::hash(header).into())
    }

    fn check(&self, number: u32, body: &[u8]) -> [u8; RECORD_CHECK_LEN] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&number.to_be_bytes()).update(body);
        beginning(&hasher.finalize())
    }
}

/// One record of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// The block is in the part.
    Block {
        /// Which one.
        index: u32,
        /// Its value, or the root if it is the only one.
        hash: [u8; HASH_LEN],
    },
    /// The blocks of the first records are on the disk.
    Synced {
        /// How many records.
        covered: u32,
    },
}

impl Record {
    /// Its bytes as record `number`, counted from 0.
    #[must_use]
    pub fn encode(self, key: &Key, number: u32) -> [u8; RECORD_LEN] {
        let (kind, value, hash) = match self {
            Self::Block { index, hash } => (KIND_BLOCK, index, hash),
            Self::Synced { covered } => (KIND_SYNCED, covered, [0; HASH_LEN]),
        };
        let mut bytes = [0; RECORD_LEN];
        let (body, check) = bytes.split_at_mut(RECORD_LEN - RECORD_CHECK_LEN);
        body[..4].copy_from_slice(&kind.to_be_bytes());
        body[4..8].copy_from_slice(&value.to_be_bytes());
        body[8..].copy_from_slice(&hash);
        check.copy_from_slice(&key.check(number, body));
        bytes
    }

    /// A record without any fault, in its own place.
    #[must_use]
    pub fn decode(bytes: &[u8; RECORD_LEN], key: &Key, number: u32) -> Option<Self> {
        let (body, check) = bytes.split_last_chunk::<RECORD_CHECK_LEN>()?;
        if *check != key.check(number, body) {
            return None;
        }
        let mut rest = body;
        let (kind, value, hash) = (take_u32(&mut rest)?, take_u32(&mut rest)?, take(&mut rest)?);
        match kind {
            KIND_BLOCK => Some(Self::Block { index: value, hash }),
            KIND_SYNCED if value <= number && hash == [0; HASH_LEN] => Some(Self::Synced { covered: value }),
            _ => None,
        }
    }
}

/// What is recorded of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its value, or the root if it is the only one.
    pub hash: [u8; HASH_LEN],
    /// The number of its last record.
    pub number: u32,
}

/// What a journal says, as far as it can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Its header.
    pub header: Header,
    /// The recorded blocks.
    pub blocks: BTreeMap<u64, Entry>,
    /// How many good records there are.
    pub records: u32,
    /// The blocks of so many records are on the disk.
    pub covered: u32,
    /// Whether nothing stands behind the good records.
    pub is_whole: bool,
}

impl Contents {
    /// Reads a journal; `None` if its header is not of this version or has a fault. What cannot be
    /// read is as if it were not there.
    #[must_use]
    pub fn read(input: &mut impl Read) -> Option<Self> {
        let mut bytes = [0; HEADER_LEN];
        input.read_exact(&mut bytes).ok()?;
        let header = Header::decode(&bytes)?;
        let key = Key::of(&bytes);
        let count = block_count(header.source.size);
        let mut contents = Self { header, blocks: BTreeMap::new(), records: 0, covered: 0, is_whole: false };
        while contents.records < JOURNAL_RECORDS_MAX {
            let mut bytes = [0; RECORD_LEN];
            match read_record(input, &mut bytes) {
                Ok(0) => {
                    contents.is_whole = true;
                    break;
                }
                Ok(RECORD_LEN) => {}
                _ => break,
            }
            match Record::decode(&bytes, &key, contents.records) {
                Some(Record::Block { index, hash }) if u64::from(index) < count => {
                    contents.blocks.insert(index.into(), Entry { hash, number: contents.records });
                }
                Some(Record::Synced { covered }) => contents.covered = contents.covered.max(covered),
                _ => break,
            }
            contents.records += 1;
        }
        Some(contents)
    }
}

/// Reads until the buffer is full or nothing more comes; returns how many bytes came.
fn read_record(input: &mut impl Read, bytes: &mut [u8; RECORD_LEN]) -> io::Result<usize> {
    let mut count = 0;
    while count < RECORD_LEN {
        match input.read(&mut bytes[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn header_check(body: &[u8]) -> [u8; HEADER_CHECK_LEN] {
    beginning(&blake3::hash(body))
}

fn beginning<const N: usize>(digest: &blake3::Hash) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&digest.as_bytes()[..N]);
    bytes
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    take(bytes).map(u32::from_be_bytes)
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_be_bytes)
}

#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
