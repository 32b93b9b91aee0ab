use proptest::prelude::*;

use super::*;

/// The sizes at which something changes in the tree.
const SIZES: [u64; 11] = [
    0,
    1,
    1023,
    1024,
    1025,
    BLOCK_LEN - 1,
    BLOCK_LEN,
    BLOCK_LEN + 1,
    2 * BLOCK_LEN,
    3 * BLOCK_LEN + 1,
    5 * BLOCK_LEN + 17,
];

fn content(size: u64) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn hash_of(bytes: &[u8], index: u64) -> BlockHash {
    let size = bytes.len() as u64;
    let span = block_span(size, index);
    BlockHash::of(
        size,
        index,
        &bytes[usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap()],
    )
}

fn tree_of(bytes: &[u8]) -> Tree {
    let hashes: Vec<_> = (0..block_count(bytes.len() as u64)).map(|index| hash_of(bytes, index)).collect();
    match hashes.as_slice() {
        [BlockHash::Sole(root)] => Tree::sole(*root),
        several => {
            let value = |hash: &BlockHash| Value::from_bytes(*hash.as_bytes());
            Tree::over(several.iter().map(value).collect()).unwrap()
        }
    }
}

/// Sends and receives the wanted blocks; the blocks checked, in order.
fn exchange(tree: &Tree, size: u64, wanted: &BlockSet, hash: impl Fn(u64) -> BlockHash) -> Vec<u64> {
    let mut sender = Walk::new(size, wanted.clone(), ());
    let mut receiver = Verifier::new(size, wanted.clone(), Some(tree.root()));
    let mut seen = Vec::new();
    while let Some((node, ())) = sender.take() {
        if let Some((left, right)) = tree.children(&node) {
            receiver.pair(left, right).unwrap();
            sender.descend(node, (), ());
        } else {
            assert_eq!(receiver.need(), Need::Block(node.first));
            receiver.block(Some(hash(node.first))).unwrap();
            seen.push(node.first);
        }
    }
    assert_eq!(receiver.need(), Need::Nothing);
    seen
}

#[test]
fn values_merge_to_the_ordinary_digest_of_the_file() {
    for size in SIZES {
        let bytes = content(size);
        let tree = tree_of(&bytes);
        assert_eq!(tree.root(), Root::of(&bytes), "{size}");
        let count = block_count(size);
        assert_eq!(tree.values().len() as u64, if count == 1 { 0 } else { count }, "{size}");
    }
}

#[test]
fn every_block_alone_and_all_together_are_proven() {
    for size in SIZES {
        let bytes = content(size);
        let tree = tree_of(&bytes);
        let hash = |index| hash_of(&bytes, index);
        let all: Vec<_> = (0..block_count(size)).collect();
        assert_eq!(exchange(&tree, size, &BlockSet::all(size), hash), all);
        for index in all {
            let mut wanted = BlockSet::default();
            assert!(wanted.push(index..index + 1));
            assert_eq!(exchange(&tree, size, &wanted, hash), [index]);
        }
    }
}

#[test]
fn a_damaged_block_is_named_and_may_be_sent_again() {
    let size = 3 * BLOCK_LEN;
    let mut bytes = content(size);
    let tree = tree_of(&bytes);
    let mut receiver = Verifier::new(size, BlockSet::all(size), Some(tree.root()));
    while receiver.need() == Need::Pair {
        let node = receiver.walk.peek().unwrap().0;
        let (left, right) = tree.children(&node).unwrap();
        receiver.pair(left, right).unwrap();
    }
    bytes[1000] ^= 1;
    assert_eq!(receiver.block(Some(hash_of(&bytes, 0))), Err(ProofError::Block(0)));
    bytes[1000] ^= 1;
    assert!(receiver.block(Some(hash_of(&bytes, 0))).is_ok());
}

