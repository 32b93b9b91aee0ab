//! The decoder of Conduit's frames, and the reader of what is in them: says the same however the bytes arrive, keeps to
//! its bound packed or not, and writes what it has understood so that it is understood alike.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use oneport::codec::conduit::words::{Auth, Call, Message, read};
use oneport::codec::conduit::{FrameCodec, HEAD_LEN};
use oneport_fuzz::{cut, decode_all};
use tokio_util::codec::{Decoder, Encoder};

/// Bytes of a payload; less than inputs have, so that what is longer comes too.
const PAYLOAD_MAX: u32 = 4096;

fuzz_target!(|input: &[u8]| {
    let Some((bytes, first, second)) = cut(input) else { return };
    let codec = FrameCodec::new(PAYLOAD_MAX);
    let whole = decode_all(codec, &[bytes], HEAD_LEN + PAYLOAD_MAX as usize);
    let pieces = decode_all(codec, &[first, second], HEAD_LEN + PAYLOAD_MAX as usize);
    assert_eq!(whole, pieces);
    // Most inputs are no frames.
    understand(bytes);
    let (mut codec, mut left) = (codec, BytesMut::from(bytes));
    while let Ok(Some(frame)) = codec.decode(&mut left) {
        assert!(frame.payload.len() <= PAYLOAD_MAX as usize);
        understand(&frame.payload);
        let mut again = BytesMut::new();
        codec.encode(&frame, &mut again).expect("what was decoded can be encoded");
        assert_eq!(codec.decode(&mut again).expect("it is understood"), Some(frame));
        assert!(again.is_empty(), "its length is right");
    }
});

fn understand(payload: &[u8]) {
    let _ = (read::<Auth<'_>>(payload), read::<Message<'_>>(payload));
    if let Ok(call) = read::<Call<'_>>(payload)
        && let Some(method) = call.method.text()
    {
        assert!(method.len() < payload.len());
    }
}
