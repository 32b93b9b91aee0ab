//! One direction of a connection: from reading what the sender says to giving it to the receiver.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::faults::{Fault, Filter, Flow, Step};
use super::link::{Arrival, Link, Queue, Wire};

/// Most pieces read, and most writes made, before the rest of the connection has its turn.
const TURN: usize = 16;

/// One direction.
pub(super) struct Way<'a> {
    queue: Queue,
    filter: Filter,
    wire: &'a Wire,
    delivered: &'a AtomicU64,
    /// The sender may say more.
    pub(super) is_open: bool,
    /// The receiver takes nothing more for now.
    pub(super) is_blocked: bool,
    pub(super) state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
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
pub(super) enum Turn {
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
    pub(super) fn new(flow: Flow, link: Link, wire: &'a Wire, delivered: &'a AtomicU64) -> Self {
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
    pub(super) fn wants_more(&self, now: Instant) -> Result<(), Option<Instant>> {
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
    pub(super) fn take(&mut self, mut sender: &TcpStream, piece: &mut [u8]) -> io::Result<()> {
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
    pub(super) fn give(&mut self, mut receiver: &TcpStream, is_heard: bool, now: Instant) -> Turn {
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

    /// The sender is gone, which the receiver learns when that has come through.
    pub(super) fn lose_sender(&mut self) {
        self.is_open = false;
        if matches!(self.state, State::Flowing | State::Finished) {
            self.state = State::Flowing;
            self.queue.push_reset(self.wire, Instant::now());
        }
    }

    /// The receiver is gone.
    pub(super) fn lose_receiver(&mut self) {
        if !matches!(self.state, State::Stalled { .. }) {
            self.state = State::Lost;
            self.is_blocked = false;
            self.queue.clear();
        }
    }
}
