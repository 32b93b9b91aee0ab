//! Whole folders whose connections are cut anywhere, gone on with until everything is there.
//!
//! `faults/cuts` runs the campaign with hundreds of folders; the tests run a short one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::chance::{break_off, part, seed};
use crate::harness::{Place, bytes};
use crate::proxy::{Plan, Proxy};
use crate::serving::{Server, Site};

/// Folders of the short campaign.
const SHORT: usize = 20;
/// Sets how many folders the long campaign fetches.
const COUNT: &str = "ONEPORT_FOLDER_CUTS_COUNT";
/// Folders at the same time.
const DRIVERS: usize = 2;
/// A client is started again this often, at most.
const RUNS_MAX: usize = 100;
/// Most connections of a folder that are cut; there are up to four at once.
const CUTS_MAX: usize = 8;
/// Bytes of the large file: a part with a journal.
const LARGE: usize = 3 << 20;
/// Small files, and the bytes of the longest one.
const SMALL: (usize, usize) = (29, 40_000);
/// Bytes of a hello and a few requests.
const ASKING: u64 = 500;

#[test]
fn folders_that_are_cut_anywhere_arrive_whole() {
    campaign(SHORT);
}

#[test]
#[ignore = "takes minutes: run by faults/cuts"]
fn hundreds_of_folders_that_are_cut_anywhere_arrive_whole() {
    campaign(std::env::var(COUNT).map_or(500, |text| text.parse().expect("a count is a number")));
}

type Tree = BTreeMap<String, Option<(Vec<u8>, (i64, i64))>>;

fn campaign(count: usize) {
    let seed = seed();
    let site = Site::new();
    for number in 0..SMALL.0 {
        let size = number * SMALL.1 / SMALL.0;
        site.file(
            format!("tree/d{}/e{}/f{number}", number % 3, number % 2),
            &bytes(seed ^ number as u64, size),
        );
    }
    site.file("tree/d1/large", &bytes(seed, LARGE));
    fs::create_dir_all(site.root("tree/empty/inner")).unwrap();
    let server = site.serve(&[]);
    let wanted = tree(&site.root("tree"));
    let (next, sums) = (AtomicUsize::new(0), Mutex::new((0, 0, Vec::new())));
    std::thread::scope(|scope| {
        for _ in 0..DRIVERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    let told = fetch(&server, &wanted, &mut part(seed, number));
                    let mut sums = sums.lock().unwrap();
                    match told {
                        Ok((cuts, runs)) => (sums.0, sums.1) = (sums.0 + cuts, sums.1 + runs),
                        Err(wrong) => sums.2.push(format!("folder {number}: {wrong}")),
                    }
                }
            });
        }
    });
    let (cuts, runs, failed) = sums.into_inner().unwrap();
    for failure in failed.iter().take(20) {
        println!("failed: {failure}");
    }
    let passed = count - failed.len();
    println!("seed {seed}: {count} folders of {} files, {cuts} cuts, {runs} runs of a client", SMALL.0 + 1);
    println!("{passed} passed, {} failed", failed.len());
    assert!(failed.is_empty(), "{} folders failed", failed.len());
    assert!(cuts > count, "hardly anything was cut");
}

/// Fetches the folder, through connections that are cut: how many there were, and how many runs it took.
fn fetch(server: &Server, wanted: &Tree, chance: &mut fastrand::Rng) -> Result<(usize, usize), String> {
    let whole: usize = wanted.values().flatten().map(|(content, _)| content.len()).sum();
    let (cuts, seed, exists) = (chance.usize(1..=CUTS_MAX), chance.u64(..), chance.bool());
    let plan = move |connection: usize| {
        if connection >= cuts {
            return Plan::none();
        }
        let mut chance = part(seed, connection);
        let fault = break_off(&mut chance);
        match chance.u8(..10) {
            0 | 1 => Plan::up(chance.u64(..ASKING), fault),
            // The small files are less than all.
            2..6 => Plan::down(chance.u64(..whole as u64 / 8), fault),
            _ => Plan::down(chance.u64(..whole as u64), fault),
        }
    };
    let proxy = Proxy::faulty(server.address, plan).unwrap();
    let place = Place::new();
    if exists {
        place.write("to/tree/d1/large", "an older one");
        place.write("to/tree/d0/e0/f0", "another older one");
    }
    let (address, target) = (proxy.address.to_string(), place.path("to"));
    for run in 1..=RUNS_MAX {
        let (target, retries) = (target.display().to_string(), chance.u32(0..=2).to_string());
        let arguments =
            ["get", "-r", "-s", &address, "tree", "-d", &target, "--no-sync", "--retry-delay", "1ms"];
        let ended = place.client(&[&arguments[..], &["--retries", &retries]].concat()).end();
        match ended.code {
            Some(0) => {
                let found = tree(&place.path("to"));
                let above = |name: &str| name.strip_prefix("tree/").map(str::to_owned);
                let found: Tree = found
                    .into_iter()
                    .filter(|(name, _)| name != "tree")
                    .map(|(name, leaf)| (above(&name).unwrap_or(name), leaf))
                    .collect();
                let other = |name: &&String| found.get(*name) != wanted.get(*name);
                let wrong: Vec<_> = found.keys().chain(wanted.keys()).filter(other).collect();
                if !wrong.is_empty() {
                    return Err(format!("after {run} runs these are not as served: {wrong:?}"));
                }
                let made = proxy.connections().len();
                return Ok((cuts.min(made), run));
            }
            // Lost, maybe before it stood; or a file was lost once too often.
            Some(5 | 6 | 23) => {}
            code => return Err(format!("exit status {code:?}: {}", ended.stderr)),
        }
        if !exists && place.path("to/tree").exists() && ended.code != Some(23) {
            return Err(format!("a part of a folder has its name: {}", ended.stderr));
        }
    }
    Err(format!("not after {RUNS_MAX} runs"))
}

/// What is in a folder: files with their bytes and times, and folders.
fn tree(folder: &Path) -> Tree {
    fn walk(top: &Path, folder: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            let found = fs::symlink_metadata(&path).unwrap();
            let leaf =
                found.is_file().then(|| (fs::read(&path).unwrap(), (found.mtime(), found.mtime_nsec())));
            if found.is_dir() {
                walk(top, &path, tree);
            }
            tree.insert(name, leaf);
        }
    }
    let mut tree = Tree::new();
    walk(folder, folder, &mut tree);
    tree
}
