//! The vectors of `docs/protocol.md` at every split, and what no peer should send.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::words::replies::{self, Begun, Failure};
use super::words::{Auth, Call, Field, Message, PayloadError, read, write};
use super::*;
use crate::codec::vectors::vector;
use crate::limits::{CONDUIT_DEPTH_MAX, CONDUIT_PAYLOAD_MAX};
use crate::token::TokenHash;

fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    FrameCodec::new(CONDUIT_PAYLOAD_MAX).decode(&mut BytesMut::from(bytes))
}

fn head(kind: u16, flags: u16, len: u32) -> Vec<u8> {
    let mut head = b"CNDT\x01\x00".to_vec();
    head.extend(kind.to_be_bytes());
    head.extend(flags.to_be_bytes());
    head.extend([0; 2]);
    head.extend(len.to_be_bytes());
    head.extend([0; 16]);
    head
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn framed(flags: u16, payload: &[u8]) -> Vec<u8> {
    [&head(2, flags, u32::try_from(payload.len()).unwrap())[..], payload].concat()
}

/// Asserts that the bytes are one frame, however they come, and that it is written as these bytes.
fn one(label: &str) -> Frame {
    let bytes = vector(label);
    let frame = decode(&bytes).unwrap().unwrap_or_else(|| panic!("{label} is cut"));
    for at in 0..=bytes.len() {
        let (mut codec, mut buffer) = (FrameCodec::new(CONDUIT_PAYLOAD_MAX), BytesMut::from(&bytes[..at]));
        let first = codec.decode(&mut buffer).unwrap();
        assert_eq!(first.is_some(), at == bytes.len(), "{label} at {at}");
        buffer.extend_from_slice(&bytes[at..]);
        let all = first.or_else(|| codec.decode_eof(&mut buffer).unwrap());
        assert_eq!(all.as_ref(), Some(&frame), "{label} at {at}");
    }
    let mut again = BytesMut::new();
    FrameCodec::new(CONDUIT_PAYLOAD_MAX).encode(&frame, &mut again).unwrap();
    assert_eq!(again, bytes, "{label}");
    frame
}

#[test]
fn the_examples_of_the_page_are_frames_at_every_split() {
    let auth = one("conduit-auth");
    assert_eq!((auth.kind, auth.correlation), (Kind::AuthRequest, 0));
    let said: Auth<'_> = read(&auth.payload).unwrap();
    let shown = said.password_hash.text().and_then(TokenHash::parse_hex);
    assert_eq!(shown, Some(TokenHash::of_password(b"secret")));
    assert_eq!(said.client_info.unwrap().name, Field::Text("desk"));

    let call = one("conduit-call");
    assert_eq!((call.kind, call.correlation, call.sent_ms), (Kind::RpcRequest, 7, 0x0190_0000_0000));
    let said: Call<'_> = read(&call.payload).unwrap();
    assert_eq!(said.method, Field::Text("file_download_start"));
    assert_eq!(said.params.unwrap().filename, Field::Text("a.txt"));

    let answer = one("conduit-answer");
    assert_eq!((answer.kind, answer.correlation), (Kind::RpcResponse, 7));
    let begun = Begun { transfer_id: "t1", size: 5, total_chunks: 1, chunk_size: 65536 };
    assert_eq!(replies::done(begun).unwrap(), answer.payload);

    let refusal = one("conduit-refusal");
    assert_eq!(refusal.kind, Kind::RpcResponse);
    assert_eq!(replies::failed(Failure::NotFound, "File not found").unwrap(), refusal.payload);

    let ping = one("conduit-ping");
    assert_eq!((ping.kind, ping.payload.len()), (Kind::Ping, 0));
}

#[test]
fn a_packed_payload_is_what_it_was_before() {
    let payload = write(&replies::Reason { reason: &"why ".repeat(1000) }).unwrap();
    let frame = decode(&framed(PACKED, &packed(&payload))).unwrap().unwrap();
    assert_eq!(frame.payload, payload);
    let most = vec![7; CONDUIT_PAYLOAD_MAX as usize];
    let frame = decode(&framed(PACKED, &packed(&most))).unwrap().unwrap();
    assert!(frame.payload == most, "the longest one");
    assert_eq!(decode(&head(5, PACKED, 0)).unwrap().unwrap().payload, Bytes::new());
}

#[test]
fn a_payload_that_would_burst_is_refused_and_so_is_one_that_is_not_packed() {
    let bomb = packed(&vec![0; 8 << 20]);
    assert!(bomb.len() < CONDUIT_PAYLOAD_MAX as usize);
    assert!(matches!(decode(&framed(PACKED, &bomb)), Err(FrameError::Unpacked(_))));
    let one_more = packed(&vec![0; CONDUIT_PAYLOAD_MAX as usize + 1]);
    assert!(matches!(decode(&framed(PACKED, &one_more)), Err(FrameError::Unpacked(_))));
    let whole = packed(b"some bytes");
    let excess = [&whole[..], b"x"].concat();
    for wrong in [&b"not packed"[..], &whole[..whole.len() - 1], &excess, b"\0"] {
        assert!(matches!(decode(&framed(PACKED, wrong)), Err(FrameError::Packed)), "{wrong:?}");
    }
}

#[test]
fn lengths_are_looked_at_before_anything_is_waited_for_or_reserved() {
    for len in [CONDUIT_PAYLOAD_MAX + 1, 100 << 20, u32::MAX] {
        assert!(matches!(decode(&head(2, 0, len)), Err(FrameError::Length { .. })), "{len}");
    }
    let mut buffer = BytesMut::from(&head(2, 0, CONDUIT_PAYLOAD_MAX)[..]);
    let mut codec = FrameCodec::new(CONDUIT_PAYLOAD_MAX);
    assert!(codec.decode(&mut buffer).unwrap().is_none());
    assert!(buffer.capacity() < 1024, "{} bytes reserved", buffer.capacity());
    assert!(matches!(codec.decode_eof(&mut buffer), Err(FrameError::Truncated)));
    let long = Frame {
        kind: Kind::Message,
        correlation: 0,
        sent_ms: 0,
        wants_ack: false,
        payload: Bytes::from_static(b"12345"),
    };
    let mut out = BytesMut::new();
    assert!(matches!(FrameCodec::new(4).encode(&long, &mut out), Err(FrameError::Length { .. })));
    assert!(out.is_empty());
}

#[test]
fn heads_that_nobody_may_send_are_told_apart() {
    assert!(matches!(decode(&[&b"CNDX"[..], &head(5, 0, 0)[4..]].concat()), Err(FrameError::Magic)));
    assert!(matches!(
        decode(&[&b"CNDT\x02\0"[..], &head(5, 0, 0)[6..]].concat()),
        Err(FrameError::Version(0x200))
    ));
    for kind in [0, 0x11, 0xffff] {
        assert!(matches!(decode(&head(kind, 0, 0)), Err(FrameError::Kind(of)) if of == kind));
    }
    for flags in [0x02, 0x10, 0x20, 0xff] {
        assert!(matches!(decode(&head(5, flags, 0)), Err(FrameError::Flags(_))), "{flags}");
    }
    for (number, kind) in (1..).zip(Kind::ALL) {
        assert_eq!((kind as u16, Kind::of(number)), (number, Some(kind)));
        assert_eq!(decode(&head(number, 0x48, 0)).unwrap().unwrap().kind, kind, "flags of no consequence");
    }
    assert!(decode(&head(5, WANTS_ACK, 0)).unwrap().unwrap().wants_ack);
}

#[test]
fn a_payload_is_read_as_far_as_it_makes_sense() {
    // {"method": 5, "params": {"filename": [1, {"a": nil}], "size": -1, "chunk_index": 70000, "x": bin, "client": true}}
    let payload = b"\x82\xa6method\x05\xa6params\x85\xa8filename\x92\x01\x81\xa1a\xc0\xa4size\xff\
        \xabchunk_index\xce\x00\x01\x11\x70\xa1x\xc4\x03abc\xa6client\xc3";
    let call: Call<'_> = read(payload).unwrap();
    let params = call.params.unwrap();
    assert_eq!(call.method, Field::Number(5));
    assert_eq!((params.filename, params.size), (Field::Other, Field::Other));
    assert_eq!((params.chunk_index, params.client), (Field::Number(70000), Field::Flag(true)));
    assert_eq!((params.checksum, params.data_b64), (Field::Missing, Field::Missing));
    let call: Call<'_> = read(b"\x82\xa6method\xa1x\xa6params\xc0").unwrap();
    assert!(call.method == Field::Text("x") && call.params.is_none());
    let ext: Call<'_> = read(b"\x81\xa6method\xc7\x03\x01abc").unwrap();
    assert_eq!(ext.method, Field::Other);
    for wrong in [
        &b""[..],
        b"\xc1",
        b"\x05",
        b"\x82\xa6method",
        b"\xdf\xff\xff\xff\xff",
        b"\xa1",
        b"\x81\xa6params\xa1x",
    ] {
        assert_eq!(read::<Call<'_>>(wrong).err(), Some(PayloadError), "{wrong:?}");
    }
    assert!(read::<Message<'_>>(b"\x82\xa4type\xa1x\xa4data\xa1y").is_err(), "a message of somebody else");
}

#[test]
fn a_payload_that_is_nested_too_deeply_is_refused() {
    let nested = |depth: usize| [&b"\x81\xa6method"[..], &b"\x91".repeat(depth), b"\xc0"].concat();
    assert!(read::<Call<'_>>(&nested(CONDUIT_DEPTH_MAX - 2)).is_ok());
    for depth in [CONDUIT_DEPTH_MAX, 1000, 1 << 20] {
        assert_eq!(read::<Call<'_>>(&nested(depth)).err(), Some(PayloadError), "{depth}");
        let maps = [&b"\x81\xa1z"[..], &b"\x81\xa1a".repeat(depth), b"\xc0"].concat();
        assert_eq!(read::<Call<'_>>(&maps).err(), Some(PayloadError), "{depth}");
    }
}
