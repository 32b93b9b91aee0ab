//! Where a server's identity lies: two files in its state folder, made once, or two that its owner gives.
//!
//! The key is the identity. It gets its name in one step when it is whole, and whoever comes second takes
//! what is there; the certificate is made from it and can be made again. So a program that is killed in between
//! leaves nothing or something whole, and two programs at once end with one identity. What is there is
//! read strictly and never replaced: clients know the key.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::identity::{certificate_for, make_key};
use super::{Identity, IdentityError};
use crate::error::{Code, in_words, is_no_space};
use crate::fileops;
use crate::limits::TLS_FILE_MAX;

/// Name of the private key in a state folder.
const KEY_FILE: &str = "tls.key";
/// Name of the certificates in a state folder.
const CERTIFICATE_FILE: &str = "tls.crt";
/// How names end of files that are not whole yet.
const STAGED: &str = ".new";
/// Only the server's user may read the key.
const KEY_MODE: u32 = 0o600;
/// A certificate is no secret: every client is shown it.
const CERTIFICATE_MODE: u32 = 0o644;
/// Who must not have any permission on a key that the server made.
const OTHERS_OF_OWN: u32 = 0o077;
/// Who must not have any permission on a key that was given. A group may: that is how system services share.
const OTHERS_OF_GIVEN: u32 = 0o007;

/// Why an identity cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// A file or folder cannot be read or written.
    #[error("cannot use {}: {}; check it and its permissions", .path.display(), in_words(.source))]
    Io {
        /// Which one.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Others may read the private key.
    #[error(
        "others may use the private key {} (mode {mode:04o}): run 'chmod 600' on it, or make a new one if somebody \
         may have read it",
        .path.display()
    )]
    Exposed {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is a certificate, but its key is gone.
    #[error(
        "{} is there, but its key {KEY_FILE} is not: put the key back, or remove {CERTIFICATE_FILE} as well to make a \
         new identity, which clients that know the old one will refuse",
        .path.display()
    )]
    Orphan {
        /// The certificate.
        path: PathBuf,
    },
    /// What is there cannot be used.
    #[error("{} cannot be used: {source}; put a good one there, or its backup", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: IdentityError,
    },
}

impl HomeError {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Exposed { .. } => Code::NotAllowed,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Code::NotAllowed,
            Self::Io { source, .. } if is_no_space(source) => Code::NoSpace,
            _ => Code::LocalIo,
        }
    }
}

impl Identity {
    /// The identity in a server's state folder, which must exist. It is made if it is not there; several
    /// programs may ask at once, and get the same.
    ///
    /// # Errors
    /// [`HomeError`]; what is there and cannot be used is never replaced.
    pub fn load_or_make(state: &Path) -> Result<Self, HomeError> {
        let (key_path, certificate_path) = (state.join(KEY_FILE), state.join(CERTIFICATE_FILE));
        let key = match read(&key_path, OTHERS_OF_OWN)? {
            Some(key) => key,
            None => first_key(state, &key_path, &certificate_path)?,
        };
        let certificates = match read(&certificate_path, 0)? {
            Some(certificates) => certificates,
            None => {
                let made = text_of(&key).and_then(certificate_for);
                let made = made.map_err(|source| unusable(&key_path, source))?;
                publish(state, CERTIFICATE_FILE, made.as_bytes(), CERTIFICATE_MODE)?;
                required(&certificate_path, 0)?
            }
        };
        clear_staged(state);
        Self::from_files(&certificates, &certificate_path, &key, &key_path)
    }

    /// The identity in two files, in PEM: certificates, the server's own first, and its private key.
    ///
    /// # Errors
    /// [`HomeError`]
    pub fn load(certificates: &Path, key: &Path) -> Result<Self, HomeError> {
        Self::from_files(&required(certificates, 0)?, certificates, &required(key, OTHERS_OF_GIVEN)?, key)
    }

    fn from_files(
        certificates: &[u8],
        certificate_path: &Path,
        key: &[u8],
        key_path: &Path,
    ) -> Result<Self, HomeError> {
        Self::from_pem(certificates, key).map_err(|source| match source {
            IdentityError::Key => unusable(key_path, source),
            _ => unusable(certificate_path, source),
        })
    }
}

/// Makes the key of a folder that has none.
fn first_key(
    state: &Path,
    key_path: &Path,
    certificate_path: &Path,
) -> Result<Zeroizing<Vec<u8>>, HomeError> {
    if read(certificate_path, 0)?.is_some() {
        // Another program may have made both since we looked for the key.
        let key = read(key_path, OTHERS_OF_OWN)?;
        return key.ok_or_else(|| HomeError::Orphan { path: certificate_path.to_owned() });
    }
    let made = make_key().map_err(|source| unusable(key_path, source))?;
    publish(state, KEY_FILE, made.as_bytes(), KEY_MODE)?;
    // Not what was made here: another program may have been faster.
    required(key_path, OTHERS_OF_OWN)
}

fn text_of(key: &[u8]) -> Result<&str, IdentityError> {
    std::str::from_utf8(key).map_err(|_| IdentityError::Key)
}

fn unusable(path: &Path, source: IdentityError) -> HomeError {
    HomeError::Unusable { path: path.to_owned(), source }
}

