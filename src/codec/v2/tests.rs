//! The vectors of `docs/protocol.md` at every split, round trips, and lengths that lie.

use proptest::prelude::*;

use super::*;
use crate::codec::v1::{Request, RequestCodec};
use crate::codec::vectors::{SPECIFICATION, vector};
use crate::limits::BLOCKS_MAX;
use crate::listing::{Entry, Kind};
use crate::patterns::Verdict;
use crate::priority::Priority;
use crate::tree::{BLOCK_LEN, BlockHash, Root, Value, block_count};
use tokio_util::codec::{Decoder, Encoder};

fn bytes<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|index| first + u8::try_from(index).unwrap())
}

fn whole() -> ClientFrame {
    ClientFrame::Get(1, Get { name: "x".into(), ..Get::default() })
}

fn client(frame: &ClientFrame) -> BytesMut {
    let mut wire = BytesMut::new();
    frame.encode(&mut wire).unwrap();
    wire
}

/// Decodes `bytes` whole, byte by byte, and split in two at every place, and asserts the frames.
fn at_every_split<F: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(&mut BytesMut) -> Result<Option<F>, WireError>,
    frames: &[F],
) {
    let mut ways: Vec<Vec<&[u8]>> = vec![vec![bytes], bytes.chunks(1).collect()];
    ways.extend((0..=bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]));
    for way in ways {
        let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
        for piece in &way {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decode(&mut buffer).unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, frames, "split as {way:?}");
        assert!(buffer.is_empty(), "split as {way:?}");
    }
}

/// Decodes server frames and takes the data behind each head.
fn with_data(buffer: &mut BytesMut) -> Result<Option<(ServerFrame, Bytes)>, WireError> {
    let mut ahead = buffer.clone();
    let Some(frame) = ServerFrame::decode(&mut ahead)? else { return Ok(None) };
    let len = match frame {
        ServerFrame::Data { len, .. } => usize::try_from(len).unwrap(),
        _ => 0,
    };
    if ahead.len() < len {
        return Ok(None);
    }
    let data = ahead.split_to(len).freeze();
    *buffer = ahead;
    Ok(Some((frame, data)))
}

#[test]
fn the_hello_of_the_specification_is_a_request_of_version_1() {
    let hello = Hello { first: Some(whole()), ..Hello::default() };
    let (name, has_first) = hello.to_name();
    assert!(has_first);
    let mut wire = BytesMut::new();
    RequestCodec::default().encode(&name, &mut wire).unwrap();
    assert_eq!(wire, vector("hello"), "{wire:02x?}");
    let Some(Request::Name(said)) = RequestCodec::default().decode(&mut wire).unwrap() else { panic!() };
    assert_eq!(Hello::parse(&said), Ok(hello));
}

#[test]
fn requests_are_as_specified_at_every_split() {
    let range = Get {
        proven: true,
        name: "x".into(),
        transfer: bytes(0x01),
        have: BLOCK_LEN,
        token: bytes(0x11),
        ranges: vec![ByteRange { offset: BLOCK_LEN, len: 1 }],
        ..Get::default()
    };
    let urgent = Get { name: "x".into(), priority: Priority::MOST, ..Get::default() };
    let cases = [
        ("stat", ClientFrame::Stat(1, Stat { root: true, name: "x".into() })),
        ("get", whole()),
        ("get-range", ClientFrame::Get(2, range)),
        ("get-urgent", ClientFrame::Get(3, urgent)),
    ];
    for (label, frame) in cases {
        assert_eq!(client(&frame), vector(label), "{label}: {:02x?}", client(&frame));
        at_every_split(&vector(label), ClientFrame::decode, &[frame]);
    }
}

