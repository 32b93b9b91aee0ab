//! A connection's bytes: those of a socket as they are, or of a TLS session over it.
//!
//! Whoever speaks a version of the protocol reads and writes here and does not know which of both it is. The
//! plain way adds nothing to the socket's own calls. Over TLS what comes is opened straight into the place
//! where it is wanted. There are no deadlines here: whoever waits has one. An end that the peer did not
//! announce is an error over TLS, because anybody on the way can make one.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::{SEND_CHUNK, TLS_CLIENT_INPUT, TLS_CLIENT_OUTPUT, TLS_SCRATCH, V2_INPUT};
use crate::storage::StoredFile;
use crate::tls::{Opened, Session, TlsError};

/// A connection to a server.
pub(super) struct Stream {
    socket: TcpStream,
    /// Whose hands are shaken; `None` if all is sent as it is.
    tls: Option<Box<Session>>,
}

/// A connection on its way from one thread's runtime to another's.
pub(super) struct Parked {
    socket: std::net::TcpStream,
    tls: Option<Box<Session>>,
}

impl Stream {
    /// Bytes as they are.
    pub(super) fn plain(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }

    /// Shakes hands; `Err` holds the session's error, or the socket's.
    pub(super) async fn shake(socket: TcpStream, session: Session) -> Result<Self, ShakeError> {
        let mut stream = Self { socket, tls: Some(Box::new(session)) };
        let mut first = None;
        loop {
            let Some(session) = &mut stream.tls else { return Ok(stream) };
            let shaken = session.shake();
            // Even where it failed: the server is told why.
            let sent = stream.flush().await;
            if shaken.map_err(|error| ShakeError::Tls { error, first })? {
                return sent.map(|()| stream).map_err(ShakeError::Socket);
            }
            sent.map_err(ShakeError::Socket)?;
            stream.socket.readable().await.map_err(ShakeError::Socket)?;
            match stream.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if first.is_none() && error.kind() == io::ErrorKind::UnexpectedEof => {
                    let text = "it was closed without an answer; maybe the server does not speak TLS";
                    return Err(ShakeError::Socket(io::Error::new(error.kind(), text)));
                }
                Err(error) => return Err(ShakeError::Socket(error)),
                Ok(()) => first = first.or_else(|| stream.tls.as_mut()?.incoming().first().copied()),
            }
        }
    }

    /// Whether what is sent can be read by nobody else.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The session, if there is one.
    pub(super) fn session(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// Says goodbye, within this time, and closes.
    pub(super) async fn close(mut self, patience: Duration) {
        if let Some(session) = &mut self.tls
            && session.close().is_ok()
        {
            // Nobody waits for it.
            let _ = timeout(patience, self.flush()).await;
        }
    }

    /// Sends all of `bytes`, behind what [`Self::try_write`] has left.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(session) = &mut self.tls else { return self.socket.write_all(bytes).await };
        session.seal(bytes).map_err(broken)?;
        self.flush().await
    }

    /// Takes some of `bytes` to be sent, and sends what can be sent without waiting.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.tls else { return self.socket.try_write(bytes) };
        while !session.outgoing().is_empty() {
            let count = self.socket.try_write(session.outgoing())?;
            session.sent(count);
        }
        let taken = &bytes[..bytes.len().min(TLS_CLIENT_OUTPUT)];
        session.seal(taken).map_err(broken)?;
        match self.socket.try_write(session.outgoing()) {
            Ok(count) => session.sent(count),
            // It is sealed, so it counts as taken.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(taken.len())
    }

    /// As [`Self::try_write`], for at most `count` bytes of a file from `offset` on, which must be in it; 0 if
    /// they are not there any more. In clear they go from the page cache, over TLS through a piece of the stack.
    pub(super) fn try_send_file(
        &mut self,
        file: &StoredFile,
        offset: u64,
        count: u64,
    ) -> Result<usize, GiveError> {
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        if self.tls.is_none() {
            return match self.send_from_cache(file, offset, wanted) {
                Err(error) if is_without_sendfile(&error) => self.copy(file, offset, wanted),
                Err(error) if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::IO) => {
                    Err(GiveError::File(error))
                }
                result => result.map_err(GiveError::Socket),
            };
        }
        self.copy(file, offset, wanted)
    }

    fn send_from_cache(&mut self, file: &StoredFile, offset: u64, wanted: usize) -> io::Result<usize> {
        let wanted = wanted.min(usize::try_from(SEND_CHUNK).unwrap_or(usize::MAX));
        self.socket.try_io(Interest::WRITABLE, || {
            let mut at = offset;
            Ok(rustix::fs::sendfile(&self.socket, file, Some(&mut at), wanted)?)
        })
    }

    /// Reads a stretch of a file and writes it, over TLS record by record.
    fn copy(&mut self, file: &StoredFile, offset: u64, wanted: usize) -> Result<usize, GiveError> {
        let mut piece = [0; TLS_SCRATCH];
        let Some(session) = &mut self.tls else {
            let count =
                file.read_at(&mut piece[..wanted.min(TLS_SCRATCH)], offset).map_err(GiveError::File)?;
            return self.socket.try_write(&piece[..count]).map_err(GiveError::Socket);
        };
        // What is sealed goes first, so that no more than a stretch is ever held.
        while !session.outgoing().is_empty() {
            let count = self.socket.try_write(session.outgoing()).map_err(GiveError::Socket)?;
            session.sent(count);
        }
        let (wanted, mut taken) = (wanted.min(TLS_CLIENT_OUTPUT), 0);
        while taken < wanted {
            let room = (wanted - taken).min(TLS_SCRATCH);
            let count = file.read_at(&mut piece[..room], offset + taken as u64).map_err(GiveError::File)?;
            if count == 0 {
                break;
            }
            session.seal(&piece[..count]).map_err(|error| GiveError::Socket(broken(error)))?;
            taken += count;
        }
        match self.socket.try_write(session.outgoing()) {
            Ok(count) => session.sent(count),
            // It is sealed, so it counts as taken.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(GiveError::Socket(error)),
        }
        Ok(taken)
    }

    /// Whether something was taken that is not sent yet: [`Self::try_write`] goes on with it.
    pub(super) fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|session| !session.outgoing().is_empty())
    }

    /// Reads what there is behind what `input` holds; 0 at the end.
    pub(super) fn try_read_buf(&mut self, input: &mut BytesMut) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.socket.try_read_buf(input);
        }
        self.open_behind(input, usize::MAX)
    }

    /// Reads into `into`, and what comes behind that, if it is there already, behind what `input` holds.
    /// Returns how many bytes are in `into`; 0 at the end.
    pub(super) fn try_fill(&mut self, into: &mut [u8], input: &mut BytesMut) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.open(into);
        }
        let mut behind = [0; V2_INPUT];
        let room = into.len();
        let mut parts = [io::IoSliceMut::new(into), io::IoSliceMut::new(&mut behind)];
        let count = self.socket.try_read_vectored(&mut parts)?;
        let wanted = count.min(room);
        input.extend_from_slice(&behind[..count - wanted]);
        Ok(wanted)
    }

    /// Waits for what comes next and puts at most so many bytes of it behind what `input` holds; 0 at the end.
    pub(super) async fn read_buf(&mut self, input: &mut BytesMut, most: usize) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.socket.read_buf(&mut input.limit(most)).await;
        }
        loop {
            match self.open_behind(input, most) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.readable().await?,
                result => return result,
            }
        }
    }

    /// Waits until the socket can be read from, or written to.
    pub(super) async fn ready(&self, interest: Interest) -> io::Result<()> {
        self.socket.ready(interest).await.map(drop)
    }

    /// Leaves the runtime that it was made in.
    pub(super) fn park(self) -> io::Result<Parked> {
        Ok(Parked { socket: self.socket.into_std()?, tls: self.tls })
    }

    /// Opens what comes into `into`; 0 at the end.
    fn open(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(session) = &mut self.tls else { return Ok(0) };
            match session.open(into).map_err(broken)? {
                Opened::Bytes(count) => return Ok(count),
                Opened::End => return Ok(0),
                Opened::Nothing => self.receive()?,
            }
        }
    }

    /// Opens what comes behind what `input` holds: no more than there is room for, and as much as has come.
    fn open_behind(&mut self, input: &mut BytesMut, most: usize) -> io::Result<usize> {
        if input.capacity() == input.len() {
            input.reserve(V2_INPUT);
        }
        let (begin, spare) = (input.len(), input.capacity() - input.len());
        loop {
            let Some(session) = &mut self.tls else { return Ok(0) };
            // The room is cleared first, so no more of it is taken than can be filled.
            let room = spare.min(most).min(session.held());
            input.resize(begin + room, 0);
            let opened = session.open(&mut input[begin..]);
            let count = if let Ok(Opened::Bytes(count)) = opened { count } else { 0 };
            input.truncate(begin + count);
            match opened.map_err(broken)? {
                Opened::Bytes(count) => return Ok(count),
                Opened::End => return Ok(0),
                Opened::Nothing => self.receive()?,
            }
        }
    }

    /// Reads records, as many as have come, but no more than are held at once.
    fn receive(&mut self) -> io::Result<()> {
        let Some(session) = &mut self.tls else { return Ok(()) };
        let incoming = session.incoming();
        incoming.reserve(TLS_CLIENT_INPUT);
        match self.socket.try_read_buf(&mut incoming.limit(TLS_CLIENT_INPUT))? {
            0 => {
                let text = "it ended without a word, as it does when it is cut";
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
            }
            _ => Ok(()),
        }
    }

    /// Sends all that is sealed.
    async fn flush(&mut self) -> io::Result<()> {
        let Some(session) = &mut self.tls else { return Ok(()) };
        while !session.outgoing().is_empty() {
            match self.socket.try_write(session.outgoing()) {
                Ok(count) => session.sent(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Parked {
    /// Goes on in the present runtime.
    pub(super) fn unpark(self) -> io::Result<Stream> {
        Ok(Stream { socket: TcpStream::from_std(self.socket)?, tls: self.tls })
    }
}

/// Why bytes of a file could not be sent.
#[derive(Debug)]
pub(super) enum GiveError {
    /// The file could not be read.
    File(io::Error),
    /// The connection is full, or broke.
    Socket(io::Error),
}

/// Whether the file system, or the system, does not know `sendfile`.
fn is_without_sendfile(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP))
}

/// Why hands could not be shaken.
pub(super) enum ShakeError {
    /// The connection broke.
    Socket(io::Error),
    /// What was said is not to be gone on with.
    Tls {
        /// Why not.
        error: TlsError,
        /// The first byte that the server said.
        first: Option<u8>,
    },
}

fn broken(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {error}"))
}

#[cfg(test)]
#[path = "stream/tests.rs"]
mod tests;
#[cfg(test)]
pub(super) use tests::pair;