#[test]
fn a_wrong_value_is_refused_where_it_appears() {
    let bytes = content(5 * BLOCK_LEN + 17);
    let tree = tree_of(&bytes);
    let top = Node { first: 0, count: 6 };
    let (left, right) = tree.children(&top).unwrap();
    let mut receiver =
        Verifier::new(bytes.len() as u64, BlockSet::all(bytes.len() as u64), Some(tree.root()));
    assert_eq!(receiver.pair(right, left), Err(ProofError::Values));
    let mut receiver =
        Verifier::new(bytes.len() as u64, BlockSet::all(bytes.len() as u64), Some(tree.root()));
    assert_eq!(receiver.block(Some(hash_of(&bytes, 0))), Err(ProofError::Order));
    assert_eq!(receiver.value(left), Err(ProofError::Order), "what can be proven is not taken on trust");
    receiver.pair(left, right).unwrap();
}

#[test]
fn without_a_root_each_block_is_checked_against_its_own_value() {
    let bytes = content(2 * BLOCK_LEN + 5);
    let size = bytes.len() as u64;
    let tree = tree_of(&bytes);
    let mut receiver = Verifier::new(size, BlockSet::all(size), None);
    for index in 0..3 {
        assert_eq!(receiver.need(), Need::Value(index));
        assert_eq!(receiver.pair(tree.values()[0], tree.values()[1]), Err(ProofError::Order));
        receiver.value(tree.values()[usize::try_from(index).unwrap()]).unwrap();
        assert_eq!(receiver.need(), Need::Block(index));
        receiver.block(Some(hash_of(&bytes, index))).unwrap();
    }
    assert_eq!(receiver.need(), Need::Nothing);
}

#[test]
fn runs_of_blocks_ascend_and_join() {
    let mut set = BlockSet::default();
    assert!(set.push(2..4) && set.push(4..5) && set.push(7..9) && set.push(8..8));
    assert!(!set.push(3..10), "backwards");
    assert_eq!(set.runs(), [2..5, 7..9]);
    assert_eq!(set.count(), 5);
    assert_eq!(set.bytes(8 * BLOCK_LEN + 7), 4 * BLOCK_LEN + 7);
    assert_eq!(BlockSet::all(0).bytes(0), 0);
    assert_eq!(set.missing(9 * BLOCK_LEN), [0..2, 5..7]);
    assert_eq!(set.missing(9 * BLOCK_LEN + 1), [0..2, 5..7, 9..10]);
    assert_eq!(BlockSet::all(0).missing(0), []);
}

#[test]
fn a_root_is_read_as_it_is_shown_and_nothing_else_is() {
    let root = Root::of(b"abc");
    let hex = root.to_string();
    assert_eq!(Root::parse_hex(hex.as_bytes()), Some(root));
    assert_eq!(Root::parse_hex(hex.to_ascii_uppercase().as_bytes()), Some(root));
    assert_eq!(Root::parse_hex(&hex.as_bytes()[1..]), None);
    assert_eq!(Root::parse_hex(&[b'g'; HEX_LEN]), None);
}

proptest! {
    #[test]
    fn whatever_blocks_are_wanted_exactly_those_are_proven(
        count in 2_u64..40, wanted in proptest::collection::vec((0_u64..40, 1_u64..6), 1..6)
    ) {
        // The shape of the tree does not depend on the bytes, so made-up values do.
        let values: Vec<_> = (0..count).map(|index| Value(*blake3::hash(&index.to_be_bytes()).as_bytes())).collect();
        let tree = Tree::over(values.clone()).unwrap();
        let size = count * BLOCK_LEN;
        let mut set = BlockSet::default();
        let mut expected = std::collections::BTreeSet::new();
        for (first, len) in wanted {
            let run = first.min(count)..(first + len).min(count);
            if set.push(run.clone()) {
                expected.extend(run);
            }
        }
        let hash = |index: u64| BlockHash::Among(values[usize::try_from(index).unwrap()]);
        let seen = exchange(&tree, size, &set, hash);
        prop_assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
    }
}
