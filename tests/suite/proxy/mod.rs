//! A TCP proxy between a real client and a real server: a bad network, as bad as a test says.
//!
//! It carries bytes both ways and knows nothing of what they mean. `faults` says what goes wrong with a
//! connection and at which byte, `link` how long and how wide the line is; a `connection` consists of two
//! `way`s. It has one thread, which waits for its two sockets, its next due time and the end of the proxy
//! all at once. Dropping the proxy ends all of it, and waits for that.
//!
//! `examples/link.rs` is made of these files too; only a `mod.rs` can be included with its modules.

mod connection;
mod faults;
mod link;
mod way;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use connection::{Line, carry, wait};
pub(crate) use faults::{Fault, Flow, Plan};
pub(crate) use link::Link;

/// How long the proxy accepts nothing after it could not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What has passed over a connection so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Bytes given to the server.
    pub(crate) up: u64,
    /// Bytes given to the client: no more than these could it read.
    pub(crate) down: u64,
    /// Whether the connection still is one.
    pub(crate) open: bool,
}

/// Counts what [`Traffic`] tells.
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    open: AtomicBool,
}

/// A running proxy.
pub(crate) struct Proxy {
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Counts>>>>,
    /// Closing the socket ends the thread.
    running: Option<(UnixStream, JoinHandle<()>)>,
}

impl Proxy {
    /// One on a free port, whose connections fail as `plans` says. It is asked for each connection, in
    /// the order in which they are accepted, and gets how many came before.
    pub(crate) fn faulty(
        target: SocketAddr,
        plans: impl Fn(usize) -> Plan + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Self::on(listener, target, Link::default(), plans)
    }

    /// One on a free port that is as long and as wide as the link. A connection takes a round trip until
    /// its first byte can leave, as if the proxy were not there.
    pub(crate) fn linked(target: SocketAddr, link: Link) -> io::Result<Self> {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, target, link, |_| Plan::none())
    }

    /// One with everything: the faults come at the far end of the link.
    pub(crate) fn on(
        listener: TcpListener,
        target: SocketAddr,
        link: Link,
        plans: impl Fn(usize) -> Plan + Send + 'static,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let connections = Arc::default();
        let (alive, stop) = UnixStream::pair()?;
        let acceptor = Acceptor {
            listener,
            target,
            line: Arc::new(Line::new(link)),
            connections: Arc::clone(&connections),
            stop: Arc::new(stop),
            threads: Vec::new(),
        };
        let thread = std::thread::spawn(move || acceptor.run(plans));
        Ok(Self { address, connections, running: Some((alive, thread)) })
    }

    /// What has passed over each connection, in the order in which they were accepted.
    pub(crate) fn connections(&self) -> Vec<Traffic> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let traffic = |counts: &Arc<Counts>| {
            // Once it is not open, the rest is final.
            let open = counts.open.load(Ordering::Acquire);
            let [up, down] = [&counts.up, &counts.down].map(|count| count.load(Ordering::Relaxed));
            Traffic { up, down, open }
        };
        connections.iter().map(traffic).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let Some((alive, thread)) = self.running.take() else { return };
        drop(alive);
        join(thread);
    }
}

/// Waits for a thread; its panic is the caller's, unless that has one already.
fn join(thread: JoinHandle<()>) {
    if let Err(panic) = thread.join()
        && !std::thread::panicking()
    {
        std::panic::resume_unwind(panic);
    }
}

struct Acceptor {
    listener: TcpListener,
    target: SocketAddr,
    line: Arc<Line>,
    connections: Arc<Mutex<Vec<Arc<Counts>>>>,
    stop: Arc<UnixStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Acceptor {
    fn run(mut self, plans: impl Fn(usize) -> Plan) {
        for number in 0.. {
            let Some(client) = self.accept() else { break };
            let counts = Arc::new(Counts { up: 0.into(), down: 0.into(), open: true.into() });
            self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counts));
            let plan = plans(number);
            let (line, stop, target) = (Arc::clone(&self.line), Arc::clone(&self.stop), self.target);
            self.threads.push(std::thread::spawn(move || {
                // Whatever fails is a connection that ends, which both peers see.
                let _ = carry(client, target, plan, &line, &counts, &stop);
                counts.open.store(false, Ordering::Release);
            }));
            for thread in self.threads.extract_if(.., |thread| thread.is_finished()) {
                join(thread);
            }
        }
        self.threads.into_iter().for_each(join);
    }

    /// The next connection, unless the proxy ends before.
    fn accept(&self) -> Option<TcpStream> {
        loop {
            match self.listener.accept() {
                Ok((client, _)) => return Some(client),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(&self.stop, &[(self.listener.as_fd(), PollFlags::IN)], None).ok()?;
                }
                Err(_) => {
                    wait(&self.stop, &[], Some(Instant::now() + ACCEPT_PAUSE)).ok()?;
                }
            }
        }
    }
}
