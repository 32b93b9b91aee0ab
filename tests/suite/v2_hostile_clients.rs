//! Clients that speak version 2 and want to hurt: the server says what was wrong or drops them, its
//! memory, tasks and descriptors stay bounded, others are served meanwhile, and the log tells the truth.

use std::fs::File;
use std::io::Write as _;
use std::net::Shutdown;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use oneport::codec::v2::{ByteRange, ClientFrame, Get, ServerFrame};

use crate::raw::{self, fetch_whole, noise, request};
use crate::serving::{CATALOG_DESCRIPTORS, Server, Site, wait_for};
use crate::v2_peer::{Asker, MIB, frame, get, stat};
use crate::v2_transfers::transfers;

/// How long the server of these tests waits, as an option.
const SHORT: &str = "600ms";
/// Most memory that one hostile client may cost.
const MEMORY_MAX: u64 = 24 << 20;
/// Requests that may be in flight.
const REQUESTS: u32 = 1024;
/// Threads that the server may have for work that waits for the disk.
const BLOCKING_THREADS: u64 = oneport::limits::BLOCKING_THREADS as u64;
/// What the log says of clients that do not read.
const CAUSES: [&str; 2] = ["no byte was taken for 0.6 s", "fewer than 1024 bytes a second were taken"];
const NOT_IN_THE_FILE: u16 = 2;
const NOT_FOUND: u16 = 3;
const NOT_THERE: u16 = 7;
const VIOLATED: u16 = 8;
const LIMIT: u16 = 10;
const CANCELLED: u16 = 130;

fn site() -> Site {
    let site = Site::new();
    site.file("small", b"hello");
    site.file("large", &noise(20, 4 * MIB + 3));
    site
}

/// After an attack everything is as it was, and others are served.
struct Rest {
    server: Server,
    descriptors: usize,
    threads: u64,
    memory: u64,
}

impl Rest {
    fn new(site: &Site, options: &[&str]) -> Self {
        let server = site.serve(&[options, &["--hash-ahead", "0"]].concat());
        let mut asker = Asker::new(&server, "");
        asker.send(&[get(1, "small"), get(2, "large")]);
        assert_eq!(asker.hear_all(1).unwrap(), b"hello");
        asker.hear_all(2).unwrap();
        drop(asker);
        assert_eq!(fetch_whole(server.address, "small"), b"hello");
        let descriptors = server.descriptors_at_rest();
        Self { descriptors, threads: server.threads(), memory: server.memory(), server }
    }

    fn assert_others_are_served(&self) {
        let mut asker = Asker::new(&self.server, "");
        asker.send(&[get(1, "small")]);
        assert_eq!(asker.hear_all(1).unwrap(), b"hello");
        assert_eq!(fetch_whole(self.server.address, "small"), b"hello");
    }

    fn assert_back(mut self) {
        self.assert_others_are_served();
        let server = &self.server;
        let most = self.descriptors + CATALOG_DESCRIPTORS;
        wait_for("all descriptors closed", || (server.descriptors() <= most).then_some(()));
        // Work for threads that comes again and again may find none that rests already, so their number says
        // little while there is work; behind it they go, after ten seconds of rest.
        assert!(server.threads() <= self.threads + BLOCKING_THREADS, "{} threads", server.threads());
        wait_for("threads that rest gone", || (server.threads() <= self.threads + 12).then_some(()));
        let cost = server.peak_memory().saturating_sub(self.memory);
        assert!(cost <= MEMORY_MAX, "{cost} bytes of memory");
        let log = wait_for("an end of each connection", || {
            let log = server.log();
            let count = |text| log.matches(text).count();
            (count("New connection from") == count("Connection closed with")).then_some(log)
        });
        let count = |text| log.matches(text).count();
        assert_eq!(count("Sending file '"), count("sent successfully to") + count(" cut after "), "{log}");
        for text in [&log, &server.stderr()] {
            assert!(!text.contains("panicked") && !text.contains("ERROR"), "{text}");
        }
        assert!(!self.server.has_ended());
    }
}

fn ranges(request: u32, name: &str, ranges: &[(u64, u64)]) -> ClientFrame {
    let ranges = ranges.iter().map(|&(offset, len)| ByteRange { offset, len }).collect();
    ClientFrame::Get(request, Get { name: Bytes::copy_from_slice(name.as_bytes()), ranges, ..Get::default() })
}

