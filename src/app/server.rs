//! The server program, from its arguments to its exit status.
//!
//! 1. Ctrl+C is caught before anything else; the configuration is read.
//! 2. The root, the state folder, the identity and the port are claimed; what fails so far is said once, on
//!    standard error. Then the log is opened, and all further trouble is told there.
//! 3. The port is printed; connections are served until a signal says stop. SIGHUP reads the identity again,
//!    unless it says that the terminal is gone.
//! 4. Running transfers end within the drain timeout; the summary is logged; the log is closed.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::address::Address;
use super::audit::Audit;
use super::hangup::Terminal;
use super::owner::Owner;
use super::{Failure, exit_code, fail, folders, identity, is_hangup_ignored};
use crate::catalog::sqlite::SqliteCatalog;
use crate::config::{self, Config, ConfigError, LogFormat, Task};
use crate::error::{Code, EXIT_INTERRUPTED, in_words};
use crate::keys::{KeyFile, read_password};
use crate::limits::{BLOCKING_THREADS, DESCRIPTORS_MIN, RUNTIME_STOP_TIMEOUT};
use crate::logging::{self, Logging};
use crate::pin::Pin;
use crate::server::{self, listener};
use crate::service::{Access, Observer, Service};
use crate::storage::local::LocalDisk;
use crate::tls::{Identity, Serving};
use crate::token::Token;

/// Runs the server with these arguments (the first is the program's name) and says how it ended.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let stopping = CancellationToken::new();
    let result = catch_interrupts(stopping.clone()).and_then(|()| match config::load(arguments) {
        Ok(Task::Serve(config)) => run(*config, stopping.clone()),
        Ok(Task::Key(task)) => super::keys::run(task),
        Ok(Task::Control(task)) => super::control::run(&task, &stopping),
        Err(ConfigError::Arguments(error)) => {
            // Help and version are errors to clap, but of status 0 and for standard output.
            let _ = error.print();
            std::process::exit(error.exit_code());
        }
        Err(error) => Err(Failure::new(Code::Usage, error).into()),
    });
    match result {
        Ok(code) => code,
        Err(error) => fail("server", &error),
    }
}

/// The first Ctrl+C stops, the second ends the program at once.
fn catch_interrupts(stopping: CancellationToken) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        if stopping.is_cancelled() {
            std::process::exit(EXIT_INTERRUPTED.into());
        }
        stopping.cancel();
    })
    .context("cannot catch Ctrl+C")
}

fn run(config: Config, stopping: CancellationToken) -> anyhow::Result<ExitCode> {
    raise_descriptors()?;
    folders::prepare_root(&config.root)?;
    let disk = LocalDisk::new(&config.root, &[&config.state, &config.log.dir])
        .map_err(|error| folders::cannot_serve(&config.root, &error))?;
    let _state = folders::claim_state(&config.state)?;
    let keys = KeyFile::new(&config.state);
    keys.check().map_err(|error| Failure::new(error.code(), error))?;
    let identity = identity::load(&config)?;
    let access = access(&config, keys)?;
    let listener =
        listener::bind(config.bind, config.port).map_err(|error| cannot_listen(&config, &error))?;
    let logging = start_log(&config)?;
    let code = match serve(&config, disk, access, listener, identity.as_ref(), stopping) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            exit_code(&error)
        }
    };
    logging.close();
    Ok(code)
}

/// Who may do what.
fn access(config: &Config, keys: KeyFile) -> Result<Access, Failure> {
    let access = Access::new(keys, config.require_key, config.plaintext_keys.clone())
        .with_upload_max(config.upload_max);
    let Some(conduit) = &config.conduit else { return Ok(access) };
    let password = read_password(&conduit.password).map_err(|error| {
        Failure::new(error.code(), format!("{error} (chosen by --conduit-password-file)"))
    })?;
    let is_served =
        |path: &Path| Some(path.canonicalize().ok()?.starts_with(config.root.canonicalize().ok()?));
    if is_served(&conduit.password) == Some(true) {
        let (password, root) = (conduit.password.display(), config.root.display());
        let text = format!(
            "the password in {password} is in the folder that is served, {root}; put it elsewhere \
             (--conduit-password-file)"
        );
        return Err(Failure::new(Code::NotAllowed, text));
    }
    Ok(access.with_conduit(password, conduit.allow))
}

fn start_log(config: &Config) -> Result<Logging, Failure> {
    let color = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    let settings = logging::Settings {
        role: logging::Role::Server,
        dir: config.log.dir.clone(),
        format: match config.log.format {
            LogFormat::Text => logging::Format::Text,
            LogFormat::Json => logging::Format::Json,
        },
        level: config.log.level.clone(),
        console: Some(logging::Console { color }),
        size_max: config.log.size_max,
        age_max: config.log.age_max,
    };
    logging::start(&settings).map_err(|error| Failure::new(error.code(), error))
}

