//! Standard input as a source: what is a file already is offered as it is, anything else is written down first.
//!
//! A stream can be read once only, and an upload may have to be gone on with: so its bytes have to lie somewhere until
//! the server has them.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::UploadSource;
use crate::client::FetchError;
use crate::error::is_no_space;
use crate::fileops;

/// Permission bits of what comes from a stream: it has none of its own.
const STREAM_MODE: u32 = 0o644;
const MODE_BITS: u32 = 0o777;

impl UploadSource {
    /// All that comes from `input` until its end. A regular file at its beginning is taken as it is; anything else is
    /// written to a file without a name in the folder for temporary files. Blocks until the end has come.
    ///
    /// # Errors
    /// If the input cannot be read, or that folder has no room.
    pub fn from_input(mut input: impl Read + AsFd) -> Result<Self, FetchError> {
        let unreadable = |source| FetchError::Unreadable { path: "standard input".to_owned(), source };
        let own: OwnedFd = input.as_fd().try_clone_to_owned().map_err(unreadable)?;
        let mut own = File::from(own);
        let found = own.metadata().map_err(unreadable)?;
        if found.is_file() && own.stream_position().is_ok_and(|at| at == 0) {
            let nanoseconds = u32::try_from(found.mtime_nsec()).unwrap_or(0);
            let modified = (found.mtime(), nanoseconds);
            return Ok(Self::Open { file: own, mode: found.mode() & MODE_BITS, modified });
        }
        let mut spool = fileops::create_nameless().map_err(unwritable)?;
        io::copy(&mut input, &mut spool).map_err(|error| match is_no_space(&error) {
            true => unwritable(error),
            false => unreadable(error),
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        Ok(Self::Open { file: spool, mode: STREAM_MODE, modified: (seconds, now.subsec_nanos()) })
    }
}

fn unwritable(source: io::Error) -> FetchError {
    let folder = std::env::temp_dir();
    FetchError::Output {
        path: format!(
            "{}, where standard input is kept until it is stored (TMPDIR names another folder)",
            folder.display()
        ),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn bytes(source: &UploadSource) -> Vec<u8> {
        let UploadSource::Open { file, .. } = source else { panic!("no open file") };
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn what_comes_from_a_pipe_is_written_down_whole() {
        let (reader, mut writer) = io::pipe().unwrap();
        let sent: Vec<u8> = (0..300_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let expected = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        let source = UploadSource::from_input(reader).unwrap();
        writing.join().unwrap();
        assert_eq!(bytes(&source), expected);
        let UploadSource::Open { mode, modified, .. } = source else { panic!() };
        assert_eq!(mode, STREAM_MODE);
        assert!(modified.0 > 1_700_000_000);
    }

    #[test]
    fn a_file_is_not_copied_unless_some_of_it_was_read_before() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        let inode = file.metadata().unwrap().ino();
        file.rewind().unwrap();
        let source = UploadSource::from_input(file.try_clone().unwrap()).unwrap();
        let UploadSource::Open { file: taken, .. } = &source else { panic!() };
        assert_eq!(taken.metadata().unwrap().ino(), inode);
        assert_eq!(bytes(&source), b"hello");
        let mut one = [0];
        file.read_exact(&mut one).unwrap();
        assert_eq!(bytes(&UploadSource::from_input(file).unwrap()), b"ello", "the rest, and no more");
    }
}
