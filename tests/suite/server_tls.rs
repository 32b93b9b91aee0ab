//! TLS on the one port: what is said inside arrives as it does without, and whoever breaks it off, garbles it,
//! drips it or plays it again gets nothing and harms nobody.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::raw::{self, Answer, fetch_whole, noise, read_all, request};
use crate::serving::{PATIENCE, Server, Site};
use crate::tls_raw::{self, Narrow, Secured};
use crate::v2_peer::{Asker, get};

/// How long the server of some tests waits for a request, as an option.
const SHORT: &str = "600ms";
const SHORT_MIN: Duration = Duration::from_millis(400);
/// Bytes by which the signatures of one key differ in length, nearly always.
const SIGNATURE_SPREAD: usize = 6;
/// Exit statuses of the server, and the same as codes of version 2.
const NOT_ALLOWED: i32 = 4;
const LOCAL_IO: i32 = 11;

fn secured(server: &Server) -> Secured {
    tls_raw::shaken(server.connect()).unwrap()
}

/// A file over version 1 within TLS, whole; that the answer has an end is proven by TLS.
fn fetch_v1(server: &Server, name: &str) -> Vec<u8> {
    let mut stream = secured(server);
    stream.write_all(&request(name.as_bytes())).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    match raw::parse(bytes) {
        Answer::Whole(file) => file.data,
        other => panic!("{name}: {}", raw::brief(&other)),
    }
}

/// The sizes around everything that is cut into pieces somewhere: records, pieces, blocks.
fn sizes() -> Vec<usize> {
    const RECORD: usize = 16 << 10;
    let mut sizes = vec![0, 1, 2, 1000, 5 << 20];
    for near in [RECORD, 2 * RECORD, 64 << 10, (64 << 10) + RECORD, 128 << 10, 1 << 20, 3 << 20] {
        sizes.extend([near - 1, near, near + 1]);
    }
    sizes
}

#[test]
fn within_tls_both_versions_bring_the_same_bytes_as_without() {
    let site = Site::new();
    let server = site.serve(&[]);
    for (at, size) in sizes().into_iter().enumerate() {
        let (name, data) = (format!("f{size}"), noise(at as u64, size));
        site.file(&name, &data);
        assert!(fetch_whole(server.address, &name) == data, "{size} without TLS");
        assert!(fetch_v1(&server, &name) == data, "{size} over version 1");
        let mut asker = Asker::on(secured(&server), "window=67108864");
        assert!(asker.send(&[get(1, &name)]));
        assert!(asker.hear_all(1) == Ok(data), "{size} over version 2");
        assert!(asker.is_answered());
        // The server ends what the client ends, and says so.
        tls_raw::close(&mut asker.stream);
        assert!(asker.hear().is_none());
        assert_eq!(asker.stream.sock.read(&mut [0; 1]).unwrap(), 0);
    }
    let log = server.log();
    assert!(log.contains("is encrypted (TLS 1.3)"), "{log}");
    assert!(!log.contains("cut after"), "{log}");
}

#[test]
fn frames_that_come_in_one_record_are_all_heard_and_so_is_one_in_many() {
    let site = Site::new();
    let data = noise(7, 100_000);
    site.file("file", &data);
    let server = site.serve(&[]);
    // More than the server makes room for at first, in one write, so that it opens them in several turns and
    // must not wait for the socket between them.
    let mut asker = Asker::on(secured(&server), "");
    assert!(asker.send(&(1..=600).map(|number| get(number, "missing")).collect::<Vec<_>>()));
    for _ in 0..600 {
        assert!(asker.hear_error().is_some());
    }
    let mut stream = secured(&server);
    for byte in request(b"file") {
        stream.write_all(&[byte]).unwrap();
        stream.flush().unwrap();
    }
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(matches!(raw::parse(bytes), Answer::Whole(file) if file.data == data));
}

