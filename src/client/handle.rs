//! A client within another program: one server, one set of settings, and calls that move files.
//!
//! Each call goes through the same functions as the `client` program. Dropping the future of a call gives it up, as
//! cancelling the token of [`ClientBuilder::stopped_by`] does; what has arrived over version 2 by then is kept, and gone
//! on with by the next call of the same kind. No signal is caught and nothing is printed here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::known_hosts::KnownHosts;
use super::v2::in_runtime;
use super::{
    Backoff, Entry, Facts, FetchError, Fetched, Listen, Observer, Overwrite, Put, ReceivingObserver,
    Selection, Server, ServerError, Settings, Target, TlsMode, UploadSource, fetch, list, listen, push, put,
    stat,
};
use crate::limits::LISTING_BATCHES;
use crate::names::ReceiverName;
use crate::pin::Pin;
use crate::token::Token;

mod progress;

pub use progress::Progress;
use progress::{Meter, OnProgress};

/// A client of one server. Cheap to clone; it holds no connection between two calls.
///
/// ```no_run
/// use oneport::Client;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::to("nas:8080")?
///     .on_progress(|progress| println!("{}: {:.1} %", progress.name, progress.percent))
///     .build();
/// let fetched = client.get("reports/2026.pdf", "2026.pdf").await?;
/// println!("{} bytes, {}", fetched.size, fetched.digest);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    server: Server,
    settings: Settings,
    observer: Option<Arc<dyn Observer>>,
    progress: Option<Arc<OnProgress>>,
    stopping: CancellationToken,
}

/// What a client is to be. Whatever is not said is as for the `client` program, but for known hosts: unless a file is
/// named, nobody is remembered.
#[derive(Clone)]
pub struct ClientBuilder(Client);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl ClientBuilder {
    /// Shows this key. It leaves this machine only for a server that is pinned, known, or vouched for by an authority.
    #[must_use]
    pub fn key(mut self, key: Token) -> Self {
        self.0.settings.security.key = Some(key);
        self
    }

    /// Speaks only to a server that has the key of this pin, and by TLS.
    #[must_use]
    pub fn pin(mut self, pin: Pin) -> Self {
        self.0.settings.security.pins.push(pin);
        self
    }

    /// When connections are encrypted.
    #[must_use]
    pub fn tls(mut self, tls: TlsMode) -> Self {
        self.0.settings.security.tls = tls;
        self
    }

    /// Remembers the keys of servers in this file, which need not exist.
    #[must_use]
    pub fn known_hosts(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.settings.security.known_hosts = Some(KnownHosts::at(path.into()));
        self
    }

    /// Longest time to connect, and to wait for the next byte.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.settings.timeout = timeout;
        self
    }

    /// Waits between attempts, and how many of them there are.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.0.settings.backoff = backoff;
        self
    }

    /// Connections at once for one file, at most.
    #[must_use]
    pub fn links(mut self, links: u64) -> Self {
        self.0.settings.links = links;
        self
    }

    /// Most bytes of a file per second, over all its connections; `None` for no limit. Below
    /// [`CLIENT_RATE_MIN`](crate::limits::CLIENT_RATE_MIN) servers may take the client for dead.
    #[must_use]
    pub fn limit_rate(mut self, rate: Option<u64>) -> Self {
        self.0.settings.limit_rate = rate;
        self
    }

    /// What happens where the target exists: here for [`Client::get`], on the server for [`Client::put`].
    #[must_use]
    pub fn overwrite(mut self, overwrite: Overwrite) -> Self {
        self.0.settings.overwrite = overwrite;
        self
    }

    /// All settings at once, in place of those that were said before.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.0.settings = settings;
        self
    }

    /// Tells `told` how far each file is: when it begins, about ten times a second, and when all of its bytes were
    /// moved. It is called on the thread that moves the bytes, and must not take long.
    #[must_use]
    pub fn on_progress(mut self, told: impl Fn(&Progress<'_>) + Send + Sync + 'static) -> Self {
        self.0.progress = Some(Arc::new(told));
        self
    }

    /// Tells `observer` of everything that happens.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.0.observer = Some(Arc::new(observer));
        self
    }

    /// Gives every call up when this token is cancelled: it fails with [`FetchError::Interrupted`].
    #[must_use]
    pub fn stopped_by(mut self, stopping: CancellationToken) -> Self {
        self.0.stopping = stopping;
        self
    }

    /// The client.
    #[must_use]
    pub fn build(self) -> Client {
        self.0
    }
}

impl Client {
    /// A client of a server, yet to be built.
    #[must_use]
    pub fn builder(server: Server) -> ClientBuilder {
        ClientBuilder(Self {
            server,
            settings: Settings::default(),
            observer: None,
            progress: None,
            stopping: CancellationToken::new(),
        })
    }

    /// A client of the server with this address: `HOST`, `HOST:PORT`, `[IPV6]:PORT` or `oneport://HOST:PORT#PIN`.
    ///
    /// # Errors
    /// If it is no address.
    pub fn to(address: &str) -> Result<ClientBuilder, ServerError> {
        address.parse().map(Self::builder)
    }

    /// Which server it is.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Fetches the file `name` into the file `path`, whose folders are made. It gets its name when it is whole and verified.
    ///
    /// # Errors
    /// That of the last attempt: see [`fetch`].
    pub async fn get(&self, name: impl AsRef<[u8]>, path: impl Into<PathBuf>) -> Result<Fetched, FetchError> {
        let (call, target) = (self.call(name.as_ref()), Target::File(path.into()));
        let _given_up = call.guard();
        away(move || async move {
            let Call { server, name, settings, meter, stop } = &call;
            fetch(server, name, &target, settings, meter, stop).await
        })
        .await
    }

