//! Many clients at once, and the original client beside programs that take all the processor.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use crate::raw::{Answer, brief, fetch, fetch_as_original, noise};
use crate::serving::Site;

/// Clients at once.
const CLIENTS: usize = 100;
/// Different files among them.
const FILES: usize = 8;
/// Downloads of the original client under load.
const DOWNLOADS: usize = 200;
/// How many of them may fail: 0.5 %.
const FAILURES_MAX: usize = 1;

/// File `i` of those that are fetched at once: all just above the size from which there are ten
/// progress lines.
fn data(i: usize) -> Vec<u8> {
    noise(i as u64, (1 << 20) + i)
}

#[test]
fn a_hundred_clients_at_once_each_get_their_file_and_all_their_log_lines() {
    let site = Site::new();
    for i in 0..FILES {
        site.file(format!("file{i}"), &data(i));
    }
    let server = site.serve(&[]);
    let (address, start) = (server.address, Arc::new(Barrier::new(CLIENTS)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|i| {
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                (i % FILES, fetch(address, format!("file{}", i % FILES)))
            })
        })
        .collect();
    for client in clients {
        match client.join().unwrap() {
            (i, Answer::Whole(file)) => assert!(file.data == data(i)),
            (i, other) => panic!("file{i}: {}", brief(&other)),
        }
    }
    let log = server.wait_log_count("Connection closed with", CLIENTS);
    for (text, each) in [
        ("New connection from", 1),
        ("requested file", 1),
        ("Sending file", 1),
        ("Progress to", 10),
        ("100% (", 1),
        ("sent successfully", 1),
        ("Connection closed with", 1),
    ] {
        assert_eq!(log.matches(text).count(), CLIENTS * each, "'{text}' for each client");
    }
    let of_clients = log.lines().filter(|line| line.contains(" 127.0.0.1:")).count();
    assert_eq!(of_clients, CLIENTS * 15, "and no other line about them");
}

#[test]
fn the_original_client_succeeds_beside_programs_that_take_all_the_processor() {
    let site = Site::alone();
    let wanted = noise(20, 20_000);
    site.file("file.bin", &wanted);
    let server = site.serve(&[]);
    let stop = Arc::new(AtomicBool::new(false));
    let spinners: Vec<_> = (0..2)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
        })
        .collect();
    let results: Vec<_> = (0..DOWNLOADS).map(|_| fetch_as_original(server.address, "file.bin")).collect();
    stop.store(true, Ordering::Relaxed);
    spinners.into_iter().for_each(|spinner| spinner.join().unwrap());
    assert!(results.iter().flatten().all(|data| *data == wanted));
    let failures: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(failures.len() <= FAILURES_MAX, "{} of {DOWNLOADS}: {failures:?}", failures.len());
}

#[test]
fn the_original_client_understands_large_empty_and_missing_files() {
    let site = Site::new();
    let large = noise(21, 3 << 20);
    site.file("large", &large);
    site.file("empty", b"");
    let server = site.serve(&[]);
    assert!(fetch_as_original(server.address, "large").unwrap() == large);
    assert_eq!(fetch_as_original(server.address, "empty").unwrap(), b"");
    assert_eq!(fetch_as_original(server.address, "none").unwrap_err(), "File 'none' not found on server");
}
