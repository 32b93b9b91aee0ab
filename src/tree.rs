//! The BLAKE3 tree of a file, in blocks: what proves each block as it arrives.
//!
//! A file is cut into blocks of [`BLOCK_LEN`] bytes, each a whole subtree of the file's BLAKE3 tree
//! (BLAKE3 specification, section 2.1) with a chaining [`Value`] of 32 bytes. Values merge, two and two,
//! to the [`Root`], which is the file's ordinary BLAKE3 digest. A file of one block has no values:
//! its root is the proof. Both ends walk the tree in the same order ([`Walk`]): a parent before its
//! children, the left child before the right one, and only what leads to the wanted blocks.

use std::fmt;
use std::ops::Range;

use blake3::hazmat::{self, HasherExt, Mode};

/// Bytes of a block; the last one of a file may be shorter.
pub const BLOCK_LEN: u64 = 1 << 20;

/// Length of a root or a value, in bytes.
pub const HASH_LEN: usize = blake3::OUT_LEN;

const HEX_LEN: usize = 2 * HASH_LEN;

/// The BLAKE3 digest of a whole file, as `b3sum` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root([u8; HASH_LEN]);

/// The chaining value of a part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value([u8; HASH_LEN]);

impl Root {
    /// The root of a file that holds `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }

    /// A root kept elsewhere as its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; HASH_LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; HASH_LEN] {
        &self.0
    }

    /// Reads 64 hexadecimal digits of either case; `None` for anything else.
    #[must_use]
    pub fn parse_hex(hex: &[u8]) -> Option<Self> {
        if hex.len() != HEX_LEN {
            return None;
        }
        blake3::Hash::from_hex(hex).ok().map(|hash| Self(hash.into()))
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({self})")
    }
}

impl Value {
    /// A value kept elsewhere as its bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; HASH_LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; HASH_LEN] {
        &self.0
    }

    fn joined(self, right: Self) -> Self {
        Self(hazmat::merge_subtrees_non_root(&self.0, &right.0, Mode::Hash))
    }

    fn joined_to_root(self, right: Self) -> Root {
        Root(hazmat::merge_subtrees_root(&self.0, &right.0, Mode::Hash).into())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// How many blocks a file of `size` bytes has: at least one, an empty one for an empty file.
#[must_use]
pub fn block_count(size: u64) -> u64 {
    size.div_ceil(BLOCK_LEN).max(1)
}

/// Where block `index` of a file of `size` bytes lies, in bytes; empty beyond its end.
#[must_use]
pub fn block_span(size: u64, index: u64) -> Range<u64> {
    let start = index.saturating_mul(BLOCK_LEN).min(size);
    start..start.saturating_add(BLOCK_LEN).min(size)
}

/// Hashes one block, piece by piece.
#[derive(Clone, Debug)]
pub struct BlockHasher {
    hasher: blake3::Hasher,
    is_sole: bool,
}

impl BlockHasher {
    /// A hasher for block `index` of a file of `size` bytes.
    #[must_use]
    pub fn new(size: u64, index: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        let is_sole = block_count(size) == 1;
        if !is_sole {
            hasher.set_input_offset(index.saturating_mul(BLOCK_LEN));
        }
        Self { hasher, is_sole }
    }

    /// Takes the next bytes of the block in; at most [`BLOCK_LEN`] of them in all.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// What was hashed: the value of a block among several, or the root where there is only one.
    #[must_use]
    pub fn finish(&self) -> BlockHash {
        // Only a sole block may be empty, and that one is hashed as a root.
        if self.is_sole || self.hasher.count() == 0 {
            BlockHash::Sole(Root(self.hasher.finalize().into()))
        } else {
            BlockHash::Among(Value(self.hasher.finalize_non_root()))
        }
    }
}

/// What hashing one block gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockHash {
    /// The only block of its file.
    Sole(Root),
    /// A block among several.
    Among(Value),
}

