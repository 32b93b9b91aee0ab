//! Where a fetched file goes: a file of its own, or a stream that gets it once it is verified.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::{FetchError, Overwrite};
use crate::digest::{Digest, Md5, Md5Hasher};
use crate::fileops;
use crate::limits::RECEIVE_CHUNK;
use crate::staged::{Part, Replace, StageError, StagedFile, make_room};
use crate::text;
use crate::tree::Root;

/// Where a fetched file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file that gets its name when it is whole.
    File(PathBuf),
    /// A device or a pipe, which gets the bytes when all of them are verified.
    Stream(PathBuf),
    /// Standard output, likewise.
    Stdout,
}

impl Target {
    /// What a path means: a device, a pipe or an open descriptor of this process is a stream,
    /// anything else a file.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        // Whatever is behind a descriptor, its name is in no folder where a file could be replaced.
        if ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|own| path == Path::new(own)) {
            return Self::Stdout;
        }
        if path == Path::new("/dev/stderr") || path.starts_with("/dev/fd") || path.starts_with("/proc") {
            return Self::Stream(path);
        }
        let kind = path.metadata().map(|found| found.file_type());
        match kind {
            Ok(kind) if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() => {
                Self::Stream(path)
            }
            _ => Self::File(path),
        }
    }

    /// The path, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::Stream(path) => Some(path),
            Self::Stdout => None,
        }
    }

    /// The target for a person.
    #[must_use]
    pub fn shown(&self) -> String {
        self.path().map_or_else(
            || "standard output".to_owned(),
            |path| text::shown(path.as_os_str().as_bytes()).to_string(),
        )
    }

    /// Whether a part of it is here, from an attempt that did not come to its end.
    #[must_use]
    pub fn has_part(&self) -> bool {
        matches!(self, Self::File(path) if Part::is_there(path))
    }

    /// Whether it is worth asking for the file at all.
    pub(super) fn check(&self, overwrite: Overwrite) -> Result<(), FetchError> {
        match self {
            Self::File(path) if path.is_dir() => Err(StageError::NotAFile(self.shown()).into()),
            Self::File(path) if overwrite == Overwrite::Never && path.symlink_metadata().is_ok() => {
                Err(StageError::Exists(self.shown()).into())
            }
            _ => Ok(()),
        }
    }

    /// Whether it is a file of this size and digest already. May block.
    pub(super) fn holds(&self, size: u64, digest: Digest) -> bool {
        let Self::File(path) = self else { return false };
        let same_size = path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == size);
        same_size
            && match digest {
                Digest::Md5(md5) => md5_of(path).is_ok_and(|found| found == md5),
                Digest::Blake3(root) => root_of(path).is_ok_and(|(_, found)| found == root),
            }
    }

    /// Prepares to receive `size` bytes. May block.
    pub(super) fn stage(&self, size: u64) -> Result<Sink, FetchError> {
        match self {
            Self::File(path) => Ok(Sink::Staged(StagedFile::create(path, size)?)),
            Self::Stream(_) | Self::Stdout => {
                let spooled = |source| FetchError::Output { path: "a temporary file".to_owned(), source };
                let file = fileops::create_nameless().map_err(spooled)?;
                make_room(&file, &std::env::temp_dir(), size)?;
                Ok(Sink::Spooled(file, self.clone()))
            }
        }
    }
}

/// What received bytes are written to. Dropped before it is published, it leaves nothing.
#[derive(Debug)]
pub(super) enum Sink {
    Staged(StagedFile),
    Spooled(File, Target),
}

impl Sink {
    /// Writes all of `bytes` at a position. May block.
    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> Result<(), FetchError> {
        match self {
            Self::Staged(staged) => Ok(staged.write_all_at(bytes, offset)?),
            Self::Spooled(file, _) => fileops::write_all_at(file, bytes, offset)
                .map_err(|source| FetchError::Output { path: "a temporary file".to_owned(), source }),
        }
    }

    /// The file that holds the bytes until then.
    pub(super) fn file(&self) -> &File {
        match self {
            Self::Staged(staged) => staged.file(),
            Self::Spooled(file, _) => file,
        }
    }

    /// Makes the verified bytes public. May block.
    pub(super) fn publish(self, replace: Replace, sync: bool) -> Result<(), FetchError> {
        match self {
            Self::Staged(staged) => Ok(staged.commit(replace, sync)?),
            Self::Spooled(file, target) => {
                pour(file, &target).map_err(|source| FetchError::Output { path: target.shown(), source })
            }
        }
    }
}

fn pour(mut spooled: File, target: &Target) -> io::Result<()> {
    io::Seek::rewind(&mut spooled)?;
    match target.path() {
        Some(path) => io::copy(&mut spooled, &mut File::options().write(true).open(path)?)?,
        None => {
            let mut stdout = io::stdout().lock();
            let count = io::copy(&mut spooled, &mut stdout)?;
            stdout.flush()?;
            count
        }
    };
    Ok(())
}

fn md5_of(path: &Path) -> io::Result<Md5> {
    let mut hasher = Md5Hasher::default();
    read_all(path, |bytes| hasher.update(bytes))?;
    Ok(hasher.finish())
}

/// Size and root of a local file. May block.
pub(super) fn root_of(path: &Path) -> io::Result<(u64, Root)> {
    let mut hasher = blake3::Hasher::new();
    let size = read_all(path, |bytes| {
        hasher.update(bytes);
    })?;
    Ok((size, Root::from_bytes(hasher.finalize().into())))
}

fn read_all(path: &Path, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; RECEIVE_CHUNK];
    let mut size = 0;
    loop {
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return Ok(size),
            Ok(count) => {
                take(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
