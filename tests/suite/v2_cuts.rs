//! Transfers of version 2 that are cut anywhere and gone on with, until the file is there.
//!
//! `faults/cuts` runs the campaign with thousands of transfers; the tests run a short one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use oneport::client::Protocol;
use oneport::error::Code;
use tempfile::TempDir;

use crate::chance::{break_off, part, seed};
use crate::fetching::{BLOCK, Cost, fetch_once, fetch_whole, settings, whole_and_alone};
use crate::harness::{Place, await_for, bytes};
use crate::proxy::{Fault, Plan, Proxy};
use crate::serving::{Server, Site, wait_settled};

/// Transfers of the short campaign.
const SHORT: usize = 250;
/// Sets how many transfers the long campaign makes.
const COUNT: &str = "ONEPORT_CUTS_COUNT";
/// Transfers at the same time.
const DRIVERS: usize = 4;
/// A process is started again this often, at most.
const RUNS_MAX: usize = 100;
/// Attempts without any success after which a client gives up; a transfer is cut less often.
const RETRIES: u32 = 1000;
/// Most connections of a transfer that are cut.
const CUTS_MAX: usize = 6;
/// Bytes before the first block: what is cut there is cut in an opening.
const OPENING: u64 = 200;
/// Bytes of a hello and a few requests.
const ASKING: u64 = 500;
/// Bytes of a hello, at least.
const HELLO: u64 = 100;
/// Most bytes that the system takes for a connection before its peer has them.
const SEND_BUFFER: u64 = 16 << 20;
/// Of a part's journal: its header, and the record of a block.
const JOURNAL: (u64, u64) = (144, 48);

#[test]
fn transfers_that_are_cut_anywhere_lose_a_block_at_most_and_arrive_whole() {
    campaign(SHORT, false);
}

#[test]
#[ignore = "takes minutes: run by faults/cuts"]
fn thousands_of_transfers_that_are_cut_anywhere_arrive_whole() {
    let count = std::env::var(COUNT).map_or(10_000, |text| text.parse().expect("a count is a number"));
    campaign(count, true);
}

/// A file on the server.
struct Item {
    name: String,
    data: Vec<u8>,
}

/// How a transfer is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// One client tries until the file is there.
    OneProcess,
    /// Clients that give up soon, one after the other.
    Several,
    /// The same with the real program.
    Program,
    /// The real program, killed while nothing moves, and others after it.
    Killed,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    ways: BTreeMap<(Way, &'static str), usize>,
    by_v1: usize,
    cuts: u64,
    /// Cuts of transfers whose waste is not counted, because some of them were resets.
    resets: u64,
    waste: u64,
    greatest: u64,
    longest: Duration,
}

struct Grounds {
    seed: u64,
    site: Site,
    server: Server,
    items: Vec<Item>,
    big: Vec<Item>,
    targets: TempDir,
}

/// Sizes around what matters, and others up to six blocks.
fn sizes(chance: &mut fastrand::Rng) -> Vec<u64> {
    let mut sizes = vec![0, 1, 1000, 65_536, 65_537, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 4 * BLOCK + 17];
    sizes.extend((0..4).map(|_| chance.u64(..BLOCK)));
    sizes.extend((0..16).map(|_| chance.u64(BLOCK..4 * BLOCK)));
    sizes.extend((0..6).map(|_| chance.u64(4 * BLOCK..=6 * BLOCK)));
    sizes
}

fn campaign(count: usize, is_long: bool) {
    let began = Instant::now();
    let grounds = Grounds::new(seed(), is_long);
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..DRIVERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let began = Instant::now();
                    let (way, told) = grounds.transfer(number);
                    tally.lock().unwrap().take(number, way, told, began.elapsed());
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    for failure in tally.failed.iter().take(20) {
        println!("failed: {failure}");
    }
    for ((way, what), count) in &tally.ways {
        println!("{count:6} {way:?}, {what}");
    }
    let mean = tally.waste / tally.cuts.max(1);
    println!(
        "seed {}: {} cuts, and {} in transfers with resets; waste of a cut: {} bytes at most, {mean} in the mean; {} transfers (partly) by \
         version 1; the longest took {:?}, all {:?}",
        grounds.seed,
        tally.cuts,
        tally.resets,
        tally.greatest,
        tally.by_v1,
        tally.longest,
        began.elapsed()
    );
    println!("{} passed, {} failed", tally.passed, tally.failed.len());
    assert!(tally.failed.is_empty(), "{} transfers failed", tally.failed.len());
    let has = |wanted: &str| tally.ways.iter().any(|((_, what), _)| *what == wanted);
    assert!(
        has("cold") && has("warm") && (tally.cuts + tally.resets) as usize > count / 2,
        "hardly anything was tried"
    );
}

