//! Files that are pushed to one client, one after the other.
//!
//! 1. The file is announced; the client says that it takes it.
//! 2. Its chunks go out as the connection takes them, a few ahead. Among them are pings. The client answers in order, so
//!    a pong says that all before it was read: who reads slowly is waited for, and is heard of meanwhile.
//! 3. Behind the end goes one more, whose pong says that all of the file was read.
//!
//! There is no way to say that a file that was begun does not come: then its end is said early, and the client
//! finds that the checksum does not fit and removes what it has.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64ct::{Base64, Encoding};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::frame;
use crate::codec::conduit::words::replies::{Complete, Incoming, PushedChunk, Said};
use crate::codec::conduit::words::{Field, write};
use crate::codec::conduit::{Frame, Kind};
use crate::limits::{
    CONDUIT_ACK_TIMEOUT, CONDUIT_CHUNK, CONDUIT_DEAD_AFTER, CONDUIT_PUSH_AHEAD, CONDUIT_PUSH_CHUNKS,
};
use crate::server::CANCELLED;
use crate::service::Service;
use crate::service::access::Caller;
use crate::service::accounts::Account;
use crate::service::conduits::{Order, Pushed};

/// What pushes files, until its connection ends.
pub(super) type Pushing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the client says of a push.
#[derive(Debug)]
pub(super) enum Told {
    /// It takes the file of this push, or does not.
    Taken(String, bool),
    /// It has read everything so far.
    Through,
}

impl Told {
    /// What a client says of a push; it takes a file unless it says that it does not.
    pub(super) fn taken(transfer: &str, ready: Field<'_>) -> Self {
        Self::Taken(transfer.to_owned(), ready != Field::Flag(false))
    }
}

/// Begins to push what is ordered. Frames come out of the receiver; what the client says goes into the sender.
pub(super) fn begin(
    is_pushing: Arc<AtomicBool>,
    service: Service,
    receiver: Caller,
    orders: Option<mpsc::Receiver<Order>>,
) -> (Pushing, mpsc::Receiver<Frame>, mpsc::Sender<Told>) {
    /// Words of the client that nobody has listened to yet.
    const TOLD: usize = 8;
    let (frames, pushed) = mpsc::channel(CONDUIT_PUSH_AHEAD);
    let (tell, told) = mpsc::channel(TOLD);
    let pusher = Pusher { is_pushing, service, receiver, frames, told, unanswered: 0 };
    let pushing: Pushing = match orders {
        Some(orders) => Box::pin(pusher.run(orders)),
        None => Box::pin(std::future::pending()),
    };
    (pushing, pushed, tell)
}

struct Pusher {
    is_pushing: Arc<AtomicBool>,
    service: Service,
    receiver: Caller,
    frames: mpsc::Sender<Frame>,
    told: mpsc::Receiver<Told>,
    /// Pings whose pongs have not come.
    unanswered: u32,
}

