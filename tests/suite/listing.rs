//! Folders of a real server, listed by real clients: what is listed, what never is, bad networks, restarts,
//! strangers on either side, and memory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use oneport::codec::v2::{ClientFrame, Entries, List, ServerFrame};
use oneport::listing::{Entry, Kind};
use oneport::patterns::Verdict;
use serde_json::Value;

use crate::harness::{Ended, Place, await_for};
use crate::proxy::{Fault, Plan, Proxy};
use crate::scripted::Scripted;
use crate::serving::{Server, Signal, Site, skipped};
use crate::v2_peer::{Asker, encoded, frame, server};

const WRONG: u16 = 2;
const NOT_FOUND: u16 = 3;
const VIOLATED: u16 = 8;
const CANCELLED: u16 = 130;

/// Runs `client ls` with short waits.
fn ls(place: &Place, from: impl ToString, arguments: &[&str]) -> Ended {
    let server = from.to_string();
    let mut all = vec!["ls", "-s", &server, "--retry-delay", "20ms"];
    if !arguments.contains(&"--retries") {
        all.extend(["--retries", "0"]);
    }
    place.client(&[&all, arguments].concat()).end()
}

/// The names that were listed, in order.
fn names(ended: &Ended) -> Vec<String> {
    ended.stdout().lines().map(str::to_owned).collect()
}

fn files(site: &Site, names: &[&str]) {
    for name in names {
        site.file(name, name.as_bytes());
    }
}

fn list(request: u32, name: &str, recursive: bool) -> ClientFrame {
    let name = Bytes::copy_from_slice(name.as_bytes());
    ClientFrame::List(request, List { recursive, name, ..List::default() })
}

#[test]
fn a_folder_is_listed_sorted_and_all_of_it_if_that_is_wanted() {
    let site = Site::new();
    files(&site, &["b", "a/x.txt", "a/deep/y.txt", "c d"]);
    fs::write(site.root(OsStr::from_bytes(b"z\xff\n")), "").unwrap();
    let (server, place) = (site.serve(&[]), Place::new());
    let listed = ls(&place, server.address, &[]).expect(0);
    assert_eq!(names(&listed), ["a/", "b", "c d", "z\\xff\\n"]);
    let listed = ls(&place, server.address, &["-r", "./"]).expect(0);
    assert_eq!(names(&listed), ["a/", "a/deep/", "a/deep/y.txt", "a/x.txt", "b", "c d", "z\\xff\\n"]);
    let listed = ls(&place, server.address, &["-r", "a/", "b"]).expect(0);
    assert_eq!(names(&listed), ["a:", "deep/", "deep/y.txt", "x.txt", "", "b:", "b"]);
    let url = format!("oneport://{}/a/deep", server.address);
    assert_eq!(names(&place.client(&["ls", &url]).end().expect(0)), ["y.txt"]);
    ls(&place, server.address, &["missing"]).expect(3).says("missing");
    ls(&place, server.address, &["a/../b"]).expect(3);
    let several = ls(&place, server.address, &["missing", "a/deep"]).expect(23);
    assert!(several.stdout().contains("y.txt"), "one that fails does not keep the others back");
    server.wait_log("Listing 'a/deep' to ");
    server.wait_log("Folder '.' listed to ");
}

#[test]
fn long_lines_and_json_tell_all_that_is_known() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::new();
    let path = site.file("f\u{ff}", b"12345");
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 7)).unwrap();
    fs::create_dir(site.root("folder")).unwrap();
    fs::write(site.root(OsStr::from_bytes(b"\xff")), "").unwrap();
    let (server, place) = (site.serve(&[]), Place::new());
    let long = ls(&place, server.address, &["-l"]).expect(0).stdout();
    let line = long.lines().find(|line| line.ends_with("f\u{ff}")).unwrap();
    assert!(line.starts_with("-rw-r-----") && line.contains(" 5 2023-11-14 22:13:20Z "), "{line}");
    assert!(long.lines().any(|line| line.starts_with('d') && line.ends_with("folder/")), "{long}");
    let json = ls(&place, server.address, &["--json"]).expect(0).stdout();
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let named = |name: &str| lines.iter().find(|line| line["name"] == name).unwrap();
    let file = named("f\u{ff}");
    assert_eq!((&file["kind"], &file["size"], &file["mode"]), (&"file".into(), &5.into(), &"0640".into()));
    assert_eq!((&file["modified"], &file["modified_nanoseconds"]), (&1_700_000_000.into(), &7.into()));
    assert_eq!((&file["sparse"], &file["name_hex"]), (&false.into(), &Value::Null));
    assert_eq!(named("\u{fffd}")["name_hex"], "ff");
    assert_eq!(named("folder")["kind"], "folder");
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["ok"], &last["entries"]), (&"result".into(), &true.into(), &3.into()));
}

