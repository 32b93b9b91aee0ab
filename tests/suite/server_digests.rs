//! Digests: computed once however many ask, ahead of those who could not wait, and remembered over
//! restarts by a catalog that never stands between a reader and a file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use crate::raw::{self, fetch_whole, noise, request};
use crate::serving::{PATIENCE, Server, Signal, Site, skipped, wait_for, wait_settled};

/// Size of a file whose digest takes long enough to be seen in the processor's time.
const HUGE: u64 = 384 << 20;
/// Clients that want one file at once.
const CLIENTS: usize = 24;

/// Puts a file of zeros into the served folder that takes no room.
fn huge_file(site: &Site, name: &str) -> PathBuf {
    let path = site.root(name);
    File::create(&path).unwrap().set_len(HUGE).unwrap();
    path
}

/// Asks for a file and reads its header and no more; the MD5.
fn md5_of(server: &Server, name: &str) -> String {
    let mut stream = server.connect();
    stream.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    stream.write_all(&request(name.as_bytes())).unwrap();
    let mut head = vec![0; 2 + 4 + name.len() + 8 + 32];
    stream.read_exact(&mut head).unwrap();
    raw::reset(stream);
    raw::split(&head).unwrap().2
}

/// As [`md5_of`], and the processor time that it cost the server, in ticks.
fn cost_of(server: &Server, name: &str) -> (String, u64) {
    let before = server.ticks();
    let md5 = md5_of(server, name);
    (md5, server.ticks() - before)
}

/// Ends a server in good order.
fn stop(mut server: Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
}

fn catalog(site: &Site) -> PathBuf {
    site.path().join("state/catalog.db")
}

#[test]
fn a_digest_is_remembered_over_restarts_and_not_computed_again() {
    let site = Site::new();
    let path = huge_file(&site, "huge");
    wait_settled(&path);
    let first = site.serve(&["--hash-ahead", "0"]);
    let (md5, hashing) = cost_of(&first, "huge");
    let (again, remembered) = cost_of(&first, "huge");
    assert_eq!(md5, again);
    assert!(remembered * 4 <= hashing, "in memory: {hashing} ticks, then {remembered}");
    stop(first);
    let second = site.serve(&["--hash-ahead", "0"]);
    let (again, remembered) = cost_of(&second, "huge");
    assert_eq!(md5, again);
    assert!(remembered * 4 <= hashing, "in the catalog: {hashing} ticks, then {remembered}");
    stop(second);
    // Another file under the same name is another file.
    fs::rename(site.file("other", &noise(80, 100_000)), &path).unwrap();
    let third = site.serve(&["--hash-ahead", "0"]);
    assert!(fetch_whole(third.address, "huge") == noise(80, 100_000));
}

#[test]
fn many_who_ask_for_one_file_at_once_wait_for_one_computation() {
    let site = Site::new();
    huge_file(&site, "one");
    huge_file(&site, "many");
    let server = site.serve(&["--hash-ahead", "0"]);
    let (md5, once) = cost_of(&server, "one");
    let before = server.ticks();
    let digests: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| md5_of(&server, "many"))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let for_all = server.ticks() - before;
    assert!(digests.iter().all(|digest| *digest == md5), "{digests:?}");
    assert!(for_all < once * 3, "{once} ticks for one client, {for_all} for {CLIENTS}");
}

