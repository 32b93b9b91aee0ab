//! The blocks of a file that are still to be fetched, handed out in runs.
//!
//! Several connections take from one queue, be it the links of a download or those of an upload. A run is large while much is left and small towards the end, so
//! that all links end at about the same time.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use crate::limits::{V2_BLOCK_TRIES, V2_RUN_BLOCKS_MAX, V2_RUN_BLOCKS_MIN};

/// Blocks that nobody fetches yet.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    runs: VecDeque<Range<u64>>,
    /// How often a block has arrived damaged.
    damaged: BTreeMap<u64, u32>,
}

impl Queue {
    pub(crate) fn new(runs: Vec<Range<u64>>) -> Self {
        Self { runs: runs.into(), damaged: BTreeMap::new() }
    }

    /// How many blocks are left.
    pub(crate) fn left(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// The next blocks for one of `links` connections.
    pub(crate) fn take(&mut self, links: u64) -> Option<Range<u64>> {
        /// Runs that each link should still get, about: the last ones decide how even the end is.
        const SHARE: u64 = 8;
        let most = (self.left() / (SHARE * links.max(1))).clamp(V2_RUN_BLOCKS_MIN, V2_RUN_BLOCKS_MAX);
        let run = self.runs.front_mut()?;
        let taken = run.start..run.end.min(run.start + most);
        run.start = taken.end;
        if run.is_empty() {
            self.runs.pop_front();
        }
        Some(taken)
    }

    /// Takes blocks back that were not fetched after all.
    pub(crate) fn give_back(&mut self, run: Range<u64>) {
        if !run.is_empty() {
            self.runs.push_front(run);
        }
    }

    /// A block arrived damaged: it is fetched again, unless it was damaged too often.
    pub(crate) fn repeat(&mut self, block: u64) -> bool {
        let tries = self.damaged.entry(block).or_default();
        *tries += 1;
        let may_again = *tries < V2_BLOCK_TRIES;
        if may_again {
            self.runs.push_front(block..block + 1);
        }
        may_again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_handed_out_once_in_ever_smaller_runs() {
        let mut queue = Queue::new(vec![3..1000, 1500..1501]);
        let mut seen = Vec::new();
        let mut lens = Vec::new();
        while let Some(run) = queue.take(2) {
            lens.push(run.end - run.start);
            seen.extend(run);
        }
        assert!(seen.into_iter().eq((3..1000).chain(1500..1501)));
        assert_eq!(lens[0], V2_RUN_BLOCKS_MAX);
        assert!(lens.iter().rev().skip(2).take(3).all(|&len| len == V2_RUN_BLOCKS_MIN), "{lens:?}");
        assert_eq!(queue.left(), 0);
    }

    #[test]
    fn a_damaged_block_is_fetched_again_but_not_for_ever() {
        let mut queue = Queue::default();
        for _ in 1..V2_BLOCK_TRIES {
            assert!(queue.repeat(7));
            assert_eq!(queue.take(1), Some(7..8));
        }
        assert!(!queue.repeat(7));
        assert_eq!(queue.take(1), None);
    }
}
