//! `server key …`: what is asked of the keys, checked.
//!
//! The options of the state folder are those of the server itself, so that both mean the same keys.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{ConfigError, control, pushing, read_file, state_folder};
use crate::keys::{KeyName, KeyNameError};
use crate::limits::QUOTA_MAX;
use crate::names::FileName;
use crate::rights::{Grant, Rights};
use crate::units::{Size, Span};

/// What the server program can do besides serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Make, list, change and revoke API keys; a running server follows at once
    #[command(subcommand)]
    Key(KeyCommand),

    /// Show how the running server is, and what is being moved
    Status(control::Plain),

    /// Show who is connected to the running server
    Clients(control::Plain),

    /// Show what the running server has moved, the newest first
    History(control::History),

    /// End a running transfer, by the id that status shows
    Cancel(control::Cancel),

    /// Send files of this machine to clients that listen to the running server
    Push(pushing::Push),
}

/// What can be done with keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it, once: only a hash of it is kept
    Add(Add),
    /// List the keys
    List(List),
    /// Change until when a key is good, or how much it may store; its token stays the same
    Set(Set),
    /// Take a key away: whoever has it may do nothing with it from now on
    Revoke(Revoke),
}

/// Arguments of `key add`.
#[derive(Clone, Debug, Args)]
pub struct Add {
    /// Name of the key, for you and the log: letters, digits, '.', '_' and '-'
    #[arg(value_parser = new_name)]
    name: KeyName,

    /// What it allows: a list of read, write, delete, push and admin
    #[arg(long, value_name = "RIGHTS")]
    allow: Rights,

    /// The folder or file of the served folder to which it is limited [default: everything]
    #[arg(long, value_name = "PREFIX")]
    path: Option<Prefix>,

    /// When it ends: after a time (30d, 12h), at a day (2027-01-31) or at a moment (2027-01-31T12:00:00Z)
    /// [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<Expiry>,

    /// Most bytes that the files it stores may have in all: 500MB, 10GiB [default: no limit]
    #[arg(long, value_name = "SIZE")]
    quota: Option<Quota>,

    /// Print all that there is to know, as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: Place,
}

/// Arguments of `key list`.
#[derive(Clone, Debug, Args)]
pub struct List {
    /// Print the keys as JSON, an object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: Place,
}

/// Arguments of `key set`.
#[derive(Clone, Debug, Args)]
#[group(id = "change", required = true, multiple = true, args = ["expires", "quota"])]
pub struct Set {
    /// Name or id of the key
    #[arg(value_name = "NAME-or-ID")]
    key: String,

    /// When it ends: after a time from now (30d, 12h), at a day (2027-01-31), at a moment, or never
    #[arg(long, value_name = "WHEN", value_parser = or_word::<Expiry>("never"))]
    expires: Option<Setting<Expiry>>,

    /// Most bytes that the files it stores may have in all: 500MB, 10GiB; or none
    #[arg(long, value_name = "SIZE", value_parser = or_word::<Quota>("none"))]
    quota: Option<Setting<Quota>>,

    #[command(flatten)]
    place: Place,
}

/// A value, or the word that says that there is none.
#[derive(Clone, Copy, Debug)]
struct Setting<T>(Option<T>);

fn or_word<T: FromStr<Err = String> + Clone>(
    none: &'static str,
) -> impl Fn(&str) -> Result<Setting<T>, String> + Clone {
    move |text| if text == none { Ok(Setting(None)) } else { text.parse().map(|value| Setting(Some(value))) }
}

/// Arguments of `key revoke`.
#[derive(Clone, Debug, Args)]
pub struct Revoke {
    /// Name or id of the key
    #[arg(value_name = "NAME-or-ID")]
    key: String,

    #[command(flatten)]
    place: Place,
}

/// Where the keys are.
#[derive(Clone, Debug, Args)]
pub(super) struct Place {
    /// Folder of the server's state [default: .oneport]
    #[arg(long, env = "ONEPORT_STATE", value_name = "DIR")]
    state: Option<PathBuf>,