#[test]
fn a_large_file_is_hashed_before_anybody_asks() {
    let site = Site::new();
    let path = huge_file(&site, "sub");
    fs::rename(&path, site.root("large")).unwrap();
    let small = site.file("small", &noise(81, 1 << 20));
    let old = SystemTime::now() - Duration::from_secs(3600);
    for path in [&site.root("large"), &small] {
        OpenOptions::new().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    wait_settled(&small);
    let server = site.serve(&["--hash-ahead", "50ms"]);
    let before = server.ticks();
    let log = server.wait_log("Hashed 'large' ahead");
    let ahead = server.ticks() - before;
    assert!(log.contains(&format!("{HUGE} bytes")), "{log}");
    let (md5, asked) = cost_of(&server, "large");
    assert!(log.contains(&format!("MD5 {md5}")), "{log}");
    assert!(asked * 4 <= ahead, "{ahead} ticks ahead, {asked} when asked");
    assert!(!server.log().contains("Hashed 'small'"), "a small file is hashed on demand");
}

#[test]
fn with_hash_ahead_0_nothing_is_hashed_before_somebody_asks() {
    let site = Site::new();
    let path = huge_file(&site, "large");
    let old = SystemTime::now() - Duration::from_secs(3600);
    OpenOptions::new().write(true).open(&path).unwrap().set_modified(old).unwrap();
    wait_settled(&path);
    let server = site.serve(&["--hash-ahead", "0"]);
    let before = server.ticks();
    // What must not happen is given the time in which it would.
    thread::sleep(Duration::from_millis(700));
    let idle = server.ticks() - before;
    let (_, hashing) = cost_of(&server, "large");
    assert!(idle * 4 <= hashing, "{idle} ticks while nobody asked, {hashing} when somebody did");
    assert!(!server.log().contains("ahead"));
}

#[test]
fn a_digest_never_outlives_the_bytes_it_belongs_to() {
    const ROUNDS: u64 = 300;
    let site = Site::new();
    let path = site.file("file", &noise(82, 70_000));
    let server = site.serve(&["--v1-pause", "0", "--hash-ahead", "0"]);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    // The size stays, the time of modification is set back: only a coarse clock's change time is
    // left to tell, and many of these fall into one tick of it.
    for round in 0..ROUNDS {
        let beginning = noise(round, 1000);
        file.write_all_at(&beginning, 0).unwrap();
        file.set_modified(old).unwrap();
        let data = fetch_whole(server.address, "file");
        assert!(data[..1000] == beginning, "round {round}");
    }
}

#[test]
fn a_digest_of_a_file_that_was_just_changed_is_not_remembered() {
    let site = Site::new();
    let server = site.serve(&["--hash-ahead", "0"]);
    // Asked for within the window, in which a change could leave no trace: each time it is hashed.
    let path = site.root("young");
    File::create(&path).unwrap().set_len(HUGE / 3).unwrap();
    let (md5, first) = cost_of(&server, "young");
    let age = SystemTime::now().duration_since(fs::metadata(&path).unwrap().modified().unwrap()).unwrap();
    if age > Duration::from_millis(1900) {
        return skipped("a young file", &format!("hashing began too late: {age:?}"));
    }
    let (again, second) = cost_of(&server, "young");
    assert_eq!(md5, again);
    // A remembered digest costs next to nothing; the same work may cost twice on a busy machine.
    assert!(second * 4 > first, "{first} ticks, then {second}: it was remembered");
}

/// A site that has a catalog and one file; that file's bytes.
fn site_with_catalog() -> (Site, Vec<u8>) {
    let site = Site::new();
    let data = noise(83, 100_000);
    site.file("file", &data);
    let server = site.serve(&[]);
    assert!(fetch_whole(server.address, "file") == data);
    stop(server);
    (site, data)
}

/// Serves all the same, and says what is wrong with the catalog.
fn assert_serves_and_warns(server: &Server, data: &[u8]) {
    for _ in 0..3 {
        assert!(fetch_whole(server.address, "file") == data);
    }
    // The log folder holds what earlier servers logged; standard error is this one's alone.
    let warnings = wait_for("a warning", || {
        let said = server.stderr();
        let warnings: Vec<_> = said.lines().filter(|line| line.contains("cannot be used now")).collect();
        (!warnings.is_empty()).then(|| warnings.iter().map(|&line| line.to_owned()).collect::<Vec<_>>())
    });
    assert!(warnings.iter().all(|line| line.contains("WARN") && line.contains("catalog.db")), "{warnings:?}");
    assert!(warnings.len() <= 2, "once for each side, not for each reader: {warnings:?}");
}

#[test]
fn a_locked_catalog_is_warned_of_and_files_are_served() {
    let (site, data) = site_with_catalog();
    let holder = Connection::open(catalog(&site)).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let server = site.serve(&[]);
    assert_serves_and_warns(&server, &data);
    holder.execute_batch("ROLLBACK").unwrap();
    assert!(fetch_whole(server.address, "file") == data);
}

#[test]
fn a_catalog_that_is_locked_while_the_server_runs_does_not_hold_up_readers() {
    let (site, data) = site_with_catalog();
    let fresh = site.file("fresh", &data);
    wait_settled(&fresh);
    let server = site.serve(&[]);
    let holder = Connection::open(catalog(&site)).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(fetch_whole(server.address, "fresh") == data);
    server.wait_log("cannot be used now");
    assert!(fetch_whole(server.address, "fresh") == data);
}

#[test]
fn a_corrupt_catalog_is_warned_of_and_files_are_served() {
    let (site, data) = site_with_catalog();
    let good = fs::read(catalog(&site)).unwrap();
    let mut middle = good.clone();
    // Behind the schema, from the table of digests on.
    middle[good.len() / 4..].fill(0xa5);
    for bad in [noise(84, 20_000), b"not a database".to_vec(), middle] {
        for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
            let _ = fs::remove_file(site.path().join("state").join(name));
        }
        fs::write(catalog(&site), &bad).unwrap();
        let server = site.serve(&[]);
        assert_serves_and_warns(&server, &data);
        stop(server);
    }
}

