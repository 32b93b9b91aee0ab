//! A password in a file: read once, at the start, and only from a file that nobody else can read.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::error::{Code, in_words};
use crate::limits::CONDUIT_PASSWORD_MAX;
use crate::token::TokenHash;

/// Bits of a mode that let others than the owner at a file.
const OTHERS: u32 = 0o077;

/// Why there is no password: what is wrong with which file, and what to do. It repeats nothing of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// It cannot be read.
    #[error("cannot read the password in {path}: {cause}; make it readable for the server's user")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// Others than its owner may read or change it.
    #[error("others may read or change the password in {path}; choose another one, after: chmod 600 {path}")]
    Permissive {
        /// The file.
        path: String,
    },
    /// It is empty, too long, or no file at all.
    #[error(
        "the password in {path} must have 1 to {CONDUIT_PASSWORD_MAX} bytes; write it there, on one line"
    )]
    Wrong {
        /// The file.
        path: String,
    },
}

impl PasswordError {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Unreadable { .. } => Code::LocalIo,
            Self::Permissive { .. } => Code::NotAllowed,
            Self::Wrong { .. } => Code::Usage,
        }
    }
}

/// Reads the password in a file, without the end of its line. Only its hash is kept.
///
/// # Errors
/// [`PasswordError`].
pub fn read_password(path: &Path) -> Result<TokenHash, PasswordError> {
    let shown = || path.display().to_string();
    let unreadable = |error: io::Error| PasswordError::Unreadable { path: shown(), cause: in_words(&error) };
    // Not to wait where somebody has put a pipe in its place.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(PasswordError::Wrong { path: shown() });
    }
    if found.mode() & OTHERS != 0 {
        return Err(PasswordError::Permissive { path: shown() });
    }
    // With the end of the line, and a byte that is too many. Room is made once, so no copy stays in memory.
    let most = CONDUIT_PASSWORD_MAX + b"\r\n".len() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    file.take(most as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let password = line.strip_suffix(b"\r").unwrap_or(line);
    if password.is_empty() || password.len() > CONDUIT_PASSWORD_MAX || password.contains(&b'\n') {
        return Err(PasswordError::Wrong { path: shown() });
    }
    Ok(TokenHash::of_password(password))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_password_is_all_of_its_line() {
        for content in [&b"a secret"[..], b"a secret\n", b"a secret\r\n"] {
            let (_folder, path) = file(content, 0o600);
            assert_eq!(read_password(&path).unwrap(), TokenHash::of_password(b"a secret"));
        }
        let longest = vec![b'x'; CONDUIT_PASSWORD_MAX];
        let (_folder, path) = file(&[&longest[..], b"\r\n"].concat(), 0o400);
        assert_eq!(read_password(&path).unwrap(), TokenHash::of_password(&longest));
    }

    #[test]
    fn what_is_no_password_is_refused_without_being_repeated() {
        let long = vec![b'x'; CONDUIT_PASSWORD_MAX + 1];
        for content in [&b""[..], b"\n", b"\r\n", b"secret\nsecret\n", &long] {
            let (_folder, path) = file(content, 0o600);
            let error = read_password(&path).unwrap_err();
            assert!(matches!(error, PasswordError::Wrong { .. }), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let (folder, path) = file(b"x", 0o600);
        assert!(matches!(read_password(folder.path()), Err(PasswordError::Wrong { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(read_password(&path), Err(PasswordError::Unreadable { .. })));
    }

    #[test]
    fn a_password_that_others_may_read_or_change_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let (_folder, path) = file(b"secret", mode);
            assert!(matches!(read_password(&path), Err(PasswordError::Permissive { .. })), "{mode:o}");
        }
    }
}
