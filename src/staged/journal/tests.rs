use proptest::prelude::*;

use super::*;

const HASH: [u8; HASH_LEN] = [7; HASH_LEN];

fn header(size: u64, root: Option<Root>) -> Header {
    let home = Home { device: 1, inode: 2, born: 3, since: [4; TOKEN_LEN] };
    Header { source: Source { size, root, token: [5; TOKEN_LEN] }, home, salt: [6; TOKEN_LEN] }
}

fn journal(header: &Header, records: &[Record]) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    let key = Key::of(&header.encode());
    for (number, record) in (0..).zip(records) {
        bytes.extend_from_slice(&record.encode(&key, number));
    }
    bytes
}

fn read(bytes: &[u8]) -> Option<Contents> {
    Contents::read(&mut &*bytes)
}

fn block(index: u32) -> Record {
    Record::Block { index, hash: HASH }
}

/// A header with other bytes at a place and a check value that fits them.
fn altered(place: usize, bytes: &[u8]) -> Vec<u8> {
    let mut header = header(10 << 20, None).encode();
    header[place..place + bytes.len()].copy_from_slice(bytes);
    let check = header_check(&header[..HEADER_LEN - HEADER_CHECK_LEN]);
    header[HEADER_LEN - HEADER_CHECK_LEN..].copy_from_slice(&check);
    header.to_vec()
}

#[test]
fn what_was_written_is_read_again() {
    for root in [None, Some(Root::of(b"x"))] {
        let header = header(10 << 20, root);
        let bytes = journal(&header, &[block(3), block(0), Record::Synced { covered: 2 }, block(9)]);
        let contents = read(&bytes).unwrap();
        assert_eq!(contents.header, header);
        assert_eq!(contents.blocks.keys().copied().collect::<Vec<_>>(), [0, 3, 9]);
        assert_eq!(contents.blocks[&9], Entry { hash: HASH, number: 3 });
        assert_eq!((contents.records, contents.covered, contents.is_whole), (4, 2, true));
    }
}

#[test]
fn another_version_or_an_impossible_header_is_not_believed() {
    assert!(read(&altered(8, &VERSION.to_be_bytes())).is_some());
    for version in [0, VERSION + 1, u32::MAX] {
        assert_eq!(read(&altered(8, &version.to_be_bytes())), None, "version {version}");
    }
    assert_eq!(read(&altered(12, &2_u32.to_be_bytes())), None, "unknown flags");
    assert!(read(&altered(16, &(16_u64 << 40).to_be_bytes())).is_some(), "2^24 blocks");
    assert_eq!(read(&altered(16, &((16_u64 << 40) + 1).to_be_bytes())), None, "2^24 + 1 blocks");
    assert_eq!(read(&altered(0, b"oneportk")), None, "another magic");
}

#[test]
fn records_are_believed_up_to_the_first_bad_one() {
    let header = header(10 << 20, None);
    let bad = [
        block(10),                            // Beyond the end.
        Record::Synced { covered: 2 },        // More than there were.
        Record::Synced { covered: u32::MAX }, // More than there can be.
    ];
    for record in bad {
        let contents = read(&journal(&header, &[block(1), record, block(2)])).unwrap();
        assert_eq!(contents.blocks.keys().copied().collect::<Vec<_>>(), [1], "{record:?}");
        assert_eq!((contents.records, contents.covered, contents.is_whole), (1, 0, false));
    }
}

#[test]
fn a_record_counts_only_in_its_own_place_and_its_own_journal() {
    let header = header(10 << 20, None);
    let mut bytes = journal(&header, &[block(1), block(2)]);
    let (first, second) = (HEADER_LEN, HEADER_LEN + RECORD_LEN);
    let moved = [&bytes[..first], &bytes[second..], &bytes[first..second]].concat();
    assert_eq!(read(&moved).unwrap().records, 0);
    let other = Header { salt: [9; TOKEN_LEN], ..header };
    bytes[..HEADER_LEN].copy_from_slice(&other.encode());
    assert_eq!(read(&bytes).unwrap().records, 0);
}