#[test]
fn a_catalog_that_is_read_only_is_warned_of_and_files_are_served() {
    let (site, data) = site_with_catalog();
    let script = "for f in state/catalog.db*; do mount --bind $f $f && mount -o remount,bind,ro $f || exit 99; done; \
                  exec \"$0\" \"$@\"";
    let Ok(server) = site.launch(&[]).by_way_of(&["unshare", "-rm", "sh", "-c", script]).try_serve() else {
        return skipped("a read-only catalog", "nothing can be mounted here");
    };
    assert_serves_and_warns(&server, &data);
}

#[test]
fn a_catalog_that_cannot_be_opened_at_all_is_warned_of_and_files_are_served() {
    let (site, data) = site_with_catalog();
    fs::remove_file(catalog(&site)).unwrap();
    fs::create_dir(catalog(&site)).unwrap();
    assert_serves_and_warns(&site.serve(&[]), &data);
}

#[test]
fn a_catalog_that_is_deleted_while_the_server_runs_does_not_stop_reading() {
    let (site, data) = site_with_catalog();
    let other = site.file("other", &data);
    wait_settled(&other);
    let server = site.serve(&[]);
    for entry in fs::read_dir(site.path().join("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("catalog") {
            fs::remove_file(path).unwrap();
        }
    }
    for name in ["file", "other", "file", "other"] {
        assert!(fetch_whole(server.address, name) == data, "{name}");
    }
    stop(server);
    let again = site.serve(&[]);
    assert!(fetch_whole(again.address, "file") == data);
    assert!(catalog(&site).is_file(), "made anew");
}

#[test]
fn a_catalog_of_a_newer_program_ends_the_start_with_11_and_stays_as_it_is() {
    let (site, _) = site_with_catalog();
    let newer = Connection::open(catalog(&site)).unwrap();
    newer.execute("UPDATE schema_number SET number = 99", []).unwrap();
    drop(newer);
    let ended = site.launch(&[]).run();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(11), ""), "{}", ended.stderr);
    let said: Vec<_> = ended.stderr.lines().filter(|line| line.contains("newer oneport")).collect();
    assert_eq!(said.len(), 1, "one line says what happened: {}", ended.stderr);
    for word in ["catalog.db", "schema 99", "--state"] {
        assert!(said[0].contains(word), "'{word}' in: {}", said[0]);
    }
    let kept = Connection::open(catalog(&site)).unwrap();
    let number: i64 = kept.query_row("SELECT number FROM schema_number", [], |row| row.get(0)).unwrap();
    assert_eq!(number, 99, "and it is left as it is");
}