impl Tally {
    fn take(&mut self, number: usize, way: Way, told: Result<(Cost, &'static str), String>, took: Duration) {
        self.longest = self.longest.max(took);
        let (cost, what) = match told {
            Ok(told) => told,
            Err(wrong) => return self.failed.push(format!("transfer {number}, {way:?}: {wrong}")),
        };
        *self.ways.entry((way, what)).or_default() += 1;
        self.passed += 1;
        if cost.by_v1 {
            self.by_v1 += 1;
            return;
        }
        if !cost.is_told {
            self.resets += cost.cuts;
            return;
        }
        self.cuts += cost.cuts;
        if let Some(each) = cost.waste.checked_div(cost.cuts) {
            self.waste += cost.waste;
            self.greatest = self.greatest.max(each);
        }
    }
}

impl Grounds {
    fn new(seed: u64, is_long: bool) -> Self {
        let site = Site::new();
        let server = site.serve(&["--hash-ahead", "0"]);
        let mut chance = part(seed, usize::MAX);
        let make = |(number, size): (usize, u64)| {
            let item = Item { name: format!("w{number}"), data: bytes(seed ^ number as u64, size as usize) };
            site.file(&item.name, &item.data);
            item
        };
        let items: Vec<_> = sizes(&mut chance).into_iter().enumerate().map(make).collect();
        let big =
            if is_long { vec![20 * BLOCK + 3, 37 * BLOCK, 51 * BLOCK + 1] } else { vec![50 * BLOCK + 9] };
        let big: Vec<_> = big.into_iter().enumerate().map(|(at, size)| make((at + 1000, size))).collect();
        let targets = tempfile::Builder::new().prefix("oneport-cuts-").tempdir().unwrap();
        wait_settled(&site.root(&big[big.len() - 1].name));
        // From now on the server knows their roots.
        let place = Place::new();
        for item in items.iter().chain(&big) {
            place.client(&["stat", "-s", &server.address.to_string(), &item.name]).end().expect(0);
        }
        Self { seed, site, server, items, big, targets }
    }

    /// Makes one transfer: its cost and kind, or what is wrong.
    fn transfer(&self, number: usize) -> (Way, Result<(Cost, &'static str), String>) {
        let mut chance = part(self.seed, number);
        let way = match chance.u8(..100) {
            0..60 => Way::OneProcess,
            60..90 => Way::Several,
            90..96 => Way::Program,
            _ => Way::Killed,
        };
        let is_big = chance.u32(..120) == 0;
        let item = &(if is_big { &self.big } else { &self.items })
            [chance.usize(..if is_big { self.big.len() } else { self.items.len() })];
        let is_cold = chance.bool();
        let name = if is_cold { format!("c{number}") } else { item.name.clone() };
        if is_cold {
            // Its times are too young for its root to be remembered.
            fs::write(self.site.root(&name), &item.data).unwrap();
        }
        let folder = self.targets.path().join(number.to_string());
        fs::create_dir(&folder).unwrap();
        let told = Transfer { grounds: self, item, name: &name, target: folder.join("f"), number }
            .make(way, &mut chance);
        fs::remove_dir_all(&folder).unwrap();
        if is_cold {
            fs::remove_file(self.site.root(&name)).unwrap();
        }
        let what = if is_cold && item.data.len() as u64 > BLOCK { "cold" } else { "warm" };
        (
            way,
            told.map(|cost| (cost, what)).map_err(|wrong| format!("{name} of {}: {wrong}", item.data.len())),
        )
    }
}

struct Transfer<'a> {
    grounds: &'a Grounds,
    item: &'a Item,
    name: &'a str,
    target: PathBuf,
    number: usize,
}

impl Transfer<'_> {
    fn make(&self, way: Way, chance: &mut fastrand::Rng) -> Result<Cost, String> {
        let size = self.item.data.len() as u64;
        let cuts = chance.usize(1..=CUTS_MAX);
        // A client that is killed has one connection, on which nothing moves any more by then.
        let stall = (way == Way::Killed).then(|| chance.u64(64..=size.max(64)));
        let seed = chance.u64(..);
        let plan = move |connection: usize| match (connection, stall) {
            (0, Some(at)) => Plan::down(at, Fault::Stall),
            _ if connection < cuts => cut(&mut part(seed, connection), size, connection),
            _ => Plan::none(),
        };
        let proxy = Proxy::faulty(self.grounds.server.address, plan).unwrap();
        let links = if stall.is_some() { 1 } else { chance.u64(1..=2) };
        let protocol = if chance.u8(..4) == 0 { Protocol::Auto } else { Protocol::V2 };
        match way {
            Way::OneProcess => self.in_processes(&proxy, links, protocol, || RETRIES)?,
            Way::Several => self.in_processes(&proxy, links, protocol, || chance.u32(0..=1))?,
            Way::Program | Way::Killed => self.with_program(&proxy, links, protocol, stall)?,
        }
        whole_and_alone(&self.target, &self.item.data)?;
        let connections = proxy.connections();
        let cost = Cost::of(&connections, size);
        // What the proxy had given to the system for the client is lost with a reset of either side.
        let is_reset = |number: &usize| {
            let plan = plan(*number);
            let is_late = |&(at, fault): &(u64, Fault)| at > HELLO && fault == Fault::Reset;
            plan.up.faults.iter().chain(&plan.down.faults).any(is_late)
        };
        let unread = (0..connections.len()).filter(is_reset).count() as u64 * SEND_BUFFER;
        if unread > 0 {
            return if cost.waste > cost.bound + unread {
                Err(format!("{cost:?}"))
            } else {
                Ok(cost.untold())
            };
        }
        if cost.waste > cost.bound && !cost.by_v1 {
            return Err(format!(
                "{links} links wasted more than a block for each cut: {cost:?}, {:?}, {:?}",
                proxy.connections(),
                (0..cuts).map(plan).collect::<Vec<_>>()
            ));
        }
        Ok(cost)
    }

