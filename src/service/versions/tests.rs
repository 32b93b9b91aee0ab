use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::catalog::Forgetful;
use crate::catalog::sqlite::SqliteCatalog;
use crate::limits::DIGEST_SETTLED;
use crate::service::{Access, Event, Observer};
use crate::storage::local::LocalDisk;
use crate::tree::BLOCK_LEN;

struct Deaf;

impl Observer for Deaf {
    fn observe(&self, _: &Event<'_>) {}
}

/// A served folder with one file.
struct Site {
    dir: tempfile::TempDir,
    service: Service,
}

impl Site {
    fn with(catalog: impl Catalog, bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), bytes).unwrap();
        let service = Service::new(LocalDisk::new(dir.path(), &[]).unwrap(), catalog, Deaf, Access::open());
        Self { dir, service }
    }

    fn new(bytes: &[u8]) -> Self {
        Self::with(Forgetful, bytes)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("f")
    }

    async fn open(&self, wanted: Option<Token>) -> Arc<Version> {
        self.service.open_version(&permit(), wanted, None, None).await.unwrap()
    }

    fn shared(&self) -> &Shared {
        &self.service.inner.versions.shared
    }

    fn hashed(&self) -> u64 {
        self.shared().hashed.load(Ordering::Relaxed)
    }

    /// Waits until the file has been quiet for as long as the rule says.
    async fn settle(&self) {
        let file = StoredFile::new(File::open(self.path()).unwrap()).unwrap().unwrap();
        while !is_settled(file.identity(), now()) {
            tokio::time::sleep(DIGEST_SETTLED / 20).await;
        }
    }
}

fn permit() -> Permit {
    Permit::unchecked("10.0.0.1:1", "f")
}

