//! The client's decoder of answers: says the same however the bytes arrive, reserves nothing that a
//! server merely announces; and what it understood, encoded again, is understood alike.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use oneport::codec::v1::{Response, ResponseCodec};
use oneport::limits::NAME_MAX;
use oneport_fuzz::{cut, decode_all};
use tokio_util::codec::{Decoder, Encoder};

/// The longest header: lengths, a name, and a digest.
const HEADER_MAX: usize = 4 + NAME_MAX + 8 + 32;

fuzz_target!(|input: &[u8]| {
    let Some((bytes, first, second)) = cut(input) else { return };
    let whole = decode_all(ResponseCodec::default(), &[bytes], HEADER_MAX);
    let pieces = decode_all(ResponseCodec::default(), &[first, second], HEADER_MAX);
    assert_eq!(whole, pieces);
    encode_again(bytes);
});

fn encode_again(bytes: &[u8]) {
    let (mut decoder, mut buffer) = (ResponseCodec::default(), BytesMut::from(bytes));
    let Ok(Some(Response::Ok)) = decoder.decode(&mut buffer) else { return };
    let Ok(Some(Response::Header(header))) = decoder.decode(&mut buffer) else { return };
    let mut encoder = ResponseCodec::default();
    let mut again = BytesMut::new();
    for response in [Response::Ok, Response::Header(header)] {
        encoder.encode(response, &mut again).expect("what was decoded can be encoded");
    }
    let length = bytes.len() - buffer.len();
    assert!(again.eq_ignore_ascii_case(&bytes[..length]), "only the digest's case may differ");
}
