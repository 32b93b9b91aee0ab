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

use super::rates::Throttle;
use crate::limits::{LINGER_BYTES, LINGER_CHUNK, LINGER_TIMEOUT, SMALL_FILE_MAX, WRITE_PROBE_INTERVAL};
use crate::storage::StoredFile;

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
    pace: Pace,
    /// Whom to ask before bytes are sent, where their rate is limited.
    throttle: Option<Throttle>,
    /// Time spent waiting for the peer, and bytes that it took, since the pace was last looked at.
    waited: Duration,
    taken: u64,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, pace: Pace, throttle: Option<Throttle>) -> Self {
        // On Linux it has inherited that from the listener. Only a matter of speed; a socket that
        // refuses it still works.
        #[cfg(not(target_os = "linux"))]
        let _ = stream.set_nodelay(true);
        Self { stream, pace, throttle, waited: Duration::ZERO, taken: 0 }
    }

    /// Whether nobody on the way can read what is sent.
    pub(super) fn is_secured(&self) -> bool {
        false
    }

    /// Reads what is there, without a deadline of its own: the caller has one for the whole request.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> Result<usize, WireEnd> {
        Ok(self.stream.read_buf(buffer).await?)
    }

    /// Reads what is there without waiting; `None` if nothing is.
    pub(super) fn read_now(&mut self, buffer: &mut BytesMut) -> Result<Option<usize>, WireEnd> {
        match self.stream.try_read_buf(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> Result<(), WireEnd> {
        Ok(self.stream.readable().await?)
    }

    /// Writes all of `bytes`. `more` says that the file follows at once, so that they share a
    /// segment with its first bytes.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8], more: bool) -> Result<(), WireEnd> {
        // What follows may have to wait for its turn: then these bytes must not wait for it.
        let flags = if more && self.throttle.is_none() {
            SendFlags::MORE | SendFlags::NOSIGNAL
        } else {
            SendFlags::NOSIGNAL
        };
        while !bytes.is_empty() {
            let allowed = &bytes[..self.allowed(bytes.len()).await];
            let count = self.give(|stream| Ok(rustix::net::send(stream, allowed, flags)?)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
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
        let wanted = self.allowed(usize::try_from(count).unwrap_or(usize::MAX)).await;
        let sent = self.give(|stream| {
            let mut at = offset;
            Ok(rustix::fs::sendfile(stream, &**file, Some(&mut at), wanted)?)
        });
        match sent.await {
            Ok(sent) => Ok(sent as u64),
            Err(WireEnd::Socket(error)) => match Errno::from_io_error(&error) {
                Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.copy_file(file, offset, count).await
                }
                Some(Errno::IO) => Err(WireEnd::File(error)),
                _ => Err(error.into()),
            },
            Err(end) => Err(end),
        }
    }

    /// The most bytes of a frame of version 2, where the rate is limited.
    pub(super) fn frame_max(&self) -> Option<u64> {
        self.throttle.as_ref().map(Throttle::frame_max)
    }

    /// How many of so many bytes may be sent now. Where the rate is limited this waits for a turn; the
    /// peer has nothing to do with that, so it is not counted as its slowness.
    async fn allowed(&mut self, wanted: usize) -> usize {
        match &mut self.throttle {
            None => wanted,
            Some(throttle) => usize::try_from(throttle.allow(wanted as u64).await).unwrap_or(wanted),
        }
    }

    /// Gives the peer some bytes as soon as it takes any; says how many.
    ///
    /// The system reports a socket as writable only once a third of its buffer is free. A slow reader
    /// may need longer for that than it may be idle, so while waiting the write is tried now and then.
    async fn give(
        &mut self,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Result<usize, WireEnd> {
        // Mostly there is room, and then neither a clock nor a timer is needed; but whoever always finds
        // room must not keep the thread from others.
        tokio::task::coop::consume_budget().await;
        match self.stream.try_io(Interest::WRITABLE, || write(&self.stream)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            result => {
                let count = result?;
                self.took(count as u64);
                return Ok(count);
            }
        }
        let began = Instant::now();
        let count = loop {
            let writable = self.stream.async_io(Interest::WRITABLE, || write(&self.stream));
            let wait = WRITE_PROBE_INTERVAL.min(self.pace.idle_timeout.saturating_sub(began.elapsed()));
            let result = match timeout(wait, writable).await {
                Ok(result) => result,
                Err(_elapsed) => write(&self.stream),
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if began.elapsed() >= self.pace.idle_timeout {
                        return Err(WireEnd::Idle(self.pace.idle_timeout));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.took(count as u64);
        self.check_pace(began.elapsed())?;
        Ok(count)
    }

    fn took(&mut self, count: u64) {
        self.taken += count;
        if let Some(throttle) = &mut self.throttle {
            throttle.sent(count);
        }
    }

    fn check_pace(&mut self, waited: Duration) -> Result<(), WireEnd> {
        self.waited += waited;
        if self.waited < self.pace.idle_timeout {
            return Ok(());
        }
        let demanded = u128::from(self.pace.rate_min) * self.waited.as_millis() / 1000;
        if u128::from(self.taken) < demanded {
            return Err(WireEnd::Slow(self.pace.rate_min));
        }
        (self.waited, self.taken) = (Duration::ZERO, 0);
        Ok(())
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
        while discarded < LINGER_BYTES {
            match timeout_at(deadline, self.stream.readable()).await {
                Err(_elapsed) => return Farewell::Silent,
                Ok(Err(_)) => return Farewell::Reset,
                Ok(Ok(())) => {}
            }
            // On the stack, and only now: who waits here costs no buffer.
            match self.stream.try_read(&mut [0; LINGER_CHUNK]) {
                Ok(0) => return Farewell::Closed,
                Ok(count) => discarded += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Farewell::Reset,
            }
        }
        Farewell::Silent
    }
}
