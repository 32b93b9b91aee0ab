//! What has ended is noted in the catalog: one row for each transfer, and one for all small files of a connection.
//!
//! The log has everything; this is what can be asked for later. Noting takes no time: the catalog writes elsewhere.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Service;
use super::access::Caller;
use crate::catalog::history::{Direction, Transfer};
use crate::digest::Digest;
use crate::names::FileName;
use crate::token::KeyId;

/// A dialect, as the history calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// Version 1 of the protocol.
    V1,
    /// Version 2 of the protocol.
    V2,
    /// Conduit.
    Conduit,
}

impl Dialect {
    /// The one in which somebody moves files whose transfers have accounts: who has shown Conduit's password speaks
    /// that.
    pub(crate) fn of(caller: &Caller) -> Self {
        if caller.key_id() == Some(KeyId::CONDUIT) { Self::Conduit } else { Self::V2 }
    }

    /// How it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Conduit => "conduit",
        }
    }
}

/// A transfer of one file that has ended.
pub(crate) struct Ended<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) dialect: Dialect,
    pub(crate) direction: Direction,
    pub(crate) name: &'a FileName,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Bytes that were moved.
    pub(crate) moved: u64,
    pub(crate) elapsed: Duration,
    pub(crate) digest: Option<Digest>,
    /// Why it is not whole.
    pub(crate) cause: Option<&'a str>,
    /// Who has cancelled it.
    pub(crate) cancelled_by: Option<&'a str>,
}

/// The small files that one connection has moved in one direction, all of them whole.
pub(crate) struct Small {
    direction: Direction,
    files: u64,
    bytes: u64,
    last: Option<(Caller, FileName, Option<Digest>)>,
    began: Instant,
}

impl Small {
    /// None so far.
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, files: 0, bytes: 0, last: None, began: Instant::now() }
    }

    /// One more.
    pub(crate) fn add(&mut self, caller: &Caller, name: &FileName, size: u64, digest: Digest) {
        if self.files == 0 {
            self.began = Instant::now();
        }
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.last = Some((caller.clone(), name.clone(), Some(digest)));
    }
}

impl Service {
    /// Notes a transfer that has ended.
    pub(crate) fn note(&self, ended: &Ended<'_>) {
        let Ended { caller, dialect, direction, name, size, moved, elapsed, digest, cause, cancelled_by } =
            *ended;
        self.note_row(Transfer {
            ended_ms: now_ms(),
            seconds: elapsed.as_secs_f64(),
            peer: caller.peer().to_string(),
            key: caller.key_name().map(ToString::to_string),
            dialect: dialect.name().to_owned(),
            direction,
            name: name.as_bytes().to_vec(),
            files: 1,
            size,
            moved,
            digest: digest.filter(|_| cause.is_none()).map(written),
            cause: cause.map(ToOwned::to_owned),
            cancelled_by: cancelled_by.map(ToOwned::to_owned),
        });
    }

    /// Notes the small files of a connection of version 2, if there were any.
    pub(crate) fn note_small(&self, small: &Small) {
        let Some((caller, name, digest)) = &small.last else { return };
        self.note_row(Transfer {
            ended_ms: now_ms(),
            seconds: small.began.elapsed().as_secs_f64(),
            peer: caller.peer().to_string(),
            key: caller.key_name().map(ToString::to_string),
            dialect: Dialect::V2.name().to_owned(),
            direction: small.direction,
            name: name.as_bytes().to_vec(),
            files: small.files,
            size: small.bytes,
            moved: small.bytes,
            digest: digest.filter(|_| small.files == 1).map(written),
            cause: None,
            cancelled_by: None,
        });
    }

    fn note_row(&self, transfer: Transfer) {
        self.inner.catalog.note_transfer(transfer);
    }
}

fn written(digest: Digest) -> String {
    format!("{}={}", digest.algorithm().to_ascii_lowercase(), digest.to_hex())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