/// A GET whose ranges the encoder of the client would not make.
fn raw_ranges(name: &str, count: u16, ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
    body.extend(name.as_bytes());
    body.extend([0; 16 + 8 + 16]);
    body.extend(count.to_be_bytes());
    for (offset, len) in ranges {
        body.extend(offset.to_be_bytes());
        body.extend(len.to_be_bytes());
    }
    frame(0x02, 1, &body)
}

#[test]
fn ranges_that_no_file_has_are_refused_and_others_are_cut_at_the_end() {
    const FAR: u64 = i64::MAX as u64;
    let site = site();
    let rest = Rest::new(&site, &[]);
    let many: Vec<_> = (0..257).map(|at| (at * 2, 1)).collect();
    for (what, count, ranges) in [
        ("overlapping", 2, &[(0, 10), (9, 10)][..]),
        ("backwards", 2, &[(100, 10), (0, 10)]),
        ("empty", 1, &[(0, 0)]),
        ("behind all files", 1, &[(1, FAR)]),
        ("overflowing", 1, &[(u64::MAX, 2)]),
        ("too many", 257, &many),
        ("fewer than announced", 2, &[(0, 1)]),
    ] {
        let mut asker = Asker::new(&rest.server, "");
        asker.stream.write_all(&raw_ranges("large", count, ranges)).unwrap();
        let (number, code, text) = asker.hear_error().expect(what);
        assert_eq!((number, code), (0, VIOLATED), "{what}: {text}");
        assert!(asker.hear().is_none(), "{what}: the connection ends");
    }
    let mut asker = Asker::new(&rest.server, "");
    let size = 4 * MIB as u64 + 3;
    asker.send(&[
        ranges(1, "large", &[(0, FAR)]),
        ranges(2, "large", &[(size, 1)]),
        ranges(3, "large", &[(FAR - 1, 1)]),
        ranges(4, "large", &many[..256]),
        ranges(5, "large", &[(size - 1, FAR - size)]),
    ]);
    let mut codes = Vec::new();
    let mut bytes = [0; 6];
    while codes.len() < 5 {
        let told = asker.hear().expect("the connection ended");
        match told.frame {
            ServerFrame::Data { request, len, .. } => bytes[request as usize] += len,
            ServerFrame::End(request, _) => codes.push((request, 0)),
            ServerFrame::Error(request, code, _) => codes.push((request, code.0)),
            _ => {}
        }
    }
    codes.sort_unstable();
    assert_eq!(codes, [(1, 0), (2, NOT_IN_THE_FILE), (3, NOT_IN_THE_FILE), (4, 0), (5, 0)]);
    assert_eq!(bytes, [0, size, 0, 0, MIB as u64, 3]);
    drop(asker);
    rest.assert_back();
}

/// Sends without ever reading until the server has had enough of it; returns why, as the log says.
fn flood(rest: &Rest, mut make: impl FnMut(u32) -> Vec<ClientFrame>) -> String {
    let mut stream = raw::connect_narrow(rest.server.address);
    let peer = stream.local_addr().unwrap();
    stream.write_all(&request(b"?oneport/2?")).unwrap();
    let mut number = 0;
    let began = Instant::now();
    loop {
        let mut bytes = BytesMut::new();
        for _ in 0..500 {
            number += 1;
            make(number).iter().for_each(|frame| frame.encode(&mut bytes).unwrap());
        }
        if stream.write_all(&bytes).is_err() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "still listened to after {number} rounds");
    }
    rest.assert_others_are_served();
    let log = rest.server.wait_log(&format!("Connection closed with {peer}: "));
    let line = log.lines().find(|line| line.contains(&format!("closed with {peer}"))).unwrap();
    line.to_owned()
}

#[test]
fn floods_of_requests_that_are_never_read_are_held_up_and_dropped() {
    let site = site();
    let rest = Rest::new(&site, &["--idle-timeout", SHORT]);
    let ended = flood(&rest, |_| vec![ClientFrame::Ping(0, [7; 8])]);
    assert!(CAUSES.iter().any(|cause| ended.contains(cause)), "{ended}");
    let ended = flood(&rest, |number| vec![stat(number, b"small")]);
    assert!(CAUSES.iter().any(|cause| ended.contains(cause)), "{ended}");
    let ended = flood(&rest, |number| vec![get(number, "large")]);
    assert!(CAUSES.iter().any(|cause| ended.contains(cause)), "{ended}");
    let ended = flood(&rest, |number| vec![get(number, "large"), ClientFrame::Cancel(number)]);
    assert!(CAUSES.iter().any(|cause| ended.contains(cause)), "{ended}");
    let ended = flood(&rest, |number| vec![stat(number, b"../../etc/passwd")]);
    assert!(CAUSES.iter().any(|cause| ended.contains(cause)), "{ended}");
    rest.assert_back();
}