impl Pusher {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(Order { pushed, reply }) = orders.recv().await {
            let permit = pushed.permit.handed_to(&self.receiver);
            let account = self.service.account(&permit, [0; 16], pushed.file.size(), 0);
            self.is_pushing.store(true, Ordering::Relaxed);
            let outcome = self.push(&pushed, &account).await;
            self.is_pushing.store(false, Ordering::Relaxed);
            if let Err(cause) = &outcome {
                account.cut(cause);
            }
            // Whoever wanted to know may be gone.
            let _ = reply.send(outcome);
        }
    }

    async fn push(&mut self, pushed: &Pushed, account: &Account) -> Result<(), String> {
        // What belongs to the push before, if that has failed.
        while let Ok(told) = self.told.try_recv() {
            self.note(&told);
        }
        let (transfer, size) = (format!("{:032x}", fastrand::u128(..)), pushed.file.size());
        let checksum = base16ct::lower::encode_string(&pushed.sha256);
        let total_chunks = size.div_ceil(CONDUIT_CHUNK);
        let (transfer_id, checksum) = (&*transfer, &*checksum);
        let incoming = Incoming { transfer_id, filename: &pushed.name, size, checksum, total_chunks };
        self.say("file_incoming", &incoming).await?;
        self.is_taken(transfer_id).await?;
        let sent = self.send(pushed, transfer_id, account).await;
        self.say("file_complete", &Complete { transfer_id, checksum }).await?;
        let unaccounted = sent?;
        self.ping(0).await?;
        account.advance(unaccounted);
        Ok(())
    }

    /// Waits until the client says that it takes the file.
    async fn is_taken(&mut self, transfer: &str) -> Result<(), String> {
        let taken = async {
            loop {
                let told = self.told.recv().await?;
                self.note(&told);
                match told {
                    Told::Taken(of, is_taken) if of == transfer => return Some(is_taken),
                    _ => {}
                }
            }
        };
        match timeout(CONDUIT_ACK_TIMEOUT, taken).await {
            Ok(Some(true)) => Ok(()),
            Ok(Some(false)) => Err("it does not want the file".to_owned()),
            Ok(None) => Err(gone()),
            Err(_elapsed) => Err("it did not say that it takes the file".to_owned()),
        }
    }

    fn note(&mut self, told: &Told) {
        if let Told::Through = told {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
    }

    /// Sends a ping, and waits until at most `most` have no pong.
    async fn ping(&mut self, most: u32) -> Result<(), String> {
        self.give(frame(Kind::Ping, 0, Bytes::new())).await?;
        self.unanswered += 1;
        while self.unanswered > most {
            match timeout(CONDUIT_DEAD_AFTER, self.told.recv()).await {
                Ok(Some(told)) => self.note(&told),
                Ok(None) => return Err(gone()),
                Err(_elapsed) => return Err("it did not answer".to_owned()),
            }
        }
        Ok(())
    }

    /// Sends all chunks. The bytes of the last one are not accounted for yet: they are returned.
    async fn send(&mut self, pushed: &Pushed, transfer_id: &str, account: &Account) -> Result<u64, String> {
        let size = pushed.file.size();
        let mut unaccounted = 0;
        for chunk_index in 0..size.div_ceil(CONDUIT_CHUNK) {
            if account.moving().cancelled_by().is_some() {
                return Err(CANCELLED.to_owned());
            }
            let (offset, file) = (chunk_index * CONDUIT_CHUNK, Arc::clone(&pushed.file));
            let len = CONDUIT_CHUNK.min(size - offset);
            let is_last = offset + len == size;
            let reading = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
                let is_whole = file.read_at(&mut bytes, offset)? == bytes.len();
                let is_same = is_whole && (!is_last || file.is_unchanged()?);
                Ok::<_, std::io::Error>(is_same.then(|| Base64::encode_string(&bytes)))
            });
            let read = reading.await.map_err(|aborted| aborted.to_string())?;
            let read = read.map_err(|error| format!("the file cannot be read: {error}"))?;
            let data_b64 = &*read.ok_or("the file changed while it was being sent")?;
            self.say("file_chunk", &PushedChunk { transfer_id, chunk_index, data_b64 }).await?;
            account.advance(std::mem::replace(&mut unaccounted, len));
            if (chunk_index + 1) % CONDUIT_PUSH_CHUNKS == 0 {
                self.ping(1).await?;
            }
        }
        Ok(unaccounted)
    }

    async fn say<T: Serialize>(&self, kind: &str, data: &T) -> Result<(), String> {
        let payload = write(&Said { kind, data }).map_err(|error| error.to_string())?;
        self.give(frame(Kind::Message, 0, payload)).await
    }

    async fn give(&self, frame: Frame) -> Result<(), String> {
        self.frames.send(frame).await.map_err(|_| gone())
    }
}

fn gone() -> String {
    "its connection ended".to_owned()
}
