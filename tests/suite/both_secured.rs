//! Our client and our server together, with keys and TLS, as the pages tell a user to do it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use oneport::client::{Security, Settings};
use oneport::pin::Pin;
use oneport::token::Token;
use rustix::process::Signal;

use crate::fetching::{fetch_once, settings, whole_and_alone};
use crate::harness::{Place, bytes};
use crate::holders::{add, key, revoke, secret};
use crate::proxy::{Fault, Plan, Proxy};
use crate::serving::{Server, Site};
use crate::tls_peer::{Person, Relay};
use crate::trees::assert_same;

const MIB: usize = 1 << 20;
const KNOWN: [&str; 4] = ["--known-hosts", "known", "--key-file", "key"];

/// The pin that a server tells in its log.
pub(crate) fn pin(server: &Server) -> Pin {
    let log = server.wait_log("pin=sha256:");
    let (_, rest) = log.split_once("pin=").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

/// An address with a pin, as a user writes it.
pub(crate) fn pinned(address: SocketAddr, pin: Pin) -> String {
    format!("oneport://{address}#{}", pin.letters())
}

/// Puts a key where [`KNOWN`] says that it is.
fn keep_key(place: &Place, token: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    place.write("key", format!("{token}\n"));
    fs::set_permissions(place.path("key"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn whoever_has_a_key_and_the_address_with_its_pin_gets_everything_and_nobody_else_anything() {
    let site = Site::new();
    let data = bytes(1, 20 * MIB + 17);
    site.file("dir/large", &data);
    for number in 0..300 {
        site.file(format!("dir/in/{number}"), &bytes(number, 2000));
    }
    let server = site.serve(&["--require-key", "--tls", "require"]);
    let made = key(&site, &["add", "ci", "--allow", "read"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let token = made.stdout.trim_end();
    // What is told with a new key is what a client needs.
    let told = made.stderr.split_once('#').unwrap().1.split('\'').next().unwrap();
    assert_eq!(told, pin(&server).letters());
    assert!(made.stderr.contains(&format!(":{}#", server.address.port())), "{}", made.stderr);
    let address = pinned(server.address, pin(&server));

    let place = Place::new();
    keep_key(&place, token);
    let ask = |words: &[&str]| {
        let words = [&words[..1], &["-s", &address], &words[1..], &KNOWN, &["--retries", "0"]].concat();
        place.client(&words).end()
    };
    ask(&["get", "-r", "dir"]).expect(0);
    assert_same(&site.root("dir"), &place.path("client_downloads/dir"));
    ask(&["get", "dir/large", "-o", "alone"]).expect(0);
    assert!(place.read("alone") == data);
    assert!(ask(&["get", "dir/large", "-o", "-"]).expect(0).stdout == data);
    assert_eq!(ask(&["ls", "-r", "dir"]).expect(0).stdout().lines().count(), 302);
    ask(&["stat", "dir/large"]).expect(0);
    ask(&["verify", "dir/large", "-o", "alone"]).expect(0);
    ask(&["ping", "-c", "1"]).expect(0);
    ask(&["get", "dir/absent"]).expect(3);

    // Without the key, with no TLS, or over version 1 there is nothing.
    let bare = |address: &str, more: &[&str]| {
        let words = ["get", "-s", address, "dir/large", "-o", "x", "--retries", "0"];
        place.client(&[&words[..], more].concat()).end().expect(4)
    };
    bare(&address, &["--known-hosts", "other"]).says("a key with the right to read is needed");
    bare(&address, &["--known-hosts", "other", "--protocol", "v1"]);
    let plain = server.address.to_string();
    bare(&plain, &["--known-hosts", "none"]).says("--tls require");
    bare(&plain, &["--known-hosts", "none", "--protocol", "v1"]).says("--tls require");
    revoke(&site, "ci");
    ask(&["get", "dir/large", "-o", "x"]).expect(4).says("the key is not accepted");
    assert!(!place.path("x").exists());
}

#[test]
fn a_key_leaves_no_trace_on_either_side() {
    let site = Site::new();
    site.file("f", &bytes(2, 3 * MIB));
    let mut server = site.serve(&["--require-key", "--log-level", "trace"]);
    let token = add(&site, "ci", &["--allow", "read"]);
    let (address, place) = (pinned(server.address, pin(&server)), Place::new());
    keep_key(&place, &token);
    let mut shown = Vec::new();
    for words in [
        &["get", "-s", &address, "f", "-v", "--log-level", "trace"][..],
        &["get", "-s", &address, "absent", "--json"],
        &["ls", "-s", &address, "--json"],
        &["get", "-s", &address, &token, "--retries", "0"],
        &["get", &format!("oneport://{token}@host/f"), "--retries", "0"],
    ] {
        let ended = place.client(&[words, &KNOWN].concat()).end();
        shown.push(ended.stderr.into_bytes());
        shown.push(ended.stdout);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0));
    shown.push(server.stdout().into_bytes());
    shown.push(server.stderr().into_bytes());
    fs::remove_file(place.path("key")).unwrap();
    files(place.path(".").as_path(), &mut shown);
    for folder in ["state", "logs"] {
        files(&site.path().join(folder), &mut shown);
    }
    let secret = secret(&token).as_bytes();
    let has = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    assert!(shown.iter().any(|bytes| has(bytes, b"has shown a key")), "nothing was looked at");
    for bytes in &shown {
        assert!(!has(bytes, secret), "{}", String::from_utf8_lossy(bytes));
    }
}

/// The bytes of all files beneath a folder.
fn files(folder: &Path, found: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push(fs::read(&path).unwrap());
        }
    }
}

#[test]
fn a_server_whose_key_was_exchanged_is_no_longer_the_one_that_was_known() {
    let site = Site::new();
    site.file("f", b"data");
    let mut server = site.serve(&[]);
    let old = pin(&server);
    let place = Place::new();
    let ask = |from: SocketAddr, more: &[&str]| {
        let from = from.to_string();
        let words = ["get", "-s", &from, "f", "--known-hosts", "known", "--retries", "3"];
        place.client(&[&words[..], more].concat()).end()
    };
    ask(server.address, &["--tls", "require"]).expect(0);
    ask(server.address, &[]).expect(0);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0));
    for name in ["tls.key", "tls.crt"] {
        fs::remove_file(site.path().join("state").join(name)).unwrap();
    }
    let address = server.address;
    let port = address.port().to_string();
    let server = site.launch_bare(&[&port, "root", "--state", "state", "--log-dir", "logs"]).serve();
    assert_eq!(server.address, address);
    let new = log_pin(&server, old);
    let ended = ask(address, &[]).expect(60);
    assert!(
        ended.stderr.contains(&old.to_string()) && ended.stderr.contains(&new.to_string()),
        "{}",
        ended.stderr
    );
    ask(address, &["--tls", "off"]).expect(60);
    ask(address, &["--protocol", "v1"]).expect(60);
    ask(address, &["--pin", &new.to_string()]).expect(0);
}

/// The pin of a server that had another one before.
fn log_pin(server: &Server, old: Pin) -> Pin {
    let told = |log: &str| {
        let pins = log.split("pin=").skip(1).filter_map(|rest| rest.split_whitespace().next()?.parse().ok());
        pins.into_iter().find(|&pin: &Pin| pin != old)
    };
    crate::harness::await_for("another pin", || told(&server.log()))
}

#[test]
fn somebody_between_is_shown_no_key_and_gets_nothing_out_of_the_server() {
    let site = Site::new();
    site.file("f", b"data");
    let server = site.serve(&["--require-key"]);
    let token = add(&site, "ci", &["--allow", "read"]);
    let place = Place::new();
    keep_key(&place, &token);
    // Whoever is between has a key and a certificate of its own, and reaches the server.
    let relay = Relay::new(Person::new().face(), server.address);
    let words = |address: &str| {
        let words = ["get", "-s", address, "f", "--retries", "1", "--retry-delay", "10ms"];
        [&words[..], &KNOWN].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    place.client(&words(&pinned(relay.address, pin(&server)))).end().expect(60);
    let known = format!("{} {}\n", relay.address, pin(&server));
    place.write("known", &known);
    place.client(&words(&relay.address.to_string())).end().expect(60);
    assert!(relay.count() >= 2 && !relay.has_heard(token.as_bytes()));
    assert!(!server.log().contains("has shown a key"));
}

#[test]
fn both_programs_get_over_a_handshake_that_is_cut_at_any_byte() {
    let site = Site::new();
    site.file("f", b"data");
    let server = site.serve(&["--require-key"]);
    let token = add(&site, "ci", &["--allow", "read"]);
    let mut security = Security::default();
    security.pins = vec![pin(&server)];
    security.key = Some(Token::parse(token.as_bytes()).unwrap());
    let trusting = Settings { security, ..settings(1, 2) };
    let targets = Place::new();
    let whole = Proxy::faulty(server.address, |_| Plan::none()).unwrap();
    let (result, ..) = fetch_once(whole.address, "f", &targets.path("whole/f"), &trusting);
    assert_eq!(result.unwrap().size, 4);
    let before = server.descriptors_behind_a_transfer();
    let traffic = whole.connections();
    let (up, down) = (traffic[0].up, traffic[0].down);
    assert!(up > 200 && down > 400, "{traffic:?}");
    let cuts =
        (0..=up).map(|at| Plan::up(at, Fault::Cut)).chain((0..=down).map(|at| Plan::down(at, Fault::Cut)));
    let resets = (0..=up)
        .map(|at| Plan::up(at, Fault::Reset))
        .chain((0..=down).map(|at| Plan::down(at, Fault::Reset)));
    let plans: Vec<Plan> = cuts.chain(resets.step_by(7)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((number, plan)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    plans.get(number).map(|plan| (number, plan))
                } {
                    let first = plan.clone();
                    let plans = move |before| if before == 0 { first.clone() } else { Plan::none() };
                    let proxy = Proxy::faulty(server.address, plans).unwrap();
                    let target = targets.path(format!("{number}/f"));
                    let (result, _, errors) = fetch_once(proxy.address, "f", &target, &trusting);
                    assert!(result.is_ok(), "{plan:?}: {result:?} after {errors:?}");
                    whole_and_alone(&target, b"data").unwrap();
                }
            });
        }
    });
    assert_eq!(server.descriptors_at_rest(), before);
}
