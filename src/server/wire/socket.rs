//! A socket with a pace: who takes no byte for too long, or hardly any, is dropped, and where rates are
//! limited bytes wait for their turn. What the bytes mean is for others.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Farewell, Pace, WireEnd};
use crate::limits::{LINGER_BYTES, LINGER_CHUNK, LINGER_TIMEOUT, WRITE_PROBE_INTERVAL};
use crate::priority::Priority;
use crate::server::precedence::Standing;
use crate::server::rates::Throttle;
use crate::service::live::Presence;
use crate::storage::StoredFile;

/// A connected socket.
pub(super) struct Socket {
    stream: TcpStream,
    pace: Pace,
    /// Whom to ask before bytes are sent, where their rate is limited.
    throttle: Option<Throttle>,
    /// Whose bytes go first.
    standing: Standing,
    /// Where bytes are counted.
    presence: Arc<Presence>,
    /// Time spent waiting for the peer, and bytes that it took, since the pace was last looked at.
    waited: Duration,
    taken: u64,
}

impl Socket {
    pub(super) fn new(
        stream: TcpStream,
        pace: Pace,
        throttle: Option<Throttle>,
        standing: Standing,
        presence: Arc<Presence>,
    ) -> Self {
        // On Linux it has inherited that from the listener. Only a matter of speed; a socket that
        // refuses it still works.
        #[cfg(not(target_os = "linux"))]
        let _ = stream.set_nodelay(true);
        Self { stream, pace, throttle, standing, presence, waited: Duration::ZERO, taken: 0 }
    }

    /// What is sent from now on has this priority; none if it is no file.
    pub(super) fn rank(&mut self, priority: Option<Priority>) {
        self.standing.rank(priority);
    }

    /// As others see this connection.
    pub(super) fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// Reads what is there; 0 at the end of the input.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> Result<usize, WireEnd> {
        let count = self.stream.read_buf(buffer).await?;
        self.presence.received(count as u64);
        Ok(count)
    }

    /// Reads what is there without waiting; `None` if nothing is, 0 at the end of the input.
    pub(super) fn read_now(&self, buffer: &mut impl BufMut) -> Result<Option<usize>, WireEnd> {
        match self.stream.try_read_buf(buffer) {
            Ok(count) => {
                self.presence.received(count as u64);
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> Result<(), WireEnd> {
        Ok(self.stream.readable().await?)
    }

    /// Whether bytes may have to wait for their turn.
    pub(super) fn is_throttled(&self) -> bool {
        self.throttle.is_some()
    }

    /// The most bytes of a frame of version 2, where the rate is limited.
    pub(super) fn frame_max(&self) -> Option<u64> {
        self.throttle.as_ref().map(Throttle::frame_max)
    }

    /// Writes all of `bytes`.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8], flags: SendFlags) -> Result<(), WireEnd> {
        while !bytes.is_empty() {
            let count = self.write(bytes, flags).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Writes some of `bytes`; says how many.
    pub(super) async fn write(&mut self, bytes: &[u8], flags: SendFlags) -> Result<usize, WireEnd> {
        let allowed = &bytes[..self.allowed(bytes.len()).await];
        self.give(|stream| Ok(rustix::net::send(stream, allowed, flags | SendFlags::NOSIGNAL)?)).await
    }

    /// Writes as many of `bytes` as the peer takes without being waited for.
    pub(super) fn write_now(&self, bytes: &[u8]) {
        let _ = self.stream.try_write(bytes);
    }

    /// Sends at most `count` bytes of `file` from `offset` on, from the page cache.
    pub(super) async fn send_file(
        &mut self,
        file: &StoredFile,
        offset: u64,
        count: u64,
    ) -> Result<u64, WireEnd> {
        let wanted = self.allowed(usize::try_from(count).unwrap_or(usize::MAX)).await;
        let sent = self.give(|stream| {
            let mut at = offset;
            Ok(rustix::fs::sendfile(stream, file, Some(&mut at), wanted)?)
        });
        Ok(sent.await? as u64)
    }

    /// How many of so many bytes may be sent now. Where others go first, or the rate is limited, this waits for a
    /// turn; the peer has nothing to do with that, so it is not counted as its slowness.
    async fn allowed(&mut self, wanted: usize) -> usize {
        let some = self.standing.may(wanted as u64).await;
        let wanted = usize::try_from(some).unwrap_or(wanted);
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
        self.presence.sent(count);
        self.standing.moved(count);
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

    /// Says that no byte will follow, and waits for a bounded time until the peer has closed too.
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
