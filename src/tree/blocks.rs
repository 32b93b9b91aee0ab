//! Sets of a file's blocks: what is wanted, what is there, what is missing.

use std::ops::Range;

use super::{Node, block_count, block_span};

/// A set of blocks: ascending runs that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockSet(Vec<Range<u64>>);

impl BlockSet {
    /// Every block of a file of `size` bytes.
    #[must_use]
    pub fn all(size: u64) -> Self {
        Self(std::iter::once(0..block_count(size)).collect())
    }

    /// Adds a run of blocks behind all that are in it already; what overlaps is joined. An empty run
    /// changes nothing. A run that begins before the last one is not ascending and refused.
    #[must_use]
    pub fn push(&mut self, run: Range<u64>) -> bool {
        if run.is_empty() {
            return true;
        }
        match self.0.last_mut() {
            Some(last) if run.start < last.start => return false,
            Some(last) if run.start <= last.end => last.end = last.end.max(run.end),
            _ => self.0.push(run),
        }
        true
    }

    /// The runs, in ascending order.
    #[must_use]
    pub fn runs(&self) -> &[Range<u64>] {
        &self.0
    }

    /// The blocks of a file of `size` bytes that are not in it.
    #[must_use]
    pub fn missing(&self, size: u64) -> Vec<Range<u64>> {
        let starts = std::iter::once(0).chain(self.0.iter().map(|run| run.end));
        let ends = self.0.iter().map(|run| run.start).chain(std::iter::once(block_count(size)));
        starts.zip(ends).map(|(start, end)| start..end).filter(|gap| !gap.is_empty()).collect()
    }

    /// How many blocks there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|run| run.end - run.start).sum()
    }

    /// How many bytes of a file of `size` bytes they hold.
    #[must_use]
    pub fn bytes(&self, size: u64) -> u64 {
        let len = |run: &Range<u64>| block_span(size, run.end - 1).end - block_span(size, run.start).start;
        self.0.iter().map(len).sum()
    }

    pub(super) fn touches(&self, node: Node) -> bool {
        let behind = self.0.partition_point(|run| run.end <= node.first);
        self.0.get(behind).is_some_and(|run| run.start < node.first + node.count)
    }
}
