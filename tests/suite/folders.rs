//! Whole folders, fetched by the real client from the real server: all of it arrives as it is there, and a second
//! run fetches what has changed and nothing else.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Ended, Place, bytes};
use crate::raw::noise;
use crate::serving::{Server, Site, wait_for};
use crate::trees::{assert_same, differs, dress, everything, hidden, is_sending, sent, tree};

const MIB: usize = 1 << 20;

fn get(place: &Place, server: &Server, arguments: &[&str]) -> Ended {
    place.get(server.address, arguments).end()
}

/// The events of a `--json` run.
pub(crate) fn events(ended: &Ended) -> Vec<Value> {
    ended.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How often the server has sent a file, once it has told of so many.
#[track_caller]
fn assert_sent(server: &Server, count: usize) {
    wait_for("what was sent", || (sent(server) >= count).then_some(()));
    // What would be too much has been told of before its connection was closed.
    wait_for("the end of all connections", || {
        let log = server.log();
        let of = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        (of("Connection closed") >= of("New connection from")).then_some(())
    });
    assert_eq!(sent(server), count, "{}", server.log());
}

#[test]
fn a_tree_arrives_whole_and_a_second_run_fetches_nothing() {
    let (site, place) = (Site::new(), Place::new());
    everything(&site);
    let server = site.serve(&[]);
    let ended = get(&place, &server, &["-r", ".", "-o", "here"]).expect(0);
    assert_same(&site.root(""), &place.path("here"));
    assert_eq!(hidden(&place), [""; 0]);
    assert!(
        ended.stderr.contains("to-folder: a link to a folder, not followed (-L follows)"),
        "{}",
        ended.stderr
    );
    assert!(ended.stdout().contains("BLAKE3 verified, 2 skipped"), "{}", ended.stdout());
    for name in ["a/small-holes", "large-holes"] {
        let blocks = |path| fs::metadata(path).unwrap().blocks();
        let (there, here) = (blocks(site.root(name)), blocks(place.path("here").join(name)));
        assert!(here <= there + 16, "{name} takes {here} blocks, and {there} on the server");
    }
    let files = tree(&place.path("here"), false).len();
    let before = sent(&server);
    for target in ["here", "here/", "./here"] {
        let again = get(&place, &server, &["-r", ".", "-o", target, "--json"]);
        let events = events(&again.expect(0));
        let last = events.last().unwrap();
        assert_eq!((&last["files"], &last["failed"]), (&0.into(), &0.into()), "{last}");
        assert!(last["unchanged"].as_u64().unwrap() > files as u64 / 2, "{last}");
    }
    assert_sent(&server, before);
    assert_same(&site.root(""), &place.path("here"));
}

#[test]
fn links_to_folders_are_followed_if_that_is_wanted() {
    let (site, place) = (Site::new(), Place::new());
    everything(&site);
    fs::remove_file(site.root("a/up")).unwrap();
    let server = site.serve(&[]);
    let ended = get(&place, &server, &["-rL", ".", "-o", "here"]).expect(0);
    assert!(!ended.stdout().contains("skipped"), "{}", ended.stdout());
    assert_eq!(differs(&tree(&site.root(""), true), &tree(&place.path("here"), false)), None);
}

#[test]
fn the_servers_own_folders_are_never_fetched() {
    let (site, place) = (Site::new(), Place::new());
    site.file("f", b"1");
    fs::write(site.root(".oneport-1.part"), "2").unwrap();
    let server = site.launch_bare(&["0", ".", "--state", "state", "--log-dir", "logs"]).serve();
    for (options, target) in [("-r", "one"), ("-rL", "two")] {
        get(&place, &server, &[options, ".", "-o", target]).expect(0);
        let mut names: Vec<_> =
            fs::read_dir(place.path(target)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| !name.to_string_lossy().starts_with("std"));
        assert_eq!(names, ["root"]);
        assert_eq!(fs::read_dir(place.path(target).join("root")).unwrap().count(), 1);
    }
}

#[test]
fn a_second_run_fetches_what_has_changed_and_leaves_other_files_alone() {
    for sync in [true, false] {
        let (site, place) = (Site::new(), Place::new());
        let sizes = [
            ("same", 1000),
            ("larger", 10),
            ("smaller", 70_000),
            ("touched", 5),
            ("to-large", 9),
            ("large", 3 * MIB),
        ];
        for (seed, (name, size)) in sizes.into_iter().enumerate() {
            site.file(format!("d/{name}"), &noise(seed as u64, size));
        }
        let server = site.serve(&[]);
        let options: &[&str] = if sync { &["-r", "d"] } else { &["-r", "d", "--no-sync"] };
        get(&place, &server, options).expect(0);
        assert_sent(&server, sizes.len());
        place.write("client_downloads/d/mine", "mine");
        site.file("d/larger", &noise(9, 2000));
        site.file("d/smaller", b"");
        dress(&site.root("d/touched"), 0o600, 7);
        site.file("d/to-large", &noise(10, 2 * MIB));
        site.file("d/sub/new", b"new");
        let ended = get(&place, &server, options).expect(0);
        assert!(ended.stdout().contains("5 files"), "{}", ended.stdout());
        assert!(ended.stdout().contains("2 unchanged"), "{}", ended.stdout());
        assert_sent(&server, sizes.len() + 5);
        assert_eq!(place.read("client_downloads/d/mine"), b"mine");
        fs::remove_file(place.path("client_downloads/d/mine")).unwrap();
        assert_eq!(hidden(&place), [""; 0]);
        // The folder itself was there and keeps its time.
        assert_eq!(
            differs(&tree(&site.root("d"), false), &tree(&place.path("client_downloads/d"), false)),
            None
        );
    }
}

#[test]
fn overwrite_never_keeps_what_is_here_and_always_fetches_everything() {
    let (site, place) = (Site::new(), Place::new());
    for (name, size) in [("same", 10), ("other", 20), ("large", 2 * MIB)] {
        site.file(format!("d/{name}"), &noise(size as u64, size));
    }
    let server = site.serve(&[]);
    get(&place, &server, &["-r", "d"]).expect(0);
    place.write("client_downloads/d/other", "mine");
    place.write("client_downloads/d/large", "mine");
    let ended = get(&place, &server, &["-r", "d", "--overwrite", "never"]).expect(23);
    for name in ["other", "large"] {
        assert_eq!(place.read(format!("client_downloads/d/{name}")), b"mine");
        assert_eq!(ended.stderr.matches(&format!("client: {name}: ")).count(), 1, "{}", ended.stderr);
    }
    assert_sent(&server, 3);
    place.write("list", "d/other\nd/missing-here\n");
    site.file("d/missing-here", b"new");
    place.write("client_downloads/d/d/other", "mine");
    let list = ["--files-from", "list", "-d", "client_downloads/d", "--overwrite", "never"];
    get(&place, &server, &list).expect(23).says("d/other");
    assert_eq!(place.read("client_downloads/d/d/other"), b"mine");
    assert_eq!(place.read("client_downloads/d/d/missing-here"), b"new");
    // A file of which only the name was known is on its way before it is known to be here.
    assert_sent(&server, 5);
    get(&place, &server, &["-r", "d", "--overwrite", "always"]).expect(0);
    assert_sent(&server, 9);
    assert_eq!(place.read("client_downloads/d/other"), noise(20, 20));
}

#[test]
fn a_file_where_a_folder_is_needed_and_the_reverse_are_told_and_never_replaced() {
    let (site, place) = (Site::new(), Place::new());
    for name in ["folder/in", "folder/deep/in", "file", "large", "ok"] {
        site.file(name, name.as_bytes());
    }
    site.file("large", &noise(1, 2 * MIB));
    let server = site.serve(&[]);
    place.write("here/folder", "a file");
    place.write("here/file/in", "a file in a folder");
    place.write("here/large/in", "a file in a folder");
    for arguments in [&["-r", ".", "-o", "here"][..], &["--files-from", "list", "-d", "here"]] {
        place.write("list", "folder/in\nfolder/deep/in\nfile\nlarge\nok\n");
        let ended = get(&place, &server, arguments).expect(23);
        for name in ["folder/in", "folder/deep/in", "file", "large"] {
            assert_eq!(
                ended.stderr.matches(&format!("client: {name}: ")).count(),
                1,
                "{name}: {}",
                ended.stderr
            );
        }
        assert_eq!(place.read("here/folder"), b"a file");
        assert_eq!(place.read("here/file/in"), b"a file in a folder");
        assert_eq!(place.read("here/large/in"), b"a file in a folder");
        assert_eq!(place.read("here/ok"), b"ok");
        fs::remove_file(place.path("here/ok")).unwrap();
        assert_eq!(hidden(&place), [""; 0]);
    }
}

#[test]
fn links_that_lie_here_are_replaced_and_never_written_through() {
    let (site, place) = (Site::new(), Place::new());
    for (name, size) in [("small", 10), ("large", 2 * MIB), ("folder/in", 10), ("folder/large", 2 * MIB)] {
        site.file(name, &noise(size as u64, size));
    }
    let server = site.serve(&[]);
    for name in ["small", "large", "folder/in", "folder/large"] {
        place.write(format!("outside/{name}"), "canary");
    }
    fs::create_dir(place.path("here")).unwrap();
    for name in ["small", "large", "folder"] {
        symlink(place.path("outside").join(name), place.path("here").join(name)).unwrap();
    }
    let ended = get(&place, &server, &["-r", ".", "-o", "here"]).expect(23);
    assert!(ended.stderr.contains("client: folder/in: "), "{}", ended.stderr);
    for name in ["small", "large", "folder/in", "folder/large"] {
        assert_eq!(place.read(format!("outside/{name}")), b"canary");
    }
    assert_eq!(place.read("here/small"), noise(10, 10));
    assert_eq!(place.read("here/large"), noise(2 * MIB as u64, 2 * MIB));
    assert!(place.path("here/small").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read_dir(place.path("outside/folder")).unwrap().count(), 2);
    assert_eq!(hidden(&place), [""; 0]);
}

#[test]
fn patterns_several_folders_addresses_and_places() {
    let (site, place) = (Site::new(), Place::new());
    for name in ["a/x.o", "a/keep.o", "a/x.c", "a/cache/z", "b/sub/y", "../outside"] {
        site.file(name, name.as_bytes());
    }
    let server = site.serve(&[]);
    let names = |folder: &str| {
        let found = tree(&place.path(folder), false);
        found.keys().map(|name| String::from_utf8(name.clone()).unwrap()).collect::<Vec<_>>().join(" ")
    };
    let patterns = ["--include", "keep*", "--exclude", "*.o", "--exclude", "cache"];
    get(&place, &server, &[&["-r", "a", "b"][..], &patterns].concat()).expect(0);
    assert_eq!(names("client_downloads"), "a a/keep.o a/x.c b b/sub b/sub/y");
    get(&place, &server, &["-r", "a/", "b/sub", "-o", "into/"]).expect(0);
    assert_eq!(names("into"), "a a/cache a/cache/z a/keep.o a/x.c a/x.o sub sub/y");
    for _again in 0..2 {
        get(&place, &server, &["-r", "b", "-o", "renamed"]).expect(0);
        assert_eq!(names("renamed"), "sub sub/y");
    }
    let url = format!("oneport://{}/b/sub", server.address);
    place.client(&["get", "-r", &url, "-d", "url", "--retries", "0"]).end().expect(0);
    assert_eq!(names("url"), "sub sub/y");
    let ended = get(&place, &server, &["-r", "missing", "b", "-d", "some"]).expect(23);
    assert!(ended.stderr.contains("missing") && names("some") == "b b/sub b/sub/y", "{}", ended.stderr);
    for wrong in [
        &["-r", "a/.."][..],
        &["-r", "a", "x/a"],
        &["-r", "a", "b", "-o", "one"],
        &["-r", "a", "-o", "-"],
        &["-r", "a", "-o", ""],
        &["-r", &url],
        &["-r", "a", "--protocol", "v1"],
        &["-r", "a", "--checksum", "md5=00000000000000000000000000000000"],
        &["-r", "a", "--exclude", "[x"],
    ] {
        get(&place, &server, wrong).expect(2);
    }
    for one in ["1", "8"] {
        get(&place, &server, &["-r", ".", "-j", one, "-o", &format!("j{one}")]).expect(0);
        assert_same(&site.root(""), &place.path(format!("j{one}")));
    }
}

#[test]
fn a_limited_rate_holds_for_all_files_of_a_folder_together() {
    const RATE: usize = MIB;
    let site = Site::alone();
    let place = Place::idle();
    for number in 0..40 {
        site.file(format!("d/f{number}"), &noise(number, RATE / 20));
    }
    site.file("d/large", &noise(50, 2 * RATE));
    let server = site.serve(&[]);
    let began = Instant::now();
    get(&place, &server, &["-r", "d", "--limit-rate", "1MiB"]).expect(0);
    let elapsed = began.elapsed();
    assert!(elapsed > Duration::from_millis(3500) && elapsed < Duration::from_secs(12), "{elapsed:?}");
    assert_eq!(tree(&place.path("client_downloads/d"), false), tree(&site.root("d"), false));
}

#[test]
fn the_files_of_a_list_arrive_under_their_names() {
    let (site, place) = (Site::new(), Place::new());
    for (name, size) in [("a/f", 10), ("b", 0), ("a/large", 3 * MIB), ("not", 5), ("c.o", 7)] {
        site.file(name, &bytes(size as u64, size));
    }
    let server = site.serve(&[]);
    place.write("list", "a/f\r\n\n./b\r\na/f\nc.o\nmissing\na/large");
    let ended = get(&place, &server, &["--files-from", "list", "--exclude", "*.o"]).expect(23);
    assert_eq!(ended.stderr.matches("client: missing: ").count(), 1, "{}", ended.stderr);
    let there = tree(&place.path("client_downloads"), false);
    let names: Vec<_> = there.keys().map(|name| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, ["a", "a/f", "a/large", "b"]);
    for name in ["a/f", "b", "a/large"] {
        assert_eq!(there[name.as_bytes()], tree(&site.root(""), false)[name.as_bytes()], "{name}");
    }
    let before = sent(&server);
    let again = get(&place, &server, &["--files-from", "list", "--exclude", "*.o"]).expect(23);
    assert!(
        again.stdout().contains("0 files, 0 B") && again.stdout().contains("3 unchanged, 1 failed"),
        "{}",
        again.stdout()
    );
    // Some bytes of a file may be on their way when it is known that they are not needed; never a whole run.
    assert!(sent(&server) <= before + 4, "{}", server.log());
    // The log has all that came before.
    crate::harness::await_for("the end of all connections in the log", || {
        let (log, of) = (server.log(), |log: &str, what| log.matches(what).count());
        (of(&log, "New connection from") == of(&log, "Connection closed with")).then_some(())
    });
    for wrong in ["../x", "/etc/passwd", "a/../../x", ".oneport-1", "a//b", "x\0y"] {
        place.write("wrong", format!("b\n{wrong}\n"));
        let connections = server.log().matches("New connection from").count();
        get(&place, &server, &["--files-from", "wrong"]).expect(2).says("wrong");
        assert_eq!(server.log().matches("New connection from").count(), connections, "{wrong}");
    }
    get(&place, &server, &["--files-from", "no-such-list"]).expect(2).says("no-such-list");
}

#[test]
fn a_list_may_come_by_standard_input() {
    let (site, place) = (Site::new(), Place::new());
    site.file("a/f", b"f");
    let server = site.serve(&[]);
    let script =
        format!("echo a/f | {} get -s {} --files-from -", env!("CARGO_BIN_EXE_client"), server.address);
    place.program(&[OsStr::new("sh"), OsStr::new("-c")], &[&script]).end().expect(0);
    assert_eq!(place.read("client_downloads/a/f"), b"f");
}

#[test]
fn many_small_files_share_few_connections_whether_they_are_listed_or_named() {
    const FILES: usize = 360;
    let place = Place::new();
    for arguments in [&["-r", "d", "-o", "listed/d"][..], &["--files-from", "list", "-d", "named"]] {
        let site = Site::new();
        let mut list = Vec::new();
        for number in 0..FILES {
            let name = format!("d/f{number:04}");
            site.file(&name, &noise(number as u64, [100, 64 << 10, 200 << 10, 900 << 10][number % 4]));
            writeln!(list, "{name}").unwrap();
        }
        place.write("list", list);
        let server = site.serve(&["--hash-ahead", "0"]);
        get(&place, &server, &[arguments, &["--no-sync"]].concat()).expect(0);
        // What is named is of unknown size: some of it is too much at once, and asked for again.
        let sent =
            server.wait_log_count("Connection closed", 2).lines().filter(|line| is_sending(line)).count();
        let most = if arguments[0] == "-r" { FILES } else { 3 * FILES / 2 };
        assert!((FILES..=most).contains(&sent), "{sent} for {arguments:?}");
        let connections = server.log().matches("New connection from").count();
        assert!(connections <= 4, "{connections} connections for {arguments:?}");
        let target = if arguments[0] == "-r" { "listed/d" } else { "named/d" };
        let (served, here) = (tree(&site.root("d"), false), tree(&place.path(target), false));
        assert_eq!(differs(&served, &here), None);
    }
}
