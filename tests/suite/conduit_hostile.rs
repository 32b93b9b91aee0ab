//! Conduit clients that keep to no rule: lengths that lie, what bursts when it is unpacked, what is nested, floods, and
//! things at the wrong moment. The server says so and goes on with the others, and it costs it little.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::json;

use crate::conduit_peer::{CALL, CLOSE, MESSAGE, PASSWORD, PING, Peer, auth, flagged, frame, packed, serve};
use crate::raw::{connect_narrow, noise, read_all};
use crate::serving::{Server, Site};

/// A head that announces so many bytes.
fn announcing(kind: u16, len: u32) -> Vec<u8> {
    let mut bytes = frame(kind, 1, &[]);
    bytes[12..16].copy_from_slice(&len.to_be_bytes());
    bytes
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// Somebody else is served as ever.
#[track_caller]
fn expect_served(server: &Server) {
    Peer::new(server).get("file_list", json!({}));
}

#[test]
fn a_frame_that_cannot_be_understood_ends_the_session_with_a_reason() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut version = frame(PING, 0, &[]);
    version[5] = 1;
    let cases: [(Vec<u8>, &str); 12] = [
        (b"GET / HTTP/1.1\r\nHost: somewhere.example\r\n\r\n".to_vec(), "does not begin with CNDT"),
        (version, "of version 0x0101"),
        (frame(0, 0, &[]), "unknown type 0x0000"),
        (frame(17, 0, &[]), "unknown type 0x0011"),
        (flagged(PING, 2, 0, &[]), "flags 0x0002"),
        (flagged(MESSAGE, 0x30, 0, b"\xc0"), "flags 0x0030"),
        (announcing(CALL, (2 << 20) + 1), "2097153 bytes"),
        (announcing(CALL, u32::MAX), "4294967295 bytes"),
        (flagged(CALL, 1, 1, b"not packed at all"), "cannot be unpacked"),
        (flagged(CALL, 1, 1, &zlib(&vec![0; 8 << 20])), "more than 2097152 bytes"),
        (auth(PASSWORD, "again"), "came later"),
        (frame(9, 0, &[]), "came later"),
    ];
    for (bytes, reason) in cases {
        let mut peer = Peer::new(&server);
        peer.say(&bytes);
        let close = peer.hear().unwrap();
        assert_eq!(close.kind, CLOSE);
        assert!(close.said["reason"].as_str().unwrap().contains(reason), "{}", close.said);
        assert!(peer.is_over(), "{reason}");
        server.wait_log(reason);
    }
    expect_served(&server);
    assert!(server.peak_memory() < 200 << 20, "{} bytes", server.peak_memory());
}

#[test]
fn what_comes_before_the_password_is_not_listened_to() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let call = packed(&json!({ "method": "file_list", "params": {} }));
    let cases = [
        frame(CALL, 1, &call),
        frame(PING, 0, &[]),
        announcing(7, 4097),
        announcing(7, u32::MAX),
        flagged(7, 1, 0, &zlib(&vec![0; 1 << 20])),
        b"CNDT\x01\0\0\xff\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
    ];
    for bytes in cases {
        let mut stream = server.connect();
        stream.write_all(&bytes).unwrap();
        assert_eq!(read_all(&mut stream), b"", "{}", bytes[..32].escape_ascii());
    }
    // Half of it, and then nothing.
    let mut stream = server.connect();
    stream.write_all(&auth(PASSWORD, "x")[..50]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream), b"");
    server.wait_log("in the middle of a frame");
    expect_served(&server);
}

#[test]
fn a_client_that_says_nothing_is_dropped_when_the_time_of_a_request_is_over() {
    let site = Site::new();
    let server = serve(&site, &["--request-timeout", "1s"]);
    let mut stream = server.connect();
    stream.write_all(b"CNDT").unwrap();
    assert_eq!(read_all(&mut stream), b"");
    server.wait_log("no full request within 1 s");
}

