//! `server key`, and keys on a running server: what they allow, and when that begins and ends.

use std::fs::{self, Permissions};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use oneport::codec::v2::{ClientFrame, ServerFrame};
use serde_json::Value;

use crate::harness::Place;
use crate::holders::{
    NOT_ALLOWED, Outcome, add, ask, ask_get, ask_stat, get_all, holder, holder_from, key, list, near_miss,
    revoke,
};
use crate::raw::{self, Answer};
use crate::serving::{Signal, Site, wait_for};
use crate::v2_peer::{Asker, MIB};

const NEEDS_KEY: &str = "a key with the right to read is needed";
const NOT_THIS: &str = "the key does not allow this";
const NOT_ACCEPTED: &str = "the key is not accepted";

fn refused(request: u32, text: &str) -> Outcome {
    Outcome::Refused(request, NOT_ALLOWED, text.to_owned())
}

fn keys_file(site: &Site) -> PathBuf {
    site.path().join("state/keys.toml")
}

/// The keys that `server key list --json` shows.
fn listed(site: &Site) -> Vec<Value> {
    let ended = key(site, &["list", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_key_is_made_shown_once_listed_and_revoked() {
    let site = Site::new();
    let added = key(&site, &["add", "ci", "--allow", "read,write", "--path", "a/b", "--expires", "30d"]);
    assert_eq!(added.code, Some(0));
    for said in ["ci", "read,write", "a/b", "expires 20", "this once", "ONEPORT_KEY", "TLS"] {
        assert!(added.stderr.contains(said), "{said}: {}", added.stderr);
    }
    let token = added.stdout.trim_end();
    assert!(oneport::token::Token::parse(token.as_bytes()).is_ok());
    assert!(!added.stderr.contains(token));
    let json = key(&site, &["add", "other", "--allow", "read", "--json"]).stdout;
    let made: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json.lines().count(), 1);
    assert!(made["token"].as_str().unwrap().contains(made["id"].as_str().unwrap()));
    assert_eq!(
        (&made["expires"], &made["path"], &made["allow"][0]),
        (&Value::Null, &Value::Null, &"read".into())
    );

    let shown = key(&site, &["list"]).stdout;
    let line = shown.lines().find(|line| line.starts_with("ci ")).unwrap();
    assert!(line.contains("read,write") && line.ends_with("a/b"), "{shown}");
    let keys = listed(&site);
    assert_eq!((keys.len(), &keys[0]["name"], &keys[0]["expired"]), (2, &"ci".into(), &false.into()));
    let kept = fs::read_to_string(keys_file(&site)).unwrap() + &shown;
    assert!(!kept.contains(crate::holders::secret(token)) && !kept.contains("token"));
    assert_eq!(fs::metadata(keys_file(&site)).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(site.path().join("state")).unwrap().mode() & 0o777, 0o700);

    assert_eq!(key(&site, &["add", "ci", "--allow", "read"]).code, Some(13), "the name is taken");
    assert_eq!(key(&site, &["add", "late", "--allow", "read", "--expires", "2020-01-01"]).code, Some(2));
    assert_eq!(key(&site, &["add", "a b", "--allow", "read"]).code, Some(2));
    assert_eq!(key(&site, &["revoke", made["id"].as_str().unwrap()]).code, Some(0));
    revoke(&site, "ci");
    let again = key(&site, &["revoke", "ci"]);
    assert_eq!(again.code, Some(3));
    assert!(again.stderr.contains("there is no key ci"), "{}", again.stderr);
    assert_eq!(listed(&site), [Value::Null; 0]);
    add(&site, "ci", &["--allow", "read"]);
}

#[test]
fn what_is_changed_of_a_key_is_changed_and_nothing_else() {
    let site = Site::new();
    let token = add(&site, "ci", &["--allow", "write", "--path", "a", "--quota", "1000", "--expires", "30d"]);
    let before = listed(&site).remove(0);
    let set = |arguments: &[&str]| {
        let ended = key(&site, &[&["set"], arguments].concat());
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        listed(&site).remove(0)
    };
    let more = set(&["ci", "--quota", "2MiB"]);
    assert_eq!(more["quota"], 2 << 20);
    let always = set(&[before["id"].as_str().unwrap(), "--expires", "never"]);
    assert_eq!((&always["quota"], &always["expires"]), (&more["quota"], &Value::Null));
    let mut all = set(&["ci", "--quota", "none", "--expires", "2999-01-01"]);
    assert_eq!((&all["quota"], &all["expires"]), (&Value::Null, &"2999-01-01T00:00:00Z".into()));
    for changed in ["quota", "expires"] {
        all[changed] = before[changed].clone();
    }
    assert_eq!(all, before, "name, rights, path and identifier stay");
    let server = site.serve(&[]);
    assert!(holder(&server, &token).is_answered(), "the token is the same");

    assert_eq!(key(&site, &["set", "nobody", "--quota", "1"]).code, Some(3));
    for wrong in
        [&["set", "ci"][..], &["set", "ci", "--expires", "2020-01-01"], &["set", "ci", "--quota", "much"]]
    {
        assert_eq!(key(&site, wrong).code, Some(2), "{wrong:?}");
    }
    assert_eq!(listed(&site)[0]["expires"], "2999-01-01T00:00:00Z");
}

#[test]
fn keys_are_where_the_server_has_its_state_and_serving_is_as_before() {
    let site = Site::new();
    let add = ["key", "add", "ci", "--allow", "read"];
    let bare = |arguments: &[&str]| site.launch_bare(arguments);
    assert_eq!(bare(&add).env("ONEPORT_STATE", "one").env("ONEPORT_PORT", "1").run().code, Some(0));
    assert!(site.path().join("one/keys.toml").exists());
    fs::write(site.path().join("c.toml"), "state = \"two\"\nport = 1\n").unwrap();
    assert_eq!(bare(&add).env("ONEPORT_CONFIG", "c.toml").run().code, Some(0));
    assert!(site.path().join("two/keys.toml").exists());
    assert_eq!(bare(&add).run().code, Some(0));
    assert!(site.path().join(".oneport/keys.toml").exists());
    assert_eq!(bare(&["key", "list", "--state", "none"]).run().stdout.lines().count(), 1, "a heading");
    assert_eq!(bare(&["key", "revoke", "x", "--state", "none"]).run().code, Some(3));
    assert!(!site.path().join("none").exists());
    // A folder that is called like the subcommand.
    fs::create_dir(site.path().join("key")).unwrap();
    fs::write(site.path().join("key/f"), "x").unwrap();
    let server = bare(&["0", "key", "--state", "state", "--log-dir", "logs"]).serve();
    assert_eq!(raw::fetch_whole(server.address, "f"), b"x");
}

#[test]
fn a_key_that_is_added_or_revoked_is_in_force_with_the_next_request() {
    let site = Site::new();
    site.file("a/f", b"x");
    let server = site.serve(&["--require-key"]);
    let mut nobody = Asker::new(&server, "");
    assert_eq!(ask_stat(&mut nobody, 1, "a/f"), refused(1, NEEDS_KEY));
    for round in 0..3 {
        let token = add(&site, "ci", &["--allow", "read"]);
        let mut one = holder(&server, &token);
        assert_eq!(ask_stat(&mut one, 1, "a/f"), Outcome::Answered, "round {round}");
        let mut idle = holder(&server, &token);
        assert_eq!(ask_get(&mut idle, 1, "a/f"), Outcome::Answered);
        revoke(&site, "ci");
        assert_eq!(ask_stat(&mut one, 2, "a/f"), refused(2, NOT_THIS), "on a connection that is open");
        assert_eq!(ask_get(&mut idle, 2, "a/f"), refused(2, NOT_THIS));
        assert_eq!(ask(&mut idle, &list(3, "a")), refused(3, NOT_THIS));
        assert_eq!(ask(&mut idle, &list(4, "")), refused(4, NOT_THIS));
        assert!(idle.is_answered(), "the connection stays");
        assert_eq!(ask_stat(&mut holder(&server, &token), 1, "a/f"), refused(0, NOT_ACCEPTED));
    }
    let log = server.wait_log("the key was revoked");
    let denied =
        log.lines().find(|line| line.contains("Denied stat 'a/f'") && line.contains("key=ci")).unwrap();
    assert!(denied.contains("WARN"), "{denied}");
    assert!(log.lines().any(|line| line.contains("File 'a/f' sent") || line.contains("Sent 'a/f'")), "{log}");
    assert!(
        log.lines().filter(|line| line.contains("Sent 'a/f'")).all(|line| line.contains("(key=ci)")),
        "{log}"
    );
}

#[test]
fn a_key_that_expires_ends_on_an_open_connection() {
    let site = Site::new();
    site.file("f", b"x");
    let server = site.serve(&["--require-key"]);
    let began = Instant::now();
    let token = add(&site, "ci", &["--allow", "read", "--expires", "4s"]);
    let mut asker = holder(&server, &token);
    let mut number = 0;
    let last = wait_for("the end of the key", || {
        number += 1;
        let outcome = ask_stat(&mut asker, number, "f");
        (outcome != Outcome::Answered).then_some(outcome)
    });
    assert_eq!(last, refused(number, NOT_THIS));
    assert!(number > 1, "it was good for a while");
    // Moments are kept in whole seconds.
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(ask_stat(&mut holder(&server, &token), 1, "f"), refused(0, NOT_ACCEPTED));
    assert!(listed(&site)[0]["expired"].as_bool().unwrap());
    add(&site, "ci", &["--allow", "read"]);
}

/// The server sends ahead what the client's window and the sockets hold, and no more than a block after.
#[test]
fn a_transfer_in_its_middle_is_cut_when_its_key_is_revoked() {
    const SIZE: usize = 64 * MIB;
    const WINDOW: usize = 4 * MIB;
    let site = Site::new();
    fs::File::create(site.root("large")).unwrap().set_len(SIZE as u64).unwrap();
    site.file("f", b"x");
    let server = site.serve(&["--require-key"]);
    let token = add(&site, "ci", &["--allow", "read"]);
    let other = add(&site, "other", &["--allow", "read"]);
    let mut asker = Asker::on(raw::connect_narrow(server.address), &format!("window={WINDOW}"));
    std::io::Write::write_all(&mut asker.stream, &crate::holders::auth(&token)).unwrap();
    assert!(asker.send(&[get_all(1, "large")]));
    let (mut taken, mut is_revoked) = (0, false);
    let ended = loop {
        let told = asker.hear().expect("the connection goes on");
        match told.frame {
            ServerFrame::Data { .. } => {
                taken += told.data.len();
                assert!(asker.send(&[ClientFrame::Window(1, told.data.len() as u64)]));
                if !std::mem::replace(&mut is_revoked, true) {
                    revoke(&site, "ci");
                }
            }
            ServerFrame::Error(1, code, text) => break (code.0, String::from_utf8(text.to_vec()).unwrap()),
            ServerFrame::End(..) => panic!("it came whole"),
            _ => {}
        }
    };
    assert_eq!(ended, (NOT_ALLOWED, NOT_THIS.to_owned()));
    assert!(taken <= WINDOW + 8 * MIB, "{taken} bytes came");
    assert_eq!(ask_stat(&mut asker, 2, "f"), refused(2, NOT_THIS));
    // It is told when no request of the same transfer can come any more.
    drop(asker);
    server.wait_log("(key=ci) cut after");
    assert_eq!(ask_stat(&mut holder(&server, &other), 1, "f"), Outcome::Answered);
}

#[test]
fn one_key_is_shown_on_a_connection_and_none_in_its_hello() {
    let site = Site::new();
    site.file("f", b"x");
    let server = site.serve(&["--require-key"]);
    let token = add(&site, "ci", &["--allow", "read"]);
    let mut asker = holder(&server, &token);
    assert_eq!(ask_stat(&mut asker, 1, "f"), Outcome::Answered);
    std::io::Write::write_all(&mut asker.stream, &crate::holders::auth(&token)).unwrap();
    assert_eq!(asker.hear_error().map(|(request, code, _)| (request, code)), Some((0, 8)));
    let frame: String = crate::holders::auth(&token)[4..].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut asker = Asker::new(&server, &format!("first={frame}"));
    assert_eq!(asker.hear_error().map(|(request, code, _)| (request, code)), Some((0, 8)));
}

#[test]
fn version_1_is_refused_where_a_key_is_needed_and_learns_nothing() {
    let site = Site::new();
    site.file("f", b"x");
    let (server, place) = (site.serve(&["--require-key"]), Place::new());
    let texts: Vec<String> = ["f", "missing", "../f", ""]
        .iter()
        .map(|name| match raw::fetch(server.address, name) {
            Answer::Refused(text) => text,
            other => panic!("{}", raw::brief(&other)),
        })
        .collect();
    assert_eq!(texts, [NEEDS_KEY; 4]);
    place.fetch("f", server.address, &["--protocol", "v1"]).end().expect(4).says(NEEDS_KEY);
    place.fetch("f", server.address, &[]).end().expect(4).says(NEEDS_KEY);
    assert_eq!(place.tree(), [""; 0]);
    server.wait_log("Denied get 'missing'");
}

#[test]
fn a_file_of_keys_that_is_not_private_or_not_whole_lets_nobody_in() {
    let site = Site::new();
    site.file("f", b"x");
    let token = add(&site, "ci", &["--allow", "read"]);
    let mut server = site.serve(&["--require-key"]);
    let mut asker = holder(&server, &token);
    assert_eq!(ask_stat(&mut asker, 1, "f"), Outcome::Answered);
    fs::set_permissions(keys_file(&site), Permissions::from_mode(0o640)).unwrap();
    assert_eq!(ask_stat(&mut asker, 2, "f"), refused(2, NOT_THIS));
    assert_eq!(ask_stat(&mut holder(&server, &token), 1, "f"), refused(0, NOT_ACCEPTED));
    assert_eq!(ask_stat(&mut asker, 3, "f"), refused(3, NOT_THIS));
    let log = server.wait_log("chmod 600");
    assert_eq!(log.matches("Nobody is let in by a key").count(), 1, "told once");
    assert_eq!(key(&site, &["add", "x", "--allow", "read"]).code, Some(4));
    fs::set_permissions(keys_file(&site), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(ask_stat(&mut asker, 4, "f"), Outcome::Answered);
    let good = fs::read(keys_file(&site)).unwrap();
    fs::write(keys_file(&site), &good[..good.len() - 9]).unwrap();
    assert_eq!(ask_stat(&mut asker, 5, "f"), refused(5, NOT_THIS));
    server.wait_log_count("Nobody is let in by a key", 2);

    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0));
    let refused = site.launch(&[]).run();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("keys.toml cannot be understood"), "{}", refused.stderr);
    fs::write(keys_file(&site), &good).unwrap();
    fs::set_permissions(keys_file(&site), Permissions::from_mode(0o604)).unwrap();
    let refused = site.launch(&[]).run();
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    fs::set_permissions(keys_file(&site), Permissions::from_mode(0o600)).unwrap();
    let server = site.serve(&["--require-key"]);
    assert_eq!(ask_stat(&mut holder(&server, &token), 1, "f"), Outcome::Answered);
}

