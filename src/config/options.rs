//! The server's options, each defined once.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::Deserialize;

use super::keys::Command;
use super::template::NameTemplate;
use crate::app::command::Words;
use crate::limits;
use crate::rights::Rights;
use crate::service::Net;
use crate::units::{Rate, Size, Span};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// As the client likes.
    Auto,
    /// Always; whoever comes without TLS is refused.
    Require,
    /// Never.
    Off,
}

/// Serves the files of a folder to everyone who can reach the port.
///
/// Every option can also be set as an environment variable (ONEPORT_...) or, without the dashes, as
/// a key of a TOML file given with --config. The command line wins over the environment, the
/// environment over the file.
#[derive(Clone, Debug, Default, Parser, Deserialize)]
#[command(
    name = "server",
    version,
    about,
    long_about,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Options {
    /// What is to be done instead of serving
    #[command(subcommand)]
    #[serde(skip)]
    pub command: Option<Command>,

    /// Port to listen on; 0 lets the system pick one, which is printed
    #[arg(env = "ONEPORT_PORT", help = format!(
        "Port to listen on; 0 lets the system pick one, which is printed [default: {}]", limits::DEFAULT_PORT))]
    pub port: Option<u16>,

    /// Folder whose files are served; it is created if it is missing [default: server_files]
    #[arg(env = "ONEPORT_ROOT")]
    pub root: Option<PathBuf>,

    /// Address to listen on [default: every address, IPv6 and IPv4]
    #[arg(long, env = "ONEPORT_BIND", value_name = "ADDR")]
    pub bind: Option<IpAddr>,

    /// Configuration file (TOML)
    #[arg(long, env = "ONEPORT_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Folder for the server's state; one running server each [default: .oneport]
    #[arg(long, env = "ONEPORT_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Let nobody read without a key; this closes version 1 of the protocol too [default: false]
    #[arg(long, env = "ONEPORT_REQUIRE_KEY", value_name = "true|false", num_args = 0..=1,
        default_missing_value = "true", require_equals = true)]
    pub require_key: Option<bool>,

    /// Network from which keys may come unencrypted, where others may read them (192.168.1.0/24); can be
    /// given several times, in the variable with commas between [default: none but this machine]
    #[arg(long, env = "ONEPORT_ALLOW_PLAINTEXT_KEYS", value_name = "NET", value_delimiter = ',')]
    pub allow_plaintext_keys: Option<Vec<Net>>,

    /// File with the password of Conduit's clients, which others must not be able to read; without one that
    /// dialect is not served [default: none]
    #[arg(long, env = "ONEPORT_CONDUIT_PASSWORD_FILE", value_name = "FILE")]
    pub conduit_password_file: Option<PathBuf>,

    /// What whoever shows that password may do: read, write, push [default: read,write,push]
    #[arg(long, env = "ONEPORT_CONDUIT_ALLOW", value_name = "RIGHTS")]
    pub conduit_allow: Option<Rights>,

    /// Folder for log files [default: logs]
    #[arg(long, env = "ONEPORT_LOG_DIR", value_name = "DIR")]
    pub log_dir: Option<PathBuf>,

    /// How log lines are written [default: text]
    #[arg(long, env = "ONEPORT_LOG_FORMAT", value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// What is logged: error, warn, info, debug, trace, or a filter [default: info]
    #[arg(long, env = "ONEPORT_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Size at which a new log file is begun; old ones are kept [default: 100MiB]
    #[arg(long, env = "ONEPORT_LOG_MAX_SIZE", value_name = "SIZE")]
    pub log_max_size: Option<Size>,

    /// Age at which a new log file is begun [default: 24h]
    #[arg(long, env = "ONEPORT_LOG_MAX_AGE", value_name = "TIME")]
    pub log_max_age: Option<Span>,

    /// Connections at once; further ones wait [default: 16384]
    #[arg(long, env = "ONEPORT_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,

    /// Connections at once from one address; 0 means no limit [default: 0]
    #[arg(long, env = "ONEPORT_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    pub max_connections_per_address: Option<usize>,

    /// Time a client has for its full request [default: 10s]
    #[arg(long, env = "ONEPORT_REQUEST_TIMEOUT", value_name = "TIME")]
    pub request_timeout: Option<Span>,

    /// Time after which a client that takes no byte is dropped [default: 30s]
    #[arg(long, env = "ONEPORT_IDLE_TIMEOUT", value_name = "TIME")]
    pub idle_timeout: Option<Span>,

    /// Least bytes per second that a client must take, over each idle timeout; 0 means any [default: 1KiB]
    #[arg(long, env = "ONEPORT_MIN_RATE", value_name = "RATE")]
    pub min_rate: Option<Rate>,

    /// Most bytes per second that all clients get together; 0 means no limit [default: 0]
    #[arg(long, env = "ONEPORT_LIMIT_RATE", value_name = "RATE")]
    pub limit_rate: Option<Rate>,

    /// Most bytes per second that one client gets, over all its connections; 0 means no limit [default: 0]
    #[arg(long, env = "ONEPORT_LIMIT_RATE_PER_CLIENT", value_name = "RATE")]
    pub limit_rate_per_client: Option<Rate>,

    /// Largest file that is taken from a client; 0 means no limit [default: 0]
    #[arg(long, env = "ONEPORT_UPLOAD_MAX", value_name = "SIZE")]
    pub upload_max: Option<Size>,

    /// How long the part of an upload is kept that nobody goes on with; 0 means for ever [default: 7d]
    #[arg(long, env = "ONEPORT_STAGED_AGE", value_name = "TIME")]
    pub staged_age: Option<Span>,

    /// Time that running transfers have to end when the server is stopped [default: 30s]
    #[arg(long, env = "ONEPORT_DRAIN_TIMEOUT", value_name = "TIME")]
    pub drain_timeout: Option<Span>,

    /// Hash files ahead whose digest would take longer than this; 0 means never [default: 5s]
    #[arg(long, env = "ONEPORT_HASH_AHEAD", value_name = "TIME")]
    pub hash_ahead: Option<Span>,

    /// Pause between OK and header in protocol version 1, for its original clients [default: 20ms]
    #[arg(long, env = "ONEPORT_V1_PAUSE", value_name = "TIME")]
    pub v1_pause: Option<Span>,

    /// How files are called that come in: text with {name}, {folder}, {base}, {ext}, {key}, {counter}, {date}, {time}, ...
    /// in it [default: as their clients ask]
    #[arg(long, env = "ONEPORT_NAME_TEMPLATE", value_name = "TEMPLATE")]
    pub name_template: Option<NameTemplate>,

    /// Command to run for each file that was received, without a shell; what there is to know of the file is in
    /// its environment (ONEPORT_PATH, ONEPORT_NAME, ...) [default: none]
    #[arg(long, env = "ONEPORT_ON_RECEIVED", value_name = "COMMAND")]
    pub on_received: Option<Words>,

    /// How long that command may run before it is killed [default: 5m]
    #[arg(long, env = "ONEPORT_ON_RECEIVED_TIMEOUT", value_name = "TIME")]
    pub on_received_timeout: Option<Span>,

    /// Whether connections are encrypted: as the client likes, always, or never [default: auto]
    #[arg(long, env = "ONEPORT_TLS", value_name = "MODE", value_enum)]
    pub tls: Option<TlsMode>,

    /// Certificates (PEM), the server's own first [default: one that the server makes once]
    #[arg(long, env = "ONEPORT_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// Private key of that certificate (PEM), which others must not be able to read
    #[arg(long, env = "ONEPORT_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