#[test]
fn a_key_is_shown_as_specified_at_every_split() {
    use crate::token::Token;
    let token = Token::new(&std::array::from_fn(|at| u8::try_from(at).unwrap()));
    let frame = ClientFrame::Auth(Ok(token.clone()));
    assert_eq!(client(&frame), vector("auth"), "{:02x?}", client(&frame));
    at_every_split(&vector("auth"), ClientFrame::decode, &[frame]);
    let mut other_number = client(&ClientFrame::Auth(Ok(token)));
    other_number[8] = 1;
    assert!(ClientFrame::decode(&mut other_number).is_err(), "a key is not for one request");
}

/// Decodes client frames and takes the bytes behind each head.
fn with_bytes(buffer: &mut BytesMut) -> Result<Option<(Frame, Bytes)>, WireError> {
    let mut ahead = buffer.clone();
    let Some(frame) = Frame::decode(&mut ahead)? else { return Ok(None) };
    let len = match frame {
        Frame::Asks(ClientFrame::Bytes { len, .. }) => usize::try_from(len).unwrap(),
        _ => 0,
    };
    if ahead.len() < len {
        return Ok(None);
    }
    let bytes = ahead.split_to(len).freeze();
    *buffer = ahead;
    Ok(Some((frame, bytes)))
}

fn put(form: Form) -> Put {
    let root = Some(Root::of(b"hello"));
    let file = File { size: 5, modified: (1_700_000_000, 0), mode: 0o644, token: bytes(0x11), root };
    let (name, transfer) = ("x".into(), bytes(0x01));
    Put {
        replace: true,
        unless_same: false,
        form,
        name,
        transfer,
        attempt: 1,
        file,
        priority: Priority::default(),
    }
}

#[test]
fn what_is_stored_removed_and_moved_is_as_specified_at_every_split() {
    let frames = [
        (ClientFrame::Put(1, put(Form::Whole)), Bytes::new()),
        (ClientFrame::Bytes { request: 1, offset: 0, len: 5 }, "hello".into()),
    ];
    let mut wire = BytesMut::new();
    for (frame, bytes) in &frames {
        frame.encode(&mut wire).unwrap();
        wire.extend_from_slice(bytes);
    }
    assert_eq!(wire, vector("put"), "{wire:02x?}");
    at_every_split(&wire, with_bytes, &frames.map(|(frame, bytes)| (Frame::Asks(frame), bytes)));

    let changes = [
        ClientFrame::Remove(2, Remove { recursive: true, name: "x".into() }),
        ClientFrame::Move(3, Move { replace: false, from: "x".into(), to: "y".into() }),
    ];
    let mut wire = BytesMut::new();
    changes.iter().for_each(|frame| frame.encode(&mut wire).unwrap());
    assert_eq!(wire, vector("changes"), "{wire:02x?}");
    at_every_split(&wire, ClientFrame::decode, &changes);
}

