//! Limited rates: kept over any number of connections, shared evenly, and nobody is blamed for them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use oneport::codec::v2::ServerFrame;
use rustix::process::Signal;

use crate::harness::Place;
use crate::raw::{self, Answer, noise, request};
use crate::serving::{Server, Site, wait_for};
use crate::v2_peer::{Asker, HELLO, get};

/// A small file, in bytes.
const SMALL: usize = 4096;
/// A file that no test reads to its end, in bytes.
const ENDLESS: usize = 128 << 20;
/// A window that is never used up, in a hello.
const WIDE: &str = "window=1000000000000";

#[derive(Clone, Copy, Debug)]
enum Dialect {
    V1,
    V2,
}

use Dialect::{V1, V2};

/// Fetches a whole file over a connection of its own; its bytes.
fn fetch(dialect: Dialect, mut stream: TcpStream, name: &str) -> Vec<u8> {
    match dialect {
        V1 => {
            stream.write_all(&request(name.as_bytes())).unwrap();
            match raw::finish(stream) {
                Answer::Whole(file) => file.data,
                other => panic!("{}", raw::brief(&other)),
            }
        }
        V2 => {
            let mut asker = Asker::on(stream, WIDE);
            assert!(asker.send(&[get(1, name)]));
            asker.hear_all(1).unwrap()
        }
    }
}

/// A connection from an address of this machine.
fn connect_from(server: &Server, last: u8) -> TcpStream {
    raw::connect_with(server.address, |socket| {
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
        socket.bind(&address.into()).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
    })
}

/// Fetches `name` over each of these connections at once; how long each took.
fn fetch_all(fetches: Vec<(Dialect, TcpStream)>, name: &str, data: &Arc<Vec<u8>>) -> Vec<Duration> {
    let began = Instant::now();
    let fetches = fetches.into_iter().map(|(dialect, stream)| {
        let (name, data) = (name.to_owned(), Arc::clone(data));
        thread::spawn(move || {
            assert!(fetch(dialect, stream, &name) == *data, "{dialect:?}");
            began.elapsed()
        })
    });
    let fetches: Vec<_> = fetches.collect();
    fetches.into_iter().map(|fetch| fetch.join().unwrap()).collect()
}

/// Checks that something took as long as so many bytes do at a rate: within 10 %.
#[track_caller]
fn assert_paced(took: Duration, bytes: usize, rate: usize) {
    let due = bytes as f64 / rate as f64;
    let share = took.as_secs_f64() / due;
    assert!((0.9..=1.1).contains(&share), "{took:?} instead of {due} s");
}

/// Clients that take all that they can get, each over one connection after the other.
struct Bulk {
    taken: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
    takers: Vec<JoinHandle<()>>,
}

impl Bulk {
    /// So many of them, all of which have begun to get the file "endless".
    fn begin(server: &Server, count: usize) -> Self {
        let mut bulk = Self { taken: Vec::new(), stop: Arc::default(), takers: Vec::new() };
        for dialect in [V1, V2].into_iter().cycle().take(count) {
            let (address, taken, stop) =
                (server.address, Arc::<AtomicU64>::default(), Arc::clone(&bulk.stop));
            bulk.taken.push(Arc::clone(&taken));
            bulk.takers.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    take_all(dialect, raw::connect(address).unwrap(), &taken, &stop);
                }
            }));
        }
        wait_for("a beginning of each", || bulk.taken().iter().all(|&count| count > 4096).then_some(()));
        bulk
    }

    fn taken(&self) -> Vec<u64> {
        self.taken.iter().map(|taken| taken.load(Ordering::Relaxed)).collect()
    }
}

