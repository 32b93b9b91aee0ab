//! The link of the proxy is as long and as wide as it says.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::thread::{scope, spawn};
use std::time::{Duration, Instant};

use crate::machine::{PATIENCE, Share};
use crate::proxy::{Link, Proxy};

const DELAY: Duration = Duration::from_millis(25);
/// 1 Gbit/s.
const RATE: u64 = 125_000_000;

/// A server that says so many bytes to everybody and keeps the connection until they leave.
fn talking(count: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            spawn(move || {
                let piece = vec![0; 1 << 20];
                let mut left = count;
                while left > 0 {
                    let len = left.min(piece.len());
                    if stream.write_all(&piece[..len]).is_err() {
                        return;
                    }
                    left -= len;
                }
                let _ = stream.read(&mut [0]);
            });
        }
    });
    address
}

/// Reads so many bytes; when the first and the last of them came.
fn receive(from: SocketAddr, count: usize) -> [Instant; 2] {
    let mut stream = TcpStream::connect(from).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut piece = vec![0; 1 << 20];
    let mut left = count;
    let mut first = None;
    while left > 0 {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "the end came early");
        first.get_or_insert_with(Instant::now);
        left -= read;
    }
    [first.unwrap(), Instant::now()]
}

#[test]
fn a_round_trip_takes_two_delays_and_a_handshake_is_one() {
    let _share = Share::alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Proxy::linked(address, Link { delay: DELAY, rate: NonZeroU64::new(RATE) }).unwrap();
    let echo = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut ping = [0; 64];
        while stream.read_exact(&mut ping).is_ok() {
            stream.write_all(&ping).unwrap();
        }
    });
    let began = Instant::now();
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut ping = |began: Instant| {
        stream.write_all(&[1; 64]).unwrap();
        stream.read_exact(&mut [0; 64]).unwrap();
        began.elapsed()
    };
    let first = ping(began);
    let mut pings: Vec<_> = (0..20).map(|_| ping(Instant::now())).collect();
    pings.sort();
    println!("first {first:?}, then {pings:?}");
    assert!(first >= DELAY * 4 && pings[0] >= DELAY * 2, "{first:?}, {pings:?}");
    // The rest is the machine's, which may be slow now and then.
    assert!(pings[10] < DELAY * 2 + DELAY / 10, "{pings:?}");
    drop(stream);
    echo.join().unwrap();
}

#[test]
fn the_rate_holds_within_three_percent_and_is_shared() {
    const COUNT: usize = 100_000_000;
    let _share = Share::alone();
    for connections in [1, 4] {
        let each = COUNT / connections;
        let link = Link { delay: DELAY, rate: NonZeroU64::new(RATE) };
        let proxy = Proxy::linked(talking(each), link).unwrap();
        let address = proxy.address;
        let times: Vec<_> = scope(|scope| {
            let all: Vec<_> = (0..connections).map(|_| scope.spawn(move || receive(address, each))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let first = times.iter().map(|[first, _]| *first).min().unwrap();
        let last = times.iter().map(|[_, last]| *last).max().unwrap();
        let rate = COUNT as f64 / (last - first).as_secs_f64();
        println!("{connections} connections: {:.1} % of the rate", rate / RATE as f64 * 100.0);
        assert!((0.97..1.03).contains(&(rate / RATE as f64)), "{rate} bytes/s");
    }
}

#[test]
fn without_a_link_the_proxy_carries_500_mb_per_second() {
    const COUNT: usize = 1 << 29;
    let _share = Share::alone();
    let proxy = Proxy::linked(talking(COUNT), Link::default()).unwrap();
    // What slows one of three down is the machine.
    let rates = [(); 3].map(|()| {
        let [first, last] = receive(proxy.address, COUNT);
        COUNT as f64 / (last - first).as_secs_f64()
    });
    println!("{rates:.0?} bytes/s");
    assert!(rates.iter().any(|rate| *rate > 500e6), "{rates:.0?} bytes/s");
}
