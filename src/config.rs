//! What a user set: command line before environment before configuration file before default.
//!
//! Each option of the server is defined once, in [`Options`]: the command line, the `ONEPORT_…`
//! variables, the help and the configuration file's keys all come from there. [`load`] turns what
//! was given into a checked [`Config`]; nothing else in the system reads arguments or variables.

use std::ffi::OsString;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};

use crate::app::command::Words;
use crate::control::Question;
use crate::error::{Code, EXIT_HANGUP, EXIT_INTERRUPTED, EXIT_TERMINATED, in_words};
use crate::limits;
use crate::rights::{Right, Rights};
use crate::server;
use crate::service::Net;
use crate::units::{Rate, Span};

pub mod control;
pub mod keys;
mod options;
pub mod pushing;
pub mod template;

use control::ControlTask;
use keys::KeyTask;
pub use options::{LogFormat, Options, TlsMode};
use pushing::PushTask;
use template::NameTemplate;

/// A checked configuration of the server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on; every address if none is given.
    pub bind: Option<IpAddr>,
    /// Port to listen on; 0 lets the system pick one.
    pub port: u16,
    /// Folder whose files are served.
    pub root: PathBuf,
    /// Folder of the server's state.
    pub state: PathBuf,
    /// Whether nobody may read without a key.
    pub require_key: bool,
    /// Networks from which keys may come in clear, besides this machine.
    pub plaintext_keys: Vec<Net>,
    /// Where the password of Conduit's clients is, and what it allows; without one they are not served.
    pub conduit: Option<Conduit>,
    /// Where and how to log.
    pub log: Log,
    /// Files whose digest takes longer than this are hashed ahead; zero means none are.
    pub hash_ahead: Duration,
    /// How long the part of an upload is kept that nobody goes on with; zero means for ever.
    pub staged_age: Duration,
    /// Size of the largest file that is taken from a client, in bytes, if there is a limit.
    pub upload_max: Option<u64>,
    /// Whether connections are encrypted.
    pub tls: TlsMode,
    /// Files of a certificate and its key; without them the server makes its own in its state folder.
    pub tls_files: Option<TlsFiles>,
    /// How files are called that come in, if not as their clients ask.
    pub name_template: Option<NameTemplate>,
    /// What is run for each file that was received, and for how long at most.
    pub on_received: Option<(Words, Duration)>,
    /// Limits of connections.
    pub server: server::Settings,
}

/// What the server program is to do.
#[derive(Clone, Debug)]
pub enum Task {
    /// To serve.
    Serve(Box<Config>),
    /// To look after the keys.
    Key(KeyTask),
    /// To ask a running server about itself.
    Control(ControlTask),
    /// To send files to those who listen to a running server.
    Push(PushTask),
}

/// Where a given identity lies.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificates, in PEM.
    pub certificates: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

/// How Conduit's clients are let in.
#[derive(Clone, Debug)]
pub struct Conduit {
    /// The file with the password.
    pub password: PathBuf,
    /// What whoever shows it may do.
    pub allow: Rights,
}