#[test]
fn payloads_of_whatever_kind_are_calls_that_fail_and_nothing_worse() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let nested =
        |depth| [&b"\x82\xa6method\xa9file_list\xa6params"[..], &b"\x91".repeat(depth), b"\xc0"].concat();
    let cases = [
        (b"".to_vec(), 2000),
        (b"\xc1".to_vec(), 2000),
        (b"\xdf\xff\xff\xff\xff".to_vec(), 2000),
        (b"\xdd\xff\xff\xff\xff".to_vec(), 2000),
        (b"\xc6\xff\xff\xff\xffx".to_vec(), 2000),
        (nested(1000), 2000),
        (nested(1 << 20), 2000),
        (packed(&json!([1, 2, 3])), 2000),
        (packed(&json!({})), 4000),
        (packed(&json!({ "method": 5 })), 4000),
        (packed(&json!({ "method": ["file_list"] })), 4000),
        (packed(&json!({ "method": "file_download_start", "params": { "filename": { "a": 1 } } })), 2000),
        (packed(&json!({ "method": "file_download_start", "params": null })), 2000),
        (
            packed(
                &json!({ "method": "file_upload_start", "params": { "filename": "x", "size": -1, "checksum": "" } }),
            ),
            2000,
        ),
        (packed(&json!({ "method": "x".repeat(1 << 20) })), 4000),
    ];
    for (number, (payload, code)) in cases.into_iter().enumerate() {
        peer.say(&frame(CALL, number as u64, &payload));
        let result = peer.answer(number as u64);
        assert_eq!(
            (&result["success"], &result["code"]),
            (&json!(false), &json!(code)),
            "{number}: {result}"
        );
        assert!(result["error"].as_str().unwrap().len() < 1000, "{number}");
    }
    // Messages that nobody understands are nobody's.
    for payload in [&b""[..], b"\xc1", b"\x90", &nested(1000)] {
        peer.say(&frame(MESSAGE, 0, payload));
    }
    peer.get("file_list", json!({}));
}

#[test]
fn whatever_chance_sends_after_the_password_does_no_harm() {
    let site = Site::new();
    site.file("file", b"x");
    let server = serve(&site, &[]);
    for seed in 0..200 {
        let mut peer = Peer::new(&server);
        let mut bytes = noise(seed, 100 + 10 * seed as usize);
        if seed % 2 == 0 {
            bytes = frame(1 + (seed % 16) as u16, seed, &bytes);
        }
        let _ = peer.stream.write_all(&bytes);
        let _ = peer.stream.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut peer.stream, &mut std::io::sink());
    }
    expect_served(&server);
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}

#[test]
fn who_calls_and_does_not_read_is_not_listened_to_for_ever() {
    let site = Site::new();
    for number in 0..300 {
        site.file(format!("a file with a rather long name {number}"), b"");
    }
    let server = serve(&site, &["--idle-timeout", "3s"]);
    expect_served(&server);
    let before = server.peak_memory();
    let list = frame(CALL, 1, &packed(&json!({ "method": "file_list", "params": {} })));
    let pings = frame(PING, 0, &[]).repeat(1000);
    let mut peers: Vec<_> = (0..4).map(|_| Peer::over(connect_narrow(server.address), "x")).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.stream.set_nonblocking(true).unwrap();
        let flood = if number % 2 == 0 { &pings } else { &list };
        // Until the sockets are full on both sides.
        let (mut full, mut at) = (0, 0);
        while full < 50 {
            match peer.stream.write(&flood[at..]) {
                // Where it stopped it goes on, so that all of it are frames.
                Ok(count) => (full, at) = (0, (at + count) % flood.len()),
                Err(_) => {
                    full += 1;
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            }
            if peer.stream.take_error().unwrap().is_some() {
                break;
            }
        }
    }
    server.wait_log_count("no byte was taken for 3 s", 4);
    expect_served(&server);
    let grown = server.peak_memory() - before;
    assert!(grown < 64 << 20, "{grown} bytes");
}

#[test]
fn chunks_that_are_not_announced_and_uploads_in_crowds_are_bounded() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let transfer = peer.start("file", b"12345");
    let large = json!({ "transfer_id": transfer, "chunk_index": 0, "data_b64": "QUFB".repeat(1 << 18) });
    assert_eq!(peer.fault("file_upload_chunk", large), 2003);
    assert_eq!(peer.fault("file_upload_complete", json!({ "transfer_id": transfer })), 4000);
    // Empty chunks bring nothing, however many.
    let transfer = peer.start("file", b"12345");
    for index in 0..100 {
        peer.bring(&transfer, index, b"");
    }
    assert_eq!(peer.fault("file_upload_complete", json!({ "transfer_id": transfer })), 2003);
    assert_eq!(peer.upload("file", b"12345"), "file");
    let mut byte = [0];
    peer.stream.set_nonblocking(true).unwrap();
    assert!(peer.stream.read(&mut byte).is_err(), "nothing was said that nobody asked for");
}
