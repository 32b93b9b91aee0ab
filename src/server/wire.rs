//! A connection as the edges use it: every wait has a deadline, and a file goes from the page cache to the
//! socket without passing through this program.
//!
//! `socket` keeps pace and deadlines and knows bytes only. A connection that was [secured](Wire::secure) goes
//! through `secure`, which turns bytes into TLS records and back, and knows nothing of time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustls::ServerConfig;
use tokio::net::TcpStream;

use super::precedence::Standing;
use super::rates::Throttle;
use crate::limits::SMALL_FILE_MAX;
use crate::priority::Priority;
use crate::service::live::Presence;
use crate::storage::StoredFile;
use crate::tls::TlsError;

mod secure;
mod socket;

use secure::Secure;
use socket::Socket;

/// What is asked of a peer that takes bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Longest time without a byte taken.
    pub(super) idle_timeout: Duration,
    /// Least rate in bytes per second, over each `idle_timeout` spent waiting for the peer.
    pub(super) rate_min: u64,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireEnd {
    /// The peer took no byte for too long.
    #[error("no byte was taken for {} s", .0.as_secs_f32())]
    Idle(Duration),
    /// The peer took bytes, but hardly any.
    #[error("fewer than {0} bytes a second were taken")]
    Slow(u64),
    /// The socket failed.
    #[error("the connection broke: {0}")]
    Socket(#[from] io::Error),
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    File(#[source] io::Error),
    /// TLS cannot go on.
    #[error("TLS failed: {0}")]
    Tls(#[from] TlsError),
    /// The input ended within something, and the peer has not said that it would.
    #[error("cut within a request, without the end that TLS demands")]
    Cut,
    /// The peer gave up before hands were shaken.
    #[error("closed within the TLS handshake")]
    Unshaken,
    /// A handshake has more to say than is listened to.
    #[error("TLS failed: the peer's handshake messages are too long")]
    Oversized,
}

/// How the peer behaved after the last byte.
pub(super) enum Farewell {
    /// It closed.
    Closed,
    /// It neither closed nor complained for as long as we waited.
    Silent,
    /// It reset the connection: it may not have read everything.
    Reset,
}

/// A connected socket, with TLS or without.
pub(super) struct Wire {
    socket: Socket,
    secure: Option<Box<Secure>>,
}

impl Wire {
    pub(super) fn new(
        stream: TcpStream,
        pace: Pace,
        throttle: Option<Throttle>,
        standing: Standing,
        presence: Arc<Presence>,
    ) -> Self {
        Self { socket: Socket::new(stream, pace, throttle, standing, presence), secure: None }
    }

    /// What is sent from now on has this priority; none if it is no file.
    pub(super) fn rank(&mut self, priority: Option<Priority>) {
        self.socket.rank(priority);
    }

    /// As others see this connection.
    pub(super) fn presence(&self) -> &Arc<Presence> {
        self.socket.presence()
    }

    /// Shakes hands. `read` is what was read of the handshake already; it is taken. Without a deadline of its
    /// own: the caller has one for the whole request. A peer that cannot be served is told why.
    pub(super) async fn secure(
        &mut self,
        config: Arc<ServerConfig>,
        read: &mut BytesMut,
    ) -> Result<(), WireEnd> {
        let secure = self.secure.insert(Box::new(Secure::new(config, read)?));
        secure.shake(&mut self.socket).await
    }

    /// Whether nobody on the way can read or change what is said.
    pub(super) fn is_secured(&self) -> bool {
        self.secure.is_some()
    }

    /// Reads what is there, without a deadline of its own: the caller has one for the whole request. 0 is
    /// the end of the input.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> Result<usize, WireEnd> {
        match &mut self.secure {
            None => self.socket.read(buffer).await,
            // Whoever only connects, without TLS, should not cost what reading with it needs.
            Some(secure) => Box::pin(secure.read(&mut self.socket, buffer)).await,
        }
    }

    /// Reads what is there without waiting; `None` if nothing is, 0 at the end of the input.
    pub(super) fn read_now(&mut self, buffer: &mut BytesMut) -> Result<Option<usize>, WireEnd> {
        match &mut self.secure {
            None => self.socket.read_now(buffer),
            Some(secure) => secure.read_now(&mut self.socket, buffer),
        }
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> Result<(), WireEnd> {
        match &self.secure {
            Some(secure) if secure.may_have_plain() => Ok(()),
            _ => self.socket.readable().await,
        }
    }

    /// Gives memory back that is not needed until more is said.
    pub(super) fn rest(&mut self) {
        if let Some(secure) = &mut self.secure {
            secure.rest();
        }
    }

    /// Writes all of `bytes`. `more` says that the file follows at once, so that they share a
    /// segment with its first bytes.
    pub(super) async fn write_all(&mut self, bytes: &[u8], more: bool) -> Result<(), WireEnd> {
        // What follows may have to wait for its turn: then these bytes must not wait for it.
        let more = more && !self.socket.is_throttled();
        match &mut self.secure {
            None => {
                let flags = if more { SendFlags::MORE } else { SendFlags::empty() };
                self.socket.write_all(bytes, flags).await
            }
            Some(secure) => secure.write_all(&mut self.socket, bytes, more).await,
        }
    }

    /// Makes sure that a stretch of a file is in memory before it is sent. One that is not is read in, off
    /// the async threads: `sendfile` waits for the disk even on a socket that does not wait.
    pub(super) async fn warm(file: &Arc<StoredFile>, offset: u64, count: u64) -> Result<(), WireEnd> {
        if file.is_warm(offset, count) {
            return Ok(());
        }
        let file = Arc::clone(file);
        let warmed = tokio::task::spawn_blocking(move || file.warm(offset, count)).await;
        warmed.map_err(io::Error::other).flatten().map_err(WireEnd::File)
    }

    /// Sends at most `count` bytes of `file` from `offset` on, which should be [warm](Self::warm); 0 if
    /// the file has no byte there.
    pub(super) async fn send_file(
        &mut self,
        file: &Arc<StoredFile>,
        offset: u64,
        count: u64,
    ) -> Result<u64, WireEnd> {
        if let Some(secure) = &mut self.secure {
            return secure.send_file(&mut self.socket, file, offset, count).await;
        }
        match self.socket.send_file(file, offset, count).await {
            Err(WireEnd::Socket(error)) => match Errno::from_io_error(&error) {
                Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.copy_file(file, offset, count).await
                }
                Some(Errno::IO) => Err(WireEnd::File(error)),
                _ => Err(error.into()),
            },
            result => result,
        }
    }

    /// The most bytes of a frame of version 2, where the rate is limited.
    pub(super) fn frame_max(&self) -> Option<u64> {
        self.socket.frame_max()
    }

    /// As [`Self::send_file`], for file systems that do not know `sendfile`.
    async fn copy_file(&mut self, file: &StoredFile, offset: u64, count: u64) -> Result<u64, WireEnd> {
        let len = usize::try_from(count.min(SMALL_FILE_MAX)).unwrap_or_default();
        let mut bytes = vec![0; len];
        let read = file.read_at(&mut bytes, offset).map_err(WireEnd::File)?;
        self.write_all(&bytes[..read], false).await?;
        Ok(read as u64)
    }

    /// Says that no byte will follow, and gives the peer a bounded time to read what was sent:
    /// closing while input waits would throw away what the peer has not read yet.
    pub(super) async fn say_farewell(&mut self) -> Farewell {
        if let Some(secure) = &mut self.secure
            && secure.close(&mut self.socket).await.is_err()
        {
            return Farewell::Reset;
        }
        self.socket.say_farewell().await
    }
}
