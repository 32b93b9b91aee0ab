//! The command line: what may be written. What it means once it is checked is [`job`].

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use oneport::app::command::Words;
use oneport::client::{Checksum, Server, ServerError};
use oneport::config::control::{CancelArgs, HistoryArgs};
use oneport::config::exit_statuses;
use oneport::control::Question;
use oneport::limits::{DEFAULT_PORT, PINGS, RETRIES, V2_LINKS, V2_LINKS_MAX};
use oneport::names::ReceiverName;
use oneport::patterns::Verdict;
use oneport::priority::Priority;
use oneport::units::{Rate, Size, Span};

#[path = "args/job.rs"]
mod job;
#[path = "args/security.rs"]
mod security;

pub(crate) use job::{Delivery, File, Folder, Job, Local, Ls, Task, Upload};
use security::SecurityArgs;

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

/// Those that are commands.
const COMMANDS: [&str; 14] = [
    "get", "put", "ls", "rm", "mv", "stat", "verify", "listen", "push", "ping", "status", "clients",
    "history", "cancel",
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

    /// Name of the file on the server, or oneport://HOST:PORT/NAME, with #PIN for a server with this key; write ./NAME for one that is
    /// spelt like a command
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
    /// Fetch files, or whole folders with -r
    Get {
        #[command(flatten)]
        host: Host,

        /// Names of files on the server (with -r, of folders; . is all that is served), or
        /// oneport://HOST:PORT/NAME
        #[arg(required_unless_present = "files_from", value_name = "NAME")]
        names: Vec<OsString>,

        /// Fetch the files that are named in this file, one a line, under the same names; - is standard input
        #[arg(long, value_name = "FILE", conflicts_with_all = ["names", "recursive", "checksum", "output"])]
        files_from: Option<PathBuf>,

        #[command(flatten)]
        options: Options,
    },

    /// Store files on the server, or whole folders with -r
    Put {
        #[command(flatten)]
        host: Host,

        /// Local files (with -r, folders); - is standard input, which needs --name
        #[arg(required = true, value_name = "FILE")]
        files: Vec<OsString>,

        /// The folder of the server to store them in [default: the top of all that is served]
        #[arg(long, value_name = "DIR")]
        to: Option<OsString>,

        /// The name to store it under, where only one file or folder is stored [default: its own]
        #[arg(long, value_name = "NAME")]
        name: Option<OsString>,

        #[command(flatten)]
        chosen: Chosen,

        #[command(flatten)]
        moving: Moving,

        #[command(flatten)]
        common: Common,
    },

    /// Stay connected, and receive files that others send with push
    Listen {
        #[command(flatten)]
        host: Host,

        /// The name under which others send: letters, digits, '.', '_' and '-'
        #[arg(long, value_name = "NAME")]
        name: ReceiverName,

        /// Save files in this folder, under their own names; it is created if it is missing
        #[arg(short, long, value_name = "DIR", default_value = ".")]
        directory: PathBuf,

        /// What to do when another file of this name exists
        #[arg(long, value_enum, value_name = "WHEN", default_value = "rename")]
        overwrite: ExistingArg,

        /// Refuse files that are larger [default: no limit]
        #[arg(long, value_name = "SIZE")]
        max_size: Option<Size>,

        /// End after the first file that was received
        #[arg(long)]
        once: bool,

        /// Connections at once for one large file
        #[arg(short = 'j', long, value_name = "N", default_value_t = V2_LINKS,
            value_parser = clap::value_parser!(u64).range(1..=V2_LINKS_MAX))]
        connections: u64,

        #[command(flatten)]
        hook: Hook,

        #[command(flatten)]
        common: Common,
    },

    /// Send files to clients that listen
    Push {
        #[command(flatten)]
        host: Host,

        /// The names under which they listen, with commas between them
        #[arg(value_name = "RECEIVERS")]
        receivers: String,

        /// Local files; - is standard input, which needs --name
        #[arg(required = true, value_name = "FILE")]
        files: Vec<OsString>,

        /// What the receivers are told that it is called, where only one file is sent [default: its own name]
        #[arg(long, value_name = "NAME")]
        name: Option<OsString>,

        /// Connections at once for one large file
        #[arg(short = 'j', long, value_name = "N", default_value_t = V2_LINKS,
            value_parser = clap::value_parser!(u64).range(1..=V2_LINKS_MAX))]
        connections: u64,

        /// Most bytes per second of a file, over all its connections; 0 means no limit [default: 0]
        #[arg(long, value_name = "RATE")]
        limit_rate: Option<Rate>,

        /// Send only the file with this checksum: blake3=HEX, sha256=HEX or md5=HEX
        #[arg(long, value_name = "CHECKSUM")]
        checksum: Option<Checksum>,

        /// How to show progress; auto is a bar on a terminal and lines elsewhere
        #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
        progress: Progress,

        #[command(flatten)]
        common: Common,
    },

    /// Remove files from the server, or whole folders with -r
    Rm {
        #[command(flatten)]
        host: Host,

        /// Names of files or empty folders on the server, or oneport://HOST:PORT/NAME
        #[arg(required = true, value_name = "NAME")]
        names: Vec<OsString>,

        /// Folders with all that is in them
        #[arg(short, long)]
        recursive: bool,

        #[command(flatten)]
        common: Common,
    },

    /// Give a file or a folder of the server another name
    Mv {
        #[command(flatten)]
        host: Host,

        /// Its name on the server, or oneport://HOST:PORT/NAME
        from: OsString,

        /// The new name, on the same server; missing folders are made
        to: OsString,

        /// Replace a file that has the new name
        #[arg(long)]
        replace: bool,

        #[command(flatten)]
        common: Common,
    },

    /// Show what the server says of files, and their checksums
    Stat {
        #[command(flatten)]
        files: Files,

        #[command(flatten)]
        common: Common,
    },

    /// Compare local files with the server's, without fetching them
    Verify {
        #[command(flatten)]
        files: Files,

        #[command(flatten)]
        place: Place,

        #[command(flatten)]
        common: Common,
    },

    /// List what is in folders of the server
    Ls {
        #[command(flatten)]
        host: Host,

        /// Names of folders or files on the server, or oneport://HOST:PORT/NAME [default: all that is served]
        #[arg(value_name = "NAME")]
        names: Vec<OsString>,

        #[command(flatten)]
        chosen: Chosen,

        /// Show mode, size in bytes and time (UTC) too
        #[arg(short, long)]
        long: bool,

        #[command(flatten)]
        common: Common,
    },

    /// Show how the server is, and what is being moved; takes a key that may administer
    Status {
        #[command(flatten)]
        host: Host,

        #[command(flatten)]
        common: Common,
    },

    /// Show who is connected to the server; takes a key that may administer
    Clients {
        #[command(flatten)]
        host: Host,

        #[command(flatten)]
        common: Common,
    },

    /// Show what the server has moved, the newest first; takes a key that may administer
    History {
        #[command(flatten)]
        host: Host,

        #[command(flatten)]
        wanted: HistoryArgs,

        #[command(flatten)]
        common: Common,
    },

    /// End a running transfer, by the id that status shows; takes a key that may administer
    Cancel {
        #[command(flatten)]
        host: Host,

        #[command(flatten)]
        which: CancelArgs,

        #[command(flatten)]
        common: Common,
    },

    /// Measure how long the server takes to answer
    Ping {
        #[command(flatten)]
        host: Host,

        /// How often to ask
        #[arg(short, long, value_name = "N", default_value_t = PINGS)]
        count: u32,

        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Host {
    // Not a doc comment: the brackets would be read as links.
    #[arg(short, long, value_name = "HOST[:PORT]", help = format!(
        "The server: HOST, HOST:PORT, [IPV6]:PORT or oneport://HOST:PORT#PIN [default: localhost:{DEFAULT_PORT}]"))]
    server: Option<Server>,
}

