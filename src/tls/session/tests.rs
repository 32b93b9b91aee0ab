//! Both ends joined in memory, with the bytes between them split, cut and changed.

use super::*;
use crate::tls::trust::Untrusted;
use crate::tls::{Identity, Trust};

/// Two ends and what is on its way between them.
struct Pair {
    client: Session,
    server: Session,
}

impl Pair {
    fn new(identity: &Identity, trust: &Trust) -> Self {
        let client = Session::client(trust.client_config().unwrap(), "host").unwrap();
        let server = Session::server(identity.server_config().unwrap()).unwrap();
        Self { client, server }
    }

    /// Carries bytes both ways, `at_once` of them at a time, until both have shaken hands.
    fn shake(&mut self, at_once: usize) -> Result<(), TlsError> {
        for _ in 0..1_000_000 {
            let (client, server) = (self.client.shake()?, self.server.shake()?);
            if client && server && self.client.outgoing().is_empty() && self.server.outgoing().is_empty() {
                return Ok(());
            }
            carry(&mut self.client, &mut self.server, at_once);
            carry(&mut self.server, &mut self.client, at_once);
        }
        panic!("no end");
    }
}

fn carry(from: &mut Session, to: &mut Session, at_once: usize) {
    let count = from.outgoing().len().min(at_once);
    to.incoming().extend_from_slice(&from.outgoing()[..count]);
    from.sent(count);
}

fn identity() -> Identity {
    Identity::make().unwrap().0
}

fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn data_goes_both_ways_however_it_is_split() {
    let identity = identity();
    let trust = Trust::Pinned(vec![identity.pin()]);
    for (at_once, len) in [(1, 100), (7, 40_000), (1000, 100_000), (usize::MAX, 3 << 20)] {
        let mut pair = Pair::new(&identity, &trust);
        pair.shake(at_once).unwrap();
        assert_eq!(pair.client.peer_pin(), Some(identity.pin()));
        let data = sample(len);
        pair.client.seal(&data).unwrap();
        pair.server.seal(&data).unwrap();
        for (from, to) in [(&mut pair.client, &mut pair.server)] {
            let mut got = Vec::new();
            let mut room = vec![0; 10_000];
            while got.len() < len {
                match to.open(&mut room).unwrap() {
                    Opened::Bytes(count) => got.extend_from_slice(&room[..count]),
                    Opened::Nothing => carry(from, to, at_once),
                    Opened::End => panic!("an end that nobody sent"),
                }
            }
            assert!(got == data);
        }
        let mut room = vec![0; len];
        let mut got = 0;
        while got < len {
            match pair.client.open(&mut room[got..]).unwrap() {
                Opened::Bytes(count) => got += count,
                Opened::Nothing => carry(&mut pair.server, &mut pair.client, at_once),
                Opened::End => panic!("an end that nobody sent"),
            }
        }
        assert!(room == data);
    }
}

#[test]
fn an_end_is_told_from_a_cut() {
    let identity = identity();
    let mut pair = Pair::new(&identity, &Trust::FirstContact);
    pair.shake(usize::MAX).unwrap();
    pair.server.seal(b"last").unwrap();
    pair.server.close().unwrap();
    let mut room = [0; 64];
    assert_eq!(pair.client.open(&mut room).unwrap(), Opened::Nothing);
    carry(&mut pair.server, &mut pair.client, usize::MAX);
    assert_eq!(pair.client.open(&mut room).unwrap(), Opened::Bytes(4));
    assert_eq!(pair.client.open(&mut room).unwrap(), Opened::End);
    assert_eq!(pair.client.open(&mut room).unwrap(), Opened::End);
    // The other way is still open.
    pair.client.seal(b"answer").unwrap();
    carry(&mut pair.client, &mut pair.server, usize::MAX);
    assert_eq!(pair.server.open(&mut room).unwrap(), Opened::Bytes(6));
}

#[test]
fn another_key_is_not_trusted_and_is_named() {
    let (identity, other) = (identity(), identity());
    let mut pair = Pair::new(&identity, &Trust::Pinned(vec![other.pin()]));
    let error = pair.shake(usize::MAX).unwrap_err();
    let TlsError::Untrusted(untrusted) = error else { panic!("{error}") };
    assert_eq!(untrusted, Untrusted::OtherKey { found: identity.pin() });
    // The server is told.
    carry(&mut pair.client, &mut pair.server, usize::MAX);
    assert!(matches!(pair.server.shake(), Err(TlsError::Broken(rustls::Error::AlertReceived(_)))));
}

/// Where records begin in `flight`, whose lengths are right.
fn heads(flight: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let next = |&at: &usize| {
        let length = flight.get(at + 3..at + 5)?;
        Some(at + 5 + usize::from(u16::from_be_bytes([length[0], length[1]])))
    };
    std::iter::successors(Some(0), next)
}

#[test]
fn no_changed_byte_of_a_handshake_is_accepted() {
    let identity = identity();
    let trust = Trust::Pinned(vec![identity.pin()]);
    let mut at = 0;
    loop {
        let mut pair = Pair::new(&identity, &trust);
        assert!(!pair.client.shake().unwrap());
        carry(&mut pair.client, &mut pair.server, usize::MAX);
        assert!(!pair.server.shake().unwrap());
        let mut flight = pair.server.outgoing().to_vec();
        pair.server.sent(flight.len());
        let Some(byte) = flight.get_mut(at) else { break };
        *byte ^= 0x55;
        pair.client.incoming().extend_from_slice(&flight);
        // Some changes make the client wait for bytes that never come; none lets it believe. Only the kind
        // and version before a record's length mean nothing.
        let is_believed = matches!(pair.client.shake(), Ok(true));
        assert!(!is_believed || heads(&flight).any(|head| (head..head + 3).contains(&at)), "byte {at}");
        at += if at < 200 { 1 } else { 13 };
    }
    assert!(at > 600);
}

#[test]
fn no_changed_byte_of_data_is_taken() {
    let identity = identity();
    let mut at = 0;
    loop {
        let mut pair = Pair::new(&identity, &Trust::FirstContact);
        pair.shake(usize::MAX).unwrap();
        pair.server.seal(&sample(100)).unwrap();
        let mut record = pair.server.outgoing().to_vec();
        let Some(byte) = record.get_mut(at) else { break };
        *byte ^= 1;
        pair.client.incoming().extend_from_slice(&record);
        let mut room = [0; 200];
        match pair.client.open(&mut room) {
            // What stands before the length is there for old machines on the way, and means nothing.
            Ok(Opened::Bytes(count)) => assert!(at < 3 && room[..count] == sample(100), "byte {at}"),
            _ => assert!(at > 0, "byte {at}"),
        }
        at += 1;
    }
    assert!(at > 100);
}

#[test]
fn nothing_is_sent_before_hands_are_shaken() {
    let identity = identity();
    let mut pair = Pair::new(&identity, &Trust::FirstContact);
    assert!(pair.client.seal(b"secret").is_err());
    assert!(!pair.client.outgoing().windows(6).any(|window| window == b"secret"));
}
