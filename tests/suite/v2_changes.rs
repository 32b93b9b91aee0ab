//! What a client of version 2 does when the server is another one, or the file is, before all of it came.

use std::fs;
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use oneport::client::{Server as Address, stat};
use oneport::staged::{Part, Source};
use oneport::tree::{BlockHash, BlockSet};
use tokio_util::sync::CancellationToken;

use crate::fetching::{BLOCK, Cost, fetch_once, fetch_whole, heads_max, settings};
use crate::harness::{Place, await_for, bytes};
use crate::proxy::{Fault, Link, Plan, Proxy};
use crate::serving::{Site, wait_settled};

/// Blocks of the file before it changes, and those that the first run gets of it.
const BLOCKS: u64 = 6;
const GOT: u64 = 3;
/// Where a cut leaves so many of them.
const CUT: u64 = GOT * BLOCK + BLOCK / 2;

#[test]
fn a_server_that_is_killed_and_comes_back_is_waited_for_and_gone_on_with() {
    let site = Site::new();
    let data = bytes(1, 8 * BLOCK as usize + 5);
    wait_settled(&site.file("f", &data));
    let server = site.serve(&[]);
    // Slow enough to be killed in the middle.
    let link = Link { delay: Duration::ZERO, rate: NonZeroU64::new(8 << 20) };
    let proxy = Proxy::linked(server.address, link).unwrap();
    let place = Place::new();
    let retries = ["--retries", "1000", "--retry-max-delay", "50ms", "--no-sync"];
    let running = place.fetch("f", proxy.address, &retries).start();
    await_for("two blocks", || (journal_len(&place.path("client_downloads")) > 144 + 48).then_some(()));
    let port = server.address.port().to_string();
    drop(server);
    running.await_stderr("retry 3 of 1000");
    let options = ["--state", "state", "--log-dir", "logs"];
    let _server = site.launch_bare(&[&[port.as_str(), "root"], &options[..]].concat()).serve();
    running.end().expect(0);
    assert!(place.read("client_downloads/f") == data);
    assert_eq!(place.tree(), ["client_downloads/", "client_downloads/f"]);
    let connections = proxy.connections();
    let used: Vec<_> = connections.into_iter().filter(|connection| connection.down > 0).collect();
    let cost = Cost::of(&used, data.len() as u64);
    assert!(used.len() == 2 && cost.waste <= cost.bound, "{cost:?}: {used:?}");
}

fn journal_len(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let journal = entries.filter(|entry| entry.path().extension().is_some_and(|name| name == "journal"));
    journal.map(|entry| entry.metadata().map_or(0, |found| found.len())).max().unwrap_or(0)
}