#[test]
fn keys_that_are_added_at_once_all_stand() {
    let site = Site::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let site = &site;
            scope.spawn(move || add(site, &format!("k{number}"), &["--allow", "read"]));
        }
    });
    let mut names: Vec<String> = listed(&site).iter().map(|key| key["name"].to_string()).collect();
    names.sort();
    assert_eq!(names, (0..8).map(|number| format!("\"k{number}\"")).collect::<Vec<_>>());
}

/// Before whichever of its system calls the program is killed, there are the old keys or the new ones, and
/// whoever comes next can go on.
#[test]
fn killing_who_adds_a_key_leaves_the_old_keys_or_the_new() {
    const CALLS: &str = "openat,write,pwrite64,fsync,fdatasync,ftruncate,copy_file_range,sendfile,fchown,\
                         flock,mkdir,rename,renameat,renameat2,link,linkat,unlink,unlinkat";
    const CALLS_MAX: usize = 1000;
    let site = Site::new();
    add(&site, "first", &["--allow", "read"]);
    let (mut made, mut killed) = (vec!["first".to_owned()], 0);
    for call in 1..=CALLS_MAX {
        let name = format!("k{call}");
        let ended = Command::new("strace")
            .args(["-f", "-qq", "-o", "trace", "-e", &format!("trace={CALLS}")])
            .args(["-e", &format!("inject={CALLS}:signal=KILL:when={call}")])
            .args([env!("CARGO_BIN_EXE_server"), "key", "add", &name, "--allow", "read", "--state", "state"])
            .current_dir(site.path())
            .output();
        let Ok(ended) = ended else {
            return crate::serving::skipped("killing_who_adds", "there is no strace");
        };
        if call == 1 && ended.status.success() {
            return crate::serving::skipped("killing_who_adds", "this machine does not let strace kill");
        }
        let keys = listed(&site);
        let names: Vec<&str> = keys.iter().map(|key| key["name"].as_str().unwrap()).collect();
        let is_there = names.last() == Some(&name.as_str());
        if is_there {
            made.push(name);
        }
        assert_eq!(names, made, "all that was there is there, before call {call}");
        if ended.status.success() {
            assert!(is_there, "a key that was said to be made is there");
            break;
        }
        killed += 1;
    }
    assert!((10..CALLS_MAX).contains(&killed), "{killed} calls");
    assert!(made.len() > 2, "some were killed after the key was there: {made:?}");
    add(&site, "last", &["--allow", "read"]);
    assert!(!site.path().join("state/keys.toml.new").exists(), "nothing is left behind");
}