/// Reads a file; `None` if there is none. `others` are the permission bits that it must not have.
fn read(path: &Path, others: u32) -> Result<Option<Zeroizing<Vec<u8>>>, HomeError> {
    let failed = |source| HomeError::Io { path: path.to_owned(), source };
    // A pipe in its place would be waited for otherwise.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let data = file.metadata().map_err(failed)?;
    if !data.is_file() || data.len() > TLS_FILE_MAX {
        return Err(failed(io::Error::other("it is not a file of PEM text")));
    }
    if data.mode() & others != 0 {
        return Err(HomeError::Exposed { path: path.to_owned(), mode: data.mode() & 0o7777 });
    }
    // With room for all of it, so that no copy of a key is left behind by a growing buffer.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(data.len()).unwrap_or(0) + 1));
    file.take(TLS_FILE_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

fn required(path: &Path, others: u32) -> Result<Zeroizing<Vec<u8>>, HomeError> {
    read(path, others)?
        .ok_or_else(|| HomeError::Io { path: path.to_owned(), source: io::ErrorKind::NotFound.into() })
}

/// Gives a folder a whole, flushed file under a name, unless it has one of that name already.
fn publish(state: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
    let failed = |source| HomeError::Io { path: state.join(name), source };
    let folder = File::open(state).map_err(failed)?;
    let staged = format!("{name}.{:016x}{STAGED}", fastrand::u64(..));
    let staged = OsStr::new(&staged);
    let file = fileops::create_new_at(&folder, staged, mode).map_err(failed)?;
    let written = fileops::write_all_at(&file, bytes, 0).and_then(|()| fileops::sync_file(&file));
    match written.and_then(|()| fileops::rename_at_to_new(&folder, staged, OsStr::new(name))) {
        Ok(()) => fileops::sync_folder(state).map_err(failed),
        // Somebody was faster, and has perhaps cleared away what was staged here.
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
            let _ = fileops::remove_file_at(&folder, staged);
            Ok(())
        }
        Err(error) => {
            let _ = fileops::remove_file_at(&folder, staged);
            Err(failed(error))
        }
    }
}

/// Removes what programs have left that were killed before it was whole. Whoever still writes one finds the
/// published one when its own is gone.
fn clear_staged(state: &Path) {
    let (Ok(folder), Ok(entries)) = (File::open(state), state.read_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        let is_ours = [KEY_FILE, CERTIFICATE_FILE].iter().any(|file| bytes.starts_with(file.as_bytes()));
        if is_ours && bytes.ends_with(STAGED.as_bytes()) {
            let _ = fileops::remove_file_at(&folder, &name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(state: &Path) -> Vec<String> {
        let mut names: Vec<_> = state
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_identity_is_made_once_and_its_certificate_can_be_made_again() {
        let state = tempfile::tempdir().unwrap();
        let made = Identity::load_or_make(state.path()).unwrap();
        assert_eq!(names(state.path()), [CERTIFICATE_FILE, KEY_FILE]);
        let mode = fs::metadata(state.path().join(KEY_FILE)).unwrap().mode();
        assert_eq!(mode & 0o7777, KEY_MODE);
        fs::write(state.path().join("tls.key.0123.new"), "half").unwrap();
        assert_eq!(Identity::load_or_make(state.path()).unwrap().pin(), made.pin());
        fs::remove_file(state.path().join(CERTIFICATE_FILE)).unwrap();
        assert_eq!(Identity::load_or_make(state.path()).unwrap().pin(), made.pin());
        assert_eq!(names(state.path()), [CERTIFICATE_FILE, KEY_FILE]);
    }

    #[test]
    fn many_that_make_an_identity_at_once_get_the_same() {
        for _ in 0..20 {
            let state = tempfile::tempdir().unwrap();
            let make = || Identity::load_or_make(state.path()).unwrap().pin();
            let pins: Vec<_> = std::thread::scope(|scope| {
                let running: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
                running.into_iter().map(|running| running.join().unwrap()).collect()
            });
            assert!(pins.iter().all(|pin| *pin == pins[0]), "{pins:?}");
            assert_eq!(make(), pins[0]);
            assert_eq!(names(state.path()), [CERTIFICATE_FILE, KEY_FILE]);
        }
    }

    #[test]
    fn what_is_there_is_read_strictly_and_never_replaced() {
        let state = tempfile::tempdir().unwrap();
        let (key, certificate) = (state.path().join(KEY_FILE), state.path().join(CERTIFICATE_FILE));
        Identity::load_or_make(state.path()).unwrap();
        let good = fs::read(&key).unwrap();
        let load = || Identity::load_or_make(state.path()).unwrap_err();

        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load();
        assert_eq!(error.code(), Code::NotAllowed);
        assert!(
            error.to_string().contains("(mode 0640)") && error.to_string().contains("chmod 600"),
            "{error}"
        );
        Identity::load(&certificate, &key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o604)).unwrap();
        assert_eq!(Identity::load(&certificate, &key).unwrap_err().code(), Code::NotAllowed);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

        for broken in [&b""[..], b"-----BEGIN PRIVATE KEY-----\n", &good[..good.len() / 2], &[0xff; 100]] {
            fs::write(&key, broken).unwrap();
            let error = load();
            assert_eq!(error.code(), Code::LocalIo, "{error}");
            assert!(error.to_string().contains(KEY_FILE), "{error}");
            assert_eq!(fs::read(&key).unwrap(), broken);
        }
        fs::write(&key, make_key().unwrap().as_bytes()).unwrap();
        assert!(matches!(load(), HomeError::Unusable { source: IdentityError::Pair(_), .. }));
        fs::remove_file(&key).unwrap();
        assert!(matches!(load(), HomeError::Orphan { .. }));
        fs::create_dir(&key).unwrap();
        assert_eq!(load().code(), Code::LocalIo);
    }
}
