//! A TLS session over a [`Socket`]: what is read is opened, what is written is sealed.
//!
//! How long a peer may take is the socket's matter, and it counts the bytes of records. Here is decided how
//! much is held: of what comes [`TLS_INCOMING_MAX`], and only if the session has nothing left to open; of what
//! goes [`TLS_PIECE`] and what it grows by. A connection that rests holds neither.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use rustix::net::SendFlags;
use rustls::ServerConfig;
use tokio::task::coop::consume_budget;

use super::WireEnd;
use super::socket::Socket;
use crate::limits::{TLS_INCOMING_MAX, TLS_PIECE, TLS_ROOM_MIN, TLS_SCRATCH};
use crate::storage::StoredFile;
use crate::tls::{Opened, Session, TlsError};

/// Room that is made where a caller has made none, in bytes.
const ROOM: usize = 64;

pub(super) struct Secure {
    session: Session,
    /// Room for what comes in next.
    room: usize,
    /// Everything that has come was opened and taken.
    is_drained: bool,
}

impl Secure {
    /// A server's session; `read` is what has come already, and is taken.
    pub(super) fn new(config: Arc<ServerConfig>, read: &mut BytesMut) -> Result<Self, WireEnd> {
        let mut session = Session::server(config)?;
        *session.incoming() = std::mem::take(read);
        Ok(Self { session, room: TLS_ROOM_MIN, is_drained: false })
    }

    /// Shakes hands. What is wrong is told to the peer, if it takes it at once.
    pub(super) async fn shake(&mut self, socket: &mut Socket) -> Result<(), WireEnd> {
        loop {
            let is_over = self.session.shake().map_err(|error| self.tell(socket, error))?;
            self.flush(socket).await?;
            // Nobody knows how long it takes until the peer goes on.
            self.rest();
            if is_over {
                return Ok(());
            }
            loop {
                socket.readable().await?;
                consume_budget().await;
                match self.fetch(socket)? {
                    Some(0) => return Err(WireEnd::Unshaken),
                    Some(_) => break,
                    None => {}
                }
            }
        }
    }

    /// Reads what is there; 0 at the end of the input.
    pub(super) async fn read(
        &mut self,
        socket: &mut Socket,
        buffer: &mut BytesMut,
    ) -> Result<usize, WireEnd> {
        loop {
            if let Some(count) = self.read_now(socket, buffer)? {
                return Ok(count);
            }
            if !self.may_have_plain() {
                self.rest();
                socket.readable().await?;
                // Whoever always has something to say, and nothing in it, must not keep the thread from others.
                consume_budget().await;
            }
        }
    }

    /// Reads what is there without waiting, and from the socket at most once: records without data must not
    /// keep the caller from looking at the time.
    pub(super) fn read_now(
        &mut self,
        socket: &mut Socket,
        buffer: &mut BytesMut,
    ) -> Result<Option<usize>, WireEnd> {
        if let Some(count) = self.open(socket, buffer)? {
            return Ok(Some(count));
        }
        match self.fetch(socket)? {
            None => Ok(None),
            Some(0) if buffer.is_empty() && self.session.incoming().is_empty() => Ok(Some(0)),
            Some(0) => Err(WireEnd::Cut),
            Some(_) => self.open(socket, buffer),
        }
    }

    /// Whether something may be there that can be read without the socket.
    pub(super) fn may_have_plain(&self) -> bool {
        !self.is_drained
    }

    /// Gives memory back that is not needed until more is said.
    pub(super) fn rest(&mut self) {
        self.session.rest();
        self.room = TLS_ROOM_MIN;
    }

    /// Writes all of `bytes`; with `more`, together with what follows at once.
    pub(super) async fn write_all(
        &mut self,
        socket: &mut Socket,
        bytes: &[u8],
        more: bool,
    ) -> Result<(), WireEnd> {
        for piece in bytes.chunks(TLS_PIECE) {
            self.session.seal(piece)?;
            if !(more && self.session.outgoing().len() < TLS_PIECE) {
                self.flush(socket).await?;
            }
        }
        Ok(())
    }

