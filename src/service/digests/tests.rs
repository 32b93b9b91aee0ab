use std::fs::{self, File};
use std::time::Duration;

use super::*;
use crate::catalog::Forgetful;
use crate::tree::Tree;

fn stored(path: &std::path::Path) -> Arc<StoredFile> {
    Arc::new(StoredFile::new(File::open(path).unwrap()).unwrap().unwrap())
}

fn identity(inode: u64) -> Identity {
    Identity { device: 1, inode, size: 1, modified: (100, 5), changed: (100, 5) }
}

#[tokio::test]
async fn all_who_ask_at_once_share_one_computation() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, vec![7; 3 * HASH_CHUNK + 1]).unwrap();
    let digests = Digests::new(Arc::new(Forgetful));
    let (one, two) = (stored(&path), stored(&path));
    let first = digests.join_or_start(&one, Priority::Now);
    let second = digests.join_or_start(&two, Priority::Ahead);
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(digests.md5(&one, Priority::Now).await.unwrap(), Md5::of(&vec![7; 3 * HASH_CHUNK + 1]));
    assert!(lock(&digests.shared.running).is_empty(), "a finished computation leaves nothing behind");
}

#[tokio::test]
async fn a_computation_that_nobody_waits_for_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let digests = Digests::new(Arc::new(Forgetful));
    let file = stored(&path);
    let waiting = digests.md5(&file, Priority::Now);
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
    tokio::time::timeout(Duration::from_secs(20), async {
        let _all_turns =
            digests.shared.turns.acquire_many(u32::try_from(HASHING_MAX).unwrap()).await.unwrap();
    })
    .await
    .expect("a terabyte that nobody wants any more is still being hashed");
}

#[test]
fn a_file_that_shrinks_or_is_touched_has_no_digest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, vec![1; 1000]).unwrap();
    let file = stored(&path);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
    assert!(matches!(hash(&file, || true), Err(HashError::Changed)));
    let file = stored(&path);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(11).unwrap();
    assert!(matches!(hash(&file, || true), Err(HashError::Changed)));
}

#[test]
fn only_a_file_that_was_quiet_for_two_seconds_is_remembered() {
    let file = Identity { modified: (100, 5), changed: (90, 0), ..identity(1) };
    assert!(!is_settled(&file, (102, 4)));
    assert!(is_settled(&file, (102, 5)));
    let touched = Identity { modified: (90, 0), changed: (100, 5), ..identity(1) };
    assert!(!is_settled(&touched, (102, 4)));
    assert!(is_settled(&touched, (102, 5)));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "fresh").unwrap();
    assert!(!hash(&stored(&path), || true).unwrap().settled);
}

#[tokio::test]
async fn another_version_of_a_file_is_another_memory() {
    let digests = Digests::new(Arc::new(Forgetful));
    lock(&digests.shared.known).remember(identity(1), Md5::of(b"x"), WEIGHT);
    assert_eq!(digests.recall(&identity(1)), Some(Md5::of(b"x")));
    for other in [
        Identity { size: 2, ..identity(1) },
        Identity { modified: (100, 6), ..identity(1) },
        Identity { changed: (100, 6), ..identity(1) },
        Identity { device: 2, ..identity(1) },
    ] {
        assert_eq!(digests.recall(&other), None);
    }
}

/// A catalog that counts.
#[derive(Default, Clone)]
struct Noted(Arc<Mutex<HashMap<Identity, Md5>>>);

impl Catalog for Noted {
    fn md5(&self, identity: &Identity) -> Option<Md5> {
        lock(&self.0).get(identity).copied()
    }

    fn remember_md5(&self, identity: &Identity, md5: Md5) {
        lock(&self.0).insert(*identity, md5);
    }

    fn tree(&self, _: &Identity) -> Option<Tree> {
        None
    }

    fn remember_tree(&self, _: &Identity, _: &Arc<Tree>) {}
}

#[tokio::test]
async fn what_the_catalog_knows_is_not_computed_and_what_is_computed_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "bytes").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(100);
    File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    let file = stored(&path);
    let catalog = Noted::default();
    catalog.remember_md5(file.identity(), Md5::of(b"as noted"));
    let digests = Digests::new(Arc::new(catalog.clone()));
    assert_eq!(digests.md5(&file, Priority::Now).await.unwrap(), Md5::of(b"as noted"));
    assert_eq!(digests.recall(file.identity()), Some(Md5::of(b"as noted")));

    lock(&catalog.0).clear();
    let fresh = Digests::new(Arc::new(catalog.clone()));
    assert_eq!(fresh.md5(&file, Priority::Now).await.unwrap(), Md5::of(b"bytes"));
    assert!(lock(&catalog.0).is_empty(), "its status changed less than two seconds ago");
    assert_eq!(fresh.recall(file.identity()), None);
}
