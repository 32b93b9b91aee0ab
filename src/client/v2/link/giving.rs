//! The other direction: what a link needs to give a server what that asks for, or to send much while it listens.
//!
//! Nothing here waits for more than readiness; whoever calls has the deadlines. Who asks and who tells follows from
//! each frame. What is asked for is not decided here.

use std::io;

use bytes::Buf;
use tokio::io::Interest;
use tokio::time::{Instant, timeout, timeout_at};

use super::{BOTH, Link, Until, closed};
use crate::client::FetchError;
use crate::client::stream::GiveError;
use crate::codec::v2::{ClientFrame, ErrorCode, Frame, ServerFrame};
use crate::error::Code;
use crate::exchange::Heard;
use crate::limits::{PUT_FAREWELL, PUT_UNANSWERED_MAX, WRITE_PROBE_INTERVAL};
use crate::storage::StoredFile;
use crate::text;

/// Why bytes of a file were not given.
pub(in crate::client::v2) enum Ungiven {
    /// The connection broke.
    Link(FetchError),
    /// The file could not be read.
    File(io::Error),
}

impl Link {
    /// When the next thing has to have come, from now on.
    pub(in crate::client::v2) fn until(&self) -> Until {
        Until::new(self.patience)
    }

    /// The next frame that is here, of whichever side.
    pub(in crate::client::v2) fn frame(&mut self) -> Result<Option<Frame>, FetchError> {
        Frame::decode(&mut self.input).map_err(|source| self.violated(source))
    }

    /// What it means that the server tells this.
    pub(in crate::client::v2) fn told(&mut self, frame: ServerFrame) -> Result<Heard, FetchError> {
        self.requester.handle(frame).map_err(|source| self.violated(source))
    }