#[test]
fn a_storm_of_cancellations_ends_each_request_once_and_the_connection_goes_on() {
    let site = site();
    let rest = Rest::new(&site, &[]);
    let mut asker = Asker::new(&rest.server, "window=1");
    const ROUNDS: u32 = 300;
    for number in 1..=ROUNDS {
        let proven = Get { proven: true, name: "large".into(), ..Get::default() };
        asker.send(&[
            ClientFrame::Get(number, proven),
            ClientFrame::Cancel(number),
            ClientFrame::Cancel(number),
            ClientFrame::Cancel(number + 1),
            ClientFrame::Window(number, 1 << 62),
        ]);
        let (ended, code, _) = asker.hear_error().unwrap();
        assert_eq!((ended, code), (number, CANCELLED));
    }
    assert!(asker.is_answered());
    drop(asker);
    rest.assert_back();
}

#[test]
fn files_whose_opening_is_cancelled_again_and_again_are_not_opened_in_heaps() {
    const ROUNDS: u32 = 100;
    /// Openings at a time.
    const AT_ONCE: u32 = 8;
    let site = site();
    let path = site.file("fresh", &noise(24, MIB));
    // Of a time to come: nothing can be remembered of it, so each opening reads and hashes all of it.
    let to_come = SystemTime::now() + Duration::from_secs(3600);
    File::options().write(true).open(path).unwrap().set_modified(to_come).unwrap();
    let rest = Rest::new(&site, &[]);
    let mut asker = Asker::new(&rest.server, "window=0");
    let mut most = 0;
    for round in 0..ROUNDS {
        let next = 1 + round * AT_ONCE;
        let gone = next.saturating_sub(AT_ONCE).max(1)..next;
        let frames =
            gone.map(ClientFrame::Cancel).chain((next..next + AT_ONCE).map(|number| get(number, "fresh")));
        asker.send(&frames.collect::<Vec<_>>());
        assert!(asker.is_answered(), "round {round}");
        most = most.max(rest.server.descriptors());
    }
    drop(asker);
    // Those that have a turn, also if they were given up; those that are open for requests; and those that are
    // held for further ones.
    let due = rest.descriptors
        + CATALOG_DESCRIPTORS
        + oneport::limits::V2_OPENING_MAX
        + AT_ONCE as usize
        + oneport::limits::V2_HELD_MAX
        + 2;
    println!("{most} descriptors, {due} would be due");
    assert!(most <= due, "{most} descriptors instead of {due}");
    rest.assert_back();
}

#[test]
fn one_request_too_many_is_refused_and_the_others_live() {
    let site = site();
    let rest = Rest::new(&site, &[]);
    let mut asker = Asker::new(&rest.server, "window=0");
    asker.send(&(1..=REQUESTS + 1).map(|number| get(number, "small")).collect::<Vec<_>>());
    let (number, code, _) = asker.hear_error().unwrap();
    assert_eq!((number, code), (REQUESTS + 1, LIMIT));
    asker.send(&[ClientFrame::Window(7, 5)]);
    assert_eq!(asker.hear_all(7).unwrap(), b"hello");
    // The one that takes its place comes behind all others.
    asker.send(&[get(REQUESTS + 2, "small"), ClientFrame::Window(REQUESTS + 2, 5)]);
    assert!(asker.is_answered());
    asker.send(&(1..=REQUESTS).map(|number| ClientFrame::Window(number, 5)).collect::<Vec<_>>());
    assert_eq!(asker.hear_all(REQUESTS + 2).unwrap(), b"hello");
    drop(asker);
    rest.assert_back();
}

