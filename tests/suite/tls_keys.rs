//! Where the client's key comes from, whom it is shown to, and that nobody else ever sees it.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use oneport::codec::v2::{ClientFrame, ErrorCode, ServerFrame};
use oneport::error::Code;
use oneport::token::{TOKEN_RANDOM, Token};

use crate::harness::{Ended, Place, await_for};
use crate::scripted::{Scripted, until_gone};
use crate::serving::skipped;
use crate::tls_peer::{Face, Person, Relay};
use crate::v2_peer::{self, HELLO, Speaker, encoded, welcome};

const KNOWN: [&str; 2] = ["--known-hosts", "known"];

fn token(seed: u8) -> Token {
    Token::new(&[seed; TOKEN_RANDOM])
}

/// The part of a token that must be nowhere.
fn secret(token: &Token) -> &str {
    &token.expose()[24..64]
}

/// A server of version 2 that notes the frames of each connection in their order, and answers as one that
/// holds these bytes under every name.
struct Noting {
    server: Scripted,
    heard: Arc<Mutex<Vec<Vec<ClientFrame>>>>,
}

impl Noting {
    fn new(data: &'static [u8]) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&heard);
        let server = Scripted::start(move |stream, name, _| {
            let Some(mut speaker) = Speaker::new(stream, name) else { return };
            let number = {
                let mut heard = own.lock().unwrap();
                heard.push(Vec::new());
                heard.len() - 1
            };
            if !speaker.say(&welcome()) {
                return;
            }
            while let Some(frame) = speaker.hear() {
                own.lock().unwrap()[number].push(frame.clone());
                let answers = match &frame {
                    ClientFrame::Auth(_) => Vec::new(),
                    ClientFrame::Ping(number, bytes) => vec![encoded(&ServerFrame::Pong(*number, *bytes))],
                    ClientFrame::List(number, _) => vec![encoded(&not_found(*number))],
                    frame => v2_peer::answer(frame, data, true),
                };
                if !answers.iter().all(|answer| speaker.say(answer)) {
                    return;
                }
            }
        });
        Self { server, heard }
    }

    /// Checks that the first frame of each connection is this key, and no other one is one; how many there were.
    #[track_caller]
    fn expect_key(&self, key: &Token) -> usize {
        let heard = self.heard.lock().unwrap();
        for frames in heard.iter() {
            let keys = frames.iter().filter(|frame| matches!(frame, ClientFrame::Auth(_))).count();
            assert_eq!((frames.first(), keys), (Some(&ClientFrame::Auth(Ok(key.clone()))), 1));
            assert!(frames.len() > 1, "{frames:?}");
        }
        heard.len()
    }
}

fn not_found(request: u32) -> ServerFrame {
    ServerFrame::Error(request, ErrorCode::from(Code::NotFound), Bytes::from_static(b"not there"))
}

/// Checks that a key is nowhere that a client has left: not in what it said, its logs, or any file besides
/// the one that it was read from.
#[track_caller]
fn expect_nowhere(place: &Place, ended: &Ended, key: &Token) {
    let secret = secret(key);
    assert!(!ended.stdout().contains(secret) && !ended.stderr.contains(secret), "{}", ended.stderr);
    assert!(place.logs().iter().all(|log| !log.contains(secret)));
    for name in place.tree().iter().filter(|name| !name.ends_with('/') && !name.starts_with("key")) {
        let text = place.read(name);
        assert!(!text.windows(secret.len()).any(|window| window == secret.as_bytes()), "{name}");
    }
}

