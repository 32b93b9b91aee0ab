//! A connection's socket, as the edges use it: every wait has a deadline, and a file goes from the
//! page cache to the socket without passing through this program.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::limits::{LINGER_BYTES, LINGER_TIMEOUT, SMALL_FILE_MAX};
use crate::storage::StoredFile;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireEnd {
    /// The peer took no byte for too long.
    #[error("no byte was taken for {} s", .0.as_secs_f32())]
    Idle(Duration),
    /// The socket failed.
    #[error("the connection broke: {0}")]
    Socket(#[from] io::Error),
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    File(#[source] io::Error),
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

/// A connected socket.
pub(super) struct Wire {
    stream: TcpStream,
    idle_timeout: Duration,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, idle_timeout: Duration) -> Self {
        // Only a matter of speed; a socket that refuses it still works.
        let _ = stream.set_nodelay(true);
        Self { stream, idle_timeout }
    }

    /// Reads what is there, without a deadline of its own: the caller has one for the whole request.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> Result<usize, WireEnd> {
        Ok(self.stream.read_buf(buffer).await?)
    }

    /// Writes all of `bytes`. `more` says that the file follows at once, so that they share a
    /// segment with its first bytes.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8], more: bool) -> Result<(), WireEnd> {
        let flags = if more { SendFlags::MORE | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
        while !bytes.is_empty() {
            let write = self
                .stream
                .async_io(Interest::WRITABLE, || Ok(rustix::net::send(&self.stream, bytes, flags)?));
            let count = timeout(self.idle_timeout, write).await.map_err(|_| self.idle())??;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Sends at most `count` bytes of `file` from `offset` on; 0 if the file has no byte there. A
    /// stretch that is not in memory is read in first, off the async threads: `sendfile` waits for
    /// the disk even on a socket that does not wait.
    pub(super) async fn send_file(
        &mut self,
        file: &Arc<StoredFile>,
        offset: u64,
        count: u64,
    ) -> Result<u64, WireEnd> {
        if !file.is_warm(offset, count) {
            let file = Arc::clone(file);
            let warmed = tokio::task::spawn_blocking(move || file.warm(offset, count)).await;
            warmed.map_err(io::Error::other).flatten().map_err(WireEnd::File)?;
        }
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let send = self.stream.async_io(Interest::WRITABLE, || {
            let mut at = offset;
            Ok(rustix::fs::sendfile(&self.stream, &**file, Some(&mut at), wanted)?)
        });
        match timeout(self.idle_timeout, send).await.map_err(|_| self.idle())? {
            Ok(sent) => Ok(sent as u64),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.copy_file(file, offset, count).await
                }
                Some(Errno::IO) => Err(WireEnd::File(error)),
                _ => Err(error.into()),
            },
        }
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
        if self.stream.shutdown().await.is_err() {
            return Farewell::Reset;
        }
        let deadline = Instant::now() + LINGER_TIMEOUT;
        let mut discarded = 0;
        let mut buffer = [0; 4096];
        while discarded < LINGER_BYTES {
            match timeout_at(deadline, self.stream.read(&mut buffer)).await {
                Ok(Ok(0)) => return Farewell::Closed,
                Err(_) => return Farewell::Silent,
                Ok(Ok(count)) => discarded += count,
                Ok(Err(_)) => return Farewell::Reset,
            }
        }
        Farewell::Silent
    }

    fn idle(&self) -> WireEnd {
        WireEnd::Idle(self.idle_timeout)
    }
}
