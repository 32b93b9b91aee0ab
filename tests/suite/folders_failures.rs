//! Folders of which not everything comes: what is told, with what exit status, and what is kept.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::folders::events;
use crate::harness::{Place, await_for};
use crate::proxy::{Link, Proxy};
use crate::raw::noise;
use crate::scripted::Scripted;
use crate::serving::Site;
use crate::trees::{assert_same, hidden, sent, tree};

const MIB: usize = 1 << 20;

fn slow(site: &Site) {
    for number in 0..200 {
        site.file(format!("d/f{number:03}"), &noise(number, 10_000));
    }
    site.file("d/large", &noise(500, 4 * MIB));
}

#[test]
fn the_events_of_a_folder_are_json_and_quiet_says_what_failed_only() {
    let (site, place) = (Site::new(), Place::new());
    for (name, size) in [("d/a", 3), ("d/sub/b", 0), ("d/large", 2 * MIB), ("d/in-the-way", 5)] {
        site.file(name, &noise(size as u64, size));
    }
    std::os::unix::fs::symlink("sub", site.root("d/link")).unwrap();
    let server = site.serve(&[]);
    fs::create_dir_all(place.path("client_downloads/d/in-the-way")).unwrap();
    let ended = place.get(server.address, &["-r", "d", "--json"]).end().expect(23);
    let all = events(&ended);
    assert!(all.iter().all(|event| event["version"] == 1 && event["folder"] == "d"), "{all:?}");
    let of = |name: &str| {
        let found: Vec<_> = all.iter().filter(|event| event["file"] == name).collect();
        assert_eq!(found.len(), 1, "{name}: {all:?}");
        found[0].clone()
    };
    let root = crate::v2_peer::root_of(&noise(3, 3)).to_string();
    let a = of("a");
    assert_eq!(
        (&a["event"], &a["ok"], &a["size"], &a["unchanged"]),
        (&"file".into(), &true.into(), &3.into(), &false.into())
    );
    assert_eq!(a["blake3"], root);
    assert_eq!((of("sub/b")["ok"].clone(), of("large")["size"].clone()), (true.into(), (2 * MIB).into()));
    let bad = of("in-the-way");
    assert_eq!((&bad["event"], &bad["ok"]), (&"file".into(), &false.into()));
    assert!(bad["error"].as_str().unwrap().contains("in-the-way") && bad["code"].is_string(), "{bad}");
    let last = all.last().unwrap();
    assert_eq!(
        (&last["event"], &last["ok"], &last["exit_status"]),
        (&"result".into(), &false.into(), &23.into())
    );
    for (field, value) in
        [("files", 3), ("bytes", 3 + 2 * MIB), ("failed", 1), ("skipped", 1), ("unchanged", 0)]
    {
        assert_eq!(last[field], value, "{field}: {last}");
    }
    let quiet = place.get(server.address, &["-r", "d", "-q"]).end().expect(23);
    assert_eq!(quiet.stdout(), "");
    assert_eq!(quiet.stderr.lines().count(), 2, "{}", quiet.stderr);
    assert!(quiet.stderr.contains("client: 1 failed: in-the-way"), "{}", quiet.stderr);
    fs::remove_dir(place.path("client_downloads/d/in-the-way")).unwrap();
    let quiet = place.get(server.address, &["-r", "d", "-q"]).end().expect(0);
    assert_eq!((quiet.stdout(), quiet.stderr), (String::new(), String::new()));
}

#[test]
fn what_concerns_the_whole_folder_has_the_status_that_it_has_for_a_file() {
    let (site, place) = (Site::new(), Place::new());
    site.file("f", b"1");
    let server = site.serve(&[]);
    place.get(server.address, &["-r", "missing"]).end().expect(3).says("missing");
    place.get(server.address, &["-r", "f"]).end().expect(2).says("fetch it without -r");
    let old = Scripted::serving(b"hello");
    place.write("list", "f\n");
    for arguments in [&["-r", "d"][..], &["--files-from", "list"]] {
        place.get(old.address, arguments).end().expect(7).says("version 1");
    }
    let address = server.address;
    drop(server);
    for arguments in [&["-r", "d"][..], &["--files-from", "list"]] {
        place.get(address, arguments).end().expect(5);
    }
    let ended = place.get(address, &["-r", "d", "--json"]).end().expect(5);
    let last: Value = events(&ended).pop().unwrap();
    assert_eq!((&last["ok"], &last["exit_status"]), (&false.into(), &5.into()));
    assert_eq!(place.tree(), ["list"], "nothing was made");
}

#[test]
fn whoever_stops_a_fetch_keeps_what_has_come_and_the_next_run_goes_on() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for there_before in [false, true] {
            let (site, place) = (Site::new(), Place::new());
            slow(&site);
            let server = site.serve(&["--limit-rate", "2MiB"]);
            if there_before {
                place.write("client_downloads/d/mine", "mine");
            }
            let running = place.get(server.address, &["-r", "d", "--json"]).start();
            await_for("some files", || (sent(&server) > 40).then_some(()));
            running.signal(signal);
            let ended = running.end().expect(status).says("interrupted");
            let last = events(&ended).pop().unwrap();
            assert_eq!((&last["ok"], &last["exit_status"]), (&false.into(), &status.into()));
            if there_before {
                let here = tree(&place.path("client_downloads/d"), false);
                assert!(here.len() > 10, "what has come has its name: {}", here.len());
                let rest: Vec<_> = hidden(&place)
                    .into_iter()
                    .filter(|name| !name.ends_with("part") && !name.ends_with("journal"))
                    .collect();
                assert_eq!(rest, [""; 0]);
            } else {
                assert!(!place.path("client_downloads/d").exists());
            }
            drop(server);
            let server = site.serve(&[]);
            let before = sent(&server);
            let ended = place.get(server.address, &["-r", "d"]).end().expect(0);
            assert!(ended.stdout().contains(" unchanged"), "{}", ended.stdout());
            assert!(sent(&server) - before < 190, "{}", sent(&server) - before);
            assert_eq!(hidden(&place), [""; 0]);
            if there_before {
                fs::remove_file(place.path("client_downloads/d/mine")).unwrap();
            }
            assert_eq!(
                crate::trees::differs(
                    &tree(&site.root("d"), false),
                    &tree(&place.path("client_downloads/d"), false)
                ),
                None
            );
        }
    }
}