#[test]
fn tls_within_tls_is_not_served() {
    let site = Site::new();
    let server = site.serve(&[]);
    let mut outer = secured(&server);
    outer.write_all(&tls_raw::client_hello()).unwrap();
    let _ = outer.read(&mut [0; 1]);
    server.wait_log("not served: TLS");
}

#[test]
fn a_client_that_knows_no_newer_version_than_1_2_is_told_so() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&[]);
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend(b"\0\0\x02\xc0\x2b\x01\0"); // no session, one cipher, no compression
    hello.extend(b"\0\x1a\0\x0a\0\x04\0\x02\0\x17\0\x0b\0\x02\x01\0\0\x0d\0\x04\0\x02\x04\x03\0\x17\0\0"); // extensions
    let length = u16::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 3, 1];
    record.extend((length + 4).to_be_bytes());
    record.extend([1, 0]);
    record.extend(length.to_be_bytes());
    record.extend(hello);
    let mut stream = server.connect();
    let peer = stream.local_addr().unwrap();
    stream.write_all(&record).unwrap();
    // An alert (21), fatal (2): protocol_version (70), RFC 8446, section 6.2.
    assert_eq!(read_all(&mut stream), b"\x15\x03\x03\0\x02\x02\x46");
    let log = server.wait_log(&format!("Connection closed with {peer}: TLS failed: "));
    assert!(!log.contains("requested file"), "{log}");
    assert_eq!(fetch_v1(&server, "a"), b"a");
}

#[test]
fn garbage_in_place_of_a_handshake_ends_the_connection_and_nothing_else() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--request-timeout", "5s"]);
    assert_eq!(fetch_v1(&server, "a"), b"a");
    let baseline = server.descriptors_behind_a_transfer();
    let hello = tls_raw::client_hello();
    let mut cases = vec![
        b"\x16\x03\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\x16\x03\x01\x00\x00".to_vec(),
        b"\x16\x03\x01\x40\x01".iter().copied().chain([0; 0x4001]).collect(),
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00".to_vec(),
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00".to_vec(),
        // A message that claims to be much longer than anybody listens to, in full records.
        [
            &b"\x16\x03\x01\x40\x00\x01\x00\xff\xff"[..],
            &[0; 0x3ffc],
            &b"\x16\x03\x01\x40\x00"[..],
            &[0; 0x4000],
        ]
        .concat()
        .repeat(3),
    ];
    // Every bit of what a client says first, wrong.
    for at in (2..hello.len()).step_by(3) {
        let mut flipped = hello.clone();
        flipped[at] ^= 1 << (at % 8);
        cases.push(flipped);
    }
    for case in cases {
        let mut stream = server.connect();
        let _ = stream.write_all(&case);
        let _ = stream.shutdown(Shutdown::Write);
        read_all(&mut stream);
    }
    assert_eq!(fetch_v1(&server, "a"), b"a");
    assert_eq!(server.descriptors_at_rest(), baseline);
    assert!(!server.stderr().contains("panicked"));
    assert_eq!(server.log().matches("requested file").count(), 2);
}

/// How a client's end goes away.
#[derive(Clone, Copy)]
enum Ending {
    Close,
    Reset,
}

/// A fetch that goes on until so many bytes have passed; what had passed, if that was all of it.
fn fetch_until(server: &Server, up_max: usize, down_max: usize, ending: Ending) -> Option<(usize, usize)> {
    let mut stream = tls_raw::over(Narrow::new(server.connect(), up_max, down_max));
    let mut bytes = Vec::new();
    let fetched = stream.write_all(&request(b"a")).and_then(|()| stream.read_to_end(&mut bytes));
    let passed = (stream.sock.sent.len(), stream.sock.received);
    match ending {
        Ending::Close => {
            // In the direction in which nothing was cut: the server may still want to say something.
            let _ = stream.sock.stream.shutdown(Shutdown::Write);
            if passed.1 < down_max {
                read_all(&mut stream.sock.stream);
            }
        }
        Ending::Reset => raw::reset(stream.sock.stream),
    }
    fetched.is_ok().then_some(passed)
}

