//! Who may do what: every verb, by everybody there can be, in both dialects, on an open server and on one
//! that wants keys. The table is written out; a verb that is not in it fails.

use std::fs;

use oneport::codec::v2::{ClientFrame, File, Form, Move, Push, Put, Remove};
use oneport::control::{Question, Wanted};
use oneport::priority::Priority;
use oneport::rights::Verb;

use crate::holders::{NOT_ALLOWED, Outcome, add, ask, holder, list, revoke};
use crate::raw::{self, Answer};
use crate::receivers::listen;
use crate::serving::{Server, Site};
use crate::v2_peer::{Asker, get, stat};

/// The code of what is not there.
const NOT_FOUND: u16 = 3;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Anonymous,
    Read,
    WriteOnly,
    /// A key to read what is asked for.
    ReadHere,
    /// A key to read something else.
    ReadThere,
    Expired,
    Revoked,
    AdminOnly,
}

use Role::{AdminOnly, Anonymous, Expired, Read, ReadHere, ReadThere, Revoked, WriteOnly};

const ROLES: [Role; 8] = [Anonymous, Read, WriteOnly, ReadHere, ReadThere, Expired, Revoked, AdminOnly];

/// What is to come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Allowed,
    /// A key is needed.
    Key,
    /// The key does not allow it.
    NotThis,
    /// The key itself is refused.
    NoKey,
}

use Expected::{Allowed, Key, NoKey, NotThis};

/// For each verb: what comes of it on an open server, and where a key is required, in the order of `ROLES`.
fn expected(verb: Verb) -> [[Expected; 8]; 2] {
    const OPEN: [Expected; 8] = [Allowed, Allowed, Allowed, Allowed, Allowed, NoKey, NoKey, Allowed];
    match verb {
        Verb::Ping => [OPEN, OPEN],
        Verb::Stat | Verb::Get | Verb::List => {
            [OPEN, [Key, Allowed, NotThis, Allowed, NotThis, NoKey, NoKey, NotThis]]
        }
        Verb::Put => [[Key, NotThis, Allowed, NotThis, NotThis, NoKey, NoKey, NotThis]; 2],
        Verb::Status | Verb::Clients | Verb::History | Verb::Cancel => {
            [[Key, NotThis, NotThis, NotThis, NotThis, NoKey, NoKey, Allowed]; 2]
        }
        // None of these may push; `push` has those who may.
        Verb::Remove | Verb::Move | Verb::Listen | Verb::Push => {
            [[Key, NotThis, NotThis, NotThis, NotThis, NoKey, NoKey, NotThis]; 2]
        }
        other => panic!("{other:?} is not in the table"),
    }
}

/// The request that stands for a verb.
fn request(verb: Verb) -> ClientFrame {
    match verb {
        Verb::Ping => ClientFrame::Ping(1, *b"are you?"),
        Verb::Stat => stat(1, b"here/f"),
        Verb::Get => get(1, "here/f"),
        Verb::List => list(1, "here"),
        Verb::Put => ClientFrame::Put(1, folder("here/made")),
        Verb::Remove => ClientFrame::Remove(1, Remove { recursive: true, name: "here/f".into() }),
        Verb::Move => {
            ClientFrame::Move(1, Move { replace: false, from: "here/f".into(), to: "here/g".into() })
        }
        Verb::Status => ClientFrame::Control(1, Question::Status),
        Verb::Clients => ClientFrame::Control(1, Question::Clients),
        Verb::History => ClientFrame::Control(1, Question::History(Wanted::default())),
        Verb::Cancel => ClientFrame::Control(1, Question::Cancel("abc-1".into())),
        Verb::Listen => listen(1, "here"),
        Verb::Push => {
            let file = Put { form: Form::Asked, ..folder("f") };
            ClientFrame::Push(1, Push { receiver: "here".into(), put: file })
        }
        other => panic!("{other:?} is not in the table"),
    }
}

/// PUT of a folder.
fn folder(name: &str) -> Put {
    let file = File { size: 0, modified: (0, 0), mode: 0o755, token: [1; 16], root: None };
    let (name, form) = (name.to_owned().into(), Form::Folder);
    Put {
        replace: false,
        unless_same: false,
        form,
        name,
        transfer: [0; 16],
        attempt: 0,
        file,
        priority: Priority::default(),
    }
}

