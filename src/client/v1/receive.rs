//! The receiving pipeline: from the socket to the disk and the digest, at the speed of the slowest.
//!
//! ```text
//! this task: receive ──▶ a thread: write ──▶ a thread: MD5 ──┐
//!      ▲                                                     │
//!      └───────────── RECEIVE_CHUNKS buffers ◀───────────────┘
//! ```
//! MD5 is the slowest step and has a thread of its own. The buffers go round, so memory does not
//! depend on the file, and whoever is slow slows down whoever is before it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::client::FetchError;
use crate::client::pace::Pace;
use crate::client::stream::Stream;
use crate::client::target::Sink;
use crate::codec::WireError;
use crate::digest::{Md5, Md5Hasher};
use crate::limits::{CLOSE_TIMEOUT, RECEIVE_CHUNK, RECEIVE_CHUNKS};

/// A connection on which a file is arriving.
pub(super) struct Arrival<'a> {
    pub(super) stream: Stream,
    pub(super) peer: SocketAddr,
    /// Bytes of the file that arrived with the header.
    pub(super) early: BytesMut,
    pub(super) size: u64,
    /// Longest wait for the next byte.
    pub(super) patience: Duration,
    pub(super) pace: &'a Pace,
    pub(super) stopping: &'a CancellationToken,
}

impl Arrival<'_> {
    /// Receives exactly the announced bytes into `sink`, telling `progress` how many there are;
    /// returns their digest. Both threads have ended when this returns.
    pub(super) async fn receive(
        mut self,
        sink: Sink,
        mut progress: impl FnMut(u64),
    ) -> Result<(Sink, Md5), FetchError> {
        let (free_tx, free_rx) = channel(RECEIVE_CHUNKS);
        let (filled_tx, filled_rx) = channel(RECEIVE_CHUNKS);
        let (written_tx, written_rx) = channel(RECEIVE_CHUNKS);
        for _ in 0..RECEIVE_CHUNKS {
            // There is room for all of them.
            let _ = free_tx.try_send(BytesMut::new());
        }
        let writer = tokio::task::spawn_blocking(move || write(sink, filled_rx, &written_tx));
        let hasher = tokio::task::spawn_blocking(move || hash(written_rx, &free_tx));
        let stopping = self.stopping;
        let received = tokio::select! {
            biased;
            () = stopping.cancelled() => Err(FetchError::Interrupted),
            received = self.fill(free_rx, filled_tx, &mut progress) => received,
        };
        // The channels are closed by now, so both end when they have done what is left.
        let written = writer.await.map_err(io::Error::other);
        let hashed = hasher.await.map_err(io::Error::other);
        let aborted = |source| FetchError::Output { path: "the received file".to_owned(), source };
        let sink = written.map_err(aborted)??;
        received?;
        Ok((sink, hashed.map_err(aborted)?))
    }

    /// Fills one free buffer after the other until all has arrived.
    async fn fill(
        &mut self,
        mut free: Receiver<BytesMut>,
        filled: Sender<BytesMut>,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), FetchError> {
        let mut done = 0;
        progress(done);
        while done < self.size {
            // Nobody takes or returns buffers any more: the writer failed and says why.
            let Some(mut buffer) = free.recv().await else { return Ok(()) };
            buffer.clear();
            buffer.reserve(RECEIVE_CHUNK);
            buffer.extend_from_slice(&self.early.split_to(self.early.len().min(RECEIVE_CHUNK)));
            let mut arrived = done + buffer.len() as u64;
            while buffer.len() < RECEIVE_CHUNK && arrived < self.size {
                let count = self.read_into(&mut buffer, arrived).await?;
                arrived += count as u64;
                progress(arrived.min(self.size));
                self.pace.rest(count).await;
            }
            if arrived > self.size {
                return Err(self.excess());
            }
            done = arrived;
            progress(done);
            if filled.send(buffer).await.is_err() {
                return Ok(());
            }
        }
        self.expect_end().await
    }

    async fn read_into(&mut self, buffer: &mut BytesMut, arrived: u64) -> Result<usize, FetchError> {
        let when = || format!("after {arrived} of {} bytes", self.size);
        let most = self.pace.stretch();
        match timeout(self.patience, self.stream.read_buf(buffer, most)).await {
            Ok(Ok(0)) => {
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it");
                Err(FetchError::Lost { peer: self.peer, when: when(), source })
            }
            Ok(Ok(count)) => Ok(count),
            Ok(Err(source)) => Err(FetchError::Lost { peer: self.peer, when: when(), source }),
            Err(_) => Err(FetchError::Silent { peer: self.peer, when: when(), after: self.patience }),
        }
    }

    /// After the last byte the server closes. It has some time for that; only a further byte is wrong.
    async fn expect_end(&mut self) -> Result<(), FetchError> {
        let mut further = BytesMut::new();
        match timeout(CLOSE_TIMEOUT, self.stream.read_buf(&mut further, 1)).await {
            Ok(Ok(1..)) => Err(self.excess()),
            _ if !self.early.is_empty() => Err(self.excess()),
            Ok(Ok(0) | Err(_)) | Err(_) => Ok(()),
        }
    }

    fn excess(&self) -> FetchError {
        FetchError::Protocol { peer: self.peer, source: WireError::Excess }
    }
}

/// Writes buffers one behind the other and passes them on.
fn write(sink: Sink, mut filled: Receiver<BytesMut>, written: &Sender<BytesMut>) -> Result<Sink, FetchError> {
    let mut offset = 0;
    while let Some(buffer) = filled.blocking_recv() {
        sink.write_all_at(&buffer, offset)?;
        offset += buffer.len() as u64;
        if written.blocking_send(buffer).is_err() {
            break;
        }
    }
    Ok(sink)
}

/// Digests buffers one after the other and gives them back.
fn hash(mut written: Receiver<BytesMut>, free: &Sender<BytesMut>) -> Md5 {
    let mut hasher = Md5Hasher::default();
    while let Some(buffer) = written.blocking_recv() {
        hasher.update(&buffer);
        // At the end nobody wants it back.
        let _ = free.try_send(buffer);
    }
    hasher.finish()
}
