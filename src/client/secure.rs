//! A connection to a server that may be told what is to be told: made, and proven as was decided.
//!
//! 1. The decision comes first, so a contradiction is told before anybody is connected to.
//! 2. Hands are shaken before a byte of the protocol is sent; whatever is wrong then ends the connection and
//!    is told, and nothing else is tried: neither another version nor a connection in clear.
//! 3. The key comes with the connection, and only with one whose server may see it. Nobody else has it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::AlertDescription;
use tokio::time::timeout;

use super::attempt::blocking;
use super::connect::connect;
use super::distrust::Distrust;
use super::known_hosts::{Added, Entry, KnownHostsError, Mark};
use super::security::{Basis, Tls, Way};
use super::stream::{ShakeError, Stream};
use super::{Event, FetchError, Observer, Server, Settings};
use crate::pin::Pin;
use crate::text;
use crate::tls::{Session, TlsError, Untrusted};
use crate::token::Token;

const WHEN: &str = "while TLS was being agreed on";
/// Kinds of TLS records (RFC 8446, section 5.1): what begins with none of them is no TLS.
const RECORD_KINDS: std::ops::RangeInclusive<u8> = 20..=24;

/// A connection to a server that is trusted as was decided.
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) peer: SocketAddr,
    /// The key, if there is one. It may be sent over this connection.
    pub(super) key: Option<Token>,
}

/// Connects, and shakes hands if that was decided.
pub(super) async fn open(
    server: &Server,
    settings: &Settings,
    observer: &dyn Observer,
) -> Result<Connection, FetchError> {
    let security = &settings.security;
    let way = security.way(server).await?;
    let (socket, peer) = connect(server, settings.timeout, observer).await?;
    let tls = match way {
        Way::Plain => return Ok(Connection { stream: Stream::plain(socket), peer, key: None }),
        Way::Loopback(_) if is_loopback(peer.ip()) => {
            return Ok(Connection { stream: Stream::plain(socket), peer, key: security.key.clone() });
        }
        Way::Loopback(None) => return Err(Distrust::Clear { server: server.to_string() }.into()),
        Way::Loopback(Some(tls)) | Way::Tls(tls) => tls,
    };
    let session = Session::client(Arc::clone(&tls.config), &server.host);
    let session = session.map_err(|error| Distrust::Setup(error.to_string()))?;
    let stream = match timeout(settings.timeout, Stream::shake(socket, session)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(meaning_of(error, server, peer, &tls)),
        Err(_elapsed) => {
            let (when, after) = (WHEN.to_owned(), settings.timeout);
            return Err(FetchError::Silent { peer, when, after });
        }
    };
    let found = stream.session().and_then(Session::peer_pin);
    let found = found.ok_or_else(|| Distrust::Setup("the server has shown no key".to_owned()))?;
    if tls.basis == Basis::Stranger {
        stream.close(settings.timeout.min(GOODBYE)).await;
        return Err(Distrust::Unknown { server: server.to_string(), found }.into());
    }
    if matches!(tls.basis, Basis::FirstContact | Basis::Pinned(_) | Basis::Authorities) {
        remember(server, found, &tls, settings, observer).await?;
    }
    let key = if tls.basis.may_see_key() { security.key.clone() } else { None };
    Ok(Connection { stream, peer, key })
}

/// How long the end of a connection that is of no use is said.
const GOODBYE: Duration = Duration::from_secs(1);