#[test]
fn what_is_asked_of_the_server_about_itself_is_as_specified_at_every_split() {
    use crate::control::{Direction, Outcome, Question, Wanted};
    let wanted = Wanted {
        since_ms: Some(1_700_000_000_000),
        until_ms: None,
        result: Some(Outcome::Failed),
        direction: Some(Direction::Download),
        client: "ann".into(),
        name: "*.iso".into(),
        limit: 100,
    };
    let frames = [
        ClientFrame::Control(1, Question::Status),
        ClientFrame::Control(2, Question::History(wanted)),
        ClientFrame::Control(3, Question::Cancel("abc-17".into())),
    ];
    let mut wire = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut wire).unwrap());
    assert_eq!(wire, vector("control"), "{wire:02x?}");
    at_every_split(&wire, ClientFrame::decode, &frames);

    let answer = [ServerFrame::Record(1, r#"{"event":"x"}"#.into()), ServerFrame::End(1, None)];
    let mut wire = BytesMut::new();
    answer.iter().for_each(|frame| frame.encode(&mut wire));
    assert_eq!(wire, vector("record"), "{wire:02x?}");
    at_every_split(&wire, Frame::decode, &answer.map(Frame::Tells));

    let mut unknown = client(&ClientFrame::Control(4, Question::Unknown(200)));
    assert_eq!(
        ClientFrame::decode(&mut unknown).unwrap(),
        Some(ClientFrame::Control(4, Question::Unknown(200)))
    );
    for (at, byte, what) in [(26, 4, "result"), (27, 4, "direction"), (33, 9, "client's length")] {
        let mut wrong = client(&frames[1]);
        wrong[at] = byte;
        assert!(ClientFrame::decode(&mut wrong).is_err(), "{what}");
    }
    let long = ClientFrame::Control(5, Question::Cancel("x".repeat(33)));
    assert!(long.encode(&mut BytesMut::new()).is_err());
}

#[test]
fn what_goes_to_those_who_listen_is_as_specified_at_every_split() {
    let put = || Put { replace: false, ..put(Form::Asked) };
    let (root, id) = (Root::of(b"hello"), bytes(0x31));
    let received = [Ok(root), Err((Code::Exists.into(), "no".into()))]
        .map(|outcome| ClientFrame::Received(1, Received { id, outcome }));
    for (label, frames) in [
        ("listen", vec![ClientFrame::Listen(1, Listen { receiver: "a".into() })]),
        ("push", vec![ClientFrame::Push(1, Push { receiver: "a".into(), put: put() })]),
        ("received", received.to_vec()),
    ] {
        let mut wire = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut wire).unwrap());
        assert_eq!(wire, vector(label), "{label}: {wire:02x?}");
        at_every_split(&wire, ClientFrame::decode, &frames);
    }
    let pushed = Pushed { id, file: put().file, name: "x".into(), from: "b".into() };
    let mut wire = BytesMut::new();
    ServerFrame::Pushed(1, pushed.clone()).encode(&mut wire);
    assert_eq!(wire, vector("pushed"), "{wire:02x?}");
    at_every_split(&wire, Frame::decode, &[Frame::Tells(ServerFrame::Pushed(1, pushed.clone()))]);
}

#[test]
fn what_goes_to_those_who_listen_contradicts_itself_nowhere() {
    for form in [Form::Whole, Form::Folder] {
        let mut whole = put(form);
        whole.file.size = 0;
        let push = ClientFrame::Push(1, Push { receiver: "a".into(), put: whole });
        assert!(push.encode(&mut BytesMut::new()).is_err(), "{form:?}");
    }
    let mut wire = client(&ClientFrame::Push(1, Push { receiver: "a".into(), put: put(Form::Asked) }));
    // The flags of what is put.
    wire[12] |= 4;
    assert!(ClientFrame::decode(&mut wire).is_err(), "all bytes at once");
    let file = File { root: None, ..put(Form::Asked).file };
    let mut wire = BytesMut::new();
    let pushed = Pushed { id: bytes(1), file, name: "x".into(), from: "b".into() };
    ServerFrame::Pushed(1, pushed).encode(&mut wire);
    assert!(ServerFrame::decode(&mut wire).is_err(), "without a root");
    let failure = Received { id: bytes(1), outcome: Err((ErrorCode(0), "well".into())) };
    assert!(
        ClientFrame::Received(1, failure).encode(&mut BytesMut::new()).is_err(),
        "a failure that is none"
    );
    let mut wire = client(&ClientFrame::Received(1, Received { id: bytes(1), outcome: Ok(Root::of(b"")) }));
    wire[27] = 0;
    assert!(ClientFrame::decode(&mut wire).is_err(), "received, and no root");
}

