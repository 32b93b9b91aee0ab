//! Whose bytes go first, among all connections: those of the highest priority.
//!
//! While somebody of a higher priority wants to move bytes, all of a lower one share a small part of what the next
//! higher ones move, counted in bytes: so it holds whatever it is that limits the rate. Whoever of a higher priority has moved
//! nothing for a while, because its peer takes nothing, holds nobody up. As long as all have the same priority
//! nothing is counted, and asking costs two loads.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::limits::{
    PRIORITY_CREDIT_MAX, PRIORITY_FLOOR, PRIORITY_LINGER, PRIORITY_PIECE, PRIORITY_PROBE, PRIORITY_SHARE,
};
use crate::priority::Priority;

/// Whose bytes go first, one way.
pub(super) struct Precedence {
    epoch: Instant,
    /// The lowest and the highest priority that there ever was.
    lowest: AtomicU8,
    highest: AtomicU8,
    levels: [Level; Priority::COUNT],
}

/// What is known of those who have one priority.
#[derive(Default)]
struct Level {
    /// When one of them last wanted to move bytes, or did, in milliseconds since the epoch; 0 for never.
    last: AtomicU64,
    /// Bytes that they have moved.
    moved: AtomicU64,
    purse: Mutex<Purse>,
}

/// What those who have one priority may move while higher ones want to.
#[derive(Default)]
struct Purse {
    /// Bytes; what was moved beyond is owed.
    credit: i64,
    /// The next higher priority of those that want to move bytes, what they had moved when this was filled last, and
    /// when that was.
    next: usize,
    seen: u64,
    at: u64,
}

impl Precedence {
    pub(super) fn new() -> Arc<Self> {
        let level = Priority::default().number();
        Arc::new(Self {
            // So that no moment is 0.
            epoch: Instant::now().checked_sub(Duration::from_millis(1)).unwrap_or_else(Instant::now),
            lowest: AtomicU8::new(level),
            highest: AtomicU8::new(level),
            levels: std::array::from_fn(|_| Level::default()),
        })
    }

    /// How many of `wanted` bytes may be moved now; 0 if others go first, for the moment.
    fn may(&self, priority: Priority, wanted: u64, now: impl FnOnce() -> Instant) -> u64 {
        let level = priority.number();
        if level < self.lowest.load(Ordering::Relaxed) {
            self.lowest.fetch_min(level, Ordering::Relaxed);
        }
        if level > self.highest.load(Ordering::Relaxed) {
            self.highest.fetch_max(level, Ordering::Relaxed);
        }
        if !self.is_uneven() {
            return wanted;
        }
        let at = self.millis(now());
        self.levels[usize::from(level)].last.fetch_max(at, Ordering::Relaxed);
        let linger = millis(PRIORITY_LINGER);
        let wants = |level: &usize| {
            let last = self.levels[*level].last.load(Ordering::Relaxed);
            last > 0 && at.saturating_sub(last) < linger
        };
        // The next higher one: those above get as much more than it does.
        let Some(next) = (usize::from(level) + 1..Priority::COUNT).find(wants) else { return wanted };
        let moved = self.levels[next].moved.load(Ordering::Relaxed);
        let credit = self.purse(level).fill(next, moved, at);
        if credit > 0 { wanted.min(PRIORITY_PIECE) } else { 0 }
    }

    /// So many bytes were moved.
    fn moved(&self, priority: Priority, count: u64, now: impl FnOnce() -> Instant) {
        if !self.is_uneven() {
            return;
        }
        let (at, level) = (self.millis(now()), priority.number());
        let own = &self.levels[usize::from(level)];
        own.moved.fetch_add(count, Ordering::Relaxed);
        own.last.fetch_max(at, Ordering::Relaxed);
        if level < self.highest.load(Ordering::Relaxed) {
            self.purse(level).pay(count, at);
        }
    }

    fn is_uneven(&self) -> bool {
        self.lowest.load(Ordering::Relaxed) != self.highest.load(Ordering::Relaxed)
    }

    fn purse(&self, level: u8) -> std::sync::MutexGuard<'_, Purse> {
        self.levels[usize::from(level)].purse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.epoch))
    }
}

impl Purse {
    /// Puts in what is due since it was filled last; what is in it then.
    fn fill(&mut self, next: usize, moved: u64, at: u64) -> i64 {
        let since = at.saturating_sub(self.at);
        if self.at == 0 || since > millis(PRIORITY_LINGER) {
            // Nobody was held up for a while: nothing is due yet, and nothing is owed.
            *self = Self { credit: 0, next, seen: moved, at };
            return 0;
        }
        if self.next != next {
            (self.next, self.seen) = (next, moved);
        }
        let shares = moved.wrapping_sub(self.seen) / PRIORITY_SHARE;
        self.seen = self.seen.wrapping_add(shares * PRIORITY_SHARE);
        let floor = since * PRIORITY_FLOOR / 1000;
        if floor > 0 {
            self.at = at;
        }
        let due = i64::try_from(shares + floor).unwrap_or(i64::MAX);
        self.credit = self.credit.saturating_add(due).min(PRIORITY_CREDIT_MAX);
        self.credit
    }