    /// Configuration file of the server (TOML)
    #[arg(long, env = "ONEPORT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What is to be done with the keys of a state folder.
#[derive(Clone, Debug)]
pub struct KeyTask {
    /// Folder of the server's state.
    pub state: PathBuf,
    /// What.
    pub action: Action,
}

/// What is to be done with keys.
#[derive(Clone, Debug)]
pub enum Action {
    /// Make one.
    Add {
        /// What it is called.
        name: KeyName,
        /// What it allows.
        grant: Grant,
        /// When it ends.
        expires: Option<Expiry>,
        /// Bytes that the files it stores may have in all.
        quota: Option<u64>,
        /// For programs.
        json: bool,
    },
    /// Show all.
    List {
        /// For programs.
        json: bool,
    },
    /// Change this one; what is `None` stays.
    Set {
        /// Its name or identifier.
        key: String,
        /// When it ends; `Some(None)`: never.
        expires: Option<Option<Expiry>>,
        /// Bytes that the files it stores may have in all; `Some(None)`: no limit.
        quota: Option<Option<u64>>,
    },
    /// Take this one away.
    Revoke(String),
}

/// The name of a file or folder, as text, a slash at its end left out.
#[derive(Clone, Debug)]
struct Prefix(FileName);

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('/').unwrap_or(text);
        FileName::parse(name.as_bytes())
            .map(Self)
            .map_err(|error| format!("{error}; it is relative to the served folder, as reports/2026"))
    }
}

/// Bytes that a key may store.
#[derive(Clone, Copy, Debug)]
struct Quota(u64);

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(Size(bytes)) if bytes > QUOTA_MAX => Err(format!("at most {QUOTA_MAX} bytes")),
            parsed => parsed.map(|Size(bytes)| Self(bytes)).map_err(|error| error.to_string()),
        }
    }
}

/// When a key ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// So long after it was made.
    After(Span),
    /// At this moment.
    At(Timestamp),
}

impl FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(moment) = text.parse() {
            return Ok(Self::At(moment));
        }
        if let Ok(day) = text.parse::<Date>() {
            // The beginning of the day, in the time that logs have too.
            return day
                .to_zoned(TimeZone::UTC)
                .map(|day| Self::At(day.timestamp()))
                .map_err(|error| error.to_string());
        }
        // A bare number is more likely a year than so many seconds.
        match text.parse() {
            Ok(span) if text.ends_with(|c: char| c.is_ascii_alphabetic()) => Ok(Self::After(span)),
            _ => Err("write 30d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z".to_owned()),
        }
    }
}

impl Expiry {
    /// The moment that is meant, for a key that is made `now`; `None` if that is not in the future.
    #[must_use]
    pub fn moment(self, now: Timestamp) -> Option<Timestamp> {
        let moment = match self {
            Self::At(moment) => moment,
            Self::After(Span(time)) => Timestamp::try_from(SystemTime::from(now).checked_add(time)?).ok()?,
        };
        (moment > now).then_some(moment)
    }
}

/// Checks what was asked for.
pub(super) fn task(command: KeyCommand) -> Result<KeyTask, ConfigError> {
    let (place, action) = match command {
        KeyCommand::Add(Add { name, allow, path, expires, quota, json, place }) => {
            let prefix = path.map(|Prefix(name)| name.as_bytes().into()).unwrap_or_default();
            let (grant, quota) = (Grant { rights: allow, prefix }, quota.map(|quota| quota.0));
            (place, Action::Add { name, grant, expires, quota, json })
        }
        KeyCommand::List(List { json, place }) => (place, Action::List { json }),
        KeyCommand::Set(Set { key, expires, quota, place }) => {
            let (expires, quota) = (expires.map(|set| set.0), quota.map(|set| set.0.map(|quota| quota.0)));
            (place, Action::Set { key, expires, quota })
        }
        KeyCommand::Revoke(Revoke { key, place }) => (place, Action::Revoke(key)),
    };
    Ok(KeyTask { state: place.folder()?, action })
}

impl Place {
    /// The state folder that is meant.
    pub(super) fn folder(self) -> Result<PathBuf, ConfigError> {
        let state = match (self.state, &self.config) {
            (Some(state), _) => Some(state),
            (None, Some(config)) => read_file(config)?.state,
            (None, None) => None,
        };
        Ok(state_folder(state))
    }
}

/// Reads the name of a key that is to be made.
fn new_name(text: &str) -> Result<KeyName, String> {
    match text.parse() {
        Ok(name) if name == KeyName::owner() => {
            Err("that is what the log calls whoever may read the server's state folder".to_owned())
        }
        parsed => parsed.map_err(|error: KeyNameError| error.to_string()),
    }
}
