//! What a user wants of a server, before anything is claimed.

use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Claimed, Server, StartError};
use crate::app::Failure;
use crate::app::received::{OnReceived, Received};
use crate::config::{Conduit, TlsFiles, TlsMode};
use crate::error::Code;
use crate::limits;
use crate::names::STATE_FOLDER;
use crate::server::Settings;
use crate::service::access::Check;
use crate::service::{Asked, Namer, Net, ToName};

/// A server that is yet to be started. Whatever is not said is as for the `server` program.
pub struct ServerBuilder {
    pub(super) root: PathBuf,
    pub(super) state: PathBuf,
    pub(super) hidden: Vec<PathBuf>,
    pub(super) door: Door,
    pub(super) require_key: bool,
    pub(super) plaintext_keys: Vec<Net>,
    pub(super) upload_max: Option<u64>,
    pub(super) hash_ahead: Duration,
    pub(super) staged_age: Duration,
    pub(super) tls: TlsMode,
    pub(super) tls_files: Option<TlsFiles>,
    pub(super) conduit: Option<Conduit>,
    pub(super) settings: Settings,
    pub(super) check: Option<Box<Check>>,
    pub(super) namer: Option<Box<Namer>>,
    pub(super) received: Option<Arc<OnReceived>>,
    pub(super) stopping: CancellationToken,
}

/// Where connections come in.
pub(super) enum Door {
    /// At this address, or at every one; port 0 lets the system pick one.
    Port(Option<IpAddr>, u16),
    /// Here.
    Listener(TcpListener),
}

impl std::fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("root", &self.root)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl ServerBuilder {
    pub(super) fn new(root: PathBuf) -> Self {
        let state = root.join(STATE_FOLDER);
        Self {
            root,
            state,
            hidden: Vec::new(),
            door: Door::Port(None, 0),
            require_key: false,
            plaintext_keys: Vec::new(),
            upload_max: None,
            hash_ahead: limits::HASH_AHEAD,
            staged_age: limits::STAGED_AGE,
            tls: TlsMode::Auto,
            tls_files: None,
            conduit: None,
            settings: Settings::default(),
            check: None,
            namer: None,
            received: None,
            stopping: CancellationToken::new(),
        }
    }

    /// The folder of the server's state: keys, identity and history. One running server each.
    /// Unless it is named, `.oneport` within the folder that is served, where nobody can see it.
    #[must_use]
    pub fn state(self, state: impl Into<PathBuf>) -> Self {
        Self { state: state.into(), ..self }
    }

    /// A folder, or a file, that is never served, also if it lies in the folder that is.
    #[must_use]
    pub fn hide(mut self, path: impl Into<PathBuf>) -> Self {
        self.hidden.push(path.into());
        self
    }

