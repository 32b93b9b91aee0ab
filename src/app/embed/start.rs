//! From what is wanted to a running server, and from there to its end.
//!
//! 1. [`Claimed::new`] claims folders, keys, identity and port: what fails so far is the user's business.
//! 2. [`Claimed::start`] opens the catalog, makes the service, and spawns the task that serves and what goes on beside it.
//! 3. That task ends when the last connection has, everybody was told of what was received, and nobody works on the
//!    store any more; then it gives the state folder free.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::process::{Resource, getrlimit};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::builder::Door;
use super::{Server, ServerBuilder, StartError, Stopped, Tls};
use crate::app::address::Address;
use crate::app::audit::Audit;
use crate::app::owner::{Noted, Owner};
use crate::app::received::{Received, Tell};
use crate::app::{Failure, folders, identity, keys};
use crate::catalog::sqlite::SqliteCatalog;
use crate::config::TlsMode;
use crate::digest::Digest;
use crate::error::{Code, in_words};
use crate::keys::{KeyFile, read_password};
use crate::limits::{RECEIVED_END_TIMEOUT, SERVICE_END_TIMEOUT};
use crate::pin::Pin;
use crate::server::{self, listener};
use crate::service::{Access, Event, Observer, Service};
use crate::storage::local::LocalDisk;
use crate::tls::{Identity, Serving};

/// Name of the folder of the state where files lie that are on their way to those who listen.
const PUSHED_FOLDER: &str = "push";

/// A server that has all it needs and does not serve yet. What it has claimed is given back when it is dropped.
pub struct Claimed {
    builder: ServerBuilder,
    listener: TcpListener,
    address: SocketAddr,
    disk: LocalDisk,
    access: Access,
    identity: Option<Identity>,
    lock: File,
}

impl Claimed {
    pub(super) fn new(builder: ServerBuilder) -> Result<Self, StartError> {
        folders::prepare_root(&builder.root).map_err(StartError::Root)?;
        let hidden: Vec<&Path> =
            [&builder.state].into_iter().chain(&builder.hidden).map(PathBuf::as_path).collect();
        let unserved = |error| StartError::Root(folders::cannot_serve(&builder.root, &error));
        let disk = LocalDisk::new(&builder.root, &hidden).map_err(unserved)?;
        // Others are told of paths, and the program may go to another folder meanwhile.
        let root = std::path::absolute(&builder.root).map_err(unserved)?;
        let lock = folders::claim_state(&builder.state).map_err(StartError::State)?;
        let disk = disk
            .with_pushed(&builder.state.join(PUSHED_FOLDER))
            .map_err(|error| StartError::State(folders::cannot_use(&builder.state, &error)))?;
        let keys = KeyFile::new(&builder.state);
        keys.check().map_err(|error| StartError::Keys(Failure::new(error.code(), error)))?;
        let access = Access::new(keys, builder.require_key, builder.plaintext_keys.clone())
            .with_upload_max(builder.upload_max);
        let access = with_conduit(access, &builder).map_err(StartError::Keys)?;
        let identity = identity::load(builder.tls, builder.tls_files.as_ref(), &builder.state)
            .map_err(StartError::Identity)?;
        let listener = listen(&builder.door)?;
        let address = listener.local_addr().map_err(|error| cannot_tell(&error))?;
        Ok(Self {
            builder: ServerBuilder { root, ..builder },
            listener,
            address,
            disk,
            access,
            identity,
            lock,
        })
    }