#[derive(Debug, Args)]
struct Files {
    #[command(flatten)]
    host: Host,

    /// Names of the files on the server, or oneport://HOST:PORT/NAME
    #[arg(required = true, value_name = "NAME")]
    names: Vec<OsString>,
}

/// What of a folder is meant.
#[derive(Debug, Args)]
struct Chosen {
    /// Folders with all that is in them, at any depth
    #[arg(short, long)]
    recursive: bool,

    /// Follow symbolic links to folders
    #[arg(short = 'L', long)]
    follow_links: bool,

    /// Leave out what matches this pattern: *, ?, [a-z], ** across folders; may be given often, and the
    /// first pattern that matches decides
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<OsString>,

    /// Keep what matches this pattern, even if a later --exclude matches too
    #[arg(long, value_name = "PATTERN")]
    include: Vec<OsString>,
}

/// Where files are, or are to be.
#[derive(Debug, Args)]
struct Place {
    /// This file, or the file of that name in this folder; with get, - is standard output. With get -r, this
    /// folder, or with / at its end the folder of that name in it
    #[arg(short, long, value_name = "PATH", conflicts_with = "directory")]
    output: Option<PathBuf>,

    /// This folder; get creates it if it is missing
    #[arg(short, long, value_name = "DIR", default_value = "client_downloads")]
    directory: PathBuf,
}

