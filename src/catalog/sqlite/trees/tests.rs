use std::sync::Arc;

use super::super::{FILE, MIGRATIONS, SqliteCatalog};
use super::*;
use crate::catalog::Catalog;
use crate::digest::Md5;
use crate::tree::BLOCK_LEN;

fn identity(inode: u64, blocks: u64) -> Identity {
    Identity { device: u64::MAX, inode, size: blocks * BLOCK_LEN, modified: (100, 5), changed: (101, 6) }
}

fn tree(blocks: u8) -> Arc<Tree> {
    Arc::new(Tree::over((1..=blocks).map(|n| Value::from_bytes([n; HASH_LEN])).collect()).unwrap())
}

fn open(dir: &tempfile::TempDir) -> SqliteCatalog {
    SqliteCatalog::open(dir.path()).unwrap()
}

fn database(dir: &tempfile::TempDir) -> Connection {
    Connection::open(dir.path().join(FILE)).unwrap()
}

#[test]
fn a_tree_is_kept_over_restarts_for_that_version_of_the_file_only() {
    let dir = tempfile::tempdir().unwrap();
    let sole = Arc::new(Tree::sole(Root::of(b"x")));
    let catalog = open(&dir);
    catalog.remember_tree(&identity(1, 5), &tree(5));
    catalog.remember_tree(&identity(2, 1), &sole);
    drop(catalog);
    let catalog = open(&dir);
    let found = catalog.tree(&identity(1, 5)).unwrap();
    assert_eq!((found.root(), found.values()), (tree(5).root(), tree(5).values()));
    assert_eq!(catalog.tree(&identity(2, 1)).unwrap().root(), sole.root());
    for other in [
        identity(3, 5),
        Identity { device: 1, ..identity(1, 5) },
        Identity { size: 5 * BLOCK_LEN - 1, ..identity(1, 5) },
        Identity { modified: (100, 6), ..identity(1, 5) },
        Identity { changed: (102, 6), ..identity(1, 5) },
    ] {
        assert!(catalog.tree(&other).is_none());
    }
    let newer = Identity { modified: (200, 0), ..identity(1, 4) };
    catalog.remember_tree(&newer, &tree(4));
    drop(catalog);
    assert_eq!(open(&dir).tree(&newer).unwrap().root(), tree(4).root());
    assert!(open(&dir).tree(&identity(1, 5)).is_none());
}

#[test]
fn a_catalog_of_the_first_schema_is_taken_over_with_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let old = database(&dir);
    old.execute_batch(MIGRATIONS[0]).unwrap();
    old.execute_batch("CREATE TABLE schema_number (number BIGINT NOT NULL)").unwrap();
    old.execute("INSERT INTO schema_number VALUES (1)", []).unwrap();
    super::super::insert_md5(&old, &identity(1, 5), Md5::of(b"x")).unwrap();
    drop(old);
    let catalog = open(&dir);
    catalog.remember_tree(&identity(1, 5), &tree(5));
    drop(catalog);
    let catalog = open(&dir);
    assert_eq!(catalog.md5(&identity(1, 5)), Some(Md5::of(b"x")));
    assert_eq!(catalog.tree(&identity(1, 5)).unwrap().root(), tree(5).root());
    let number: i64 =
        database(&dir).query_row("SELECT number FROM schema_number", [], |row| row.get(0)).unwrap();
    assert_eq!(usize::try_from(number).unwrap(), MIGRATIONS.len());
}

#[test]
fn a_corrupt_row_is_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(&dir);
    catalog.remember_tree(&identity(1, 5), &tree(5));
    catalog.remember_tree(&identity(2, 1), &Arc::new(Tree::sole(Root::of(b"x"))));
    drop(catalog);
    let four: Vec<u8> = tree(4).values().iter().flat_map(Value::as_bytes).copied().collect();
    for (values, root) in [
        (vec![9; 5 * HASH_LEN], tree(5).root().as_bytes().to_vec()),
        (four, tree(4).root().as_bytes().to_vec()),
        (vec![9; 5 * HASH_LEN - 1], tree(5).root().as_bytes().to_vec()),
        (Vec::new(), tree(5).root().as_bytes().to_vec()),
        (vec![9; 5 * HASH_LEN], vec![9; 3]),
    ] {
        database(&dir)
            .execute("UPDATE tree SET block_values = $1, root = $2", params![values, root])
            .unwrap();
        let catalog = open(&dir);
        assert!(catalog.tree(&identity(1, 5)).is_none());
        if !values.is_empty() {
            assert!(catalog.tree(&identity(2, 1)).is_none());
        }
    }
    let catalog = open(&dir);
    catalog.remember_tree(&identity(1, 5), &tree(5));
    drop(catalog);
    assert!(open(&dir).tree(&identity(1, 5)).is_some(), "a corrupt row is not for ever");
}

#[test]
fn trees_are_bounded_in_rows_and_in_bytes_and_the_oldest_go_first() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    let database = database(&dir);
    let left = || -> (i64, i64) {
        let sql = "SELECT COUNT(*), MIN(inode) FROM tree";
        database.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    for inode in 0..60 {
        insert(&database, &identity(inode, 4), &tree(4)).unwrap();
    }
    database.execute("UPDATE tree SET noted_s = inode", []).unwrap();
    forget_oldest(&database, 60, 60 * bytes(&tree(4))).unwrap();
    assert_eq!(left(), (60, 0));
    forget_oldest(&database, 50, u64::MAX).unwrap();
    assert_eq!(left(), (45, 15));
    forget_oldest(&database, 100, 20 * bytes(&tree(4))).unwrap();
    assert_eq!(left(), (18, 42));
}