fn serve(
    config: &Config,
    disk: LocalDisk,
    access: Access,
    listener: TcpListener,
    identity: Option<&Identity>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let tls = identity.map(identity::begin).transpose()?;
    let mut settings = config.server.clone();
    fit_descriptors(&mut settings);
    let catalog = SqliteCatalog::open(&config.state).map_err(|newer| Failure::new(Code::LocalIo, newer))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the threads")?;
    let audit = Arc::new(Audit::new());
    let token = super::keys::new_token()?;
    let access = access.with_owner(&token);
    let service = Service::new(disk, catalog, Arc::clone(&audit), access);
    let pin = identity.map(Identity::pin);
    let door = Door { listener, tls, pin, token, settings };
    let outcome = runtime.block_on(listen(config, door, service, Arc::clone(&audit), stopping));
    // The last owner of the catalog may be a task that has yet to be dropped. Whatever else blocks
    // now only reads: nothing is lost by not waiting for it any longer.
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    audit.summarize();
    outcome
}

/// Where peers come in.
struct Door {
    listener: TcpListener,
    tls: Option<Serving>,
    pin: Option<Pin>,
    /// What the owner shows as a key.
    token: Token,
    settings: server::Settings,
}

async fn listen(
    config: &Config,
    door: Door,
    service: Service,
    audit: Arc<Audit>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let Door { listener, tls, pin, token, settings } = door;
    stop_on_signals(&stopping)?;
    heed_hangups(config, tls.clone(), &stopping)?;
    let listener = tokio::net::TcpListener::from_std(listener).context("cannot listen")?;
    let address = listener.local_addr().context("cannot tell the port")?;
    Address { port: address.port(), pin }.note(&config.state);
    let _noted = Owner { address, pin, token }.note(&config.state);
    announce(address, config);
    if !config.staged_age.is_zero() {
        let (service, stopping) = (service.clone(), stopping.clone());
        let age = config.staged_age;
        tokio::spawn(async move { service.sweep(age, stopping).await });
    }
    if !config.hash_ahead.is_zero() {
        let (service, stopping) = (service.clone(), stopping.clone());
        let threshold = config.hash_ahead;
        tokio::spawn(async move { service.hash_ahead(threshold, stopping).await });
    }
    let drain = settings.drain_timeout;
    // As a task, not here: it accepts on the thread that hears of a connection then, and the connection
    // goes on there.
    let serving =
        tokio::spawn(async move { server::run(listener, service, settings, tls, &*audit, stopping).await });
    let drained = serving.await.context("the server failed")?;
    if !drained {
        warn!("Transfers that had not ended after {drain:?} were cut (--drain-timeout)");
    }
    Ok(())
}

fn announce(address: SocketAddr, config: &Config) {
    let root = crate::text::logged(config.root.as_os_str().as_encoded_bytes()).to_string();
    let version = env!("CARGO_PKG_VERSION");
    info!(event = "listening", %address, %root, "oneport {version} listening on {address}, serving {root}");
    // Whoever started the server may not be listening to it.
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush());
}

/// SIGTERM stops the server as the first Ctrl+C does.
fn stop_on_signals(stopping: &CancellationToken) -> anyhow::Result<()> {
    let mut terminations = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let token = stopping.clone();
    tokio::spawn(async move {
        if terminations.recv().await.is_some() {
            info!(event = "stopping", "Stopping: SIGTERM");
            token.cancel();
        }
    });
    let stopping = stopping.clone();
    tokio::spawn(async move {
        stopping.cancelled().await;
        info!(event = "stopping", "No new connections are accepted; running transfers are finished");
    });
    Ok(())
}

/// SIGHUP has the identity read again; where it says that the terminal is gone, it stops the server. One that
/// was started with the signal ignored (`nohup`) goes on ignoring it.
fn heed_hangups(config: &Config, tls: Option<Serving>, stopping: &CancellationToken) -> anyhow::Result<()> {
    if is_hangup_ignored() {
        return Ok(());
    }
    let terminal = Terminal::look();
    let mut hangups = signal(SignalKind::hangup()).context("cannot catch SIGHUP")?;
    let (config, stopping) = (config.clone(), stopping.clone());
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            if terminal.has_gone() {
                info!(event = "stopping", "Stopping: SIGHUP, the terminal is gone");
                return stopping.cancel();
            }
            let (config, tls) = (config.clone(), tls.clone());
            // Files are read; one reload ends before the next begins.
            let _ = tokio::task::spawn_blocking(move || identity::reload(&config, tls.as_ref())).await;
        }
    });
    Ok(())
}

fn cannot_listen(config: &Config, error: &io::Error) -> Failure {
    let port = config.port;
    let place = match config.bind {
        Some(address) => SocketAddr::new(address, port).to_string(),
        None => format!("port {port}"),
    };
    match error.kind() {
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
    }
}

/// Raises the soft limit of open descriptors to the hard one; refuses to start where even that is
/// too few to serve anybody.
fn raise_descriptors() -> Result<(), Failure> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // A system that refuses is one with a lower limit, which is looked at below.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    match getrlimit(Resource::Nofile).current {
        Some(count) if count < DESCRIPTORS_MIN => Err(Failure::new(
            Code::Limit,
            format!(
                "only {count} files may be open, and {DESCRIPTORS_MIN} are needed; raise the limit (ulimit -n)"
            ),
        )),
        _ => Ok(()),
    }
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

impl Observer for Arc<Audit> {
    fn observe(&self, event: &crate::service::Event<'_>) {
        self.as_ref().observe(event);
    }
}
