//! One connection that speaks version 2: bytes in and out, every wait with a deadline.
//!
//! The hello carries the first request. What the server answers decides whether there is a link at all:
//! a server of version 1 says so, or says nothing. Bytes of a file go from the socket to where they
//! are wanted, without a stop in between.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::Interest;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::codec::Encoder;

use crate::client::attempt::within;
use crate::client::secure::{self, Connection};
use crate::client::stream::{self, Stream};
use crate::client::{FetchError, Observer, Server, Settings};
use crate::codec::WireError;
use crate::codec::v1::RequestCodec;
use crate::codec::v2::{ClientFrame, ErrorCode, Hello, RequestId};
use crate::error::Code;
use crate::exchange::{Heard, Requester};
use crate::limits::{V2_HELLO_PATIENCE, V2_INPUT, V2_WINDOW};
use crate::names::FileName;
use crate::text;
use crate::tree::BlockHash;

mod arrived;
mod data;
mod giving;
mod listening;
mod patience;

pub(super) use arrived::Arrived;
pub(super) use giving::Ungiven;
use patience::Patience;
pub(super) use patience::Until;

/// A connection to a server that speaks version 2.
pub(super) struct Link {
    stream: Stream,
    peer: SocketAddr,
    patience: Patience,
    /// Requests that the server lets be in flight.
    requests: u32,
    requester: Requester,
    input: BytesMut,
    /// Least room for what is read at once.
    read_ahead: usize,
    /// Frames that are to be sent while answers are read.
    outgoing: BytesMut,
    arrived: Arc<Arrived>,
}

/// A link on its way from one thread's runtime to another's.
pub(super) struct Parked {
    stream: stream::Parked,
    peer: SocketAddr,
    patience: Patience,
    requests: u32,
    requester: Requester,
    input: BytesMut,
    arrived: Arc<Arrived>,
}

/// What came of a hello.
pub(super) enum Opening {
    /// The server speaks version 2.
    Link(Box<Link>),
    /// It does not, or not now: `said_so` tells whether it answered in version 1 or not at all.
    Old {
        /// The server.
        peer: SocketAddr,
        /// It answered as version 1 does.
        said_so: bool,
    },
}

impl Link {
    /// Connects and says hello, with a first request.
    pub(super) async fn open(
        server: &Server,
        settings: &Settings,
        observer: &dyn Observer,
        arrived: Arc<Arrived>,
        first: impl FnOnce(&mut Requester) -> ClientFrame,
    ) -> Result<Opening, FetchError> {
        Self::open_within(server, settings, observer, arrived, V2_WINDOW, first).await
    }