#[test]
fn the_last_record_of_a_block_counts_and_so_does_the_widest_flush() {
    let (header, synced) = (header(10 << 20, None), |covered| Record::Synced { covered });
    let contents = read(&journal(&header, &[block(1), block(2), synced(2), synced(1), block(1)])).unwrap();
    assert_eq!((contents.blocks[&1].number, contents.covered), (4, 2));
}

#[test]
fn every_cut_and_every_flipped_bit_leaves_only_what_was_before_it() {
    let header = header(10 << 20, Some(Root::of(b"x")));
    let bytes = journal(&header, &[block(3), Record::Synced { covered: 1 }, block(5)]);
    let whole = read(&bytes).unwrap();
    for cut in 0..bytes.len() {
        let contents = read(&bytes[..cut]);
        assert_eq!(contents.is_some(), cut >= HEADER_LEN, "cut at {cut}");
        let Some(contents) = contents else { continue };
        let records = (cut - HEADER_LEN) / RECORD_LEN;
        assert_eq!(contents.records as usize, records, "cut at {cut}");
        assert_eq!(contents.is_whole, (cut - HEADER_LEN).is_multiple_of(RECORD_LEN), "cut at {cut}");
    }
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let contents = read(&flipped);
        assert_eq!(contents.is_some(), bit / 8 >= HEADER_LEN, "bit {bit}");
        let Some(contents) = contents else { continue };
        assert_eq!(contents.records as usize, (bit / 8 - HEADER_LEN) / RECORD_LEN, "bit {bit}");
        assert!(contents.blocks.iter().all(|(index, entry)| whole.blocks[index] == *entry), "bit {bit}");
        assert!(!contents.is_whole, "bit {bit}");
    }
}

#[test]
fn a_source_is_the_same_by_its_root_or_else_by_its_identity() {
    let source = |size, root: Option<&[u8]>, token| Source { size, root: root.map(Root::of), token };
    let (one, two, none) = ([1; TOKEN_LEN], [2; TOKEN_LEN], [0; TOKEN_LEN]);
    let same = [
        (source(5, Some(b"a"), one), source(5, Some(b"a"), two), true),
        (source(5, Some(b"a"), one), source(5, Some(b"b"), one), false),
        (source(5, Some(b"a"), one), source(6, Some(b"a"), one), false),
        (source(5, None, one), source(5, Some(b"b"), one), true),
        (source(5, None, one), source(5, None, two), false),
        (source(5, None, none), source(5, None, none), false),
    ];
    for (left, right, expected) in same {
        assert_eq!(left.is_same(&right), expected, "{left:?} {right:?}");
        assert_eq!(right.is_same(&left), expected, "{right:?} {left:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_believe_more_than_they_say(bytes in any::<Vec<u8>>()) {
        if let Some(contents) = read(&bytes) {
            prop_assert!(contents.blocks.len() <= bytes.len() / RECORD_LEN);
        }
    }

    #[test]
    fn a_good_header_before_any_records_makes_it_neither_panic_nor_believe_too_much(
        size: u64,
        records in prop::collection::vec((any::<u32>(), any::<u32>(), any::<bool>()), 0..20),
        tail in any::<Vec<u8>>(),
    ) {
        let header = header(size, None);
        let records: Vec<Record> = records
            .into_iter()
            .map(|(index, covered, is_block)| match is_block {
                true => block(index % 32),
                false => Record::Synced { covered: covered % 32 },
            })
            .collect();
        let mut bytes = journal(&header, &records);
        bytes.extend_from_slice(&tail);
        if let Some(contents) = read(&bytes) {
            let count = block_count(size);
            prop_assert!(count <= BLOCKS_MAX);
            prop_assert!(contents.records as usize <= records.len());
            prop_assert!(contents.covered <= contents.records);
            for (&index, entry) in &contents.blocks {
                prop_assert!(index < count);
                prop_assert_eq!(records[entry.number as usize], block(u32::try_from(index).unwrap()));
            }
        }
    }
}
