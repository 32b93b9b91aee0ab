//! The server as a user names it, and the connection to it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{Event, FetchError, Observer};
use crate::limits::DEFAULT_PORT;
use crate::pin::Pin;
use crate::text;

/// Longest host name, in bytes (RFC 1035, section 2.3.4).
const HOST_MAX: usize = 253;

/// A host and a port, as a user names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The pin of the key that it must have, if the address holds one.
    pub pin: Option<Pin>,
}

/// What is wrong with a server as it was named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a server; write HOST, HOST:PORT, [IPV6], [IPV6]:PORT or oneport://HOST:PORT#PIN")]
pub struct ServerError(String);

impl Server {
    /// How the address of a server, or of a file on it, begins.
    pub const SCHEME: &str = "oneport://";

    /// A server by its host, with or without the brackets of an IPv6 address, and its port.
    ///
    /// # Errors
    /// If `host` cannot be a host.
    pub fn new(host: &str, port: u16) -> Result<Self, ServerError> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let fits = (1..=HOST_MAX).contains(&bare.len())
            && bare.bytes().all(|byte| byte.is_ascii_graphic() || byte >= 0x80)
            && !bare.contains(['/', '[', ']', '@', '#'])
            && (!bare.contains(':') || is_ipv6(bare));
        if fits { Ok(Self { host: bare.to_owned(), port, pin: None }) } else { Err(ServerError::of(host)) }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self { host: "localhost".to_owned(), port: DEFAULT_PORT, pin: None }
    }
}

/// `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT` or a bare IPv6 address; or `oneport://` and one of these, with or
/// without `#` and a pin behind it.
impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        if let Some(address) = text.strip_prefix(Self::SCHEME) {
            let (server, pin) = match address.split_once('#') {
                Some((server, pin)) => (server, Some(pin.parse().map_err(|_| ServerError::of(text))?)),
                None => (address, None),
            };
            if server.starts_with(Self::SCHEME) {
                return Err(ServerError::of(text));
            }
            let server: Self = server.strip_suffix('/').unwrap_or(server).parse()?;
            return Ok(Self { pin, ..server });
        }
        if is_ipv6(text) {
            return Self::new(text, DEFAULT_PORT);
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => {
                Self::new(host, port.parse().map_err(|_| ServerError::of(text))?)
            }
            _ => Self::new(text, DEFAULT_PORT),
        }
    }
}

/// Shown escaped.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (text::shown(self.host.as_bytes()), self.port);
        if self.host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl ServerError {
    fn of(text: &str) -> Self {
        Self(text::shown(text.as_bytes()).to_string())
    }
}

/// An IPv6 address, with or without a zone.
fn is_ipv6(text: &str) -> bool {
    let address = text.split_once('%').map_or(text, |(address, _zone)| address);
    matches!(address.parse(), Ok(IpAddr::V6(_)))
}

/// Connects to the first of the server's addresses that answers, each within `patience`.
pub(super) async fn connect(
    server: &Server,
    patience: Duration,
    observer: &dyn Observer,
) -> Result<(TcpStream, SocketAddr), FetchError> {
    let failed = |source| FetchError::Connect { server: server.to_string(), source };
    let addresses = resolve(server, patience).await.map_err(failed)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for peer in addresses {
        observer.observe(&Event::Connecting { peer });
        match within(patience, TcpStream::connect(peer)).await {
            Ok(stream) => {
                // Only a matter of speed.
                let _ = stream.set_nodelay(true);
                observer.observe(&Event::Connected { peer });
                return Ok((stream, peer));
            }
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

async fn resolve(server: &Server, patience: Duration) -> io::Result<Vec<SocketAddr>> {
    let found = within(patience, lookup_host((server.host.as_str(), server.port))).await?;
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

async fn within<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(patience, work).await {
        Ok(result) => result,
        Err(_elapsed) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", patience.as_secs_f32()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_in_every_form() {
        for (text, host, port) in [
            ("nas", "nas", 9999),
            ("nas:8080", "nas", 8080),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("::1", "::1", 9999),
            ("[::1]", "::1", 9999),
            ("[::1]:8080", "::1", 8080),
            ("fe80::1%eth0", "fe80::1%eth0", 9999),
            ("[fe80::1%eth0]:70", "fe80::1%eth0", 70),
        ] {
            assert_eq!(text.parse(), Ok(Server { host: host.into(), port, pin: None }), "{text}");
            let address = format!("oneport://{text}");
            assert_eq!(address.parse(), Ok(Server { host: host.into(), port, pin: None }), "{address}");
            let pin = Pin::of(b"a key");
            for pinned in [format!("{address}#{}", pin.letters()), format!("{address}/#{pin}")] {
                let server = Server { host: host.into(), port, pin: Some(pin) };
                assert_eq!(pinned.parse(), Ok(server), "{pinned}");
            }
        }
        for text in ["nas#x", "oneport://nas#", "oneport://nas#x", "oneport://oneport://nas", "oneport://"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
        for text in
            ["", ":80", "a:", "a:b", "a:65536", "a:b:c", "[::1", "::1]:80", "a b", "a/b", "x@y", "[nas:1]:2"]
        {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
        assert!("h".repeat(300).parse::<Server>().is_err());
    }

    #[test]
    fn a_server_is_shown_as_it_can_be_written() {
        for text in ["nas:8080", "[::1]:8080"] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
        }
    }
}