#[test]
fn a_connection_cut_or_reset_at_any_byte_harms_nobody() {
    let site = Site::new();
    site.file("a", b"a");
    // Far longer than the test: whatever ends does not end because its time is over.
    let server = site.serve(&["--request-timeout", "1h", "--v1-pause", "0s"]);
    assert_eq!(fetch_v1(&server, "a"), b"a");
    let baseline = server.descriptors_behind_a_transfer();
    let mut connections = 1;
    for ending in [Ending::Close, Ending::Reset] {
        let (up, down) = fetch_until(&server, usize::MAX, usize::MAX, ending).unwrap();
        connections += 1 + up + down;
        for count in 0..up {
            assert_eq!(fetch_until(&server, count, usize::MAX, ending), None, "{count} of {up} bytes up");
        }
        for count in 0..down {
            let fetched = fetch_until(&server, usize::MAX, count, ending);
            let may_be_all = count + SIGNATURE_SPREAD >= down;
            assert!(fetched.is_none() || may_be_all, "{count} of {down} bytes down");
        }
        println!("cut at each of {up} bytes up and {down} bytes down");
    }
    assert_eq!(server.descriptors_at_rest(), baseline);
    let log = server.wait_log_count("Connection closed with", connections);
    assert!(!log.contains("no full request"), "some waited for the deadline");
    assert!(!server.stderr().contains("panicked"));
    assert_eq!(fetch_v1(&server, "a"), b"a");
}

#[test]
fn an_end_within_a_request_that_nobody_announced_is_told_as_a_cut() {
    let site = Site::new();
    let server = site.serve(&[]);
    let frame = [0, 0, 0, 9, 1, 0];
    for (is_announced, cause) in [(false, ": cut within a request"), (true, "")] {
        let mut asker = Asker::on(secured(&server), "");
        assert!(asker.is_answered());
        let peer = asker.stream.sock.local_addr().unwrap();
        asker.stream.write_all(&frame).unwrap();
        asker.stream.flush().unwrap();
        if is_announced {
            tls_raw::close(&mut asker.stream);
        }
        asker.stream.sock.shutdown(Shutdown::Write).unwrap();
        server.wait_log(&format!("Connection closed with {peer}{cause}"));
    }
}

#[test]
fn what_a_client_has_said_gets_nothing_when_it_is_played_again() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&[]);
    let mut stream = tls_raw::over(Narrow::new(server.connect(), usize::MAX, usize::MAX));
    stream.write_all(&request(b"a")).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let said = stream.sock.sent;
    assert_eq!(server.wait_log("sent successfully").matches("requested file").count(), 1);
    for _ in 0..3 {
        let mut again = server.connect();
        let peer = again.local_addr().unwrap();
        again.write_all(&said).unwrap();
        read_all(&mut again);
        server.wait_log(&format!("Connection closed with {peer}: TLS failed: "));
    }
    assert_eq!(server.log().matches("requested file").count(), 1, "only the first one was heard");
}

