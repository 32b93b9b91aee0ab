//! One connection's records, without its socket: what has come goes in, what is to be sent comes out.
//!
//! 1. Whoever owns the socket reads into [`Session::incoming`] and calls [`Session::shake`] until it says that
//!    the handshake is over; what stands in [`Session::outgoing`] is written whenever there is something.
//! 2. [`Session::seal`] turns bytes into records, [`Session::open`] turns records into bytes.
//! 3. [`Session::close`] says that no more will come, so that the peer can tell an end from a cut.

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{ClientConfig, ServerConfig};

use super::TlsError;
use super::identity::pin_of;
use crate::pin::Pin;

/// Bytes of a record, at most, before they are sealed (RFC 8446, section 5.1).
const RECORD_MAX: usize = 16 << 10;
/// Bytes by which sealing makes a record longer: its head, its kind and its tag.
const RECORD_EXTRA: usize = 5 + 1 + 16;

/// A TLS connection, of either end.
pub(crate) struct Session {
    side: Side,
    incoming: BytesMut,
    /// Bytes that were opened and not taken yet; those of what has come, at most.
    plain: BytesMut,
    outgoing: Outgoing,
    is_shaken: bool,
    has_ended: bool,
    /// Why nothing more can be made of it.
    failed: Option<TlsError>,
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What came of an attempt to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// So many bytes, at least one.
    Bytes(usize),
    /// More has to come first.
    Nothing,
    /// The peer has said that no more will come.
    End,
}

/// How far a session could be moved on.
enum Step {
    /// Not at its end: something was opened or encoded.
    Moved,
    /// Data may be sent. What was to be sealed is.
    Ready,
    /// More has to come first.
    Blocked,
    /// The peer has said that no more will come.
    Ended,
}

impl Session {
    /// A server's end.
    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Self::new(Side::Server(Box::new(UnbufferedServerConnection::new(config)?))))
    }

    /// A client's end. `host` is what a certificate of an authority has to be for; one that cannot
    /// stand in a certificate is never found there.
    pub(crate) fn client(config: Arc<ClientConfig>, host: &str) -> Result<Self, TlsError> {
        let bare = host.split_once('%').map_or(host, |(address, _zone)| address);
        let name = ServerName::try_from(bare.to_owned())
            .or_else(|_| ServerName::try_from("name.invalid"))
            .map_err(|_| rustls::Error::General("the host cannot stand in a certificate".to_owned()))?;
        Ok(Self::new(Side::Client(Box::new(UnbufferedClientConnection::new(config, name)?))))
    }

    fn new(side: Side) -> Self {
        let outgoing = Outgoing { bytes: Vec::new(), start: 0, end: 0 };
        let (incoming, plain) = (BytesMut::new(), BytesMut::new());
        Self { side, incoming, plain, outgoing, is_shaken: false, has_ended: false, failed: None }
    }

    /// Where what has come is put, behind what is there. Only so much of it should be read at once as may be
    /// held in memory, and only when [`Self::open`] or [`Self::shake`] have asked for more.
    pub(crate) fn incoming(&mut self) -> &mut BytesMut {
        &mut self.incoming
    }

    /// What is to be sent.
    pub(crate) fn outgoing(&self) -> &[u8] {
        &self.outgoing.bytes[self.outgoing.start..self.outgoing.end]
    }

    /// So many bytes of [`Self::outgoing`] were sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.outgoing.start = (self.outgoing.start + count).min(self.outgoing.end);
        if self.outgoing.start == self.outgoing.end {
            (self.outgoing.start, self.outgoing.end) = (0, 0);
        }
    }

    /// Gives memory back that is not needed until more is said.
    pub(crate) fn rest(&mut self) {
        if self.outgoing.end == 0 {
            self.outgoing.bytes = Vec::new();
        }
        for buffer in [&mut self.incoming, &mut self.plain] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    /// How many bytes [`Self::open`] gives without reading, at most.
    pub(crate) fn held(&self) -> usize {
        self.plain.len() + self.incoming.len()
    }

    /// Goes on with the handshake; `true` once it is over, `false` if more has to come first. Either way
    /// something may have to be sent.
    pub(crate) fn shake(&mut self) -> Result<bool, TlsError> {
        while !self.is_shaken {
            match self.step(&mut [], &mut 0, None)? {
                Step::Moved | Step::Ready => {}
                Step::Blocked => return Ok(false),
                Step::Ended => {
                    return Err(rustls::Error::General("the peer ended the handshake".to_owned()).into());
                }
            }
        }
        Ok(true)
    }

    /// Opens what has come into `into`, as many bytes as it has room for.
    pub(crate) fn open(&mut self, into: &mut [u8]) -> Result<Opened, TlsError> {
        let mut filled = self.plain.len().min(into.len());
        into[..filled].copy_from_slice(&self.plain[..filled]);
        self.plain.advance(filled);
        while filled < into.len() && !self.has_ended {
            match self.step(into, &mut filled, None) {
                Ok(Step::Moved) => {}
                Ok(Step::Ready | Step::Blocked) => break,
                Ok(Step::Ended) => self.has_ended = true,
                // What came before is whole.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(match filled {
            0 if self.has_ended => Opened::End,
            0 => Opened::Nothing,
            count => Opened::Bytes(count),
        })
    }

    /// Makes records of `bytes`, behind those that are to be sent already. Only after the handshake.
    pub(crate) fn seal(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.reach(Put::Data(bytes))
    }

    /// Says that no more will come.
    pub(crate) fn close(&mut self) -> Result<(), TlsError> {
        self.reach(Put::End)
    }

    /// The pin of the server's key, on a client's end after the handshake.
    pub(crate) fn peer_pin(&self) -> Option<Pin> {
        let certificates = match &self.side {
            Side::Client(client) => client.peer_certificates(),
            Side::Server(server) => server.peer_certificates(),
        };
        pin_of(certificates?.first()?)
    }

    fn reach(&mut self, put: Put<'_>) -> Result<(), TlsError> {
        loop {
            match self.step(&mut [], &mut 0, Some(put))? {
                Step::Moved => {}
                Step::Ready => return Ok(()),
                // The peer's end is not ours: it may still be sent to.
                Step::Ended => self.has_ended = true,
                Step::Blocked => return Err(rustls::Error::HandshakeNotComplete.into()),
            }
        }
    }

    /// Moves on by one step. Opened bytes go into `into` behind the `filled` ones, and what it has no room for
    /// is kept.
    fn step(&mut self, into: &mut [u8], filled: &mut usize, put: Option<Put<'_>>) -> Result<Step, TlsError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let Self { side, incoming, plain, outgoing, .. } = self;
        let sink = Sink { into, filled, plain, outgoing, put };
        let (discard, step) = match side {
            Side::Client(client) => sink.take(client.process_tls_records(incoming)),
            Side::Server(server) => sink.take(server.process_tls_records(incoming)),
        };
        incoming.advance(discard);
        if let Err(error) = &step {
            self.failed = Some(error.clone());
            self.tell_why();
        }
        if matches!(step, Ok(Step::Ready)) {
            self.is_shaken = true;
        }
        step
    }

    /// After an error: what the peer is told of it. What has come may hold more errors, so the library is
    /// asked once for what it has to send, and never again for anything.
    fn tell_why(&mut self) {
        let Self { side, incoming, plain, outgoing, .. } = self;
        let sink = Sink { into: &mut [], filled: &mut 0, plain, outgoing, put: None };
        let _ = match side {
            Side::Client(client) => sink.take(client.process_tls_records(incoming)),
            Side::Server(server) => sink.take(server.process_tls_records(incoming)),
        };
    }
}