/// Writes a key into a file that only its owner can read.
fn key_file(place: &Place, name: &str, text: &[u8]) {
    place.write(name, text);
    fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_key_is_the_first_thing_after_the_greeting_whatever_is_asked() {
    let (person, key) = (Person::new(), token(1));
    let noting = Noting::new(b"data");
    let relay = Relay::new(person.face(), noting.server.address);
    let place = Place::new();
    place.write("client_downloads/f", "data");
    key_file(&place, "key", key.expose().as_bytes());
    let (near, far) = (noting.server.address.to_string(), relay.address.to_string());
    let pin = person.pin().to_string();
    for (from, trust) in [(&near, &KNOWN[..]), (&far, &["--pin", &pin])] {
        for (command, code) in [
            (&["get", "f", "--overwrite", "always"][..], 0),
            (&["get", "f", "-o", "-"], 0),
            (&["stat", "f"], 0),
            (&["verify", "f"], 0),
            (&["ping", "-c", "1"], 0),
            (&["ls", "dir"], 3),
            (&["get", "-r", "dir"], 3),
        ] {
            let before = noting.heard.lock().unwrap().len();
            let words =
                [&command[..1], &["-s", from, "--key-file", "key", "--retries", "0"], &command[1..], trust];
            let ended = place.client(&words.concat()).end().expect(code);
            assert!(noting.expect_key(&key) > before, "{command:?}");
            expect_nowhere(&place, &ended, &key);
        }
    }
    relay.expect_only_tls();
}

#[test]
fn over_tls_greeting_key_and_request_are_one_write_and_in_clear_the_key_waits() {
    let (person, key) = (Person::new(), token(2));
    let noting = Noting::new(b"data");
    let relay = Relay::new(person.face(), noting.server.address);
    let place = Place::new();
    let pin = person.pin().to_string();
    let ended = place.fetch("f", relay.address, &["--pin", &pin]).env("ONEPORT_KEY", key.expose());
    expect_nowhere(&place, &ended.end().expect(0), &key);
    let first = &relay.heard()[0].opened[0];
    let has = |bytes: &[u8]| first.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(HELLO.as_bytes()) && has(key.expose().as_bytes()) && first.ends_with(&[0, 0]), "{first:?}");
    assert!(!relay.heard()[0].raw.windows(8).any(|window| window == b"oneport_"));
    // In clear, even over loopback: a server that has not said that it speaks version 2 sees no key.
    for said in [&b"ERRORno such file"[..], b"OK", b""] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let own = Arc::clone(&seen);
        let old = Scripted::start(move |mut stream, name, _| {
            use std::io::{Read as _, Write as _};
            own.lock().unwrap().extend_from_slice(name.as_bytes());
            let _ = stream.write_all(said);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut own.lock().unwrap());
        });
        let code = if said.is_empty() { 6 } else { 7 };
        place.fetch("f", old.address, &KNOWN).env("ONEPORT_KEY", key.expose()).end().expect(code);
        let seen = seen.lock().unwrap();
        assert!(seen.starts_with(HELLO.as_bytes()) && !seen.windows(8).any(|window| window == b"oneport_"));
        assert_eq!(old.requests().len(), 1, "it was asked again in version 1");
    }
    let options = ["--protocol", "v1"];
    place
        .fetch("f", relay.address, &options)
        .env("ONEPORT_KEY", key.expose())
        .end()
        .expect(2)
        .says("version 1");
}

#[test]
fn what_a_server_says_of_a_key_is_told_and_not_tried_again() {
    let (person, key) = (Person::new(), token(3));
    let refusing = Scripted::start(|stream, name, _| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        speaker.say(&welcome());
        let _ = speaker.hear();
        let text = Bytes::from_static(b"the key has expired");
        speaker.say(&encoded(&ServerFrame::Error(0, ErrorCode::from(Code::NotAllowed), text)));
        until_gone(&speaker.stream);
    });
    let relay = Relay::new(person.face(), refusing.address);
    let place = Place::new();
    let (far, pin) = (relay.address.to_string(), person.pin().to_string());
    for command in [&["get", "f"][..], &["get", "-r", "dir"], &["ls"], &["stat", "f"], &["ping"]] {
        let count = relay.count();
        let words = [&command[..1], &["-s", &far, "--pin", &pin, "--retries", "3"], &command[1..]].concat();
        let ended = place.client(&words).env("ONEPORT_KEY", key.expose()).end().expect(4);
        let ended = ended.says("the key has expired");
        assert!(!ended.stderr.contains("retry"), "{}", ended.stderr);
        expect_nowhere(&place, &ended, &key);
        // A folder has several connections.
        assert!(relay.count() <= count + 3, "{command:?}");
    }
}

/// An address of this machine that is not loopback, if it has one.
fn own_address() -> Option<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: it only has to be found out from where it would be.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?;
    (!address.ip().is_loopback() && !address.ip().is_unspecified()).then_some(address)
}

