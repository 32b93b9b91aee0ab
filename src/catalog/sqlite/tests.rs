use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn identity(inode: u64) -> Identity {
    Identity { device: u64::MAX, inode, size: 7, modified: (100, 5), changed: (101, 6) }
}

fn digest() -> Md5 {
    Md5::of(b"x")
}

#[test]
fn a_digest_is_kept_over_restarts_for_that_version_of_the_file_only() {
    let dir = tempfile::tempdir().unwrap();
    SqliteCatalog::open(dir.path()).unwrap().remember_md5(&identity(1), digest());
    let catalog = SqliteCatalog::open(dir.path()).unwrap();
    assert_eq!(catalog.md5(&identity(1)), Some(digest()));
    for other in [
        identity(2),
        Identity { device: 1, ..identity(1) },
        Identity { size: 8, ..identity(1) },
        Identity { modified: (100, 6), ..identity(1) },
        Identity { changed: (102, 6), ..identity(1) },
    ] {
        assert_eq!(catalog.md5(&other), None);
    }
    let newer = Identity { modified: (200, 0), ..identity(1) };
    catalog.remember_md5(&newer, Md5::of(b"y"));
    drop(catalog);
    let catalog = SqliteCatalog::open(dir.path()).unwrap();
    assert_eq!(catalog.md5(&newer), Some(Md5::of(b"y")));
    assert_eq!(catalog.md5(&identity(1)), None);
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    SqliteCatalog::open(dir.path()).unwrap().remember_md5(&identity(1), digest());
    let path = dir.path().join(FILE);
    Connection::open(&path).unwrap().execute("UPDATE schema_number SET number = 99", []).unwrap();
    let Err(error) = SqliteCatalog::open(dir.path()) else { panic!("a newer schema was opened") };
    assert!(error.to_string().contains("newer oneport (schema 99"), "{error}");
    let number: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT number FROM schema_number", [], |row| row.get(0))
        .unwrap();
    assert_eq!(number, 99);
}

#[test]
fn a_corrupt_catalog_knows_nothing_and_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), b"this is not a database, it is much too short a text").unwrap();
    let catalog = SqliteCatalog::open(dir.path()).unwrap();
    catalog.remember_md5(&identity(1), digest());
    assert_eq!(catalog.md5(&identity(1)), None);
}

#[test]
fn a_locked_catalog_is_waited_for_once_and_then_left_alone_and_used_again_later() {
    let dir = tempfile::tempdir().unwrap();
    drop(SqliteCatalog::open(dir.path()).unwrap());
    let other = Connection::open(dir.path().join(FILE)).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut handle = Handle { path: dir.path().join(FILE), state: State::Closed { retry: Instant::now() } };
    let batch = [Note::Md5(identity(1), digest())];
    assert_eq!(handle.with(|connection| write_batch(connection, &batch)), None);
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(handle.with(|connection| write_batch(connection, &batch)), None);
    }
    assert!(began.elapsed() < CATALOG_BUSY_TIMEOUT, "each call waited for the lock anew");
    other.execute_batch("COMMIT").unwrap();
    handle.state = State::Closed { retry: Instant::now() };
    assert_eq!(handle.with(|connection| write_batch(connection, &batch)), Some(()));
    assert_eq!(SqliteCatalog::open(dir.path()).unwrap().md5(&identity(1)), Some(digest()));
}

#[test]
fn a_reader_does_not_wait_for_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    SqliteCatalog::open(dir.path()).unwrap().remember_md5(&identity(1), digest());
    let catalog = SqliteCatalog::open(dir.path()).unwrap();
    let other = Connection::open(dir.path().join(FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(catalog.md5(&identity(1)), Some(digest()));
}

#[test]
fn a_deleted_or_replaced_catalog_does_not_stop_anything() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = SqliteCatalog::open(dir.path()).unwrap();
    catalog.remember_md5(&identity(1), digest());
    assert_eq!(catalog.md5(&identity(9)), None);
    for entry in fs::read_dir(dir.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    catalog.remember_md5(&identity(2), digest());
    let _ = catalog.md5(&identity(1));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    catalog.remember_md5(&identity(3), digest());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn the_number_of_rows_is_bounded_and_the_oldest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = SqliteCatalog::open(dir.path()).unwrap();
    let batch: Vec<Note> = (0..60).map(|inode| Note::Md5(identity(inode), digest())).collect();
    let left = catalog
        .reader
        .lock()
        .unwrap()
        .with(|connection| {
            write_batch(connection, &batch)?;
            connection.execute("UPDATE md5 SET noted_s = inode", [])?;
            forget_oldest(connection, 50)?;
            connection.query_row("SELECT COUNT(*), MIN(inode) FROM md5", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
        })
        .unwrap();
    assert_eq!(left, (45, 15));
}
