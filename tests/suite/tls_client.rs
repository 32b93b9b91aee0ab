//! Whom the client trusts: files through TLS, first contact, pins, authorities, and everything that is not what
//! it was: other keys, no TLS any more, broken handshakes. The server's end is `tls_peer`'s.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use oneport::client::{FetchError, KnownHosts, Security, Settings, TlsMode};
use serde_json::Value;

use crate::fetching::{fetch_once, settings, whole_and_alone};
use crate::harness::{Place, bytes};
use crate::proxy::{Fault, Plan, Proxy};
use crate::scripted::{Scripted, answer};
use crate::serving::Site;
use crate::tls_peer::{Authority, Face, Person, Relay};

const SAVED: &str = "client_downloads/f";
/// So large that two connections are worth it.
const LARGE: usize = 56 << 20;
const KNOWN: [&str; 2] = ["--known-hosts", "known"];

/// A server of version 1 behind a relay with this face.
fn small_relay(face: Face) -> (Relay, Scripted) {
    let server = Scripted::serving(b"data");
    (Relay::new(face, server.address), server)
}

/// `--tls require`, and where servers are remembered.
fn secured<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--tls", "require"], &KNOWN[..], more].concat()
}

/// A line for a server.
fn known_line(address: SocketAddr, person: &Person) -> String {
    format!("{address} {}\n", person.pin())
}

#[test]
fn everything_can_be_asked_through_tls_and_is_met_for_the_first_time_once() {
    let (site, person) = (Site::new(), Person::new());
    let data = bytes(1, LARGE);
    site.file("dir/large", &data);
    for number in 0..200 {
        site.file(format!("dir/small{number}"), &bytes(number, 3000));
    }
    let server = site.serve(&[]);
    let relay = Relay::new(person.face(), server.address);
    let place = Place::new();
    let from = relay.address.to_string();
    let ended = place.fetch("dir/large", relay.address, &secured(&["-j", "2"])).end().expect(0);
    assert!(place.read("client_downloads/large") == data);
    assert!(ended.stderr.contains("first contact") && ended.stderr.contains(&person.pin().to_string()));
    assert!(relay.count() > 1, "{}", relay.count());
    assert_eq!(place.read("known"), known_line(relay.address, &person).as_bytes());
    assert_eq!(fs::metadata(place.path("known")).unwrap().mode() & 0o777, 0o600);
    // From now on it is known, so nobody has to say that TLS is required.
    let fetch = |name: &str, options: &[&str]| {
        let ended = place.fetch(name, relay.address, &[&KNOWN[..], options].concat()).end().expect(0);
        assert!(!ended.stderr.contains("first contact"), "{}", ended.stderr);
    };
    fetch("dir/large", &["--protocol", "v1", "-o", "by_v1"]);
    assert!(place.read("by_v1") == data);
    let asked = |words: &[&str]| {
        let words = [&words[..1], &["-s", &from], &words[1..], &KNOWN, &["--retries", "0"]].concat();
        place.client(&words).end().expect(0)
    };
    assert!(asked(&["get", "dir/large", "-o", "-"]).stdout == data);
    asked(&["get", "-r", "dir"]);
    assert_eq!(fs::read_dir(place.path("client_downloads/dir")).unwrap().count(), 201);
    assert!(place.read("client_downloads/dir/small7") == bytes(7, 3000));
    assert_eq!(asked(&["ls", "dir"]).stdout().lines().count(), 201);
    assert!(asked(&["stat", "dir/large"]).stdout().contains("size"));
    asked(&["verify", "dir/large"]);
    asked(&["ping", "-c", "1"]);
    relay.expect_only_tls();
    assert!(!relay.heard().iter().any(|heard| heard.raw.windows(5).any(|window| window == b"large")));
}

