//! The vectors of `docs/protocol.md` at every split, round trips, and lengths that lie.

use proptest::prelude::*;

use super::*;
use crate::codec::vectors::vector;

/// Feeds `pieces` one after the other, then the end; returns the items and what is left.
fn run<D: Decoder<Error = WireError>>(
    decoder: &mut D,
    pieces: &[&[u8]],
) -> Result<(Vec<D::Item>, BytesMut), WireError> {
    let mut buffer = BytesMut::new();
    let mut items = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(item) = decoder.decode(&mut buffer)? {
            items.push(item);
        }
    }
    items.extend(decoder.decode_eof(&mut buffer)?);
    Ok((items, buffer))
}

/// Runs `bytes` whole, byte by byte, and split in two and in three at every place, and asserts that
/// each way gives `items` and leaves `rest`.
fn at_every_split<D>(bytes: &[u8], items: &[D::Item], rest: &[u8])
where
    D: Decoder<Error = WireError> + Default,
    D::Item: PartialEq + std::fmt::Debug,
{
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    let mut ways = vec![vec![bytes], single];
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            ways.push(vec![&bytes[..first], &bytes[first..second], &bytes[second..]]);
        }
    }
    for way in ways {
        let (seen, left) = run(&mut D::default(), &way).unwrap();
        assert_eq!(seen, items, "split as {way:?}");
        assert_eq!(left, rest, "split as {way:?}");
    }
}

fn name(text: &'static str) -> Request {
    Request::Name(Bytes::from_static(text.as_bytes()))
}

fn header(base: &'static str, data: &[u8]) -> Response {
    Response::Header(Header {
        name: Bytes::from_static(base.as_bytes()),
        size: data.len() as u64,
        md5: Md5::of(data),
    })
}

#[test]
fn requests_of_the_specification_decode_at_every_split_and_encode_to_the_same_bytes() {
    for (label, text) in
        [("request-short", "file.txt"), ("request-folder", "folder/ü.bin"), ("request-empty", "")]
    {
        let bytes = vector(label);
        at_every_split::<RequestCodec>(&bytes, &[name(text)], b"");
        let mut encoded = BytesMut::new();
        RequestCodec::default().encode(text.as_bytes(), &mut encoded).unwrap();
        assert_eq!(encoded, bytes, "{label}");
    }
}

#[test]
fn bytes_after_a_request_are_left_alone() {
    let mut bytes = vector("request-short");
    bytes.extend_from_slice(b"trailing");
    let mut buffer = BytesMut::from(&bytes[..]);
    assert_eq!(RequestCodec::default().decode(&mut buffer).unwrap(), Some(name("file.txt")));
    assert_eq!(buffer, b"trailing"[..]);
}

#[test]
fn answers_of_the_specification_decode_at_every_split_and_encode_to_the_same_bytes() {
    let hello = [Response::Ok, header("file.txt", b"hello")];
    at_every_split::<ResponseCodec>(&vector("answer"), &hello, b"hello");
    let refusal = [not_found(b"x")];
    at_every_split::<ResponseCodec>(&vector("refusal"), &refusal, b"");
    for (label, response) in [
        ("response-ok", Response::Ok),
        ("response-header", header("file.txt", b"hello")),
        ("response-header-empty-file", header("e", b"")),
        ("refusal", not_found(b"x")),
    ] {
        let mut encoded = BytesMut::new();
        ResponseCodec::default().encode(response, &mut encoded).unwrap();
        assert_eq!(encoded, vector(label), "{label}");
    }
}

#[test]
fn an_answer_cut_anywhere_before_its_data_is_an_error() {
    let answer = vector("answer");
    for end in 0..answer.len() - b"hello".len() {
        let result = run(&mut ResponseCodec::default(), &[&answer[..end]]);
        assert!(matches!(result, Err(WireError::Truncated)), "cut at {end}");
    }
    let request = vector("request-short");
    for end in 1..request.len() {
        let result = run(&mut RequestCodec::default(), &[&request[..end]]);
        assert!(matches!(result, Err(WireError::Truncated)), "cut at {end}");
    }
}

#[test]
fn another_status_is_refused_as_soon_as_it_differs() {
    for (bytes, told) in [(&b"HTTP/1.1"[..], "HTTP/"), (b"EX", "EX"), (b"\x1b[2J", "\\u{1b}[2J")] {
        let error = run(&mut ResponseCodec::default(), &[bytes]).unwrap_err();
        assert!(matches!(&error, WireError::Status(text) if text == told), "{error}");
    }
}