#[test]
fn restart_begins_at_nothing_in_a_new_folder_and_for_the_parts_in_an_old_one() {
    for there_before in [false, true] {
        let (site, place) = (Site::new(), Place::new());
        site.file("d/f", b"1");
        site.file("d/large", &noise(1, 8 * MIB));
        let server = site.serve(&["--limit-rate", "4MiB"]);
        if there_before {
            fs::create_dir_all(place.path("client_downloads/d")).unwrap();
        }
        let running = place.get(server.address, &["-r", "d"]).start();
        await_for("some blocks", || {
            let log = server.log();
            log.lines().any(|line| line.contains("Progress") && line.contains("50%")).then_some(())
        });
        running.signal(Signal::INT);
        running.end().expect(130);
        assert!(!hidden(&place).is_empty());
        drop(server);
        let server = site.serve(&[]);
        let ended = place.get(server.address, &["-r", "d", "--restart", "--json"]).end().expect(0);
        assert_eq!(events(&ended).last().unwrap()["resumed"], 0, "{}", ended.stdout());
        assert_eq!(tree(&site.root("d"), false), tree(&place.path("client_downloads/d"), false));
        assert_eq!(hidden(&place), [""; 0]);
    }
}

#[test]
fn the_second_client_at_one_folder_is_told() {
    for there_before in [false, true] {
        let (site, place) = (Site::new(), Place::new());
        slow(&site);
        let server = site.serve(&["--limit-rate", "2MiB"]);
        if there_before {
            fs::create_dir_all(place.path("client_downloads/d")).unwrap();
        }
        let first = place.get(server.address, &["-r", "d"]).start();
        await_for("some files", || (sent(&server) > 10).then_some(()));
        place.get(server.address, &["-r", "d"]).end().expect(13).says("another client is receiving");
        first.end().expect(0);
        assert_eq!(tree(&site.root("d"), false), tree(&place.path("client_downloads/d"), false));
    }
}

#[test]
fn files_that_vanish_or_change_all_the_time_fail_alone_or_come_as_they_are() {
    let (site, place) = (Site::new(), Place::new());
    for number in 0..300 {
        site.file(format!("d/f{number:03}"), &noise(number, 30_000));
    }
    site.file("d/growing", &noise(1, 100_000));
    let server = site.serve(&["--limit-rate", "8MiB"]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut more = fs::File::options().append(true).open(site.root("d/growing")).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                std::io::Write::write_all(&mut more, &[1]).unwrap();
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let running = place.get(server.address, &["-r", "d", "--json"]).start();
        await_for("some files", || (sent(&server) > 20).then_some(()));
        for number in 0..300 {
            if number % 10 == 0 {
                fs::remove_file(site.root(format!("d/f{number:03}"))).unwrap();
            }
        }
        let ended = running.end();
        is_over.store(true, Ordering::Relaxed);
        let all = events(&ended);
        let files: Vec<_> = all.iter().filter(|event| event["event"] == "file").collect();
        let failed: Vec<_> = files
            .iter()
            .filter(|event| event["ok"] == false)
            .map(|event| event["file"].as_str().unwrap())
            .collect();
        let mut names: Vec<_> = files.iter().map(|event| event["file"].as_str().unwrap()).collect();
        names.sort_unstable();
        let told = names.len();
        names.dedup();
        assert_eq!(names.len(), told, "each once");
        assert!(
            !failed.is_empty() && failed.iter().all(|name| *name == "growing" || name.ends_with('0')),
            "{failed:?}"
        );
        for name in &failed {
            assert_eq!(ended.stderr.matches(&format!("client: {name}: ")).count(), 1, "{}", ended.stderr);
        }
        assert_eq!(all.last().unwrap()["failed"], failed.len());
        ended.expect(23);
    });
    let here = tree(&place.path("client_downloads/d"), false);
    for number in (0..300).filter(|number| number % 10 != 0) {
        let name = format!("f{number:03}");
        assert!(
            fs::read(place.path("client_downloads/d").join(&name)).unwrap() == noise(number, 30_000),
            "{name}"
        );
    }
    assert!(here.len() >= 270);
    place.get(server.address, &["-r", "d"]).end().expect(0);
}

#[test]
fn a_long_way_costs_its_round_trips_only_once() {
    let (site, place) = (Site::new(), Place::new());
    for number in 0..400 {
        site.file(format!("d/f{number}"), &noise(number, 1000));
    }
    let server = site.serve(&[]);
    let link = Link { delay: Duration::from_millis(50), ..Link::default() };
    let proxy = Proxy::linked(server.address, link).unwrap();
    let began = std::time::Instant::now();
    place.get(proxy.address, &["-r", "d"]).end().expect(0);
    let elapsed = began.elapsed();
    // One after the other they would take 40 s.
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}");
    assert_same(&site.root("d"), &place.path("client_downloads/d"));
}
