//! The client goes away at any byte of the exchange, politely or not: nothing leaks, nobody panics,
//! and the log tells of every transfer that was begun how it ended, once.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::raw::{self, fetch_whole, noise, request};
use crate::serving::{CATALOG_DESCRIPTORS, Server, Site, wait_for};

/// How a client goes away.
#[derive(Clone, Copy, Debug)]
enum Exit {
    /// Everything is closed: what the server sends from now on is answered with a reset.
    Close,
    /// Nothing more will be said, but everything is read (FIN).
    HalfClose,
    /// The connection is reset (RST).
    Reset,
}

const EXITS: [Exit; 3] = [Exit::Close, Exit::HalfClose, Exit::Reset];

fn go(stream: TcpStream, exit: Exit) {
    match exit {
        Exit::Close => drop(stream),
        Exit::Reset => raw::reset(stream),
        Exit::HalfClose => {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            raw::read_all(stream);
        }
    }
}

/// What a server had at rest.
struct Rest {
    server: Server,
    descriptors: usize,
    threads: u64,
    connections: usize,
}

impl Rest {
    /// A server that has served everything once.
    fn new(site: &Site, names: &[&str]) -> Self {
        let server = site.serve(&["--v1-pause", "0", "--hash-ahead", "0"]);
        for name in names {
            raw::fetch(server.address, name);
        }
        let descriptors = server.descriptors_at_rest();
        Self { descriptors, threads: server.threads(), server, connections: names.len() }
    }

    /// A connection on which `sent` bytes were said and `received` were heard.
    fn exchange(&mut self, request: &[u8], received: usize) -> TcpStream {
        self.connections += 1;
        let mut stream = self.server.connect();
        stream.write_all(request).unwrap();
        stream.read_exact(&mut vec![0; received]).unwrap();
        stream
    }

    /// Nothing is left of all connections but their lines in the log.
    fn assert_back(mut self) {
        let log = self.server.wait_log_count("Connection closed with", self.connections);
        assert_eq!(log.matches("New connection from").count(), self.connections);
        assert_eq!(log.matches("Connection closed with").count(), self.connections);
        assert_ends_once(&log);
        let server = &self.server;
        let most = self.descriptors + CATALOG_DESCRIPTORS;
        wait_for("all descriptors closed", || (server.descriptors() <= most).then_some(()));
        // Threads for blocking work come when they are needed and stay for a while, but not one
        // for each connection.
        assert!(server.threads() <= self.threads + 8, "{} threads, then {}", self.threads, server.threads());
        assert_eq!(fetch_whole(server.address, "small"), noise(90, 60));
        for text in [log, server.stderr()] {
            assert!(!text.contains("panicked") && !text.contains("ERROR"), "{text}");
        }
        assert!(!self.server.has_ended());
    }
}

/// Every transfer that was begun has one end.
fn assert_ends_once(log: &str) {
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut begun, mut ended) = (0, 0);
    for line in log.lines() {
        if let Some((_, peer)) = line.split_once(" bytes) to ").filter(|_| line.contains("Sending file '")) {
            assert_eq!(open.insert(peer, 1), None, "two at once: {line}");
            begun += 1;
        }
        let sent = line.split_once(" sent successfully to ").and_then(|(_, rest)| rest.split_once(": "));
        let cut = line.split_once(" cut after ").and_then(|(head, _)| head.rsplit_once(" to "));
        if let Some(peer) = sent.map(|(peer, _)| peer).or(cut.map(|(_, peer)| peer)) {
            assert!(open.remove(peer).is_some(), "an end without a beginning: {line}");
            ended += 1;
        }
    }
    assert!(open.is_empty(), "without an end: {open:?}");
    assert!(begun == ended && begun > 0, "{begun} begun, {ended} ended");
}

fn site() -> Site {
    let site = Site::new();
    site.file("small", &noise(90, 60));
    site.file("large", &noise(91, 3 << 20));
    site
}

#[test]
fn a_client_that_goes_after_any_byte_of_its_request_leaves_nothing() {
    let site = site();
    let mut rest = Rest::new(&site, &["small", "large", "missing"]);
    for name in ["small", "large", "missing"] {
        let request = request(name.as_bytes());
        for exit in EXITS {
            for sent in 0..=request.len() {
                let stream = rest.exchange(&request[..sent], 0);
                go(stream, exit);
            }
        }
    }
    rest.assert_back();
}

#[test]
fn a_client_that_goes_after_any_byte_of_the_answer_leaves_nothing() {
    let site = site();
    let mut rest = Rest::new(&site, &["small", "missing"]);
    for name in ["small", "missing"] {
        let request = request(name.as_bytes());
        let stream = rest.exchange(&request, 0);
        let len = raw::read_all(stream).len();
        for exit in EXITS {
            for received in 0..=len {
                let stream = rest.exchange(&request, received);
                go(stream, exit);
            }
        }
    }
    rest.assert_back();
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_large_file_leaves_nothing() {
    let site = site();
    let mut rest = Rest::new(&site, &["large"]);
    let request = request(b"large");
    let len = 2 + 4 + 5 + 8 + 32 + (3 << 20);
    let head = 0..64;
    let around = |place: usize| place.saturating_sub(1)..=(place + 1).min(len);
    let places = [4096, 65_536, 65_536 + 51, len / 10, len / 2, len - 16_384, len - 1];
    let places: Vec<_> = head.chain(places.into_iter().flat_map(around)).collect();
    for exit in EXITS {
        for &received in &places {
            let stream = rest.exchange(&request, received);
            go(stream, exit);
        }
    }
    rest.assert_back();
}
