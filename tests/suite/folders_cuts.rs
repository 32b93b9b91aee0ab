//! Folders whose transfers are cut, stalled and killed anywhere, and gone on with until all of it is there: nothing
//! that was told to be here is fetched again, and nothing is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use oneport::client::{
    Event, FetchError, Files, FolderFetched, Observer, Overwrite, Selection, Settings, fetch_folder,
};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use crate::chance::{break_off, part, seed};
use crate::fetching::settings;
use crate::folders::events;
use crate::harness::{CLIENT_PATIENCE, Place, await_for};
use crate::proxy::{Fault, Flow, Plan, Proxy};
use crate::raw::noise;
use crate::serving::{Site, wait_settled};
use crate::trees::{Tree, differs, hidden, tree, without_folders};

/// Sets how many transfers are made; and how many there are if it is not set.
const COUNT: &str = "ONEPORT_FOLDER_CUTS";
const SHORT: usize = 40;
/// Runs until a folder has to be there.
const RUNS_MAX: usize = 60;
/// Most connections of a run that go wrong.
const CUTS_MAX: usize = 8;
const SMALL: usize = 120;
const LARGE: [usize; 3] = [(1 << 20) + 1, 3 << 20, 5 << 20];

fn count(share: usize) -> usize {
    std::env::var(COUNT).map_or(SHORT, |text| text.parse().expect("a count is a number")).div_ceil(share)
}

/// A folder `d` with small and large files; its bytes.
fn fill(site: &Site, seed: u64) -> u64 {
    let mut chance = part(seed, usize::MAX);
    let mut bytes = 0;
    let mut put = |name: String, size: usize| {
        site.file(name, &noise(size as u64 ^ seed, size));
        bytes += size as u64;
    };
    for number in 0..SMALL {
        let folder = ["", "a/", "a/b/", "c/"][number % 4];
        put(format!("d/{folder}f{number}"), [0, 100, 5000, 70_000, 300_000][chance.usize(..5)]);
    }
    for (number, size) in LARGE.into_iter().enumerate() {
        put(format!("d/c/large{number}"), size);
    }
    fs::create_dir_all(site.root("d/empty/er")).unwrap();
    wait_settled(&site.root("d/c/large2"));
    bytes
}

/// Which files were said to be here.
#[derive(Default)]
struct Watch(Mutex<(Vec<Vec<u8>>, Vec<String>)>);

impl Observer for Watch {
    fn observe(&self, event: &Event<'_>) {
        let (done, failed) = &mut *self.0.lock().unwrap();
        match event {
            Event::FileDone { name, .. } => done.push(name.to_vec()),
            Event::FileFailed { error, .. } => failed.push(error.to_string()),
            _ => {}
        }
    }
}

fn fetch(
    from: SocketAddr,
    target: &Path,
    settings: &Settings,
    watch: &Watch,
) -> Result<FolderFetched, FetchError> {
    let selection = Selection { recursive: true, ..Selection::default() };
    let files = Files::Folder { name: b"d".to_vec(), selection };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (server, stopping) = (from.to_string().parse().unwrap(), CancellationToken::new());
    runtime.block_on(async {
        let fetching = fetch_folder(&server, &files, target, settings, watch, &stopping);
        tokio::time::timeout(CLIENT_PATIENCE, fetching).await.expect("it does not end")
    })
}

/// What goes wrong with a connection; anywhere, in whichever of them it is.
fn plan(chance: &mut fastrand::Rng, bytes: u64) -> Plan {
    let fault = if chance.u8(..8) == 0 { Fault::Stall } else { break_off(chance) };
    let mut plan = match chance.u8(..10) {
        0 | 1 => Plan::down(chance.u64(..400), fault),
        2 | 3 => Plan::up(chance.u64(..3000), fault),
        4..7 => Plan::down(chance.u64(..bytes / 8), fault),
        _ => Plan::down(chance.u64(..bytes), fault),
    };
    if chance.u8(..4) == 0 {
        plan.down.one_by_one_until = chance.u64(..5000);
    }
    plan
}