impl BlockHash {
    /// Hashes block `index` of a file of `size` bytes at once.
    #[must_use]
    pub fn of(size: u64, index: u64, bytes: &[u8]) -> Self {
        let mut hasher = BlockHasher::new(size, index);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The bytes of the root or the value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; HASH_LEN] {
        match self {
            Self::Sole(root) => root.as_bytes(),
            Self::Among(value) => value.as_bytes(),
        }
    }
}

/// All values of a file, from its blocks up to its root.
///
/// Level 0 holds the blocks' values, each further one half as many: a node without a sibling goes
/// up as it is, which is the shape of BLAKE3's tree (the left subtree holds the largest power of two
/// of blocks that leaves something for the right one).
#[derive(Clone, Debug)]
pub struct Tree {
    root: Root,
    levels: Vec<Vec<Value>>,
}

impl Tree {
    /// The tree of a file of one block.
    #[must_use]
    pub fn sole(root: Root) -> Self {
        Self { root, levels: Vec::new() }
    }

    /// The tree over the values of two or more blocks; `None` for fewer.
    #[must_use]
    pub fn over(values: Vec<Value>) -> Option<Self> {
        let mut levels = vec![values];
        loop {
            let below = levels.last()?;
            match below.as_slice() {
                [] | [_] => return None,
                [left, right] => {
                    let root = left.joined_to_root(*right);
                    return Some(Self { root, levels });
                }
                more => {
                    let joined = more.chunks(2).map(|pair| match *pair {
                        [left, right] => left.joined(right),
                        ref alone => alone[0],
                    });
                    let level = joined.collect();
                    levels.push(level);
                }
            }
        }
    }

    /// The root of the file.
    #[must_use]
    pub fn root(&self) -> Root {
        self.root
    }

    /// The values of the blocks; none for a file of one block.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }

    /// The values of the two children of a parent.
    #[must_use]
    pub fn children(&self, parent: &Node) -> Option<(Value, Value)> {
        let (left, right) = parent.halves()?;
        Some((self.value_at(left)?, self.value_at(right)?))
    }

    fn value_at(&self, node: Node) -> Option<Value> {
        let level = node.count.next_power_of_two().trailing_zeros();
        let index = usize::try_from(node.first >> level).ok()?;
        self.levels.get(usize::try_from(level).ok()?)?.get(index).copied()
    }
}

/// A subtree: a run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its first block.
    pub first: u64,
    /// How many blocks it has; one makes it a block itself.
    pub count: u64,
}

impl Node {
    /// The two subtrees of a parent; `None` for a block.
    fn halves(self) -> Option<(Self, Self)> {
        if self.count < 2 {
            return None;
        }
        let left = self.count.next_power_of_two() / 2;
        let right = Self { first: self.first + left, count: self.count - left };
        Some((Self { first: self.first, count: left }, right))
    }
}

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

    fn touches(&self, node: Node) -> bool {
        let behind = self.0.partition_point(|run| run.end <= node.first);
        self.0.get(behind).is_some_and(|run| run.start < node.first + node.count)
    }
}

/// A walk through the tree in the order of the wire, with something known of each node on the way.
#[derive(Clone, Debug)]
pub struct Walk<T> {
    wanted: BlockSet,
    /// What is still to be visited, the next node last: no more than the tree is deep, twice.
    ahead: Vec<(Node, T)>,
}

impl<T> Walk<T> {
    /// A walk from the root of a file of `size` bytes to the `wanted` blocks.
    #[must_use]
    pub fn new(size: u64, wanted: BlockSet, top: T) -> Self {
        let node = Node { first: 0, count: block_count(size) };
        Self { wanted, ahead: vec![(node, top)] }
    }

    /// The next node on the way to a wanted block, which is not taken yet.
    pub fn peek(&mut self) -> Option<&(Node, T)> {
        while let Some((node, _)) = self.ahead.last() {
            if self.wanted.touches(*node) {
                break;
            }
            self.ahead.pop();
        }
        self.ahead.last()
    }

    /// Takes the next node: a parent's children are to be given to [`Self::descend`].
    pub fn take(&mut self) -> Option<(Node, T)> {
        self.peek()?;
        self.ahead.pop()
    }

