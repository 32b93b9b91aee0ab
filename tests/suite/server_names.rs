//! Nothing outside the served folder, and nothing of the server's own, is reachable by any name.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::raw::{self, Answer, fetch, fetch_whole};
use crate::serving::{Server, Site};

const CANARY: &str = "the canary that nobody may hear";
/// Names that must be tried at least.
pub(crate) const NAMES_MIN: usize = 2000;
/// The only name that is served.
pub(crate) const SERVED: &str = "sub/inside.txt";

/// A folder beside which a canary lies, with links that lead to it in every way.
pub(crate) fn hostile_site() -> Site {
    let site = Site::new();
    fs::write(site.path().join("canary.txt"), CANARY).unwrap();
    site.file(SERVED, b"inside");
    let outside = site.path().canonicalize().unwrap();
    let canary = outside.join("canary.txt");
    let links: [(&str, &Path); 12] = [
        ("out", Path::new("..")),
        ("out2", Path::new("sub/../..")),
        ("absolute", &outside),
        ("slash", Path::new("/")),
        ("canary", Path::new("../canary.txt")),
        ("canary-absolute", &canary),
        ("sub/up", Path::new("../..")),
        ("chain", Path::new("chain2")),
        ("chain2", Path::new("sub/up/canary.txt")),
        ("loop", Path::new("loop")),
        ("proc", Path::new("/proc/self/root")),
        ("back", Path::new("../root/sub")),
    ];
    for (name, target) in links {
        symlink(target, site.root(name)).unwrap();
    }
    site
}

/// What a name may be put together from.
const PIECES: [&[u8]; 44] = [
    b"..",
    b".",
    b"...",
    b"....//",
    b"/",
    b"//",
    b"\\",
    b"..\\",
    b"../",
    b"./",
    b"/..",
    b"/../",
    b"\0",
    b"%00",
    b"%2e%2e",
    b"%2e%2e%2f",
    b"..%2f",
    b"%2e%2e/",
    b"..%5c",
    b"%252e%252e%252f",
    b"\xc0\xae\xc0\xae/",
    b"..\xc0\xaf",
    b"\xef\xbc\x8e\xef\xbc\x8e/",
    b"\xff\xfe",
    b"\xe2\x80\xa5/",
    b"canary.txt",
    b"root",
    b"sub",
    b"up",
    b"out",
    b"absolute",
    b"slash",
    b"canary",
    b"chain",
    b"~",
    b"~root",
    b"C:",
    b"file://",
    b"etc/passwd",
    b"proc/self/root",
    b".oneport",
    b" ",
    b"\n",
    b"inside.txt",
];

pub(crate) fn names(site: &Site) -> BTreeSet<Vec<u8>> {
    let mut names: BTreeSet<Vec<u8>> = BTreeSet::new();
    let canary = site.path().join("canary.txt").into_os_string().into_string().unwrap();
    // What people try first.
    for depth in 0..20 {
        for up in ["../", "..//", "./../", "..\\", "%2e%2e/", "..%2f", "sub/../", "....//", "out/", "sub/up/"]
        {
            for end in ["canary.txt", "etc/passwd", "root/../canary.txt", "", "."] {
                names.insert([up.repeat(depth), end.to_owned()].concat().into_bytes());
            }
        }
    }
    for link in ["out", "out2", "absolute", "sub/up", "back", "back/.."] {
        for end in ["", "/", "/.", "/canary.txt", "/root/sub/inside.txt", "/../canary.txt"] {
            names.insert(format!("{link}{end}").into_bytes());
        }
    }
    for name in
        ["canary", "canary-absolute", "chain", "chain2", "loop", "loop/x", "sub", "sub/", "/", "proc/x"]
    {
        names.insert(name.into());
    }
    for around in ["", "/", "//", "sub/..", "file://", "proc", "slash", "\0", " "] {
        names.insert(format!("{around}{canary}").into_bytes());
    }
    for tail in ["\0", "\0.txt", "/", "/.", " ", "\n", "::$DATA", ".", "/../inside.txt", "\\"] {
        names.insert(format!("{SERVED}{tail}").into_bytes());
        names.insert(format!("../canary.txt{tail}").into_bytes());
    }
    // Long ones, deep ones.
    for length in [255, 256, 4095, 4096, 4097, 8192, 40_000] {
        names.insert([b"../".repeat(length / 3), canary.clone().into_bytes()].concat());
        names.insert([vec![b'x'; length], b"/../canary.txt".to_vec()].concat());
        names.insert(b"sub/".repeat(length / 4));
    }
    let mut chance = fastrand::Rng::with_seed(11);
    while names.len() < NAMES_MIN + 500 {
        let count = chance.usize(1..8);
        names.insert((0..count).flat_map(|_| PIECES[chance.usize(..PIECES.len())]).copied().collect());
    }
    names.remove(SERVED.as_bytes());
    names
}