#[test]
fn patterns_choose_in_their_order() {
    let site = Site::new();
    files(&site, &["a/x.o", "a/x.c", "keep.o", "b/y.o", "cache/z"]);
    let (server, place) = (site.serve(&[]), Place::new());
    let chosen =
        |patterns: &[&str]| names(&ls(&place, server.address, &[&["-r"], patterns].concat()).expect(0));
    assert_eq!(
        chosen(&["--include", "keep*", "--exclude", "*.o", "--exclude", "cache"]),
        ["a/", "a/x.c", "b/", "keep.o"]
    );
    assert_eq!(
        chosen(&["--exclude", "*.o", "--include", "keep*", "--exclude", "a"]),
        ["b/", "cache/", "cache/z"]
    );
    assert_eq!(chosen(&["--exclude", "*/**"]), ["a/", "b/", "cache/", "keep.o"]);
    ls(&place, server.address, &["--exclude", "[a"]).expect(2).says("'['");
    let many: Vec<_> = (0..33).flat_map(|_| ["--exclude", "x"]).collect();
    ls(&place, server.address, &many).expect(2).says("too many");
    let long = "x".repeat(1024);
    let full: Vec<_> = (0..20).flat_map(|_| ["--exclude", &long]).collect();
    ls(&place, server.address, &full).expect(2).says("do not fit");
}

#[test]
fn links_are_followed_if_that_is_wanted_and_a_loop_ends() {
    let site = Site::new();
    files(&site, &["a/f", "../outside"]);
    for (target, link) in
        [("a", "to-a"), ("a/f", "to-f"), ("..", "a/up"), ("../outside", "out"), ("/etc", "etc")]
    {
        symlink(target, site.root(link)).unwrap();
    }
    let (server, place) = (site.serve(&[]), Place::new());
    let listed = ls(&place, server.address, &["-r"]).expect(0);
    assert_eq!(names(&listed), ["a/", "a/f", "a/up@", "to-a@", "to-f"]);
    let listed = ls(&place, server.address, &["-rL"]).expect(0);
    assert_eq!(names(&listed), ["a/", "a/f", "a/up@", "to-a/", "to-a/f", "to-a/up@", "to-f"]);
}

#[test]
fn the_servers_own_folders_are_never_listed_even_where_it_serves_the_folder_that_they_are_in() {
    let site = Site::new();
    files(&site, &["f", ".oneport-1.part"]);
    symlink("../logs", site.root("logs-link")).unwrap();
    symlink("../state", site.root("state-link")).unwrap();
    let options = ["0", ".", "--state", "state", "--log-dir", "logs"];
    let (server, place) = (site.launch_bare(&options).serve(), Place::new());
    for options in [&["-r"][..], &["-rL"]] {
        let listed = ls(&place, server.address, options).expect(0).stdout();
        assert!(listed.contains("root/f"), "{listed}");
        for own in ["logs", "state", ".oneport", "owner"] {
            assert!(!listed.contains(own), "{own}: {listed}");
        }
    }
    for own in ["logs", "state", "root/logs-link"] {
        ls(&place, server.address, &[own]).expect(3);
    }
}

#[test]
fn a_folder_that_the_server_cannot_read_is_told_and_the_rest_is_listed() {
    use std::os::unix::fs::PermissionsExt as _;
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let is_root = rustix::process::geteuid().is_root();
    let mut works = Command::new(user[0]);
    if is_root && !works.args(&user[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        return skipped("an unreadable folder", "running as root without setpriv");
    }
    let site = Site::new();
    files(&site, &["a/closed/f", "z"]);
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(site.root("a/closed"), fs::Permissions::from_mode(0o700 * u32::from(is_root)))
        .unwrap();
    let launch = site.launch(&[]);
    let launch = if is_root { launch.by_way_of(&user) } else { launch };
    let (server, place) = (launch.serve(), Place::new());
    let listed = ls(&place, server.address, &["-r"]).expect(23).says("a/closed cannot be listed");
    assert_eq!(names(&listed), ["a/", "a/closed/", "z"]);
    let last = ls(&place, server.address, &["-r", "--json"]).expect(23).stdout();
    assert!(last.lines().last().unwrap().contains("\"closed\":1"), "{last}");
    fs::set_permissions(site.root("a/closed"), fs::Permissions::from_mode(0o700)).unwrap();
}

/// A folder with folders of files, whose listing takes several stretches; the names, each once.
fn many(site: &Site) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for folder in 0..40 {
        fs::create_dir(site.root(format!("folder{folder}"))).unwrap();
        all.insert(format!("folder{folder}"));
        for file in 0..100 {
            let name = format!("folder{folder}/{file:040}");
            fs::write(site.root(&name), "").unwrap();
            all.insert(name);
        }
    }
    all
}