/// Makes sure that a server that is met for the first time is known before several connect to it at once, so
/// that there is one first contact and somebody who hears of it.
pub(super) async fn meet(
    server: &Server,
    settings: &Settings,
    observer: &dyn Observer,
) -> Result<(), FetchError> {
    match settings.security.way(server).await? {
        Way::Tls(tls) if tls.basis == Basis::FirstContact => {
            let Connection { stream, .. } = open(server, settings, observer).await?;
            stream.close(settings.timeout.min(GOODBYE)).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether it is this machine, whichever way the address is written.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Writes down by what a server is known. Who is trusted for a reason that was given is remembered if that can be
/// done, so that it is not spoken to in clear another time; who is met for the first time has to be.
async fn remember(
    server: &Server,
    found: Pin,
    tls: &Tls,
    settings: &Settings,
    observer: &dyn Observer,
) -> Result<(), FetchError> {
    let security = &settings.security;
    let is_first = tls.basis == Basis::FirstContact;
    let is_pinned = matches!(tls.basis, Basis::Pinned(_));
    let Some(known_hosts) = security.known_hosts.clone() else {
        let (server, source) = (server.to_string(), KnownHostsError::Nowhere);
        return match is_first {
            true => Err(Distrust::Unremembered { server, found, source }.into()),
            false => Ok(()),
        };
    };
    if !is_first && tls.is_remembered.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let (file, own) = (known_hosts.shown(), server.clone());
    let mark = if tls.basis == Basis::Authorities { Mark::Authority } else { Mark::Key(found) };
    let added = blocking(move || Ok(known_hosts.add(&own, mark))).await?;
    let entry = match added {
        Ok(Added::Now) if matches!(mark, Mark::Authority) => return Ok(()),
        Ok(Added::Now) => {
            observer.observe(&Event::Remembered { server, pin: found, file: &file, is_pinned });
            Entry { pins: vec![found], place: file }
        }
        Ok(Added::Before(_)) | Err(_) if !is_first => return Ok(()),
        Ok(Added::Before(entry)) if entry.pins.contains(&found) => entry,
        Ok(Added::Before(entry)) => return Err(other_key(server, &Basis::Known(entry), found).into()),
        Err(source) => {
            return Err(Distrust::Unremembered { server: server.to_string(), found, source }.into());
        }
    };
    if is_first { Ok(security.learn(server, entry)?) } else { Ok(()) }
}

/// What it means that hands could not be shaken.
fn meaning_of(error: ShakeError, server: &Server, peer: SocketAddr, tls: &Tls) -> FetchError {
    let lost = |source| FetchError::Lost { peer, when: WHEN.to_owned(), source };
    let place = tls.basis.place();
    let name = server.to_string();
    let (error, first) = match error {
        ShakeError::Socket(source) => return lost(source),
        ShakeError::Tls { error, first } => (error, first),
    };
    match error {
        TlsError::Untrusted(Untrusted::OtherKey { found }) => other_key(server, &tls.basis, found).into(),
        TlsError::Untrusted(Untrusted::Certificate(text)) => {
            // It may hold names that the certificate makes up.
            let text = text::shown(text.as_bytes()).to_string();
            Distrust::Certificate { server: name, place, text }.into()
        }
        TlsError::Broken(_) if first.is_some_and(|first| !RECORD_KINDS.contains(&first)) => {
            Distrust::NoTls { server: name, place }.into()
        }
        TlsError::Broken(error) if is_of_another_kind(&error) => {
            let text = text::shown(error.to_string().as_bytes()).to_string();
            Distrust::Incompatible { server: name, text }.into()
        }
        // The network may have changed it.
        TlsError::Broken(error) => lost(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// Whether both ends have nothing in common, which no other attempt would change.
fn is_of_another_kind(error: &rustls::Error) -> bool {
    use AlertDescription::{HandshakeFailure, InsufficientSecurity, ProtocolVersion};
    matches!(
        error,
        rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(HandshakeFailure | InsufficientSecurity | ProtocolVersion)
    )
}

fn other_key(server: &Server, basis: &Basis, found: Pin) -> Distrust {
    let expected: Vec<String> = basis.pins().iter().map(Pin::to_string).collect();
    let (place, expected) = (basis.place(), expected.join(" or "));
    Distrust::OtherKey { server: server.to_string(), place, expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_however_it_is_written() {
        for (address, is_near) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:10.0.0.1", false),
            ("10.0.0.1", false),
            ("::", false),
            ("0.0.0.0", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_loopback(address.parse().unwrap()), is_near, "{address}");
        }
    }
}
