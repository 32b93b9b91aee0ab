//! Where a file lands that was sent to this client: under its own name if that is free, else as the user wants it.
//!
//! Nothing that is there is ever replaced unless the user says so, whatever happens at the same time: a name that was
//! free when it was chosen and is taken when the file is here is chosen anew.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::{Existing, Listen, Offered, Received};
use crate::client::attempt::blocking;
use crate::client::pace::Pace;
use crate::client::{
    Checksum, FetchError, Observer, Overwrite, Protocol, Server, Settings, Target, fetch_at,
};
use crate::digest::Digest;
use crate::limits::{COMPONENT_MAX, LISTEN_FETCH_RETRIES, LISTEN_NAMES_MAX};
use crate::names::{FileName, PushId};
use crate::staged::StageError;
use crate::text;

/// A file that is to be fetched.
pub(super) struct Fetch {
    pub(super) server: Server,
    pub(super) listen: Listen,
    pub(super) settings: Settings,
    pub(super) id: PushId,
    pub(super) offered: Offered,
    pub(super) stop: CancellationToken,
    pub(super) taken: Arc<Mutex<HashSet<PathBuf>>>,
}

/// A place that no other file lands at as long as this lives.
struct Taken<'a> {
    all: &'a Mutex<HashSet<PathBuf>>,
    path: PathBuf,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        taken(self.all).remove(&self.path);
    }
}

fn taken(all: &Mutex<HashSet<PathBuf>>) -> MutexGuard<'_, HashSet<PathBuf>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a name is good for.
enum Look {
    Free,
    /// The very same file has it.
    Same,
    /// Something else has it.
    Other,
}

impl Fetch {
    /// Fetches the file to where it belongs.
    pub(super) async fn land(&self, observer: &dyn Observer, began: Instant) -> Result<Received, FetchError> {
        for number in 0..LISTEN_NAMES_MAX {
            let path = self.listen.directory.join(numbered(self.offered.name.base(), number));
            let Some(_taken) = self.take(&path) else {
                if self.listen.existing == Existing::Rename {
                    continue;
                }
                return Err(StageError::Busy(shown(&path)).into());
            };
            match self.look(&path).await? {
                Look::Same => {
                    let elapsed = began.elapsed();
                    return Ok(Received { path, unchanged: true, resumed: 0, elapsed });
                }
                Look::Other if self.listen.existing == Existing::Rename => continue,
                Look::Other if self.listen.existing == Existing::Never => {
                    return Err(StageError::Exists(shown(&path)).into());
                }
                Look::Other | Look::Free => {}
            }
            match self.fetch(&path, observer).await {
                Err(FetchError::Stage(StageError::Exists(_) | StageError::Busy(_)))
                    if self.listen.existing == Existing::Rename => {}
                fetched => {
                    let resumed = fetched?;
                    return Ok(Received { path, unchanged: false, resumed, elapsed: began.elapsed() });
                }
            }
        }
        Err(StageError::Exists(shown(
            &self.listen.directory.join(OsStr::from_bytes(self.offered.name.base())),
        ))
        .into())
    }

    fn take(&self, path: &Path) -> Option<Taken<'_>> {
        let is_new = taken(&self.taken).insert(path.to_owned());
        is_new.then(|| Taken { all: &self.taken, path: path.to_owned() })
    }

    async fn look(&self, path: &Path) -> Result<Look, FetchError> {
        let (path, size, root) = (path.to_owned(), self.offered.size, self.offered.root);
        blocking(move || {
            Ok(match path.symlink_metadata() {
                Err(_) => Look::Free,
                Ok(_) if Target::File(path).holds(size, Digest::Blake3(root)) => Look::Same,
                Ok(_) => Look::Other,
            })
        })
        .await
    }

    /// Fetches it to this path; says how much of it was there.
    async fn fetch(&self, path: &Path, observer: &dyn Observer) -> Result<u64, FetchError> {
        let mut settings = self.settings.clone();
        settings.overwrite = match self.listen.existing {
            Existing::Rename | Existing::Never => Overwrite::Never,
            Existing::Always => Overwrite::Always,
        };
        // It comes from the one server that told of it, and is what that said.
        settings.protocol = Protocol::V2;
        settings.checksum = Some(Checksum::Blake3(self.offered.root));
        settings.backoff.retries = settings.backoff.retries.min(LISTEN_FETCH_RETRIES);
        let (name, target) = (FileName::pushed(&self.id), Target::File(path.to_owned()));
        let (pace, size) = (Pace::of(&settings), Some(self.offered.size));
        let server = &self.server;
        let fetching =
            fetch_at(&pace, size, server, name.as_bytes(), &target, &settings, observer, &self.stop);
        Ok(fetching.await?.resumed)
    }
}

fn shown(path: &Path) -> String {
    text::shown(path.as_os_str().as_bytes()).to_string()
}

/// The name of a file; or another one, if that is taken: `name (1).ext`. What stands before the last point is cut
/// where there is no room for the number.
fn numbered(base: &[u8], number: u32) -> OsString {
    if number == 0 {
        return OsString::from_vec(base.to_vec());
    }
    // A point at the beginning hides a file, and does not end its name.
    let at = base.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0).unwrap_or(base.len());
    let (stem, ending) = base.split_at(at);
    let number = format!(" ({number})").into_bytes();
    let mut room = COMPONENT_MAX.saturating_sub(number.len() + ending.len()).min(stem.len());
    // A character is kept or cut as a whole.
    while room > 0 && room < stem.len() && stem[room] & 0xc0 == 0x80 {
        room -= 1;
    }
    let mut name = [&stem[..room], &number, ending].concat();
    name.truncate(COMPONENT_MAX);
    OsString::from_vec(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_name_keeps_its_ending_and_fits() {
        let name = |base: &str, number| numbered(base.as_bytes(), number).into_string().unwrap();
        for (base, number, other) in [
            ("a.txt", 0, "a.txt"),
            ("a.txt", 1, "a (1).txt"),
            ("a.tar.gz", 12, "a.tar (12).gz"),
            ("a", 2, "a (2)"),
            (".profile", 1, ".profile (1)"),
        ] {
            assert_eq!(name(base, number), other);
        }
        let long = name(&format!("{}.txt", "ü".repeat(125)), 10);
        assert!(long.len() <= COMPONENT_MAX && long.ends_with("ü (10).txt"), "{long}");
        assert_eq!(numbered(&[b'.'; COMPONENT_MAX], 1).len(), COMPONENT_MAX);
    }
}
