//! Out of descriptors at every count: a server either says at its start that they are too few, or
//! serves, waits without spinning when they are used up, and serves again when some are free.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::raw::{self, Answer};
use crate::serving::{Server, Site, wait_for};

/// The counts of descriptors that are tried.
const COUNTS: std::ops::RangeInclusive<u64> = 10..=200;
/// Servers tried at once: each of them mostly waits.
const AT_ONCE: usize = 3;
/// How long a server without a free descriptor is watched.
const WATCHED: Duration = Duration::from_millis(40);
/// The same where only the limit changes, not the server.
const WATCHED_RUNNING: Duration = Duration::from_millis(20);

/// What became of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    TooFew,
    Served,
}

/// Starts a server that may open `count` files, uses them all up, and lets go again.
fn try_with(site: &Site, count: u64) -> Outcome {
    let limit = format!("--nofile={count}:{count}");
    let (state, logs) = (format!("state{count}"), format!("logs{count}"));
    let arguments =
        ["0", "root", "--state", &state, "--log-dir", &logs, "--v1-pause", "0", "--hash-ahead", "0"];
    let mut server = match site.launch_bare(&arguments).by_way_of(&["prlimit", &limit]).try_serve() {
        Ok(server) => server,
        Err(mut server) => {
            let (code, said) = (server.wait_exit(), server.stderr());
            assert_eq!((code, server.stdout().as_str()), (Some(10), ""), "{count}: {said}");
            let expected = format!("server: only {count} files may be open");
            assert!(said.starts_with(&expected) && said.lines().count() == 1, "{count}: {said}");
            return Outcome::TooFew;
        }
    };
    assert_serves(&server, count);
    let mut idle = Vec::new();
    for _ in 0..count + 8 {
        idle.push(server.connect());
    }
    let before = server.busy();
    thread::sleep(WATCHED);
    let busy = server.busy().saturating_sub(before);
    assert!(busy < WATCHED / 2, "{count}: {busy:?} of {WATCHED:?} spent on nothing");
    drop(idle);
    assert_serves(&server, count);
    assert!(!server.has_ended() && !server.stderr().contains("panicked"), "{count}: {}", server.stderr());
    Outcome::Served
}

fn assert_serves(server: &Server, count: u64) {
    wait_for(&format!("a file with {count} descriptors: {}", server.stderr()), || {
        matches!(raw::fetch(server.address, "a"), Answer::Whole(_)).then_some(())
    });
}

#[test]
fn at_every_count_of_descriptors_it_serves_and_recovers_or_says_that_they_are_too_few() {
    let site = Site::new();
    site.file("a", b"a");
    let next = AtomicU64::new(*COUNTS.start());
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let count = next.fetch_add(1, Ordering::Relaxed);
                    if !COUNTS.contains(&count) {
                        break;
                    }
                    let outcome = try_with(&site, count);
                    outcomes.lock().unwrap().push((count, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_unstable_by_key(|&(count, _)| count);
    let enough = outcomes.iter().position(|&(_, outcome)| outcome == Outcome::Served).unwrap();
    println!("served from {} descriptors on", outcomes[enough].0);
    assert!(outcomes[enough..].iter().all(|&(_, outcome)| outcome == Outcome::Served), "{outcomes:?}");
}

/// Sets how many descriptors a running server may have.
fn limit(server: &Server, count: u64) {
    let pid = Pid::from_raw(server.id().cast_signed()).unwrap();
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(count), maximum: Some(4096) }).unwrap();
}

#[test]
fn at_every_count_of_descriptors_accepting_fails_without_spinning_and_recovers() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--v1-pause", "0", "--hash-ahead", "0"]);
    assert_serves(&server, 0);
    let baseline = server.descriptors_at_rest() as u64;
    for count in COUNTS {
        limit(&server, count);
        let wanted = count.saturating_sub(baseline) + 4;
        let idle: Vec<_> = (0..wanted).map(|_| server.connect()).collect();
        wait_for("all descriptors taken", || (server.descriptors() as u64 >= count).then_some(()));
        let before = server.busy();
        thread::sleep(WATCHED_RUNNING);
        let busy = server.busy().saturating_sub(before);
        assert!(busy < WATCHED_RUNNING / 2, "{count}: {busy:?} of {WATCHED_RUNNING:?} spent on nothing");
        drop(idle);
        limit(&server, 4096);
        assert_serves(&server, count);
        server.descriptors_at_rest();
    }
    let log = server.log();
    let told = log.matches("Cannot accept connections").count();
    assert!(told >= 150, "{told} spells of trouble were told");
    assert_eq!(told, log.matches("Accepting connections again").count(), "each has an end");
}
