//! Where a part lies and since when: what decides how far its journal is believed.
//!
//! Bytes that were written are still there as long as neither the machine nor the mount of the file
//! system has begun anew since, and the part is the very file that they were written to. A number of
//! an inode is given again to another file, so the time of birth belongs to it; the number of a device is another one
//! after each start of some machines, so it counts only where no time of birth is told; the number of a
//! mount is not given again where the system (Linux 6.8) tells the one that never is.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

use super::journal::TOKEN_LEN;

/// A part file and since when it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Its time of birth in nanoseconds, as far as the file system tells; else 0.
    pub born: u64,
    /// Stands for the boot of the machine and the mount; all zero if that is not known.
    pub since: [u8; TOKEN_LEN],
}

/// How far a journal is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Every recorded block stands.
    Written,
    /// The blocks that were flushed stand; the others are to be looked at.
    Flushed,
    /// All blocks are to be looked at.
    Nothing,
}

impl Home {
    /// Where an open part lies, in use since `since`, or since what the system says now.
    pub(super) fn of(file: &File, since: Option<[u8; TOKEN_LEN]>) -> io::Result<Self> {
        let found = file.metadata()?;
        let born = found.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|born| u64::try_from(born.as_nanos()).ok()).unwrap_or_default();
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            born,
            since: since.unwrap_or_else(|| since_now(file)),
        })
    }

    /// What a file or folder is known by, also after the machine was started anew.
    pub(super) fn marks(&self) -> [u64; 2] {
        [self.inode, if self.born == 0 { self.device } else { self.born }]
    }

    /// How far a journal that was written at `self` is believed at `now`.
    pub(super) fn trust(&self, now: &Self) -> Trust {
        match (self.marks() == now.marks(), self.since == now.since && now.since != [0; TOKEN_LEN]) {
            (true, true) => Trust::Written,
            (true, false) => Trust::Flushed,
            (false, _) => Trust::Nothing,
        }
    }
}

/// What stands for this boot and the mount on which an open file lies.
#[cfg(target_os = "linux")]
fn since_now(file: &File) -> [u8; TOKEN_LEN] {
    let mut token = [0; TOKEN_LEN];
    if let Ok(boot) = std::fs::read("/proc/sys/kernel/random/boot_id") {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&mount(file).to_be_bytes()).update(&boot);
        token.copy_from_slice(&hasher.finalize().as_bytes()[..TOKEN_LEN]);
    }
    token
}

/// What stands for this boot and the mount on which an open file lies.
#[cfg(not(target_os = "linux"))]
fn since_now(_file: &File) -> [u8; TOKEN_LEN] {
    [0; TOKEN_LEN]
}

/// The number of the mount, or 0 where it is not told.
#[cfg(target_os = "linux")]
fn mount(file: &File) -> u64 {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    // From linux/stat.h, since Linux 6.8: a number that is not given again until the next boot.
    const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let wanted = StatxFlags::MNT_ID | MNT_ID_UNIQUE;
    match statx(file, c"", AtFlags::EMPTY_PATH, wanted) {
        Ok(found) if StatxFlags::from_bits_retain(found.stx_mask).intersects(wanted) => found.stx_mnt_id,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_number_of_the_device_after_a_start_is_no_other_file_where_its_birth_is_known() {
        let was = Home { device: 1, inode: 2, born: 3, since: [4; TOKEN_LEN] };
        let now = Home { device: 9, since: [5; TOKEN_LEN], ..was };
        assert_eq!(was.trust(&now), Trust::Flushed);
        assert_eq!(was.trust(&Home { born: 4, ..now }), Trust::Nothing);
        assert_eq!(was.trust(&Home { inode: 3, ..now }), Trust::Nothing);
        let unknown = Home { born: 0, ..was };
        assert_eq!(unknown.trust(&Home { born: 0, ..now }), Trust::Nothing);
        assert_eq!(unknown.trust(&Home { since: [5; TOKEN_LEN], ..unknown }), Trust::Flushed);
    }
}
