//! Ten thousand connections that say nothing: what they cost, beside a transfer and afterwards.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::machine::Share;
use crate::raw::{self, fetch_whole, request};
use crate::serving::{Server, Site, skipped, wait_for, wait_settled};

/// Connections that say nothing.
const IDLE: usize = 10_000;
/// Descriptors that a test, or a server, has besides.
const DESCRIPTORS_BESIDES: usize = 256;
/// Most memory of the server for each of them, in bytes.
const MEMORY_EACH_MAX: u64 = 4 << 10;
/// Part of it that the server may keep when they are gone, as one part in this many, and how long it
/// may take to give back the rest.
const KEPT_SHARE: u64 = 3;
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(40);
/// How often they come and go.
const ROUNDS: u32 = 2;
/// Size of the file whose transfer is measured: zeros that take no room.
const SIZE: u64 = 256 << 20;
/// How often the speed without and beside them is compared, at least, and where it seems to differ.
const SPEED_ROUNDS: usize = 7;
const SPEED_ROUNDS_MAX: usize = 28;
/// Transfers of which each time the fastest one counts.
const TRANSFERS: usize = 5;
/// Least speed beside them, of the speed without.
const SPEED_MIN: f64 = 0.9;

/// Lets this process open as many files as it may; how many that is.
fn raise_descriptors() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.map_or(usize::MAX, |maximum| maximum as usize)
}

/// How many of the wanted connections this machine allows; says so if it is not all of them.
fn allowed() -> usize {
    // The server keeps two descriptors for each connection: one for its file.
    let count = (raise_descriptors().saturating_sub(DESCRIPTORS_BESIDES) / 2).min(IDLE);
    if count < IDLE {
        skipped(
            &format!("{} of {IDLE} idle connections", IDLE - count),
            "too few open files allowed (ulimit -Hn)",
        );
    }
    count
}

/// Connects and says nothing, `count` times; returns when the server has accepted them all.
fn connect_idle(server: &Server, count: usize) -> Vec<TcpStream> {
    let before = server.descriptors_at_rest();
    let idle = (0..count).map(|_| server.connect()).collect();
    wait_for("all connections accepted", || (server.descriptors() >= before + count).then_some(()));
    idle
}