    /// Sends at most `count` bytes of `file` from `offset` on; 0 if the file has no byte there.
    pub(super) async fn send_file(
        &mut self,
        socket: &mut Socket,
        file: &StoredFile,
        offset: u64,
        count: u64,
    ) -> Result<u64, WireEnd> {
        let wanted = usize::try_from(count).unwrap_or(usize::MAX).min(TLS_PIECE);
        let sealed = self.seal_file(file, offset, wanted);
        // What was sealed has its place in the stream, whatever became of the rest.
        self.flush(socket).await?;
        Ok(sealed? as u64)
    }

    /// Says that no more will come.
    pub(super) async fn close(&mut self, socket: &mut Socket) -> Result<(), WireEnd> {
        self.session.close()?;
        self.flush(socket).await?;
        self.rest();
        Ok(())
    }

    /// Seals a stretch of a file, record by record: between being read and being sealed it does not leave
    /// the processor's cache.
    fn seal_file(&mut self, file: &StoredFile, offset: u64, wanted: usize) -> Result<usize, WireEnd> {
        let mut scratch = [0; TLS_SCRATCH];
        let mut done = 0;
        while done < wanted {
            let room = (wanted - done).min(TLS_SCRATCH);
            match file.read_at(&mut scratch[..room], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => {
                    self.session.seal(&scratch[..read])?;
                    done += read;
                }
                // It comes again with the next stretch, which begins with it.
                Err(_) if done > 0 => break,
                Err(error) => return Err(WireEnd::File(error)),
            }
        }
        Ok(done)
    }

    /// Writes all records that are due.
    async fn flush(&mut self, socket: &mut Socket) -> Result<(), WireEnd> {
        while !self.session.outgoing().is_empty() {
            let count = socket.write(self.session.outgoing(), SendFlags::empty()).await?;
            self.session.sent(count);
        }
        Ok(())
    }

    /// Opens what has come; `None` if more has to come first.
    fn open(&mut self, socket: &mut Socket, buffer: &mut BytesMut) -> Result<Option<usize>, WireEnd> {
        if self.is_drained {
            return Ok(None);
        }
        let (start, room) = (buffer.len(), (buffer.capacity() - buffer.len()).max(ROOM));
        buffer.resize(start + room, 0);
        let opened = self.session.open(&mut buffer[start..]);
        let count = if let Ok(Opened::Bytes(count)) = opened { count } else { 0 };
        buffer.truncate(start + count);
        match opened.map_err(|error| self.tell(socket, error))? {
            Opened::Bytes(count) => Ok(Some(count)),
            Opened::End => Ok(Some(0)),
            Opened::Nothing => {
                self.is_drained = true;
                Ok(None)
            }
        }
    }

    /// Reads records; `None` if nothing is there, 0 at the end of the input.
    fn fetch(&mut self, socket: &mut Socket) -> Result<Option<usize>, WireEnd> {
        let incoming = self.session.incoming();
        let most = TLS_INCOMING_MAX.saturating_sub(incoming.len());
        if most == 0 {
            return Err(WireEnd::Oversized);
        }
        let room = self.room.min(most);
        incoming.reserve(room);
        let fetched = socket.read_now(&mut incoming.limit(room))?;
        if let Some(count) = fetched {
            self.is_drained = count == 0;
            // Whoever says much is listened to in larger pieces.
            self.room = if count == room { TLS_INCOMING_MAX.min(2 * room) } else { self.room };
        }
        Ok(fetched)
    }

    /// Tells the peer what is wrong with what it has said.
    fn tell(&mut self, socket: &Socket, error: TlsError) -> WireEnd {
        socket.write_now(self.session.outgoing());
        error.into()
    }
}
