//! The body of CONTROL: what is asked of a server about itself.

use bytes::{BufMut, BytesMut};

use super::Body;
use super::client_frame::put_name;
use crate::codec::WireError;
use crate::control::{Direction, Outcome, Question, Wanted};

const STATUS: u8 = 1;
const CLIENTS: u8 = 2;
const HISTORY: u8 = 3;
const CANCEL: u8 = 4;

/// Stands for no moment from which on, and for none until which.
const NO_SINCE: i64 = i64::MIN;
const NO_UNTIL: i64 = i64::MAX;

pub(super) fn parse(body: &mut Body) -> Result<Question, WireError> {
    let question = match body.u8()? {
        STATUS => Question::Status,
        CLIENTS => Question::Clients,
        HISTORY => Question::History(wanted(body)?),
        CANCEL => Question::Cancel(text(body)?),
        unknown => Question::Unknown(unknown),
    };
    question.check().map_err(|_| TOO_LONG)?;
    Ok(question)
}

pub(super) fn check(question: &Question) -> Result<(), WireError> {
    question.check().map_err(|_| TOO_LONG)
}

pub(super) fn put(question: &Question, dst: &mut BytesMut) {
    match question {
        Question::Status => dst.put_u8(STATUS),
        Question::Clients => dst.put_u8(CLIENTS),
        Question::History(wanted) => {
            dst.put_u8(HISTORY);
            put_wanted(wanted, dst);
        }
        Question::Cancel(id) => {
            dst.put_u8(CANCEL);
            put_name(id.as_bytes(), dst);
        }
        Question::Unknown(verb) => dst.put_u8(*verb),
    }
}

const TOO_LONG: WireError = WireError::Frame("what is asked of the server is too long");

fn wanted(body: &mut Body) -> Result<Wanted, WireError> {
    let [since, until] = [body.array()?, body.array()?].map(i64::from_be_bytes);
    let result = one_of(body.u8()?, &Outcome::ALL)?;
    let direction = one_of(body.u8()?, &Direction::ALL)?;
    let limit = body.u32()?;
    let (client, name) = (text(body)?, text(body)?);
    let since_ms = (since != NO_SINCE).then_some(since);
    let until_ms = (until != NO_UNTIL).then_some(until);
    Ok(Wanted { since_ms, until_ms, result, direction, client, name, limit })
}

fn put_wanted(wanted: &Wanted, dst: &mut BytesMut) {
    dst.put_i64(wanted.since_ms.unwrap_or(NO_SINCE));
    dst.put_i64(wanted.until_ms.unwrap_or(NO_UNTIL));
    dst.put_u8(number_of(wanted.result, &Outcome::ALL));
    dst.put_u8(number_of(wanted.direction, &Direction::ALL));
    dst.put_u32(wanted.limit);
    put_name(wanted.client.as_bytes(), dst);
    put_name(wanted.name.as_bytes(), dst);
}

/// The one that has this number, counted from 1; 0 is none in particular.
fn one_of<T: Copy>(number: u8, all: &[T]) -> Result<Option<T>, WireError> {
    match usize::from(number).checked_sub(1) {
        None => Ok(None),
        Some(index) => all.get(index).copied().map(Some).ok_or(WireError::Frame("a filter is not known")),
    }
}

fn number_of<T: PartialEq>(one: Option<T>, all: &[T]) -> u8 {
    let index = one.and_then(|one| all.iter().position(|other| *other == one));
    index.and_then(|index| u8::try_from(index + 1).ok()).unwrap_or(0)
}

/// Text with its length before it.
fn text(body: &mut Body) -> Result<String, WireError> {
    let len = body.u16()?;
    let bytes = body.bytes(len.into())?;
    String::from_utf8(bytes.to_vec()).map_err(|_| WireError::Frame("what is asked of the server is no text"))
}