#[test]
fn what_is_offered_contradicts_itself_nowhere() {
    let offered = |change: &dyn Fn(&mut Put)| {
        let mut put = put(Form::Asked);
        change(&mut put);
        let mut wire = BytesMut::new();
        // Past the encoder, which would refuse it: put together by hand.
        super::put_frame(0x08, 1, &mut wire, |dst| put.put(dst));
        ClientFrame::decode(&mut wire)
    };
    assert!(offered(&|_| {}).is_ok());
    assert!(offered(&|put| put.file.size = 1 << 40).is_ok());
    for (what, change) in [
        (
            "larger than a block",
            (&|put: &mut Put| (put.form, put.file.size) = (Form::Whole, DATA_MAX + 1)) as &dyn Fn(&mut Put),
        ),
        ("no root", &|put| (put.form, put.file.root) = (Form::Whole, None)),
        ("a folder with bytes", &|put| put.form = Form::Folder),
        ("no identity", &|put| put.file.token = [0; 16]),
        ("too many blocks", &|put| put.file.size = u64::MAX),
        ("a long name", &|put| put.name = vec![b'x'; 5000].into()),
    ] {
        assert!(offered(change).is_err(), "{what}");
    }
    let mut both = client(&ClientFrame::Put(1, put(Form::Whole)));
    both[9] |= 8;
    assert!(ClientFrame::decode(&mut both).is_err(), "whole, and a folder");
}

#[test]
fn each_frame_is_of_the_side_that_its_kind_says() {
    let mut wire = client(&ClientFrame::Ping(1, [7; 8]));
    ServerFrame::Pong(1, [7; 8]).encode(&mut wire);
    ServerFrame::Data { request: 2, offset: 0, len: 1 }.encode(&mut wire);
    let frames = [
        Frame::Asks(ClientFrame::Ping(1, [7; 8])),
        Frame::Tells(ServerFrame::Pong(1, [7; 8])),
        Frame::Tells(ServerFrame::Data { request: 2, offset: 0, len: 1 }),
    ];
    at_every_split(&wire, Frame::decode, &frames);
    let mut unknown = BytesMut::new();
    super::put_frame(0x90, 3, &mut unknown, |_| {});
    assert_eq!(Frame::decode(&mut unknown).unwrap(), Some(Frame::Asks(ClientFrame::Unknown)));
    super::put_frame(0x7a, 3, &mut unknown, |_| {});
    assert!(Frame::decode(&mut unknown).is_err());
}

#[test]
fn an_answer_is_as_specified_at_every_split() {
    let root = Some(Root::of(b"hello"));
    let file = File { size: 5, modified: (1_700_000_000, 0), mode: 0o644, token: bytes(0x11), root };
    let frames = [
        (ServerFrame::Welcome(Welcome::default()), Bytes::new()),
        (ServerFrame::File(1, file), Bytes::new()),
        (ServerFrame::Data { request: 1, offset: 0, len: 5 }, "hello".into()),
        (ServerFrame::End(1, root), Bytes::new()),
    ];
    let mut wire = BytesMut::new();
    for (frame, data) in &frames {
        frame.encode(&mut wire);
        wire.extend_from_slice(data);
    }
    assert_eq!(wire, vector("answer-2"), "{wire:02x?}");
    at_every_split(&wire, with_data, &frames);

    let error = ServerFrame::Error(1, Code::NotFound.into(), "no such file".into());
    let mut wire = BytesMut::new();
    error.encode(&mut wire);
    assert_eq!(wire, vector("error"), "{wire:02x?}");
    at_every_split(&wire, ServerFrame::decode, &[error]);
}

