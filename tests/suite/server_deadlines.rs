//! Peers that are slow on purpose are dropped; the others do not notice.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::raw::{self, Answer, fetch_whole, is_ended, noise, request};
use crate::serving::{PATIENCE, Server, Site};

/// How long the server of these tests waits, as an option.
const SHORT: &str = "600ms";
/// The same, at least, as a client sees it.
const SHORT_MIN: Duration = Duration::from_millis(400);

/// A transfer that goes on, slowly, for several times the deadlines.
fn steady_reader(server: &Server, wanted: Vec<u8>) -> thread::JoinHandle<()> {
    let mut stream = raw::connect_narrow(server.address);
    stream.write_all(&request(b"steady")).unwrap();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; wanted.len() / 30];
        loop {
            let count = stream.read(&mut buffer).unwrap();
            bytes.extend_from_slice(&buffer[..count]);
            if count == 0 {
                break;
            }
            // Thirty reads: each a good deal faster than the deadline, all together much slower.
            thread::sleep(Duration::from_millis(if count > 30_000 { 60 } else { 1 }));
        }
        let Answer::Whole(file) = raw::parse(bytes) else { panic!("a steady reader was dropped") };
        assert!(file.data == wanted);
    })
}

fn steady_site() -> (Site, Vec<u8>) {
    let site = Site::new();
    let data = noise(30, 8 << 20);
    site.file("steady", &data);
    site.file("a", b"a");
    (site, data)
}

/// Waits until the server has dropped a connection, and says how long that took.
fn until_dropped(mut stream: TcpStream) -> Duration {
    let began = Instant::now();
    assert!(is_ended(&mut stream), "not dropped within {PATIENCE:?}");
    began.elapsed()
}

#[test]
fn without_a_full_request_in_time_a_connection_is_dropped_and_others_are_not() {
    let (site, data) = steady_site();
    let server = site.serve(&["--request-timeout", SHORT]);
    let steady = steady_reader(&server, data);
    for beginning in [&b""[..], b"\0", b"\0\0\0\x05", b"\0\0\0\x05name", b"CND", b"PROX"] {
        let mut stream = server.connect();
        let peer = stream.local_addr().unwrap();
        stream.write_all(beginning).unwrap();
        let taken = until_dropped(stream);
        assert!(taken >= SHORT_MIN, "{}: after {taken:?}", beginning.escape_ascii());
        server.wait_log(&format!("Connection closed with {peer}: no full request within 0.6 s"));
    }
    assert_eq!(fetch_whole(server.address, "a"), b"a");
    steady.join().unwrap();
}

#[test]
fn a_request_dripping_in_byte_by_byte_does_not_extend_its_deadline() {
    let (site, _) = steady_site();
    let server = site.serve(&["--request-timeout", SHORT]);
    let mut stream = server.connect();
    let began = Instant::now();
    let mut watched = stream.try_clone().unwrap();
    let watcher = thread::spawn(move || {
        assert!(is_ended(&mut watched));
        began.elapsed()
    });
    // Forty times as long as the deadline, if the server would listen.
    for byte in request(&[b'x'; 800]) {
        if watcher.is_finished() || stream.write_all(&[byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(30));
    }
    let taken = watcher.join().unwrap();
    assert!(taken < Duration::from_secs(10), "a slow loris stayed for {taken:?}");
    assert_eq!(fetch_whole(server.address, "a"), b"a");
}

#[test]
fn a_client_that_takes_no_byte_is_dropped_and_others_are_not() {
    let (site, data) = steady_site();
    site.file("large", &noise(31, 32 << 20));
    let server = site.serve(&["--idle-timeout", SHORT]);
    let steady = steady_reader(&server, data);
    let mut stalled = raw::connect_narrow(server.address);
    let peer = stalled.local_addr().unwrap();
    stalled.write_all(&request(b"large")).unwrap();
    let log = server.wait_log(&format!("Transfer of 'large' to {peer} cut after"));
    assert!(log.contains("no byte was taken for 0.6 s"), "{log}");
    server.wait_log(&format!("Connection closed with {peer}: closed before the end"));
    assert!(matches!(raw::finish(stalled), Answer::Broken(_)));
    assert_eq!(fetch_whole(server.address, "a"), b"a");
    steady.join().unwrap();
}

/// Reads a little now and then for as long as `stay`: about 40 kB a second.
fn read_slowly(stream: &mut TcpStream, stay: Duration) -> io::Result<()> {
    let began = Instant::now();
    while began.elapsed() < stay {
        let mut buffer = [0; 2048];
        if stream.read(&mut buffer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A transfer of far more than the sockets of both ends hold, its reader about to be slow.
fn begin_slowly(site: &Site, server: &Server) -> TcpStream {
    site.file("large", &noise(32, 32 << 20));
    let mut stream = raw::connect_narrow(server.address);
    stream.write_all(&request(b"large")).unwrap();
    stream
}

#[test]
fn a_reader_slower_than_the_minimum_rate_is_dropped() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--idle-timeout", SHORT, "--min-rate", "400KiB"]);
    let mut slow = begin_slowly(&site, &server);
    let peer = slow.local_addr().unwrap();
    let watcher = thread::spawn(move || {
        let _ = read_slowly(&mut slow, PATIENCE);
    });
    let log = server.wait_log(&format!("Transfer of 'large' to {peer} cut after"));
    assert!(log.contains("fewer than 409600 bytes a second were taken"), "{log}");
    assert_eq!(fetch_whole(server.address, "a"), b"a");
    drop(server);
    watcher.join().unwrap();
}

#[test]
fn a_slow_reader_is_kept_though_the_system_never_reports_room_for_it_within_the_idle_timeout() {
    let site = Site::new();
    let server = site.serve(&["--idle-timeout", SHORT, "--min-rate", "1KiB"]);
    let mut slow = begin_slowly(&site, &server);
    // A third of the server's socket buffer has to be free before the system calls it writable;
    // this reader needs many times the idle timeout for that.
    read_slowly(&mut slow, Duration::from_secs(4)).expect("an honest reader was dropped");
    assert!(!server.log().contains("cut after"), "{}", server.log());
}
