//! What the system does, whichever dialect asks for it.
//!
//! An edge parses a request, asks the service, and streams what it gets. The service decides; it
//! knows neither sockets nor wire formats. What happens is told to one [`Observer`], to which
//! the log listens, and whatever else wants to know.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::catalog::Catalog;
use crate::digest::Md5;
use crate::limits::{LISTING_MAX, SMALL_FILE_MAX};
use crate::names::FileName;
use crate::storage::{OpenError, Storage, StoredFile};

pub mod access;
pub(crate) mod accounts;
pub mod address;
mod ahead;
pub(crate) mod attempts;
pub(crate) mod conduits;
pub(crate) mod control;
pub(crate) mod digests;
pub mod events;
pub(crate) mod history;
pub(crate) mod incoming;
pub(crate) mod listing;
pub(crate) mod live;
mod memory;
pub(crate) mod pushes;
mod registry;
pub(crate) mod small;
mod sweep;
pub(crate) mod transfer;
pub(crate) mod uploads;
pub(crate) mod versions;

pub use access::{Access, Asked};
pub use address::Net;
pub use events::{Event, Observer};
pub use history::Dialect;
pub use uploads::{Namer, ToName};

use access::Permit;
use accounts::Accounts;
use conduits::Conduits;
use digests::{Digests, HashError, Priority};
use live::Live;
use pushes::Pushes;
use small::Roots;
use transfer::Transfer;
use uploads::{Busy, Ledger, Uploads, Wholes};
use versions::Versions;

/// The rules, over one store. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Box<dyn Storage>,
    access: Access,
    observer: Box<dyn Observer>,
    catalog: Arc<dyn Catalog>,
    digests: Digests,
    versions: Versions,
    roots: Roots,
    accounts: Accounts,
    uploads: Uploads,
    /// Who listens, and what is on its way to them.
    pushes: Pushes,
    /// Turns to list.
    listings: Arc<Semaphore>,
    /// What the keys have stored.
    ledger: Arc<Ledger>,
    /// Names that somebody stores a file under.
    busy: Busy,
    /// Files that were put as a whole.
    wholes: Wholes,
    /// What is going on.
    live: Arc<Live>,
    /// Those who listen over Conduit.
    conduits: Conduits,
}

/// A file that may be sent.
pub(crate) enum Source {
    /// Read and hashed already, all at one moment.
    Small { bytes: Vec<u8>, md5: Md5 },
    /// Open; its digest is to be asked for.
    Large(Arc<StoredFile>),
}

/// Why there is nothing to send.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// There is no such file for this peer.
    #[error("{0}")]
    Refused(OpenError),
    /// It cannot be told now; asking again may help.
    #[error("{0}")]
    Unavailable(String),
    /// It has more blocks than version 2 can tell apart.
    #[error("it is too large: {0} bytes")]
    TooLarge(u64),
}

impl Service {
    /// A service over `storage` and `catalog` that tells `observer` what happens. `access` says who may
    /// do what.
    #[must_use]
    pub fn new(
        storage: impl Storage,
        catalog: impl Catalog,
        observer: impl Observer,
        access: Access,
    ) -> Self {
        let catalog: Arc<dyn Catalog> = Arc::new(catalog);
        let inner = Inner {
            storage: Box::new(storage),
            access,
            observer: Box::new(observer),
            digests: Digests::new(Arc::clone(&catalog)),
            ledger: Ledger::new(Arc::clone(&catalog)),
            versions: Versions::new(Arc::clone(&catalog)),
            catalog,
            roots: Roots::default(),
            accounts: Accounts::default(),
            uploads: Uploads::default(),
            pushes: Pushes::default(),
            listings: Arc::new(Semaphore::new(LISTING_MAX)),
            busy: Busy::default(),
            wholes: Wholes::default(),
            live: Live::new(),
            conduits: Conduits::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Tells the observer.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        self.inner.live.counts.hear(event);
        self.inner.observer.observe(event);
    }

    /// What is going on.
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.inner.live
    }

    /// Opens a file for reading: at once if everything is in memory, else off the async threads.
    pub(crate) async fn open(&self, permit: &Permit) -> Result<Source, ServiceError> {
        self.open_for_nobody(permit.name()).await
    }

    /// Opens a file for the server's own use.
    async fn open_for_nobody(&self, name: &FileName) -> Result<Source, ServiceError> {
        match self.inner.open_now(name) {
            Some(told) => told.map_err(ServiceError::from),
            None => {
                let (inner, name) = (Arc::clone(&self.inner), name.clone());
                let opened = tokio::task::spawn_blocking(move || inner.open(&name));
                opened
                    .await
                    .map_err(|aborted| ServiceError::Unavailable(aborted.to_string()))?
                    .map_err(Into::into)
            }
        }
    }

    /// The MD5 of an open file: remembered, or computed once for all who ask at the same time.
    pub(crate) async fn md5(&self, file: &Arc<StoredFile>) -> Result<Md5, HashError> {
        self.inner.digests.md5(file, Priority::Now).await
    }

    /// Begins to account for a transfer.
    pub(crate) fn begin<'a>(&'a self, permit: &'a Permit, size: u64) -> Transfer<'a> {
        Transfer::begin(self, permit.caller(), permit.name(), size)
    }
}

impl Inner {
    fn open(&self, name: &FileName) -> Result<Source, OpenError> {
        let file = self.storage.open(name)?;
        if file.size() > SMALL_FILE_MAX {
            return Ok(Source::Large(Arc::new(file)));
        }
        let read = |bytes: &mut [u8], offset| file.read_at(bytes, offset).map(Some);
        read_whole(&file, read)
            .and_then(|whole| whole.ok_or_else(cold))
            .map(small)
            .map_err(OpenError::Unavailable)
    }

    /// As [`Self::open`], but `None` where a disk would have to be waited for.
    fn open_now(&self, name: &FileName) -> Option<Result<Source, OpenError>> {
        let file = match self.storage.open_now(name)? {
            Ok(file) => file,
            Err(error) => return Some(Err(error)),
        };
        if file.size() > SMALL_FILE_MAX {
            return Some(Ok(Source::Large(Arc::new(file))));
        }
        let read = |bytes: &mut [u8], offset| file.read_now(bytes, offset);
        read_whole(&file, read).map(|whole| whole.map(small)).map_err(OpenError::Unavailable).transpose()
    }
}

impl From<OpenError> for ServiceError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unavailable(cause) => Self::Unavailable(format!("cannot be read now: {cause}")),
            refused => Self::Refused(refused),
        }
    }
}

fn cold() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

fn small(bytes: Vec<u8>) -> Source {
    let md5 = Md5::of(&bytes);
    Source::Small { bytes, md5 }
}

/// Reads a whole small file; `None` if `read` says that it would have to wait.
fn read_whole(
    file: &StoredFile,
    read: impl Fn(&mut [u8], u64) -> io::Result<Option<usize>>,
) -> io::Result<Option<Vec<u8>>> {
    let size = usize::try_from(file.size()).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    let mut done = 0;
    while done < size {
        match read(&mut bytes[done..], done as u64)? {
            None => return Ok(None),
            Some(0) => return Err(io::Error::other("it became shorter while it was read")),
            Some(count) => done += count,
        }
    }
    if !file.is_unchanged()? {
        return Err(io::Error::other("it changed while it was read"));
    }
    Ok(Some(bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