    /// Stores the local file `path` on the server as `name`. Takes a key with the right to write.
    ///
    /// # Errors
    /// That of the last attempt: see [`put`].
    pub async fn put(&self, path: impl Into<PathBuf>, name: impl AsRef<[u8]>) -> Result<Put, FetchError> {
        let (call, source) = (self.call(name.as_ref()), UploadSource::File(path.into()));
        let _given_up = call.guard();
        away(move || async move {
            let Call { server, name, settings, meter, stop } = &call;
            put(server, &source, name, settings, meter, stop).await
        })
        .await
    }

    /// Sends the local file `path` to whoever listens on the server as `receiver`, who is told that it is called `name` and
    /// decides where it lands. When this returns the receiver has it, whole and on its disk. Takes a key with the right
    /// to push.
    ///
    /// # Errors
    /// That of the last attempt: see [`push`].
    pub async fn push(
        &self,
        receiver: &ReceiverName,
        path: impl Into<PathBuf>,
        name: impl AsRef<[u8]>,
    ) -> Result<Put, FetchError> {
        let (call, source) = (self.call(name.as_ref()), UploadSource::File(path.into()));
        let (receiver, _given_up) = (receiver.clone(), call.guard());
        away(move || async move {
            let Call { server, name, settings, meter, stop } = &call;
            push(server, &receiver, &source, name, settings, meter, stop).await
        })
        .await
    }

    /// Listens on the server, and receives what others send, until the future is dropped or the token of
    /// [`ClientBuilder::stopped_by`] is cancelled; connections that break are made anew. What happens is told to
    /// `receiving`, and how far each file is, to the observer that it gives. Takes a key with the right to push.
    ///
    /// # Errors
    /// What does not pass by itself, or [`FetchError::Interrupted`]: see [`listen`].
    pub async fn listen(
        &self,
        listening: Listen,
        receiving: Arc<dyn ReceivingObserver>,
    ) -> Result<(), FetchError> {
        let call = self.call(listening.name.as_str().as_bytes());
        let _given_up = call.guard();
        away(move || async move {
            let Call { server, settings, meter, stop, .. } = &call;
            listen(server, &listening, settings, meter, &receiving, stop).await
        })
        .await
    }

    /// Asks what a file is. The server may have to read all of it to tell its digest.
    ///
    /// # Errors
    /// That of the last attempt: see [`stat`].
    pub async fn stat(&self, name: impl AsRef<[u8]>) -> Result<Facts, FetchError> {
        let call = self.call(name.as_ref());
        let _given_up = call.guard();
        away(move || async move {
            let Call { server, name, settings, meter, stop } = &call;
            stat(server, name, settings, meter, stop).await
        })
        .await
    }

    /// Lists what is in a folder; an empty name stands for all that the server serves. Entries come in the server's
    /// order. Only a few batches of them are in memory at a time, however many there are: the server waits
    /// until they are taken. To be called within a runtime.
    #[must_use]
    pub fn list(&self, folder: impl AsRef<[u8]>, selection: Selection) -> Listing {
        let (batches, taken) = channel::<Vec<Entry>>(LISTING_BATCHES);
        let call = self.call(folder.as_ref());
        let given_up = call.guard();
        let listing = tokio::spawn(away(move || async move {
            let Call { server, name, settings, meter, stop } = &call;
            list(server, name.as_slice(), &selection, settings, meter, stop, &batches).await
        }));
        Listing { batches: taken, batch: Vec::new().into_iter(), listing: Some(listing), _given_up: given_up }
    }

    fn call(&self, name: &[u8]) -> Call {
        let meter = Meter::new(name, self.progress.clone(), self.observer.clone());
        let (server, settings) = (self.server.clone(), self.settings.clone());
        Call { server, name: name.to_vec(), settings, meter, stop: self.stopping.child_token() }
    }
}

/// All that one call needs.
struct Call {
    server: Server,
    name: Vec<u8>,
    settings: Settings,
    meter: Meter,
    stop: CancellationToken,
}

impl Call {
    /// Gives it up when this is dropped.
    fn guard(&self) -> DropGuard {
        self.stop.clone().drop_guard()
    }
}

/// Does the work of a call on a thread of its own, so that whoever awaits it may be moved from one thread to another.
async fn away<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T, FetchError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, FetchError>>,
{
    match tokio::task::spawn_blocking(move || in_runtime(work())).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_ended) => Err(FetchError::Interrupted),
    }
}

/// What is in a folder, one entry after the other. Dropping it ends the listing.
#[derive(Debug)]
pub struct Listing {
    batches: Receiver<Vec<Entry>>,
    batch: std::vec::IntoIter<Entry>,
    listing: Option<JoinHandle<Result<(), FetchError>>>,
    _given_up: DropGuard,
}

impl Listing {
    /// The next entry; `None` when all were told.
    ///
    /// # Errors
    /// If the listing broke off and no attempt could go on with it: see [`list`]. After that there are no more.
    pub async fn next(&mut self) -> Result<Option<Entry>, FetchError> {
        loop {
            if let Some(entry) = self.batch.next() {
                return Ok(Some(entry));
            }
            if let Some(batch) = self.batches.recv().await {
                self.batch = batch.into_iter();
                continue;
            }
            let Some(listing) = &mut self.listing else { return Ok(None) };
            let ended = listing.await;
            self.listing = None;
            return ended.unwrap_or(Err(FetchError::Interrupted)).map(|()| None);
        }
    }
}
