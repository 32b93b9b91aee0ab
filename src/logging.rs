//! The log of a program: one file for auditing and, if wanted, the console.
//!
//! Owns the global `tracing` subscriber and the threads that write. A binary calls [`start`] once
//! and [`Logging::close`] as its last act; everything else only says `tracing::info!(…)`. Whoever
//! logs never waits for a console, and no failure to write a log ever stops the program.
//!
//! A line goes: `line` (an event becomes text) → `channel` (a bounded queue and its thread) →
//! `journal` (rotation, healing, what was lost) → `folder` (the files), and → `terminal`.

mod batch;
mod channel;
mod folder;
mod journal;
mod line;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Dispatch, dispatcher};
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::error::{Code, is_no_space};
use crate::limits::{LOG_CONSOLE_FLUSH_TIMEOUT, LOG_CONSOLE_QUEUE, LOG_FLUSH_TIMEOUT, LOG_QUEUE};
use channel::{Channel, Tee, Unseen};
use folder::Folder;
use journal::{Journal, Rotation, Status};
use line::Lines;
use terminal::Terminal;

/// The target of events that are for the file alone: the console does not show them.
pub const FILE_ONLY: &str = "oneport::file_only";

/// Which program logs; its log files are named after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `server_YYYYMMDD_HHMMSS.log`
    Server,
    /// `client_YYYYMMDD_HHMMSS.log`
    Client,
}

/// How a line looks, in the file and on the console alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 3339 local time with offset, level, message. Fields other than the message are not shown.
    Text,
    /// One JSON object per line (RFC 8259): `timestamp`, `level`, then `message` and all fields.
    Json,
}

/// The log on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Console {
    /// Whether the level is coloured; text format only.
    pub color: bool,
}

/// What a program decides about its log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program.
    pub role: Role,
    /// Folder of the log files, made when it is missing.
    pub dir: PathBuf,
    /// How lines look.
    pub format: Format,
    /// What is logged: a level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or a list of
    /// `target=level` and a level, separated by commas.
    pub level: String,
    /// Whether lines appear on standard error too.
    pub console: Option<Console>,
    /// Size past which no line makes a file grow, in bytes; a longer line has a file of its own.
    /// (What the log notes about itself may exceed it.)
    pub size_max: u64,
    /// Age at which the next line begins a new file.
    pub age_max: Duration,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The folder does not exist and cannot be made, or no file can be created in it.
    #[error("cannot create a log file in {}: {source}; make the folder writable or choose another one", .dir.display())]
    Folder {
        /// The folder that was asked for.
        dir: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The level is none.
    #[error(
        "'{level}' is not a log level: {reason}; use off, error, warn, info, debug or trace, \
         or a list such as 'warn,oneport=debug'"
    )]
    Level {
        /// What was asked for.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This process logs already.
    #[error("the log has been started already")]
    Started,
}

impl StartError {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Folder { source, .. } if is_no_space(source) => Code::NoSpace,
            Self::Folder { .. } => Code::LocalIo,
            Self::Level { .. } => Code::Usage,
            Self::Started => Code::Other,
        }
    }
}

/// A running log. Dropping it is closing it.
#[derive(Debug)]
#[must_use]
pub struct Logging {
    file: Channel,
    console: Channel,
    status: Arc<Status>,
}

impl Logging {
    /// The file that is being written; another one after each rotation.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.status.path()
    }

    /// Lines that could not be written to a file so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.status.lost()
    }

    /// Ends the log: when it returns, every line logged before is in the file, unless that took
    /// longer than [`LOG_FLUSH_TIMEOUT`]. Lines logged afterwards go nowhere.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.console.drain(LOG_CONSOLE_FLUSH_TIMEOUT);
        let end = Instant::now() + LOG_FLUSH_TIMEOUT;
        // Only a queue that has been emptied takes one more without a wait.
        if self.file.drain(LOG_FLUSH_TIMEOUT) {
            self.file.inlet().hand(journal::TELL_ALL);
            self.file.drain(end.saturating_duration_since(Instant::now()));
        }
        self.file.end();
        self.console.end();
    }
}

/// Begins to log, for the rest of the process.
///
/// # Errors
/// No file can be created, the level makes no sense, or this process logs already.
pub fn start(settings: &Settings) -> Result<Logging, StartError> {
    let (dispatch, logging) = assemble(settings, io::stderr())?;
    dispatcher::set_global_default(dispatch).map_err(|_| StartError::Started)?;
    Ok(logging)
}

/// The subscriber and its writers, with `stderr` as the console.
fn assemble(
    settings: &Settings,
    stderr: impl Write + Send + 'static,
) -> Result<(Dispatch, Logging), StartError> {
    let filter = filter(&settings.level)?;
    let lines = Lines::new(settings.format);
    let folder = Folder::new(settings.dir.clone(), settings.role, lines.clock());
    let rotation = Rotation { size_max: settings.size_max, age_max: settings.age_max };
    let started = Journal::start(folder, lines.clone(), rotation, Instant::now());
    let mut journal = started.map_err(|source| StartError::Folder { dir: settings.dir.clone(), source })?;
    let status = journal.status();

    // This channel exists for a client too: warnings about the log itself must not block either.
    let color = settings.format == Format::Text && settings.console.is_some_and(|console| console.color);
    let terminal = Terminal::new(stderr, color);
    let failed = terminal.failed();
    let console = Channel::lossy("log-console", LOG_CONSOLE_QUEUE, terminal);
    let warnings = console.inlet();
    journal.warn_through(move |line| warnings.hand(line));
    journal.watch(Unseen::new(&console, failed));
    let file = Channel::patient("log-file", LOG_QUEUE, journal);

    let tee = Tee::new(file.inlet(), settings.console.map(|_| console.inlet()));
    let layer = fmt::layer()
        .event_format(lines)
        .fmt_fields(format::debug_fn(|_, _, _| Ok(()))) // spans are not shown and cost nothing
        .with_writer(tee)
        .with_ansi(false)
        .log_internal_errors(false); // it would print, and panic where it cannot
    let dispatch = Dispatch::new(Registry::default().with(filter).with(layer));
    Ok((dispatch, Logging { file, console, status }))
}

/// The filter that `level` describes. A word alone must be a level: `tracing` would take a misspelt
/// one for a target and be silent about everything else.
fn filter(level: &str) -> Result<EnvFilter, StartError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let wrong = |reason: String| StartError::Level { level: level.to_owned(), reason };
    if level.trim().is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    let is_plain = |word: &str| !word.contains(['=', '[', ']', '{', '}']);
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let words: Vec<&str> = level.split(',').map(str::trim).collect();
    if let Some(word) = words.iter().find(|word| is_plain(word) && !is_level(word)) {
        return Err(wrong(format!("there is no level '{word}'")));
    }
    EnvFilter::builder().parse(words.join(",")).map_err(|error| wrong(error.to_string()))
}