#[test]
fn folders_whose_connections_are_cut_anywhere_arrive_whole_and_nothing_comes_twice() {
    let (seed, site) = (seed(), Site::new());
    let bytes = fill(&site, seed);
    let server = site.serve(&[]);
    let served = tree(&site.root("d"), false);
    let (began, mut runs, mut waste) = (Instant::now(), 0, 0);
    for number in 0..count(1) {
        let mut chance = part(seed, number);
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("t");
        let there_before = chance.bool();
        if there_before {
            fs::create_dir(&target).unwrap();
        }
        let sync = chance.u8(..4) == 0;
        let (cuts, plans) = (chance.usize(1..=CUTS_MAX), chance.u64(..));
        let proxy = Proxy::faulty(server.address, move |connection| match connection < cuts {
            true => plan(&mut part(plans, connection), bytes),
            false => Plan::none(),
        })
        .unwrap();
        let mut done = BTreeMap::<Vec<u8>, Vec<usize>>::new();
        let what = format!(
            "transfer {number} of seed {seed}, there before: {there_before}, flushed: {sync}, {cuts} cuts"
        );
        let fetched = (0..RUNS_MAX).find_map(|run| {
            runs += 1;
            let timeout = Duration::from_millis(700);
            let settings = Settings {
                sync,
                timeout,
                overwrite: Overwrite::Different,
                ..settings(chance.u64(1..=2), chance.u32(0..3))
            };
            let watch = Watch::default();
            let result = fetch(proxy.address, &target, &settings, &watch);
            let (now, failed) = watch.0.into_inner().unwrap();
            assert_eq!(failed, [""; 0], "{what}");
            now.into_iter().for_each(|name| done.entry(name).or_default().push(run));
            match result {
                Ok(fetched) => Some(fetched),
                Err(error) => {
                    assert!(error.may_pass(), "{what}: {error}");
                    None
                }
            }
        });
        let fetched = fetched.unwrap_or_else(|| panic!("{what}: not within {RUNS_MAX} runs"));
        let files = served.values().filter(|facts| facts.is_file()).count() as u64;
        assert_eq!((fetched.failed, fetched.files + fetched.unchanged), (0, files), "{what}");
        check(&served, tree(&target, false), there_before, &what);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{what}: something was left beside it");
        let twice: Vec<_> = done.iter().filter(|(_, runs)| runs.len() > 1).collect();
        assert!(twice.is_empty(), "{what}: {twice:?} came twice");
        let down: u64 = proxy.connections().iter().map(|traffic| traffic.down).sum();
        waste += down.saturating_sub(bytes);
        // Nothing but what was in flight on the connections that were cut.
        let bound = bytes + (cuts as u64) * bytes / 2 + (1 << 20);
        assert!(down < bound, "{what}: {down} bytes for {bytes}");
    }
    println!("{runs} runs, {waste} bytes in vain, {:?}", began.elapsed());
}

/// Compares; into a folder that is there, several runs bring what one would, but for its folders' times.
#[track_caller]
fn check(served: &Tree, here: Tree, there_before: bool, what: &str) {
    let told = match there_before {
        true => differs(&without_folders(served.clone()), &without_folders(here)),
        false => differs(served, &here),
    };
    assert_eq!(told, None, "{what}");
}

#[test]
fn flipped_bits_on_the_way_never_become_bytes_of_a_file() {
    let (seed, site) = (seed(), Site::new());
    let bytes = fill(&site, seed);
    let server = site.serve(&[]);
    let (served, mut whole) = (tree(&site.root("d"), false), 0);
    for number in 0..count(4) {
        let mut chance = part(seed, number);
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("t");
        let (flips, plans) = (chance.usize(1..=4), chance.u64(..));
        let proxy = Proxy::faulty(server.address, move |connection| {
            let mut chance = part(plans, connection);
            let mut fault = || (chance.u64(..bytes / 4), Fault::Flip { bit: chance.u8(..8) });
            let faults = if connection < flips { vec![fault(), fault()] } else { Vec::new() };
            Plan { down: Flow { faults, ..Flow::default() }, ..Plan::default() }
        })
        .unwrap();
        for _ in 0..RUNS_MAX {
            let settings = Settings { timeout: Duration::from_millis(700), ..settings(2, 2) };
            let fetched = fetch(proxy.address, &target, &settings, &Watch::default());
            if let Ok(fetched) = fetched {
                whole += u32::from(fetched.failed == 0);
                break;
            }
        }
        for (name, facts) in tree(&target, false) {
            let is_right =
                served.get(&name).is_none_or(|served| !facts.is_file() || facts.is_same_file(served));
            assert!(is_right, "{number} of seed {seed}: {}", oneport::text::shown(&name));
        }
    }
    assert!(whole > 0);
}

