//! The real client stores, removes and renames over connections that are cut and reset anywhere, in clear and within
//! TLS: it gets there by itself, and who looks at the name meanwhile sees the old file or the new one.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::both_secured::{pin, pinned};
use crate::chance::{break_off, part, seed};
use crate::proxy::{Plan, Proxy};
use crate::raw::noise;
use crate::serving::{Server, Site, wait_for};
use crate::storing::{
    Files, Holder, MIB, clear, count, expect_all, expect_old_or_new, expect_told, folder, found, result,
};

/// Connections of a run that go wrong, at most.
const CUTS_MAX: usize = 6;
const STUBBORN: [&str; 6] = ["--retries", "30", "--retry-max-delay", "50ms", "--timeout", "5s"];

/// A server whose connections go wrong somewhere within the first `bytes` that the client says, or within the little
/// that the server does; and where to reach it.
fn cutting(server: &Server, secured: bool, chance: &mut fastrand::Rng, bytes: usize) -> (Proxy, String, u64) {
    let (cuts, plans) = (chance.usize(1..=CUTS_MAX), chance.u64(..));
    let plan = move |number| {
        let mut chance = part(plans, number);
        let fault = break_off(&mut chance);
        match chance.u8(..5) {
            _ if number >= cuts => Plan::none(),
            0 => Plan::down(chance.u64(..1500), fault),
            1 => Plan::up(chance.u64(..2000), fault),
            _ => Plan::up(chance.u64(..bytes as u64), fault),
        }
    };
    let proxy = Proxy::faulty(server.address, plan).unwrap();
    let address = if secured { pinned(proxy.address, pin(server)) } else { proxy.address.to_string() };
    (proxy, address, cuts as u64)
}

fn serve(site: &Site, secured: bool) -> Server {
    site.serve(if secured { &["--tls", "require"] } else { &[] })
}

fn large_files(secured: bool) {
    let (seed, site) = (seed(), Site::new());
    let holder = Holder::new(&site, &[]);
    let server = serve(&site, secured);
    let (data, old) = (noise(seed, 8 * MIB + 5), noise(!seed, 2 * MIB));
    holder.place.write("large", &data);
    let before = Files::from([("x".to_owned(), old.clone())]);
    let new = Files::from([("x".to_owned(), data.clone())]);
    let (mut waste, mut connections) = (0, 0);
    for number in 0..count(2) {
        let what = format!("round {number} of seed {seed}");
        let mut chance = part(seed, number);
        let (proxy, address, cuts) = cutting(&server, secured, &mut chance, data.len() / 2);
        site.file("x", &old);
        let links = (1 + chance.u64(..2)).to_string();
        let words = [&["put", "large", "--name", "x", "--json", "-j", &links], &STUBBORN[..]].concat();
        let is_over = AtomicBool::new(false);
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    expect_old_or_new(&site.root(""), &before, &new, &what);
                }
            });
            let ended = holder.client(address, &words).end();
            is_over.store(true, Ordering::Relaxed);
            ended
        });
        assert_eq!(result(&ended.expect(0))["ok"], true, "{what}");
        expect_all(&site.root(""), &new, &what);
        let up: u64 = proxy.connections().iter().map(|traffic| traffic.up).sum();
        let in_vain = up.saturating_sub(data.len() as u64);
        // The block that was under way on each connection that broke or had a share of the work, and frames.
        let bound = (2 + cuts) * (MIB + MIB / 8) as u64;
        assert!(in_vain < bound, "{what}: {in_vain} bytes in vain after {cuts} cuts");
        waste += in_vain;
        connections += proxy.connections().len();
        fs::remove_file(site.root("x")).unwrap();
    }
    println!("{connections} connections, {waste} bytes in vain");
}

#[test]
fn a_large_file_is_stored_over_connections_that_break_anywhere() {
    large_files(false);
}

#[test]
fn a_large_file_is_stored_within_tls_over_connections_that_break_anywhere() {
    large_files(true);
}

fn folders(secured: bool) {
    let (seed, site) = (seed(), Site::new());
    let holder = Holder::new(&site, &[]);
    let server = serve(&site, secured);
    for number in 0..count(4) {
        let what = format!("round {number} of seed {seed}");
        let mut chance = part(seed, number);
        let (old, new) = folder(&holder, &site, seed, number, number % 2 == 0);
        let (_proxy, address, _) = cutting(&server, secured, &mut chance, 3 * MIB);
        let words = [&["put", "-r", "d", "--json"], &STUBBORN[..]].concat();
        let is_over = AtomicBool::new(false);
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    expect_old_or_new(&site.root(""), &old, &new, &what);
                }
            });
            let ended = holder.client(address, &words).end();
            is_over.store(true, Ordering::Relaxed);
            ended
        });
        let ended = ended.expect(0);
        assert_eq!(expect_told(&ended.stdout, "d", &site.root(""), &new, &what).len(), new.len(), "{what}");
        expect_all(&site.root(""), &new, &what);
        clear(&holder, &site);
    }
}

#[test]
fn a_folder_is_stored_over_connections_that_break_anywhere() {
    folders(false);
}

#[test]
fn a_folder_is_stored_within_tls_over_connections_that_break_anywhere() {
    folders(true);
}

#[test]
fn removing_and_renaming_get_over_connections_that_break_anywhere() {
    const NOT_FOUND: i32 = 3;
    let (seed, site) = (seed(), Site::new());
    let holder = Holder::new(&site, &[]);
    let server = site.serve(&[]);
    for number in 0..count(1) {
        let what = format!("round {number} of seed {seed}");
        let mut chance = part(seed, number);
        let (_proxy, address, _) = cutting(&server, false, &mut chance, 400);
        let before = [("a", noise(seed, 3000)), ("b", noise(!seed, 2000))];
        before.iter().for_each(|(name, bytes)| drop(site.file(name, bytes)));
        let (words, after): (&[&str], _) = match number % 2 {
            0 => (&["mv", "a", "b", "--replace"], Files::from([("b".to_owned(), before[0].1.clone())])),
            _ => (&["rm", "a"], Files::from([("b".to_owned(), before[1].1.clone())])),
        };
        let ended = holder.client(address, &[words, &STUBBORN[..]].concat()).end();
        // Where the server's word was lost, nothing is left to be removed or renamed.
        assert!(matches!(ended.code, Some(0 | NOT_FOUND)), "{what}: {:?} {}", ended.code, ended.stderr);
        wait_for("what was asked for", || (found(&site.root("")).0 == after).then_some(()));
        clear(&holder, &site);
    }
}