    /// Reads what has come; says how much, 0 if nothing has.
    pub(in crate::client::v2) fn read_now(&mut self) -> Result<usize, FetchError> {
        self.input.reserve(self.read_ahead);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(self.lost(closed())),
            Ok(count) => Ok(count),
            Err(error) if is_later(&error) => Ok(0),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Writes some bytes; says how many, `None` if there is no room now.
    pub(in crate::client::v2) fn write_now(&mut self, bytes: &[u8]) -> Result<Option<usize>, FetchError> {
        match self.stream.try_write(bytes) {
            Ok(count) => Ok(Some(count)),
            Err(error) if is_later(&error) => Ok(None),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Writes some bytes of a file, at most `count`; says how many, `None` if there is no room now. There are 0 where
    /// the file ends.
    pub(in crate::client::v2) fn give_now(
        &mut self,
        file: &StoredFile,
        offset: u64,
        count: u64,
    ) -> Result<Option<usize>, Ungiven> {
        match self.stream.try_send_file(file, offset, count) {
            Ok(count) => Ok(Some(count)),
            Err(GiveError::Socket(error)) if is_later(&error) => Ok(None),
            Err(GiveError::Socket(error)) => Err(Ungiven::Link(self.lost(error))),
            Err(GiveError::File(error)) => Err(Ungiven::File(error)),
        }
    }

    /// Whether something was taken to be sent that has not gone out.
    pub(in crate::client::v2) fn has_unsent(&self) -> bool {
        self.stream.has_unsent()
    }

    /// Waits until the server may be read from, or written to, but not for longer than this; who waits for long tries
    /// anew, because a slow reader may have made too little room to be told of.
    pub(in crate::client::v2) async fn ready(
        &mut self,
        reads: bool,
        writes: bool,
        deadline: Instant,
    ) -> Result<(), FetchError> {
        let interest = match (reads, writes) {
            (true, true) => BOTH,
            (false, true) => Interest::WRITABLE,
            _ => Interest::READABLE,
        };
        let probe = Instant::now() + WRITE_PROBE_INTERVAL;
        match timeout_at(deadline.min(probe), self.stream.ready(interest)).await {
            Ok(Err(error)) => Err(self.lost(error)),
            Ok(Ok(())) => Ok(()),
            Err(_elapsed) if Instant::now() >= deadline => Err(self.silent()),
            Err(_elapsed) => Ok(()),
        }
    }

    /// Puts a frame behind what is to be sent while answers are read.
    pub(in crate::client::v2) fn put_along(&mut self, frame: &ClientFrame) -> Result<(), FetchError> {
        frame.encode(&mut self.outgoing).map_err(|source| self.violated(source))
    }

    /// Sends bytes at the pace of the file, and leaves what there is no room for to be sent while answers are read. That
    /// the connection broke is told there, behind the answers that had come.
    pub(in crate::client::v2) async fn give_along(&mut self, bytes: &[u8]) {
        for stretch in bytes.chunks(self.arrived.pace.stretch()) {
            self.outgoing.extend_from_slice(stretch);
            self.flush_now();
            self.arrived.pace.rest(stretch.len()).await;
        }
    }

    /// Sends what there is room for.
    fn flush_now(&mut self) {
        while !self.outgoing.is_empty() || self.stream.has_unsent() {
            match self.stream.try_write(&self.outgoing) {
                Ok(count) => self.outgoing.advance(count),
                Err(_) => break,
            }
        }
    }

    /// As [`Self::hear`], while much is sent: what the server takes brings it on, too.
    pub(in crate::client::v2) async fn hear_along(&mut self) -> Result<Heard, FetchError> {
        let mut until = self.until();
        let mut left = self.outgoing.len();
        loop {
            let heard = self.requester.hear(&mut self.input);
            match heard.map_err(|source| self.violated(source))? {
                Some(Heard::Waiting) => until.waits(),
                Some(Heard::Nothing | Heard::Proof | Heard::Pong(..)) => {}
                Some(heard) => return Ok(heard),
                None => {
                    let probe = until.deadline.min(Instant::now() + WRITE_PROBE_INTERVAL);
                    match timeout_at(probe, self.talk()).await {
                        Ok(Ok(0)) => return Err(self.lost(closed())),
                        // What had come before it broke still counts.
                        Ok(Err(error)) => match self.read_rest().await {
                            0 => return Err(self.lost(error)),
                            _ => continue,
                        },
                        Ok(Ok(_)) | Err(_) => {}
                    }
                }
            }
            if self.outgoing.len() < left {
                (left, until) = (self.outgoing.len(), self.until());
            }
            if Instant::now() >= until.deadline {
                return Err(self.silent());
            }
        }
    }

    /// Reads what had come on a connection that broke, some at a time; says how much.
    pub(in crate::client::v2) async fn read_rest(&mut self) -> usize {
        // Whoever has only written does not know yet that there is something to read.
        let _ = timeout(PUT_FAREWELL, self.stream.ready(Interest::READABLE)).await;
        let mut rest = 0;
        while rest < PUT_UNANSWERED_MAX {
            match self.read_now() {
                Ok(count @ 1..) => rest += count,
                _ => break,
            }
        }
        rest
    }

    /// What it means that something could not be changed on the server, or not be stored as `name`.
    pub(in crate::client::v2) fn unchanged(&self, code: ErrorCode, said: &[u8], name: &[u8]) -> FetchError {
        let (peer, text) = (self.peer, text::shown(said).to_string());
        let name = || text::shown(name).to_string();
        match code.kind() {
            Code::NotAllowed => FetchError::Refused { name: name(), text },
            Code::LocalIo => FetchError::Unstored { peer, text },
            Code::Cancelled => FetchError::Cancelled { peer },
            code => FetchError::Failed { peer, code, text },
        }
    }

    /// What it means that the server ends the connection, where it was asked to change something. Whoever does not
    /// know such requests takes them for a violation.
    pub(in crate::client::v2) fn ended(&self, code: ErrorCode, said: &[u8]) -> FetchError {
        match code.kind() {
            Code::Protocol => FetchError::NoUploads { server: self.peer.to_string() },
            _ => self.failed(code, said),
        }
    }

    pub(in crate::client::v2) fn lost(&self, source: io::Error) -> FetchError {
        FetchError::Lost { peer: self.peer, when: self.arrived.shown(), source }
    }

    pub(in crate::client::v2) fn silent(&self) -> FetchError {
        let (when, after) = (self.arrived.shown(), self.patience.timeout);
        FetchError::Silent { peer: self.peer, when, after }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
