use std::collections::HashMap;

use super::*;
use crate::catalog::Forgetful;
use crate::keys::KeysError;
use crate::service::Observer;
use crate::storage::local::LocalDisk;
use crate::token::TOKEN_RANDOM;

/// Keys that a test changes while they are in use, and how often they were asked for.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Stock>>);

#[derive(Default)]
struct Stock {
    keys: HashMap<KeyId, Arc<Key>>,
    is_broken: bool,
    asked: usize,
}

impl KeyStore for Shelf {
    fn find(&self, id: &KeyId) -> Result<Option<Arc<Key>>, KeysError> {
        let mut shelf = lock(&self.0);
        shelf.asked += 1;
        match shelf.is_broken {
            true => Err(KeysError::Permissive { path: "keys.toml".to_owned() }),
            false => Ok(shelf.keys.get(id).cloned()),
        }
    }
}

impl Shelf {
    fn put(&self, token: &Token, name: &str, allow: &str, prefix: &str, expires: Option<&str>) {
        let grant = Grant { rights: allow.parse().unwrap(), prefix: prefix.as_bytes().into() };
        let key = Key {
            id: token.id(),
            name: name.parse().unwrap(),
            hash: token.hash(),
            grant,
            created: Timestamp::UNIX_EPOCH,
            expires: expires.map(|expires| expires.parse().unwrap()),
            quota: None,
        };
        lock(&self.0).keys.insert(token.id(), Arc::new(key));
    }