    /// Listens on this port of every address of the machine. Unless one is named, or 0 is, the system picks one.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        let address = if let Door::Port(address, _) = self.door { address } else { None };
        Self { door: Door::Port(address, port), ..self }
    }

    /// Listens on this address only.
    #[must_use]
    pub fn bind(self, address: IpAddr) -> Self {
        let port = if let Door::Port(_, port) = self.door { port } else { 0 };
        Self { door: Door::Port(Some(address), port), ..self }
    }

    /// Takes connections from a listener that exists already, and says nothing of port and address.
    #[must_use]
    pub fn listener(self, listener: TcpListener) -> Self {
        Self { door: Door::Listener(listener), ..self }
    }

    /// Whether nobody may read without a key. To store, remove or rename always takes one.
    #[must_use]
    pub fn require_key(self, require_key: bool) -> Self {
        Self { require_key, ..self }
    }

    /// Networks from which keys may come unencrypted, where others may read them; from this machine they always may.
    #[must_use]
    pub fn plaintext_keys(self, plaintext_keys: Vec<Net>) -> Self {
        Self { plaintext_keys, ..self }
    }

    /// Takes no file of more than `max` bytes; `None` for any.
    #[must_use]
    pub fn upload_max(self, max: Option<u64>) -> Self {
        Self { upload_max: max, ..self }
    }

    /// Hashes files ahead whose MD5 would take longer than this; zero for never.
    #[must_use]
    pub fn hash_ahead(self, threshold: Duration) -> Self {
        Self { hash_ahead: threshold, ..self }
    }

    /// How long the part of an upload is kept that nobody goes on with; zero for ever.
    #[must_use]
    pub fn staged_age(self, age: Duration) -> Self {
        Self { staged_age: age, ..self }
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn tls(self, tls: TlsMode) -> Self {
        Self { tls, ..self }
    }

    /// Shows this certificate instead of one that the server makes itself.
    #[must_use]
    pub fn tls_files(self, files: Option<TlsFiles>) -> Self {
        Self { tls_files: files, ..self }
    }

    /// Serves clients of Conduit as well, to whoever shows their password.
    #[must_use]
    pub fn conduit(self, conduit: Option<Conduit>) -> Self {
        Self { conduit, ..self }
    }

    /// Limits of connections. Whether TLS is demanded is said by [`Self::tls`].
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Asks `check` before anything is done that rights and keys allow. It can forbid and never allow: without a key
    /// nobody stores anything, whatever it says. A refusal is logged, and the client is told that the server does not
    /// allow it.
    ///
    /// It is asked for each request, for each stretch of a listing, and at the end of each block of a transfer, on
    /// the threads that serve all connections: it must not wait for anything. A listing tells the names of files
    /// also where `check` would forbid to read them.
    #[must_use]
    pub fn access_check(self, check: impl Fn(&Asked<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self { check: Some(Box::new(check)), ..self }
    }

    /// Has `make` say under which name each file is stored that comes in, instead of the one that its client has asked
    /// for; the client is told. It is asked when all of a file is here, on a thread that may wait for a disk.
    ///
    /// What it says is parsed like a name that a client asks for, and has to be one that the client's key may store:
    /// else the file is refused. If its names depend on [`ToName::counter`], it is asked again with other numbers until there
    /// is nothing of the name, and nothing is ever replaced. If they do not, a file of that name is replaced where the client
    /// wants that, and is a refusal else. Folders are made as they are asked for.
    #[must_use]
    pub fn name_generator(self, make: impl Fn(&ToName<'_>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { namer: Some(Box::new(make)), ..self }
    }

    /// Calls `told` for each file that was received, when it is on the disk under its name.
    ///
    /// It is called on a thread of its own, for one file after the other, and may take its time: nothing waits for it
    /// but the files behind it. [`RECEIVED_QUEUE_MAX`](limits::RECEIVED_QUEUE_MAX) of them may wait; what does not
    /// fit in is not told of, which is logged. A panic in it is logged, and the next file is told of all the same. At
    /// the end of the server it is called for what still waits, for at most
    /// [`RECEIVED_END_TIMEOUT`](limits::RECEIVED_END_TIMEOUT).
    #[must_use]
    pub fn on_file_received(self, told: impl Fn(&Received) + Send + Sync + 'static) -> Self {
        Self { received: Some(Arc::new(told)), ..self }
    }

    /// Stops when this token is cancelled, as with [`Server::shutdown`].
    #[must_use]
    pub fn stopped_by(self, stopping: CancellationToken) -> Self {
        Self { stopping, ..self }
    }

    /// Claims what the server needs: folders, which are made where they are missing, keys, identity and port. Nothing is
    /// served yet. Blocks.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn claim(self) -> Result<Claimed, StartError> {
        Claimed::new(self)
    }

    /// Claims what the server needs and starts it, in the runtime in which this is called.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(self) -> Result<Server, StartError> {
        let claiming = tokio::task::spawn_blocking(move || self.claim()).await;
        let ended = |aborted| StartError::Runtime(Failure::new(Code::Other, aborted));
        claiming.map_err(ended)??.start().await
    }
}
