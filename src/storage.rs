//! Where served files come from: the contract that every store keeps.
//!
//! A store opens a name and nothing else: who may open it is decided above. What it returns is
//! pinned: it stays readable, with the bytes it had, when the name is replaced or removed.
//! The local disk is [`local`].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::time::Duration;

#[cfg(target_os = "linux")]
use crate::fileops;
use crate::limits::WARM_CHUNK;
use crate::listing::{Selection, Stretch};
use crate::names::FileName;
use crate::staged::Place;

pub mod local;
mod trail;

pub use trail::Trail;

/// A place that files are served from. Calls may block: keep them off the async threads.
pub trait Storage: Send + Sync + 'static {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`OpenError`] says whether asking again could help.
    fn open(&self, name: &FileName) -> Result<StoredFile, OpenError>;

    /// Opens a regular file if that can be done without waiting for a disk; `None` if it cannot be
    /// told, and [`Self::open`] has to be asked. This call never blocks.
    fn open_now(&self, name: &FileName) -> Option<Result<StoredFile, OpenError>>;

    /// As [`Self::open_now`], for one of several names that were all asked for before the trail was begun:
    /// what was looked up for one of them need not be looked up again for the next one.
    fn open_along(&self, name: &FileName, _trail: &mut Trail) -> Option<Result<StoredFile, OpenError>> {
        self.open_now(name)
    }

    /// Lists a stretch of a folder, the root if there is no name; what an earlier stretch ended with as its
    /// cursor is where this one begins, and an empty cursor stands for the beginning. A file is listed as
    /// the only thing in itself. A stretch ends after [`LIST_STRETCH`](crate::limits::LIST_STRETCH) bytes of entries at
    /// most one entry later, and sooner when it has looked at much or taken long.
    ///
    /// # Errors
    /// [`ListError`] says whether asking again could help.
    fn list(
        &self,
        folder: Option<&FileName>,
        selection: &Selection,
        cursor: &[u8],
    ) -> Result<Stretch, ListError>;

    /// The place where a file of this name is staged and gets its name: its folder, open, and missing ones made.
    /// Whatever becomes of the folder's name afterwards, the place stays where it was.
    ///
    /// # Errors
    /// [`ChangeError`].
    fn place(&self, name: &FileName) -> Result<Place, ChangeError>;

    /// Makes a folder, and missing ones above it; one that is there is fine. When this returns, that is on the disk.
    ///
    /// # Errors
    /// [`ChangeError`].
    fn make_folder(&self, name: &FileName) -> Result<(), ChangeError> {
        self.make_folder_with(name, 0o777)
    }

    /// As [`Self::make_folder`], with these permission bits if it is made, less those that the process's mask takes
    /// away; its owner can always use it. One that is there keeps its own.
    ///
    /// # Errors
    /// [`ChangeError`].
    fn make_folder_with(&self, name: &FileName, mode: u32) -> Result<(), ChangeError>;

    /// Removes a regular file, a symbolic link as such, or an empty folder; with `recursive` a folder with all that
    /// is in it. When this returns, that is on the disk. What the store hides is neither removed nor gone
    /// through.
    ///
    /// # Errors
    /// [`ChangeError`]; a folder may be half removed then.
    fn remove(&self, name: &FileName, recursive: bool) -> Result<Removed, ChangeError>;

    /// Gives a file or a folder another name, in one step, and makes missing folders above the new one. Only
    /// a file is replaced, by a file, and only if `replace` says so. When this returns, that is on the disk.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    fn rename(&self, from: &FileName, to: &FileName, replace: bool) -> Result<(), ChangeError>;

    /// Waits until everything that was done here before is on the disk, whoever did it.
    ///
    /// # Errors
    /// If the disk refuses.
    fn settle(&self) -> io::Result<()>;

    /// Removes what was staged here and given up: what has not been changed for `older_than`, no receiver has
    /// locked, and `is_owned` does not know. Takes little memory, and its time.
    ///
    /// # Errors
    /// If the store cannot be looked through. What cannot be removed stays.
    fn sweep(&self, older_than: Duration, is_owned: &dyn Fn(&Identity) -> bool) -> io::Result<Swept>;

    /// Removes what is on its way to receivers and was given up: what has not been changed for `older_than`, no
    /// receiver has locked, and `is_owned` does not know.
    ///
    /// # Errors
    /// If that cannot be looked through. What cannot be removed stays.
    fn sweep_pushed(
        &self,
        _older_than: Duration,
        _is_owned: &dyn Fn(&FileName) -> bool,
    ) -> io::Result<Swept> {
        Ok(Swept::default())
    }

    /// Names of regular files of at least `size` bytes, at most `count` of them.
    ///
    /// # Errors
    /// If the store cannot be looked through.
    fn large_files(&self, size: u64, count: usize) -> io::Result<Vec<FileName>>;
}