/// Takes the file "endless" to its end, or until nobody wants it any more.
fn take_all(dialect: Dialect, mut stream: TcpStream, taken: &AtomicU64, stop: &AtomicBool) {
    match dialect {
        V1 => stream.write_all(&request(b"endless")).unwrap(),
        V2 => {
            let mut bytes = request(format!("{HELLO}{WIDE}").as_bytes());
            let mut frame = BytesMut::new();
            get(1, "endless").encode(&mut frame).unwrap();
            bytes.extend_from_slice(&frame);
            stream.write_all(&bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
    }
    let mut buffer = vec![0; 256 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer)
        && !stop.load(Ordering::Relaxed)
    {
        taken.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.takers.drain(..).for_each(|taker| drop(taker.join()));
    }
}

/// A site with the files "small" and "endless".
fn site_of_both() -> Site {
    let site = Site::alone();
    site.file("small", &noise(1, SMALL));
    let endless = std::fs::File::create(site.root("endless")).unwrap();
    endless.set_len(ENDLESS as u64).unwrap();
    drop(endless);
    // In memory, and its digest known.
    site
}

/// The median and the 99th percentile of how long the small file takes, fetched again and again, told to
/// whoever runs the tests with their output.
fn latencies(what: &str, count: usize, mut fetch: impl FnMut()) -> [Duration; 2] {
    let mut times: Vec<_> = (0..count)
        .map(|_| {
            let began = Instant::now();
            fetch();
            began.elapsed()
        })
        .collect();
    times.sort();
    let [half, most] = [times[count / 2], times[(count * 99 / 100).min(count - 1)]];
    println!("{what}: p50 {half:?}, p99 {most:?}");
    [half, most]
}

#[test]
fn the_rate_of_all_is_held_over_either_version_and_any_number_of_connections() {
    const RATE: usize = 4_000_000;
    let site = Site::alone();
    let data = Arc::new(noise(2, 1_500_000));
    site.file("file", &data);
    let server = site.serve(&["--limit-rate", "4MB/s"]);
    for dialects in [&[V1, V1][..], &[V2, V2], &[V1, V2, V1, V2]] {
        let fetches = dialects.iter().map(|&dialect| (dialect, server.connect())).collect();
        let took = fetch_all(fetches, "file", &data);
        // What may be sent at once when nobody has asked for a while is a tenth of a second's.
        let bytes = data.len() * dialects.len() - RATE / 10;
        assert_paced(*took.iter().max().unwrap(), bytes, RATE);
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn one_connection_alone_gets_the_whole_rate() {
    const RATE: usize = 5_000_000;
    let site = Site::alone();
    let data = Arc::new(noise(3, RATE));
    site.file("file", &data);
    let server = site.serve(&["--limit-rate", "5MB/s", "--limit-rate-per-client", "10MB/s"]);
    for dialect in [V1, V2] {
        let took = fetch_all(vec![(dialect, server.connect())], "file", &data);
        assert_paced(took[0], data.len() - RATE / 10, RATE);
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_rate_of_a_client_is_that_of_its_address_and_others_have_their_own() {
    const RATE: usize = 1_000_000;
    let site = Site::alone();
    let data = Arc::new(noise(4, 1_000_000));
    site.file("file", &data);
    let server = site.launch(&[]).env("ONEPORT_LIMIT_RATE_PER_CLIENT", "1MB").serve();
    let from = |last| connect_from(&server, last);
    let fetches = vec![(V1, from(2)), (V2, from(2)), (V1, from(3)), (V2, from(3))];
    let took = fetch_all(fetches, "file", &data);
    for of_one in took.chunks(2) {
        assert_paced(*of_one.iter().max().unwrap(), 2 * data.len() - RATE / 10, RATE);
    }
}

#[test]
fn a_client_that_comes_back_at_once_gets_no_second_burst() {
    const RATE: usize = 200_000;
    const TIMES: usize = 40;
    let site = Site::alone();
    let data = Arc::new(noise(5, 10_000));
    site.file("file", &data);
    let server = site.serve(&["--limit-rate-per-client", "200KB", "--v1-pause", "0"]);
    let began = Instant::now();
    for _ in 0..TIMES {
        assert!(fetch(V1, server.connect(), "file") == *data);
    }
    assert_paced(began.elapsed(), TIMES * data.len() - RATE / 10, RATE);
}

#[test]
fn nobody_is_called_idle_or_slow_who_waits_for_a_turn() {
    let site = Site::alone();
    let data = Arc::new(noise(6, 2500));
    site.file("file", &data);
    // Each waits for about a second between two turns.
    let server = site.serve(&["--limit-rate", "4000", "--idle-timeout", "300ms", "--min-rate", "100KiB"]);
    let fetches = [V1, V2, V1, V2].map(|dialect| (dialect, server.connect()));
    let took = fetch_all(fetches.into(), "file", &data);
    assert!(*took.iter().max().unwrap() > Duration::from_secs(2), "{took:?}: there was nothing to wait for");
    assert!(!server.log().contains("cut"), "{}", server.log());
}

#[test]
fn the_end_of_the_server_waits_for_nobodys_turn() {
    let site = Site::alone();
    site.file("file", &noise(7, 200_000));
    let mut server = site.serve(&["--limit-rate", "400", "--drain-timeout", "300ms"]);
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(&request(b"file")).unwrap();
            stream
        })
        .collect();
    server.wait_log_count("Sending file", 8);
    let began = Instant::now();
    server.signal(Signal::TERM);
    server.wait_exit();
    let took = began.elapsed();
    assert!(took < Duration::from_millis(1300), "{took:?}, and a turn of all takes 2 s");
    drop(waiting);
}

#[test]
fn beside_transfers_that_fill_the_rate_a_small_file_takes_its_turn_and_all_get_equally_much() {
    let site = site_of_both();
    let server = site.serve(&["--limit-rate", "4MB/s", "--v1-pause", "0"]);
    let bulk = Bulk::begin(&server, 8);
    let before = bulk.taken();
    let began = Instant::now();
    for dialect in [V1, V2] {
        let [half, most] = latencies(&format!("{dialect:?}, 8 limited transfers beside it"), 10, || {
            assert_eq!(fetch(dialect, server.connect(), "small").len(), SMALL);
        });
        // Two turns of 8 times 5 ms.
        assert!(half < Duration::from_millis(200) && most < Duration::from_millis(400), "{half:?} {most:?}");
    }
    wait_for("two seconds", || (began.elapsed() > Duration::from_secs(2)).then_some(()));
    let got: Vec<_> = bulk.taken().iter().zip(before).map(|(after, before)| after - before).collect();
    let (least, most) = (*got.iter().min().unwrap(), *got.iter().max().unwrap());
    assert!(least * 10 >= most * 8, "{got:?}");
}

#[test]
fn behind_a_large_file_on_its_own_connection_a_small_one_takes_its_turn_where_the_rate_is_limited() {
    let site = site_of_both();
    let server = site.serve(&["--limit-rate", "1MB/s"]);
    let [half, most] = behind_a_large_one(&server, 15);
    // A frame and the small file: about 25 ms, where a long frame would take a second.
    assert!(half < Duration::from_millis(150) && most < Duration::from_millis(400), "{half:?} {most:?}");
}

/// How long the small file takes on a connection on which a large one comes.
fn behind_a_large_one(server: &Server, count: u32) -> [Duration; 2] {
    let mut asker = Asker::new(server, WIDE);
    assert!(asker.send(&[get(1, "endless")]));
    while asker.hear().unwrap().data.is_empty() {}
    let mut request = 1;
    latencies("small behind large on one connection", count as usize, || {
        request += 1;
        assert!(asker.send(&[get(request, "small")]));
        assert_eq!(asker.hear_all(request).unwrap().len(), SMALL);
    })
}

#[test]
fn without_a_limit_too_a_small_file_does_not_wait_for_large_ones() {
    let site = site_of_both();
    let server = site.serve(&["--v1-pause", "0"]);
    // Their digests are computed before anything is measured.
    for dialect in [V1, V2] {
        fetch(dialect, server.connect(), "endless");
    }
    for count in [2, 8] {
        for dialect in [V1, V2] {
            let bulk = Bulk::begin(&server, count);
            let [half, _] = latencies(&format!("{dialect:?}, {count} transfers beside it"), 40, || {
                assert_eq!(fetch(dialect, server.connect(), "small").len(), SMALL);
            });
            drop(bulk);
            assert!(half < Duration::from_millis(100), "{half:?}");
        }
    }
    let [half, _] = behind_a_large_one(&server, 20);
    assert!(half < Duration::from_millis(100), "{half:?}");
    // However fast the machine is: what the sockets hold comes before, but not the large file.
    let mut asker = Asker::new(&server, WIDE);
    assert!(asker.send(&[get(1, "endless"), get(2, "small")]));
    let (mut before, mut small) = (0, 0);
    while small < SMALL {
        let told = asker.hear().unwrap();
        match told.frame {
            ServerFrame::Data { request: 2, .. } => small += told.data.len(),
            _ => before += told.data.len(),
        }
    }
    assert!(before < ENDLESS / 4, "{before} bytes of the large file came first");
}

#[test]
fn a_client_keeps_its_own_limit_over_all_its_connections() {
    let site = Site::alone();
    let data = noise(8, 64 << 20);
    site.file("large", &data);
    site.file("file", &data[..6_000_000]);
    let server = site.serve(&[]);
    let place = Place::new();
    for (name, rate, options) in [
        ("large", 40_000_000, &["-j", "4", "--protocol", "v2"][..]),
        ("file", 6_000_000, &["--protocol", "v1"]),
        ("file", 6_000_000, &["-o", "-"]),
    ] {
        let limit = format!("{rate}/s");
        let began = Instant::now();
        let ended =
            place.fetch(name, server.address, &[&["--limit-rate", &limit, "--no-sync"], options].concat());
        let ended = ended.end();
        let took = began.elapsed();
        ended.expect(0);
        let bytes = if name == "large" { data.len() } else { 6_000_000 };
        let due = (bytes - rate / 10) as f64 / rate as f64;
        println!("{took:?} for {due} s: {options:?}");
        // The program has to start and to end too.
        let range = 0.95 * due..1.1 * due + 0.2;
        assert!(range.contains(&took.as_secs_f64()), "{took:?} instead of {due} s for {options:?}");
    }
}

#[test]
fn a_client_at_its_least_rate_is_kept_and_ends_at_once_when_it_is_told_to() {
    let site = Site::alone();
    site.file("file", &noise(9, 8 << 20));
    let server = site.serve(&["--idle-timeout", "1s"]);
    let place = Place::new();
    for protocol in ["v1", "v2"] {
        let options = ["--limit-rate", "4KiB", "--timeout", "1s", "--protocol", protocol];
        let running = place.fetch("file", server.address, &options).start();
        server.wait_log("file");
        thread::sleep(Duration::from_millis(1500));
        let began = Instant::now();
        running.signal(Signal::INT);
        let ended = running.end();
        let took = began.elapsed();
        assert_eq!((ended.code.or(ended.signal.map(|signal| 128 + signal))), Some(130), "{}", ended.stderr);
        assert!(took < Duration::from_millis(500), "{took:?}");
    }
}