/// Where and how to log.
#[derive(Clone, Debug)]
pub struct Log {
    /// Folder of the log files.
    pub dir: PathBuf,
    /// Text or JSON.
    pub format: LogFormat,
    /// What is logged, as a filter.
    pub level: String,
    /// Size at which a new file is begun, in bytes.
    pub size_max: u64,
    /// Age at which a new file is begun.
    pub age_max: Duration,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The command line or the environment is wrong, or help was asked for: clap knows what to say.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {path}: {}; check --config", in_words(.source))]
    Unreadable {
        /// The file.
        path: String,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is wrong.
    #[error("the configuration file {path} is wrong: {message}")]
    Wrong {
        /// The file.
        path: String,
        /// What is wrong, and where.
        message: String,
    },
    /// One of two options that need each other is missing.
    #[error("{given} needs {missing} as well: give both, or neither")]
    Half {
        /// The option that was given.
        given: &'static str,
        /// The one that was not.
        missing: &'static str,
    },
    /// A value is out of its range.
    #[error("{option} is {value}, but must be {wanted}")]
    Range {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        wanted: &'static str,
    },
}

/// Reads the server's configuration from its arguments (the first is the program's name), the
/// environment and the configuration file that they name.
///
/// # Errors
/// [`ConfigError`]; also for `--help` and `--version`, which clap reports as errors of their own.
pub fn load(arguments: impl IntoIterator<Item = OsString>) -> Result<Task, ConfigError> {
    let mut matches = command().try_get_matches_from(arguments)?;
    let mut given = Options::from_arg_matches_mut(&mut matches)?;
    if let Some(command) = given.command.take() {
        return task(command);
    }
    let file = match &given.config {
        Some(path) => read_file(path)?,
        None => Options::default(),
    };
    check(given.or(file)).map(Box::new).map(Task::Serve)
}

fn task(command: keys::Command) -> Result<Task, ConfigError> {
    use keys::Command;
    match command {
        Command::Key(command) => keys::task(command).map(Task::Key),
        Command::Status(status) => status.task(Question::Status).map(Task::Control),
        Command::Clients(clients) => clients.task(Question::Clients).map(Task::Control),
        Command::History(history) => history.task().map(Task::Control),
        Command::Cancel(cancel) => cancel.task().map(Task::Control),
        Command::Push(push) => push.task().map(Task::Push),
    }
}

/// The server's command line, from which the help is made.
#[must_use]
pub fn command() -> clap::Command {
    Options::command().after_help(exit_statuses())
}

/// The table of exit statuses for a program's help.
#[must_use]
pub fn exit_statuses() -> String {
    use std::fmt::Write;
    let mut text = String::from("Exit status:\n    0  success\n");
    for code in Code::ALL {
        let _ = writeln!(text, "{:>5}  {}", code.exit_status(), code.meaning());
    }
    let _ = write!(
        text,
        "  {EXIT_HANGUP}, {EXIT_INTERRUPTED}, {EXIT_TERMINATED}  ended by SIGHUP, by Ctrl+C (SIGINT), by SIGTERM"
    );
    text
}

fn read_file(path: &Path) -> Result<Options, ConfigError> {
    let shown = path.display().to_string();
    let unreadable = |source| ConfigError::Unreadable { path: shown.clone(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(limits::CONFIG_MAX).read_to_string(&mut text).map_err(unreadable)?;
    toml::from_str(&text)
        .map_err(|error| ConfigError::Wrong { path: shown, message: error.to_string().trim_end().to_owned() })
}

/// The folder of the server's state where nobody, or somebody, has said which.
fn state_folder(given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| crate::names::STATE_FOLDER.into())
}

fn check(options: Options) -> Result<Config, ConfigError> {
    let span = |given: Option<Span>, default| given.map_or(default, |span| span.0);
    let limit = |given: Option<Rate>| given.map(|rate| rate.0).filter(|&rate| rate > 0);
    let tls = options.tls.unwrap_or(TlsMode::Auto);
    let tls_files = match (options.tls_cert, options.tls_key) {
        (Some(certificates), Some(key)) => Some(TlsFiles { certificates, key }),
        (None, None) => None,
        (Some(_), None) => return Err(ConfigError::Half { given: "--tls-cert", missing: "--tls-key" }),
        (None, Some(_)) => return Err(ConfigError::Half { given: "--tls-key", missing: "--tls-cert" }),
    };
    let conduit = match (options.conduit_password_file, options.conduit_allow) {
        (Some(password), allow) => {
            let default = || Rights::from_iter([Right::Read, Right::Write, Right::Push]);
            Some(Conduit { password, allow: allow.unwrap_or_else(default) })
        }
        (None, None) => None,
        (None, Some(_)) => {
            let (given, missing) = ("--conduit-allow", "--conduit-password-file");
            return Err(ConfigError::Half { given, missing });
        }
    };
    let config = Config {
        bind: options.bind,
        port: options.port.unwrap_or(limits::DEFAULT_PORT),
        root: options.root.unwrap_or_else(|| "server_files".into()),
        state: state_folder(options.state),
        require_key: options.require_key.unwrap_or(false),
        plaintext_keys: options.allow_plaintext_keys.unwrap_or_default(),
        conduit,
        log: Log {
            dir: options.log_dir.unwrap_or_else(|| "logs".into()),
            format: options.log_format.unwrap_or(LogFormat::Text),
            level: options.log_level.unwrap_or_else(|| "info".into()),
            size_max: options.log_max_size.map_or(limits::LOG_SIZE_MAX, |size| size.0),
            age_max: span(options.log_max_age, limits::LOG_AGE_MAX),
        },
        hash_ahead: span(options.hash_ahead, limits::HASH_AHEAD),
        staged_age: span(options.staged_age, limits::STAGED_AGE),
        upload_max: options.upload_max.map(|size| size.0).filter(|&size| size > 0),
        tls,
        tls_files,
        name_template: options.name_template,
        on_received: options
            .on_received
            .map(|words| (words, span(options.on_received_timeout, limits::COMMAND_TIMEOUT))),
        server: server::Settings {
            connections_max: options.max_connections.unwrap_or(limits::CONNECTIONS_MAX),
            connections_per_address_max: options.max_connections_per_address.unwrap_or(0),
            request_timeout: span(options.request_timeout, limits::REQUEST_TIMEOUT),
            idle_timeout: span(options.idle_timeout, limits::IDLE_TIMEOUT),
            rate_min: options.min_rate.map_or(limits::RATE_MIN, |rate| rate.0),
            rate_limit: limit(options.limit_rate),
            rate_limit_per_client: limit(options.limit_rate_per_client),
            drain_timeout: span(options.drain_timeout, limits::DRAIN_TIMEOUT),
            v1_pause: span(options.v1_pause, limits::V1_PAUSE),
            require_tls: tls == TlsMode::Require,
        },
    };
    check_ranges(&config)?;
    Ok(config)
}

fn check_ranges(config: &Config) -> Result<(), ConfigError> {
    let server = &config.server;
    let range = |option, value: String, wanted| Err(ConfigError::Range { option, value, wanted });
    if !(1..=tokio::sync::Semaphore::MAX_PERMITS).contains(&server.connections_max) {
        return range("--max-connections", server.connections_max.to_string(), "at least 1");
    }
    for (option, value) in [
        ("--request-timeout", server.request_timeout),
        ("--idle-timeout", server.idle_timeout),
        ("--log-max-age", config.log.age_max),
        ("--on-received-timeout", config.on_received.as_ref().map_or(limits::COMMAND_TIMEOUT, |run| run.1)),
    ] {
        if value.is_zero() {
            return range(option, format!("{value:?}"), "longer than nothing");
        }
    }
    if server.v1_pause > limits::V1_PAUSE_MAX {
        return range(
            "--v1-pause",
            format!("{:?}", server.v1_pause),
            "at most 5s: clients give up after 10s",
        );
    }
    if config.plaintext_keys.len() > limits::PLAINTEXT_NETS_MAX {
        let count = config.plaintext_keys.len().to_string();
        return range("--allow-plaintext-keys", count, "at most 64 networks");
    }
    if let Some(allow) = config.conduit.as_ref().map(|conduit| conduit.allow)
        && (allow.has(Right::Delete) || allow.has(Right::Admin))
    {
        return range("--conduit-allow", allow.to_string(), "a list of read, write and push");
    }
    if config.log.size_max < limits::LOG_SIZE_MIN {
        return range("--log-max-size", format!("{} bytes", config.log.size_max), "at least 4KiB");
    }
    Ok(())
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
