//! The server's decoder of version 2's frames: says the same however the bytes arrive, keeps to the
//! protocol's bounds; and what it understood, encoded again, is understood alike.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use oneport::codec::WireError;
use oneport::codec::v2::{CLIENT_FRAME_MAX, CURSOR_MAX, ClientFrame, RANGES_MAX};
use oneport::limits::{NAME_MAX, PATTERNS_MAX};
use oneport_fuzz::{cut, decode_all};
use tokio_util::codec::Decoder;

struct Frames;

impl Decoder for Frames {
    type Item = ClientFrame;
    type Error = WireError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<ClientFrame>, WireError> {
        ClientFrame::decode(src)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((bytes, first, second)) = cut(input) else { return };
    let whole = decode_all(Frames, &[bytes], CLIENT_FRAME_MAX);
    let pieces = decode_all(Frames, &[first, second], CLIENT_FRAME_MAX);
    assert_eq!(whole, pieces);
    let mut left = BytesMut::from(bytes);
    while let Ok(Some(frame)) = ClientFrame::decode(&mut left) {
        encode_again(&frame);
    }
});

fn encode_again(frame: &ClientFrame) {
    match frame {
        // What is no key is not kept, so it cannot be encoded.
        ClientFrame::Unknown | ClientFrame::Auth(Err(_)) => return,
        ClientFrame::Stat(_, stat) => assert!(stat.name.len() <= NAME_MAX),
        ClientFrame::Get(_, get) => {
            assert!(get.name.len() <= NAME_MAX && get.ranges.len() <= RANGES_MAX);
            assert!(get.ranges.iter().all(|range| range.len > 0));
            assert!(get.ranges.is_sorted_by(|one, next| one.offset + one.len <= next.offset));
            for size in [0, 1, 1 << 20, (1 << 20) + 1, 1 << 40, i64::MAX as u64] {
                let _ = get.blocks(size);
            }
        }
        ClientFrame::List(_, list) => {
            assert!(list.name.len() <= NAME_MAX && list.cursor.len() <= CURSOR_MAX);
            assert!(list.patterns.len() <= PATTERNS_MAX);
            if let Ok(selection) = list.selection() {
                let _ = selection.patterns.include(&list.cursor);
            }
        }
        _ => {}
    }
    let mut again = BytesMut::new();
    frame.encode(&mut again).expect("what was decoded can be encoded");
    let bare = ClientFrame::decode_bare(again.clone().freeze().split_off(4)).ok();
    // Bytes of a file cannot be the first thing that is said.
    assert_eq!(bare.as_ref(), Some(frame).filter(|frame| !matches!(frame, ClientFrame::Bytes { .. })));
    assert_eq!(ClientFrame::decode(&mut again).expect("it is understood").as_ref(), Some(frame));
    assert!(again.is_empty(), "its length is right");
}
