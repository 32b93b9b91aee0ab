//! One attempt to fetch a file over wire format v2 (`docs/protocol.md`), going on with what is there.
//!
//! 1. The hello asks for the first blocks that are missing, as far as that is known.
//! 2. FILE says which version the server has. Another one than that of which a part is here: the values
//!    of its blocks are fetched and compared, and equal blocks are kept.
//! 3. Links ([`crew`], [`work`]) fetch runs of blocks from one queue; each block is checked, written, recorded.
//! 4. If the server did not know the root, the values are merged and compared with it in the end.
//! 5. The part gets its name. Whatever ends an attempt before, the part stays for the next one.
//!
//! A stream gets its blocks in order, each proven before it is passed on ([`pour`]).

use std::net::SocketAddr;

use super::attempt::{Attempt, Got};
use super::{FetchError, Target};
use crate::codec::v2::TransferId;
use crate::staged::Part;

mod answers;
pub(super) mod ask;
pub(super) mod change;
pub(super) mod control;
mod crew;
mod download;
pub(super) mod give;
pub(super) mod link;
pub(super) mod listening;
pub(super) mod listing;
mod pour;
pub(super) mod small;
pub(super) mod upload;
pub(super) mod whole;
mod work;

pub(super) use crew::in_runtime;

use download::Download;

/// What one attempt leaves for the next.
#[derive(Default)]
pub(super) struct Remains {
    /// The part of the target, locked.
    part: Option<Part>,
    /// What was there before was forgotten, as was asked for.
    restarted: bool,
    /// Bytes that did not have to be fetched, as of the first attempt.
    resumed: Option<u64>,
    /// A server spoke version 2: silence is no sign of another version any more.
    has_spoken: bool,
    /// How far a stream has come.
    poured: pour::Poured,
    /// Blocks by which attempts came further than all before them.
    pub(super) blocks: u64,
    /// The most blocks that were ever there. A server whose file becomes another one again and again
    /// could have the same few blocks fetched for ever.
    most: u64,
}

/// Why there is no file after an attempt.
pub(super) enum Stop {
    /// It failed.
    Failed(FetchError),
    /// The server speaks version 1 only, as it seems; `said_so` tells whether it answered so.
    Old {
        /// The server.
        peer: SocketAddr,
        /// It did not just fall silent.
        said_so: bool,
    },
}

impl From<FetchError> for Stop {
    fn from(error: FetchError) -> Self {
        Self::Failed(error)
    }
}

impl Remains {
    /// Whether a server that does not answer a hello is more likely away than of version 1.
    pub(super) fn expects_v2(&self) -> bool {
        self.has_spoken || self.part.as_ref().is_some_and(|part| part.kept().is_some())
    }

    /// Lets go of the part: its blocks stay on the disk, if there are any.
    pub(super) fn release(&mut self) {
        self.part = None;
    }
}

/// Makes one attempt.
pub(super) async fn run(attempt: &Attempt<'_>, remains: &mut Remains) -> Result<Got, Stop> {
    match attempt.target {
        Target::File(_) => Download::new(attempt, remains).run().await,
        Target::Stream(_) | Target::Stdout => pour::run(attempt, remains).await,
    }
}

/// A number that no other transfer has; never zero.
pub(super) fn random() -> TransferId {
    let mut id = TransferId::default();
    while id == TransferId::default() {
        fastrand::fill(&mut id);
    }
    id
}