#[test]
fn guessing_is_slowed_and_an_honest_client_notices_nothing() {
    const GUESSES: usize = 2000;
    const GUESSERS: usize = 64;
    const AT_ONCE: usize = 5;
    let site = Site::new();
    site.file("f", b"x");
    let server = site.serve(&["--require-key"]);
    let token = add(&site, "ci", &["--allow", "read"]);
    let guessed = std::sync::atomic::AtomicUsize::new(0);
    let count =
        |what: &std::sync::atomic::AtomicUsize| what.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let (answered, began) = (std::sync::atomic::AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..GUESSERS {
            scope.spawn(|| {
                loop {
                    let number = count(&guessed);
                    if number >= GUESSES {
                        break;
                    }
                    let mut asker = holder(&server, &near_miss(&token, number as u64));
                    match ask_stat(&mut asker, 1, "f") {
                        Outcome::Answered => panic!("a wrong key was accepted"),
                        Outcome::Refused(0, NOT_ALLOWED, text) if text == NOT_ACCEPTED => {
                            count(&answered);
                        }
                        Outcome::Closed => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        let honest = |address: [u8; 4]| {
            let began = Instant::now();
            let mut asker = holder_from(&server, IpAddr::from(address), &token);
            assert_eq!(ask_stat(&mut asker, 1, "f"), Outcome::Answered);
            began.elapsed()
        };
        let mut rounds = 0;
        while guessed.load(std::sync::atomic::Ordering::Relaxed) < GUESSES || rounds < 20 {
            for address in [[127, 0, 0, 2], [127, 0, 0, 1]] {
                let took = honest(address);
                assert!(took < Duration::from_secs(5), "a true key from {address:?} took {took:?}");
            }
            rounds += 1;
        }
    });
    let (answered, seconds) = (answered.into_inner(), began.elapsed().as_secs() as usize);
    assert!((AT_ONCE..=AT_ONCE + seconds + 1).contains(&answered), "{answered} answers in {seconds} s");
    let log = server.log();
    assert!(log.matches("Refused a key to").count() >= GUESSES, "each is told");
}

/// An address of this machine that is not loopback; no packet is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback() && !address.is_unspecified())
}

#[test]
fn in_clear_keys_are_taken_from_this_machine_and_named_networks_only() {
    let Some(address) = own_address() else {
        return crate::serving::skipped("in_clear_keys", "this machine has no address but loopback");
    };
    let site = Site::new();
    site.file("f", b"x");
    let token = add(&site, "ci", &["--allow", "read"]);
    let shows = |server: &crate::serving::Server| {
        let stream = raw::connect((address, server.address.port()).into()).unwrap();
        let mut asker = Asker::on(stream, "");
        std::io::Write::write_all(&mut asker.stream, &crate::holders::auth(&token)).unwrap();
        ask_stat(&mut asker, 1, "f")
    };
    let clear = "keys are not accepted over an unencrypted connection; use TLS";
    let server = site.serve(&["--require-key"]);
    assert_eq!(shows(&server), refused(0, clear));
    server.wait_log("Refused a key that came in clear");
    drop(server);
    let server = site.serve(&["--require-key", "--allow-plaintext-keys", &address.to_string()]);
    for _ in 0..3 {
        assert_eq!(shows(&server), Outcome::Answered);
    }
    assert_eq!(
        server.wait_log("as --allow-plaintext-keys").matches("as --allow-plaintext-keys allows").count(),
        1
    );
}