#[test]
fn a_folder_and_a_ping_tell_of_a_first_contact_once_and_scripts_hear_of_it() {
    let (site, person) = (Site::new(), Person::new());
    for number in 0..50 {
        site.file(format!("dir/small{number}"), b"x");
    }
    let server = site.serve(&[]);
    let relay = Relay::new(person.face(), server.address);
    let from = relay.address.to_string();
    let list = ["get", "--files-from", "list"];
    for command in
        [&list[..], &["get", "-r", "dir"], &["ping", "-c", "1"], &["ls", "dir"], &["stat", "dir/small1"]]
    {
        let place = Place::new();
        place.write("list", "dir/small1\ndir/small2\n");
        let words = [&command[..1], &["-s", &from], &command[1..], &secured(&["--json"])].concat();
        let ended = place.client(&words).end().expect(0);
        let lines = ended.stdout();
        let told: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: Vec<_> = told.iter().filter(|told| told["event"] == "remembered").collect();
        assert_eq!(told.len(), 1, "{command:?}: {lines}");
        assert_eq!(
            (&told[0]["server"], &told[0]["pin"]),
            (&from.clone().into(), &person.pin().to_string().into())
        );
        assert_eq!(ended.stderr.matches("first contact").count(), 1, "{command:?}: {}", ended.stderr);
        assert_eq!(place.read("known"), known_line(relay.address, &person).as_bytes(), "{command:?}");
    }
}

#[test]
fn another_key_than_the_known_one_ends_everything_and_both_are_told() {
    let (person, other) = (Person::new(), Person::new());
    let (relay, server) = small_relay(person.face());
    let place = Place::new();
    place.fetch("f", relay.address, &secured(&[])).end().expect(0);
    let (before, known, asked) = (relay.count(), place.read("known"), server.requests().len());
    relay.become_other(other.face());
    fs::remove_file(place.path(SAVED)).unwrap();
    for options in [&["--retries", "3"][..], &["--retries", "3", "--protocol", "v1"], &["--tls", "require"]] {
        let count = relay.count();
        let ended = place.fetch("f", relay.address, &[&KNOWN[..], options].concat()).end().expect(60);
        let ended = ended.says(&person.pin().to_string()).says(&other.pin().to_string());
        let ended = ended.says("line 1 of known").says("not the expected one");
        assert!(!ended.stderr.contains("retry"), "{}", ended.stderr);
        assert_eq!(relay.count(), count + 1, "{options:?}");
    }
    let pinned = format!("oneport://{}/f#{}", relay.address, person.pin().letters());
    place.client(&["get", &pinned]).end().expect(60).says(&other.pin().to_string());
    assert!(relay.count() > before);
    assert_eq!((place.read("known"), server.requests().len()), (known, asked));
    assert_eq!(place.tree(), ["client_downloads/", "known"]);
    relay.expect_only_tls();
}

#[test]
fn a_pin_is_enough_and_stands_before_what_is_remembered() {
    let (person, other) = (Person::new(), Person::new());
    let (relay, _server) = small_relay(person.face());
    let place = Place::new();
    place.write("known", known_line(relay.address, &other));
    let before = place.read("known");
    let (pin, wrong) = (person.pin().to_string(), other.pin().to_string());
    place.fetch("f", relay.address, &[&KNOWN[..], &["--pin", &pin]].concat()).end().expect(0);
    place
        .fetch("f", relay.address, &[&KNOWN[..], &["--pin", &wrong, "--pin", &pin]].concat())
        .end()
        .expect(0);
    place.fetch("f", relay.address, &[&KNOWN[..], &["--pin", &wrong]].concat()).end().expect(60).says(&pin);
    // That of the address is the one of this server.
    let address = format!("oneport://{}#{}", relay.address, person.pin().letters());
    let words = ["get", "-s", &address, "f", "--pin", &wrong, "--known-hosts", "known"];
    place.client(&words).end().expect(0);
    assert_eq!(place.read("known"), before);
    relay.expect_only_tls();
}

#[test]
fn who_was_pinned_once_is_known_and_never_spoken_to_in_clear() {
    let person = Person::new();
    let (relay, _server) = small_relay(person.face());
    let place = Place::new();
    let pin = person.pin().to_string();
    place.fetch("f", relay.address, &[&KNOWN[..], &["--pin", &pin]].concat()).end().expect(0);
    assert_eq!(place.read("known"), known_line(relay.address, &person).as_bytes());
    place.fetch("f", relay.address, &KNOWN).end().expect(0);
    let count = relay.count();
    let off = [&KNOWN[..], &["--tls", "off"]].concat();
    place.fetch("f", relay.address, &off).end().expect(60).says("line 1 of known").says("never spoken to");
    assert_eq!(relay.count(), count);
    place.fetch("f", relay.address, &["--tls", "off", "--pin", &pin]).end().expect(2).says("contradicts");
    relay.expect_only_tls();
}