    fn asked(&self) -> usize {
        lock(&self.0).asked
    }
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Observer for Notes {
    fn observe(&self, event: &Event<'_>) {
        lock(&self.0).push(format!("{event:?}"));
    }
}

impl Notes {
    fn count(&self, what: &str) -> usize {
        lock(&self.0).iter().filter(|note| note.starts_with(what)).count()
    }
}

fn service(shelf: &Shelf, require_key: bool) -> (Service, Notes) {
    let (dir, notes) = (tempfile::tempdir().unwrap(), Notes::default());
    let disk = LocalDisk::new(dir.path(), &[]).unwrap();
    let nets = vec!["10.1.0.0/16".parse().unwrap()];
    let access = Access::new(shelf.clone(), require_key, nets);
    (Service::new(disk, Forgetful, notes.clone(), access), notes)
}

fn token(seed: u64) -> Token {
    let mut random = [0; TOKEN_RANDOM];
    fastrand::Rng::with_seed(seed).fill(&mut random);
    Token::new(&random)
}

fn caller(peer: &str) -> Caller {
    Caller::new(peer.parse().unwrap(), false)
}

fn local() -> Caller {
    caller("127.0.0.1:7")
}

fn holder(service: &Service, token: &Token) -> Caller {
    service.authenticate(&local(), &Ok(token.clone())).unwrap()
}

#[test]
fn where_everybody_may_read_no_key_is_looked_up() {
    let shelf = Shelf::default();
    shelf.put(&token(1), "ci", "read", "", None);
    let (service, _) = service(&shelf, false);
    let holder = holder(&service, &token(1));
    let asked = shelf.asked();
    for caller in [&local(), &holder] {
        for verb in [Verb::Stat, Verb::Get] {
            assert!(service.permit(caller, verb, b"a/b").is_ok());
        }
        assert!(service.permit_listing(caller, b"").is_ok());
    }
    assert_eq!(shelf.asked(), asked);
}

#[test]
fn where_a_key_is_needed_nothing_is_told_without_one() {
    let (service, notes) = service(&Shelf::default(), true);
    for name in [&b"a"[..], b"../x", b"", b"?oneport/2?x", &[b'x'; 5000]] {
        let denied = service.permit(&local(), Verb::Get, name).map(|_| ());
        assert_eq!(denied, Err(Denied::NeedsKey(Right::Read)), "also of names that are none");
        let denied = service.permit_listing(&local(), name).map(|_| ());
        assert_eq!(denied, Err(Denied::NeedsKey(Right::Read)));
    }
    assert_eq!(service.check(&local(), Verb::Ping, b""), Ok(()));
    assert_eq!(notes.count("Denied"), 10);
}

#[test]
fn revoking_and_expiring_end_what_a_key_allows_at_once() {
    let shelf = Shelf::default();
    shelf.put(&token(1), "ci", "read", "a", None);
    let (service, _) = service(&shelf, true);
    let holder = holder(&service, &token(1));
    let may = |name: &[u8]| service.check(&holder, Verb::Get, name);
    assert_eq!((may(b"a/b"), may(b"ab")), (Ok(()), Err(Denied::NotAllowed)));
    shelf.put(&token(1), "ci", "read", "ab", None);
    assert_eq!(
        (may(b"a/b"), may(b"ab")),
        (Err(Denied::NotAllowed), Ok(())),
        "what it allows is looked up too"
    );
    shelf.put(&token(1), "ci", "read", "", Some("2020-01-01T00:00:00Z"));
    assert_eq!(may(b"ab"), Err(Denied::NotAllowed));
    shelf.put(&token(1), "ci", "read", "", None);
    assert_eq!(may(b"ab"), Ok(()));
    // The same identifier with another secret is another key.
    let other = Key { hash: token(2).hash(), ..(*shelf.find(&token(1).id()).unwrap().unwrap()).clone() };
    lock(&shelf.0).keys.insert(token(1).id(), Arc::new(other));
    assert_eq!(may(b"ab"), Err(Denied::NotAllowed));
    lock(&shelf.0).keys.clear();
    assert_eq!(may(b"ab"), Err(Denied::NotAllowed));
}

#[test]
fn keys_that_cannot_be_read_let_nobody_in_and_that_is_told_once() {
    let shelf = Shelf::default();
    shelf.put(&token(1), "ci", "read", "", None);
    let (service, notes) = service(&shelf, true);
    let holder = holder(&service, &token(1));
    for round in 1..=2 {
        lock(&shelf.0).is_broken = true;
        for _ in 0..5 {
            assert_eq!(service.check(&holder, Verb::Get, b"a"), Err(Denied::NotAllowed));
            assert_eq!(service.authenticate(&local(), &Ok(token(1))).err(), Some(NotAccepted::Key));
        }
        assert_eq!(notes.count("KeysUnreadable"), round);
        lock(&shelf.0).is_broken = false;
        assert_eq!(service.check(&holder, Verb::Get, b"a"), Ok(()));
        assert_eq!(notes.count("KeysReadable"), round);
    }
}

#[test]
fn in_clear_a_key_is_taken_from_this_machine_and_named_networks_only() {
    let shelf = Shelf::default();
    shelf.put(&token(1), "ci", "read", "", None);
    let (service, notes) = service(&shelf, true);
    let shows = |caller: &Caller| service.authenticate(caller, &Ok(token(1))).map(|_| ());
    for peer in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(shows(&caller(peer)), Ok(()), "{peer}");
    }
    assert_eq!(notes.count("KeyInClear"), 0);
    for port in 1..=3 {
        assert_eq!(shows(&caller(&format!("10.1.2.3:{port}"))), Ok(()));
        assert_eq!(shows(&caller(&format!("[::ffff:10.1.2.3]:{port}"))), Ok(()));
    }
    assert_eq!(notes.count("KeyInClear"), 1, "once for an address");
    let asked = shelf.asked();
    for peer in ["10.2.0.1:1", "[::ffff:10.2.0.1]:1", "[fd00::1]:1", "0.0.0.0:1", "192.168.0.1:1"] {
        assert_eq!(shows(&caller(peer)), Err(NotAccepted::Clear), "{peer}");
        assert_eq!(shows(&Caller::new(peer.parse().unwrap(), true)), Ok(()), "over TLS: {peer}");
    }
    assert_eq!(shelf.asked(), asked + 5, "a key that came in clear is not even looked up");
    assert_eq!(notes.count("KeyInClear"), 6, "each one that was refused");
}

