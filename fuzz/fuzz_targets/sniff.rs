//! The dialect of a connection: once told it stays told, and a bounded beginning is enough.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneport::sniff::{SNIFF_MAX, sniff};

fuzz_target!(|bytes: &[u8]| {
    let told = sniff(bytes);
    assert!(told.is_some() || bytes.len() < SNIFF_MAX);
    for count in 0..bytes.len().min(SNIFF_MAX) {
        if let Some(early) = sniff(&bytes[..count]) {
            assert_eq!(Some(early), told, "after {count} bytes");
        }
    }
});
