//! Servers that ask for what is not theirs, lie, fall silent, or are of another kind: each is told, and nothing waits for ever.

use std::io::{Read, Write};
use std::time::Instant;

use super::puller::Say;
use super::*;
use crate::codec::v2::{ByteRange, ClientFrame, Put as PutBody, ServerFrame, Stat};

/// The bytes of a request.
fn asked(frame: &ClientFrame) -> Option<bytes::Bytes> {
    let mut bytes = bytes::BytesMut::new();
    frame.encode(&mut bytes).unwrap();
    Some(bytes.freeze())
}

fn told(frame: &ServerFrame) -> Option<bytes::Bytes> {
    let mut bytes = bytes::BytesMut::new();
    frame.encode(&mut bytes);
    Some(bytes.freeze())
}

async fn error_of(says: Say, settings: &Settings) -> FetchError {
    let (_dir, source, _) = local(2 * MIB);
    let puller = Puller::start(Script { says: Some(says), ..Script::default() }).await;
    put_to(&puller, &source, settings).await.unwrap_err()
}

/// The first block, or a part of it.
fn first_block(put: &PutBody) -> Get {
    Get { ranges: vec![ByteRange { offset: 0, len: 1 }], ..get_of(put) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_offered_file_is_told_under_its_own_name_version_and_number() {
    let says: [Say; 4] = [
        |put, _, requester| asked(&requester.get(Get { name: "other".into(), ..get_of(put) })),
        |put, _, requester| asked(&requester.get(Get { token: [9; 16], ..get_of(put) })),
        |put, _, requester| asked(&requester.get(Get { transfer: [9; 16], ..get_of(put) })),
        |_, _, requester| asked(&requester.stat(Stat { root: true, name: "../etc/passwd".into() })),
    ];
    for say in says {
        let error = error_of(say, &settings()).await;
        assert!(matches!(error, FetchError::Violated { .. }), "{error}");
        assert!(error.to_string().contains("was not offered"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_folders_or_offers_files_itself_breaks_the_protocol() {
    let says: [Say; 3] = [
        |_, _, _| asked(&ClientFrame::List(1, crate::codec::v2::List::default())),
        |put, _, _| asked(&ClientFrame::Put(1, put.clone())),
        |_, _, _| asked(&ClientFrame::Bytes { request: 1, offset: 0, len: 1 }),
    ];
    for say in says {
        let error = error_of(say, &settings()).await;
        assert!(matches!(error, FetchError::Violated { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_block_is_given_many_times_but_not_for_ever() {
    let error = error_of(|put, _, requester| asked(&requester.get(first_block(put))), &settings()).await;
    assert!(matches!(error, FetchError::Violated { .. }), "{error}");
    assert!(error.to_string().contains("again and again"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_move_nothing_are_answered_many_times_but_not_for_ever() {
    // Behind the end there is nothing to send.
    let says: [Say; 2] = [
        |put, _, requester| {
            let ranges = vec![ByteRange { offset: 1 << 40, len: 1 }];
            asked(&requester.get(Get { ranges, ..get_of(put) }))
        },
        |put, _, requester| {
            let mut bytes = bytes::BytesMut::new();
            for _ in 0..100 {
                requester.stat(Stat { root: false, name: put.name.clone() }).encode(&mut bytes).unwrap();
            }
            Some(bytes.freeze())
        },
    ];
    for say in says {
        let error = error_of(say, &settings()).await;
        assert!(error.to_string().contains("again and again"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_says_to_have_stored_is_compared_with_what_it_was_given() {
    let error = error_of(|_, put, _| told(&ServerFrame::End(put, Some(Root::of(b"x")))), &settings()).await;
    assert!(matches!(error, FetchError::StoredOther { .. }), "{error}");
    assert_eq!(error.code(), Code::Checksum);
    // Nor is what is no name believed to be one.
    let named: Say =
        |_, put, _| told(&ServerFrame::Stored(put, Root::of(b"x"), bytes::Bytes::from_static(b"../x")));
    let error = error_of(named, &settings()).await;
    assert!(matches!(error, FetchError::Violated { .. }), "{error}");
    // That it is there already is no answer to who did not ask.
    let error = error_of(|_, put, _| told(&ServerFrame::End(put, None)), &settings()).await;
    assert!(matches!(error, FetchError::Violated { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_given_up_and_one_that_says_that_it_is_at_it_only_later() {
    let settings =
        Settings { timeout: Duration::from_millis(600), wait_max: Duration::from_millis(1500), ..settings() };
    for len in [10, 2 * MIB] {
        let (_dir, source, _) = local(len);
        let puller = Puller::start(Script { is_silent: true, ..Script::default() }).await;
        let began = Instant::now();
        let error = put_to(&puller, &source, &settings).await.unwrap_err();
        assert!(matches!(error, FetchError::Silent { .. }), "{error}");
        assert!((settings.timeout..settings.wait_max).contains(&began.elapsed()), "{:?}", began.elapsed());
        let says: Say = |_, put, _| told(&ServerFrame::Wait(put));
        let puller = Puller::start(Script { says: Some(says), is_silent: true, ..Script::default() }).await;
        let began = Instant::now();
        let error = put_to(&puller, &source, &settings).await.unwrap_err();
        assert!(matches!(error, FetchError::Silent { .. }), "{error}");
        assert!(began.elapsed() >= settings.wait_max, "{:?}", began.elapsed());
        // Pings are answered, and bring nothing on.
        let says: Say = |_, _, _| asked(&ClientFrame::Ping(0, [1; 8]));
        if len > MIB {
            let puller = Puller::start(Script { says: Some(says), ..Script::default() }).await;
            let error = put_to(&puller, &source, &settings).await.unwrap_err();
            assert!(matches!(error, FetchError::Silent { .. }), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_a_server_refuses_is_passed_on_with_its_code() {
    for len in [10, 2 * MIB] {
        let (_dir, source, _) = local(len);
        for (code, text) in [
            (Code::NotAllowed, "a key is needed to write"),
            (
                Code::Exists,
                "another client is storing, removing or renaming something of this name at this moment",
            ),
            (Code::NoSpace, "there is no space left"),
            (Code::Limit, "it is larger than this server takes"),
            (Code::Checksum, "what arrived is not what was announced"),
        ] {
            let refuses = vec![("there".into(), code, text)];
            let puller = Puller::start(Script { refuses, ..Script::default() }).await;
            let error = put_to(&puller, &source, &with_retries_of(3)).await.unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(puller.puts().len(), 1, "it is not asked again");
        }
        // What may be otherwise later is tried again.
        let refuses = vec![("there".into(), Code::LocalIo, "the server cannot store it now")];
        let puller = Puller::start(Script { refuses, ..Script::default() }).await;
        let error = put_to(&puller, &source, &with_retries_of(2)).await.unwrap_err();
        assert!(matches!(error, FetchError::Unstored { .. }), "{error}");
        let attempts: Vec<_> = puller.puts().iter().map(|put| put.attempt).collect();
        assert_eq!(attempts, [1, 2, 3]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_take_files_is_told_from_one_that_will_not() {
    // As version 1 answers, and as a version 2 does that has never heard of PUT.
    let refusal = b"ERRORfile not found".to_vec();
    let mut strange = bytes::BytesMut::new();
    let welcome = crate::exchange::Responder::new(1).next(Instant::now());
    let Some(crate::exchange::Output::Frames(welcome)) = welcome else { panic!() };
    strange.extend_from_slice(&welcome);
    ServerFrame::Error(0, Code::Protocol.into(), "unknown kind 8".into()).encode(&mut strange);
    for answer in [refusal, strange.to_vec()] {
        for len in [10, 2 * MIB] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let answer = answer.clone();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(&answer).unwrap();
                // Until the client has understood.
                let _ = stream.read_to_end(&mut Vec::new());
            });
            let (_dir, source, _) = local(len);
            let (to, notes) = (Server::new("127.0.0.1", port).unwrap(), Notes::default());
            let stop = CancellationToken::new();
            let error = put(&to, &source, b"there", &settings(), &notes, &stop).await.unwrap_err();
            assert!(matches!(error, FetchError::NoUploads { .. }), "{error}");
            assert_eq!(error.code(), Code::Unsupported);
            server.join().unwrap();
        }
    }
}
