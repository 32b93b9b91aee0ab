//! Bytes that arrive changed, late, twice or one by one: what that costs version 2, and that it never
//! costs the file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use oneport::client::Settings;

use crate::chance::{part, seed};
use crate::fetching::{BLOCK, fetch_whole, heads_max, settings};
use crate::harness::bytes;
use crate::proxy::{Fault, Flow, Plan, Proxy, Traffic};
use crate::serving::{Server, Site, wait_settled};

/// Transfers at the same time: most of what they do is to wait.
const DRIVERS: usize = 6;
/// Bytes before the first block.
const OPENING: u64 = 220;
/// A client that waits so long for the next byte.
const TIMEOUT: Duration = Duration::from_millis(500);
/// The byte of the opening in which the size in FILE counts units of 4 GiB, and its bit of 512 GiB: some
/// more of these would fill a disk.
const SIZE_GIB: (u64, u8) = (47, 7);
/// Bytes of a DATA frame.
const FRAME: u64 = 256 << 10;
/// Heads of frames before any byte of the small files here come to less.
const HEADS: u64 = 8 << 10;

/// A server with a file whose root it knows, `warm`, and others, `cold…`, whose roots it does not.
struct Grounds {
    site: Site,
    server: Server,
    data: Vec<u8>,
}

impl Grounds {
    fn new(size: u64) -> Self {
        let site = Site::new();
        let data = bytes(size, size as usize);
        wait_settled(&site.file("warm", &data));
        let server = site.serve(&["--hash-ahead", "0"]);
        let folder = tempfile::tempdir().unwrap();
        // The first time it is asked it computes the root, and remembers it.
        fetch_whole(server.address, "warm", &folder.path().join("f"), &settings(1, 0), &data);
        Self { site, server, data }
    }

    /// Fetches one of the files through a proxy whose first connection has this plan.
    fn fetch(&self, number: usize, is_warm: bool, plan: &Plan) -> Vec<Traffic> {
        let name = if is_warm { "warm".to_owned() } else { format!("cold{number}") };
        if !is_warm {
            self.site.file(&name, &self.data);
        }
        let first = plan.clone();
        let plans = move |number| if number == 0 { first.clone() } else { Plan::none() };
        let proxy = Proxy::faulty(self.server.address, plans).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { timeout: TIMEOUT, ..settings(1, 5) };
        fetch_whole(proxy.address, &name, &folder.path().join("f"), &settings, &self.data);
        proxy.connections()
    }

    /// Fetches with each of the plans, warm and cold, and has each outcome looked at.
    fn fetch_all(&self, plans: &[Plan], check: impl Fn(&[Traffic]) -> bool + Sync) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..DRIVERS {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(plan) = plans.get(number / 2) else { break };
                        let traffic = self.fetch(number, number.is_multiple_of(2), plan);
                        assert!(check(&traffic), "{plan:?}, {number}: {traffic:?}");
                    }
                });
            }
        });
    }
}

#[test]
fn a_flipped_bit_of_the_data_costs_its_block_and_no_connection() {
    let grounds = Grounds::new(4 * BLOCK + 777);
    let mut chance = part(seed(), 0);
    let plans: Vec<_> = (0..40)
        .map(|_| {
            // Far from the heads of frames.
            let at = chance.u64(..4 * BLOCK / FRAME) * FRAME + chance.u64(HEADS..FRAME - HEADS);
            Plan::down(at, Fault::Flip { bit: chance.u8(..8) })
        })
        .collect();
    let size = grounds.data.len() as u64;
    grounds.fetch_all(&plans, |traffic| {
        let down: u64 = traffic.iter().map(|connection| connection.down).sum();
        traffic.len() == 1 && (BLOCK..=BLOCK + heads_max(down, 1)).contains(&(down - size))
    });
}

#[test]
fn a_flipped_bit_of_a_file_of_one_block_costs_that_block() {
    let grounds = Grounds::new(100_000);
    let mut chance = part(seed(), 1);
    let plans: Vec<_> = (0..10)
        .map(|_| Plan::down(chance.u64(HEADS..100_000), Fault::Flip { bit: chance.u8(..8) }))
        .collect();
    grounds.fetch_all(&plans, |traffic| traffic.len() == 1 && traffic[0].down < 2 * 100_000 + HEADS);
}

#[test]
fn a_flipped_bit_of_what_stands_before_the_data_costs_a_connection_at_most() {
    let seed = seed();
    for size in [5, BLOCK + 1] {
        let grounds = Grounds::new(size);
        let mut chance = part(seed, size as usize);
        let plans: Vec<_> =
            (0..OPENING).map(|at| Plan::down(at, Fault::Flip { bit: bit(at, &mut chance) })).collect();
        grounds.fetch_all(&plans, |traffic| traffic.len() <= 2);
    }
}

fn bit(at: u64, chance: &mut fastrand::Rng) -> u8 {
    if at == SIZE_GIB.0 { SIZE_GIB.1 } else { chance.u8(..8) }
}

#[test]
fn flipped_bits_all_over_a_transfer_never_cost_the_file() {
    let grounds = Grounds::new(3 * BLOCK + 1);
    let mut chance = part(seed(), 2);
    let plans: Vec<_> = (0..30)
        .map(|_| {
            let faults = (0..chance.usize(1..6))
                .map(|_| (chance.u64(OPENING..3 * BLOCK), Fault::Flip { bit: chance.u8(..8) }))
                .collect();
            Plan { down: Flow { faults, ..Flow::default() }, ..Plan::none() }
        })
        .collect();
    grounds.fetch_all(&plans, |_| true);
}

#[test]
fn a_line_that_falls_silent_is_left_and_the_transfer_goes_on() {
    let grounds = Grounds::new(3 * BLOCK + 1);
    let mut chance = part(seed(), 3);
    let plans: Vec<_> = (0..10)
        .map(|number| match number {
            0 => Plan::up(chance.u64(..100), Fault::Stall),
            1 => Plan::down(chance.u64(..OPENING), Fault::Stall),
            _ => Plan::down(chance.u64(OPENING..3 * BLOCK), Fault::Stall),
        })
        .collect();
    let size = grounds.data.len() as u64;
    grounds.fetch_all(&plans, |traffic| {
        let down: u64 = traffic.iter().map(|connection| connection.down).sum();
        // Only a hello that nobody answers is followed by version 1, which begins at nothing.
        traffic.len() == 2 && down - size <= BLOCK + heads_max(down, 2)
    });
}

#[test]
fn bytes_that_come_twice_never_cost_the_file() {
    let grounds = Grounds::new(3 * BLOCK + 1);
    let mut chance = part(seed(), 4);
    let plans: Vec<_> = (0..25)
        .map(|number| {
            let at = chance.u64(..if number < 10 { OPENING } else { 3 * BLOCK });
            let most = 1 << chance.u8(1..20);
            Plan::down(at, Fault::Duplicate { len: chance.usize(1..=most) })
        })
        .collect();
    grounds.fetch_all(&plans, |traffic| traffic.len() <= 3);
}

#[test]
fn bytes_that_come_one_by_one_are_understood() {
    let grounds = Grounds::new(BLOCK + 1);
    // The opening, and around the second block.
    let flow = |until| Flow { one_by_one_until: until, ..Flow::default() };
    let plans = [Plan { up: flow(u64::MAX), down: flow(20_000) }];
    grounds.fetch_all(&plans, |traffic| traffic.len() == 1);
    let grounds = Grounds::new(3000);
    grounds.fetch_all(&[Plan::one_by_one()], |traffic| traffic.len() == 1);
}