#[test]
fn long_names_and_ranges_that_are_never_read_cost_no_more_than_their_bound() {
    /// Connections that do it at once: the bound is one for each of them.
    const AT_ONCE: usize = 4;
    let site = site();
    let rest = Rest::new(&site, &[]);
    let many: Vec<_> = (0..256).map(|at| (at * 2, 1)).collect();
    let name = vec!["x".repeat(255); 16].join("/");
    assert!((4000..=4096).contains(&name.len()));
    let mut askers = Vec::new();
    for _ in 0..AT_ONCE {
        let mut asker = Asker::new(&rest.server, "window=0");
        // As many as are begun, with a window that is shut; the others have to wait.
        asker.send(&(1..=64).map(|number| get(number, "large")).collect::<Vec<_>>());
        let mut begun = 0;
        while begun < 64 {
            let told = asker.hear().expect("the connection ended");
            begun += u32::from(matches!(told.frame, ServerFrame::File(..)));
        }
        asker.send(&(65..=REQUESTS).map(|number| ranges(number, &name, &many)).collect::<Vec<_>>());
        askers.push(asker);
    }
    rest.assert_others_are_served();
    for asker in &mut askers {
        let (mut refused, mut waiting) = (0, 0);
        asker.send(&[ClientFrame::Ping(0, [9; 8])]);
        loop {
            match asker.hear().expect("the connection ended").frame {
                ServerFrame::Error(request, code, _) if request > 64 => {
                    assert_eq!(code.0, LIMIT);
                    refused += 1;
                }
                ServerFrame::Wait(_) => waiting += 1,
                ServerFrame::Pong(..) => break,
                _ => {}
            }
        }
        let held = REQUESTS - 64 - refused;
        let most = u32::try_from((1 << 20) / (name.len() + 256 * 16)).unwrap();
        assert_eq!(held, most, "{waiting} were told to wait");
    }
    drop(askers);
    rest.assert_back();
}

#[test]
fn a_window_that_is_never_opened_is_dropped_for_idleness_and_one_that_overflows_is_as_wide_as_can_be() {
    let site = site();
    let rest = Rest::new(&site, &["--idle-timeout", SHORT]);
    let mut asker = Asker::new(&rest.server, "window=0");
    let peer = asker.stream.local_addr().unwrap();
    asker.send(&[get(1, "large")]);
    while asker.hear().is_some() {}
    rest.server.wait_log(&format!("Connection closed with {peer}: idle for 0.6 s"));
    let log = rest.server.wait_log(&format!("Transfer of 'large' to {peer} cut after 0 of 4194307 bytes: "));
    assert!(log.contains("bytes: idle for 0.6 s"), "{log}");
    let mut asker = Asker::new(&rest.server, "window=4611686018427387904");
    let wide = ClientFrame::Window(1, 1 << 62);
    asker.send(&[get(1, "large"), wide.clone(), wide.clone(), wide.clone(), wide.clone(), wide]);
    assert_eq!(asker.hear_all(1).unwrap().len(), 4 * MIB + 3);
    // One that is wider than any file is none.
    asker.stream.write_all(&frame(0x03, 1, &u64::MAX.to_be_bytes())).unwrap();
    assert_eq!(asker.hear_error().unwrap().1, VIOLATED);
    drop(asker);
    rest.assert_back();
}

#[test]
fn who_ends_its_side_behind_a_shut_window_is_let_go_at_once() {
    let site = site();
    let rest = Rest::new(&site, &[]);
    let mut asker = Asker::new(&rest.server, "window=0");
    let peer = asker.stream.local_addr().unwrap();
    asker.send(&[get(1, "large")]);
    while !matches!(asker.hear().unwrap().frame, ServerFrame::File(..)) {}
    let closed = Instant::now();
    asker.stream.shutdown(Shutdown::Write).unwrap();
    while asker.hear().is_some() {}
    // Well before it would be for idleness, which it used to wait for.
    assert!(closed.elapsed() < Duration::from_secs(10), "{:?}", closed.elapsed());
    rest.server.wait_log(&format!("Connection closed with {peer}: closed before all that was due had come"));
    drop(asker);
    rest.assert_back();
}

#[test]
fn a_frame_that_never_gets_whole_does_not_keep_a_connection_open() {
    let site = site();
    let rest = Rest::new(&site, &["--idle-timeout", SHORT]);
    let asker = Asker::new(&rest.server, "");
    let mut dripping = asker.stream.try_clone().unwrap();
    let peer = dripping.local_addr().unwrap();
    let watcher = std::thread::spawn(move || {
        let mut asker = asker;
        while asker.hear().is_some() {}
    });
    // Each byte comes well within the time; all of them would take minutes.
    for byte in frame(0x80, 0, &[7; 8000]) {
        if watcher.is_finished() || dripping.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
        assert!(!rest.server.log().contains("panicked"));
    }
    watcher.join().unwrap();
    rest.server.wait_log(&format!("Connection closed with {peer}: idle for 0.6 s"));
    rest.assert_back();
}

