//! What a running server says of itself, and the end of transfers by the word of whoever may say it.
//!
//! Answers come in pages, so that neither memory nor a lock is held for long however much there is to tell: whoever
//! has sent one asks for the next. Everything here takes a permit, which only the holder of an admin key gets.

use std::collections::HashMap;
use std::net::SocketAddr;

use jiff::Timestamp;

use super::access::Permit;
use super::live::Moving;
use super::{Event, Service};
use crate::catalog::CatalogError;
use crate::catalog::history::{Direction, Step, Transfer};
use crate::control::{Connected, Past, Question, Record, Status, Wanted};
use crate::error::Code;
use crate::limits::{CONTROL_CAUSE_MAX, CONTROL_NAME_MAX, CONTROL_TRANSFERS_MAX, HISTORY_PAGE};
use crate::patterns::{Pattern, PatternError, Verdict};
use crate::rights::Verb;
use crate::text::shortened;

/// What a connection does that moves nothing.
pub(super) const IDLE: &str = "idle";

/// How far an answer has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the last thing that was looked at.
    last: Option<i64>,
    /// How many were told.
    told: u32,
}

/// Some of an answer.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) records: Vec<Record>,
    /// Where it goes on; `None` at its end.
    pub(crate) next: Option<Place>,
}

/// Why there is no answer. The text is for the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControlError {
    /// What is asked is not known here.
    #[error("this server does not know the question {0}")]
    Unknown(u8),
    /// The pattern is none.
    #[error("{0}")]
    Pattern(#[from] PatternError),
    /// No transfer is called so.
    #[error("no running transfer has this id: it has ended, or never was")]
    NoTransfer,
    /// The history cannot be read.
    #[error("the history cannot be read now: {0}")]
    History(#[from] CatalogError),
    /// The server has no thread for it.
    #[error("{0}")]
    Aborted(String),
}

impl ControlError {
    /// The kind of failure.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Unknown(_) => Code::Unsupported,
            Self::Pattern(_) => Code::Usage,
            Self::NoTransfer => Code::NotFound,
            Self::History(_) | Self::Aborted(_) => Code::LocalIo,
        }
    }
}

/// What it takes to ask this; `None` if it is not known what is asked.
pub(crate) fn verb_of(question: &Question) -> Option<Verb> {
    match question {
        Question::Status => Some(Verb::Status),
        Question::Clients => Some(Verb::Clients),
        Question::History(_) => Some(Verb::History),
        Question::Cancel(_) => Some(Verb::Cancel),
        Question::Unknown(_) => None,
    }
}

