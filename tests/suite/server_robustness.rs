//! Peers that break off or talk rubbish: nothing leaks, and the next one is served.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::raw::{self, fetch_whole, noise, read_all, request};
use crate::serving::{Server, Site, wait_for};

/// Connections that say something random.
const GARBAGE: u64 = 200;

/// Waits until the server has no more descriptors than at first, and sees it serve.
fn assert_back_to(server: &Server, baseline: usize) {
    wait_for("all descriptors closed", || (server.descriptors() <= baseline).then_some(()));
    assert_eq!(fetch_whole(server.address, "file").len(), 100);
}

/// A server that has served once, so that all it opens for good is open.
fn warm_server(site: &Site) -> (Server, usize) {
    site.file("file", &noise(70, 100));
    site.file("large", &noise(71, 300_000));
    let server = site.serve(&["--v1-pause", "0"]);
    for name in ["file", "large", "missing"] {
        raw::fetch(server.address, name);
    }
    server.wait_log_count("Connection closed", 3);
    let baseline = server.descriptors_at_rest();
    (server, baseline)
}

#[test]
fn a_reset_at_any_byte_of_the_exchange_leaks_nothing() {
    let site = Site::new();
    let (server, baseline) = warm_server(&site);
    let mut connections = 3;
    for name in ["file", "large", "missing"] {
        let request = request(name.as_bytes());
        for sent in 0..=request.len() {
            let mut stream = server.connect();
            stream.write_all(&request[..sent]).unwrap();
            raw::reset(stream);
            connections += 1;
        }
        let answer = read_all({
            let mut stream = server.connect();
            stream.write_all(&request).unwrap();
            stream
        });
        connections += 1;
        for received in (0..=answer.len().min(160)).chain([answer.len() / 2, answer.len()]) {
            let mut stream = server.connect();
            stream.write_all(&request).unwrap();
            stream.read_exact(&mut vec![0; received]).unwrap();
            raw::reset(stream);
            connections += 1;
        }
    }
    assert_back_to(&server, baseline);
    connections += 1;
    let log = server.wait_log_count("Connection closed", connections);
    assert_eq!(log.matches("New connection from").count(), connections);
    assert_eq!(log.matches("Connection closed with").count(), connections);
}

#[test]
fn garbage_leaks_nothing_and_gets_nothing_but_refusals() {
    let site = Site::new();
    let (server, baseline) = warm_server(&site);
    let mut chance = fastrand::Rng::with_seed(72);
    for seed in 0..GARBAGE {
        let mut bytes = noise(seed, chance.usize(0..600));
        if let Some(first) = bytes.first_mut().filter(|_| chance.bool()) {
            *first = 0;
        }
        let mut stream = server.connect();
        // The server may have closed before all was said.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let answer = read_all(stream);
        assert!(answer.is_empty() || answer.starts_with(b"ERROR"), "{}", answer.escape_ascii());
    }
    assert_back_to(&server, baseline);
}

#[test]
fn clients_that_half_close_after_their_request_are_served() {
    let site = Site::new();
    let (server, _) = warm_server(&site);
    for name in ["file", "large"] {
        let mut stream = server.connect();
        stream.write_all(&request(name.as_bytes())).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(raw::finish(stream), raw::Answer::Whole(_)), "{name}");
    }
}