/// Ends them by resets: closed ones would keep their ports from later tests for a minute.
fn disconnect(idle: Vec<TcpStream>) {
    idle.into_iter().for_each(raw::reset);
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

/// The fastest one of a few transfers: what else happens on a machine only ever adds time.
fn fastest_transfer(server: &Server, buffer: &mut [u8]) -> Duration {
    (0..TRANSFERS).map(|_| transfer(server, buffer)).min().unwrap()
}

fn site_with_zeros(site: Site) -> Site {
    site.file("a", b"a");
    File::create(site.root("zeros")).unwrap().set_len(SIZE).unwrap();
    wait_settled(&site.root("zeros"));
    site
}

/// A server on one processor, and this thread on another where there is one: whether sender and
/// receiver share a processor by chance matters more than any number of idle connections.
fn serve_on_first_processor(site: &Site) -> Server {
    let options = ["--request-timeout", "1h"];
    let allowed = sched_getaffinity(None).unwrap();
    if !(allowed.is_set(0) && allowed.is_set(1)) {
        return site.serve(&options);
    }
    let mut second = CpuSet::new();
    second.set(1);
    let pinned = site.launch(&options).by_way_of(&["taskset", "-c", "0"]).try_serve();
    sched_setaffinity(None, &second).unwrap();
    pinned.unwrap_or_else(|_| site.serve(&options))
}

/// Whether this is the process that runs in a network of its own.
const IN_OWN_NETWORK: &str = "ONEPORT_TEST_IN_OWN_NETWORK";
/// Brings a new network up. Not every congestion control is steady on loopback: reno is.
const PREPARE: &str =
    "ip link set lo up && echo reno >/proc/sys/net/ipv4/tcp_congestion_control && exec \"$@\"";

/// Runs a test of this suite once more, in a network of its own, and fails if it fails there; says so
/// if this machine has no such networks.
fn in_own_network(test: &str) {
    let _alone = Share::alone();
    let me = std::env::current_exe().unwrap();
    let own = |program: &[&OsStr]| {
        let mut command = Command::new("unshare");
        command.args(["-rn", "sh", "-c", PREPARE, "sh"]).args(program).env(IN_OWN_NETWORK, "1");
        command.output()
    };
    if !own(&["true".as_ref()]).is_ok_and(|tried| tried.status.success()) {
        return skipped(test, "no network of its own can be made here (unshare -rn, ip)");
    }
    let ended = own(&[me.as_os_str(), "--exact".as_ref(), test.as_ref(), "--nocapture".as_ref()]).unwrap();
    let said =
        [ended.stdout, ended.stderr].map(|output| String::from_utf8_lossy(&output).into_owned()).concat();
    print!("{said}");
    assert!(ended.status.success() && said.contains("1 passed"), "it failed in a network of its own");
}

#[test]
fn beside_ten_thousand_idle_connections_a_transfer_keeps_its_speed() {
    if std::env::var_os(IN_OWN_NETWORK).is_none() {
        return in_own_network(
            "server_idle::beside_ten_thousand_idle_connections_a_transfer_keeps_its_speed",
        );
    }
    let site = site_with_zeros(Site::alone());
    let count = allowed();
    let server = serve_on_first_processor(&site);
    let mut buffer = vec![0; 1 << 20];
    transfer(&server, &mut buffer);
    // In turn, so that a machine that changes its speed does so for both.
    let (mut without, mut beside) = (Duration::MAX, Duration::MAX);
    let mut ratio = 0.0;
    for round in 1..=SPEED_ROUNDS_MAX {
        without = without.min(fastest_transfer(&server, &mut buffer));
        let idle = connect_idle(&server, count);
        beside = beside.min(fastest_transfer(&server, &mut buffer));
        disconnect(idle);
        server.descriptors_at_rest();
        ratio = without.as_secs_f64() / beside.as_secs_f64();
        // Both times only get less, down to what they are on a quiet machine: more rounds tell a busy machine
        // from a server that is slower beside them, which it stays.
        if round >= SPEED_ROUNDS && ratio >= SPEED_MIN {
            break;
        }
    }
    println!("{ratio:.3} of the speed beside {count} idle connections: {without:?}, {beside:?}");
    assert!(
        ratio >= SPEED_MIN,
        "{ratio:.3} of the speed beside {count} idle connections: {without:?}, {beside:?}"
    );
}

#[test]
fn ten_thousand_idle_connections_cost_little_memory_and_it_is_given_back() {
    let site = Site::new();
    site.file("a", b"a");
    let count = allowed();
    let server = site.serve(&["--request-timeout", "1h"]);
    for _ in 0..50 {
        fetch_whole(server.address, "a");
    }
    let baseline = server.descriptors_at_rest();
    let before = server.memory();
    // For some seconds the allocator keeps for the next ones what the last ones gave back.
    for round in 0..ROUNDS {
        let idle = connect_idle(&server, count);
        let cost = server.memory().saturating_sub(before);
        let each = cost / count as u64;
        println!("round {round}: {each} bytes for each of {count} idle connections");
        assert!(each <= MEMORY_EACH_MAX, "round {round}: {each} bytes for each idle connection");
        assert_eq!(fetch_whole(server.address, "a"), b"a", "served beside them");
        disconnect(idle);
        assert_eq!(server.descriptors_at_rest(), baseline);
        if cfg!(all(target_os = "linux", target_env = "gnu")) {
            let began = Instant::now();
            let kept = || server.memory().saturating_sub(before);
            while kept() > cost / KEPT_SHARE && began.elapsed() < GIVEN_BACK_WITHIN {
                std::thread::sleep(Duration::from_millis(100));
            }
            let (kept, waited) = (kept(), began.elapsed());
            println!("round {round}: {kept} of {cost} bytes kept after {waited:?}");
            assert!(kept <= cost / KEPT_SHARE, "{kept} of {cost} bytes kept after {waited:?}");
        }
    }
}
