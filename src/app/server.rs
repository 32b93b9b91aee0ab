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
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::command::Commands;
use super::embed::{Claimed, Server, ServerBuilder};
use super::hangup::Terminal;
use super::{Failure, exit_code, fail, identity, is_hangup_ignored};
use crate::config::{self, Config, ConfigError, LogFormat, Task};
use crate::error::{Code, EXIT_INTERRUPTED};
use crate::limits::{BLOCKING_THREADS, DESCRIPTORS_MIN, RUNTIME_STOP_TIMEOUT};
use crate::logging::{self, Logging};
use crate::tls::Serving;

/// Runs the server with these arguments (the first is the program's name) and says how it ended.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let stopping = CancellationToken::new();
    let result = catch_interrupts(stopping.clone()).and_then(|()| match config::load(arguments) {
        Ok(Task::Serve(config)) => run(*config, stopping.clone()),
        Ok(Task::Key(task)) => super::keys::run(task),
        Ok(Task::Control(task)) => super::control::run(&task, &stopping),
        Ok(Task::Push(task)) => super::pushing::run(&task, &stopping),
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
    let claimed = builder(&config, &stopping).claim().map_err(Failure::from)?;
    let logging = start_log(&config)?;
    let code = match serve(&config, claimed, stopping) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            exit_code(&error)
        }
    };
    logging.close();
    Ok(code)
}

/// The server that a user wants.
fn builder(config: &Config, stopping: &CancellationToken) -> ServerBuilder {
    let builder = Server::builder(&config.root)
        .state(&config.state)
        .hide(&config.log.dir)
        .port(config.port)
        .require_key(config.require_key)
        .plaintext_keys(config.plaintext_keys.clone())
        .upload_max(config.upload_max)
        .hash_ahead(config.hash_ahead)
        .staged_age(config.staged_age)
        .tls(config.tls)
        .tls_files(config.tls_files.clone())
        .conduit(config.conduit.clone())
        .settings(config.server.clone())
        .stopped_by(stopping.clone());
    let builder = match config.bind {
        Some(address) => builder.bind(address),
        None => builder,
    };
    match config.name_template.clone() {
        Some(template) => builder.name_generator(move |file| template.make(file)),
        None => builder,
    }
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

fn serve(config: &Config, claimed: Claimed, stopping: CancellationToken) -> anyhow::Result<()> {
    if let Some(pin) = claimed.pin() {
        identity::show(pin);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the threads")?;
    let outcome = runtime.block_on(listen(config, claimed, stopping));
    // The last owner of the catalog may be a task that has yet to be dropped. Whatever else blocks
    // now only reads: nothing is lost by not waiting for it any longer.
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    outcome
}

async fn listen(config: &Config, claimed: Claimed, stopping: CancellationToken) -> anyhow::Result<()> {
    stop_on_signals(&stopping)?;
    let hangups = catch_hangups()?;
    let (claimed, commands) = run_commands(config, claimed);
    let server = claimed.start().await.map_err(Failure::from)?;
    heed_hangups(hangups, config, server.serving(), &stopping);
    announce(server.address());
    let ended = server.ended().await;
    if let Some(commands) = commands {
        commands.finish(tokio::time::sleep(config.server.drain_timeout)).await;
    }
    ended?;
    Ok(())
}

/// Has a command run for each file that is received, if one was named.
fn run_commands(config: &Config, claimed: Claimed) -> (Claimed, Option<Commands>) {
    let Some((words, patience)) = &config.on_received else { return (claimed, None) };
    let commands = Commands::start(words.clone(), *patience);
    let queue = commands.queue();
    // It is called where waiting is allowed: what is behind it in line waits, too.
    (claimed.on_file_received(move |received| queue.tell_blocking(received)), Some(commands))
}

fn announce(address: SocketAddr) {
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

/// The signals that say so, and the terminal at the start; `None` if they are ignored, as `nohup` has it.
fn catch_hangups() -> anyhow::Result<Option<(Terminal, Signal)>> {
    if is_hangup_ignored() {
        return Ok(None);
    }
    Ok(Some((Terminal::look(), signal(SignalKind::hangup()).context("cannot catch SIGHUP")?)))
}

/// SIGHUP has the identity read again; where it says that the terminal is gone, it stops the server. One that
/// was started with the signal ignored (`nohup`) goes on ignoring it.
fn heed_hangups(
    caught: Option<(Terminal, Signal)>,
    config: &Config,
    tls: Option<Serving>,
    stopping: &CancellationToken,
) {
    let Some((terminal, mut hangups)) = caught else { return };
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