#[derive(Debug, Args)]
struct Options {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    chosen: Chosen,

    #[command(flatten)]
    moving: Moving,

    /// Begin at nothing, even if a part of the file is here
    #[arg(long)]
    restart: bool,

    /// Which version of the protocol to speak; auto is the newest that the server understands
    #[arg(long, value_enum, value_name = "VERSION", default_value = "auto")]
    protocol: ProtocolArg,

    /// Do not wait until the file is safely on the disk
    #[arg(long)]
    no_sync: bool,

    #[command(flatten)]
    hook: Hook,

    #[command(flatten)]
    common: Common,
}

/// What is run when a file is here.
#[derive(Debug, Args)]
struct Hook {
    /// Command to run for each file that was received (with get -r, for each folder), without a shell; what there is to
    /// know of it is in its environment (ONEPORT_PATH, ONEPORT_NAME, ...)
    #[arg(long, value_name = "COMMAND")]
    on_received: Option<Words>,

    /// How long that command may run before it is killed
    #[arg(long, value_name = "TIME", default_value = "5m")]
    on_received_timeout: Span,
}

/// How files are moved between two machines, in whichever direction.
#[derive(Debug, Args)]
struct Moving {
    /// What to do when the file exists [default: always; with -r and --files-from: different]
    #[arg(long, value_enum, value_name = "WHEN")]
    overwrite: Option<OverwriteArg>,

    /// Connections at once for one large file
    #[arg(short = 'j', long, value_name = "N", default_value_t = V2_LINKS,
        value_parser = clap::value_parser!(u64).range(1..=V2_LINKS_MAX))]
    connections: u64,

    /// Most bytes per second of a file or folder, over all its connections; 0 means no limit [default: 0]
    #[arg(long, value_name = "RATE")]
    limit_rate: Option<Rate>,

    /// How urgent it is, 0 to 10: the server moves files of a higher priority first
    #[arg(long, value_name = "N", default_value_t = Priority::default())]
    priority: Priority,

    /// Accept only the file with this checksum: blake3=HEX, sha256=HEX or md5=HEX
    #[arg(long, value_name = "CHECKSUM")]
    checksum: Option<Checksum>,

    /// How to show progress; auto is a bar on a terminal and lines elsewhere
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    progress: Progress,
}

/// What every command understands.
#[derive(Debug, Args)]
struct Common {
    /// Say only what went wrong
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,

    /// Say more
    #[arg(short, long)]
    verbose: bool,

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

    /// Folder for log files
    #[arg(long, value_name = "DIR", default_value = "logs")]
    log_dir: PathBuf,

    /// What is logged: error, warn, info, debug, trace, or a filter
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,

    #[command(flatten)]
    security: SecurityArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArg {
    /// The newest that the server understands
    Auto,
    /// Version 1: the original's
    V1,
    /// Version 2, or nothing
    V2,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OverwriteArg {
    /// Keep it, and fail
    Never,
    /// Replace it if it differs: of a single file that is fetched in any byte, else in size or time
    Different,
    /// Replace it
    Always,
}

/// What a client that listens does with a name that is taken. A file with the very same bytes is always left alone.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExistingArg {
    /// Save the new one as 'NAME (1)', and keep both
    Rename,
    /// Keep it, and refuse the new one
    Never,
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

/// Why there is nothing to do.
#[derive(Debug)]
pub(crate) enum ArgsError {
    /// Clap knows what to say; help and version are among it.
    Clap(clap::Error),
    /// A sentence for the user.
    Wrong(String),
    /// The user was asked for something and pressed Ctrl+C.
    Interrupted,
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
            "client [OPTIONS] <FILE> [HOST [PORT]]\n       client get|stat|verify [-s HOST[:PORT]] [OPTIONS] <NAME>...\n       \
             client get -r [-s HOST[:PORT]] [OPTIONS] <FOLDER>...\n       \
             client put [-r] [-s HOST[:PORT]] [OPTIONS] <FILE>... [--to DIR]\n       \
             client ls [-s HOST[:PORT]] [OPTIONS] [NAME]...\n       \
             client rm [-r] [-s HOST[:PORT]] <NAME>...\n       \
             client mv [-s HOST[:PORT]] <FROM> <TO>\n       \
             client listen --name NAME [-d DIR] [-s HOST[:PORT]]\n       \
             client push [-s HOST[:PORT]] <RECEIVER,...> <FILE>...\n       \
             client ping [-s HOST[:PORT]]\n       \
             client status|clients|history [-s HOST[:PORT]] [OPTIONS]\n       \
             client cancel [-s HOST[:PORT]] <ID>",
        )
        .after_help(exit_statuses())
        .color(color)
}

/// Reads a command line; the first argument is the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Job, ArgsError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    security::check_words(&arguments)?;
    let mut matches = command().try_get_matches_from(arguments)?;
    let patterns = job::patterns(matches.subcommand().map_or(&matches, |(_, matches)| matches));
    let mut cli = Cli::from_arg_matches_mut(&mut matches)?;
    match cli.command.take() {
        Some(command) => of_command(command, patterns),
        None => of_file(cli, patterns),
    }
}