#[test]
fn a_refusal_that_never_ends_is_cut_at_its_bound() {
    let mut buffer = BytesMut::from(&b"ERROR"[..]);
    buffer.resize(STATUS_ERROR.len() + 2 * REFUSAL_MAX, b'x');
    let refused = ResponseCodec::default().decode(&mut buffer).unwrap();
    assert!(matches!(refused, Some(Response::Refused(text)) if text.len() == REFUSAL_MAX));
}

#[test]
fn the_refusal_of_any_name_is_text_that_the_original_client_can_read_whole() {
    for bytes in [&b"\xff".repeat(4096)[..], &[b'a'; 4096], &b"\x1b[2J\n".repeat(400)] {
        let Response::Refused(text) = not_found(bytes) else { panic!("not a refusal") };
        assert!(text.len() <= REFUSAL_MAX && says_not_found(&text));
        assert!(std::str::from_utf8(&text).is_ok_and(|text| !text.contains(char::is_control)));
    }
}

#[test]
fn an_over_long_name_is_known_from_its_beginning() {
    for announced in [u32::try_from(NAME_MAX + 1).unwrap(), 0x00ff_ffff, u32::MAX] {
        let mut buffer = BytesMut::from(&announced.to_be_bytes()[..]);
        buffer.extend_from_slice(&[b'n'; NAME_SHOWN]);
        let request = RequestCodec::default().decode(&mut buffer).unwrap();
        assert!(matches!(request, Some(Request::TooLong { beginning }) if beginning.len() == NAME_SHOWN));
    }
}

proptest! {
    #[test]
    fn requests_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..=NAME_MAX)) {
        let mut wire = BytesMut::new();
        RequestCodec::default().encode(&bytes, &mut wire).unwrap();
        let decoded = RequestCodec::default().decode(&mut wire).unwrap();
        prop_assert_eq!(decoded, Some(Request::Name(bytes.into())));
        prop_assert!(wire.is_empty());
    }

    #[test]
    fn headers_round_trip(
        name in proptest::collection::vec(any::<u8>(), 0..=NAME_MAX),
        size in 0..=i64::MAX.unsigned_abs(),
        md5 in any::<[u8; 16]>(),
    ) {
        let header = Response::Header(Header { name: name.into(), size, md5: Md5::from_bytes(md5) });
        let mut wire = BytesMut::from(&b"OK"[..]);
        ResponseCodec::default().encode(header.clone(), &mut wire).unwrap();
        let mut codec = ResponseCodec::default();
        prop_assert_eq!(codec.decode(&mut wire).unwrap(), Some(Response::Ok));
        prop_assert_eq!(codec.decode(&mut wire).unwrap(), Some(header));
    }

    #[test]
    fn no_announced_length_reserves_more_than_a_message_may_have(length in any::<u32>()) {
        let mut request = BytesMut::from(&length.to_be_bytes()[..]);
        let _ = RequestCodec::default().decode(&mut request);
        prop_assert!(request.capacity() <= 4 * NAME_MAX, "{} reserved", request.capacity());

        let mut answer = BytesMut::from(&b"OK"[..]);
        answer.extend_from_slice(&length.to_be_bytes());
        let mut codec = ResponseCodec::default();
        codec.decode(&mut answer).unwrap();
        let header = codec.decode(&mut answer);
        prop_assert!(answer.capacity() <= 4 * NAME_MAX, "{} reserved", answer.capacity());
        if length as usize > NAME_MAX {
            prop_assert!(matches!(header, Err(WireError::NameLength(_))));
        }
    }

    #[test]
    fn any_bytes_give_an_item_an_error_or_a_wait_but_never_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), split in 0..200_usize) {
        let split = split.min(bytes.len());
        let pieces = [&bytes[..split], &bytes[split..]];
        let _ = run(&mut RequestCodec::default(), &pieces);
        let _ = run(&mut ResponseCodec::default(), &pieces);
        let mut after_ok = b"OK".to_vec();
        after_ok.extend_from_slice(&bytes);
        let _ = run(&mut ResponseCodec::default(), &[&after_ok]);
    }

    #[test]
    fn a_size_beyond_any_file_is_refused(size in i64::MAX.unsigned_abs() + 1..) {
        let mut wire = BytesMut::from(&b"OK\0\0\0\x01x"[..]);
        wire.put_u64(size);
        wire.put_slice(&[b'0'; MD5_HEX_LEN]);
        let mut codec = ResponseCodec::default();
        codec.decode(&mut wire).unwrap();
        prop_assert!(matches!(codec.decode(&mut wire), Err(WireError::Size(_))));
    }
}
