use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::limits::QUOTA_MAX;
use crate::token::{TOKEN_RANDOM, Token};

fn token(seed: u8) -> Token {
    Token::new(&std::array::from_fn(|at| seed.wrapping_mul(41).wrapping_add(u8::try_from(at).unwrap())))
}

fn key(seed: u8, name: &str) -> Key {
    let token = token(seed);
    Key {
        id: token.id(),
        name: name.parse().unwrap(),
        hash: token.hash(),
        grant: Grant { rights: "read".parse().unwrap(), prefix: Box::default() },
        created: "2026-01-02T03:04:05Z".parse().unwrap(),
        expires: None,
        quota: None,
    }
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

struct State(tempfile::TempDir);

impl State {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("keys.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
        fs::set_permissions(self.file(), Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn names_of_keys_are_words_and_never_tokens() {
    for name in ["a", "ci", "A.b_c-9", &"x".repeat(64)] {
        assert_eq!(name.parse::<KeyName>().unwrap().as_str(), name);
    }
    for name in ["", "a b", "ü", "a/b", "a\n", &"x".repeat(65), &token(1).expose()[..40]] {
        assert_eq!(name.parse::<KeyName>(), Err(KeyNameError), "{name}");
    }
}

#[test]
fn keys_are_read_back_as_they_were_written() {
    let state = State::new();
    let mut full = key(2, "b");
    full.grant = Grant {
        rights: "read,write,push".parse().unwrap(),
        prefix: (*"a \"q\\ü\u{7f}/b".as_bytes()).into(),
    };
    full.expires = Some("2027-01-31T00:00:00Z".parse().unwrap());
    full.quota = Some(QUOTA_MAX);
    for key in [key(1, "a"), full.clone()] {
        add(state.0.path(), key, now()).unwrap();
    }
    assert_eq!(list(state.0.path()).unwrap(), [key(1, "a"), full]);
    assert_eq!(fs::metadata(state.file()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_name_belongs_to_one_key_that_has_not_expired() {
    let state = State::new();
    let mut old = key(1, "ci");
    old.expires = Some(now());
    add(state.0.path(), old, "2026-02-01T00:00:00Z".parse().unwrap()).unwrap();
    add(state.0.path(), key(2, "ci"), now()).unwrap();
    assert_eq!(add(state.0.path(), key(3, "ci"), now()), Err(KeysError::Exists("ci".parse().unwrap())));
    assert_eq!(revoke(state.0.path(), "ci").unwrap().len(), 2);
    assert_eq!(revoke(state.0.path(), "ci"), Err(KeysError::NotFound("ci".to_owned())));
}

#[test]
fn what_is_added_or_revoked_is_in_force_with_the_next_look() {
    let state = State::new();
    let keys = KeyFile::new(state.0.path());
    assert_eq!(keys.check(), Ok(0), "a missing file holds no keys");
    for round in 0..50 {
        add(state.0.path(), key(round, "a"), now()).unwrap();
        assert_eq!(*keys.find(&token(round).id()).unwrap().unwrap(), key(round, "a"));
        revoke(state.0.path(), &token(round).id().to_string()).unwrap();
        assert_eq!(keys.find(&token(round).id()), Ok(None));
    }
    add(state.0.path(), key(1, "a"), now()).unwrap();
    assert!(keys.find(&token(1).id()).unwrap().is_some());
    fs::remove_file(state.file()).unwrap();
    assert_eq!(keys.find(&token(1).id()), Ok(None));
}

#[test]
fn a_file_that_is_not_understood_or_not_private_lets_nobody_in_until_it_is_put_right() {
    let state = State::new();
    add(state.0.path(), key(1, "a"), now()).unwrap();
    let good = fs::read_to_string(state.file()).unwrap();
    let keys = KeyFile::new(state.0.path());
    let is_let_in = || keys.find(&token(1).id()).is_ok_and(|key| key.is_some());
    assert!(is_let_in());
    let doubled = good.clone() + &good[good.find("\n[[").unwrap()..];
    let stray = good.replace("allow", "alow");
    let no_right = good.replace("\"read\"", "\"reed\"");
    let empty = good.replace("[\"read\"]", "[]");
    let short = good.replace("hash = \"", "hash = \"0");
    let outside = good.clone() + "path = \"../x\"\n";
    let less = good.clone() + "quota = -1\n";
    let torn = &good[..good.len() - 9];
    for (what, text) in [
        ("garbage", "\u{1}{{{"),
        ("a key twice", &doubled),
        ("an unknown word", &stray),
        ("an unknown right", &no_right),
        ("no rights", &empty),
        ("a hash that is none", &short),
        ("a path that leaves the root", &outside),
        ("a quota below nothing", &less),
        ("torn", torn),
    ] {
        state.write(text);
        assert!(matches!(keys.find(&token(1).id()), Err(KeysError::Wrong { .. })), "{what}");
        assert_eq!(keys.check().unwrap_err().code(), Code::Usage, "{what}");
        assert!(add(state.0.path(), key(2, "b"), now()).is_err(), "{what}: nothing is written over it");
        assert_eq!(fs::read_to_string(state.file()).unwrap(), text);
    }
    state.write(&good);
    assert!(is_let_in());
    for mode in [0o640, 0o604, 0o620, 0o601] {
        fs::set_permissions(state.file(), Permissions::from_mode(mode)).unwrap();
        assert!(matches!(keys.find(&token(1).id()), Err(KeysError::Permissive { .. })), "{mode:o}");
    }
    state.write(&"#".repeat(usize::try_from(KEYS_FILE_MAX).unwrap() + 1));
    assert!(matches!(keys.find(&token(1).id()), Err(KeysError::TooMany { .. })));
    fs::remove_file(state.file()).unwrap();
    fs::create_dir(state.file()).unwrap();
    assert!(keys.find(&token(1).id()).is_err());
    fs::remove_dir(state.file()).unwrap();
    state.write(&good);
    assert!(is_let_in());
}

#[test]
fn errors_and_what_is_kept_repeat_no_secret() {
    let state = State::new();
    add(state.0.path(), key(1, "a"), now()).unwrap();
    let token = token(1);
    let secret = &token.expose()[Token::PREFIX.len() + 12..];
    assert!(!fs::read_to_string(state.file()).unwrap().contains(&secret[..8]));
    let not_found = revoke(state.0.path(), token.expose()).unwrap_err().to_string();
    state.write(&format!("[[key]]\nhash = {{ x = \"{}\" }}\nnmae = 1\n", token.expose()));
    let wrong = list(state.0.path()).unwrap_err().to_string();
    state.write(&format!("[[key]]\n{} = 1\n", token.expose()));
    let unknown = list(state.0.path()).unwrap_err().to_string();
    for text in [not_found, wrong, unknown] {
        assert!(!text.contains(&secret[..8]), "{text}");
    }
}

#[test]
fn there_are_no_more_keys_than_can_be_looked_after() {
    let all = |count: usize| -> Vec<Key> {
        (0..count)
            .map(|at| {
                let mut random = [0; TOKEN_RANDOM];
                random[..8].copy_from_slice(&at.to_be_bytes());
                let token = Token::new(&random);
                Key { id: token.id(), hash: token.hash(), ..key(0, &format!("key-{at}")) }
            })
            .collect()
    };
    let state = State::new();
    state.write(&format::render(&all(KEYS_MAX)));
    assert_eq!(KeyFile::new(state.0.path()).check(), Ok(KEYS_MAX));
    let one_more = add(state.0.path(), key(1, "a"), now());
    assert!(matches!(one_more, Err(KeysError::TooMany { .. })), "{one_more:?}");
    state.write(&format::render(&all(KEYS_MAX + 1)));
    assert!(matches!(KeyFile::new(state.0.path()).check(), Err(KeysError::TooMany { .. })));
}
