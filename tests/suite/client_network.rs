//! The client of version 1 over a bad network, with the real server behind it.

use crate::chance::{break_off, part, seed};
use crate::harness::{Place, bytes};
use crate::proxy::{Fault, Plan, Proxy};
use crate::serving::Site;

const SIZE: usize = 3 << 20;
/// What stands before the data of a file with a name of one byte: `OK`, two lengths, the name, a digest.
const HEADER: u64 = 2 + 4 + 1 + 8 + 32;
/// Attempts that fail before one does not.
const BAD: usize = 6;

#[test]
fn whatever_breaks_wherever_the_file_arrives_whole_in_the_end() {
    let seed = seed();
    let site = Site::new();
    let data = bytes(1, SIZE);
    site.file("f", &data);
    let server = site.serve(&[]);
    let plan = move |number: usize| {
        let mut chance = part(seed, number);
        let whole = HEADER + SIZE as u64;
        match (number, chance.u8(..3)) {
            (BAD.., _) => Plan::none(),
            // The length of the name, and the name.
            (0, _) => Plan::up(chance.u64(..5), break_off(&mut chance)),
            (1, _) | (_, 0) => Plan::down(chance.u64(HEADER..whole), Fault::Flip { bit: chance.u8(..8) }),
            _ => Plan::down(chance.u64(..whole), break_off(&mut chance)),
        }
    };
    let proxy = Proxy::faulty(server.address, plan).unwrap();
    let place = Place::new();
    let options = ["--protocol", "v1", "--retries", "6", "--retry-max-delay", "40ms", "--no-sync"];
    place.fetch("f", proxy.address, &options).end().expect(0).says("retry 6 of 6").says("MD5");
    assert!(place.read("client_downloads/f") == data);
    assert_eq!(place.tree(), ["client_downloads/", "client_downloads/f"]);
    let traffic = proxy.connections();
    assert_eq!(traffic.len(), BAD + 1, "{traffic:?}");
    assert_eq!(traffic[BAD].down, HEADER + SIZE as u64, "{traffic:?}");
}

#[test]
fn an_answer_that_comes_byte_by_byte_is_understood() {
    let site = Site::new();
    site.file("f", b"data");
    let server = site.serve(&[]);
    let proxy = Proxy::faulty(server.address, |_| Plan::one_by_one()).unwrap();
    let place = Place::new();
    place.fetch("f", proxy.address, &[]).end().expect(0);
    assert_eq!(place.read("client_downloads/f"), b"data");
}

#[test]
fn a_run_that_comes_twice_is_never_taken_for_the_file() {
    let site = Site::new();
    site.file("f", &bytes(1, SIZE));
    let server = site.serve(&[]);
    let mut chance = part(seed(), 0);
    let at = chance.u64(HEADER..HEADER + SIZE as u64);
    let len = chance.usize(1..100_000);
    let proxy = Proxy::faulty(server.address, move |_| Plan::down(at, Fault::Duplicate { len })).unwrap();
    let place = Place::new();
    place.fetch("f", proxy.address, &["--protocol", "v1"]).end().expect(8);
    assert!(place.tree().is_empty(), "{:?}", place.tree());
}
