//! The end: what runs is finished, what has not begun does not begin, and nobody waits for nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::raw::{self, Answer, fetch_whole, is_ended, noise, request};
use crate::serving::{Server, Signal, Site, wait_for};

/// More than the sockets of both ends hold.
const SIZE: usize = 32 << 20;

/// A server in the middle of a transfer.
fn in_a_transfer(options: &[&str]) -> (Site, Server, TcpStream, Vec<u8>) {
    let site = Site::new();
    let data = noise(60, SIZE);
    site.file("file", &data);
    site.file("a", b"a");
    let server = site.serve(options);
    let mut stream = raw::connect_narrow(server.address);
    stream.write_all(&request(b"file")).unwrap();
    let mut beginning = vec![0; 1000];
    stream.read_exact(&mut beginning).unwrap();
    (site, server, stream, beginning)
}

/// Waits until nobody listens any more.
fn wait_refused(server: &Server) {
    wait_for("a refused connection", || raw::connect(server.address).is_err().then_some(()));
}

fn stops_gracefully_on(signal: Signal) {
    let (_site, mut server, stream, mut bytes) = in_a_transfer(&[]);
    server.signal(signal);
    wait_refused(&server);
    assert!(!server.has_ended(), "the running transfer is not over");
    bytes.extend(raw::read_all(&stream));
    assert!(matches!(raw::parse(bytes), Answer::Whole(_)), "it was finished");
    drop(stream);
    assert_eq!(server.wait_exit(), Some(0));
    let log = server.log();
    assert!(log.contains("No new connections are accepted"), "{log}");
    let summary = log.lines().last().unwrap();
    let counts =
        format!("connections, 1 files sent ({SIZE} bytes), 0 files stored (0 bytes), 0 transfers cut");
    assert!(summary.contains("Summary: ") && summary.contains(&counts), "{summary}");
}

#[test]
fn on_sigint_the_listener_closes_and_the_running_transfer_is_finished() {
    stops_gracefully_on(Signal::INT);
}

#[test]
fn on_sigterm_the_listener_closes_and_the_running_transfer_is_finished() {
    stops_gracefully_on(Signal::TERM);
}

#[test]
fn a_transfer_longer_than_the_drain_timeout_is_cut() {
    let (_site, mut server, stream, mut bytes) = in_a_transfer(&["--drain-timeout", "500ms"]);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0));
    bytes.extend(raw::read_all(&stream));
    let Answer::Broken(_) = raw::parse(bytes) else { panic!("it ended as if it were whole") };
    let log = server.log();
    assert!(log.contains("Transfer of 'file' to") && log.contains("the server stopped it"), "{log}");
    assert!(log.contains("1 transfers cut"), "{log}");
    assert!(log.contains("--drain-timeout"), "{log}");
}

#[test]
fn a_second_ctrl_c_ends_it_at_once_with_130() {
    let (_site, mut server, _stream, _) = in_a_transfer(&[]);
    server.signal(Signal::INT);
    wait_refused(&server);
    server.signal(Signal::INT);
    let began = Instant::now();
    assert_eq!(server.wait_exit(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(10), "long before the drain timeout");
}

#[test]
fn idle_connections_do_not_delay_the_end() {
    let site = Site::new();
    site.file("a", b"a");
    let mut server = site.serve(&["--request-timeout", "1h"]);
    let mut silent = server.connect();
    let mut halfway = server.connect();
    halfway.write_all(b"\0\0\0\x05na").unwrap();
    server.wait_log_count("New connection", 2);
    let began = Instant::now();
    server.signal(Signal::INT);
    assert_eq!(server.wait_exit(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "long before any deadline");
    assert!(is_ended(&mut silent) && is_ended(&mut halfway));
    assert_eq!(server.log().matches("the server is stopping").count(), 2);
}

#[test]
fn a_port_is_free_again_at_once() {
    let site = Site::new();
    site.file("a", b"a");
    let mut server = site.serve(&[]);
    let port = server.address.port().to_string();
    // Connections that the server closed first stay in TIME_WAIT.
    for _ in 0..5 {
        fetch_whole(server.address, "a");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0));
    let again = site.launch_bare(&[&port, "root", "--state", "state", "--log-dir", "logs"]).serve();
    assert_eq!(fetch_whole(again.address, "a"), b"a");
}
