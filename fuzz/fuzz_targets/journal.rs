//! The journal of a part file: never a panic, no more believed than the bytes can say, and what is
//! behind the last good record changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneport::limits::BLOCKS_MAX;
use oneport::staged::journal::{Contents, HEADER_LEN, Header, Key, RECORD_LEN, Record};
use oneport::staged::{Home, Source};
use oneport::tree::block_count;

/// Length of what stands before the records in an input, in bytes: the size of the source.
const SIZE_LEN: usize = 8;

fuzz_target!(|input: &[u8]| {
    check(input);
    // No fuzzer guesses a check value, so the same bytes are tried as records with good ones.
    let Some((size, records)) = input.split_first_chunk::<SIZE_LEN>() else { return };
    let source = Source { size: u64::from_be_bytes(*size), root: None, token: [1; 16] };
    let home = Home { device: 1, inode: 2, born: 3, since: [4; 16] };
    let header = Header { source, home, salt: [5; 16] }.encode();
    let key = Key::of(&header);
    let mut bytes = header.to_vec();
    for (number, record) in (0..).zip(records.chunks_exact(5)) {
        let value = u32::from_be_bytes([record[1], record[2], record[3], record[4]]);
        let record = match record[0] % 2 {
            0 => Record::Block { index: value, hash: [record[0]; 32] },
            _ => Record::Synced { covered: value },
        };
        bytes.extend_from_slice(&record.encode(&key, number));
    }
    check(&bytes);
});

fn check(bytes: &[u8]) {
    let Some(contents) = Contents::read(&mut &*bytes) else { return };
    let count = block_count(contents.header.source.size);
    assert!(count <= BLOCKS_MAX);
    assert!(contents.blocks.len() <= contents.records as usize);
    assert!(contents.covered <= contents.records);
    assert!(contents.blocks.iter().all(|(&index, entry)| index < count && entry.number < contents.records));
    let good = HEADER_LEN + RECORD_LEN * contents.records as usize;
    assert_eq!(contents.is_whole, good == bytes.len());
    let again = Contents::read(&mut &bytes[..good]);
    assert_eq!(again, Some(Contents { is_whole: true, ..contents }));
}