/// Near misses of a true token: all of them are refused, and the true one still is not.
#[test]
fn of_a_million_wrong_tokens_none_is_accepted() {
    const ROUNDS: u64 = 1_000_000;
    let shelf = Shelf::default();
    let truth = token(1);
    shelf.put(&truth, "ci", "read", "", None);
    shelf.put(&token(2), "over", "read", "", Some("2020-01-01T00:00:00Z"));
    let (service, notes) = service(&shelf, true);
    let mut chance = fastrand::Rng::with_seed(7);
    let shows = |word: &[u8]| service.authenticate(&local(), &Token::parse(word)).map(|_| ());
    let body = |token: &Token| {
        use base64ct::Encoding;
        base64ct::Base64UrlUnpadded::decode_vec(&token.expose()[Token::PREFIX.len()..]).unwrap()
    };
    let random: [u8; TOKEN_RANDOM] = body(&truth)[..TOKEN_RANDOM].try_into().unwrap();
    let id_len = 9;
    for round in 0..ROUNDS {
        let mut word = truth.expose().as_bytes().to_vec();
        match round % 4 {
            // The right identifier and another secret, with the right checksum.
            0 => {
                let mut other = random;
                chance.fill(&mut other[id_len..]);
                word = Token::new(&other).expose().into();
            }
            // One bit of identifier or secret, with the right checksum.
            1 => {
                let mut other = random;
                other[chance.usize(..TOKEN_RANDOM)] ^= 1 << chance.u32(..8);
                word = Token::new(&other).expose().into();
            }
            // One letter, with a checksum that is wrong.
            2 => {
                let at = chance.usize(Token::PREFIX.len()..word.len());
                let old = word[at];
                while word[at] == old {
                    word[at] = chance.alphanumeric() as u8;
                }
            }
            // A part of it, or with something behind it.
            _ => match chance.usize(..2 * word.len()) {
                len if len < word.len() => word.truncate(len),
                _ => word.push(chance.alphanumeric() as u8),
            },
        }
        assert_eq!(shows(&word), Err(NotAccepted::Key), "{round}");
        lock(&notes.0).clear();
    }
    assert_eq!(shows(token(2).expose().as_bytes()), Err(NotAccepted::Key), "an expired one");
    assert_eq!(shows(truth.expose().as_bytes()), Ok(()), "the true one");
}

#[test]
fn nothing_that_is_told_or_shown_repeats_a_secret() {
    let shelf = Shelf::default();
    shelf.put(&token(1), "ci", "read", "", None);
    let (service, notes) = service(&shelf, true);
    let truth = token(1);
    let mut other = truth.expose().as_bytes().to_vec();
    other[30] ^= 1;
    let words = [
        truth.expose().as_bytes(),
        &other[..],
        &truth.expose().as_bytes()[..50],
        token(3).expose().as_bytes(),
    ]
    .map(<[u8]>::to_vec);
    for word in words {
        for peer in ["127.0.0.1:1", "10.1.0.1:1", "10.2.0.1:1"] {
            let told = service.authenticate(&caller(peer), &Token::parse(&word));
            let shown = format!("{told:?}");
            assert!(!shown.contains(&truth.expose()[30..40]), "{shown}");
        }
    }
    let notes = lock(&notes.0).join("\n");
    for secret in [&truth.expose()[20..28], &truth.expose()[40..48], &token(3).expose()[20..28]] {
        assert!(!notes.contains(secret), "{notes}");
    }
}

#[test]
fn conduits_password_in_clear_is_refused_from_elsewhere_unless_the_network_is_named() {
    let password = TokenHash::of_password(b"secret");
    let (dir, notes) = (tempfile::tempdir().unwrap(), Notes::default());
    let disk = LocalDisk::new(dir.path(), &[]).unwrap();
    let access = Access::new(Shelf::default(), true, vec!["10.1.0.0/16".parse().unwrap()])
        .with_conduit(password, "read".parse().unwrap());
    let service = Service::new(disk, Forgetful, notes.clone(), access);
    let shown = |peer: &str, is_secured, word: &[u8]| {
        let caller = Caller::new(peer.parse().unwrap(), is_secured);
        service.authenticate_conduit(&caller, Some(TokenHash::of_password(word)))
    };
    assert_eq!(shown("192.0.2.1:7", false, b"secret").unwrap_err(), NotAccepted::Clear);
    assert_eq!(
        shown("192.0.2.1:7", false, b"wrong").unwrap_err(),
        NotAccepted::Clear,
        "it is not even looked at"
    );
    assert_eq!(shown("10.1.2.3:7", false, b"wrong").unwrap_err(), NotAccepted::Key);
    assert_eq!(service.authenticate_conduit(&local(), None).unwrap_err(), NotAccepted::Key);
    for (peer, is_secured) in [
        ("192.0.2.1:7", true),
        ("127.0.0.1:7", false),
        ("[::ffff:127.0.0.1]:7", false),
        ("10.1.2.3:7", false),
    ] {
        let holder = shown(peer, is_secured, b"secret").unwrap();
        assert_eq!(holder.key_name().unwrap().as_str(), "conduit", "{peer}");
        assert_eq!(service.check(&holder, Verb::Get, b"a"), Ok(()));
        assert_eq!(service.check(&holder, Verb::Put, b"a"), Err(Denied::NotAllowed));
        assert!(!service.may_listen(&holder));
    }
    assert_eq!(notes.count("KeyInClear"), 3, "twice refused, and once allowed with a warning");
}