/// Why a file could not be opened. Peers are told nothing of it but that there is no file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file.
    #[error("no such file")]
    NotFound,
    /// There is something, but it is not served.
    #[error("{0}")]
    Refused(&'static str),
    /// It cannot be told now; it may well work later.
    #[error("cannot be opened now: {0}")]
    Unavailable(#[source] io::Error),
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files and links.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// What a sweep has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files.
    pub files: u64,
    /// The room that they took, in bytes.
    pub bytes: u64,
}

/// Why something could not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// It, or its folder, could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something has the name already and is not to be replaced, or cannot be.
    #[error("there is something of this name already")]
    Exists,
    /// A folder has something in it.
    #[error("the folder is not empty")]
    NotEmpty,
    /// The disk, or what may be used of it, is full.
    #[error("there is no space left")]
    NoSpace,
    /// The disk refuses.
    #[error("{}", crate::error::in_words(.0))]
    Io(#[source] io::Error),
}

/// Why a folder could not be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The cursor is not one of this store's.
    #[error("the cursor is none")]
    Cursor,
}

/// A moment as file systems keep it: seconds and nanoseconds since 1970.
pub type FileTime = (i64, i64);

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device that holds it.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its bytes were last changed.
    pub modified: FileTime,
    /// When its bytes or its attributes were last changed.
    pub changed: FileTime,
}

/// Length of [`Identity::token`], in bytes.
pub const IDENTITY_TOKEN_LEN: usize = 16;

/// Keeps tokens apart from all other uses of BLAKE3.
const TOKEN_CONTEXT: &str = "oneport 2026 file identity";

/// The bits of a mode that say who may read, write and execute (POSIX `S_IRWXU | S_IRWXG | S_IRWXO`).
const PERMISSIONS: u32 = 0o777;

/// An open regular file and what it was when it was opened.
#[derive(Debug)]
pub struct StoredFile {
    file: File,
    identity: Identity,
    mode: u32,
    /// Whether its file system keeps everything in memory, once that has been asked.
    #[cfg(target_os = "linux")]
    in_memory: OnceLock<bool>,
}

impl StoredFile {
    /// Takes an open file; `None` if it is not a regular one.
    ///
    /// # Errors
    /// If the operating system does not tell its attributes.
    pub fn new(file: File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let identity = Identity::of(&metadata);
        Ok(Some(Self {
            file,
            identity,
            mode: metadata.mode() & PERMISSIONS,
            #[cfg(target_os = "linux")]
            in_memory: OnceLock::new(),
        }))
    }

    /// What the file was when it was opened.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its permission bits when it was opened: the lowest nine of its mode.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// When its bytes had been changed last when it was opened: seconds since 1970, and nanoseconds.
    #[must_use]
    pub fn modified(&self) -> (i64, u32) {
        let (seconds, nanoseconds) = self.identity.modified;
        (seconds, u32::try_from(nanoseconds).unwrap_or(0))
    }

