//! What is tried again, when, and what is not.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Place, bytes};
use crate::original::{Files, Original};
use crate::scripted::{Scripted, answer, header, until_gone};

const RETRIES: [&str; 2] = ["--retries", "6"];

/// An address at which nobody listens for now. No other test uses its host, so the port does not
/// become the source of somebody else's connection meanwhile.
fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.63:0").or_else(|_| TcpListener::bind("127.0.0.1:0"));
    listener.unwrap().local_addr().unwrap()
}

#[test]
fn a_server_that_comes_later_is_found() {
    let address = nobody();
    let place = Place::new();
    let options = ["--retries", "1000", "--retry-max-delay", "100ms"];
    let running = place.fetch("f", address, &options).start();
    running.await_stderr("retry 3 of 1000");
    let files = Files::from([("f".to_owned(), b"data".to_vec())]);
    let _server = Original::on(TcpListener::bind(address).unwrap(), files);
    running.end().expect(0).says("cannot connect");
    assert_eq!(place.read("client_downloads/f"), b"data");
}

#[test]
fn a_transfer_that_breaks_at_any_point_is_tried_again() {
    let data = bytes(2, 3 << 20);
    let whole = answer("f", &data);
    let cuts = [0, 1, 2, 30, 1000, whole.len() - 1];
    let server = Scripted::version_1(move |mut stream, _, before| {
        let end = cuts.get(before).copied().unwrap_or(whole.len());
        let _ = stream.write_all(&whole[..end]);
        let _ = stream.shutdown(Shutdown::Write);
        until_gone(&stream);
    });
    let place = Place::new();
    place.fetch("f", server.address, &RETRIES).end().expect(0).says("retry 6 of 6").says("lost");
    assert!(place.read("client_downloads/f") == data);
    assert_eq!(server.requests().len(), 7);
    assert_eq!(place.tree(), ["client_downloads/", "client_downloads/f"]);
}

#[test]
fn a_stall_and_a_wrong_checksum_are_tried_again() {
    let server = Scripted::version_1(move |mut stream, name, before| match before {
        0 => until_gone(&stream),
        1 => {
            let whole = answer(name, b"data");
            stream.write_all(&whole[..whole.len() - 2]).unwrap();
            until_gone(&stream);
        }
        2 => {
            let _ = stream.write_all(&[header(b"f", 4, &"0".repeat(32)), b"data".to_vec()].concat());
        }
        _ => drop(stream.write_all(&answer(name, b"data"))),
    });
    let place = Place::new();
    let options = ["--retries", "6", "--timeout", "300ms"];
    place.fetch("f", server.address, &options).end().expect(0).says("sent nothing").says("MD5");
    assert_eq!(place.read("client_downloads/f"), b"data");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn after_the_last_retry_the_last_failure_counts() {
    let server = Scripted::version_1(|mut stream, _, before| {
        if before == 2 {
            let _ = stream.write_all(&[header(b"f", 4, &"0".repeat(32)), b"data".to_vec()].concat());
        }
    });
    let place = Place::new();
    place.fetch("f", server.address, &["--retries", "2"]).end().expect(32);
    assert_eq!(server.requests().len(), 3);
    assert!(place.tree().is_empty(), "{:?}", place.tree());
}

#[test]
fn a_refusal_and_a_lie_are_final_at_once() {
    let lie = [header(b"f", 3, "8d777f385d3dfec8815d20f7496026dc"), b"data".to_vec()].concat();
    for (said, code) in
        [(b"ERRORFile 'f' not found on server".to_vec(), 3), (b"ERRORno".to_vec(), 4), (lie, 8)]
    {
        let server = Scripted::version_1(move |mut stream, _, _| drop(stream.write_all(&said)));
        Place::new().fetch("f", server.address, &RETRIES).end().expect(code);
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn ctrl_c_ends_a_wait_at_once() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = Place::new();
        let (ip, port) = (nobody().ip().to_string(), nobody().port().to_string());
        let running = place.client(&["f", &ip, &port, "--retry-delay", "100s"]).start();
        running.await_stderr("retry 1 of 6");
        let began = Instant::now();
        running.signal(signal);
        running.end().expect(code);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert!(place.tree().is_empty(), "{:?}", place.tree());
    }
}

#[test]
fn ctrl_c_ends_the_wait_for_an_answer() {
    let server = Scripted::version_1(|stream, _, _| until_gone(&stream));
    let place = Place::new();
    let running = place.fetch("f", server.address, &["--timeout", "100s"]).start();
    crate::harness::await_for("the request", || server.requests().pop());
    running.signal(Signal::INT);
    running.end().expect(130);
}

/// The promise of the original, with the real waits: 1 + 2 + 4 + 8 + 16 + 32 s.
#[test]
fn a_client_started_60_s_before_its_server_succeeds() {
    let address = nobody();
    let place = Place::idle();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let began = Instant::now();
    let running = place.client(&["f", &ip, &port]).start();
    std::thread::sleep(Duration::from_secs(60));
    let files = Files::from([("f".to_owned(), b"data".to_vec())]);
    let _server = Original::on(TcpListener::bind(address).unwrap(), files);
    running.end().expect(0).says("retry 6 of 6");
    assert_eq!(place.read("client_downloads/f"), b"data");
    let waited = began.elapsed().as_secs_f64();
    assert!((63.0..=63.0 * 1.1 + 10.0).contains(&waited), "{waited} s");
}