/// What is to be put out once that is possible.
#[derive(Clone, Copy)]
enum Put<'a> {
    Data(&'a [u8]),
    End,
}

/// Where a step's results go.
struct Sink<'a> {
    into: &'a mut [u8],
    filled: &'a mut usize,
    plain: &'a mut BytesMut,
    outgoing: &'a mut Outgoing,
    put: Option<Put<'a>>,
}

impl Sink<'_> {
    /// Takes what a step gave; says how much of what has come is done with.
    fn take<D>(self, status: UnbufferedStatus<'_, '_, D>) -> (usize, Result<Step, TlsError>) {
        let UnbufferedStatus { mut discard, state } = status;
        let step = match state {
            Err(error) => Err(error.into()),
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    None => break Ok(Step::Moved),
                    Some(Err(error)) => break Err(error.into()),
                    Some(Ok(record)) => {
                        discard += record.discard;
                        let room = &mut self.into[*self.filled..];
                        let (now, later) = record.payload.split_at(record.payload.len().min(room.len()));
                        room[..now.len()].copy_from_slice(now);
                        *self.filled += now.len();
                        self.plain.extend_from_slice(later);
                    }
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut record)) => {
                self.outgoing.put(0, |room| record.encode(room)).map(|()| Step::Moved)
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                // It is in the queue, in front of all that comes later.
                transmit.done();
                Ok(Step::Moved)
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match self.put {
                None => Ok(Step::Ready),
                Some(Put::Data(bytes)) => {
                    let least = bytes.len() + (bytes.len() / RECORD_MAX + 1) * RECORD_EXTRA;
                    self.outgoing.put(least, |room| traffic.encrypt(bytes, room)).map(|()| Step::Ready)
                }
                Some(Put::End) => {
                    self.outgoing.put(0, |room| traffic.queue_close_notify(room)).map(|()| Step::Ready)
                }
            },
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Ended),
            // Early data is never accepted, and what is not known cannot be handled.
            Ok(_) => Ok(Step::Blocked),
        };
        (discard, step)
    }
}

/// Records on their way out.
struct Outgoing {
    /// Kept as long as it was, so that it is cleared only once.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    /// Puts something behind what is there, into at least so much room.
    fn put<E: Into<Lack>>(
        &mut self,
        least: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), TlsError> {
        let mut room = least;
        loop {
            if self.bytes.len() < self.end + room {
                self.bytes.resize(self.end + room, 0);
            }
            match write(&mut self.bytes[self.end..]).map_err(Into::into) {
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(Lack::Room(needed)) if needed > room => room = needed,
                Err(_) => return Err(rustls::Error::EncryptError.into()),
            }
        }
    }
}

/// Why something could not be put out.
enum Lack {
    Room(usize),
    Other,
}

impl From<EncodeError> for Lack {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size, .. }) => {
                Self::Room(required_size)
            }
            EncodeError::AlreadyEncoded => Self::Other,
        }
    }
}

impl From<EncryptError> for Lack {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size, .. }) => {
                Self::Room(required_size)
            }
            EncryptError::EncryptExhausted => Self::Other,
        }
    }
}

#[cfg(test)]
#[path = "session/tests.rs"]
mod tests;
