//! The walk that both ends take through a tree, and the check of what arrives on the way.
//!
//! Nothing is hashed here but the values of parents: a block comes as the hash that whoever received it made.

use super::{BlockHash, BlockSet, HASH_LEN, Node, Root, Value, block_count};

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
    pub(super) walk: Walk<Option<[u8; HASH_LEN]>>,
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