#[test]
fn a_client_that_is_killed_anywhere_goes_on_with_what_it_had_and_leaves_nothing() {
    let (seed, site) = (seed(), Site::new());
    fill(&site, seed);
    let server = site.serve(&["--limit-rate", "24MiB"]);
    let served = tree(&site.root("d"), false);
    let mut kills = 0;
    for number in 0..count(4) {
        let (mut chance, place) = (part(seed, number), Place::new());
        let there_before = chance.bool();
        if there_before {
            fs::create_dir_all(place.path("client_downloads/d")).unwrap();
        }
        // In an existing folder what waits for a flush has no name yet.
        let options: &[&str] = if there_before || chance.bool() { &["--no-sync"] } else { &[] };
        let arguments = [&["-r", "d", "--json"][..], options].concat();
        let mut here = BTreeSet::new();
        for run in 0.. {
            let running = place.get(server.address, &arguments).start();
            let is_last = run == 6;
            if !is_last {
                std::thread::sleep(Duration::from_millis(chance.u64(..500)));
                running.signal(Signal::KILL);
            }
            let ended = running.end();
            let what = format!("transfer {number}, run {run} of seed {seed}: {}", ended.stderr);
            assert!(ended.signal == Some(9) || ended.code == Some(0), "{what}");
            kills += usize::from(ended.signal == Some(9));
            // A line that was being written does not end.
            let whole =
                ended.stdout.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
            let (before, mut again) = (here.len(), Vec::new());
            for line in whole {
                let event: serde_json::Value = serde_json::from_slice(line).unwrap();
                if event["event"] == "file" {
                    let name = event["file"].as_str().unwrap().to_owned();
                    assert_eq!(event["ok"], true, "{what}");
                    let is_new = here.insert(name.clone());
                    if !is_new && event["unchanged"] != true {
                        again.push(name);
                    }
                }
            }
            assert!(
                again.is_empty(),
                "of {before} that were there (in a folder {there_before}, {options:?}) fetched again: {again:?}; {what}"
            );
            if ended.code == Some(0) {
                break;
            }
        }
        assert_eq!(hidden(&place), [""; 0], "{number} of seed {seed}");
        check(
            &served,
            tree(&place.path("client_downloads/d"), false),
            there_before,
            &format!("{number} of seed {seed}"),
        );
    }
    println!("{kills} kills");
}

#[test]
fn a_server_that_is_killed_anywhere_and_started_again_is_gone_on_with() {
    let (seed, site) = (seed(), Site::new());
    fill(&site, seed);
    let served = tree(&site.root("d"), false);
    for number in 0..count(8) {
        let (mut chance, place) = (part(seed, number), Place::new());
        let mut server = site.serve(&["--limit-rate", "16MiB"]);
        let port = server.address.port().to_string();
        let options =
            [port.as_str(), "root", "--state", "state", "--log-dir", "logs", "--limit-rate", "16MiB"];
        let arguments = ["-r", "d", "--json", "--retries", "200", "--retry-max-delay", "50ms"];
        let running = place.get(server.address, &arguments).start();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(chance.u64(20..300)));
            server.signal(Signal::KILL);
            server.wait_exit();
            server = await_for("the port", || site.launch_bare(&options).try_serve().ok());
        }
        let ended = running.end().expect(0);
        let mut names: Vec<_> =
            events(&ended).iter().filter_map(|event| Some(event["file"].as_str()?.to_owned())).collect();
        let told = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), told, "{number} of seed {seed}: a file came twice");
        assert_eq!(hidden(&place), [""; 0]);
        check(
            &served,
            tree(&place.path("client_downloads/d"), false),
            false,
            &format!("{number} of seed {seed}"),
        );
    }
}
