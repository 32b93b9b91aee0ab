//! The owner of a server: whoever may read its state folder.
//!
//! A server notes there where it listens, who it is there, and a token of this run that has the rights to administer and to push.
//! Commands on the same machine read it (`server status`) and are believed. The note is made anew at each start, and
//! is gone at the end; that of a server that was killed is worth nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tracing::warn;
use zeroize::Zeroizing;

use crate::error::in_words;
use crate::fileops;
use crate::pin::Pin;
use crate::token::Token;

/// Name of the note in the state folder.
const FILE: &str = "owner";
/// Name that it has while it is written.
const STAGED: &str = "owner.new";
/// It holds a secret.
const MODE: u32 = 0o600;
/// Longest note, in bytes.
const LEN_MAX: usize = 512;
/// In place of a pin, where the server speaks no TLS.
const NO_PIN: &str = "-";

/// Where a server can be reached by its owner, and how it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Who it is there; `None` if it speaks no TLS.
    pub(super) pin: Option<Pin>,
    /// What it is shown as a key.
    pub(super) token: Token,
}

/// A note that is there as long as this is alive.
#[derive(Debug)]
pub(super) struct Noted(PathBuf);

impl Owner {
    /// Notes it. Without a note, the commands of this machine cannot reach the server; nobody else misses it.
    pub(super) fn note(&self, state: &Path) -> Option<Noted> {
        self.try_note(state).then(|| Noted(state.to_owned()))
    }

    /// The server is known by another pin from now on: notes that, if there is a note.
    pub(super) fn renote(state: &Path, pin: Pin) {
        if let Ok(Some(owner)) = Self::noted(state) {
            Self { pin: Some(pin), ..owner }.try_note(state);
        }
    }

    fn try_note(&self, state: &Path) -> bool {
        let written = self.write(state);
        if let Err(error) = &written {
            // One of before would be taken for this one.
            drop(Noted(state.to_owned()));
            let (folder, cause) = (state.display(), in_words(error));
            warn!(
                "The owner's token cannot be noted in {folder} ({cause}): server status, clients, history, \
                 cancel and push will not work"
            );
        }
        written.is_ok()
    }

    fn write(&self, state: &Path) -> io::Result<()> {
        let folder = File::open(state)?;
        let (staged, name) = (OsStr::new(STAGED), OsStr::new(FILE));
        remove(&folder, staged)?;
        let file = fileops::create_new_at(&folder, staged, MODE)?;
        let pin = self.pin.map_or_else(|| NO_PIN.to_owned(), |pin| pin.to_string());
        let note = Zeroizing::new(format!("{} {pin} {}\n", self.address, self.token.expose()));
        fileops::write_all_at(&file, note.as_bytes(), 0)?;
        fileops::rename_at(&folder, staged, name)
    }

    /// Reads the note; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is none.
    pub(super) fn noted(state: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(state.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(LEN_MAX));
        file.take(LEN_MAX as u64).read_to_end(&mut bytes)?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it is not as a server writes it");
        std::str::from_utf8(&bytes).ok().and_then(Self::parse).map(Some).ok_or_else(wrong)
    }

    fn parse(text: &str) -> Option<Self> {
        let (address, rest) = text.strip_suffix('\n')?.split_once(' ')?;
        let (pin, token) = rest.split_once(' ')?;
        let pin = if pin == NO_PIN { None } else { Some(pin.parse().ok()?) };
        Some(Self { address: address.parse().ok()?, pin, token: Token::parse(token.as_bytes()).ok()? })
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // Whether it works or not, it is of no use to anybody.
        if let Ok(folder) = File::open(&self.0) {
            let _ = remove(&folder, OsStr::new(FILE));
        }
    }
}

fn remove(folder: &File, name: &OsStr) -> io::Result<()> {
    match fileops::remove_file_at(folder, name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::token::TOKEN_RANDOM;

    #[test]
    fn a_note_reads_back_only_for_its_owner_and_is_gone_in_the_end() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Owner::noted(state.path()).unwrap(), None);
        for (address, pin) in [("127.0.0.1:8080", None), ("[::]:1", Some(Pin::of(b"key")))] {
            let token = Token::new(&[7; TOKEN_RANDOM]);
            let owner = Owner { address: address.parse().unwrap(), pin, token };
            let noted = owner.note(state.path()).unwrap();
            assert_eq!(std::fs::metadata(state.path().join(FILE)).unwrap().mode() & 0o777, MODE);
            assert_eq!(Owner::noted(state.path()).unwrap(), Some(owner.clone()));
            assert!(!format!("{owner:?}").contains(&owner.token.expose()[24..]), "it shows its secret");
            drop(noted);
            assert_eq!(Owner::noted(state.path()).unwrap(), None);
        }
        for text in ["", "x", "127.0.0.1:1 - x\n", "127.0.0.1:1 -\n"] {
            std::fs::write(state.path().join(FILE), text).unwrap();
            assert!(Owner::noted(state.path()).is_err(), "{text:?}");
        }
    }
}