#[test]
fn unknown_kinds_and_lengths_that_lie_are_violations_unless_they_are_optional() {
    let site = site();
    let rest = Rest::new(&site, &[]);
    let mut asker = Asker::new(&rest.server, "");
    for kind in [0x80, 0x81, 0xff] {
        for len in [0, 1, 16_384 - 5] {
            asker.stream.write_all(&frame(kind, 9, &vec![1; len])).unwrap();
        }
    }
    assert!(asker.is_answered());
    let lie = |length: u32| [&length.to_be_bytes()[..], &[1, 0, 0, 0, 1, 0, 0, 1, b'x']].concat();
    for wrong in [
        frame(0x00, 1, b""),
        frame(0x06, 1, b""),
        frame(0x41, 0, b"minor=0"),
        frame(0x7f, 1, b""),
        frame(0x01, 1, b""),
        frame(0x01, 1, &[0, 0xff, 0xff]),
        frame(0x02, 1, &[0, 0, 1, b'x']),
        frame(0x03, 1, b"short"),
        frame(0x05, 0, b"short"),
        frame(0x01, 0, &[0, 0, 1, b'x']),
        lie(0),
        lie(4),
        lie(16_385),
        lie(u32::MAX),
    ] {
        let mut asker = Asker::new(&rest.server, "");
        asker.stream.write_all(&wrong).unwrap();
        let shown = wrong[..wrong.len().min(12)].escape_ascii().to_string();
        let (number, code, text) = asker.hear_error().unwrap_or_else(|| panic!("nothing was said: {shown}"));
        assert_eq!((number, code), (0, VIOLATED), "{shown}: {text}");
        assert!(asker.hear().is_none(), "{shown}");
    }
    // A number that was used before.
    let mut asker = Asker::new(&rest.server, "");
    asker.send(&[stat(5, b"small"), stat(5, b"small")]);
    assert_eq!(asker.hear_error().unwrap().1, VIOLATED);
    rest.assert_back();
}

#[test]
fn a_violation_in_the_middle_of_a_transfer_is_the_cause_that_is_logged() {
    let site = site();
    let rest = Rest::new(&site, &[]);
    let mut asker = Asker::new(&rest.server, "window=1000");
    asker.send(&[get(1, "large")]);
    while !matches!(asker.hear().unwrap().frame, ServerFrame::Data { .. }) {}
    asker.stream.write_all(&frame(0x06, 1, b"")).unwrap();
    assert_eq!(asker.hear_error().unwrap().1, VIOLATED);
    drop(asker);
    let log = rest.server.wait_log("cut after 1000 of 4194307 bytes: ");
    assert!(!log.contains("the connection ended"), "{log}");
    rest.assert_back();
}

#[test]
fn hellos_of_every_kind_are_understood_or_refused_as_names_are() {
    let site = site();
    let rest = Rest::new(&site, &[]);
    let first = "02000000010000057374".to_owned();
    for good in [
        "",
        "minor=0",
        "minor=7&window=1&may=holes,links",
        "later=x",
        "may=",
        "a-b=",
        "first=0500000000414141414141414141",
    ] {
        assert!(Asker::new(&rest.server, good).is_answered(), "{good}");
    }
    for need in ["holes", "links", "x-1", "holes,links"] {
        let mut asker = Asker::new(&rest.server, &format!("need={need}"));
        let (number, code, text) = asker.hear_error().unwrap();
        assert_eq!((number, code), (0, NOT_THERE), "{text}");
        assert!(asker.hear().is_none());
    }
    let long = format!("a={}", "x".repeat(1024));
    for wrong in [
        "x",
        "=",
        "a",
        "A=1",
        "a=1&a=2",
        "minor=-1",
        "minor=",
        "minor=99999999999",
        "window=4611686018427387905",
        "need=A",
        "need=,",
        "first=0",
        "first=zz",
        "first=",
        "first=AA",
        "a=b=c",
        "a= ",
        "&",
        &first,
        &long,
    ] {
        let mut stream = rest.server.connect();
        stream.write_all(&request(format!("?oneport/2?{wrong}").as_bytes())).unwrap();
        let said = raw::read_all(&mut stream);
        assert!(said.starts_with(b"ERROR"), "{wrong}: {}", said.escape_ascii());
    }
    for other in ["?oneport/3?", "?oneport/", "?oneport/2"] {
        assert!(matches!(raw::fetch(rest.server.address, other), raw::Answer::Refused(_)), "{other}");
    }
    rest.assert_back();
}