    /// Its size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.identity.size
    }

    /// What the file is now.
    ///
    /// # Errors
    /// If the operating system does not tell.
    pub fn identity_now(&self) -> io::Result<Identity> {
        Ok(Identity::of(&self.file.metadata()?))
    }

    /// Whether its bytes are still those that it had when it was opened, as far as size and
    /// modification time tell. The time of the last status change is left out on purpose: it also
    /// moves when the file is merely unlinked, replaced or linked, and then the bytes stay.
    ///
    /// # Errors
    /// If the operating system does not tell.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        Ok(self.identity_now()?.has_bytes_of(&self.identity))
    }

    /// Reads at a position, leaving all positions as they are; 0 at the end of the file.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Without waiting for a disk, where the system can tell.
#[cfg(target_os = "linux")]
impl StoredFile {
    /// Reads at a position if the bytes are in memory; `None` if a disk would have to be waited for.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read_now(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let mut buffers = [io::IoSliceMut::new(buffer)];
        match preadv2(&self.file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            // Such a file system (tmpfs) may not know the flag.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) if self.is_in_memory() => {
                self.read_at(buffer, offset).map(Some)
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn is_byte_warm(&self, offset: u64) -> bool {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        if self.is_known_to_be_in_memory() {
            return true;
        }
        let mut byte = [0];
        let mut buffers = [io::IoSliceMut::new(&mut byte)];
        match preadv2(&self.file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
            Ok(_) => true,
            // As in `read_now`.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.is_in_memory(),
            Err(_) => false,
        }
    }

    /// Whether its file system is known by now to keep everything in memory.
    pub(crate) fn is_known_to_be_in_memory(&self) -> bool {
        self.in_memory.get() == Some(&true)
    }

    /// Whether its file system keeps everything in memory. It is asked once.
    fn is_in_memory(&self) -> bool {
        *self.in_memory.get_or_init(|| fileops::is_in_memory(&self.file))
    }
}

/// Where the system cannot tell, everything might have to be waited for.
#[cfg(not(target_os = "linux"))]
impl StoredFile {
    /// Reads at a position if the bytes are in memory: here that is never known.
    ///
    /// # Errors
    /// None here.
    pub fn read_now(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<Option<usize>> {
        Ok(None)
    }

    pub(crate) fn is_known_to_be_in_memory(&self) -> bool {
        false
    }

    fn is_byte_warm(&self, _offset: u64) -> bool {
        false
    }
}

impl StoredFile {
    /// Whether a stretch of the file is likely in memory, told from its first and its last byte.
    #[must_use]
    pub fn is_warm(&self, offset: u64, count: u64) -> bool {
        let last = offset + count.saturating_sub(1);
        [offset, last].into_iter().all(|at| self.is_byte_warm(at))
    }

    /// Brings a stretch of the file into memory. May block.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn warm(&self, offset: u64, count: u64) -> io::Result<()> {
        let mut buffer = vec![0; WARM_CHUNK];
        let mut done = 0;
        while done < count {
            let wanted = usize::try_from(count - done).unwrap_or(WARM_CHUNK).min(WARM_CHUNK);
            match self.read_at(&mut buffer[..wanted], offset + done)? {
                0 => break,
                read => done += read as u64,
            }
        }
        Ok(())
    }
}

impl AsFd for StoredFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Identity {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// What tells this version from others to a peer: opaque, the same after a restart, never all zero.
    #[must_use]
    pub fn token(&self) -> [u8; IDENTITY_TOKEN_LEN] {
        let Self { device, inode, size, modified, changed } = *self;
        let mut hasher = blake3::Hasher::new_derive_key(TOKEN_CONTEXT);
        for number in [device, inode, size] {
            hasher.update(&number.to_be_bytes());
        }
        for number in [modified.0, modified.1, changed.0, changed.1] {
            hasher.update(&number.to_be_bytes());
        }
        let mut bytes = [0; IDENTITY_TOKEN_LEN];
        hasher.finalize_xof().fill(&mut bytes);
        // Zero means "any version" on the wire.
        if bytes == [0; IDENTITY_TOKEN_LEN] { [1; IDENTITY_TOKEN_LEN] } else { bytes }
    }

    /// Whether the bytes are those of another version of the same file, whatever became of its names.
    pub(crate) fn has_bytes_of(&self, other: &Self) -> bool {
        self.size == other.size && self.modified == other.modified
    }
}