#[test]
fn the_roots_and_values_of_the_specification_hold() {
    let content = |size: u64| (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>();
    const MIB: u64 = BLOCK_LEN;
    for size in [0, 1, 1023, 1024, 1025, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB, 3 * MIB + 1, 5 * MIB + 17] {
        let row = format!("| {size} | {} | `{}` |", block_count(size), Root::of(&content(size)));
        assert!(SPECIFICATION.contains(&row), "{row}");
    }
    let bytes = content(MIB + 1);
    let split = usize::try_from(MIB).unwrap();
    for (index, block) in [(0, &bytes[..split]), (1, &bytes[split..])] {
        let BlockHash::Among(value) = BlockHash::of(MIB + 1, index, block) else { panic!() };
        let hex = Root::from_bytes(*value.as_bytes());
        assert!(SPECIFICATION.contains(&format!("`{hex}`")), "value of block {index}: {hex}");
    }
}

#[test]
fn values_come_in_pairs_or_single_and_never_in_other_numbers() {
    let value = |byte| Value::from_bytes([byte; 32]);
    let pairs = ServerFrame::Values(3, Values::Pairs(vec![(value(1), value(2)), (value(3), value(4))]));
    let single = ServerFrame::Values(3, Values::Single(value(9)));
    let content: Vec<u8> = (0..=BLOCK_LEN).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let hash = |index, bytes| Value::from_bytes(*BlockHash::of(BLOCK_LEN + 1, index, bytes).as_bytes());
    let (first, last) = content.split_at(usize::try_from(BLOCK_LEN).unwrap());
    let (left, right) = (hash(0, first), hash(1, last));
    for (label, values) in [("value", Values::Single(left)), ("pair", Values::Pairs(vec![(left, right)]))] {
        let mut wire = BytesMut::new();
        ServerFrame::Values(1, values).encode(&mut wire);
        assert_eq!(wire, vector(label), "{label}");
    }
    for frame in [pairs, single] {
        let mut wire = BytesMut::new();
        frame.encode(&mut wire);
        at_every_split(&wire, ServerFrame::decode, &[frame]);
    }
    for (form, count) in [(0, 0), (0, 32), (0, 65 * 64), (0, 63), (1, 31), (2, 64)] {
        let mut wire = BytesMut::new();
        put_frame(0x43, 1, &mut wire, |dst| {
            dst.put_u8(form);
            dst.put_bytes(7, count);
        });
        assert!(ServerFrame::decode(&mut wire).is_err(), "form {form}, {count} bytes");
    }
}

#[test]
fn what_steers_a_request_is_as_specified_at_every_split() {
    let sent = [ClientFrame::Ping(0, bytes(1)), ClientFrame::Window(1, BLOCK_LEN), ClientFrame::Cancel(1)];
    let mut wire = BytesMut::new();
    sent.iter().for_each(|frame| frame.encode(&mut wire).unwrap());
    assert_eq!(wire, vector("pings"));
    at_every_split(&wire, ClientFrame::decode, &sent);
    let said = [ServerFrame::Pong(0, bytes(1)), ServerFrame::Wait(1)];
    let mut wire = BytesMut::new();
    said.iter().for_each(|frame| frame.encode(&mut wire));
    assert_eq!(wire, vector("pongs"));
    at_every_split(&wire, ServerFrame::decode, &said);
}

#[test]
fn the_end_of_a_file_with_another_name_is_as_specified_and_ends_it_for_who_knows_no_names() {
    let stored = ServerFrame::Stored(1, Root::of(b"hello"), "in/x-7".into());
    let mut wire = BytesMut::new();
    stored.encode(&mut wire);
    assert_eq!(wire, vector("stored"), "{wire:02x?}");
    at_every_split(&wire, ServerFrame::decode, &[stored]);
    // Up to the name it is what it always was.
    let mut end = BytesMut::new();
    ServerFrame::End(1, Some(Root::of(b"hello"))).encode(&mut end);
    assert_eq!((wire[4..9].to_vec(), wire[10..42].to_vec()), (end[4..9].to_vec(), end[10..42].to_vec()));
    // A name that is not there is no frame; without a root there is no name.
    let mut cut = wire.clone();
    cut[43] = 7;
    assert!(ServerFrame::decode(&mut cut).is_err());
    wire[9] = 2;
    assert_eq!(ServerFrame::decode(&mut wire).unwrap(), Some(ServerFrame::End(1, None)));
}

#[test]
fn a_file_of_more_blocks_than_any_may_have_is_refused() {
    let largest = BLOCKS_MAX * BLOCK_LEN;
    for (size, fits) in [(largest, true), (largest + 1, false), (u64::MAX, false)] {
        let file = File { size, modified: (0, 0), mode: 0, token: bytes(1), root: None };
        let mut wire = BytesMut::new();
        ServerFrame::File(1, file).encode(&mut wire);
        assert_eq!(ServerFrame::decode(&mut wire).is_ok(), fits, "{size}");
    }
}

#[test]
fn a_length_that_lies_is_refused_before_anything_is_reserved() {
    for length in [0_u32, 4, 1_048_590, u32::MAX] {
        let mut wire = BytesMut::from(&length.to_be_bytes()[..]);
        assert!(
            matches!(ClientFrame::decode(&mut wire), Err(WireError::FrameLength(said)) if said == length)
        );
        assert!(wire.capacity() <= 64);
    }
    // Only bytes of a file may be as long as that; of all others the head tells that they are not.
    for kind in [0x01, 0x02, 0x08, 0x80] {
        let mut wire = BytesMut::from(&[0, 0, 0x40, 1, kind, 0, 0, 0, 1][..]);
        assert!(matches!(ClientFrame::decode(&mut wire), Err(WireError::FrameLength(16_385))), "{kind:02x}");
        assert!(wire.capacity() <= 64);
    }
    for length in [4_u32, 1_048_590, u32::MAX] {
        let mut wire = BytesMut::from(&length.to_be_bytes()[..]);
        assert!(ServerFrame::decode(&mut wire).is_err(), "{length}");
    }
    let mut wire = BytesMut::from(&[0, 0, 0, 13, 0x44, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0][..]);
    assert!(ServerFrame::decode(&mut wire).is_err(), "a data frame without data");
}

#[test]
fn ranges_that_are_empty_overlap_or_go_back_are_refused() {
    let refused = |ranges: &[(u64, u64)]| {
        let ranges = ranges.iter().map(|&(offset, len)| ByteRange { offset, len }).collect();
        let mut wire = client(&ClientFrame::Get(1, Get { name: "x".into(), ranges, ..Get::default() }));
        ClientFrame::decode(&mut wire).is_err()
    };
    assert!(!refused(&[(0, 10), (10, 5), (100, i64::MAX as u64 - 100)]));
    for ranges in [
        &[(0, 0)][..],
        &[(0, 10), (9, 1)],
        &[(10, 1), (0, 1)],
        &[(u64::MAX, 1)],
        &[(1, u64::MAX)],
        &[(1 << 63, 1)],
    ] {
        assert!(refused(ranges), "{ranges:?}");
    }
    let too_many = Get { ranges: vec![ByteRange { offset: 0, len: 1 }; RANGES_MAX + 1], ..Get::default() };
    assert!(ClientFrame::Get(1, too_many).encode(&mut BytesMut::new()).is_err());
}

#[test]
fn ranges_are_widened_to_blocks_and_cut_at_the_end() {
    let blocks = |size, ranges: &[(u64, u64)]| {
        let ranges = ranges.iter().map(|&(offset, len)| ByteRange { offset, len }).collect();
        let set = Get { ranges, ..Get::default() }.blocks(size);
        set.map(|set| set.runs().iter().map(|run| (run.start, run.end)).collect::<Vec<_>>()).map_err(|_| ())
    };
    assert_eq!(blocks(0, &[]), Ok(vec![(0, 1)]));
    assert_eq!(blocks(0, &[(0, 5)]), Ok(vec![(0, 1)]));
    assert_eq!(blocks(0, &[(1, 5)]), Err(()));
    assert_eq!(blocks(5, &[(4, 1 << 40)]), Ok(vec![(0, 1)]));
    assert_eq!(blocks(5, &[(5, 1)]), Err(()));
    let size = 5 * BLOCK_LEN + 17;
    assert_eq!(blocks(size, &[(BLOCK_LEN - 1, 2), (3 * BLOCK_LEN, 1)]), Ok(vec![(0, 2), (3, 4)]));
    assert_eq!(blocks(size, &[(0, 1), (1, 1), (5 * BLOCK_LEN, 100)]), Ok(vec![(0, 1), (5, 6)]));
    let range = ByteRange::of_blocks(&(4..6), size);
    assert_eq!((range.offset, range.len), (4 * BLOCK_LEN, BLOCK_LEN + 17));
    assert_eq!(ByteRange::of_blocks(&(0..1), 0), ByteRange { offset: 0, len: 1 });
}

#[test]
fn what_later_versions_add_is_skipped_and_what_must_be_known_is_not() {
    let mut wire = BytesMut::new();
    put_frame(0x80, 7, &mut wire, |dst| dst.put_slice(b"of the future"));
    assert_eq!(ClientFrame::decode(&mut wire.clone()).unwrap(), Some(ClientFrame::Unknown));
    assert_eq!(ServerFrame::decode(&mut wire).unwrap(), Some(ServerFrame::Unknown));
    let mut wire = BytesMut::new();
    put_frame(0x7f, 7, &mut wire, |_| {});
    assert!(matches!(ClientFrame::decode(&mut wire.clone()), Err(WireError::Kind(0x7f))));
    assert!(matches!(ServerFrame::decode(&mut wire), Err(WireError::Kind(0x7f))));
    let mut wire = BytesMut::new();
    put_frame(0x05, 7, &mut wire, |dst| dst.put_slice(b"12345678 and more"));
    assert_eq!(ClientFrame::decode(&mut wire).unwrap(), Some(ClientFrame::Ping(7, *b"12345678")));
    let hello = Hello::parse(b"?oneport/2?minor=9&colour=blue&window=5").unwrap();
    assert_eq!((hello.minor, hello.window), (9, 5));
}

#[test]
fn a_hello_that_cannot_be_read_is_refused_for_its_own_reason() {
    let long = format!("?oneport/2?may={}", "x".repeat(1020));
    let cases: [(&[u8], HelloError); 13] = [
        (b"?oneport/3?minor=0", HelloError::Version),
        (b"?oneport/2", HelloError::Version),
        (long.as_bytes(), HelloError::TooLong),
        (b"?oneport/2?minor", HelloError::Fields),
        (b"?oneport/2?minor=0&", HelloError::Fields),
        (b"?oneport/2?minor=0&minor=0", HelloError::Fields),
        (b"?oneport/2?Minor=0", HelloError::Fields),
        (b"?oneport/2?may=\xff", HelloError::Fields),
        (b"?oneport/2?minor=-1", HelloError::Value),
        (b"?oneport/2?minor=99999999999", HelloError::Value),
        (b"?oneport/2?window=4611686018427387905", HelloError::Value),
        (b"?oneport/2?need=a,,b", HelloError::Value),
        (b"?oneport/2?first=0200", HelloError::Value),
    ];
    for (name, error) in cases {
        assert_eq!(Hello::parse(name), Err(error), "{}", crate::text::shown(name));
    }
    assert_eq!(Hello::parse(b"?oneport/2?"), Ok(Hello::default()));
}

#[test]
fn a_first_request_that_does_not_fit_is_left_out() {
    let first = |len: usize| {
        let get = Get { name: vec![b'n'; len].into(), ..Get::default() };
        Hello { first: Some(ClientFrame::Get(1, get)), ..Hello::default() }.to_name()
    };
    assert!(first(400).1);
    let (name, has_first) = first(600);
    assert!(!has_first && name.len() < 50);
    assert!(!first(5000).1);
}

#[test]
fn codes_are_the_exit_statuses() {
    for code in Code::ALL {
        assert_eq!(ErrorCode::from(code).kind(), code);
    }
    assert_eq!(ErrorCode(999).kind(), Code::Other);
}

fn any_get() -> impl Strategy<Value = Get> {
    (
        any::<bool>(),
        any::<bool>(),
        proptest::collection::vec(any::<u8>(), 0..50),
        any::<[u8; 16]>(),
        any::<u64>(),
    )
        .prop_map(|(proven, values_only, name, transfer, have)| Get {
            proven,
            values_only,
            name: name.into(),
            transfer,
            have,
            ..Get::default()
        })
}

proptest! {
    #[test]
    fn requests_come_back_as_they_went(id in any::<u32>(), get in any_get(), root in any::<bool>()) {
        let stat = Stat { root, name: get.name.clone() };
        for frame in [ClientFrame::Stat(id, stat), ClientFrame::Get(id, get), ClientFrame::Cancel(id)] {
            prop_assert_eq!(ClientFrame::decode(&mut client(&frame)).unwrap(), Some(frame));
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ClientFrame::decode(&mut BytesMut::from(&bytes[..]));
        let _ = ServerFrame::decode(&mut BytesMut::from(&bytes[..]));
        let mut hello = b"?oneport/2?".to_vec();
        hello.extend(&bytes);
        let _ = Hello::parse(&hello);
        let _ = ClientFrame::decode_bare(bytes.into());
    }
}

fn listed() -> Vec<Entry> {
    let folder = Entry {
        kind: Kind::Folder,
        sparse: false,
        size: 4096,
        modified: (1_700_000_000, 0),
        mode: 0o755,
        name: "d".into(),
    };
    let file = Entry {
        kind: Kind::File,
        sparse: true,
        size: 1 << 20,
        modified: (1_700_000_000, 7),
        mode: 0o644,
        name: Bytes::from_static(b"d/\xffab"),
    };
    vec![folder, file]
}

fn list() -> List {
    List {
        recursive: true,
        follow_links: true,
        itself: true,
        name: "x".into(),
        cursor: Bytes::from_static(b"\xaa\xbb"),
        patterns: vec![(Verdict::Include, "a*b".into()), (Verdict::Exclude, "*".into())],
    }
}

#[test]
fn a_listing_is_as_specified_at_every_split() {
    let frame = ClientFrame::List(1, list());
    assert_eq!(client(&frame), vector("list"), "{:02x?}", client(&frame));
    at_every_split(&vector("list"), ClientFrame::decode, &[frame]);
    let entries = Entries { cursor: Bytes::from_static(b"\xcc\xdd"), entries: listed() };
    let body_len = entries.body_len();
    let frame = ServerFrame::Entries(1, entries);
    let mut wire = BytesMut::new();
    frame.encode(&mut wire);
    assert_eq!(wire, vector("entries"), "{wire:02x?}");
    assert_eq!(body_len, wire.len() as u64 - 9);
    at_every_split(&wire, ServerFrame::decode, &[frame]);
}

#[test]
fn what_no_listing_has_is_refused() {
    let too_long = |list: List| ClientFrame::List(1, list).encode(&mut BytesMut::new()).is_err();
    assert!(too_long(List { cursor: vec![0; CURSOR_MAX + 1].into(), ..list() }));
    assert!(too_long(List { name: vec![b'x'; 4097].into(), ..list() }));
    assert!(too_long(List { patterns: vec![(Verdict::Exclude, "x".into()); 33], ..list() }));
    assert!(too_long(List { patterns: vec![(Verdict::Exclude, vec![b'x'; 1025].into())], ..list() }));
    let full = vec![(Verdict::Exclude, Bytes::from(vec![b'x'; 1024])); 20];
    assert!(too_long(List { patterns: full, ..list() }), "each fits, but not all of them");
    let lie = |at: usize, bytes: &[u8]| {
        let mut wire = BytesMut::from(&vector("list")[..]);
        wire[at..at + bytes.len()].copy_from_slice(bytes);
        ClientFrame::decode(&mut wire).is_err()
    };
    assert!(lie(17, &[33]), "patterns");
    assert!(lie(18, &[2]), "a kind of pattern");
    assert!(lie(19, &[4, 1]) && lie(13, &[0x20, 1]) && lie(10, &[0x10, 1]), "lengths");
    let lie = |at: usize, bytes: &[u8]| {
        let mut wire = BytesMut::from(&vector("entries")[..]);
        wire[at..at + bytes.len()].copy_from_slice(bytes);
        ServerFrame::decode(&mut wire).is_err()
    };
    assert!(lie(13, &[0]) && lie(13, &[5]), "kinds of entries");
    assert!(lie(31, &[0x3b, 0x9a, 0xca, 0]), "nanoseconds");
    assert!(lie(39, &[0xff, 0xff]) && lie(39, &[0, 2]), "names");
}