#[test]
fn a_known_or_pinned_server_that_speaks_no_tls_any_more_is_told_nothing() {
    let person = Person::new();
    let (relay, server) = small_relay(person.face());
    let place = Place::new();
    place.fetch("f", relay.address, &secured(&[])).end().expect(0);
    let asked = server.requests().len();
    let pin = person.pin().to_string();
    let refusal = b"ERRORFile 'x' not found on server".to_vec();
    for (face, code) in [
        (Face::Saying(refusal), 60),
        (Face::Saying(answer("f", b"data")), 60),
        (Face::Saying(b"\0\0\0\x0a\x41\0\0\0\0minor".to_vec()), 60),
        (Face::Saying(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), 60),
        (Face::Closing, 6),
        (Face::Silent, 28),
    ] {
        relay.become_other(face);
        for options in [&KNOWN[..], &["--pin", &pin], &secured(&[])] {
            let options = [options, &["--timeout", "300ms", "--retries", "1"]].concat();
            let ended = place.fetch("f", relay.address, &options).end().expect(code);
            assert!(!ended.stderr.contains("version 1"), "{}", ended.stderr);
        }
    }
    relay.expect_only_tls();
    assert_eq!(server.requests().len(), asked);
}

#[test]
fn who_cannot_prove_to_have_the_key_is_not_the_server() {
    let (person, other) = (Person::new(), Person::new());
    let (relay, server) = small_relay(person.with_key_of(&other));
    let place = Place::new();
    let pin = person.pin().to_string();
    for options in [vec!["--pin", &pin], secured(&[])] {
        place.fetch("f", relay.address, &[&options[..], &["--retries", "2"]].concat()).end().expect(60);
    }
    assert!(server.requests().is_empty());
    assert_eq!((relay.count(), place.tree().len()), (2, 0), "{:?}", place.tree());
}

#[test]
fn nothing_older_than_tls_1_3_is_spoken() {
    // An alert "protocol version", and a ServerHello that chooses TLS 1.2 by not saying 1.3.
    let alert = b"\x15\x03\x03\0\x02\x02\x46".to_vec();
    let hello = [&b"\x16\x03\x03\0\x2a\x02\0\0\x26\x03\x03"[..], &[7; 32], b"\0\xc0\x2f\0"].concat();
    for said in [alert, hello] {
        let (relay, server) = small_relay(Face::Saying(said));
        let place = Place::new();
        let options = secured(&["--retries", "2"]);
        place.fetch("f", relay.address, &options).end().expect(60).says("TLS 1.3");
        assert_eq!((relay.count(), server.requests().len()), (1, 0));
        assert!(place.tree().is_empty());
    }
}

#[test]
fn authorities_vouch_for_names_and_for_a_time() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let place = Place::new();
    place.write("ca.pem", &authority.certificate);
    place.write("no.pem", "nothing");
    for (person, host, code, said) in [
        (authority.vouch_for("127.0.0.1", 4000), "127.0.0.1", 0, ""),
        (authority.vouch_for("localhost", 4000), "localhost", 0, ""),
        (authority.vouch_for("localhost", 4000), "127.0.0.1", 60, "not trusted"),
        (authority.vouch_for("other.example", 4000), "localhost", 60, "not trusted"),
        (authority.vouch_for("localhost", 2001), "localhost", 60, "xpired"),
        (stranger.vouch_for("localhost", 4000), "localhost", 60, "not trusted"),
        (Person::new(), "localhost", 60, "not trusted"),
    ] {
        let (relay, server) = small_relay(person.face());
        let port = relay.address.port().to_string();
        let words = ["f", host, &port, "--ca-cert", "ca.pem", "--retries", "2", "--retry-delay", "1ms"];
        let ended = place.client(&words).end().expect(code);
        ended.says(said);
        assert_eq!(server.requests().iter().any(|name| name == "f"), code == 0, "{host}");
        relay.expect_only_tls();
    }
    place.client(&["f", "--ca-cert", "no.pem"]).end().expect(2).says("no.pem");
}

#[test]
fn who_was_vouched_for_once_is_never_spoken_to_in_clear_and_may_change_its_key() {
    let (authority, place) = (Authority::new(), Place::new());
    place.write("ca.pem", &authority.certificate);
    let (relay, _server) = small_relay(authority.vouch_for("localhost", 4000).face());
    let port = relay.address.port().to_string();
    let fetch = |more: &[&str]| {
        let words = ["f", "localhost", &port, "--known-hosts", "known", "--retries", "1"];
        place.client(&[&words[..], more].concat()).end()
    };
    fetch(&["--ca-cert", "ca.pem"]).expect(0);
    assert_eq!(place.read("known"), format!("localhost:{port} authority\n").as_bytes());
    let count = relay.count();
    fetch(&[]).expect(60).says("--ca-cert");
    fetch(&["--tls", "off"]).expect(60);
    fetch(&["--tls", "require"]).expect(60);
    assert_eq!(relay.count(), count);
    relay.become_other(authority.vouch_for("localhost", 4000).face());
    fetch(&["--ca-cert", "ca.pem"]).expect(0);
    relay.expect_only_tls();
}