    /// Where it is going to listen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// By what clients will tell it from others; none if it does not speak TLS.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        self.identity.as_ref().map(Identity::pin)
    }

    /// As [`ServerBuilder::on_file_received`].
    #[must_use]
    pub fn on_file_received(mut self, told: impl Fn(&Received) + Send + Sync + 'static) -> Self {
        self.builder = self.builder.on_file_received(told);
        self
    }

    /// Starts it, in the runtime in which this is called.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self) -> Result<Server, StartError> {
        let Self { builder, listener, address, disk, access, identity, lock } = self;
        let ServerBuilder { root, state, check, namer, received, stopping, .. } = builder;
        let pin = identity.as_ref().map(Identity::pin);
        let serving = identity.as_ref().map(Serving::new).transpose();
        let tls = serving.map_err(|error| StartError::Identity(Failure::new(Code::LocalIo, error)))?;
        let catalog = open_catalog(state.clone()).await?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| cannot_tell(&error))?;
        let mut settings = builder.settings;
        settings.require_tls = builder.tls == TlsMode::Require;
        fit_descriptors(&mut settings);
        let token = keys::new_token().map_err(StartError::Keys)?;
        let mut access = access.with_owner(&token);
        if let Some(check) = check {
            access = access.with_check(check);
        }
        if let Some(namer) = namer {
            access = access.with_names(namer);
        }
        let (audit, gone) = (Arc::new(Audit::new()), CancellationToken::new());
        let (tell, telling) = received.map(Tell::start).unzip();
        let told =
            Told { audit: Arc::clone(&audit), tell, root: root.clone(), _gone: gone.clone().drop_guard() };
        let service = Service::new(disk, catalog, told, access);
        Address { port: address.port(), pin }.note(&state);
        let noted = Owner { address, pin, token }.note(&state);
        announce(address, &root);
        let beside = TaskTracker::new();
        if !builder.staged_age.is_zero() {
            let (service, stopping, age) = (service.clone(), stopping.clone(), builder.staged_age);
            beside.spawn(async move { service.sweep(age, stopping).await });
        }
        if !builder.hash_ahead.is_zero() {
            let (service, stopping, threshold) = (service.clone(), stopping.clone(), builder.hash_ahead);
            beside.spawn(async move { service.hash_ahead(threshold, stopping).await });
        }
        let run = Run { audit, beside, gone, telling, _noted: noted, _lock: lock };
        let (own, stop) = (tls.clone(), stopping.clone());
        // As a task, not here: it accepts on the thread that hears of a connection then, and the connection
        // goes on there.
        let serving = tokio::spawn(run.serve(listener, service, settings, own, stop));
        let _stop = stopping.clone().drop_guard();
        Ok(Server { address, pin, state, stopping, tls: tls.map(Tls), serving, _stop })
    }
}

/// What a running server has besides the service.
struct Run {
    audit: Arc<Audit>,
    beside: TaskTracker,
    /// Cancelled when nobody has the service any more.
    gone: CancellationToken,
    telling: Option<JoinHandle<()>>,
    _noted: Option<Noted>,
    _lock: File,
}

impl Run {
    /// Serves to the end.
    async fn serve(
        self,
        listener: tokio::net::TcpListener,
        service: Service,
        settings: server::Settings,
        tls: Option<Serving>,
        stopping: CancellationToken,
    ) -> Stopped {
        let drain = settings.drain_timeout;
        let drained = server::run(listener, service, settings, tls, &*self.audit, stopping).await;
        if !drained {
            warn!("Transfers that had not ended after {drain:?} were cut (--drain-timeout)");
        }
        self.beside.close();
        // Whatever still blocks only reads: nothing is lost by not waiting for it any longer.
        let _ =
            timeout(SERVICE_END_TIMEOUT, async { tokio::join!(self.beside.wait(), self.gone.cancelled()) })
                .await;
        if let Some(telling) = self.telling
            && timeout(RECEIVED_END_TIMEOUT, telling).await.is_err()
        {
            warn!(event = "not-told", "Of some files that were received nobody was told: the server ends");
        }
        self.audit.summarize();
        Stopped { drained }
    }
}

/// Hears what happens, for the log and for whoever wants to know of files.
struct Told {
    audit: Arc<Audit>,
    tell: Option<Tell>,
    root: PathBuf,
    _gone: DropGuard,
}

impl Observer for Told {
    fn observe(&self, event: &Event<'_>) {
        self.audit.observe(event);
        let Some(tell) = &self.tell else { return };
        // What goes on to somebody who listens is received there.
        if let Event::Stored { peer, dialect, key, name, size, root, .. }
        | Event::Taken { peer, dialect, key, name, size, root } = *event
            && !name.is_pushed()
        {
            tell.tell(Received {
                path: self.root.join(OsStr::from_bytes(name.as_bytes())),
                name: name.clone(),
                size,
                digest: Digest::Blake3(root),
                key: key.cloned(),
                peer: Some(peer),
                dialect: dialect.name(),
                time: SystemTime::now(),
            });
        }
    }
}