    /// As [`Self::open`], with a window for each request.
    pub(super) async fn open_within(
        server: &Server,
        settings: &Settings,
        observer: &dyn Observer,
        arrived: Arc<Arrived>,
        window: u64,
        first: impl FnOnce(&mut Requester) -> ClientFrame,
    ) -> Result<Opening, FetchError> {
        let patience = Patience::of(settings);
        let connection = secure::open(server, settings, observer).await?;
        let Connection { mut stream, peer, key } = connection;
        let mut requester = Requester::new();
        requester.prefer(settings.priority);
        let first = first(&mut requester);
        let hello = Hello { window, first: key.is_none().then(|| first.clone()), ..Hello::default() };
        let (name, has_first) = hello.to_name();
        let (mut output, mut behind) = (BytesMut::new(), BytesMut::new());
        let broken = |source| FetchError::Protocol { peer, source };
        RequestCodec::default().encode(&name, &mut output).map_err(broken)?;
        let has_key = key.is_some();
        if let Some(key) = key {
            ClientFrame::Auth(Ok(key)).encode(&mut behind).map_err(broken)?;
        }
        if !has_first {
            first.encode(&mut behind).map_err(broken)?;
        }
        if has_key && stream.is_tls() {
            // Nobody but the server can read it, and it speaks version 2: the key need not wait.
            output.unsplit(behind.split());
        }
        let deadline = Instant::now() + patience.timeout;
        let saying = stream.write_all(&output);
        if within(deadline, patience.timeout, peer, "while the request was sent", saying).await.is_err() {
            return Ok(Opening::Old { peer, said_so: false });
        }
        let mut input = BytesMut::with_capacity(V2_INPUT);
        let reading = stream.read_buf(&mut input, usize::MAX);
        match timeout(V2_HELLO_PATIENCE.min(patience.timeout), reading).await {
            Ok(Ok(1..)) if input[0] == 0 => {}
            Ok(Ok(1..)) => return Ok(Opening::Old { peer, said_so: true }),
            _ => return Ok(Opening::Old { peer, said_so: false }),
        }
        let (read_ahead, outgoing) = (V2_INPUT, BytesMut::new());
        let mut link =
            Self { stream, peer, patience, requests: 1, requester, input, read_ahead, outgoing, arrived };
        match link.hear().await? {
            Heard::Welcome(welcome) => link.requests = welcome.requests.max(1),
            _ => return Err(broken(WireError::Order("the first frame is no welcome"))),
        }
        link.send_bytes(&behind).await?;
        Ok(Opening::Link(Box::new(link)))
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Makes a request and sends it; returns its number.
    pub(super) async fn ask(
        &mut self,
        make: impl FnOnce(&mut Requester) -> ClientFrame,
    ) -> Result<RequestId, FetchError> {
        let frame = make(&mut self.requester);
        self.send(&frame).await?;
        Ok(self.requester.last())
    }

    /// Makes a request that is sent while answers are read; returns its number.
    pub(super) fn ask_along(
        &mut self,
        make: impl FnOnce(&mut Requester) -> ClientFrame,
    ) -> Result<RequestId, FetchError> {
        let frame = make(&mut self.requester);
        frame.encode(&mut self.outgoing).map_err(|source| self.violated(source))?;
        Ok(self.requester.last())
    }

    /// Gives a request up, as [`Self::ask_along`] makes one.
    pub(super) fn cancel_along(&mut self, request: RequestId) -> Result<(), FetchError> {
        let Some(frame) = self.requester.cancel(request) else { return Ok(()) };
        frame.encode(&mut self.outgoing).map_err(|source| self.violated(source))
    }

    /// Reads so many bytes at once from now on, if there are as many: for many small answers.
    pub(super) fn read_ahead(&mut self, bytes: usize) {
        self.read_ahead = bytes;
    }

    /// How many requests may be in flight.
    pub(super) fn requests(&self) -> usize {
        usize::try_from(self.requests).unwrap_or(usize::MAX)
    }

    /// The number of the newest request.
    pub(super) fn last(&self) -> RequestId {
        self.requester.last()
    }

    /// Gives a request up.
    pub(super) async fn cancel(&mut self, request: RequestId) -> Result<(), FetchError> {
        match self.requester.cancel(request) {
            Some(frame) => self.send(&frame).await,
            None => Ok(()),
        }
    }

    pub(super) async fn send(&mut self, frame: &ClientFrame) -> Result<(), FetchError> {
        let mut output = BytesMut::new();
        frame.encode(&mut output).map_err(|source| self.violated(source))?;
        self.send_bytes(&output).await
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), FetchError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let patience = self.patience.timeout;
        let deadline = Instant::now() + patience;
        let sending = self.stream.write_all(bytes);
        within(deadline, patience, self.peer, "while a request was sent", sending).await
    }

    /// The next thing that the server says and that matters. A failure of the whole connection is an
    /// error, and so is it if nothing comes that brings the file on, whatever else comes.
    pub(super) async fn hear(&mut self) -> Result<Heard, FetchError> {
        let mut until = Until::new(self.patience);
        loop {
            match self.hear_any(&mut until).await? {
                Heard::Pong(..) => {}
                heard => return Ok(heard),
            }
        }
    }

    /// Waits for the answer to a ping.
    pub(super) async fn hear_pong(&mut self, bytes: [u8; 8]) -> Result<(), FetchError> {
        let mut until = Until::new(self.patience);
        loop {
            if matches!(self.hear_any(&mut until).await?, Heard::Pong(_, echoed) if echoed == bytes) {
                return Ok(());
            }
        }
    }