    fn in_processes(
        &self,
        proxy: &Proxy,
        links: u64,
        protocol: Protocol,
        mut retries: impl FnMut() -> u32,
    ) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..RUNS_MAX {
            let settings = oneport::client::Settings { protocol, ..settings(links, retries()) };
            match fetch_once(proxy.address, self.name, &self.target, &settings) {
                (Ok(_), ..) => return Ok(()),
                (Err(error), ..) if error.may_pass() => last = error.to_string(),
                // A program that another driver starts has a copy of the lock until it is itself.
                (Err(error), ..) if error.code() == Code::Exists => {
                    std::thread::sleep(Duration::from_millis(1));
                    last = error.to_string();
                }
                (Err(error), _, errors) => return Err(format!("{error} after {errors:?}")),
            }
        }
        Err(format!("not after {RUNS_MAX} runs: {last}"))
    }

    fn with_program(
        &self,
        proxy: &Proxy,
        links: u64,
        protocol: Protocol,
        stall: Option<u64>,
    ) -> Result<(), String> {
        let (server, links) = (proxy.address.to_string(), links.to_string());
        let protocol = if protocol == Protocol::V2 { "v2" } else { "auto" };
        let target = self.target.display().to_string();
        let place = Place::new();
        let mut chance = part(self.grounds.seed ^ 1, self.number);
        for run in 0..RUNS_MAX {
            let retries = chance.u32(0..=1).to_string();
            let mut arguments =
                vec!["get", "-s", &server, self.name, "-o", &target, "--no-sync", "-j", &links];
            arguments.extend(["--protocol", protocol, "--retry-delay", "1ms", "--retries", &retries]);
            let running = place.client(&arguments).start();
            if let Some(at) = stall.filter(|_| run == 0) {
                // Every block that has arrived whole is recorded, however much lies behind it.
                let blocks = at.saturating_sub(4 * OPENING) / (BLOCK + 4 * OPENING);
                await_for("the blocks before the stall", || {
                    let has_stalled = proxy.connections().first().is_some_and(|traffic| traffic.down == at);
                    (has_stalled && recorded(&self.target) >= blocks).then_some(())
                });
                drop(running);
                continue;
            }
            let ended = running.end();
            match ended.code {
                Some(0) => return Ok(()),
                // Lost, maybe before it stood: there are no more retries.
                Some(5 | 6) => {}
                code => return Err(format!("exit status {code:?}: {}", ended.stderr)),
            }
        }
        Err(format!("not after {RUNS_MAX} runs"))
    }
}

/// How many records the journal of a part has.
fn recorded(target: &Path) -> u64 {
    let entries = fs::read_dir(target.parent().unwrap()).unwrap().flatten();
    let journal = entries.filter(|entry| entry.path().extension().is_some_and(|name| name == "journal"));
    let len = journal.map(|entry| entry.metadata().map_or(0, |found| found.len())).max().unwrap_or(0);
    len.saturating_sub(JOURNAL.0) / JOURNAL.1
}

/// Where a connection is cut: anywhere, a little more often where something begins or ends.
fn cut(chance: &mut fastrand::Rng, size: u64, connection: usize) -> Plan {
    let fault = break_off(chance);
    match chance.u8(..10) {
        0 => Plan::down(chance.u64(..OPENING), fault),
        1 | 2 => Plan::up(chance.u64(..ASKING), fault),
        3 => {
            let block = chance.u64(..=size / BLOCK) * BLOCK;
            Plan::down(block + chance.u64(..2 * OPENING), fault)
        }
        // What is left is less each time.
        _ => Plan::down(chance.u64(..=(size + OPENING) / (connection as u64 + 1)), fault),
    }
}