impl Options {
    /// These options, and where they say nothing what `other` says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            command: self.command.or(other.command),
            port: self.port.or(other.port),
            root: self.root.or(other.root),
            bind: self.bind.or(other.bind),
            config: self.config.or(other.config),
            state: self.state.or(other.state),
            require_key: self.require_key.or(other.require_key),
            allow_plaintext_keys: self.allow_plaintext_keys.or(other.allow_plaintext_keys),
            conduit_password_file: self.conduit_password_file.or(other.conduit_password_file),
            conduit_allow: self.conduit_allow.or(other.conduit_allow),
            log_dir: self.log_dir.or(other.log_dir),
            log_format: self.log_format.or(other.log_format),
            log_level: self.log_level.or(other.log_level),
            log_max_size: self.log_max_size.or(other.log_max_size),
            log_max_age: self.log_max_age.or(other.log_max_age),
            max_connections: self.max_connections.or(other.max_connections),
            max_connections_per_address: self
                .max_connections_per_address
                .or(other.max_connections_per_address),
            request_timeout: self.request_timeout.or(other.request_timeout),
            idle_timeout: self.idle_timeout.or(other.idle_timeout),
            min_rate: self.min_rate.or(other.min_rate),
            limit_rate: self.limit_rate.or(other.limit_rate),
            limit_rate_per_client: self.limit_rate_per_client.or(other.limit_rate_per_client),
            upload_max: self.upload_max.or(other.upload_max),
            staged_age: self.staged_age.or(other.staged_age),
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            hash_ahead: self.hash_ahead.or(other.hash_ahead),
            v1_pause: self.v1_pause.or(other.v1_pause),
            name_template: self.name_template.or(other.name_template),
            on_received: self.on_received.or(other.on_received),
            on_received_timeout: self.on_received_timeout.or(other.on_received_timeout),
            tls: self.tls.or(other.tls),
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
        }
    }
}