#[test]
fn a_server_that_is_met_for_the_first_time_sees_no_key() {
    let (person, key) = (Person::new(), token(4));
    let noting = Noting::new(b"data");
    let near = Relay::new(person.face(), noting.server.address);
    let mut cases = vec![(near, vec!["--tls", "require"])];
    match own_address() {
        Some(own) => {
            let listener = TcpListener::bind((own.ip(), 0)).unwrap();
            cases.push((Relay::on(listener, person.face(), noting.server.address), Vec::new()));
        }
        None => skipped("a key far from here", "this machine has no address but loopback"),
    }
    for (relay, options) in cases {
        let from = relay.address.to_string();
        for command in [&["get", "f"][..], &["get", "-r", "dir"], &["ls"], &["stat", "f"], &["ping"]] {
            let place = Place::new();
            let fixed = ["-s", &from, "--retries", "2", "--retry-delay", "1ms"];
            let words = [&command[..1], &fixed, &command[1..], &KNOWN, &options].concat();
            let count = relay.count();
            let ended = place.client(&words).env("ONEPORT_KEY", key.expose()).end().expect(60);
            let ended = ended.says(&format!("--pin {}", person.pin()));
            expect_nowhere(&place, &ended, &key);
            assert!(place.tree().iter().all(|name| name != "known"), "{command:?}");
            // Each had its own try: nothing was tried again.
            await_for("the connections' ends", || (relay.count() > count).then_some(()));
            assert!(!ended.stderr.contains("retry"), "{}", ended.stderr);
        }
        assert!(!relay.has_heard(b"oneport_") && !relay.has_heard(HELLO.as_bytes()));
        assert!(relay.heard().iter().all(|heard| heard.opened.is_empty()));
        relay.expect_only_tls();
    }
    assert!(noting.heard.lock().unwrap().is_empty());
}

#[test]
fn somebody_between_who_is_not_the_server_sees_no_key() {
    let (person, other, key) = (Person::new(), Person::new(), token(5));
    let noting = Noting::new(b"data");
    let relay = Relay::new(other.face(), noting.server.address);
    let place = Place::new();
    place.write("known", format!("{} {}\n", relay.address, person.pin()));
    let pin = person.pin().to_string();
    for face in
        [other.face(), person.with_key_of(&other), Face::Saying(welcome()), Face::Plain, Face::Closing]
    {
        relay.become_other(face);
        for trust in [&KNOWN[..], &["--pin", &pin]] {
            let options = [trust, &["--retries", "1", "--timeout", "500ms"]].concat();
            let ended = place.fetch("f", relay.address, &options).env("ONEPORT_KEY", key.expose()).end();
            assert!(
                [Some(60), Some(6), Some(28)].contains(&ended.code),
                "{:?}: {}",
                ended.code,
                ended.stderr
            );
            expect_nowhere(&place, &ended, &key);
        }
    }
    assert!(!relay.has_heard(b"oneport_") && !relay.has_heard(HELLO.as_bytes()));
    assert!(noting.heard.lock().unwrap().is_empty());
    relay.expect_only_tls();
}

#[test]
fn with_tls_off_a_key_leaves_only_over_loopback() {
    let key = token(6);
    let noting = Noting::new(b"data");
    let place = Place::new();
    let off = ["--tls", "off"];
    place.fetch("f", noting.server.address, &off).env("ONEPORT_KEY", key.expose()).end().expect(0);
    assert_eq!(noting.expect_key(&key), 1);
    let Some(own) = own_address() else {
        return skipped("--tls off far from here", "this machine has no address but loopback");
    };
    let relay = Relay::on(TcpListener::bind((own.ip(), 0)).unwrap(), Face::Plain, noting.server.address);
    place.fetch("f", relay.address, &off).env("ONEPORT_KEY", key.expose()).end().expect(60).says("in clear");
    assert_eq!(noting.expect_key(&key), 1);
    assert!(relay.heard().iter().all(|heard| heard.raw.is_empty()));
}

