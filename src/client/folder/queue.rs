//! The files of a folder that are still to be fetched, or put, between whoever finds them and whoever does it.
//!
//! It is bounded: a listing that is faster than the fetching waits. A file that was taken is outstanding
//! until it is settled; one that a broken connection was about to bring comes back.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::limits::{FOLDER_QUEUE, FOLDER_UNKNOWN};
use crate::names::FileName;
use crate::staged::Attributes;

/// A file that is to be fetched.
#[derive(Clone, Debug)]
pub(in crate::client) struct Item {
    /// Its name within the folder.
    pub(in crate::client) name: FileName,
    /// What the server calls it.
    pub(in crate::client) remote: Bytes,
    /// Size and attributes as they were listed; none if only its name is known.
    pub(in crate::client) listed: Option<(u64, Attributes)>,
    /// How often it came to nothing for a reason of its own.
    pub(in crate::client) failures: u32,
}

/// Something that waits in a [`Queue`].
pub(in crate::client) trait Weighed {
    /// Bytes that it is expected to bring.
    fn expected(&self) -> u64;
}

impl Weighed for Item {
    fn expected(&self) -> u64 {
        self.listed.as_ref().map_or(FOLDER_UNKNOWN, |(size, _)| *size)
    }
}

/// Which files are asked for together, and which one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client) enum Lane {
    /// Verified in memory, many on one connection.
    Small,
    /// Into a part of its own.
    Large,
}

#[derive(Debug)]
pub(in crate::client) struct Queue<T = Item> {
    state: Mutex<State<T>>,
    /// There is something to take, or never will be.
    more: Notify,
    /// There is room for more.
    room: Condvar,
}

#[derive(Debug)]
struct State<T> {
    small: VecDeque<T>,
    large: VecDeque<T>,
    /// Taken, and neither settled nor given back.
    outstanding: usize,
    /// More may be found.
    is_open: bool,
    /// Nobody wants anything any more.
    is_stopped: bool,
}