#[test]
fn no_session_can_be_resumed_and_no_data_comes_early() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&[]);
    let config = tls_raw::config();
    for _ in 0..3 {
        let mut stream = rustls::StreamOwned::new(tls_raw::session(&config), server.connect());
        stream.write_all(&request(b"a")).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(stream.conn.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn a_handshake_dripping_in_byte_by_byte_does_not_extend_the_deadline() {
    let site = Site::new();
    let server = site.serve(&["--request-timeout", SHORT]);
    let hello = tls_raw::client_hello();
    let mut stream = server.connect();
    let peer = stream.local_addr().unwrap();
    let began = Instant::now();
    // Twenty times as long as the deadline, if the server would listen.
    let drip = Duration::from_millis(12_000 / hello.len() as u64);
    let written = hello.iter().try_for_each(|byte| {
        std::thread::sleep(drip);
        stream.write_all(&[*byte])
    });
    let taken = began.elapsed();
    assert!(written.is_err() && taken >= SHORT_MIN && taken < PATIENCE / 4, "{written:?} after {taken:?}");
    server.wait_log(&format!("Connection closed with {peer}: no full request within 0.6 s"));
}

#[test]
fn require_refuses_whoever_comes_without_tls_in_words_that_are_no_missing_file() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--tls", "require"]);
    let Answer::Refused(text) = raw::fetch(server.address, "a") else { panic!("not refused") };
    assert_eq!(text, "this server speaks TLS only; connect with --tls require");
    let mut asker = Asker::new(&server, "");
    let (request, code, text) = asker.hear_error().unwrap();
    assert_eq!((request, i32::from(code)), (0, NOT_ALLOWED));
    assert_eq!(text, "this server speaks TLS only; connect with --tls require");
    assert!(asker.hear().is_none());
    let log = server.wait_log_count("refused: without TLS (--tls require)", 2);
    assert!(!log.contains("requested file"), "{log}");
    assert_eq!(fetch_v1(&server, "a"), b"a");
    assert!(Asker::on(secured(&server), "").is_answered());
}

#[test]
fn off_makes_no_identity_and_serves_tls_to_nobody() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--tls", "off"]);
    tls_raw::shaken(server.connect()).unwrap_err();
    server.wait_log("not served: TLS");
    assert_eq!(fetch_whole(server.address, "a"), b"a");
    assert!(!site.path().join("state/tls.key").exists());
}

#[test]
fn the_pin_is_told_at_the_start_and_stays_the_same() {
    let site = Site::new();
    let server = site.serve(&[]);
    let pin = tls_raw::pin(&secured(&server)).to_string();
    assert!(server.log().contains(&format!("pin={pin}")));
    assert_eq!(server.stderr().matches(&format!("pin={pin}")).count(), 1, "{}", server.stderr());
    drop(server);
    // Where the console does not show such lines, it is said all the same.
    let server = site.serve(&["--log-level", "error"]);
    assert_eq!(tls_raw::pin(&secured(&server)).to_string(), pin);
    assert_eq!(server.stderr(), format!("pin={pin}\n"));
}

#[test]
fn a_key_that_others_may_read_or_that_is_broken_keeps_the_server_from_starting() {
    use std::fs::{Permissions, read, set_permissions, write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let site = Site::new();
    drop(site.serve(&[]));
    let (key, certificate) = (site.path().join("state/tls.key"), site.path().join("state/tls.crt"));
    assert_eq!(key.metadata().unwrap().mode() & 0o7777, 0o600);
    let good = read(&key).unwrap();

    set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let ended = site.launch(&[]).run();
    assert_eq!(ended.code, Some(NOT_ALLOWED), "{}", ended.stderr);
    assert!(ended.stderr.contains("tls.key") && ended.stderr.contains("chmod 600"), "{}", ended.stderr);
    set_permissions(&key, Permissions::from_mode(0o600)).unwrap();

    write(&key, &good[..100]).unwrap();
    let ended = site.launch(&[]).run();
    assert_eq!(ended.code, Some(LOCAL_IO), "{}", ended.stderr);
    assert!(ended.stderr.contains("tls.key") && ended.stderr.contains("backup"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "it never listened");
    assert_eq!(read(&key).unwrap(), &good[..100], "it was not replaced");
    write(&key, &good).unwrap();

    // The same files, given.
    let (cert_name, key_name) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let other = ["--state", "other", "--tls-cert", cert_name, "--tls-key", key_name];
    let server = site.launch_bare(&[&["0", "root", "--log-dir", "logs"], &other[..]].concat()).serve();
    secured(&server);
    assert!(!site.path().join("other/tls.key").exists());
    drop(server);
    let ended = site.launch(&["--tls-cert", cert_name]).run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let ended = site.launch(&["--tls-cert", cert_name, "--tls-key", "missing.key"]).run();
    assert_eq!(ended.code, Some(LOCAL_IO), "{}", ended.stderr);
    assert!(ended.stderr.contains("missing.key"), "{}", ended.stderr);
}