fn told(outcome: &Outcome) -> Expected {
    match outcome {
        // It may be asked for, and there is no such transfer.
        Outcome::Refused(1, NOT_FOUND, text) if text.starts_with("no running transfer") => Allowed,
        Outcome::Answered => Allowed,
        Outcome::Refused(1, NOT_ALLOWED, text)
            if text.starts_with("a key with the right to ") && text.ends_with(" is needed") =>
        {
            Key
        }
        Outcome::Refused(1, NOT_ALLOWED, text) if text == "the key does not allow this" => NotThis,
        Outcome::Refused(0, NOT_ALLOWED, text) if text == "the key is not accepted" => NoKey,
        other => panic!("{other:?}"),
    }
}

/// A key for each role that has one.
fn keys(site: &Site) -> Vec<(Role, Option<String>)> {
    let here = ["--allow", "read", "--path", "here"];
    let made = ROLES.map(|role| {
        let options: &[&str] = match role {
            Anonymous => return (role, None),
            Read | Revoked => &["--allow", "read"],
            Expired => &["--allow", "read", "--expires", "1d"],
            WriteOnly => &["--allow", "write"],
            ReadHere => &here,
            ReadThere => &["--allow", "read,write", "--path", "her"],
            AdminOnly => &["--allow", "admin"],
        };
        (role, Some(add(site, &format!("{role:?}"), options)))
    });
    revoke(site, "Revoked");
    let path = site.path().join("state/keys.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (before, after) = text.split_once("expires = \"20").unwrap();
    // The same moment two thousand years ago.
    fs::write(path, format!("{before}expires = \"00{after}")).unwrap();
    made.to_vec()
}

#[test]
fn every_verb_is_allowed_to_those_in_the_table_and_nobody_else() {
    let site = Site::new();
    site.file("here/f", b"x");
    let keys = keys(&site);
    for (index, options) in [&[][..], &["--require-key"]].into_iter().enumerate() {
        for verb in Verb::ALL {
            // Refused keys are slowed: each verb has a server of its own.
            let server = site.serve(options);
            for (at, (role, token)) in keys.iter().enumerate() {
                let mut asker = match token {
                    None => Asker::new(&server, ""),
                    Some(token) => holder(&server, token),
                };
                let outcome = ask(&mut asker, &request(verb));
                let expected = expected(verb)[index][at];
                assert_eq!(told(&outcome), expected, "{verb:?} by {role:?} with {options:?}");
            }
            if verb == Verb::Get {
                version_1(&server, expected(verb)[index][0]);
            }
            fs::remove_dir_all(site.path().join("logs")).unwrap();
        }
    }
}

/// Version 1 has one verb and no keys.
fn version_1(server: &Server, expected: Expected) {
    match (raw::fetch(server.address, "here/f"), expected) {
        (Answer::Whole(_), Allowed) => {}
        (Answer::Refused(text), Key) => assert_eq!(text, "a key with the right to read is needed"),
        (answer, expected) => panic!("{} instead of {expected:?}", raw::brief(&answer)),
    }
}

#[test]
fn a_limited_key_sees_nothing_above_its_path_and_no_links_out_of_the_question() {
    let site = Site::new();
    site.file("here/f", b"x");
    site.file("there/f", b"y");
    let server = site.serve(&["--require-key"]);
    let token = add(&site, "ci", &["--allow", "read", "--path", "here"]);
    let mut asker = holder(&server, &token);
    let mut number = 0;
    let mut asks = |make: &dyn Fn(u32) -> ClientFrame| {
        number += 1;
        ask(&mut asker, &make(number))
    };
    assert_eq!(asks(&|n| list(n, "here")), Outcome::Answered);
    for name in ["", "there", "her", "here2", "missing", "..", "there/../here", "here\0"] {
        let outcome = asks(&|n| list(n, name));
        let Outcome::Refused(_, code, text) = outcome else { panic!("{name}: {outcome:?}") };
        assert_eq!((code, text.as_str()), (NOT_ALLOWED, "the key does not allow this"), "{name}");
    }
    for name in ["there/f", "missing", "here/../there/f", "/here/f", ""] {
        let is_beneath = name.starts_with("here/");
        let Outcome::Refused(_, code, text) = asks(&|n| stat(n, name.as_bytes())) else { panic!("{name}") };
        // What begins with the path and leads out of it cannot be a name at all.
        let expected = if is_beneath {
            (3, "there is no such file")
        } else {
            (NOT_ALLOWED, "the key does not allow this")
        };
        assert_eq!((code, text.as_str()), expected, "{name}");
    }
}