    /// Takes out what was moved, if somebody is held up at all.
    fn pay(&mut self, count: u64, at: u64) {
        if self.at > 0 && at.saturating_sub(self.at) <= millis(PRIORITY_LINGER) {
            self.credit = self.credit.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where one connection stands, one way.
pub(super) struct Standing {
    among: Arc<Precedence>,
    /// The priority of what is moved now; none for what is no file.
    priority: Option<Priority>,
}

impl Standing {
    pub(super) fn new(among: &Arc<Precedence>) -> Self {
        Self { among: Arc::clone(among), priority: None }
    }

    /// What is moved from now on has this priority; none if it is no file.
    pub(super) fn rank(&mut self, priority: Option<Priority>) {
        self.priority = priority;
    }

    /// How many of `wanted` bytes may be moved now; 0 if others go first, for the moment.
    pub(super) fn may_now(&self, wanted: u64) -> u64 {
        self.priority.map_or(wanted, |priority| self.among.may(priority, wanted, Instant::now))
    }

    /// Waits until some of `wanted` bytes may be moved; how many.
    pub(super) async fn may(&self, wanted: u64) -> u64 {
        loop {
            match self.may_now(wanted) {
                0 if wanted > 0 => sleep(PRIORITY_PROBE).await,
                some => return some,
            }
        }
    }

    /// So many bytes were moved.
    pub(super) fn moved(&self, count: u64) {
        if let Some(priority) = self.priority {
            self.among.moved(priority, count, Instant::now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: Priority = Priority::LEAST;
    const HIGH: Priority = Priority::MOST;
    const MIB: u64 = 1 << 20;

    /// Moves what may be moved at this moment, as long as that is anything.
    fn move_all(among: &Precedence, priority: Priority, most: u64, now: Instant) -> u64 {
        let mut moved = 0;
        while moved < most {
            match among.may(priority, most - moved, || now) {
                0 => break,
                some => {
                    among.moved(priority, some, || now);
                    moved += some;
                }
            }
        }
        moved
    }

    #[tokio::test]
    async fn a_lower_priority_gets_a_small_share_while_a_higher_one_moves_and_all_of_it_afterwards() {
        let among = Precedence::new();
        let mut now = Instant::now();
        assert_eq!(move_all(&among, LOW, MIB, now), MIB, "nobody else wants anything");
        let (mut low, mut high) = (0, 0);
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            high += move_all(&among, HIGH, MIB, now);
            low += move_all(&among, LOW, MIB, now);
        }
        assert_eq!(high, 1000 * MIB, "the higher one is not held up");
        let share = high / low.max(1);
        assert!((PRIORITY_SHARE - 2..=PRIORITY_SHARE + 2).contains(&share), "1/{share}");
        now += PRIORITY_LINGER;
        assert_eq!(move_all(&among, LOW, MIB, now), MIB, "the higher one has moved nothing for a while");
    }

    #[tokio::test]
    async fn nobody_starves_even_while_the_higher_one_hardly_moves() {
        let among = Precedence::new();
        let (mut now, mut low) = (Instant::now(), 0);
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            move_all(&among, HIGH, 1, now);
            low += move_all(&among, LOW, MIB, now);
        }
        assert!((PRIORITY_FLOOR * 8..PRIORITY_FLOOR * 12 + PRIORITY_PIECE).contains(&low), "{low} in 10 s");
    }

    #[tokio::test]
    async fn where_all_have_the_same_priority_nothing_is_counted_and_no_clock_is_read() {
        let among = Precedence::new();
        let never = || -> Instant { panic!("it asks what time it is") };
        assert_eq!(among.may(Priority::default(), 7, never), 7);
        among.moved(Priority::default(), 7, never);
    }

    #[tokio::test]
    async fn those_in_the_middle_go_before_those_below_and_behind_those_above() {
        let among = Precedence::new();
        let (mut now, mut moved) = (Instant::now(), [0; 3]);
        for _ in 0..1000 {
            now += Duration::from_millis(10);
            for (moved, priority) in moved.iter_mut().zip([HIGH, Priority::default(), LOW]) {
                *moved += move_all(&among, priority, MIB, now);
            }
        }
        let [high, middle, low] = moved;
        assert!(high > 10 * middle && middle > 10 * low && low > 0, "{moved:?}");
    }
}
