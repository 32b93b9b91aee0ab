//! The command line, and what it means once it is checked.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use oneport::client::{Backoff, Overwrite, Server, Settings, Target};
use oneport::config::exit_statuses;
use oneport::limits::{COMPONENT_MAX, DEFAULT_PORT, NAME_MAX, RETRIES};
use oneport::names::base;
use oneport::text;
use oneport::units::Span;

/// Words that are, or will be, commands: as FILE they would change their meaning one day.
const RESERVED: [&str; 25] = [
    "get",
    "put",
    "ls",
    "stat",
    "verify",
    "rm",
    "mv",
    "listen",
    "push",
    "ping",
    "status",
    "clients",
    "history",
    "stats",
    "metadata",
    "health",
    "cancel",
    "batch",
    "queue",
    "share",
    "key",
    "doctor",
    "bench",
    "completions",
    "man",
];

/// Fetches a file from a oneport server, whole and verified.
///
/// The file is saved under the last part of its name in client_downloads/. It gets that name only
/// when all of it has arrived and its checksum is right; whatever was there before stays until then.
#[derive(Debug, Parser)]
#[command(
    name = "client",
    version,
    about,
    long_about,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// Name of the file on the server; write ./NAME for one that is spelt like a command
    #[arg(required = true)]
    file: Option<OsString>,

    /// The server's name or address [default: localhost]
    host: Option<String>,

    /// The server's port
    #[arg(help = format!("The server's port [default: {DEFAULT_PORT}]"))]
    port: Option<u16>,

    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch one or more files
    Get {
        // Not a doc comment: the brackets would be read as links.
        #[arg(short, long, value_name = "HOST[:PORT]", help = format!(
            "The server: HOST, HOST:PORT or [IPV6]:PORT [default: localhost:{DEFAULT_PORT}]"))]
        server: Option<Server>,

        /// Names of the files on the server
        #[arg(required = true, value_name = "NAME")]
        names: Vec<OsString>,

        #[command(flatten)]
        options: Options,
    },
}

#[derive(Debug, Args)]
struct Options {
    /// Save as this file, or into this folder; - writes to standard output
    #[arg(short, long, value_name = "PATH", conflicts_with = "directory")]
    output: Option<PathBuf>,

    /// Save into this folder; it is created if it is missing
    #[arg(short, long, value_name = "DIR", default_value = "client_downloads")]
    directory: PathBuf,

    /// What to do when the file exists
    #[arg(long, value_enum, value_name = "WHEN", default_value = "always")]
    overwrite: OverwriteArg,

    /// Say only what went wrong
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Say more
    #[arg(short, long)]
    verbose: bool,

    /// How to show progress; auto is a bar on a terminal and lines elsewhere
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    progress: Progress,

    /// Write events and results as JSON, one object a line, to standard output
    #[arg(long)]
    json: bool,

    /// How often to try again when there is no server or a transfer fails
    #[arg(long, value_name = "N", default_value_t = RETRIES)]
    retries: u32,

    /// Wait before the first retry; it doubles each time
    #[arg(long, value_name = "TIME", default_value = "1s")]
    retry_delay: Span,

    /// Longest wait before a retry
    #[arg(long, value_name = "TIME", default_value = "32s")]
    retry_max_delay: Span,

    /// Longest time to connect, and to wait for the next byte
    #[arg(long, value_name = "TIME", default_value = "10s")]
    timeout: Span,

    /// Do not wait until the file is safely on the disk
    #[arg(long)]
    no_sync: bool,

    /// Folder for log files
    #[arg(long, value_name = "DIR", default_value = "logs")]
    log_dir: PathBuf,

    /// What is logged: error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OverwriteArg {
    /// Keep it, and fail
    Never,
    /// Replace it if it differs from the server's
    Different,
    /// Replace it
    Always,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Progress {
    /// A bar on a terminal, else lines
    Auto,
    /// A bar
    Bar,
    /// A line every 10 %
    Plain,
    /// Not at all
    None,
}

/// What is to be done, checked.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) server: Server,
    pub(crate) files: Vec<File>,
    pub(crate) settings: Settings,
    pub(crate) progress: Progress,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
    pub(crate) log_dir: PathBuf,
    pub(crate) log_level: String,
}

/// One file to fetch.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) target: Target,
}

impl File {
    /// The name, made safe to show.
    pub(crate) fn shown(&self) -> String {
        text::shown(self.name.as_bytes()).to_string()
    }
}

/// Why there is nothing to do.
#[derive(Debug)]
pub(crate) enum ArgsError {
    /// Clap knows what to say; help and version are among it.
    Clap(clap::Error),
    /// A sentence for the user.
    Wrong(String),
}

