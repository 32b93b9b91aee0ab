//! The listening side: connections in, one dialect each, out again.
//!
//! [`run`] is called by the assembly with a bound listener, the service and the stop signals, and
//! returns when the last connection has ended. It decides nothing about files.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::{self, ACCEPT_BACKOFF_MAX, ACCEPT_BACKOFF_MIN};
use crate::service::Service;
use crate::tls::Serving;

mod conduit;
mod connection;
mod end;
pub mod listener;
mod precedence;
mod rates;
mod v1;
mod v2;
mod wire;

use precedence::Precedence;
use rates::Rates;

/// What a client is told whose transfer somebody else has ended, in dialects that have no code for it.
const CANCELLED: &str = "the transfer was cancelled by an operator of the server";

/// What a user may set about connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Connections at once from one address; 0 means no limit.
    pub connections_per_address_max: usize,
    /// Time for a full request.
    pub request_timeout: Duration,
    /// Time after which a peer that takes no byte is dropped.
    pub idle_timeout: Duration,
    /// Least rate at which a peer must take a file, in bytes per second; 0 means none.
    pub rate_min: u64,
    /// Most bytes per second that all clients get together.
    pub rate_limit: Option<u64>,
    /// Most bytes per second that all connections of one client get together.
    pub rate_limit_per_client: Option<u64>,
    /// Time that running transfers have to end after a stop.
    pub drain_timeout: Duration,
    /// Pause between `OK` and the header in wire format v1.
    pub v1_pause: Duration,
    /// Whoever speaks without TLS is refused.
    pub require_tls: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_address_max: 0,
            request_timeout: limits::REQUEST_TIMEOUT,
            idle_timeout: limits::IDLE_TIMEOUT,
            rate_min: limits::RATE_MIN,
            rate_limit: None,
            rate_limit_per_client: None,
            drain_timeout: limits::DRAIN_TIMEOUT,
            v1_pause: limits::V1_PAUSE,
            require_tls: false,
        }
    }
}

/// What the listener itself has to tell; connections tell the service's observer.
pub trait Monitor: Send + Sync {
    /// Accepting has begun to fail; the next try is after `wait`.
    fn accept_failed(&self, error: &io::Error, wait: Duration);
    /// Accepting works again after it had failed.
    fn accept_recovered(&self);
    /// All places are taken; new connections wait.
    fn full(&self, connections: usize);
    /// A connection was closed at once: its address has too many.
    fn turned_away(&self, peer: SocketAddr);
}

/// What each connection shares.
struct Context {
    service: Service,
    settings: Settings,
    /// Who the server is; without that it does not speak TLS.
    tls: Option<Serving>,
    rates: Rates,
    /// Whose bytes go first to clients, and from them.
    sending: Arc<Precedence>,
    taking: Arc<Precedence>,
    /// The server is stopping: what has not begun does not begin.
    stopping: CancellationToken,
}

/// Serves until `stopping` is cancelled, with TLS where there is an identity for it; then lets running transfers end within the drain timeout;
/// `false` if some had to be cut.
pub async fn run(
    listener: TcpListener,
    service: Service,
    settings: Settings,
    tls: Option<Serving>,
    monitor: &dyn Monitor,
    stopping: CancellationToken,
) -> bool {
    let drain_timeout = settings.drain_timeout;
    service.live().opens(listener.local_addr().ok(), settings.connections_max);
    let places = Arc::new(Semaphore::new(settings.connections_max));
    let addresses = Arc::new(Addresses::new(settings.connections_per_address_max));
    let rates = Rates::new(&settings);
    let (sending, taking) = (Precedence::new(), Precedence::new());
    let context = Context { service, settings, tls, rates, sending, taking, stopping: stopping.clone() };
    let context = Arc::new(context);
    let tasks = TaskTracker::new();
    let killing = CancellationToken::new();
    let mut acceptor = Acceptor { listener, monitor, places, was_full: false, is_failing: false };
    while let Some(accepted) = stopping.run_until_cancelled(acceptor.next()).await {
        let (stream, peer, place) = accepted;
        let Some(entry) = Addresses::enter(&addresses, peer.ip()) else {
            monitor.turned_away(peer);
            continue;
        };
        let (context, killing) = (Arc::clone(&context), killing.clone());
        tasks.spawn(async move {
            let _held = (place, entry);
            killing.run_until_cancelled(connection::serve(stream, peer, &context)).await;
        });
    }
    drop(acceptor);
    tasks.close();
    let drained = tokio::time::timeout(drain_timeout, tasks.wait()).await.is_ok();
    killing.cancel();
    tasks.wait().await;
    drained
}

struct Acceptor<'a> {
    listener: TcpListener,
    monitor: &'a dyn Monitor,
    places: Arc<Semaphore>,
    was_full: bool,
    is_failing: bool,
}

impl Acceptor<'_> {
    /// The next connection, once there is a place for it.
    async fn next(&mut self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        let place = self.place().await;
        let mut wait = ACCEPT_BACKOFF_MIN;
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if std::mem::take(&mut self.is_failing) {
                        self.monitor.accept_recovered();
                    }
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    return (stream, peer, place);
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    // Once for each spell of trouble: under a flood the log must not become a
                    // flood of its own.
                    if !std::mem::replace(&mut self.is_failing, true) {
                        self.monitor.accept_failed(&error, wait);
                    }
                    tokio::time::sleep(wait).await;
                    wait = ACCEPT_BACKOFF_MAX.min(wait * 2);
                }
            }
        }
    }

    async fn place(&mut self) -> OwnedSemaphorePermit {
        let free = Arc::clone(&self.places).try_acquire_owned();
        if let Ok(place) = free {
            self.was_full = false;
            return place;
        }
        if !std::mem::replace(&mut self.was_full, true) {
            self.monitor.full(Arc::strong_count(&self.places) - 1);
        }
        match Arc::clone(&self.places).acquire_owned().await {
            Ok(place) => place,
            // The semaphore is never closed.
            Err(_closed) => std::future::pending().await,
        }
    }
}

/// Errors that belong to the connection that would have been accepted, not to the listener.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

/// How many connections each address has.
struct Addresses {
    max: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place in the count.
struct Entry {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    fn new(max: usize) -> Self {
        Self { max, counts: Mutex::default() }
    }

    fn enter(this: &Arc<Self>, address: IpAddr) -> Option<Option<Entry>> {
        if this.max == 0 {
            return Some(None);
        }
        let mut counts = this.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= this.max {
            return None;
        }
        *count += 1;
        Some(Some(Entry { addresses: Arc::clone(this), address }))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