/// What a `--json` listing named; that nothing came twice.
#[track_caller]
fn each_once(ended: &Ended) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for line in ended.stdout().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["event"] == "entry" {
            let name = line["name"].as_str().unwrap();
            assert!(all.insert(name.to_owned()), "{name} twice");
        }
    }
    all
}

#[test]
fn a_listing_that_is_cut_goes_on_and_neither_repeats_nor_loses_anything() {
    let site = Site::new();
    let all = many(&site);
    let (server, place) = (site.serve(&[]), Place::new());
    for (at, fault) in
        [(60_000, Fault::Cut), (60_000, Fault::Reset), (1_000, Fault::Cut), (120_001, Fault::Reset)]
    {
        let plans = move |number| if number < 3 { Plan::down(at, fault) } else { Plan::none() };
        let proxy = Proxy::faulty(server.address, plans).unwrap();
        let ended = ls(&place, proxy.address, &["-r", "--json", "--retries", "4"]).expect(0);
        assert_eq!(each_once(&ended), all, "{fault:?} at {at}");
        assert!(proxy.connections().len() > 1, "it was cut");
    }
    server.wait_log("from where it had stopped");
}

#[test]
fn a_server_that_is_killed_and_started_again_goes_on_with_the_listing() {
    let site = Site::new();
    let all = many(&site);
    let first = site.serve(&[]);
    let port = first.address.port().to_string();
    let mut server = Some(first);
    let address = server.as_ref().unwrap().address;
    // The client is held up by whoever reads its output, and so is the server.
    let place = Place::new();
    let mut client = Command::new(env!("CARGO_BIN_EXE_client"))
        .args(["ls", "-s", &address.to_string(), "-r", "--json", "--retry-delay", "100ms"])
        .current_dir(place.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(client.stdout.take().unwrap());
    let mut text = String::new();
    output.read_line(&mut text).unwrap();
    let mut killed = server.take().unwrap();
    killed.signal(Signal::KILL);
    killed.wait_exit();
    let options = [port.as_str(), "root", "--state", "state", "--log-dir", "logs"];
    let again = await_for("the port", || site.launch_bare(&options).try_serve().ok());
    output.read_to_string(&mut text).unwrap();
    assert!(client.wait().unwrap().success());
    let names: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = names.iter().filter_map(|line| line["name"].as_str()).collect();
    assert_eq!(names.len(), all.len(), "nothing came twice");
    assert!(names.iter().all(|name| all.contains(*name)));
    again.wait_log("from where it had stopped");
}

#[test]
fn whoever_stops_reading_ends_the_listing_quietly() {
    let site = Site::new();
    many(&site);
    let (server, place) = (site.serve(&[]), Place::new());
    let client = env!("CARGO_BIN_EXE_client");
    for options in ["-r", "-r --json"] {
        let script =
            format!("{client} ls -s {} {options} | head -n 1; exit ${{PIPESTATUS[0]}}", server.address);
        let ended = place.program(&[OsStr::new("bash"), OsStr::new("-c")], &[&script]).end().expect(0);
        assert_eq!((ended.stdout().lines().count(), ended.stderr.as_str()), (1, ""));
    }
}

#[test]
fn a_server_of_version_1_cannot_list() {
    let place = Place::new();
    let old = Scripted::serving(b"hello");
    ls(&place, old.address, &[]).expect(7).says("version 1");
}

/// All entries of a request, taken without opening its window, and the code if it failed.
fn hear(asker: &mut Asker, request: u32) -> (Vec<Entry>, Option<u16>) {
    let mut found = Vec::new();
    loop {
        match asker.hear().expect("the connection ended").frame {
            ServerFrame::Entries(number, entries) if number == request => found.extend(entries.entries),
            ServerFrame::End(number, _) if number == request => return (found, None),
            ServerFrame::Error(number, code, _) if number == request => return (found, Some(code.0)),
            ServerFrame::Error(0, code, _) => return (found, Some(code.0)),
            _ => {}
        }
    }
}

#[test]
fn cursors_patterns_and_names_of_strangers_are_refused() {
    let site = Site::new();
    files(&site, &["a/f", "../outside"]);
    symlink("..", site.root("up")).unwrap();
    let server = site.serve(&[]);
    let mut asker = Asker::new(&server, "");
    let mut number = 0;
    let mut ask = |list: List| {
        number += 1;
        asker.send(&[ClientFrame::List(number, list)]);
        hear(&mut asker, number)
    };
    let cursor = |names: &[&[u8]]| {
        let mut bytes = vec![1];
        bytes.extend([0; 8]);
        for name in names {
            bytes.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            bytes.extend(*name);
            bytes.extend([0; 8]);
        }
        Bytes::from(bytes)
    };
    let of = |cursor: Bytes| List { recursive: true, follow_links: true, cursor, ..List::default() };
    for hostile in [&b".."[..], b"/", b"a/f", b"", b".oneport", b"."] {
        assert_eq!(ask(of(cursor(&[hostile]))).1, Some(WRONG), "{hostile:?}");
    }
    for bytes in [&b"\x02"[..], b"\x01\0", b"nonsense", &[0xff; 8192], &[1; 100]] {
        assert_eq!(ask(of(Bytes::copy_from_slice(bytes))).1, Some(WRONG), "{bytes:?}");
    }
    for honest in [&[&b"up"[..]][..], &[b"missing"], &[b"a", b"f"]] {
        let (entries, code) = ask(of(cursor(honest)));
        assert!(
            code.is_none() && entries.iter().all(|entry| !entry.name.ends_with(b"outside")),
            "{entries:?}"
        );
    }
    for pattern in [&b""[..], b"[", b"a\\", b"/a"] {
        let patterns = vec![(Verdict::Exclude, Bytes::copy_from_slice(pattern))];
        assert_eq!(ask(List { patterns, ..List::default() }).1, Some(WRONG), "{pattern:?}");
    }
    for name in [&b".."[..], b"/etc", b"a/..", b"missing", b"\xff", b"a/f/x", b".oneport"] {
        let name = Bytes::copy_from_slice(name);
        assert_eq!(ask(List { name: name.clone(), ..List::default() }).1, Some(NOT_FOUND), "{name:?}");
    }
    assert!(asker.is_answered());
    for body in [
        &b"\0\x10\x01"[..],
        b"\0\0\0\x20\x01",
        b"\0\0\0\0\0\x21",
        b"\0\0\0\0\0\x01\x02\0\0",
        b"\0\0\0\0\0\x01\0\0\x05x",
    ] {
        use std::io::Write as _;
        let mut asker = Asker::new(&server, "");
        asker.stream.write_all(&frame(0x06, 1, body)).unwrap();
        assert_eq!(asker.hear_error().map(|(_, code, _)| code), Some(VIOLATED), "{body:?}");
    }
}

#[test]
fn patterns_that_were_made_to_take_long_hold_up_nobody_else() {
    let site = Site::new();
    for index in 0..300 {
        fs::write(site.root(format!("{}{index}", "a".repeat(200))), "").unwrap();
    }
    files(&site, &["small"]);
    let server = site.serve(&[]);
    let mut hostile = Asker::new(&server, "");
    let source = Bytes::from("*a".repeat(250) + "b");
    let patterns = vec![(Verdict::Exclude, source); 28];
    hostile.send(
        &(1..=60)
            .map(|number| ClientFrame::List(number, List { patterns: patterns.clone(), ..List::default() }))
            .collect::<Vec<_>>(),
    );
    let began = Instant::now();
    let mut other = Asker::new(&server, "");
    other.send(&[crate::v2_peer::get(1, "small")]);
    assert_eq!(other.hear_all(1).unwrap(), b"small");
    let place = Place::new();
    let listed = ls(&place, server.address, &["--exclude", "a*"]).expect(0);
    assert_eq!(names(&listed), ["small"]);
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    hostile.send(&(1..=60).map(ClientFrame::Cancel).collect::<Vec<_>>());
    assert!(hostile.is_answered());
}

#[test]
fn a_listing_keeps_to_its_window_and_can_be_cancelled() {
    let site = Site::new();
    let all = many(&site);
    let server = site.serve(&[]);
    let mut asker = Asker::new(&server, "window=1");
    asker.send(&[list(1, "", true)]);
    let mut found = 0;
    let mut take = |asker: &mut Asker| loop {
        match asker.hear().unwrap().frame {
            ServerFrame::Entries(_, entries) => {
                found += entries.entries.len();
                return Some(entries.body_len());
            }
            ServerFrame::End(..) => {
                assert_eq!(found, all.len());
                return None;
            }
            _ => {}
        }
    };
    while let Some(len) = take(&mut asker) {
        // A ping is answered before anything else comes: the window is used up.
        assert!(asker.send(&[ClientFrame::Ping(0, [1; 8])]));
        let next = asker.hear().unwrap().frame;
        if matches!(next, ServerFrame::End(..)) {
            break;
        }
        assert_eq!(next, ServerFrame::Pong(0, [1; 8]));
        asker.send(&[ClientFrame::Window(1, len)]);
    }
    asker.send(&[list(2, "", true)]);
    assert!(matches!(asker.hear().unwrap().frame, ServerFrame::Pong(..) | ServerFrame::Entries(2, _)));
    asker.send(&[ClientFrame::Cancel(2)]);
    assert_eq!(hear(&mut asker, 2).1, Some(CANCELLED));
    assert!(asker.is_answered());
}

#[test]
fn a_server_that_names_what_cannot_be_in_the_folder_is_not_believed() {
    let entry = |name: &[u8]| Entry {
        kind: Kind::File,
        sparse: false,
        size: 1,
        modified: (0, 0),
        mode: 0o644,
        name: Bytes::copy_from_slice(name),
    };
    let place = Place::new();
    for name in [&b"../x"[..], b"/etc/passwd", b"a//b", b"a/..", b".oneport/x", b"a\0b"] {
        let bad = entry(name);
        let server = server(move |asked, _| {
            let ClientFrame::List(request, _) = asked else { return Vec::new() };
            let entries = Entries { cursor: Bytes::from_static(b"c"), entries: vec![bad.clone()] };
            vec![
                encoded(&ServerFrame::Entries(*request, entries)),
                encoded(&ServerFrame::End(*request, None)),
            ]
        });
        let ended = ls(&place, server.address, &[]).expect(8).says("broke the protocol");
        assert_eq!(ended.stdout(), "");
    }
    // What steers a terminal is shown escaped.
    let server = server(move |asked, _| {
        let ClientFrame::List(request, _) = asked else { return Vec::new() };
        let entries = Entries { cursor: Bytes::from_static(b"c"), entries: vec![entry(b"\x1b[2Jx\n\xff")] };
        vec![encoded(&ServerFrame::Entries(*request, entries)), encoded(&ServerFrame::End(*request, None))]
    });
    assert_eq!(ls(&place, server.address, &[]).expect(0).stdout(), "\\u{1b}[2Jx\\n\\xff\n");
}

/// As many files as `ONEPORT_LIST_FILES` says: `ONEPORT_LIST_FILES=1000000 cargo test --release --test suite
/// a_large_folder`.
#[test]
fn a_large_folder_costs_the_server_no_more_memory_than_a_small_one() {
    const DEFAULT: u32 = 20_000;
    const MEMORY_MAX: u64 = 12 << 20;
    let count =
        std::env::var("ONEPORT_LIST_FILES").ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT);
    let site = Site::new();
    fs::create_dir(site.root("many")).unwrap();
    for index in 0..count {
        fs::File::create(site.root(format!("many/{index:08}"))).unwrap();
    }
    let server: Server = site.serve(&["--hash-ahead", "0"]);
    let place = Place::new();
    ls(&place, server.address, &[]).expect(0);
    let before = server.memory();
    let began = Instant::now();
    let ended = ls(&place, server.address, &["-r", "--json"]).expect(0);
    let (elapsed, cost) = (began.elapsed(), server.peak_memory().saturating_sub(before));
    assert_eq!(each_once(&ended).len(), count as usize + 1);
    println!("{count} files listed in {elapsed:?}, for {cost} bytes of the server's memory");
    assert!(cost <= MEMORY_MAX, "{cost} bytes");
}
