//! What the tests of uploads have in common: a service over a folder and a catalog, and a key.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use jiff::Timestamp;

use crate::catalog::sqlite::SqliteCatalog;
use crate::catalog::{Catalog, CatalogError, OwnedChange, OwnedFile, Shift};
use crate::digest::Md5;
use crate::keys::{Key, KeyStore, KeysError};
use crate::rights::{Grant, Verb};
use crate::service::access::{Caller, Permit};
use crate::service::uploads::{Stored, UploadError, WholeFile};
use crate::service::{Access, Event, Observer, Service};
use crate::storage::Identity;
use crate::storage::local::LocalDisk;
use crate::token::{KeyId, TOKEN_RANDOM, Token};
use crate::tree::{Root, Tree};
use std::sync::Arc;

pub(super) const TIME: (i64, u32) = (1_234_567_890, 5);

struct Deaf;

impl Observer for Deaf {
    fn observe(&self, _: &Event<'_>) {}
}

struct Shelf(HashMap<KeyId, Arc<Key>>);

impl KeyStore for Shelf {
    fn find(&self, id: &KeyId) -> Result<Option<Arc<Key>>, KeysError> {
        Ok(self.0.get(id).cloned())
    }
}

/// A catalog whose last part can be broken.
#[derive(Clone)]
pub(super) struct Fragile(pub(super) Arc<SqliteCatalog>, pub(super) Arc<Mutex<bool>>);

impl Fragile {
    fn check(&self) -> Result<(), CatalogError> {
        if *self.1.lock().unwrap() { Err(CatalogError("it is broken".to_owned())) } else { Ok(()) }
    }
}

impl Catalog for Fragile {
    fn md5(&self, identity: &Identity) -> Option<Md5> {
        self.0.md5(identity)
    }

    fn remember_md5(&self, identity: &Identity, md5: Md5) {
        self.0.remember_md5(identity, md5);
    }

    fn tree(&self, identity: &Identity) -> Option<Tree> {
        self.0.tree(identity)
    }

    fn remember_tree(&self, identity: &Identity, tree: &Arc<Tree>) {
        self.0.remember_tree(identity, tree);
    }

    fn write_owned(&self, changes: &[OwnedChange]) -> Result<Vec<Shift>, CatalogError> {
        self.check()?;
        self.0.write_owned(changes)
    }

    fn owned_bytes(&self, key: &KeyId) -> Result<u64, CatalogError> {
        self.check()?;
        self.0.owned_bytes(key)
    }

    fn owned_files(&self, key: &KeyId, after: &[u8], count: usize) -> Result<Vec<OwnedFile>, CatalogError> {
        self.check()?;
        self.0.owned_files(key, after, count)
    }
}

pub(super) struct Site {
    pub(super) root: tempfile::TempDir,
    pub(super) catalog: Fragile,
    pub(super) service: Service,
    callers: Vec<Caller>,
    pub(super) keys: Vec<KeyId>,
    _state: tempfile::TempDir,
}

impl Site {
    /// With a key for each quota, and this limit of size.
    pub(super) fn new(quotas: &[Option<u64>], max: Option<u64>) -> Self {
        Self::with(quotas, |access| access.with_upload_max(max))
    }

    /// With a key for each quota, and this besides.
    pub(super) fn with(quotas: &[Option<u64>], more: impl FnOnce(Access) -> Access) -> Self {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let catalog = Fragile(Arc::new(SqliteCatalog::open(state.path()).unwrap()), Arc::default());
        let tokens: Vec<Token> =
            (1..).zip(quotas).map(|(seed, _)| Token::new(&[seed; TOKEN_RANDOM])).collect();
        let keys = tokens.iter().zip(quotas).map(|(token, &quota)| {
            let grant = Grant { rights: "write,delete".parse().unwrap(), prefix: Box::default() };
            let (id, hash, created) = (token.id(), token.hash(), Timestamp::UNIX_EPOCH);
            let key = Key { id, name: "a".parse().unwrap(), hash, grant, created, expires: None, quota };
            (id, Arc::new(key))
        });
        let access = more(Access::new(Shelf(keys.collect()), false, Vec::new()));
        let disk = LocalDisk::new(root.path(), &[]).unwrap();
        let service = Service::new(disk, catalog.clone(), Deaf, access);
        let local = Caller::new("127.0.0.1:7".parse().unwrap(), false);
        let callers =
            tokens.iter().map(|token| service.authenticate(&local, &Ok(token.clone())).unwrap()).collect();
        let keys = tokens.iter().map(Token::id).collect();
        Self { root, catalog, service, callers, keys, _state: state }
    }

    pub(super) fn permit_of(&self, key: usize, name: &str) -> Permit {
        self.service.permit(&self.callers[key], Verb::Put, name.as_bytes()).unwrap()
    }

    pub(super) fn permit(&self, name: &str) -> Permit {
        self.permit_of(0, name)
    }

    pub(super) fn path(&self) -> &Path {
        self.root.path()
    }

    pub(super) async fn store(&self, name: &str, file: WholeFile) -> Result<Stored, UploadError> {
        self.store_as(0, name, file).await
    }

    pub(super) async fn store_as(
        &self,
        key: usize,
        name: &str,
        file: WholeFile,
    ) -> Result<Stored, UploadError> {
        let room = self.service.room(file.bytes.len() as u64).await;
        self.service.store_whole(&self.permit_of(key, name), file, room).await
    }

    /// What counts for the first key, and how much of that is reserved.
    pub(super) fn sums(&self) -> (u64, u64) {
        self.service.inner.ledger.sums(&self.keys[0]).unwrap_or_default()
    }
}

pub(super) fn file(bytes: impl AsRef<[u8]>) -> WholeFile {
    let bytes = bytes.as_ref().to_vec();
    let root = Root::of(&bytes);
    WholeFile { replace: false, unless_same: false, modified: TIME, mode: 0o640, root, bytes }
}

pub(super) fn names_in(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
