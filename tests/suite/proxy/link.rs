//! A line of a given length and rate, and what is on its way over it.
//!
//! Nothing here waits: pieces carry the time at which they come out at the far end, and whoever
//! carries them asks when that is. The line loses nothing and knows no slow start; where more comes than it
//! carries, a queue of one delay stands before it, and then the senders have to wait.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most bytes that travel as one piece.
pub(super) const PIECE: usize = 64 << 10;
/// The least time for which bytes may wait for their turn on the line.
const QUEUE_MIN: Duration = Duration::from_millis(5);
/// Whoever waits for room in the queue waits for this much of it, not for every single piece.
const QUEUE_STEP: Duration = Duration::from_millis(1);
/// Bounds of the bytes that one direction of a connection may have in the proxy.
const WINDOW_MIN: u64 = 1 << 20;
const WINDOW_MAX: u64 = 64 << 20;
/// Most pieces that one direction of a connection may have in the proxy, however small they are.
const PIECES_MAX: usize = 1 << 16;

/// A line between the two ends. All connections share its rate; each direction has its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// From one end to the other; a round trip takes twice as long.
    pub(crate) delay: Duration,
    /// Bytes of the streams per second; nothing for as many as can be carried.
    pub(crate) rate: Option<NonZeroU64>,
}

impl Link {
    /// The bytes that a direction of a connection may have in the proxy: twice the bandwidth-delay
    /// product, so that the line is never empty for want of room.
    fn window(&self) -> u64 {
        let round_trip = (self.delay * 2).as_micros();
        let product = match self.rate {
            Some(rate) => {
                u64::try_from(u128::from(rate.get()) * round_trip / 1_000_000).unwrap_or(WINDOW_MAX)
            }
            None if round_trip == 0 => 0,
            None => WINDOW_MAX,
        };
        product.saturating_mul(2).clamp(WINDOW_MIN, WINDOW_MAX)
    }
}

/// One direction of a link: who may send when, and when it arrives.
pub(super) struct Wire {
    link: Link,
    /// When the last byte that was put onto it will have left.
    free_at: Mutex<Instant>,
}

impl Wire {
    pub(super) fn new(link: Link) -> Self {
        Self { link, free_at: Mutex::new(Instant::now()) }
    }

    /// When there is room for more, if there is none now. What waits before the line takes as long as
    /// the line.
    pub(super) fn full_until(&self, now: Instant) -> Option<Instant> {
        let queue = self.link.delay.max(QUEUE_MIN);
        let free_at = *self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        (free_at > now + queue).then(|| free_at + QUEUE_STEP - queue)
    }

    /// Puts bytes onto the line; when they arrive.
    fn send(&self, bytes: usize, now: Instant) -> Instant {
        let Some(rate) = self.link.rate else { return now + self.link.delay };
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(rate.get());
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = now.max(*free_at) + takes;
        *free_at + self.link.delay
    }
}

/// What comes out at the far end.
pub(super) enum Arrival<'a> {
    Bytes(&'a mut [u8]),
    /// The sender has said all.
    End,
    /// The sender is gone.
    Reset,
    /// Nothing for now; the next comes then.
    At(Instant),
    /// Nothing is on its way.
    Nothing,
}

enum Piece {
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// What one direction of a connection has on the line.
pub(super) struct Queue {
    pieces: VecDeque<(Instant, Piece)>,
    window: u64,
    bytes: u64,
    /// How much of the first piece is done with.
    done: usize,
}

impl Queue {
    pub(super) fn new(link: &Link) -> Self {
        Self { pieces: VecDeque::new(), window: link.window(), bytes: 0, done: 0 }
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < self.window && self.pieces.len() < PIECES_MAX
    }

    pub(super) fn push(&mut self, bytes: &[u8], wire: &Wire, now: Instant) {
        self.bytes += bytes.len() as u64;
        self.pieces.push_back((wire.send(bytes.len(), now), Piece::Bytes(bytes.to_vec())));
    }

    pub(super) fn push_end(&mut self, wire: &Wire, now: Instant) {
        self.pieces.push_back((wire.send(0, now), Piece::End));
    }

    pub(super) fn push_reset(&mut self, wire: &Wire, now: Instant) {
        self.pieces.push_back((wire.send(0, now), Piece::Reset));
    }

    /// Loses everything.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        (self.bytes, self.done) = (0, 0);
    }

    /// What has arrived and is not done with.
    pub(super) fn arrived(&mut self, now: Instant) -> Arrival<'_> {
        match self.pieces.front_mut() {
            None => Arrival::Nothing,
            Some((due, _)) if *due > now => Arrival::At(*due),
            Some((_, Piece::Bytes(bytes))) => Arrival::Bytes(&mut bytes[self.done..]),
            Some((_, Piece::End)) => Arrival::End,
            Some((_, Piece::Reset)) => Arrival::Reset,
        }
    }

    /// So many of the bytes that have arrived are done with.
    pub(super) fn took(&mut self, bytes: usize) {
        self.done += bytes;
        self.bytes -= bytes as u64;
        if matches!(self.pieces.front(), Some((_, Piece::Bytes(piece))) if self.done == piece.len()) {
            self.pieces.pop_front();
            self.done = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { delay: Duration::from_millis(25), rate: NonZeroU64::new(125_000_000) };

    #[test]
    fn a_second_s_bytes_take_a_second_and_the_delay() {
        let wire = Wire::new(LINK);
        let now = Instant::now();
        let dues: Vec<_> = (0..1000).map(|_| wire.send(125_000, now)).collect();
        assert_eq!(dues[0], now + Duration::from_millis(1 + 25));
        assert_eq!(dues[999], now + Duration::from_millis(1000 + 25));
        // An idle line saves nothing up.
        let later = now + Duration::from_secs(10);
        assert_eq!(wire.send(125_000, later), later + Duration::from_millis(1 + 25));
    }

    #[test]
    fn the_queue_before_the_line_and_the_room_of_a_connection_are_bounded() {
        let (wire, mut queue, now) = (Wire::new(LINK), Queue::new(&LINK), Instant::now());
        let mut sent = 0;
        while wire.full_until(now).is_none() {
            queue.push(&[0; PIECE], &wire, now);
            sent += PIECE;
        }
        assert!((3_125_000..3_125_000 + 2 * PIECE).contains(&sent), "{sent} bytes wait for 25 ms");
        let free = wire.full_until(now).unwrap();
        assert_eq!(wire.full_until(free), None);
        let mut held = sent;
        while queue.has_room() {
            queue.push(&[0; PIECE], &wire, now);
            held += PIECE;
        }
        assert!((12_500_000..12_500_000 + PIECE).contains(&held), "{held} bytes");
        let mut small = Queue::new(&LINK);
        while small.has_room() {
            small.push(&[0], &wire, now);
        }
        assert_eq!(small.pieces.len(), PIECES_MAX);
    }
}