    /// What comes next, except what only moves the time until which it has to come.
    async fn hear_any(&mut self, until: &mut Until) -> Result<Heard, FetchError> {
        loop {
            let heard = self.requester.hear(&mut self.input);
            match heard.map_err(|source| self.violated(source))? {
                Some(Heard::Failed(0, code, text)) => return Err(self.failed(code, &text)),
                Some(Heard::Waiting) => until.waits(),
                Some(Heard::Proof) => *until = Until::new(self.patience),
                Some(Heard::Nothing) => {}
                Some(heard) => return Ok(heard),
                None => match timeout_at(until.deadline, self.talk()).await {
                    Ok(Ok(0)) => return Err(self.lost(closed())),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(self.lost(error)),
                    Err(_elapsed) => return Err(self.silent()),
                },
            }
            // Bytes that are there already are read whatever the time is.
            if Instant::now() >= until.deadline {
                return Err(self.silent());
            }
        }
    }

    /// Reads what comes next, and sends meanwhile what is to be sent: if either end first sent all that it
    /// has, both could wait for the other to read.
    async fn talk(&mut self) -> io::Result<usize> {
        loop {
            while !self.outgoing.is_empty() || self.stream.has_unsent() {
                match self.stream.try_write(&self.outgoing) {
                    Ok(count) => self.outgoing.advance(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            self.input.reserve(self.read_ahead);
            match self.stream.try_read_buf(&mut self.input) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            let has_sent = self.outgoing.is_empty() && !self.stream.has_unsent();
            let writes = if has_sent { Interest::READABLE } else { BOTH };
            self.stream.ready(writes).await?;
        }
    }

    /// Checks a block that has arrived; `false` if it is damaged.
    pub(super) fn check(&mut self, request: RequestId, hash: BlockHash) -> Result<bool, FetchError> {
        use crate::tree::ProofError;
        match self.requester.check(request, hash) {
            Ok(()) => Ok(true),
            Err(ProofError::Block(_)) => Ok(false),
            Err(error) => Err(self.violated(error.into())),
        }
    }

    /// Leaves the runtime that it was made in.
    pub(super) fn park(self) -> Result<Parked, FetchError> {
        let Self { stream, peer, patience, requests, requester, input, arrived, .. } = self;
        let lost = |source| FetchError::Lost { peer, when: "between two threads".to_owned(), source };
        let stream = stream.park().map_err(lost)?;
        Ok(Parked { stream, peer, patience, requests, requester, input, arrived })
    }

    /// What it means that a request failed.
    pub(super) fn failed(&self, code: ErrorCode, said: &[u8]) -> FetchError {
        let (peer, said) = (self.peer, text::shown(said).to_string());
        match code.kind() {
            Code::SourceChanged => FetchError::SourceChanged { peer },
            Code::LocalIo => FetchError::Unavailable { peer, text: said },
            Code::Cancelled => FetchError::Cancelled { peer },
            code => FetchError::Failed { peer, code, text: said },
        }
    }

    /// The name that the server says to have given a file.
    pub(super) fn named(&self, name: &[u8]) -> Result<FileName, FetchError> {
        let unfit = |_| self.violated(WireError::Frame("a file was stored under a name that is none"));
        FileName::parse(name).map_err(unfit)
    }

    pub(super) fn violated(&self, source: WireError) -> FetchError {
        FetchError::Violated { peer: self.peer, source }
    }
}

impl Parked {
    /// Goes on in the present runtime.
    pub(super) fn unpark(self) -> Result<Link, FetchError> {
        let Self { stream, peer, patience, requests, requester, input, arrived } = self;
        let lost = |source| FetchError::Lost { peer, when: "between two threads".to_owned(), source };
        let stream = stream.unpark().map_err(lost)?;
        let (read_ahead, outgoing) = (V2_INPUT, BytesMut::new());
        Ok(Link { stream, peer, patience, requests, requester, input, read_ahead, outgoing, arrived })
    }
}

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it")
}

#[cfg(test)]
#[path = "link/tests.rs"]
mod tests;
