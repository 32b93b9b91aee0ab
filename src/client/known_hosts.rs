//! The file in which a client remembers the keys of servers.
//!
//! Each line holds `HOST:PORT` and a pin, or the word `authority` for a server that an authority vouched for, whose
//! key may change; what stands behind `#` is for people, and is kept. An entry is added and never changed: a
//! server with another key is for a person to look at. A file that cannot be read or
//! understood counts for nothing less than a wrong key, else whoever can damage it could do away with it. The
//! file is made anew beside itself and renamed, and that new file is the lock against other clients.

use std::fmt::Write as _;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Instant;

use super::Server;
use crate::error::{Code, in_words};
use crate::fileops;
use crate::limits::{KNOWN_HOSTS_LOCK_INTERVAL, KNOWN_HOSTS_LOCK_TIMEOUT, KNOWN_HOSTS_MAX};
use crate::pin::Pin;
use crate::text;

/// Behind the name of the file, while it is made anew.
const NEW: &str = ".oneport-new";

/// A file of known hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownHosts(PathBuf);

/// What stands in the way of knowing a host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnownHostsError {
    /// The file is there and cannot be read, or cannot be written.
    #[error("cannot {operation} the known hosts in {path}: {}", in_words(.source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: String,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// A line is none.
    #[error("line {line} of the known hosts in {path} is not understood: {what}; correct or remove it")]
    Line {
        /// The file.
        path: String,
        /// The line's number, counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// There is no file.
    #[error("there is no file for it, as neither XDG_CONFIG_HOME nor HOME is set")]
    Nowhere,
    /// The file is longer than anybody's.
    #[error(
        "the known hosts in {path} are more than {KNOWN_HOSTS_MAX} bytes; remove those that are not needed"
    )]
    TooLong {
        /// The file.
        path: String,
    },
}

impl KnownHostsError {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Io { .. } | Self::Nowhere => Code::LocalIo,
            Self::Line { .. } | Self::TooLong { .. } => Code::Certificate,
        }
    }
}

/// The keys that a server is known by; none if all that is known is that an authority vouched for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pins: Vec<Pin>,
    /// Where they stand, for people.
    pub(super) place: String,
}

/// By what a server is to be known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// Its key.
    Key(Pin),
    /// Whatever an authority vouches for.
    Authority,
}

/// In the place of a pin.
const AUTHORITY: &str = "authority";

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(pin) => pin.fmt(f),
            Self::Authority => f.write_str(AUTHORITY),
        }
    }
}

/// What came of adding a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It stands in the file now.
    Now,
    /// It stood there already.
    Before(Entry),
}

impl KnownHosts {
    /// Those in this file, which need not exist.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The file, made safe to show.
    #[must_use]
    pub fn shown(&self) -> String {
        text::shown(self.0.as_os_str().as_bytes()).to_string()
    }

    /// By what keys a server is known, if it is. May block.
    pub(super) fn find(&self, server: &Server) -> Result<Option<Entry>, KnownHostsError> {
        let shown = self.shown();
        find(&self.read()?, &name_of(server), &shown)
    }

