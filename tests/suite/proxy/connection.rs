//! One connection through the proxy: two sockets, two ways, one thread.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::Counts;
use super::faults::{Fault, Filter, Flow, Plan, Step};
use super::link::{Arrival, Link, PIECE, Queue, Wire};

/// Longest wait for a connection to the target.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Most pieces read, and most writes made, before the rest of the connection has its turn.
const TURN: usize = 16;
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

/// One direction.
struct Way<'a> {
    queue: Queue,
    filter: Filter,
    wire: &'a Wire,
    delivered: &'a AtomicU64,
    /// The sender may say more.
    is_open: bool,
    /// The receiver takes nothing more for now.
    is_blocked: bool,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Flowing,
    /// The receiver knows that the sender has said all.
    Finished,
    /// The receiver is gone: what comes for it is thrown away.
    Lost,
    /// By a fault; and whether the receiver might still say something then.
    Stalled {
        receiver_was_heard: bool,
    },
}

/// What comes of a turn of a way.
enum Turn {
    /// More can be done then, or when something happens.
    Wait(Option<Instant>),
    Cut,
    /// A reset by a fault: what was written before it is to be read.
    Reset,
    /// The sender's own reset.
    SenderGone,
    ReceiverGone,
}

impl<'a> Way<'a> {
    fn new(flow: Flow, link: Link, wire: &'a Wire, delivered: &'a AtomicU64) -> Self {
        Self {
            queue: Queue::new(&link),
            filter: Filter::new(flow),
            wire,
            delivered,
            is_open: true,
            is_blocked: false,
            state: State::Flowing,
        }
    }

    /// Whether to read from the sender; if not, perhaps from some time on.
    fn wants_more(&self, now: Instant) -> Result<(), Option<Instant>> {
        match self.state {
            _ if !self.is_open => Err(None),
            State::Lost => Ok(()),
            State::Flowing if self.queue.has_room() => {
                self.wire.full_until(now).map_or(Ok(()), |at| Err(Some(at)))
            }
            _ => Err(None),
        }
    }

    /// Reads what there is and puts it onto the line. Fails when the sender is gone.
    fn take(&mut self, mut sender: &TcpStream, piece: &mut [u8]) -> io::Result<()> {
        for _ in 0..TURN {
            let now = Instant::now();
            if self.wants_more(now).is_err() {
                break;
            }
            match sender.read(piece) {
                Ok(0) => {
                    self.is_open = false;
                    if self.state == State::Flowing {
                        self.queue.push_end(self.wire, now);
                    }
                }
                Ok(_) if self.state == State::Lost => {}
                Ok(count) => self.queue.push(&piece[..count], self.wire, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the receiver, which may be heard of again or not, what has arrived for it.
    fn give(&mut self, mut receiver: &TcpStream, is_heard: bool, now: Instant) -> Turn {
        if self.state != State::Flowing || self.is_blocked {
            return Turn::Wait(None);
        }
        for _ in 0..TURN {
            let mut is_end = false;
            let (input, due) = match self.queue.arrived(now) {
                Arrival::Bytes(bytes) => (bytes, None),
                Arrival::At(due) => (&mut [][..], Some(due)),
                Arrival::Nothing => (&mut [][..], None),
                Arrival::End => {
                    is_end = true;
                    (&mut [][..], None)
                }
                Arrival::Reset => return Turn::SenderGone,
            };
            let step = self.filter.step(input, |bytes| {
                let written = receiver.write(bytes)?;
                self.delivered.fetch_add(written as u64, Ordering::Relaxed);
                Ok(written)
            });
            match step {
                Ok(Step::Took(count)) => self.queue.took(count),
                Ok(Step::Ends(Fault::Reset)) => return Turn::Reset,
                Ok(Step::Ends(Fault::Stall)) => {
                    self.state = State::Stalled { receiver_was_heard: is_heard };
                    return Turn::Wait(None);
                }
                Ok(Step::Ends(_)) => return Turn::Cut,
                Ok(Step::Hungry) if !is_end => return Turn::Wait(due),
                Ok(Step::Hungry) if self.filter.finish() => {}
                Ok(Step::Hungry) => {
                    self.state = State::Finished;
                    // One that is gone is noticed where it is read from.
                    let _ = receiver.shutdown(Shutdown::Write);
                    return Turn::Wait(None);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return Turn::Wait(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Turn::ReceiverGone,
            }
        }
        Turn::Wait(Some(now))
    }
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
        let from = &mut self.ways[side];
        from.is_open = false;
        if matches!(from.state, State::Flowing | State::Finished) {
            from.state = State::Flowing;
            from.queue.push_reset(from.wire, Instant::now());
        }
        let to = &mut self.ways[1 - side];
        if !matches!(to.state, State::Stalled { .. }) {
            to.state = State::Lost;
            to.is_blocked = false;
            to.queue.clear();
        }
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
