//! The folders that a server needs, made where they are missing, and the lock on its state.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::Failure;
use crate::error::{Code, in_words};

/// Name of the file whose lock says that a server uses the state folder.
const LOCK_FILE: &str = "lock";
/// Only the server's user may look into its state.
const STATE_MODE: u32 = 0o700;
/// Only the server's user may read or write files of its state.
const STATE_FILE_MODE: u32 = 0o600;

/// Makes the folder of served files if it is missing.
pub(super) fn prepare_root(root: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(root).map_err(|error| cannot_serve(root, &error))
}

/// Why a folder cannot be served, and what to do.
pub(super) fn cannot_serve(root: &Path, error: &io::Error) -> Failure {
    let root = root.display();
    let text = match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            format!("cannot serve {root}: it is not a folder; name one that can be read")
        }
        _ => format!("cannot serve {root}: {}; name a folder that can be read", in_words(error)),
    };
    Failure::new(code_of(error), text)
}

/// Makes the state folder if it is missing.
pub(super) fn make_state(state: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(STATE_MODE)
        .create(state)
        .map_err(|error| cannot_use(state, &error))
}

pub(super) fn cannot_use(state: &Path, error: &io::Error) -> Failure {
    let text = format!(
        "cannot use the state folder {}: {}; choose another with --state",
        state.display(),
        in_words(error)
    );
    Failure::new(code_of(error), text)
}

/// Makes the state folder if it is missing, and keeps every other server off it for as long as
/// what is returned lives.
pub(super) fn claim_state(state: &Path) -> Result<File, Failure> {
    let failed = |error: io::Error| cannot_use(state, &error);
    make_state(state)?;
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(STATE_FILE_MODE)
        .open(state.join(LOCK_FILE))
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            Code::Exists,
            format!(
                "another server uses the state folder {}; stop it, or choose another folder with --state",
                state.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The kind of failure that an error of the file system is.
fn code_of(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Code::NotAllowed,
        _ if crate::error::is_no_space(error) => Code::NoSpace,
        _ => Code::LocalIo,
    }
}