#[test]
fn a_file_of_known_hosts_that_is_broken_stops_everything_and_a_missing_one_nothing() {
    let server = Scripted::serving(b"data");
    let place = Place::new();
    place.write("known", "# mine\nnas:1 sha256:nonsense\n");
    let count = || server.requests().len();
    let before = place.read("known");
    place.fetch("f", server.address, &KNOWN).end().expect(60).says("line 2 of the known hosts in known");
    place.fetch("f", server.address, &["--known-hosts", "."]).end().expect(11).says("cannot read");
    assert_eq!((count(), place.read("known")), (0, before));
    // No home, a home that is not there, one that cannot be written: plain fetching needs none.
    place.fetch("f", server.address, &[]).end().expect(0);
    place.fetch("f", server.address, &[]).env("HOME", "/nowhere").end().expect(0);
    place.fetch("f", server.address, &[]).env("XDG_CONFIG_HOME", "/proc").end().expect(0);
    assert_eq!(count(), 3);
}

#[test]
fn a_first_contact_that_cannot_be_remembered_is_none_and_a_pin_needs_no_file() {
    let person = Person::new();
    let (relay, server) = small_relay(person.face());
    let place = Place::new();
    let pin = person.pin().to_string();
    for known in ["/proc/known", "/proc/none/known"] {
        let options = ["--tls", "require", "--known-hosts", known];
        let ended = place.fetch("f", relay.address, &options).end().expect(11);
        ended.says(&pin).says("--known-hosts");
    }
    place.fetch("f", relay.address, &["--tls", "require"]).end().expect(11).says("HOME");
    assert!(server.requests().is_empty());
    let options = ["--pin", &pin, "--known-hosts", "/proc/known"];
    place.fetch("f", relay.address, &options).end().expect(0);
}

#[test]
fn clients_that_meet_a_server_at_once_write_it_down_once() {
    let person = Person::new();
    let (relay, _server) = small_relay(person.face());
    let place = Place::new();
    let names: Vec<String> = (0..6).map(|number| format!("f{number}")).collect();
    let running: Vec<_> =
        names.iter().map(|name| place.fetch(name, relay.address, &secured(&[])).start()).collect();
    let told: usize = running
        .into_iter()
        .map(|client| client.end().expect(0).stderr.matches("first contact").count())
        .sum();
    assert_eq!(told, 1);
    assert_eq!(place.read("known"), known_line(relay.address, &person).as_bytes());
    assert!(!place.tree().iter().any(|name| name.contains("known.")), "{:?}", place.tree());
    let mode = fs::Permissions::from_mode(0o600).mode() & 0o777;
    assert_eq!(fs::metadata(place.path("known")).unwrap().mode() & 0o777, mode);
}

/// Settings that trust this person only.
fn trusting(person: &Person, retries: u32) -> Settings {
    let mut security = Security::default();
    security.pins = vec![person.pin()];
    Settings { security, ..settings(1, retries) }
}

#[test]
fn a_handshake_that_is_cut_anywhere_is_tried_again_and_never_done_without() {
    let person = Person::new();
    let (relay, _server) = small_relay(person.face());
    let place = Place::new();
    let target = place.path("into/f");
    // How long a whole conversation is, each way.
    let whole = Proxy::faulty(relay.address, |_| Plan::none()).unwrap();
    let trusting = trusting(&person, 2);
    let (result, ..) = fetch_once(whole.address, "f", &target, &trusting);
    assert_eq!(result.unwrap().size, 4);
    let traffic = whole.connections();
    let (up, down) = (traffic[0].up, traffic[0].down);
    assert!(up > 200 && down > 400, "{traffic:?}");
    for fault in [Fault::Cut, Fault::Reset] {
        // That the program gets over a cut at every byte is shown in `both_secured`.
        let step = if fault == Fault::Cut { 7 } else { 13 };
        let plans = (0..up).map(|at| Plan::up(at, fault)).chain((0..down).map(|at| Plan::down(at, fault)));
        for plan in plans.step_by(step) {
            fs::remove_file(&target).unwrap();
            let first = plan.clone();
            let plans = move |before| if before == 0 { first.clone() } else { Plan::none() };
            let proxy = Proxy::faulty(relay.address, plans).unwrap();
            let (result, _, errors) = fetch_once(proxy.address, "f", &target, &trusting);
            assert!(result.is_ok(), "{plan:?}: {result:?} after {errors:?}");
            whole_and_alone(&target, b"data").unwrap();
        }
    }
    relay.expect_only_tls();
}

