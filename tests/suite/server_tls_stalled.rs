//! Thousands of connections that stop within the TLS handshake: what they cost, beside a transfer and
//! afterwards.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::raw::{self, fetch_whole, request};
use crate::serving::{Server, Site, skipped, wait_for, wait_settled};
use crate::tls_raw;

/// Connections that stall.
const STALLED: usize = 10_000;
/// Descriptors that a test, or a server, has besides.
const DESCRIPTORS_BESIDES: usize = 256;
/// Most memory of the server beside them, in bytes.
const MEMORY_MAX: u64 = 400 << 20;
/// Part of what they took that the server may keep, as one part in this many, and how long it may take to
/// give back the rest.
const KEPT_SHARE: u64 = 3;
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(40);
/// How long the server waits for a handshake and a request.
const REQUEST_TIMEOUT: &str = "45s";
/// Size of the file whose transfer is measured: zeros that take no room.
const SIZE: u64 = 256 << 20;
/// Transfers of which the fastest one counts, without them and beside them.
const TRANSFERS: usize = 15;
/// How long the speed beside them is measured at most; well before they end.
const MEASURED_WITHIN: Duration = Duration::from_secs(30);
/// Least speed beside them, of the speed without.
const SPEED_MIN: f64 = 0.9;

fn allowed() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let descriptors = maximum.map_or(usize::MAX, |maximum| maximum as usize);
    let count = (descriptors.saturating_sub(DESCRIPTORS_BESIDES) / 2).min(STALLED);
    if count < STALLED {
        skipped(
            &format!("{} of {STALLED} stalled handshakes", STALLED - count),
            "too few open files allowed (ulimit -Hn)",
        );
    }
    count
}

/// How long the data of the large file takes.
fn transfer(server: &Server, buffer: &mut [u8]) -> Duration {
    let mut stream = server.connect();
    stream.write_all(&request(b"zeros")).unwrap();
    stream.read_exact(&mut [0; 2 + 4 + 5 + 8 + 32]).unwrap();
    let (began, mut done) = (Instant::now(), 0);
    loop {
        match stream.read(buffer).unwrap() {
            0 => break,
            count => done += count as u64,
        }
    }
    assert_eq!(done, SIZE);
    began.elapsed()
}

fn fastest(server: &Server, buffer: &mut [u8]) -> Duration {
    (0..TRANSFERS).map(|_| transfer(server, buffer)).min().unwrap()
}

/// Connections of which a third each have said two bytes, half of a first message, and all of it. Returns
/// when the server has answered those that it can answer.
fn stall(server: &Server, count: usize) -> Vec<TcpStream> {
    let hello = tls_raw::client_hello();
    let stalled: Vec<_> = (0..count)
        .map(|at| {
            let said = match at % 3 {
                0 => &hello[..2],
                1 => &hello[..hello.len() / 2],
                _ => &hello[..],
            };
            let mut stream = server.connect();
            stream.write_all(said).unwrap();
            stream
        })
        .collect();
    for stream in stalled.iter().skip(2).step_by(3) {
        // The first byte of the answer, a handshake record.
        let mut first = [0];
        stream.peek(&mut first).unwrap();
        assert_eq!(first, [0x16]);
    }
    stalled
}

#[test]
fn stalled_handshakes_cost_little_and_all_end_at_the_deadline() {
    let site = Site::alone();
    site.file("a", b"a");
    File::create(site.root("zeros")).unwrap().set_len(SIZE).unwrap();
    wait_settled(&site.root("zeros"));
    let count = allowed();
    let server = site.serve(&["--request-timeout", REQUEST_TIMEOUT]);
    let mut buffer = vec![0; 1 << 20];
    transfer(&server, &mut buffer);
    let baseline = server.descriptors_at_rest();
    let before = server.memory();
    let without = fastest(&server, &mut buffer);

    let began = Instant::now();
    let stalled = stall(&server, count);
    let all_there = began.elapsed();
    let cost = server.memory().saturating_sub(before);
    let mut beside = fastest(&server, &mut buffer);
    // The time only gets less, down to what it is on a quiet machine: more transfers tell a busy machine from a
    // server that is slower beside them, which it stays.
    while without.as_secs_f64() / beside.as_secs_f64() < SPEED_MIN && began.elapsed() < MEASURED_WITHIN {
        beside = beside.min(transfer(&server, &mut buffer));
    }
    assert_eq!(fetch_whole(server.address, "a"), b"a", "served beside them");
    assert!(began.elapsed() < Duration::from_secs(40), "measured beside all of them: {:?}", began.elapsed());
    let (ratio, peak) = (without.as_secs_f64() / beside.as_secs_f64(), server.peak_memory());
    println!(
        "{count} stalled handshakes within {all_there:?}: {} bytes each, peak {peak} bytes, {ratio:.3} of the speed \
         ({without:?}, {beside:?})",
        cost / count as u64
    );
    assert!(peak <= MEMORY_MAX, "{peak} bytes at the peak");
    assert!(ratio >= SPEED_MIN, "{ratio:.3} of the speed beside them: {without:?}, {beside:?}");

    // They end at the deadline, from the server's side, and none is left.
    let last = stalled.len() - 1;
    stalled[last].set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let _ = (&stalled[last]).read_to_end(&mut Vec::new());
    wait_for("the end of all of them", || (server.descriptors() <= baseline).then_some(()));
    server.wait_log_count("no full request within 45 s", count);
    stalled.into_iter().for_each(raw::reset);
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        let began = Instant::now();
        let kept = || server.memory().saturating_sub(before);
        while kept() > cost / KEPT_SHARE && began.elapsed() < GIVEN_BACK_WITHIN {
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{} of {cost} bytes kept after {:?}", kept(), began.elapsed());
        assert!(kept() <= cost / KEPT_SHARE);
    }
}