impl Service {
    /// The answer to a question from a place on, or the first part of it. Blocks.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn answer(
        &self,
        permit: &Permit<Verb>,
        question: &Question,
        place: Place,
    ) -> Result<Page, ControlError> {
        if place == Place::default() {
            let (peer, key) = (permit.caller().peer(), permit.caller().key_name());
            self.tell(&Event::Steered { peer, key, verb: *permit.name() });
        }
        match (question, permit.name()) {
            (Question::Status, Verb::Status) => Ok(self.status(place)),
            (Question::Clients, Verb::Clients) => Ok(self.clients(place)),
            (Question::History(wanted), Verb::History) => self.past(wanted, place),
            (Question::Cancel(id), Verb::Cancel) => {
                let record = self.cancel(permit, id)?;
                Ok(Page { records: vec![record], next: None })
            }
            (Question::Unknown(verb), _) => Err(ControlError::Unknown(*verb)),
            // What is permitted is something else.
            _ => Err(ControlError::Unknown(0)),
        }
    }

    fn status(&self, place: Place) -> Page {
        let mut records = Vec::new();
        let live = &self.inner.live;
        if place == Place::default() {
            let door = live.door();
            let mut status = Status {
                server: env!("CARGO_PKG_VERSION").to_owned(),
                started: format!("{:.0}", live.started),
                seconds: live.began.elapsed().as_secs(),
                addresses: door.addresses.iter().map(ToString::to_string).collect(),
                connections: live.connections() as u64,
                connections_max: door.connections_max as u64,
                running: live.all_moving().count() as u64,
                ..Status::default()
            };
            live.counts.tell(&mut status);
            records.push(Record::Status(status));
        }
        let some = live.moving(serial_of(place));
        records
            .extend(some.iter().filter(|moving| moving.is_running()).map(|one| Record::Transfer(one.tell())));
        let next = some.last().map(|last| Place::behind(last.serial()));
        Page { records, next }
    }

    fn clients(&self, place: Place) -> Page {
        let live = &self.inner.live;
        let some = live.present(serial_of(place));
        let mut told: HashMap<SocketAddr, Connected> =
            some.iter().map(|presence| (presence.peer(), presence.tell())).collect();
        for moving in live.all_moving() {
            moving.each_peer(|peer| {
                let Some(connected) = told.get_mut(peer) else { return };
                if connected.doing == IDLE {
                    connected.doing = doing(&moving);
                }
                if connected.transfers.len() < CONTROL_TRANSFERS_MAX {
                    connected.transfers.push(moving.id().to_owned());
                }
            });
        }
        let records = some.iter().filter_map(|presence| told.remove(&presence.peer())).map(Record::Client);
        let records = records.collect();
        Page { records, next: some.last().map(|last| Place::behind(last.serial())) }
    }

    fn past(&self, wanted: &Wanted, place: Place) -> Result<Page, ControlError> {
        let Wanted { since_ms, until_ms, limit, ref name, .. } = *wanted;
        let pattern = match name.as_str() {
            "" => None,
            name => Some(Pattern::parse(Verdict::Include, name.to_owned().into())?),
        };
        let step = Step { since_ms, until_ms, before: place.last, most: HISTORY_PAGE };
        let rows = self.inner.catalog.history(&step)?;
        let last = rows.last().map(|(number, _)| *number);
        let is_end = rows.len() < usize::try_from(HISTORY_PAGE).unwrap_or(usize::MAX);
        let is_wanted = |transfer: &Transfer| {
            let fits = |pattern: &Pattern| pattern.matches(&transfer.name);
            wanted.result.is_none_or(|result| result == transfer.outcome())
                && wanted.direction.is_none_or(|direction| direction == transfer.direction)
                && (wanted.client.is_empty() || is_of(transfer, &wanted.client))
                && pattern.as_ref().is_none_or(fits)
        };
        let left = if limit == 0 { u32::MAX } else { limit.saturating_sub(place.told) };
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let found = rows.into_iter().filter(|(_, transfer)| is_wanted(transfer)).take(most);
        let records: Vec<_> = found.map(|(_, transfer)| Record::Past(told(transfer))).collect();
        let told = place.told.saturating_add(u32::try_from(records.len()).unwrap_or(u32::MAX));
        let has_all = is_end || (limit > 0 && told >= limit);
        let next = last.filter(|_| !has_all).map(|last| Place { last: Some(last), told });
        Ok(Page { records, next })
    }

    fn cancel(&self, permit: &Permit<Verb>, id: &str) -> Result<Record, ControlError> {
        let moving = self.inner.live.find(id).ok_or(ControlError::NoTransfer)?;
        let caller = permit.caller();
        let by = caller.key_name().map_or_else(|| caller.peer().to_string(), ToString::to_string);
        if moving.direction() == Direction::Upload && !self.may_cancel_upload(&moving) {
            return Err(ControlError::NoTransfer);
        }
        if !self.inner.live.strike(&moving, &by) {
            return Err(ControlError::NoTransfer);
        }
        let (name, of, direction) = (moving.name(), moving.caller().peer(), moving.direction());
        let (peer, key) = (caller.peer(), caller.key_name());
        self.tell(&Event::Cancelled { peer, key, id: moving.id(), name, of, direction });
        if direction == Direction::Upload {
            self.cancel_upload(&moving);
        }
        Ok(Record::Cancelled(moving.tell_cancelled()))
    }
}

impl Place {
    fn behind(serial: u64) -> Self {
        Self { last: i64::try_from(serial).ok(), told: 0 }
    }
}

fn serial_of(place: Place) -> u64 {
    place.last.and_then(|last| u64::try_from(last).ok()).unwrap_or(0)
}

fn doing(moving: &Moving) -> String {
    let name = String::from_utf8_lossy(moving.name().as_bytes());
    format!("{} {}", moving.direction().name(), shortened(&name, CONTROL_NAME_MAX))
}

/// Whether it is of the key that is called so, or of a client with this address.
fn is_of(transfer: &Transfer, client: &str) -> bool {
    let address = transfer.peer.rsplit_once(':').map_or("", |(address, _port)| address);
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    transfer.key.as_deref() == Some(client) || [&*transfer.peer, address, bare].contains(&client)
}

fn told(transfer: Transfer) -> Past {
    let ended = Timestamp::from_millisecond(transfer.ended_ms).unwrap_or_default();
    Past {
        ended: format!("{ended:.3}"),
        seconds: transfer.seconds,
        result: transfer.outcome().name().to_owned(),
        name: String::from_utf8_lossy(&transfer.name).into_owned(),
        direction: transfer.direction.name().to_owned(),
        peer: transfer.peer,
        key: transfer.key,
        dialect: transfer.dialect,
        files: transfer.files,
        size: transfer.size,
        moved: transfer.moved,
        digest: transfer.digest,
        cause: transfer.cause.map(|cause| shortened(&cause, CONTROL_CAUSE_MAX)),
        cancelled_by: transfer.cancelled_by,
    }
}
