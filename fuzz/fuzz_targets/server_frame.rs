//! The client's decoder of version 2's frames: says the same however the bytes arrive, reserves
//! nothing that a server merely announces; and what it understood, encoded again, is understood alike.
#![no_main]

use bytes::{Buf, BytesMut};
use libfuzzer_sys::fuzz_target;
use oneport::codec::WireError;
use oneport::codec::v2::{CURSOR_MAX, DATA_MAX, ERROR_TEXT_MAX, PAIRS_MAX, ServerFrame, Values};
use oneport_fuzz::{cut, decode_all};
use tokio_util::codec::Decoder;

/// More than a buffer may grow by of itself, much less than the longest frame.
const ROOM_MAX: usize = 16 << 10;

/// Decodes frames and drops the bytes of the file, which the decoder leaves to its caller.
#[derive(Default)]
struct Frames {
    data_left: u64,
}

impl Decoder for Frames {
    type Item = ServerFrame;
    type Error = WireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<ServerFrame>, WireError> {
        let count = usize::try_from(self.data_left).map_or(src.len(), |left| left.min(src.len()));
        src.advance(count);
        self.data_left -= count as u64;
        if self.data_left > 0 {
            return Ok(None);
        }
        let frame = ServerFrame::decode(src)?;
        if let Some(ServerFrame::Data { len, .. }) = frame {
            assert!((1..=DATA_MAX).contains(&len));
            self.data_left = len;
        }
        Ok(frame)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((bytes, first, second)) = cut(input) else { return };
    let whole = decode_all(Frames::default(), &[bytes], ROOM_MAX);
    let pieces = decode_all(Frames::default(), &[first, second], ROOM_MAX);
    assert_eq!(whole, pieces);
    let (mut decoder, mut left) = (Frames::default(), BytesMut::from(bytes));
    while let Ok(Some(frame)) = decoder.decode(&mut left) {
        encode_again(&frame);
    }
});

fn encode_again(frame: &ServerFrame) {
    match frame {
        ServerFrame::Unknown => return,
        ServerFrame::Values(_, Values::Pairs(pairs)) => assert!((1..=PAIRS_MAX).contains(&pairs.len())),
        ServerFrame::Entries(_, entries) => assert!(entries.cursor.len() <= CURSOR_MAX),
        ServerFrame::Error(_, _, text) => assert!(text.len() <= ERROR_TEXT_MAX),
        _ => {}
    }
    let mut again = BytesMut::new();
    frame.encode(&mut again);
    assert_eq!(ServerFrame::decode(&mut again).expect("it is understood").as_ref(), Some(frame));
    assert!(again.is_empty(), "its length is right");
}