/// A way in which a file changes, what it is then, and how many bytes that were there are the same.
type Change = (&'static str, Vec<u8>, u64);

fn changes(old: &[u8]) -> Vec<Change> {
    let block = BLOCK as usize;
    let other = |seed, len| bytes(seed, len);
    let mut second = old.to_vec();
    second[block + 7] ^= 1;
    vec![
        ("a bit of its second block", second, (GOT - 1) * BLOCK),
        ("it has grown", [old, &other(7, 2 * block + 9)].concat(), GOT * BLOCK),
        ("it has grown to less than another block", [old, b"x"].concat(), GOT * BLOCK),
        ("it has shrunk", old[..4 * block + 1].to_vec(), GOT * BLOCK),
        ("it has shrunk below what is here", old[..2 * block + 5].to_vec(), 2 * BLOCK),
        ("it has shrunk to one block", old[..block].to_vec(), 0),
        ("it has shrunk to nothing", Vec::new(), 0),
        ("all of it is new", other(8, old.len()), 0),
        ("its end is new", [&old[..5 * block], &other(9, block)[..]].concat(), GOT * BLOCK),
    ]
}

/// Fetches each file until a cut, changes it, and fetches it to its end.
fn change_between(is_warm: bool, in_one_process: bool) {
    let site = Site::new();
    let server = site.serve(&["--hash-ahead", "0"]);
    let old = bytes(3, (BLOCKS * BLOCK) as usize);
    let folder = tempfile::tempdir().unwrap();
    let cases = changes(&old);
    let name = |number: usize| format!("f{number}");
    let settle = |number: usize| {
        if is_warm {
            wait_settled(&site.root(name(number)));
            let known = folder.path().join(format!("known{number}"));
            fs::create_dir(&known).unwrap();
            let data = fs::read(site.root(name(number))).unwrap();
            fetch_whole(server.address, &name(number), &known.join("f"), &settings(1, 0), &data);
            fs::remove_dir_all(known).unwrap();
        }
    };
    let target = |number: usize| folder.path().join(number.to_string()).join("f");
    (0..cases.len()).for_each(|number| drop(site.file(name(number), &old)));
    (0..cases.len()).for_each(settle);
    if !in_one_process {
        for number in 0..cases.len() {
            let proxy = Proxy::faulty(server.address, |_| Plan::down(CUT, Fault::Cut)).unwrap();
            let (ended, ..) = fetch_once(proxy.address, &name(number), &target(number), &settings(1, 0));
            assert!(ended.is_err());
        }
        cases.iter().enumerate().for_each(|(number, (_, new, _))| drop(site.file(name(number), new)));
        (0..cases.len()).for_each(settle);
    }
    for (number, (what, new, kept)) in cases.into_iter().enumerate() {
        let (path, written) = (site.root(name(number)), new.clone());
        let proxy = Proxy::faulty(server.address, move |connection| {
            if in_one_process && connection == 0 {
                return Plan::down(CUT, Fault::Cut);
            }
            if in_one_process && connection == 1 {
                fs::write(&path, &written).unwrap();
            }
            Plan::none()
        });
        let proxy = proxy.unwrap();
        let seen = fetch_whole(proxy.address, &name(number), &target(number), &settings(1, 3), &new);
        assert_eq!(seen.changed, Some((kept, GOT * BLOCK)), "{what}");
        let traffic = proxy.connections();
        let last = traffic[traffic.len() - 1];
        println!("{what}: {} fetched of {} not kept", last.down, new.len() as u64 - kept);
        let fetched = last.down - (new.len() as u64 - kept);
        // What the server began to send before it was told to stop.
        let early = (BLOCKS + 3 - GOT) * BLOCK;
        assert!(fetched <= early + heads_max(last.down, 2), "{what}: {fetched} bytes too many");
    }
}

#[test]
fn a_file_that_changed_between_two_runs_is_told_and_equal_blocks_are_kept() {
    change_between(false, false);
    change_between(true, false);
}

#[test]
fn a_file_that_changed_between_two_attempts_is_told_and_equal_blocks_are_kept() {
    change_between(false, true);
}

#[test]
fn a_block_that_was_only_taken_on_trust_is_compared_before_it_is_kept() {
    let site = Site::new();
    let data = bytes(5, 3 * BLOCK as usize);
    wait_settled(&site.file("f", &data));
    let server = site.serve(&[]);
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("known");
    fs::create_dir(&known).unwrap();
    fetch_whole(server.address, "f", &known.join("f"), &settings(1, 0), &data);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (address, settings) = (server.address.to_string().parse::<Address>().unwrap(), settings(1, 2));
    let asking = async { stat(&address, b"f", &settings, &Quiet, &CancellationToken::new()).await.unwrap() };
    let identity = runtime.block_on(asking).identity;
    let mut token = [0; 16];
    for (at, byte) in token.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&identity[2 * at..2 * at + 2], 16).unwrap();
    }
    // A part of the same version that came without proof: one block is the file's, the other is not.
    let target = folder.path().join("mine").join("f");
    let size = data.len() as u64;
    let mut part = Part::open(&target, false, &mut |_, _| std::ops::ControlFlow::Continue(())).unwrap();
    part.begin(&Source { size, root: None, token }, &BlockSet::default()).unwrap();
    let wrong = bytes(6, BLOCK as usize);
    for (index, block) in [(0, &wrong[..]), (1, &data[BLOCK as usize..2 * BLOCK as usize])] {
        part.write_at(block, index * BLOCK).unwrap();
        part.record(index, *BlockHash::of(size, index, block).as_bytes()).unwrap();
    }
    drop(part);
    fetch_whole(server.address, "f", &target, &settings, &data);
}

struct Quiet;

impl oneport::client::Observer for Quiet {
    fn observe(&self, _: &oneport::client::Event<'_>) {}
}