/// Lets whoever shows Conduit's password in, if there is to be one.
fn with_conduit(access: Access, builder: &ServerBuilder) -> Result<Access, Failure> {
    let Some(conduit) = &builder.conduit else { return Ok(access) };
    let password = read_password(&conduit.password).map_err(|error| {
        Failure::new(error.code(), format!("{error} (chosen by --conduit-password-file)"))
    })?;
    let is_served =
        |path: &Path| Some(path.canonicalize().ok()?.starts_with(builder.root.canonicalize().ok()?));
    if is_served(&conduit.password) == Some(true) {
        let (password, root) = (conduit.password.display(), builder.root.display());
        let text = format!(
            "the password in {password} is in the folder that is served, {root}; put it elsewhere \
             (--conduit-password-file)"
        );
        return Err(Failure::new(Code::NotAllowed, text));
    }
    Ok(access.with_conduit(password, conduit.allow))
}

async fn open_catalog(state: PathBuf) -> Result<SqliteCatalog, StartError> {
    let opening = tokio::task::spawn_blocking(move || SqliteCatalog::open(&state)).await;
    let opened = opening.map_err(|aborted| StartError::Runtime(Failure::new(Code::Other, aborted)))?;
    opened.map_err(|newer| StartError::Catalog(Failure::new(Code::LocalIo, newer)))
}

fn announce(address: SocketAddr, root: &Path) {
    let root = crate::text::logged(root.as_os_str().as_encoded_bytes()).to_string();
    let version = env!("CARGO_PKG_VERSION");
    info!(event = "listening", %address, %root, "oneport {version} listening on {address}, serving {root}");
}

fn listen(door: &Door) -> Result<TcpListener, StartError> {
    match door {
        Door::Port(address, port) => {
            listener::bind(*address, *port).map_err(|error| cannot_listen(*address, *port, &error))
        }
        Door::Listener(listener) => {
            let own = listener.try_clone().map_err(|error| cannot_tell(&error))?;
            own.set_nonblocking(true).map_err(|error| cannot_tell(&error))?;
            Ok(own)
        }
    }
}

fn cannot_tell(error: &io::Error) -> StartError {
    StartError::Listen(Failure::new(Code::Connect, format!("cannot listen: {}", in_words(error))))
}

fn cannot_listen(address: Option<IpAddr>, port: u16, error: &io::Error) -> StartError {
    let place = match address {
        Some(address) => SocketAddr::new(address, port).to_string(),
        None => format!("port {port}"),
    };
    let failure = match error.kind() {
        io::ErrorKind::AddrInUse => Failure::new(
            Code::Connect,
            format!(
                "cannot listen on {place}: another program uses it; stop that program or choose another port"
            ),
        ),
        io::ErrorKind::PermissionDenied => Failure::new(
            Code::NotAllowed,
            format!("cannot listen on {place}: permission denied; choose a port above 1023"),
        ),
        io::ErrorKind::AddrNotAvailable => Failure::new(
            Code::Connect,
            format!("cannot listen on {place}: this machine has no such address; check --bind"),
        ),
        _ => Failure::new(
            Code::Connect,
            format!("cannot listen on {place}: {}; check --bind and the port", in_words(error)),
        ),
    };
    StartError::Listen(failure)
}

/// Lowers the number of connections if there are too few descriptors for them.
fn fit_descriptors(settings: &mut server::Settings) {
    /// Descriptors of one connection: its socket and its file.
    const EACH: u64 = 2;
    /// Descriptors of everything else: the log, the state, the runtime, folders being walked.
    const RESERVED: u64 = 64;
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return };
    let places = usize::try_from(descriptors.saturating_sub(RESERVED) / EACH).unwrap_or(usize::MAX).max(1);
    if places < settings.connections_max {
        info!(
            "At most {places} connections at once: only {descriptors} files may be open \
             (raise the limit with ulimit -n)"
        );
        settings.connections_max = places;
    }
}
