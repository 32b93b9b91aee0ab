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

mod blocks;
mod proof;

pub use blocks::BlockSet;
pub use proof::{Need, ProofError, Verifier, Walk};

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

#[cfg(test)]
#[path = "tree/tests.rs"]
mod tests;