/// What `--include` and `--exclude` say, in their order.
type Patterns = Vec<(Verdict, OsString)>;

/// What a command is to do.
fn of_command(command: Command, patterns: Patterns) -> Result<Job, ArgsError> {
    match command {
        Command::Get { host, files_from: Some(list), options, .. } => {
            job::get_listed(host, &list, options, patterns)
        }
        Command::Get { host, names, options, .. } => job::get(Files { host, names }, options, patterns),
        Command::Put { host, files, to, name, chosen, moving, common } => {
            let named = job::Named { to, name };
            job::put(host, &files, &named, &chosen, patterns, moving, common)
        }
        Command::Listen { host, name, directory, overwrite, max_size, once, connections, hook, common } => {
            let listening = job::Listening { name, directory, overwrite, max_size, once, connections, hook };
            job::listen(host, listening, common)
        }
        Command::Push {
            host,
            receivers,
            files,
            name,
            connections,
            limit_rate,
            checksum,
            progress,
            common,
        } => {
            let priority = Priority::default();
            let moving = Moving { overwrite: None, connections, limit_rate, priority, checksum, progress };
            job::push(host, &receivers, &files, name, moving, common)
        }
        Command::Rm { host, names, recursive, common } => job::rm(host, names, recursive, common),
        Command::Mv { host, from, to, replace, common } => job::mv(host, &from, &to, replace, common),
        Command::Stat { files, common } => job::stat(files, common),
        Command::Verify { files, place, common } => job::verify(files, &place, common),
        Command::Ls { host, names, chosen, long, common } => {
            job::ls(host, names, &chosen, patterns, long, common)
        }
        Command::Status { host, common } => job::control(host, Question::Status, common),
        Command::Clients { host, common } => job::control(host, Question::Clients, common),
        Command::History { host, wanted, common } => job::control(host, wanted.question(), common),
        Command::Cancel { host, which, common } => job::control(host, which.question(), common),
        Command::Ping { host, count, common } => job::ping(host, count, common),
    }
}

/// A file, and the server that has it, without a command.
fn of_file(cli: Cli, patterns: Patterns) -> Result<Job, ArgsError> {
    let file = cli.file.unwrap_or_default();
    if let Some(word) = file.to_str().filter(|word| RESERVED.contains(word)) {
        return Err(ArgsError::Wrong(reserved(word)));
    }
    let server = match (&cli.host, cli.port) {
        (None, _) => None,
        (Some(host), None) if host.starts_with(Server::SCHEME) => {
            Some(host.parse().map_err(|error: ServerError| ArgsError::Wrong(error.to_string()))?)
        }
        (Some(host), port) => {
            let server = Server::new(host, port.unwrap_or(DEFAULT_PORT));
            Some(server.map_err(|error| ArgsError::Wrong(error.to_string()))?)
        }
    };
    job::get(Files { host: Host { server }, names: vec![file] }, cli.options, patterns)
}

fn reserved(word: &str) -> String {
    if COMMANDS.contains(&word) {
        return format!(
            "options come after the command: client {word} [OPTIONS] ...; for a file of that name: client ./{word}"
        );
    }
    format!(
        "'{word}' is reserved for a command to come; for a file of that name: client ./{word}, or client get {word}"
    )
}

#[cfg(test)]
#[path = "args/tests.rs"]
mod tests;
