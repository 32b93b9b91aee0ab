//! One connection through the proxy: two sockets, two ways, one thread.

use std::io::{self, ErrorKind, Read as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::Counts;
use super::faults::Plan;
use super::link::{Link, PIECE, Wire};
use super::way::{State, Turn, Way};

/// Longest wait for a connection to the target.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// What a socket reports that nobody asked for.
const TROUBLE: PollFlags = PollFlags::HUP.union(PollFlags::ERR);

/// Both directions of a link.
pub(super) struct Line {
    link: Link,
    up: Wire,
    down: Wire,
}

impl Line {
    pub(super) fn new(link: Link) -> Self {
        Self { link, up: Wire::new(link), down: Wire::new(link) }
    }
}

/// Waits until one of the sockets has something to report or the time has come; what each reports, which
/// may be nothing. Fails when the proxy ends.
pub(super) fn wait(
    stop: &UnixStream,
    sockets: &[(BorrowedFd<'_>, PollFlags)],
    until: Option<Instant>,
) -> io::Result<Vec<PollFlags>> {
    let mut all = vec![PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
    all.extend(sockets.iter().map(|&(socket, flags)| PollFd::from_borrowed_fd(socket, flags)));
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let left = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
    match poll(&mut all, left.as_ref()) {
        Ok(_) if !all[0].revents().is_empty() => Err(ErrorKind::ConnectionAborted.into()),
        Ok(_) => Ok(all[1..].iter().map(PollFd::revents).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![PollFlags::empty(); sockets.len()]),
        Err(error) => Err(error.into()),
    }
}

/// Carries a connection to its end.
pub(super) fn carry(
    client: TcpStream,
    target: SocketAddr,
    plan: Plan,
    line: &Line,
    counts: &Counts,
    stop: &UnixStream,
) -> io::Result<()> {
    // A handshake goes there and back before the first byte leaves.
    let connected = Instant::now() + line.link.delay * 2;
    while Instant::now() < connected {
        wait(stop, &[], Some(connected))?;
    }
    let server = match TcpStream::connect_timeout(&target, CONNECT_PATIENCE) {
        Ok(server) => server,
        Err(error) => {
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
            return Err(error);
        }
    };
    for socket in [&client, &server] {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
    }
    let up = Way::new(plan.up, line.link, &line.up, &counts.up);
    let down = Way::new(plan.down, line.link, &line.down, &counts.down);
    let sockets = [client, server].map(|stream| Socket { stream, is_broken: false, is_hung_up: false });
    Connection { sockets, ways: [up, down], stop }.run()
}

/// Way 0 leads from socket 0, the client's, to socket 1, and way 1 back.
struct Connection<'a> {
    sockets: [Socket; 2],
    ways: [Way<'a>; 2],
    stop: &'a UnixStream,
}

struct Socket {
    stream: TcpStream,
    /// The peer is gone.
    is_broken: bool,
    /// Both directions are over, which the system reports for ever.
    is_hung_up: bool,
}

impl Connection<'_> {
    fn run(mut self) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        while !self.is_over() {
            let mut wake = None;
            for way in 0..2 {
                let is_heard = self.ways[1 - way].is_open;
                match self.ways[way].give(&self.sockets[1 - way].stream, is_heard, Instant::now()) {
                    Turn::Wait(due) => wake = earlier(wake, due),
                    Turn::Cut => return self.cut(way),
                    Turn::Reset => return self.flush(way).and_then(|()| self.reset()),
                    Turn::SenderGone => return self.reset(),
                    Turn::ReceiverGone => {
                        self.is_gone(1 - way);
                        wake = Some(Instant::now());
                    }
                }
            }
            if !self.is_over() {
                self.listen(wake, &mut piece)?;
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let is_finished = |way: &Way<'_>| way.state == State::Finished;
        let given_up = |way: usize| match self.ways[way].state {
            State::Stalled { receiver_was_heard } => {
                self.sockets[1 - way].is_broken || (receiver_was_heard && !self.ways[1 - way].is_open)
            }
            _ => false,
        };
        self.ways.iter().all(is_finished)
            || self.sockets.iter().all(|socket| socket.is_broken)
            || (0..2).any(given_up)
    }

    /// Waits for the sockets or a time, and reads what has come.
    fn listen(&mut self, mut wake: Option<Instant>, piece: &mut [u8]) -> io::Result<()> {
        let now = Instant::now();
        let mut wanted = [PollFlags::empty(); 2];
        for (way, wanted) in self.ways.iter().zip(&mut wanted) {
            match way.wants_more(now) {
                Ok(()) => *wanted |= PollFlags::IN,
                Err(at) => wake = earlier(wake, at),
            }
        }
        for way in 0..2 {
            wanted[1 - way].set(PollFlags::OUT, self.ways[way].is_blocked);
        }
        let is_asked = |&side: &usize| {
            let Socket { is_broken, is_hung_up, .. } = self.sockets[side];
            !wanted[side].is_empty() || !(is_broken || is_hung_up)
        };
        let asked: Vec<usize> = (0..2).filter(is_asked).collect();
        let sockets: Vec<_> =
            asked.iter().map(|&side| (self.sockets[side].stream.as_fd(), wanted[side])).collect();
        let reported = wait(self.stop, &sockets, wake)?;
        for (side, reported) in asked.into_iter().zip(reported) {
            let has = |flag| wanted[side].contains(flag) && reported.intersects(flag | TROUBLE);
            if has(PollFlags::OUT) {
                self.ways[1 - side].is_blocked = false;
            }
            if has(PollFlags::IN) && self.ways[side].take(&self.sockets[side].stream, piece).is_err() {
                self.is_gone(side);
            }
            if wanted[side].is_empty() && reported.contains(PollFlags::ERR) {
                self.is_gone(side);
            }
            self.sockets[side].is_hung_up |= wanted[side].is_empty() && reported.contains(PollFlags::HUP);
        }
        Ok(())
    }

    /// A peer is gone; the other one learns that when it would.
    fn is_gone(&mut self, side: usize) {
        if std::mem::replace(&mut self.sockets[side].is_broken, true) {
            return;
        }
        self.ways[side].lose_sender();
        self.ways[1 - side].lose_receiver();
    }

    /// Closes both sides, once the receiver of this way has seen that and closes too: whoever closes a
    /// socket before it has read everything resets it.
    fn cut(&self, way: usize) -> io::Result<()> {
        for socket in &self.sockets {
            let _ = socket.stream.shutdown(Shutdown::Write);
        }
        let mut receiver = &self.sockets[1 - way].stream;
        let mut bin = vec![0; PIECE];
        loop {
            match receiver.read(&mut bin) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(self.stop, &[(receiver.as_fd(), PollFlags::IN)], None)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the receiver of this way can read everything that was written for it.
    fn flush(&self, way: usize) -> io::Result<()> {
        let receiver = &self.sockets[1 - way].stream;
        // There is room for more only when nothing is left that has not been sent.
        #[cfg(target_os = "linux")]
        SockRef::from(receiver).set_tcp_notsent_lowat(1)?;
        while wait(self.stop, &[(receiver.as_fd(), PollFlags::OUT)], None)?[0].is_empty() {}
        Ok(())
    }

    /// Closes both sides with a reset.
    fn reset(&self) -> io::Result<()> {
        for socket in &self.sockets {
            SockRef::from(&socket.stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(())
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