#[test]
fn a_client_that_closes_its_side_after_the_request_gets_all_of_the_answer() {
    let site = site();
    let rest = Rest::new(&site, &[]);
    let mut asker = Asker::new(&rest.server, "");
    asker.send(&[get(1, "large"), stat(2, b"small")]);
    asker.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(asker.hear_all(1).unwrap().len(), 4 * MIB + 3);
    while asker.hear().is_some() {}
    rest.assert_back();
}

#[test]
fn a_client_that_goes_at_any_frame_leaves_nothing() {
    let site = site();
    let rest = Rest::new(&site, &[]);
    let mut asker = Asker::new(&rest.server, "");
    asker.send(&[get(1, "large")]);
    let mut frames = 0;
    while !matches!(asker.hear().unwrap().frame, ServerFrame::End(..)) {
        frames += 1;
    }
    drop(asker);
    for heard in 0..=frames + 1 {
        for is_reset in [false, true] {
            let mut asker = Asker::new(&rest.server, "");
            asker.send(&[get(1, "large")]);
            for _ in 0..heard {
                asker.hear().unwrap();
            }
            if is_reset {
                raw::reset(asker.stream);
            }
        }
    }
    let whole = [request(b"?oneport/2?"), raw_ranges("large", 1, &[(0, 1)])].concat();
    for sent in 0..whole.len() {
        let mut stream = rest.server.connect();
        stream.write_all(&whole[..sent]).unwrap();
    }
    rest.assert_back();
}

#[test]
fn names_that_try_to_leave_the_folder_are_all_refused_over_version_2() {
    let site = crate::server_names::hostile_site();
    let names = crate::server_names::names(&site);
    let server = site.serve(&[]);
    let mut asker = Asker::new(&server, "");
    let mut number = 0;
    let mut tried = 0;
    for name in names.iter().filter(|name| name.len() <= 4096) {
        let wanted =
            ClientFrame::Get(number + 2, Get { name: Bytes::copy_from_slice(name), ..Get::default() });
        asker.send(&[stat(number + 1, name), wanted]);
        for _ in 0..2 {
            let told = asker.hear_error();
            let shown = name[..name.len().min(200)].escape_ascii();
            let (_, code, text) = told.unwrap_or_else(|| panic!("'{shown}' ended the connection"));
            assert_eq!((code, text.as_str()), (NOT_FOUND, "there is no such file"), "'{shown}'");
        }
        number += 2;
        tried += 1;
    }
    assert!(tried >= crate::server_names::NAMES_MIN, "{tried}");
    asker.send(&[get(number + 1, crate::server_names::SERVED)]);
    assert_eq!(asker.hear_all(number + 1).unwrap(), b"inside", "and it still serves");
    let log = server.wait_log_count("Refused '", 2 * tried);
    assert!(log.lines().all(|line| !line.contains('\x1b') && line.starts_with(char::is_numeric)));
}

#[test]
fn the_end_of_a_file_whose_root_is_not_known_is_not_waited_for() {
    let site = site();
    let server = site.serve(&["--hash-ahead", "0"]);
    let mut asker = Asker::new(&server, "");
    asker.send(&[get(1, "large")]);
    let mut waits = 0;
    loop {
        match asker.hear().unwrap().frame {
            ServerFrame::End(..) => break,
            ServerFrame::File(_, file) => assert_eq!(file.root, None, "it is too new to be known"),
            ServerFrame::Wait(_) => waits += 1,
            _ => {}
        }
    }
    // All values are known when the last block was sent; only who forgets to look waits for 2 s.
    assert_eq!(waits, 0);
}

#[test]
fn asking_for_values_alone_is_no_transfer() {
    let site = site();
    let rest = Rest::new(&site, &[]);
    let before = transfers(&rest.server.log());
    let mut asker = Asker::new(&rest.server, "");
    let values = Get { values_only: true, name: "large".into(), ..Get::default() };
    asker.send(&[ClientFrame::Get(1, values)]);
    assert_eq!(asker.hear_all(1).unwrap(), b"");
    let peer = asker.stream.local_addr().unwrap();
    drop(asker);
    let log = rest.server.wait_log(&format!("Connection closed with {peer}"));
    assert!(log.contains(&format!("Client {peer} requested file: large")), "{log}");
    let after = transfers(&log);
    // The transfers before it may have ended since.
    assert_eq!(after[0], before[0], "{log}");
    rest.assert_back();
}