/// A refusal, or nothing at all for what is not even the native protocol; never a byte of a file.
fn assert_refused(server: &Server, name: &[u8]) {
    let mut stream = server.connect();
    let _ = std::io::Write::write_all(&mut stream, &raw::request(name));
    let bytes = raw::read_all(&mut stream);
    let shown = name[..name.len().min(200)].escape_ascii();
    assert!(bytes.starts_with(b"ERROR"), "'{shown}' got: {}", bytes.escape_ascii());
    let canary = bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes());
    assert!(!canary, "'{shown}' got the canary");
}

#[test]
fn two_thousand_names_that_try_to_leave_the_folder_are_all_refused() {
    let site = hostile_site();
    let names = names(&site);
    assert!(names.len() >= NAMES_MIN);
    let server = site.serve(&[]);
    for name in &names {
        assert_refused(&server, name);
    }
    assert_eq!(fetch_whole(server.address, SERVED), b"inside", "and it still serves");
    let log = server.wait_log_count("Refused '", names.len());
    assert!(!log.contains(CANARY));
    assert!(log.lines().all(|line| !line.contains('\x1b') && line.starts_with(char::is_numeric)));
}

#[test]
fn links_within_the_folder_are_followed_and_what_is_no_file_is_refused() {
    let site = Site::new();
    site.file(SERVED, b"inside");
    symlink(SERVED, site.root("link")).unwrap();
    symlink("sub", site.root("folder-link")).unwrap();
    symlink("../sub/../link", site.root("sub/around")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        site.root("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    let _socket = UnixListener::bind(site.root("socket")).unwrap();
    symlink("/dev/zero", site.root("zero")).unwrap();
    let server = site.serve(&[]);
    for name in ["link", "folder-link/inside.txt", "sub/around"] {
        assert_eq!(fetch_whole(server.address, name), b"inside", "{name}");
    }
    for name in ["pipe", "socket", "zero", "sub", "folder-link"] {
        assert_refused(&server, name.as_bytes());
    }
}

#[test]
fn state_logs_and_staged_files_are_unreachable_when_the_working_folder_is_served() {
    let site = Site::new();
    fs::write(site.path().join("a.txt"), "a").unwrap();
    fs::write(site.path().join(".oneport-0123.part"), CANARY).unwrap();
    symlink("logs", site.path().join("elsewhere")).unwrap();
    symlink(".oneport/lock", site.path().join("key")).unwrap();
    symlink(".oneport", site.path().join("st")).unwrap();
    let server = site.launch_bare(&["0", "."]).serve();
    assert_eq!(fetch_whole(server.address, "a.txt"), b"a");
    let log = server.log_files().remove(0);
    let log = log.file_name().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = [".oneport/lock", ".ONEPORT/lock", "key", "st/lock", ".oneport-0123.part"]
        .map(str::to_owned)
        .to_vec();
    names.extend(["logs/", "elsewhere/", "./logs/", "logs//"].map(|folder| format!("{folder}{log}")));
    for name in names {
        assert_refused(&server, name.as_bytes());
    }
}

#[test]
fn state_and_logs_with_other_names_are_unreachable_under_the_root_too() {
    let site = Site::new();
    let server =
        site.launch_bare(&["0", ".", "--state", "root/my/state", "--log-dir", "root/my/logs"]).serve();
    let entries = fs::read_dir(site.root("my/logs")).unwrap();
    let log = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).next().unwrap();
    assert_refused(&server, b"root/my/state/lock");
    assert_refused(&server, format!("root/my/logs/{log}").as_bytes());
    site.file("my/other", b"other");
    assert!(matches!(fetch(server.address, "root/my/other"), Answer::Whole(_)));
}
