//! Limits: places for connections in all and from each address, and open descriptors.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::raw::{self, Answer, fetch_whole, is_ended, read_all, request};
use crate::serving::{Server, Site, wait_for};

/// How long something that must not happen is given to happen.
const UNWANTED: Duration = Duration::from_millis(300);

/// Whether the connection stays open and silent for a while.
fn stays_silent(stream: &TcpStream) -> bool {
    let patience = stream.read_timeout().unwrap();
    stream.set_read_timeout(Some(UNWANTED)).unwrap();
    let silent = stream.peek(&mut [0]).is_err_and(|error| raw::is_timeout(&error));
    stream.set_read_timeout(patience).unwrap();
    silent
}

#[test]
fn beyond_max_connections_a_client_waits_and_is_served_when_a_place_is_free() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--max-connections", "2"]);
    let first = server.connect();
    let _second = server.connect();
    server.wait_log("All 2 places are taken");
    let mut third = server.connect();
    third.write_all(&request(b"a")).unwrap();
    assert!(stays_silent(&third), "the third is served beside two others");
    drop(first);
    let Answer::Whole(file) = raw::finish(third) else { panic!("the third was not served") };
    assert_eq!(file.data, b"a");
    assert_eq!(server.log().matches("New connection").count(), 3);
}

#[test]
fn beyond_its_limit_an_address_is_turned_away_and_others_are_served() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--max-connections-per-address", "2"]);
    let (first, _second) = (server.connect(), server.connect());
    server.wait_log_count("New connection", 2);
    let mut third = server.connect();
    let peer = third.local_addr().unwrap();
    assert!(is_ended(&mut third));
    server.wait_log(&format!("Turned {peer} away"));
    let mut other = raw::connect_with(server.address, |socket| {
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)).into()).unwrap();
    });
    other.write_all(&request(b"a")).unwrap();
    assert!(matches!(raw::finish(other), Answer::Whole(_)), "another address has places of its own");
    // A place that was given up is there again.
    drop(first);
    wait_for("a place for this address", || {
        let mut stream = server.connect();
        let _ = stream.write_all(&request(b"a"));
        matches!(raw::parse(read_all(stream)), Answer::Whole(_)).then_some(())
    });
}

/// Sets how many descriptors the server may have.
fn limit_descriptors(server: &Server, count: u64) {
    let pid = Pid::from_raw(server.id().cast_signed()).unwrap();
    let old = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(count), maximum: Some(4096) });
    old.unwrap();
}

/// The number that the next open file would have: with this limit none can be opened.
fn lowest_free_descriptor(server: &Server) -> u64 {
    let folder = format!("/proc/{}/fd", server.id());
    let used: Vec<u64> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap())
        .collect();
    (0..).find(|number| !used.contains(number)).unwrap()
}

#[test]
fn out_of_descriptors_it_waits_without_spinning_and_recovers() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&[]);
    assert_eq!(fetch_whole(server.address, "a"), b"a");
    let baseline = server.descriptors_at_rest();
    // One more connection, and then none.
    limit_descriptors(&server, baseline as u64 + 1);
    let mut held: Vec<_> = (0..10).map(|_| server.connect()).collect();
    let log = server.wait_log("Cannot accept connections");
    assert!(log.contains("Too many open files"), "{log}");
    let before = server.ticks();
    thread::sleep(Duration::from_secs(2));
    let used = server.ticks() - before;
    assert!(used <= 20, "{used} ticks of processor time in two seconds of waiting");
    assert_eq!(server.log().matches("Cannot accept").count(), 1, "told once");
    // Room again, by itself.
    limit_descriptors(&server, 4096);
    server.wait_log("Accepting connections again");
    assert_eq!(fetch_whole(server.address, "a"), b"a");
    for stream in &mut held {
        stream.write_all(&request(b"a")).unwrap();
        assert_eq!(raw::split(&read_all(stream)).unwrap().3, b"a", "those that waited are served");
    }
}

#[test]
fn out_of_descriptors_for_a_file_a_client_is_told_nothing_and_may_ask_again() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&[]);
    let mut stream = server.connect();
    let peer = stream.local_addr().unwrap();
    server.wait_log("New connection");
    limit_descriptors(&server, lowest_free_descriptor(&server));
    stream.write_all(&request(b"a")).unwrap();
    // Not a refusal: that would be final.
    assert_eq!(read_all(stream), b"");
    server.wait_log(&format!("No answer to {peer} for 'a'"));
    limit_descriptors(&server, 4096);
    assert_eq!(fetch_whole(server.address, "a"), b"a");
}

#[test]
fn with_a_tiny_hard_limit_it_serves_fewer_at_once_but_all() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.launch(&[]).by_way_of(&["prlimit", "--nofile=72:72"]).serve();
    server.wait_log("At most 4 connections at once");
    let address = server.address;
    let clients: Vec<_> = (0..20).map(|_| thread::spawn(move || fetch_whole(address, "a"))).collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), b"a");
    }
}