impl<T: Weighed> Queue<T> {
    pub(in crate::client) fn new() -> Self {
        let (small, large) = (VecDeque::new(), VecDeque::new());
        let state = State { small, large, outstanding: 0, is_open: true, is_stopped: false };
        Self { state: Mutex::new(state), more: Notify::new(), room: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file, waiting for room; `false` if nobody wants it any more. Blocks.
    pub(in crate::client) fn add(&self, lane: Lane, item: T) -> bool {
        let full = |state: &mut State<T>| !state.is_stopped && state.lane(lane).len() >= FOLDER_QUEUE;
        let mut state = self.room.wait_while(self.state(), full).unwrap_or_else(PoisonError::into_inner);
        if state.is_stopped {
            return false;
        }
        state.lane(lane).push_back(item);
        let is_first = state.lane(lane).len() == 1;
        drop(state);
        if is_first {
            self.more.notify_waiters();
        }
        true
    }

    /// No more files will be added.
    pub(in crate::client) fn close(&self) {
        self.state().is_open = false;
        self.more.notify_waiters();
    }

    /// Whether no more files will be added.
    pub(in crate::client) fn is_closed(&self) -> bool {
        !self.state().is_open
    }

    /// Nothing is wanted any more.
    pub(in crate::client) fn stop(&self) {
        self.state().is_stopped = true;
        self.room.notify_all();
        self.more.notify_waiters();
    }

    /// Whether nothing is wanted any more.
    pub(in crate::client) fn is_stopped(&self) -> bool {
        self.state().is_stopped
    }

    /// Takes a file. It is outstanding from now on.
    pub(in crate::client) fn take(&self, lane: Lane) -> Option<T> {
        self.take_share(lane, 1, 0, 1).pop()
    }

    /// Takes at most `count` files, of at most so many bytes together unless it is only one, and leaves the
    /// others their share if there are `takers` in all.
    pub(in crate::client) fn take_share(
        &self,
        lane: Lane,
        count: usize,
        bytes: u64,
        takers: usize,
    ) -> Vec<T> {
        let mut state = self.state();
        if state.is_stopped {
            return Vec::new();
        }
        let share = count.min(state.lane(lane).len().div_ceil(takers.max(1)));
        let mut sum = 0_u64;
        let mut fits = |item: &T| {
            sum = sum.saturating_add(item.expected());
            sum <= bytes
        };
        let fitting = state.lane(lane).iter().take(share).take_while(|item| fits(item)).count();
        let taken: Vec<_> = state.lane(lane).drain(..fitting.max(share.min(1))).collect();
        state.outstanding += taken.len();
        let has_room = !taken.is_empty() && state.lane(lane).len() < FOLDER_QUEUE;
        drop(state);
        if has_room {
            self.room.notify_all();
        }
        taken
    }

    /// Gives an outstanding file back, to be fetched in this lane.
    pub(in crate::client) fn give_back(&self, lane: Lane, item: T) {
        let mut state = self.state();
        state.lane(lane).push_front(item);
        state.outstanding -= 1;
        drop(state);
        self.more.notify_waiters();
    }

    /// Outstanding files are settled: they are here, or never will be.
    pub(in crate::client) fn settle(&self, count: usize) {
        let mut state = self.state();
        state.outstanding -= count;
        if state.outstanding == 0 {
            drop(state);
            self.more.notify_waiters();
        }
    }

    /// Waits until there is something to take in a lane; `false` if there never will be.
    pub(in crate::client) async fn wait(&self, lane: Lane) -> bool {
        loop {
            let mut notified = std::pin::pin!(self.more.notified());
            notified.as_mut().enable();
            {
                let mut state = self.state();
                if state.is_stopped {
                    return false;
                }
                if !state.lane(lane).is_empty() {
                    return true;
                }
                // What is outstanding may come back, or turn out to belong into the other lane.
                let others = match lane {
                    Lane::Small => &state.large,
                    Lane::Large => &state.small,
                };
                if !state.is_open && state.outstanding == 0 && others.is_empty() {
                    return false;
                }
            }
            notified.await;
        }
    }
}

impl<T> State<T> {
    fn lane(&mut self, lane: Lane) -> &mut VecDeque<T> {
        match lane {
            Lane::Small => &mut self.small,
            Lane::Large => &mut self.large,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn item(name: &str) -> Item {
        let remote = Bytes::copy_from_slice(name.as_bytes());
        Item { name: FileName::parse(name.as_bytes()).unwrap(), remote, listed: None, failures: 0 }
    }

    #[tokio::test]
    async fn a_file_that_comes_back_keeps_everybody_waiting_until_it_is_settled() {
        let queue = Arc::new(Queue::new());
        assert!(queue.add(Lane::Small, item("a")));
        queue.close();
        let taken = queue.take(Lane::Small).unwrap();
        let other = Arc::clone(&queue);
        let waiting = tokio::spawn(async move { other.wait(Lane::Small).await });
        tokio::task::yield_now().await;
        queue.give_back(Lane::Small, taken);
        assert!(waiting.await.unwrap());
        assert!(queue.take(Lane::Small).is_some());
        let other = Arc::clone(&queue);
        let waiting = tokio::spawn(async move { other.wait(Lane::Large).await });
        tokio::task::yield_now().await;
        queue.settle(1);
        assert!(!waiting.await.unwrap());
        assert!(!queue.wait(Lane::Small).await);
    }

    #[test]
    fn what_is_taken_together_is_bounded_in_number_in_bytes_and_by_the_share_of_others() {
        let queue = Queue::new();
        let attributes = Attributes { mode: 0, modified: (0, 0), sparse: false };
        for size in [10, 20, 30, 500, 1] {
            let listed = Some((size, attributes));
            assert!(queue.add(Lane::Small, Item { listed, ..item("a") }));
        }
        let sizes = |count, bytes, takers| {
            let taken = queue.take_share(Lane::Small, count, bytes, takers);
            taken.iter().map(Item::expected).collect::<Vec<_>>()
        };
        assert_eq!(sizes(5, 30, 1), [10, 20]);
        assert_eq!(sizes(5, 1000, 3), [30]);
        assert_eq!(sizes(5, 0, 1), [500], "one that is larger than all that may be is taken alone");
        assert_eq!(sizes(0, 1000, 1), [0; 0]);
        assert_eq!(sizes(5, 0, 2), [1]);
        assert_eq!(sizes(5, 1000, 1), [0; 0]);
    }

    #[tokio::test]
    async fn a_full_queue_holds_up_whoever_adds_until_there_is_room_or_nobody_wants_more() {
        let queue = Arc::new(Queue::new());
        let other = Arc::clone(&queue);
        let adding = std::thread::spawn(move || {
            (0..=FOLDER_QUEUE + 1)
                .map(|index| other.add(Lane::Small, item(&index.to_string())))
                .collect::<Vec<_>>()
        });
        while queue.state().small.len() < FOLDER_QUEUE {
            std::thread::yield_now();
        }
        assert!(queue.take(Lane::Small).is_some());
        while queue.state().small.len() < FOLDER_QUEUE {
            std::thread::yield_now();
        }
        assert!(!adding.is_finished());
        queue.stop();
        let added = adding.join().unwrap();
        assert_eq!(added.iter().filter(|&&was_added| was_added).count(), FOLDER_QUEUE + 1);
        assert!(queue.take(Lane::Small).is_none() && !queue.wait(Lane::Small).await);
    }
}