#[test]
fn a_key_comes_from_the_first_line_of_a_file_or_from_the_environment() {
    let (one, other) = (token(7), token(8));
    let noting = Noting::new(b"data");
    let place = Place::new();
    let text = one.expose();
    for (name, text) in [
        ("key", text.to_owned()),
        ("key1", format!("{text}\n")),
        ("key2", format!("{text}\r\n")),
        ("key3", format!("{text}\nfor the cellar\n{}\n", other.expose())),
    ] {
        key_file(&place, name, text.as_bytes());
        // The file stands before the environment.
        let run = place.fetch("f", noting.server.address, &["--key-file", name]);
        let ended = run.env("ONEPORT_KEY", other.expose()).end().expect(0);
        assert!(!ended.stderr.contains("chmod"), "{}", ended.stderr);
        noting.expect_key(&one);
    }
    fs::set_permissions(place.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let ended = place.fetch("f", noting.server.address, &["--key-file", "key"]).end().expect(0);
    expect_nowhere(&place, &ended.says("chmod 600 key"), &one);
    place.fetch("f", noting.server.address, &[]).env("ONEPORT_KEY", text).end().expect(0);
    noting.expect_key(&one);
    let asked = noting.heard.lock().unwrap().len();
    // An empty variable is none.
    place.fetch("f", noting.server.address, &[]).env("ONEPORT_KEY", "").end().expect(0);
    assert_eq!(noting.heard.lock().unwrap().len(), asked + 1);
    assert!(!matches!(noting.heard.lock().unwrap()[asked][0], ClientFrame::Auth(_)));
}

#[test]
fn what_is_no_key_is_told_by_where_it_came_from_and_never_shown() {
    let key = token(9);
    let text = key.expose();
    let place = Place::new();
    let server = Scripted::serving(b"data");
    let mut mistyped = text.to_owned().into_bytes();
    mistyped[30] ^= 1;
    for (name, bytes) in [
        ("key-empty", Vec::new()),
        ("key-line", b"\n".to_vec()),
        ("key-mistyped", mistyped.clone()),
        ("key-cut", text.as_bytes()[..50].to_vec()),
        ("key-longer", format!("{text}x").into_bytes()),
        ("key-spaced", format!(" {text}").into_bytes()),
        ("key-long", [text.as_bytes(), &[b'x'; 100_000]].concat()),
        ("key-bytes", vec![0xff; 80]),
    ] {
        key_file(&place, name, &bytes);
        let ended = place.fetch("f", server.address, &["--key-file", name]).end().expect(2).says(name);
        expect_nowhere(&place, &ended, &key);
    }
    place.fetch("f", server.address, &["--key-file", "key-none"]).end().expect(2).says("key-none");
    let mistyped = String::from_utf8(mistyped).unwrap();
    let run = place.fetch("f", server.address, &[]).env("ONEPORT_KEY", &mistyped);
    expect_nowhere(&place, &run.end().expect(2).says("ONEPORT_KEY"), &key);
    place.fetch("f", server.address, &["--ask-key"]).end().expect(2).says("terminal");
    place.fetch("f", server.address, &["--ask-key", "--key-file", "key"]).end().expect(2);
    assert!(server.requests().is_empty());
}

#[test]
fn while_a_client_runs_nobody_can_read_its_key_on_its_command_line() {
    let key = token(11);
    let server = Scripted::start(|stream, _, _| until_gone(&stream));
    let place = Place::new();
    key_file(&place, "key", key.expose().as_bytes());
    let options = ["--key-file", "key", "--retries", "1000"];
    let running = place.fetch("f", server.address, &options).start();
    await_for("a connection", || server.requests().first().cloned());
    let line = running.command_line();
    let has = |bytes: &[u8]| line.windows(bytes.len()).any(|window| window == bytes);
    assert!(has(b"--key-file") && !has(secret(&key).as_bytes()));
    drop(running);
}

#[test]
fn a_key_on_the_command_line_is_refused_and_not_repeated() {
    let key = token(10);
    let server = Scripted::serving(b"data");
    let place = Place::new();
    let from = server.address.to_string();
    let equals = format!("--key-file={}", key.expose());
    let within = format!("oneport://{from}/f?{}", key.expose());
    for words in [
        &["f", key.expose()][..],
        &["f", "--key", key.expose()],
        &["f", &equals],
        &["get", &within],
        &["get", "-s", &from, "f", "--pin", key.expose()],
        &["ls", key.expose()],
    ] {
        let ended = place.client(words).end().expect(2).says("--key-file");
        expect_nowhere(&place, &ended, &key);
    }
    assert!(server.requests().is_empty() && place.tree().is_empty());
}
