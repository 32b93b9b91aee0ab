//! A folder that is read piece by piece, from any place in it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FileType;
#[cfg(target_os = "linux")]
use rustix::fs::{RawDir, SeekFrom, seek};
use rustix::io::Errno;

/// Something in a folder, as the folder says it.
pub(in crate::storage::local) struct Raw {
    pub(in crate::storage::local) name: Vec<u8>,
    pub(in crate::storage::local) kind: FileType,
    /// The place behind it.
    pub(in crate::storage::local) behind: u64,
}

/// An open folder and a place in it.
pub(in crate::storage::local) struct Folder {
    folder: OwnedFd,
    /// Behind the last entry that was taken.
    offset: u64,
    /// Entries behind it that were read already.
    read: VecDeque<Raw>,
    has_to_seek: bool,
    is_at_end: bool,
}

impl Folder {
    pub(in crate::storage::local) fn new(folder: OwnedFd) -> Self {
        Self { folder, offset: 0, read: VecDeque::new(), has_to_seek: false, is_at_end: false }
    }

    pub(in crate::storage::local) fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// The place behind the last entry that was taken.
    pub(in crate::storage::local) fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes to a place that an entry had behind it, or 0.
    pub(in crate::storage::local) fn seek(&mut self, offset: u64) {
        self.offset = offset;
        self.has_to_seek = offset != 0;
        self.read.clear();
    }

    /// Takes the next entry. The buffer is one to read into.
    pub(in crate::storage::local) fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Raw>, Errno> {
        loop {
            if let Some(raw) = self.read.pop_front() {
                self.offset = raw.behind;
                if matches!(raw.name.as_slice(), b"." | b"..") {
                    continue;
                }
                return Ok(Some(raw));
            }
            if self.is_at_end {
                return Ok(None);
            }
            self.read_on(buffer)?;
        }
    }

    /// Reads one piece of the folder.
    #[cfg(target_os = "linux")]
    fn read_on(&mut self, buffer: &mut Vec<u8>) -> Result<(), Errno> {
        if self.has_to_seek {
            seek(&self.folder, SeekFrom::Start(self.offset))?;
            self.has_to_seek = false;
        }
        let mut piece = RawDir::new(&self.folder, buffer.spare_capacity_mut());
        loop {
            match piece.next() {
                None => self.is_at_end = true,
                Some(Err(Errno::INTR)) => continue,
                Some(Err(error)) => return Err(error),
                Some(Ok(entry)) => {
                    let name = entry.file_name().to_bytes().to_vec();
                    let (kind, behind) = (entry.file_type(), entry.next_entry_cookie());
                    self.read.push_back(Raw { name, kind, behind });
                }
            }
            if piece.is_buffer_empty() {
                return Ok(());
            }
        }
    }

    /// Reads one piece of the folder. Here a place is the number of entries before it.
    #[cfg(not(target_os = "linux"))]
    fn read_on(&mut self, _buffer: &mut Vec<u8>) -> Result<(), Errno> {
        const PIECE: usize = 1024;
        let passed = usize::try_from(self.offset).map_err(|_| Errno::INVAL)?;
        let entries = rustix::fs::Dir::read_from(&self.folder)?;
        for (entry, behind) in entries.skip(passed).take(PIECE).zip(self.offset + 1..) {
            let entry = entry?;
            let (name, kind) = (entry.file_name().to_bytes().to_vec(), entry.file_type());
            self.read.push_back(Raw { name, kind, behind });
        }
        self.is_at_end = self.read.is_empty();
        Ok(())
    }
}
