//! Clients that are killed anywhere while they store, remove and rename, and run again: what is there is whole at each
//! moment, what was said to be stored was, and only what is missing is brought.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::chance::{part, seed};
use crate::harness::Ended;
use crate::proxy::{Plan, Proxy};
use crate::putting::{Came, Putter};
use crate::raw::noise;
use crate::serving::{Signal, Site, wait_for};
use crate::storing::{
    Files, Holder, MIB, clear, count, expect_all, expect_old_or_new, expect_told, folder, found, result,
};

/// Runs of a client that are killed before one is let to its end.
const KILLS: usize = 4;
/// What a client gives in a second, so that there is time to be killed in.
const RATE: [&str; 2] = ["--limit-rate", "24MiB"];

/// A client that was killed, or had ended already.
#[track_caller]
fn killed(ended: &Ended, what: &str) -> bool {
    assert!(ended.signal == Some(9) || ended.code == Some(0), "{what}: {:?} {}", ended.code, ended.stderr);
    ended.signal == Some(9)
}

/// What the log says of what was stored.
const STORED: &str = "File 'x' stored for ";

fn stores(log: &str) -> usize {
    log.matches(STORED).count()
}

#[test]
fn an_upload_that_another_connection_takes_over_is_told_to_its_end() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let server = site.serve(&[]);
    let data = noise(1, 4 * MIB);
    let mut first = Putter::new(&server, holder.token(), &data);
    first.most = 2 * MIB + 5;
    let put = first.put("x", 1);
    assert_eq!(first.offer(1, put), Came::Enough);
    server.wait_log("50%");
    let mut other = Putter::new(&server, holder.token(), &data);
    let put = other.put("x", 2);
    assert_eq!(other.offer(1, put), Came::Ended(1, Some(other.root())));
    let log = server.wait_log(STORED);
    let told =
        ["Receiving file 'x'", "another connection goes on", "Receiving file 'x'", "2097152 bytes", STORED];
    let mut rest = log.as_str();
    for text in told {
        rest = rest.split_once(text).unwrap_or_else(|| panic!("no '{text}' behind the others: {log}")).1;
    }
}

#[test]
fn a_client_killed_while_it_stores_a_large_file_brings_only_what_is_missing() {
    let (seed, site) = (seed(), Site::new());
    let holder = Holder::new(&site, &[]);
    let server = site.serve(&[]);
    let (data, old) = (noise(seed, 10 * MIB + 5), noise(!seed, 2 * MIB));
    holder.place.write("large", &data);
    let new = Files::from([("x".to_owned(), data.clone())]);
    let (mut kills, mut waste) = (0, 0);
    for number in 0..count(3) {
        let mut chance = part(seed, number);
        let mut before = Files::new();
        if number % 2 == 1 {
            site.file("x", &old);
            before.insert("x".to_owned(), old.clone());
        }
        let proxy = Proxy::faulty(server.address, |_| Plan::none()).unwrap();
        let links = (1 + chance.u64(..2)).to_string();
        let words = [&["put", "large", "--name", "x", "--json", "-j", &links], &RATE[..]].concat();
        let mut cuts = 0;
        let stores_before = stores(&server.log());
        for run in 0..=KILLS {
            let what = format!("round {number}, run {run} of seed {seed}");
            let running = holder.client(proxy.address, &words).start();
            if run < KILLS {
                std::thread::sleep(Duration::from_millis(chance.u64(..350)));
                running.signal(Signal::KILL);
            }
            let ended = running.end();
            cuts += u64::from(killed(&ended, &what));
            expect_old_or_new(&site.root(""), &before, &new, &what);
            if ended.code == Some(0) {
                assert_eq!(result(&ended)["ok"], true, "{what}");
                expect_all(&site.root(""), &new, &what);
                break;
            }
        }
        kills += cuts;
        // The block that was under way on each connection, and frames.
        let up: u64 = proxy.connections().iter().map(|traffic| traffic.up).sum();
        let bound = (1 + cuts * links.parse::<u64>().unwrap()) * MIB as u64;
        // A client that was killed before it heard that all is stored stores it again, because the name is replaced.
        let log = server.wait_log_count(STORED, stores_before + 1);
        let in_vain = wait_for(&format!("little in vain: {up} bytes, {cuts} kills, {log}"), || {
            let times = stores(&server.log()) - stores_before;
            let in_vain = up.saturating_sub((times * data.len()) as u64);
            (in_vain < bound).then_some(in_vain)
        });
        waste += in_vain;
        fs::remove_file(site.root("x")).unwrap();
    }
    println!("{kills} kills, {waste} bytes in vain");
}

