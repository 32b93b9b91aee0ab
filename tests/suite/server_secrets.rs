//! Keys are secret: whatever a client does with one, nothing that a server writes or shows repeats it.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::harness::Place;
use crate::holders::{Outcome, add, ask, ask_get, ask_stat, auth, holder, list, near_miss, revoke, secret};
use crate::raw::{self, request};
use crate::serving::{Server, Signal, Site};
use crate::v2_peer::{Asker, HELLO};

/// Bytes of a secret that would be too many.
const PIECE: usize = 8;

/// Everything a server has written or shown.
fn traces(site: &Site, server: &Server) -> Vec<(String, Vec<u8>)> {
    let mut found = vec![
        ("stdout".to_owned(), server.stdout().into_bytes()),
        ("stderr".to_owned(), server.stderr().into_bytes()),
    ];
    for folder in ["state", "logs"] {
        walk(&site.path().join(folder), &mut found);
    }
    for what in ["cmdline", "environ"] {
        found.extend(
            fs::read(format!("/proc/{}/{what}", server.id())).ok().map(|bytes| (what.to_owned(), bytes)),
        );
    }
    found
}

fn walk(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => walk(&entry.path(), found),
            false => found.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap())),
        }
    }
}

/// The forms in which a secret could be written.
fn forms(token: &str) -> [Vec<u8>; 2] {
    let piece = &secret(token).as_bytes()[4..4 + PIECE];
    [piece.to_vec(), piece.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()]
}

fn misuse(server: &Server, word: &str) {
    // Shown as a key, in whatever way.
    let _ = ask_stat(&mut holder(server, word), 1, "f");
    let mut twice = holder(server, word);
    let _ = ask_get(&mut twice, 1, "f");
    let _ = twice.stream.write_all(&auth(word));
    let _ = twice.hear_error();
    let mut in_request = Asker::new(server, "");
    in_request.stream.write_all(&crate::v2_peer::frame(7, 5, word.as_bytes())).unwrap();
    let _ = in_request.hear_error();
    // In the place of names, where requests are and where they are not whole.
    for name in [
        word.to_owned(),
        format!("a/{word}.txt"),
        format!("{HELLO}&&key={word}"),
        format!("{HELLO}need={word}"),
        format!("{}{word}", "x/".repeat(500)),
        format!("../{word}"),
    ] {
        let _ = raw::fetch(server.address, &name);
    }
    let mut asker = holder(server, word);
    let mut stranger = Asker::new(server, "");
    for asker in [&mut asker, &mut stranger] {
        let _ = ask_stat(asker, 1, word);
        let _ = ask_get(asker, 2, &format!("{word}/{word}"));
        let _ = ask(asker, &list(3, word));
    }
    let mut cut = server.connect();
    cut.write_all(&request(word.as_bytes())[..40]).unwrap();
    drop(cut);
}

#[test]
fn no_trace_of_a_key_is_left_whatever_is_done_with_it() {
    for (format, options) in [("text", &[][..]), ("json", &["--require-key"])] {
        let site = Site::new();
        site.file("f", b"x");
        let token = add(&site, "ci", &["--allow", "read"]);
        let revoked = add(&site, "old", &["--allow", "read"]);
        revoke(&site, "old");
        let wrong = near_miss(&token, 3);
        let mut mistyped = token.clone();
        mistyped.replace_range(30..31, if &token[30..31] == "A" { "B" } else { "A" });
        let mut server =
            site.launch(&[&["--log-level", "trace", "--log-format", format], options].concat()).serve();
        for word in [&token, &revoked, &wrong, &mistyped, &token[..60].to_owned()] {
            misuse(&server, word);
        }
        assert_eq!(ask_stat(&mut holder(&server, &token), 1, "f"), Outcome::Answered);
        let running = traces(&site, &server);
        server.signal(Signal::TERM);
        assert_eq!(server.wait_exit(), Some(0));
        let traces = [running, traces(&site, &server)].concat();
        assert!(traces.iter().any(|(_, bytes)| find(bytes, b"oneport_")), "keys were told of");
        for (place, bytes) in &traces {
            for word in [&token, &revoked, &wrong] {
                for form in forms(word) {
                    assert!(!find(bytes, &form), "{place}: {}", String::from_utf8_lossy(bytes));
                }
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[test]
fn files_that_are_called_like_keys_are_listed_and_fetched_as_they_are() {
    let site = Site::new();
    let names = ["oneport_documentation_a.txt", "oneport_documentation_b.txt"];
    for name in names {
        site.file(name, name.as_bytes());
    }
    let (server, place) = (site.serve(&[]), Place::new());
    let listed = place.client(&["ls", "-s", &server.address.to_string()]).end().expect(0);
    assert_eq!(listed.stdout().lines().collect::<Vec<_>>(), names);
    place.get(server.address, &names).end().expect(0);
    for name in names {
        assert_eq!(place.read(format!("client_downloads/{name}")), name.as_bytes());
    }
}
