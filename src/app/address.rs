//! What clients call this server: its port and pin, noted in the state folder by a server when it starts, so that
//! `server key add` can tell a new key's holder where to go and whom to believe there.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use tracing::warn;

use crate::error::in_words;
use crate::fileops;
use crate::pin::Pin;

/// Name of the note in the state folder.
const FILE: &str = "address";
/// Name that it has while it is written.
const STAGED: &str = "address.new";
/// It holds no secret, but nobody else needs it.
const MODE: u32 = 0o600;
/// Longest note, in bytes.
const LEN_MAX: u64 = 128;
/// In place of a pin, where the server speaks no TLS.
const NO_PIN: &str = "-";

/// Where a server listens, and who it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) port: u16,
    pub(super) pin: Option<Pin>,
}

impl Address {
    /// Notes it. A note that cannot be written costs `server key add` a line, and nobody else anything.
    pub(super) fn note(self, state: &Path) {
        if let Err(error) = self.write(state) {
            let (folder, cause) = (state.display(), in_words(&error));
            warn!("The address cannot be noted in {folder} ({cause}): server key add will not tell it");
        }
    }

    fn write(self, state: &Path) -> io::Result<()> {
        let folder = File::open(state)?;
        let (staged, name) = (OsStr::new(STAGED), OsStr::new(FILE));
        match fileops::remove_file_at(&folder, staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = fileops::create_new_at(&folder, staged, MODE)?;
        let pin = self.pin.map_or_else(|| NO_PIN.to_owned(), |pin| pin.to_string());
        fileops::write_all_at(&file, format!("{} {pin}\n", self.port).as_bytes(), 0)?;
        fileops::rename_at(&folder, staged, name)
    }

    /// Reads the note; `None` if there is none that can be read.
    pub(super) fn noted(state: &Path) -> Option<Self> {
        let mut text = String::new();
        File::open(state.join(FILE)).ok()?.take(LEN_MAX).read_to_string(&mut text).ok()?;
        let (port, pin) = text.strip_suffix('\n')?.split_once(' ')?;
        let pin = if pin == NO_PIN { None } else { Some(pin.parse().ok()?) };
        Some(Self { port: port.parse().ok()?, pin })
    }

    /// How a client on another machine may write it, if this machine's name leads here.
    pub(super) fn shown(self) -> String {
        let host = rustix::system::uname();
        let host = crate::text::shown(host.nodename().to_bytes()).to_string();
        match self.pin {
            Some(pin) => format!("oneport://{host}:{}#{}", self.port, pin.letters()),
            None => format!("oneport://{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_nothing_else_does() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Address::noted(state.path()), None);
        for pin in [None, Some(Pin::of(b"key"))] {
            let address = Address { port: 8080, pin };
            address.note(state.path());
            assert_eq!(Address::noted(state.path()), Some(address));
        }
        for text in ["", "8080", "8080 -", "80800 -\n", "8080 sha256:x\n", "8080 \n", "x -\n"] {
            std::fs::write(state.path().join(FILE), text).unwrap();
            assert_eq!(Address::noted(state.path()), None, "{text:?}");
        }
    }
}