#[test]
fn a_handshake_that_stalls_ends_in_time() {
    let person = Person::new();
    let (relay, _server) = small_relay(person.face());
    let place = Place::new();
    let timeout = Duration::from_millis(200);
    let trusting = Settings { timeout, ..trusting(&person, 0) };
    for plan in [0, 1, 100, 500, 700].map(|at| Plan::down(at, Fault::Stall)).into_iter().chain([
        Plan::up(0, Fault::Stall),
        Plan::up(5, Fault::Stall),
        Plan::up(100, Fault::Stall),
    ]) {
        let own = plan.clone();
        let proxy = Proxy::faulty(relay.address, move |_| own.clone()).unwrap();
        let began = Instant::now();
        let (result, ..) = fetch_once(proxy.address, "f", &place.path("f"), &trusting);
        assert!(matches!(result, Err(FetchError::Silent { .. })), "{plan:?}: {result:?}");
        assert!(began.elapsed() < 20 * timeout, "{plan:?}");
    }
    relay.expect_only_tls();
}

#[test]
fn what_is_changed_on_the_way_is_never_taken() {
    let (site, person) = (Site::new(), Person::new());
    let data = bytes(5, 300_000);
    site.file("f", &data);
    let server = site.serve(&[]);
    let relay = Relay::new(person.face(), server.address);
    let place = Place::new();
    let target = place.path("into/f");
    let trusting = trusting(&person, 2);
    for at in (0..1500).step_by(37).chain((1500..300_000).step_by(23_456)) {
        let plans = move |before| match before {
            0 => Plan::down(at, Fault::Flip { bit: (at % 8) as u8 }),
            _ => Plan::none(),
        };
        let proxy = Proxy::faulty(relay.address, plans).unwrap();
        let (result, ..) = fetch_once(proxy.address, "f", &target, &trusting);
        match result {
            Ok(_) => whole_and_alone(&target, &data).unwrap(),
            // What comes in clear, before both have a secret, may be made into anything.
            Err(error) => assert!(at < 200 && error.code().exit_status() == 60, "{at}: {error}"),
        }
    }
    relay.expect_only_tls();
}

#[test]
fn an_end_that_the_server_did_not_announce_is_a_cut() {
    let person = Person::new();
    let Face::Tls(config) = person.face() else { panic!() };
    let refusing = Scripted::version_1(|mut stream, name, _| {
        let _ = stream.write_all(format!("ERRORFile '{name}' not found on server").as_bytes());
    });
    let relay = Relay::new(person.face(), refusing.address);
    let place = Place::new();
    let pin = person.pin().to_string();
    let options = ["--pin", &pin, "--protocol", "v1"];
    place.fetch("f", relay.address, &options).end().expect(3);
    // What would be the whole answer could be the beginning of another one.
    relay.become_other(Face::Unended(config));
    place.fetch("f", relay.address, &options).end().expect(6).says("lost");
}

#[test]
fn all_connections_of_a_run_trust_the_same_key() {
    let (site, person, other) = (Site::new(), Person::new(), Person::new());
    site.file("f", &bytes(2, LARGE));
    let server = site.serve(&[]);
    let relay = Relay::new(person.face(), server.address);
    let place = Place::new();
    let known = KnownHosts::at(place.path("known"));
    let mut security = Security::default();
    (security.tls, security.known_hosts) = (TlsMode::Require, Some(known));
    let with = Settings { security, ..settings(2, 2) };
    let (result, ..) = fetch_once(relay.address, "f", &place.path("into/f"), &with);
    assert!(result.is_ok(), "{result:?}");
    // The file may go meanwhile: what was decided holds.
    fs::remove_file(place.path("known")).unwrap();
    relay.become_other(other.face());
    let (result, ..) = fetch_once(relay.address, "f", &place.path("into/f"), &with);
    assert_eq!(result.unwrap_err().code().exit_status(), 60);
    assert!(!place.path("known").exists());
}
