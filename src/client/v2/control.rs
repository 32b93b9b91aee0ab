//! What is asked of a server about itself, and the transfers that it is told to end.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::ask::link_of;
use super::link::Link;
use crate::client::{FetchError, Observer, Server, Settings, Tried, with_retries};
use crate::codec::WireError;
use crate::control::{Question, Record};
use crate::error::Code;
use crate::exchange::{Heard, Requester};

/// One thing that a server says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// What it means, as far as this program knows.
    pub record: Record,
    /// The JSON object as it came, also with what this program does not know.
    pub json: String,
}

/// Asks a server about itself, or to end a transfer; what it says goes into `said`, in order, while more is asked for
/// only when it is taken. It takes a key with the right to administer.
///
/// Where there is no connection it is tried again. Once something was asked it is not: the server may have done
/// what it was told to, and a list would begin anew.
///
/// # Errors
/// As [`stat`](super::ask::stat), and [`FetchError::Unknowing`] if the server is of a kind that cannot be asked. If
/// nobody can take what it says any more, it was interrupted.
pub async fn control(
    server: &Server,
    question: &Question,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
    said: &Sender<Said>,
) -> Result<(), FetchError> {
    question.check().map_err(|_| FetchError::Selection { source: TOO_LONG })?;
    let asked = with_retries(settings, observer, stopping, async || {
        let asking = ask(server, question, settings, observer, said);
        let asked = stopping.run_until_cancelled(asking).await;
        Tried { result: asked.unwrap_or(Err(FetchError::Interrupted)), has_brought_something: false }
    });
    asked.await?
}

const TOO_LONG: WireError = WireError::Frame("what is asked of the server is too long");

/// Fails where it may be tried again; else says how it ended.
async fn ask(
    server: &Server,
    question: &Question,
    settings: &Settings,
    observer: &dyn Observer,
    said: &Sender<Said>,
) -> Result<Result<(), FetchError>, FetchError> {
    let first = |requester: &mut Requester| requester.control(question.clone());
    let opening = Link::open(server, settings, observer, Arc::default(), first).await?;
    Ok(hear(&mut link_of(opening)?, said).await)
}

async fn hear(link: &mut Link, said: &Sender<Said>) -> Result<(), FetchError> {
    let peer = link.peer();
    loop {
        let heard = link.hear().await.map_err(|error| match error {
            // Whoever does not know the question takes it for a violation.
            FetchError::Failed { code: Code::Protocol, .. } => FetchError::Unknowing { peer },
            other => other,
        })?;
        match heard {
            Heard::Record(_, json) => {
                let one = parsed(&json).ok_or_else(|| link.violated(NO_RECORD))?;
                said.send(one).await.map_err(|_closed| FetchError::Interrupted)?;
            }
            Heard::End { .. } => return Ok(()),
            Heard::Failed(_, code, text) => return Err(link.failed(code, &text)),
            _ => {}
        }
    }
}

const NO_RECORD: WireError = WireError::Frame("a record is no JSON object, or one of another kind");

fn parsed(json: &Bytes) -> Option<Said> {
    let record = Record::parse(json).ok()?;
    Some(Said { record, json: String::from_utf8(json.to_vec()).ok()? })
}