#[test]
fn a_cut_at_any_byte_of_the_hello_or_of_its_answer_costs_a_connection_and_nothing_else() {
    let site = Site::new();
    let data = bytes(1, BLOCK as usize + 1);
    wait_settled(&site.file("f", &data));
    let server = site.serve(&[]);
    let targets = tempfile::Builder::new().prefix("oneport-hello-").tempdir().unwrap();
    // All of a hello, and a byte behind it.
    let quiet = Proxy::faulty(server.address, |_| Plan::none()).unwrap();
    fetch_whole(quiet.address, "f", &targets.path().join("f"), &settings(1, 0), &data);
    let hello = quiet.connections()[0].up;
    assert!((80..300).contains(&hello), "a hello of {hello} bytes");
    for fault in [Fault::Cut, Fault::Reset] {
        let ups = (0..=hello).map(|at| Plan::up(at, fault));
        let plans: Vec<_> = ups.chain((0..=OPENING).map(|at| Plan::down(at, fault))).collect();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..DRIVERS {
                scope.spawn(|| {
                    while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let folder = tempfile::tempdir_in(targets.path()).unwrap();
                        let first = plan.clone();
                        let plan = move |number| if number == 0 { first.clone() } else { Plan::none() };
                        let proxy = Proxy::faulty(server.address, plan).unwrap();
                        let target = folder.path().join("f");
                        fetch_whole(proxy.address, "f", &target, &settings(1, 3), &data);
                        let connections = proxy.connections().len();
                        assert!(connections <= 2, "{connections} connections");
                    }
                });
            }
        });
    }
}

#[test]
fn the_root_of_a_new_file_is_told_as_soon_as_it_is_known() {
    /// A server that forgot to compute it would remember when it says WAIT.
    const WAIT: Duration = Duration::from_secs(2);
    let site = Site::new();
    let server = site.serve(&["--hash-ahead", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let data = bytes(2, 2 * BLOCK as usize + 1);
    let is_quick = (0..5).any(|number| {
        let name = format!("f{number}");
        site.file(&name, &data);
        let began = Instant::now();
        let seen = fetch_whole(server.address, &name, &folder.path().join("f"), &settings(1, 0), &data);
        seen.cold && began.elapsed() < WAIT
    });
    assert!(is_quick, "every one of five takes as long as {WAIT:?}");
}

#[test]
fn what_has_arrived_before_a_reset_is_kept() {
    let site = Site::new();
    // Many requests, so that a client may write one while it still has to read what came before.
    let data = bytes(3, 24 * BLOCK as usize);
    wait_settled(&site.file("f", &data));
    let server = site.serve(&[]);
    let mut chance = part(seed(), 0);
    for _ in 0..12 {
        let at = chance.u64(5 * BLOCK..23 * BLOCK);
        let folder = tempfile::tempdir().unwrap();
        let plan = move |number| if number == 0 { Plan::down(at, Fault::Reset) } else { Plan::none() };
        let proxy = Proxy::faulty(server.address, plan).unwrap();
        let seen = fetch_whole(proxy.address, "f", &folder.path().join("f"), &settings(1, 3), &data);
        // What lay unread in its socket is lost with a reset; what it had read is not, but for one block.
        assert!(seen.retries > 0 && seen.lost <= BLOCK, "{at}: {seen:?}");
    }
}

#[test]
fn of_two_connections_one_that_is_cut_loses_a_block_and_the_other_goes_on() {
    let site = Site::new();
    let data = bytes(4, 64 * BLOCK as usize + 5);
    wait_settled(&site.file("f", &data));
    let server = site.serve(&[]);
    let seed = seed();
    for round in 0..6 {
        let mut chance = part(seed, round);
        // Late enough for a block to have come, and early enough for either to have that much.
        let (cut, at, fault) = (chance.usize(..2), chance.u64(2 * BLOCK..5 * BLOCK), break_off(&mut chance));
        let folder = tempfile::tempdir().unwrap();
        let plan = move |number| if number == cut { Plan::down(at, fault) } else { Plan::none() };
        let proxy = Proxy::faulty(server.address, plan).unwrap();
        let seen = fetch_whole(proxy.address, "f", &folder.path().join("f"), &settings(2, 3), &data);
        let traffic = proxy.connections();
        assert!(
            traffic.len() == 3,
            "one is cut, one takes its place: {fault:?} of {cut} at {at}: {traffic:?}"
        );
        let cost = Cost::of(&traffic, data.len() as u64);
        // What lay unread in a socket is lost with a reset, and counts only for who gave it.
        let is_told = fault == Fault::Cut;
        // There are three connections, of which one was cut.
        let bound = cost.bound - BLOCK;
        assert!(!is_told || cost.waste <= bound, "{fault:?} of {cut} at {at}: {cost:?}, {traffic:?}");
        assert!(seen.retries == 0, "{fault:?} of {cut} at {at}: {seen:?}");
    }
}