    /// Adds a server that is not known yet. May block.
    pub(super) fn add(&self, server: &Server, mark: Mark) -> Result<Added, KnownHostsError> {
        if let Some(entry) = self.find(server)? {
            return Ok(Added::Before(entry));
        }
        // What is behind a link is the file, and stays behind it.
        let path = self.0.canonicalize().unwrap_or_else(|_| self.0.clone());
        let failed = |operation| {
            let path = self.shown();
            move |source| KnownHostsError::Io { operation, path, source }
        };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fileops::create_folders(folder).map_err(failed("make the folder for"))?;
        let mut staged = path.clone().into_os_string();
        staged.push(NEW);
        let staged = PathBuf::from(staged);
        let file = lock(&staged).map_err(failed("lock"))?;
        let before = self.read()?;
        let name = name_of(server);
        if let Some(entry) = find(&before, &name, &self.shown())? {
            let _ = fileops::remove_file(&staged);
            return Ok(Added::Before(entry));
        }
        let mut text = before;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} {mark}");
        if text.len() as u64 > KNOWN_HOSTS_MAX {
            let _ = fileops::remove_file(&staged);
            return Err(KnownHostsError::TooLong { path: self.shown() });
        }
        let replace = || {
            fileops::truncate(&file)?;
            fileops::set_permissions(&file, Permissions::from_mode(0o600))?;
            fileops::write_all_at(&file, text.as_bytes(), 0)?;
            fileops::sync_file(&file)?;
            fileops::rename(&staged, &path)
        };
        if let Err(error) = replace() {
            let _ = fileops::remove_file(&staged);
            return Err(failed("write")(error));
        }
        fileops::sync_folder(folder).map_err(failed("flush"))?;
        Ok(Added::Now)
    }

    fn read(&self) -> Result<String, KnownHostsError> {
        let failed = |source| KnownHostsError::Io { operation: "read", path: self.shown(), source };
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(KNOWN_HOSTS_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > KNOWN_HOSTS_MAX {
            return Err(KnownHostsError::TooLong { path: self.shown() });
        }
        String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
            KnownHostsError::Line { path: self.shown(), line, what: "it is no text".to_owned() }
        })
    }
}

/// How a server stands in the file: as it is called, but an address in one way only.
fn name_of(server: &Server) -> String {
    let bare = server.host.strip_suffix('.').filter(|host| !host.is_empty()).unwrap_or(&server.host);
    let host = match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => bare.to_lowercase(),
    };
    Server { host, port: server.port, pin: None }.to_string()
}

/// Looks a server up. The whole text has to make sense, whoever is looked for.
fn find(text: &str, name: &str, path: &str) -> Result<Option<Entry>, KnownHostsError> {
    let (mut pins, mut first) = (Vec::new(), None);
    for (index, line) in text.lines().enumerate() {
        let wrong = |what: &str| {
            let (path, what) = (path.to_owned(), what.to_owned());
            KnownHostsError::Line { path, line: index + 1, what }
        };
        let said = line.split('#').next().unwrap_or_default();
        let mut words = said.split_whitespace();
        let Some(host) = words.next() else { continue };
        let (Some(mark), None) = (words.next(), words.next()) else {
            return Err(wrong("it is not HOST:PORT and a pin"));
        };
        let pin: Option<Pin> = match mark {
            AUTHORITY => None,
            pin => Some(pin.parse().map_err(|error: crate::pin::PinError| wrong(&error.to_string()))?),
        };
        let server: Server = host.parse().map_err(|_| wrong("it does not begin with HOST:PORT"))?;
        if name_of(&server) == name {
            first = first.or(Some(index + 1));
            pins.extend(pin);
        }
    }
    Ok(first.map(|line| Entry { pins, place: format!("line {line} of {path}") }))
}

/// Opens and locks the file that is to become the new one. A client that has just finished has renamed or
/// removed it before it gave up the lock, so after locking one looks whether the name still means the file.
fn lock(path: &Path) -> io::Result<File> {
    let until = Instant::now() + KNOWN_HOSTS_LOCK_TIMEOUT;
    loop {
        let file = fileops::open_or_create(path)?;
        match file.try_lock() {
            Ok(()) => {
                let (found, named) = (file.metadata()?, path.symlink_metadata());
                let is_it =
                    |named: std::fs::Metadata| (named.dev(), named.ino()) == (found.dev(), found.ino());
                if named.is_ok_and(is_it) && found.is_file() {
                    return Ok(file);
                }
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if Instant::now() >= until {
            let text = "another client has been writing it for too long";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        sleep(KNOWN_HOSTS_LOCK_INTERVAL);
    }
}

#[cfg(test)]
#[path = "known_hosts/tests.rs"]
mod tests;