impl From<clap::Error> for ArgsError {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

/// The client's command line, from which the help is made.
pub(crate) fn command() -> clap::Command {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let color = if plain { clap::ColorChoice::Never } else { clap::ColorChoice::Auto };
    Cli::command()
        .override_usage(
            "client [OPTIONS] <FILE> [HOST [PORT]]\n       client get [-s HOST[:PORT]] [OPTIONS] <NAME>...",
        )
        .after_help(exit_statuses())
        .color(color)
}

/// Reads a command line; the first argument is the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Job, ArgsError> {
    let mut matches = command().try_get_matches_from(arguments)?;
    let cli = Cli::from_arg_matches_mut(&mut matches)?;
    match cli.command {
        Some(Command::Get { server, names, options }) => job(server.unwrap_or_default(), names, options),
        None => {
            let host = cli.host.as_deref().unwrap_or("localhost");
            let server = Server::new(host, cli.port.unwrap_or(DEFAULT_PORT));
            let server = server.map_err(|error| ArgsError::Wrong(error.to_string()))?;
            let file = cli.file.unwrap_or_default();
            if let Some(word) = file.to_str().filter(|word| RESERVED.contains(word)) {
                return Err(ArgsError::Wrong(reserved(word)));
            }
            job(server, vec![file], cli.options)
        }
    }
}

fn reserved(word: &str) -> String {
    if word == "get" {
        return "options come after the command: client get [OPTIONS] NAME; for a file of that name: client ./get"
            .to_owned();
    }
    format!(
        "'{word}' is reserved for a command to come; for a file of that name: client ./{word}, or client get {word}"
    )
}

fn job(server: Server, names: Vec<OsString>, options: Options) -> Result<Job, ArgsError> {
    if options.timeout.0.is_zero() {
        return Err(ArgsError::Wrong("--timeout must be longer than nothing".to_owned()));
    }
    let mut files = Vec::new();
    let mut targets = BTreeSet::new();
    for name in &names {
        let name = checked_name(name)?;
        let target = target(&name, &options, names.len() > 1)?;
        if options.json && target == Target::Stdout {
            return Err(ArgsError::Wrong(
                "--json and -o - both want standard output; drop one of them".to_owned(),
            ));
        }
        if !targets.insert(target.shown()) && matches!(target, Target::File(_)) {
            let (name, target) = (text::shown(name.as_bytes()), target.shown());
            return Err(ArgsError::Wrong(format!(
                "'{name}' and another file would both be saved as {target}"
            )));
        }
        files.push(File { name, target });
    }
    let overwrite = match options.overwrite {
        OverwriteArg::Never => Overwrite::Never,
        OverwriteArg::Different => Overwrite::Different,
        OverwriteArg::Always => Overwrite::Always,
    };
    let backoff = Backoff {
        retries: options.retries,
        first: options.retry_delay.0,
        longest: options.retry_max_delay.0,
    };
    Ok(Job {
        server,
        files,
        settings: Settings { backoff, timeout: options.timeout.0, overwrite, sync: !options.no_sync },
        progress: options.progress,
        json: options.json,
        quiet: options.quiet,
        verbose: options.verbose,
        log_dir: options.log_dir,
        log_level: options.log_level,
    })
}

/// A name that can be asked for. Whether there is such a file is for the server to say.
fn checked_name(name: &OsString) -> Result<String, ArgsError> {
    let shown = text::shown(name.as_encoded_bytes()).to_string();
    let wrong = |why: &str| Err(ArgsError::Wrong(format!("'{shown}' cannot be asked for: {why}")));
    let Some(name) = name.to_str() else { return wrong("it is not UTF-8") };
    let name = name.strip_prefix("./").unwrap_or(name);
    match name {
        "" => wrong("the name is empty"),
        long if long.len() > NAME_MAX => wrong("it is too long"),
        _ => Ok(name.to_owned()),
    }
}

fn target(name: &str, options: &Options, several: bool) -> Result<Target, ArgsError> {
    let base = String::from_utf8_lossy(base(name.as_bytes())).into_owned();
    let within = |folder: &Path| match base.as_str() {
        "" | "." | ".." => {
            let name = text::shown(name.as_bytes());
            Err(ArgsError::Wrong(format!(
                "'{name}' does not end in a file's name; say where to save it with -o"
            )))
        }
        long if long.len() > COMPONENT_MAX => Err(ArgsError::Wrong(format!(
            "'{}' is too long for a file's name here; say where to save it with -o",
            text::shown(long.as_bytes())
        ))),
        _ => Ok(Target::File(folder.join(&base))),
    };
    match options.output.as_deref() {
        None => within(&options.directory),
        Some(path) if path == Path::new("-") => Ok(Target::Stdout),
        Some(path) if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") => within(path),
        Some(_) if several => {
            Err(ArgsError::Wrong("several files can only be saved into a folder: -o DIR/".to_owned()))
        }
        Some(path) if path.as_os_str().is_empty() => Err(ArgsError::Wrong("-o must not be empty".to_owned())),
        Some(path) => Ok(Target::at(path.to_owned())),
    }
}

#[cfg(test)]
#[path = "args/tests.rs"]
mod tests;
