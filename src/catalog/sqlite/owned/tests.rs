use std::path::Path;

use super::*;
use crate::catalog::Catalog;
use crate::catalog::sqlite::SqliteCatalog;
use crate::token::{TOKEN_RANDOM, Token};

fn key(seed: u8) -> KeyId {
    Token::new(&[seed; TOKEN_RANDOM]).id()
}

fn name(text: impl AsRef<[u8]>) -> FileName {
    FileName::parse(text.as_ref()).unwrap()
}

fn stored(text: impl AsRef<[u8]>, by: u8, size: u64) -> OwnedChange {
    OwnedChange::Stored { name: name(text), key: Some(key(by)), size }
}

fn open(dir: &Path) -> SqliteCatalog {
    SqliteCatalog::open(dir).unwrap()
}

fn names(catalog: &SqliteCatalog, by: u8) -> Vec<Vec<u8>> {
    let files = catalog.owned_files(&key(by), b"", 1000).unwrap();
    files.into_iter().map(|file| file.name.as_bytes().to_vec()).collect()
}

#[test]
fn what_a_key_has_stored_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let shifts =
        open(dir.path()).write_owned(&[stored("a", 1, 5), stored("b", 2, 7), stored("c", 1, 0)]).unwrap();
    assert_eq!(shifts.iter().map(|shift| shift.gained).sum::<u64>(), 12);
    let catalog = open(dir.path());
    assert_eq!((catalog.owned_bytes(&key(1)), catalog.owned_bytes(&key(2))), (Ok(5), Ok(7)));
    assert_eq!(catalog.owned_bytes(&key(3)), Ok(0));
    assert_eq!(names(&catalog, 1), [b"a", b"c"]);
    assert_eq!(catalog.owned_files(&key(1), b"a", 1).unwrap().len(), 1, "a page begins behind a name");
}

#[test]
fn who_replaces_a_file_has_it_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    catalog.write_owned(&[stored("a", 1, 5)]).unwrap();
    let shifts = catalog.write_owned(&[stored("a", 2, 8)]).unwrap();
    assert!(shifts.contains(&Shift { key: key(1), gained: 0, lost: 5 }), "{shifts:?}");
    assert_eq!((catalog.owned_bytes(&key(1)), catalog.owned_bytes(&key(2))), (Ok(0), Ok(8)));
    catalog.write_owned(&[OwnedChange::Stored { name: name("a"), key: None, size: 1 }]).unwrap();
    assert_eq!(catalog.owned_bytes(&key(2)), Ok(0), "nobody's file counts for nobody");
}

#[test]
fn a_folder_goes_and_moves_with_all_that_is_beneath_it_and_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let odd = b"d/\xff\xfe'%_\\".as_slice();
    let all = [
        stored("d/a", 1, 1),
        stored("d/b/c", 2, 2),
        stored(odd, 1, 4),
        stored("d", 1, 8),
        stored("d0", 1, 16),
        stored("d.x", 1, 32),
        stored("e/a", 1, 64),
        stored("e2", 1, 128),
    ];
    catalog.write_owned(&all).unwrap();
    let before = catalog.owned_bytes(&key(1)).unwrap();
    let moved = OwnedChange::Renamed { from: name("d"), to: name("e") };
    let shifts = catalog.write_owned(&[moved]).unwrap();
    assert_eq!(shifts, [Shift { key: key(1), gained: 0, lost: 64 }], "what had the new name is gone");
    assert_eq!(catalog.owned_bytes(&key(1)), Ok(before - 64));
    let after: Vec<Vec<u8>> =
        [&b"d.x"[..], b"d0", b"e", b"e/a", b"e/\xff\xfe'%_\\", b"e2"].map(<[u8]>::to_vec).into();
    assert_eq!(names(&catalog, 1), after);
    assert_eq!(names(&catalog, 2), [b"e/b/c"]);
    let same = OwnedChange::Renamed { from: name("e"), to: name("e") };
    assert_eq!(catalog.write_owned(&[same]).unwrap(), [], "a name that stays loses nothing");
    catalog.write_owned(&[OwnedChange::Removed(name("e"))]).unwrap();
    assert_eq!(names(&catalog, 1), [&b"d.x"[..], b"d0", b"e2"]);
    assert_eq!(catalog.owned_bytes(&key(2)), Ok(0));
}

#[test]
fn what_was_stored_again_since_it_was_looked_at_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    catalog.write_owned(&[stored("a", 1, 5)]).unwrap();
    let seen = catalog.owned_files(&key(1), b"", 10).unwrap().remove(0);
    catalog.write_owned(&[stored("a", 1, 5)]).unwrap();
    let gone = OwnedChange::Gone { name: seen.name, serial: seen.serial };
    catalog.write_owned(std::slice::from_ref(&gone)).unwrap();
    assert_eq!(catalog.owned_bytes(&key(1)), Ok(5));
    let seen = catalog.owned_files(&key(1), b"", 10).unwrap().remove(0);
    catalog.write_owned(&[OwnedChange::Gone { name: seen.name, serial: seen.serial }]).unwrap();
    assert_eq!(catalog.owned_bytes(&key(1)), Ok(0));
}

#[test]
fn a_catalog_that_cannot_be_written_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let other = Connection::open(dir.path().join("catalog.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(catalog.write_owned(&[stored("a", 1, 5)]).is_err());
    drop(other);
}