#[test]
fn a_client_killed_while_it_stores_a_folder_leaves_whole_files_and_goes_on() {
    let (seed, site) = (seed(), Site::new());
    let holder = Holder::new(&site, &[]);
    let server = site.serve(&[]);
    let mut kills = 0;
    for number in 0..count(4) {
        let mut chance = part(seed, number);
        let (old, new) = folder(&holder, &site, seed, number, number % 2 == 1);
        let words = [&["put", "-r", "d", "--json"], &RATE[..]].concat();
        let mut stored = BTreeSet::new();
        for run in 0..=KILLS {
            let what = format!("round {number}, run {run} of seed {seed}");
            let running = holder.client(server.address, &words).start();
            if run < KILLS {
                std::thread::sleep(Duration::from_millis(chance.u64(..450)));
                running.signal(Signal::KILL);
            }
            let ended = running.end();
            let was_killed = killed(&ended, &what);
            kills += usize::from(was_killed);
            expect_old_or_new(&site.root(""), &old, &new, &what);
            for (name, is_unchanged) in expect_told(&ended.stdout, "d", &site.root(""), &new, &what) {
                let is_new = stored.insert(name.clone());
                assert!(is_new || is_unchanged, "{what}: '{name}' was there and was brought again");
            }
            if !was_killed {
                assert_eq!(result(&ended)["failed"], 0, "{what}");
                break;
            }
        }
        expect_all(&site.root(""), &new, &format!("round {number} of seed {seed}"));
        clear(&holder, &site);
    }
    println!("{kills} kills");
}

#[test]
fn a_client_killed_while_it_removes_or_renames_leaves_nothing_half_done() {
    const NOT_FOUND: i32 = 3;
    const EXISTS: i32 = 13;
    let (seed, site) = (seed(), Site::new());
    let holder = Holder::new(&site, &[]);
    let server = site.serve(&[]);
    let (mut kills, mut done) = (0, 0);
    for number in 0..count(1) {
        let mut chance = part(seed, number);
        let removes = number % 2 == 0;
        let mut before = Files::new();
        let names: Vec<String> = match removes {
            true => (0..400).map(|number| format!("d/{}/f{number}", number % 9)).collect(),
            false => ["a", "b"].map(str::to_owned).into(),
        };
        for (number, name) in names.into_iter().enumerate() {
            let bytes = noise(seed ^ number as u64, 3000);
            site.file(&name, &bytes);
            before.insert(name, bytes);
        }
        let words: &[&str] = if removes { &["rm", "-r", "d"] } else { &["mv", "a", "b", "--replace"] };
        let after = match removes {
            true => Files::new(),
            false => Files::from([("b".to_owned(), before["a"].clone())]),
        };
        let what = format!("round {number} of seed {seed}: {words:?}");
        let running = holder.client(server.address, words).start();
        std::thread::sleep(Duration::from_micros(chance.u64(..40_000)));
        running.signal(Signal::KILL);
        let was_killed = killed(&running.end(), &what);
        kills += usize::from(was_killed);
        // What the server has heard it does to its end.
        let files = wait_for("a removal's end", || {
            let files = found(&site.root("")).0;
            (!removes || files == before || files.is_empty()).then_some(files)
        });
        assert!(files == before || files == after, "{what}: {:?}", files.keys());
        assert!(was_killed || files == after, "{what}: it was said to be done");
        let code = loop {
            match holder.client(server.address, words).end().code {
                // The one that was heard before is still at it.
                Some(EXISTS) => {}
                code => break code,
            }
        };
        done += usize::from(was_killed && code == Some(NOT_FOUND));
        assert!(code == Some(0) || code == Some(NOT_FOUND), "{what}: {code:?}");
        expect_all(&site.root(""), &after, &what);
        clear(&holder, &site);
    }
    println!("{kills} kills, {done} of them when the server had heard it");
}