    /// Goes on with the children of a parent that was taken.
    pub fn descend(&mut self, parent: Node, left: T, right: T) {
        if let Some((left_node, right_node)) = parent.halves() {
            self.ahead.push((right_node, right));
            self.ahead.push((left_node, left));
        }
    }
}

/// Why a part of a proof, or a block, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Two values that do not merge to what is known of their parent.
    #[error("two values do not belong to the file's root")]
    Values,
    /// Values where there should be a block, or a block where there should be values.
    #[error("values and blocks are out of order")]
    Order,
    /// A block whose bytes are not the file's.
    #[error("block {0} is damaged")]
    Block(u64),
}

/// What a [`Verifier`] expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The values of the two children of a parent.
    Pair,
    /// The value of this block, which is not proven by anything yet.
    Value(u64),
    /// The bytes of this block.
    Block(u64),
    /// Nothing: all wanted blocks were checked.
    Nothing,
}

/// Checks what arrives of a file against its root, or, while the root is not known, against the
/// values that come with it.
#[derive(Clone, Debug)]
pub struct Verifier {
    size: u64,
    walk: Walk<Option<[u8; HASH_LEN]>>,
}

impl Verifier {
    /// A verifier for the `wanted` blocks of a file.
    #[must_use]
    pub fn new(size: u64, wanted: BlockSet, root: Option<Root>) -> Self {
        Self { size, walk: Walk::new(size, wanted, root.map(|root| root.0)) }
    }

    /// What has to come next.
    pub fn need(&mut self) -> Need {
        loop {
            match self.walk.peek() {
                None => return Need::Nothing,
                Some((Node { first, count: 1 }, Some(_))) => return Need::Block(*first),
                Some((Node { first, count: 1 }, None)) => return Need::Value(*first),
                Some((_, Some(_))) => return Need::Pair,
                Some((_, None)) => {
                    if let Some((parent, _)) = self.walk.take() {
                        self.walk.descend(parent, None, None);
                    }
                }
            }
        }
    }

    /// The values of a parent's children.
    ///
    /// # Errors
    /// [`ProofError::Values`], or [`ProofError::Order`] if none were to come.
    pub fn pair(&mut self, left: Value, right: Value) -> Result<(), ProofError> {
        if self.need() != Need::Pair {
            return Err(ProofError::Order);
        }
        let Some((parent, Some(expected))) = self.walk.take() else { return Err(ProofError::Order) };
        let is_top = parent == Node { first: 0, count: block_count(self.size) };
        let merged = if is_top { left.joined_to_root(right).0 } else { left.joined(right).0 };
        if merged != expected {
            return Err(ProofError::Values);
        }
        self.walk.descend(parent, Some(left.0), Some(right.0));
        Ok(())
    }

    /// The value of the next block, taken on trust.
    ///
    /// # Errors
    /// [`ProofError::Order`] if the root, and so the value, is known.
    pub fn value(&mut self, value: Value) -> Result<(), ProofError> {
        if !matches!(self.need(), Need::Value(_)) {
            return Err(ProofError::Order);
        }
        let Some((block, _)) = self.walk.take() else { return Err(ProofError::Order) };
        self.walk.ahead.push((block, Some(value.0)));
        Ok(())
    }

    /// The next block as it was hashed on arrival, or as it is known: `None` passes over it and tells
    /// what it has to be.
    ///
    /// # Errors
    /// [`ProofError::Block`], after which the same block is still needed, or [`ProofError::Order`].
    pub fn block(&mut self, hash: Option<BlockHash>) -> Result<[u8; HASH_LEN], ProofError> {
        let Need::Block(index) = self.need() else { return Err(ProofError::Order) };
        let Some(&(_, Some(expected))) = self.walk.peek() else { return Err(ProofError::Order) };
        if hash.is_some_and(|hash| *hash.as_bytes() != expected) {
            return Err(ProofError::Block(index));
        }
        self.walk.take();
        Ok(expected)
    }
}

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;
