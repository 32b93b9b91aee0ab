//! The server's decoder of requests: says the same however the bytes arrive, keeps no name longer
//! than the protocol allows, and reserves nothing that a peer merely announces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneport::codec::v1::RequestCodec;
use oneport::limits::NAME_MAX;
use oneport_fuzz::{cut, decode_all};

fuzz_target!(|input: &[u8]| {
    let Some((bytes, first, second)) = cut(input) else { return };
    let whole = decode_all(RequestCodec::default(), &[bytes], NAME_MAX);
    let pieces = decode_all(RequestCodec::default(), &[first, second], NAME_MAX);
    assert_eq!(whole, pieces);
});
