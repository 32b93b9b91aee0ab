//! The format of a note: how far what lies in a staged folder is believed.
//!
//! The lock file of a folder holds two slots, and the note with the higher number counts. Each new one
//! is written over the older slot, so one that is torn, or that a power cut takes back, leaves the one
//! before. That one is still true: it says of files that were on the disk that they are. Every number
//! is unsigned and big-endian but the seconds, which are signed.
//!
//! | offset | field | meaning |
//! |---|---|---|
//! | 0 | 8 bytes | `oneportf` |
//! | 8 | u32 | version of this format, 1; of another version nothing is believed |
//! | 12 | u32 | number of the note |
//! | 16 | 3 × u64 | the folder's device, inode and time of birth |
//! | 40 | 16 bytes | since when it is in use: the boot of this machine and the mount; in another one, or all zeros, only what is older than the clock stands |
//! | 56 | i64, u32 | the clock: what was changed before this moment is on the disk |
//! | 68 | 16 bytes | check value: the beginning of the BLAKE3 digest of all before |

use super::super::home::Home;
use super::super::journal::TOKEN_LEN;

/// Bytes of a note.
pub(super) const NOTE_LEN: usize = 84;
/// Where the two slots begin: no write to one of them touches a block of the other.
pub(super) const SLOTS: [u64; 2] = [0, 4096];

const MAGIC: &[u8; 8] = b"oneportf";
const VERSION: u32 = 1;
const CHECK_LEN: usize = 16;

/// Seconds since 1970 and nanoseconds.
pub(super) type Moment = (i64, u32);

/// Before everything: nothing is on the disk for certain.
pub(super) const NEVER: Moment = (i64::MIN, 0);

/// What is known of a staged folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) number: u32,
    pub(super) home: Home,
    pub(super) clock: Moment,
}

impl Note {
    /// Its bytes.
    pub(super) fn encode(&self) -> [u8; NOTE_LEN] {
        let mut bytes = Vec::with_capacity(NOTE_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&self.number.to_be_bytes());
        for number in [self.home.device, self.home.inode, self.home.born] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.home.since);
        bytes.extend_from_slice(&self.clock.0.to_be_bytes());
        bytes.extend_from_slice(&self.clock.1.to_be_bytes());
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        let mut note = [0; NOTE_LEN];
        note.copy_from_slice(&bytes);
        note
    }

    /// A note of this version without any fault.
    pub(super) fn decode(bytes: &[u8; NOTE_LEN]) -> Option<Self> {
        let (body, found) = bytes.split_last_chunk::<CHECK_LEN>()?;
        if *found != check(body) {
            return None;
        }
        let mut rest = body;
        let is_known = &take::<8>(&mut rest)? == MAGIC && u32::from_be_bytes(take(&mut rest)?) == VERSION;
        let number = u32::from_be_bytes(take(&mut rest)?);
        let mut next = || take(&mut rest).map(u64::from_be_bytes);
        let (device, inode, born) = (next()?, next()?, next()?);
        let since = take::<TOKEN_LEN>(&mut rest)?;
        let clock = (i64::from_be_bytes(take(&mut rest)?), u32::from_be_bytes(take(&mut rest)?));
        is_known.then_some(Self { number, home: Home { device, inode, born, since }, clock })
    }
}

fn check(body: &[u8]) -> [u8; CHECK_LEN] {
    let mut bytes = [0; CHECK_LEN];
    bytes.copy_from_slice(&blake3::hash(body).as_bytes()[..CHECK_LEN]);
    bytes
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_as_it_was_and_no_flipped_bit_is_believed() {
        let home = Home { device: 1, inode: u64::MAX, born: 3, since: [4; TOKEN_LEN] };
        for clock in [NEVER, (-5, 999_999_999), (i64::MAX, 1)] {
            let note = Note { number: 7, home, clock };
            let bytes = note.encode();
            assert_eq!(Note::decode(&bytes), Some(note));
            for bit in 0..NOTE_LEN * 8 {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Note::decode(&flipped), None, "{bit}");
            }
        }
        assert_eq!(Note::decode(&[0; NOTE_LEN]), None);
    }
}
