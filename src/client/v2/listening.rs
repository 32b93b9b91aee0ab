//! The connection of a client that listens: told of files, pinged, and told what came of them.
//!
//! What is done with a file is for [`crate::client::listen`] to say. A connection that breaks is not replaced here.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::ask::link_of;
use super::link::Link;
use crate::client::{FetchError, Observer, Server, Settings};
use crate::codec::v2::{ClientFrame, ErrorCode, Listen, Pushed, Received, RequestId};
use crate::exchange::{Heard, Requester};
use crate::limits::LISTEN_PING_INTERVAL;
use crate::names::{PushId, ReceiverName};
use crate::text;
use crate::tree::Root;

/// A connection that listens.
pub(in crate::client) struct Ear {
    link: Link,
    request: RequestId,
    pings: u64,
    /// When the next ping is due.
    next: Instant,
    /// When the answer to the last one has to have come.
    answer: Option<Instant>,
}

impl Ear {
    /// Connects and listens under a name; when this returns the server has understood.
    pub(in crate::client) async fn open(
        server: &Server,
        receiver: &ReceiverName,
        settings: &Settings,
        observer: &dyn Observer,
    ) -> Result<Self, FetchError> {
        let receiver = Bytes::copy_from_slice(receiver.as_str().as_bytes());
        let first = |requester: &mut Requester| requester.listen(Listen { receiver });
        let opening = Link::open(server, settings, observer, Arc::default(), first).await?;
        let link = link_of(opening)?;
        let request = link.last();
        let mut ear = Self { link, request, pings: 0, next: Instant::now(), answer: None };
        ear.ping().await?;
        Ok(ear)
    }

    /// The server's address.
    pub(in crate::client) fn peer(&self) -> std::net::SocketAddr {
        self.link.peer()
    }

    /// Whether the server has answered everything; [`Self::hear`] has to be called until it has.
    pub(in crate::client) fn is_answered(&self) -> bool {
        self.answer.is_none()
    }

    async fn ping(&mut self) -> Result<(), FetchError> {
        self.pings += 1;
        self.next = Instant::now() + LISTEN_PING_INTERVAL;
        self.answer = Some(Instant::now() + self.link.patience());
        self.link.send(&ClientFrame::Ping(0, self.pings.to_be_bytes())).await
    }

    /// The next file that the server tells of, or `None` when it has answered a ping. Pings it when that is due. Whoever
    /// gives up waiting loses nothing.
    pub(in crate::client) async fn hear(&mut self) -> Result<Option<Pushed>, FetchError> {
        loop {
            let deadline = self.answer.unwrap_or(self.next + self.link.patience());
            let heard = tokio::select! {
                heard = self.link.hear_until(deadline) => Some(heard?),
                () = sleep_until(self.next) => None,
            };
            match heard {
                None => self.ping().await?,
                Some(Heard::Pushed(request, pushed)) if request == self.request => return Ok(Some(pushed)),
                Some(Heard::Pong(_, bytes)) if bytes == self.pings.to_be_bytes() => {
                    self.answer = None;
                    return Ok(None);
                }
                Some(Heard::Failed(request, code, said)) if request == self.request => {
                    return Err(self.refused(code, &said));
                }
                Some(_) => {}
            }
        }
    }

    fn refused(&self, code: ErrorCode, said: &[u8]) -> FetchError {
        FetchError::Failed { peer: self.link.peer(), code: code.kind(), text: text::shown(said).to_string() }
    }

    /// Says what has come of a file, and asks whether the server has heard it.
    pub(in crate::client) async fn tell(
        &mut self,
        id: PushId,
        outcome: &Result<Root, FetchError>,
    ) -> Result<(), FetchError> {
        let outcome = match outcome {
            Ok(root) => Ok(*root),
            Err(error) => Err((error.code().into(), Bytes::from(error.to_string()))),
        };
        self.link.send(&ClientFrame::Received(self.request, Received { id, outcome })).await?;
        self.ping().await
    }
}