fn noise(len: u64) -> Vec<u8> {
    (0..len).map(|at| (at / 7 % 251) as u8).collect()
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

#[test]
fn a_token_is_the_versions_alone_and_stays_what_it_is() {
    let version = Identity { device: 1, inode: 2, size: 3, modified: (4, 5), changed: (6, 7) };
    let others = [
        Identity { device: 9, ..version },
        Identity { inode: 9, ..version },
        Identity { size: 9, ..version },
        Identity { modified: (9, 5), ..version },
        Identity { modified: (4, 9), ..version },
        Identity { changed: (9, 7), ..version },
        Identity { changed: (6, 9), ..version },
    ];
    assert!(others.iter().all(|other| Token::of(other) != Token::of(&version)));
    // Kept over restarts and releases: a client may come back with it.
    assert_eq!(
        Token::of(&version).as_bytes(),
        &blake3::derive_key(
            "oneport 2026 file identity",
            &[1_u64, 2, 3, 4, 5, 6, 7].map(u64::to_be_bytes).concat()
        )[..16]
    );
    assert_eq!(Token::from_bytes(*Token::of(&version).as_bytes()), Some(Token::of(&version)));
    assert_eq!(Token::from_bytes([0; TOKEN_LEN]), None);
}

#[tokio::test]
async fn files_of_one_block_have_their_root_from_the_beginning() {
    for len in [0, 1, SMALL_FILE_MAX, SMALL_FILE_MAX + 1, BLOCK_LEN] {
        let site = Site::new(&noise(len));
        fs::set_permissions(site.path(), Permissions::from_mode(0o4641)).unwrap();
        let version = site.open(None).await;
        assert_eq!(version.tree().unwrap().root(), Root::of(&noise(len)));
        assert_eq!(version.small().map(Bytes::as_ref), (len <= SMALL_FILE_MAX).then_some(&noise(len)[..]));
        assert_eq!((version.size(), version.mode()), (len, 0o641));
        let modified = fs::metadata(site.path()).unwrap().modified().unwrap();
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(version.modified(), (since.as_secs() as i64, since.subsec_nanos()));
        assert!(matches!(version.value(0).await, Err(HashError::NoValue(0))));
        assert_eq!(version.complete().await.unwrap().root(), Root::of(&noise(len)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_ask_share_the_values_and_each_block_is_hashed_once() {
    let bytes = noise(5 * BLOCK_LEN + 17);
    let site = Site::new(&bytes);
    let one = site.open(None).await;
    let two = site.open(Some(one.token())).await;
    assert!(Arc::ptr_eq(&one, &two));
    assert!(one.tree().is_none());
    let asking: Vec<_> = (0..60)
        .map(|n| {
            let version = Arc::clone(if n % 2 == 0 { &one } else { &two });
            tokio::spawn(async move { version.value(n % 3).await.unwrap() })
        })
        .collect();
    for asked in asking {
        asked.await.unwrap();
    }
    assert_eq!(site.hashed(), 3);
    let completing: Vec<_> = (0..8)
        .map(|_| {
            let version = Arc::clone(&one);
            tokio::spawn(async move { version.complete().await.unwrap().root() })
        })
        .collect();
    for root in completing {
        assert_eq!(root.await.unwrap(), Root::of(&bytes));
    }
    assert_eq!(site.hashed(), 6);
    let last = BlockHash::of(bytes.len() as u64, 5, &bytes[5 << 20..]);
    assert_eq!(two.value(5).await.unwrap().as_bytes(), last.as_bytes());
    assert!(matches!(two.value(6).await, Err(HashError::NoValue(6))));
    assert_eq!((site.hashed(), one.tree().unwrap().values().len()), (6, 6));
    assert!(lock(&site.shared().buffers).len() <= BLOCKS_HASHING_MAX);
}

#[tokio::test]
async fn whoever_has_seen_all_values_finds_the_tree() {
    let site = Site::new(&noise(2 * BLOCK_LEN));
    let version = site.open(None).await;
    version.value(1).await.unwrap();
    assert!(version.tree().is_none());
    version.value(0).await.unwrap();
    assert_eq!(version.tree().unwrap().root(), Root::of(&noise(2 * BLOCK_LEN)));
}

#[tokio::test]
async fn a_tree_that_nobody_waits_for_is_given_up() {
    let site = Site::new(b"");
    File::options().write(true).open(site.path()).unwrap().set_len(1 << 40).unwrap();
    let version = site.open(None).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), version.complete()).await.is_err());
    tokio::time::timeout(Duration::from_secs(20), async {
        let all = u32::try_from(BLOCKS_HASHING_MAX).unwrap();
        let _all_turns = site.shared().turns.acquire_many(all).await.unwrap();
        let hashed = site.hashed();
        assert!((1..1000).contains(&hashed), "{hashed} blocks");
    })
    .await
    .unwrap();
    let hashed = site.hashed();
    assert!(tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await.is_err());
    assert_eq!(site.hashed(), hashed, "a terabyte that nobody wants any more is still being hashed");
}

#[tokio::test]
async fn a_block_that_nobody_waits_for_when_its_turn_comes_is_not_hashed() {
    let site = Site::new(&noise(2 * BLOCK_LEN));
    let version = site.open(None).await;
    let all = u32::try_from(BLOCKS_HASHING_MAX).unwrap();
    let turns = Arc::clone(&site.shared().turns);
    let all_turns = turns.acquire_many(all).await.unwrap();
    let waiting = version.value(0);
    assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
    drop(all_turns);
    let _all_turns = turns.acquire_many(all).await.unwrap();
    assert_eq!(site.hashed(), 0);
    drop(_all_turns);
    version.value(0).await.unwrap();
    assert_eq!(site.hashed(), 1);
}

#[tokio::test]
async fn a_file_that_changes_has_no_further_values_and_is_opened_anew() {
    let site = Site::new(&noise(3 * BLOCK_LEN));
    let old = site.open(None).await;
    old.value(0).await.unwrap();
    write_at(&site.path(), 5, b"x");
    let later = std::time::SystemTime::now() + Duration::from_secs(1);
    File::options().write(true).open(site.path()).unwrap().set_modified(later).unwrap();
    assert!(!old.is_unchanged().unwrap());
    assert!(matches!(old.value(1).await, Err(HashError::Changed)));
    assert!(matches!(old.complete().await, Err(HashError::Changed)));
    assert!(old.tree().is_none());
    let new = site.open(Some(old.token())).await;
    assert!(!Arc::ptr_eq(&old, &new));
    assert_ne!(old.token(), new.token());
    let root = new.complete().await.unwrap().root();
    assert_eq!(root, Root::of(&fs::read(site.path()).unwrap()));
    File::options().write(true).open(site.path()).unwrap().set_len(BLOCK_LEN).unwrap();
    let shrunk = site.open(None).await;
    assert_eq!(shrunk.tree().unwrap().root(), Root::of(&fs::read(site.path()).unwrap()));
}

#[tokio::test]
async fn a_replaced_file_is_had_by_its_token_while_it_is_open_and_not_after() {
    for len in [10, 2 * BLOCK_LEN] {
        let site = Site::new(&noise(len));
        let old = site.open(None).await;
        let (token, next) = (old.token(), site.dir.path().join("next"));
        fs::write(&next, b"another").unwrap();
        fs::rename(next, site.path()).unwrap();
        let again = site.open(Some(token)).await;
        assert!(Arc::ptr_eq(&old, &again));
        assert_eq!(again.complete().await.unwrap().root(), Root::of(&noise(len)));
        assert_eq!(site.open(None).await.size(), 7);
        let other = Permit::unchecked("10.0.0.1:1", "g");
        assert!(
            site.service.open_version(&other, Some(token), None, None).await.is_err(),
            "a token opens no other name"
        );
        drop((old, again));
        assert_eq!(site.open(Some(token)).await.size(), 7);
        assert_eq!(site.shared().open.len(), 0, "a closed version leaves nothing behind");
    }
}

#[tokio::test]
async fn only_a_settled_version_is_shared_by_name() {
    let site = Site::new(&noise(2 * BLOCK_LEN));
    let (fresh, other) = (site.open(None).await, site.open(None).await);
    assert!(!Arc::ptr_eq(&fresh, &other), "its bytes may be others by now, with the same times");
    site.settle().await;
    let settled = site.open(None).await;
    assert!(!Arc::ptr_eq(&other, &settled));
    assert!(Arc::ptr_eq(&settled, &site.open(None).await));
    drop((fresh, other));
    assert!(Arc::ptr_eq(&settled, &site.open(Some(settled.token())).await));
}

#[tokio::test]
async fn a_tree_is_remembered_over_restarts_if_the_file_had_settled() {
    let (state, bytes) = (tempfile::tempdir().unwrap(), noise(3 * BLOCK_LEN));
    let catalog = || SqliteCatalog::open(state.path()).unwrap();
    let mut site = Site::with(catalog(), &bytes);
    site.open(None).await.complete().await.unwrap();
    assert!(site.open(None).await.tree().is_none(), "a fresh file may have changed without a trace");
    site.settle().await;
    let version = site.open(None).await;
    version.value(0).await.unwrap();
    drop(version);
    site.open(None).await.complete().await.unwrap();
    let hashed = site.hashed();
    assert_eq!(site.open(None).await.tree().unwrap().root(), Root::of(&bytes));

    // Dropping the service ends its catalog, which writes what waits.
    site.service =
        Service::new(LocalDisk::new(site.dir.path(), &[]).unwrap(), catalog(), Deaf, Access::open());
    assert_eq!(site.open(None).await.tree().unwrap().root(), Root::of(&bytes));
    assert_eq!((hashed, site.hashed()), (7, 0));
    let identity = *site.open(None).await.file().identity();
    assert!(lock(&site.shared().known).recall(&identity).is_some());
}

#[tokio::test]
async fn a_touch_while_it_is_hashed_keeps_a_tree_from_being_remembered() {
    let site = Site::new(&noise(2 * BLOCK_LEN));
    site.settle().await;
    let version = site.open(None).await;
    version.value(0).await.unwrap();
    fs::set_permissions(site.path(), Permissions::from_mode(0o600)).unwrap();
    version.complete().await.unwrap();
    assert!(lock(&site.shared().known).recall(version.file().identity()).is_none());
}

#[tokio::test]
async fn a_file_of_one_block_is_hashed_once_if_it_has_settled() {
    let site = Site::new(&noise(BLOCK_LEN));
    for expected in [1, 2] {
        site.open(None).await;
        assert_eq!(site.hashed(), expected);
    }
    site.settle().await;
    for _ in 0..2 {
        site.open(None).await;
        assert_eq!(site.hashed(), 3);
    }
}

#[tokio::test]
async fn a_file_of_too_many_blocks_is_refused() {
    let largest = BLOCKS_MAX * BLOCK_LEN;
    assert!(check_size(largest).is_ok());
    assert!(matches!(check_size(largest + 1), Err(ServiceError::TooLarge(size)) if size == largest + 1));
    let site = Site::new(b"");
    // Not every file system has room for such a hole.
    if File::options().write(true).open(site.path()).unwrap().set_len(largest + 1).is_ok() {
        let refused = site.service.open_version(&permit(), None, None, None).await;
        assert!(matches!(refused, Err(ServiceError::TooLarge(_))));
    }
}
