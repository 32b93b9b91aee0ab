//! What the system does, whichever dialect asks for it.
//!
//! An edge parses a request, asks the service, and streams what it gets. The service decides; it
//! knows neither sockets nor wire formats. What happens is told to one [`Observer`], to which
//! the log listens, and whatever else wants to know.

use std::io;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::digest::Md5;
use crate::limits::SMALL_FILE_MAX;
use crate::names::FileName;
use crate::storage::{OpenError, Storage, StoredFile};

pub(crate) mod digests;
pub mod events;
pub(crate) mod transfer;

pub use events::{Event, Observer};

use digests::{Digests, HashError};
use transfer::Transfer;

/// The rules, over one store. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    storage: Box<dyn Storage>,
    observer: Box<dyn Observer>,
    digests: Digests,
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
}

impl Service {
    /// A service over `storage` and `catalog` that tells `observer` what happens.
    #[must_use]
    pub fn new(storage: impl Storage, catalog: impl Catalog, observer: impl Observer) -> Self {
        let inner = Inner {
            storage: Box::new(storage),
            observer: Box::new(observer),
            digests: Digests::new(catalog),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Tells the observer.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        self.inner.observer.observe(event);
    }

    /// Opens a file for reading.
    pub(crate) async fn open(&self, name: &FileName) -> Result<Source, ServiceError> {
        let (inner, name) = (Arc::clone(&self.inner), name.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let file = inner.storage.open(&name)?;
            if file.size() > SMALL_FILE_MAX {
                return Ok(Source::Large(Arc::new(file)));
            }
            read_small(&file).map_err(OpenError::Unavailable)
        });
        match opened.await {
            Ok(Ok(source)) => Ok(source),
            Ok(Err(OpenError::Unavailable(cause))) => {
                Err(ServiceError::Unavailable(format!("cannot be read now: {cause}")))
            }
            Ok(Err(refused)) => Err(ServiceError::Refused(refused)),
            Err(aborted) => Err(ServiceError::Unavailable(aborted.to_string())),
        }
    }

    /// The MD5 of an open file: remembered, or computed once for all who ask at the same time.
    pub(crate) async fn md5(&self, file: &Arc<StoredFile>) -> Result<Md5, HashError> {
        self.inner.digests.md5(file).await
    }

    /// Begins to account for a transfer.
    pub(crate) fn begin<'a>(
        &'a self,
        peer: std::net::SocketAddr,
        name: &'a FileName,
        size: u64,
    ) -> Transfer<'a> {
        Transfer::begin(self, peer, name, size)
    }
}

fn read_small(file: &StoredFile) -> io::Result<Source> {
    let size = usize::try_from(file.size()).map_err(io::Error::other)?;
    let mut bytes = vec![0; size];
    let mut done = 0;
    while done < size {
        match file.read_at(&mut bytes[done..], done as u64)? {
            0 => return Err(io::Error::other("it became shorter while it was read")),
            count => done += count,
        }
    }
    if !file.is_unchanged()? {
        return Err(io::Error::other("it changed while it was read"));
    }
    let md5 = Md5::of(&bytes);
    Ok(Source::Small { bytes, md5 })
}
