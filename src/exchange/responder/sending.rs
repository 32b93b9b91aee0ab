//! What one request still has to send: which values, and which bytes of the file behind them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;

use crate::codec::v2::{PAIRS_MAX, RequestId, ServerFrame, Values, put_data_head};
use crate::limits::V2_VALUES_AHEAD;
use crate::tree::{BlockSet, Node, Tree, Value, Walk, block_span};

/// The place of a request in its file.
#[derive(Debug)]
pub(super) struct Sending {
    size: u64,
    walk: Walk<()>,
    pub(super) tree: Option<Arc<Tree>>,
    values_only: bool,
    /// Every block of the file is wanted.
    pub(super) is_whole: bool,
    /// What is left of the block that is being sent.
    block: Range<u64>,
    /// Without a tree: blocks whose values have not been asked for, and values not used yet.
    unasked: VecDeque<Range<u64>>,
    asked: BTreeSet<u64>,
    values: BTreeMap<u64, Value>,
}

/// What a step came to.
pub(super) enum Step {
    /// The head of a DATA frame was written, behind what proves its block.
    Data { offset: u64, len: u64, ends_block: bool },
    /// Values were written, and more may follow.
    Values,
    /// Nothing more can be sent until a window grows or a value comes.
    Stuck,
    /// All was sent.
    Done,
}

impl Sending {
    /// The beginning: nothing has been sent. Without a tree the values have to be asked for.
    pub(super) fn new(size: u64, wanted: BlockSet, tree: Option<Arc<Tree>>, values_only: bool) -> Self {
        let unasked = if tree.is_some() { VecDeque::new() } else { wanted.runs().to_vec().into() };
        Self {
            size,
            is_whole: wanted == BlockSet::all(size),
            walk: Walk::new(size, wanted, ()),
            tree,
            values_only,
            block: 0..0,
            unasked,
            asked: BTreeSet::new(),
            values: BTreeMap::new(),
        }
    }

    /// Whether a value is being computed without which nothing can be sent.
    pub(super) fn is_waiting(&self) -> bool {
        self.block.is_empty() && self.values.is_empty() && !self.asked.is_empty()
    }

    /// The next block whose value will be needed, a few of them ahead at a time.
    pub(super) fn ask(&mut self) -> Option<u64> {
        while ((self.asked.len() + self.values.len()) as u64) < V2_VALUES_AHEAD {
            match self.unasked.front_mut()?.next() {
                Some(block) => {
                    self.asked.insert(block);
                    return Some(block);
                }
                None => drop(self.unasked.pop_front()),
            }
        }
        None
    }

    /// Takes the value of a block; `false` if nobody asked for it.
    pub(super) fn give(&mut self, block: u64, value: Value) -> bool {
        let was_asked = self.asked.remove(&block);
        if was_asked {
            self.values.insert(block, value);
        }
        was_asked
    }

    /// Goes on by one frame of data of at most `most` bytes, or by one frame of values where that is all
    /// there is.
    pub(super) fn step(&mut self, request: RequestId, most: u64, head: &mut BytesMut) -> Step {
        let mut pairs = Vec::new();
        while self.block.is_empty() {
            if pairs.len() == PAIRS_MAX {
                put_pairs(request, &mut pairs, head);
                return Step::Values;
            }
            let Some(&(node, ())) = self.walk.peek() else {
                put_pairs(request, &mut pairs, head);
                return Step::Done;
            };
            match (&self.tree, node) {
                (Some(tree), node) if node.count > 1 => pairs.extend(tree.children(&node)),
                (None, Node { first, count: 1 }) => {
                    let Some(value) = self.values.remove(&first) else { return Step::Stuck };
                    ServerFrame::Values(request, Values::Single(value)).encode(head);
                }
                _ => {}
            }
            self.walk.take();
            match node.count {
                1 if self.values_only => {}
                1 => self.block = block_span(self.size, node.first),
                _ => self.walk.descend(node, (), ()),
            }
        }
        put_pairs(request, &mut pairs, head);
        if most == 0 {
            return Step::Stuck;
        }
        let len = (self.block.end - self.block.start).min(most);
        let offset = self.block.start;
        put_data_head(request, offset, len, head);
        self.block.start += len;
        Step::Data { offset, len, ends_block: self.block.is_empty() }
    }
}

fn put_pairs(request: RequestId, pairs: &mut Vec<(Value, Value)>, head: &mut BytesMut) {
    if !pairs.is_empty() {
        ServerFrame::Values(request, Values::Pairs(std::mem::take(pairs))).encode(head);
    }
}
