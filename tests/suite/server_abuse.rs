//! Peers that want to hurt: floods of connections and lengths that lie. Memory and log stay bounded,
//! and everybody else is served.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::raw::{self, fetch_whole, noise, request};
use crate::serving::{CATALOG_DESCRIPTORS, Server, Site, wait_for};

/// Connections of one flood.
const FLOOD: usize = 2000;
/// Programs that make it.
const FLOODERS: usize = 4;
/// Most memory that a flood may ever cost the server, in bytes.
const FLOOD_MEMORY_MAX: u64 = 24 << 20;
/// Most lines that one connection may cause in the log.
const LINES_MAX: usize = 4;
/// Most bytes that one connection may cause in the log, whatever name it says.
const LOG_BYTES_MAX: usize = 10 << 10;
/// Connections that announce a name and send none of it.
const LIARS: usize = 1000;
/// Most memory for each of them, in bytes: less than the shortest of the large names they announce.
const LIAR_MEMORY_MAX: u64 = 4 << 10;
/// Most time that anybody waits for a file beside a flood.
const FETCH_MAX: Duration = Duration::from_secs(10);

/// Makes a flood of connections while somebody else fetches a file, again and again.
fn flood(options: &[&str], attack: impl Fn(&Server, usize) -> Option<TcpStream> + Sync) {
    let site = Site::new();
    site.file("file", &noise(95, 100_000));
    let server = site.serve(options);
    assert_eq!(fetch_whole(server.address, "file").len(), 100_000);
    let (memory, descriptors) = (server.memory(), server.descriptors_at_rest());
    let log_before = server.wait_log("Connection closed").len();
    let (over, served) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let flooders: Vec<_> = (0..FLOODERS)
            .map(|i| {
                let (server, attack) = (&server, &attack);
                let each = FLOOD / FLOODERS;
                // What is held is held until the flood is over.
                scope.spawn(move || (i * each..(i + 1) * each).filter_map(|n| attack(server, n)).count())
            })
            .collect();
        scope.spawn(|| {
            while !(over.load(Ordering::Relaxed) && served.load(Ordering::Relaxed)) {
                let began = std::time::Instant::now();
                assert_eq!(fetch_whole(server.address, "file").len(), 100_000);
                assert!(began.elapsed() < FETCH_MAX, "a reader waited for {:?}", began.elapsed());
                served.store(true, Ordering::Relaxed);
            }
        });
        flooders.into_iter().for_each(|flooder| drop(flooder.join()));
        over.store(true, Ordering::Relaxed);
    });
    let most = descriptors + CATALOG_DESCRIPTORS;
    wait_for("all descriptors closed", || (server.descriptors() <= most).then_some(()));
    let log = wait_for("the last line of each connection", || {
        let log = server.log();
        let count = |text| log.matches(text).count();
        let opened = count("New connection from");
        (opened > FLOOD && opened == count("Connection closed with")).then_some(log)
    });
    let opened = log.matches("New connection from").count();
    // A download has a few more lines than an attack.
    assert!(log.lines().count() <= opened * LINES_MAX + 4 * log.matches("sent successfully").count() + 20);
    let bytes = (log.len() - log_before) / opened;
    assert!(bytes <= LOG_BYTES_MAX, "{bytes} bytes of log for each connection");
    let cost = server.peak_memory().saturating_sub(memory);
    println!("{opened} connections: {cost} bytes of memory at most, {bytes} bytes of log each");
    assert!(cost <= FLOOD_MEMORY_MAX, "{cost} bytes of memory");
}

#[test]
fn a_flood_of_connections_that_close_at_once_stops_nobody() {
    flood(&[], |server, n| {
        let stream = server.connect();
        if n % 2 == 0 {
            raw::reset(stream);
        }
        None
    });
}

#[test]
fn a_flood_of_garbage_stops_nobody() {
    flood(&[], |server, n| {
        let mut stream = server.connect();
        let _ = stream.write_all(&noise(n as u64, 1 + n % 2000));
        None
    });
}

#[test]
fn a_flood_of_half_requests_stops_nobody() {
    flood(&["--request-timeout", "2s"], |server, n| {
        let mut stream = server.connect();
        let request = request(&[b'x'; 100]);
        stream.write_all(&request[..n % request.len()]).unwrap();
        Some(stream)
    });
}

#[test]
fn a_flood_of_the_longest_names_stops_nobody_and_hardly_fills_the_log() {
    flood(&[], |server, n| {
        let mut stream = server.connect();
        let _ = stream.write_all(&request(&vec![0xff - (n % 2) as u8; 4096]));
        let _ = raw::read_all(stream);
        None
    });
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    const LENGTHS: [u32; 10] =
        [1, 255, 4095, 4096, 4097, (1 << 24) - 1, 1 << 24, 1 << 31, u32::MAX - 1, u32::MAX];
    for length in LENGTHS {
        // A server each: what one length cost could be used again by the next.
        let site = Site::new();
        site.file("file", b"file");
        let server = site.serve(&["--request-timeout", "1h"]);
        for _ in 0..50 {
            fetch_whole(server.address, "file");
        }
        server.descriptors_at_rest();
        let before = server.memory();
        let mut liars = Vec::new();
        for _ in 0..LIARS {
            let mut stream = server.connect();
            stream.write_all(&length.to_be_bytes()).unwrap();
            liars.push(stream);
        }
        // All have been read once the last one that is served is.
        assert_eq!(fetch_whole(server.address, "file"), b"file");
        let each = server.memory().saturating_sub(before) / liars.len() as u64;
        println!("{length}: {each} bytes for each of {}", liars.len());
        assert!(each <= LIAR_MEMORY_MAX, "{length}: {each} bytes for each connection");
        // A closed connection would keep its port from later tests for a minute.
        liars.into_iter().for_each(raw::reset);
    }
}
