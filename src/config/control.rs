//! What is asked of a running server on the command line of either program, checked.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::ConfigError;
use super::keys::Place;
use crate::control::{Direction, Outcome, Question, Wanted};
use crate::limits::{HISTORY_CLIENT_MAX, HISTORY_SHOWN, PATTERN_MAX, TRANSFER_ID_MAX};
use crate::patterns::{Pattern, Verdict};
use crate::units::Span;

/// Which transfers of the past are wanted.
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// Those that ended at this moment or later: 2h, 7d, 2027-01-31 or 2027-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    since: Option<Moment>,

    /// Those that ended before this moment
    #[arg(long, value_name = "WHEN")]
    until: Option<Moment>,

    /// Those of the key of this name, or from this address
    #[arg(long, value_name = "KEY|ADDRESS", value_parser = client)]
    client: Option<String>,

    /// Those that ended so
    #[arg(long, value_enum, value_name = "RESULT")]
    result: Option<ResultArg>,

    /// Those that went this way
    #[arg(long, value_enum, value_name = "WAY")]
    direction: Option<DirectionArg>,

    /// Those of files whose names match this pattern: *, ?, [a-z], ** across folders
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    name: Option<String>,

    /// The newest so many; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = HISTORY_SHOWN)]
    limit: u32,
}

/// Which transfer is meant.
#[derive(Clone, Debug, Args)]
pub struct CancelArgs {
    /// What `status` calls it
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ResultArg {
    /// Whole
    Ok,
    /// Before its end
    Failed,
    /// By somebody's word
    Cancelled,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DirectionArg {
    /// To a client
    Download,
    /// From a client
    Upload,
    /// From one client to another one
    Push,
}

/// A moment of the past, or a time that has gone by since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long ago.
    Ago(Span),
    /// Then.
    At(Timestamp),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(moment) = text.parse() {
            return Ok(Self::At(moment));
        }
        if let Ok(day) = text.parse::<Date>() {
            // The beginning of the day, in the time that logs have too.
            let day = day.to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?;
            return Ok(Self::At(day.timestamp()));
        }
        // A bare number is more likely a year than so many seconds.
        match text.parse() {
            Ok(span) if text.ends_with(|c: char| c.is_ascii_alphabetic()) => Ok(Self::Ago(span)),
            _ => Err("write 2h, 7d, 2027-01-31 or 2027-01-31T12:00:00Z".to_owned()),
        }
    }
}

impl Moment {
    /// In milliseconds since 1970.
    #[must_use]
    pub fn millis(self, now: Timestamp) -> i64 {
        match self {
            Self::At(moment) => moment.as_millisecond(),
            Self::Ago(Span(time)) => {
                let then = SystemTime::from(now).checked_sub(time).map(Timestamp::try_from);
                then.and_then(Result::ok).map_or(i64::MIN + 1, Timestamp::as_millisecond)
            }
        }
    }
}

impl HistoryArgs {
    /// What is asked for, now.
    #[must_use]
    pub fn question(self) -> Question {
        let now = Timestamp::now();
        Question::History(Wanted {
            since_ms: self.since.map(|moment| moment.millis(now)),
            until_ms: self.until.map(|moment| moment.millis(now)),
            result: self.result.map(|result| match result {
                ResultArg::Ok => Outcome::Ok,
                ResultArg::Failed => Outcome::Failed,
                ResultArg::Cancelled => Outcome::Cancelled,
            }),
            direction: self.direction.map(|direction| match direction {
                DirectionArg::Download => Direction::Download,
                DirectionArg::Upload => Direction::Upload,
                DirectionArg::Push => Direction::Push,
            }),
            client: self.client.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            limit: self.limit,
        })
    }
}

impl CancelArgs {
    /// What is asked for.
    #[must_use]
    pub fn question(self) -> Question {
        Question::Cancel(self.id)
    }
}

fn client(text: &str) -> Result<String, String> {
    bounded(text, HISTORY_CLIENT_MAX)
}

fn id(text: &str) -> Result<String, String> {
    bounded(text, TRANSFER_ID_MAX)
}

fn bounded(text: &str, max: usize) -> Result<String, String> {
    if (1..=max).contains(&text.len()) { Ok(text.to_owned()) } else { Err(format!("1 to {max} bytes")) }
}

fn pattern(text: &str) -> Result<String, String> {
    let text = bounded(text, PATTERN_MAX)?;
    Pattern::parse(Verdict::Include, text.clone().into()).map(|_| text).map_err(|error| error.to_string())
}

/// How `server status` and `server clients` are asked for.
#[derive(Clone, Debug, Args)]
pub struct Plain {
    #[command(flatten)]
    how: How,
}

/// How `server history` is asked for.
#[derive(Clone, Debug, Args)]
pub struct History {
    #[command(flatten)]
    wanted: HistoryArgs,

    #[command(flatten)]
    how: How,
}

/// How `server cancel` is asked for.
#[derive(Clone, Debug, Args)]
pub struct Cancel {
    #[command(flatten)]
    which: CancelArgs,

    #[command(flatten)]
    how: How,
}

#[derive(Clone, Debug, Args)]
struct How {
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: Place,
}

/// What is asked of the server that runs with a state folder.
#[derive(Clone, Debug)]
pub struct ControlTask {
    /// Folder of the server's state.
    pub state: PathBuf,
    /// What is asked.
    pub question: Question,
    /// For programs.
    pub json: bool,
}

impl Plain {
    pub(super) fn task(self, question: Question) -> Result<ControlTask, ConfigError> {
        self.how.task(question)
    }
}

impl History {
    pub(super) fn task(self) -> Result<ControlTask, ConfigError> {
        self.how.task(self.wanted.question())
    }
}

impl Cancel {
    pub(super) fn task(self) -> Result<ControlTask, ConfigError> {
        self.how.task(self.which.question())
    }
}

impl How {
    fn task(self, question: Question) -> Result<ControlTask, ConfigError> {
        Ok(ControlTask { state: self.place.folder()?, question, json: self.json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_a_time_a_day_or_a_date() {
        let now: Timestamp = "2027-02-01T00:00:00Z".parse().unwrap();
        for (text, at) in [
            ("2h", "2027-01-31T22:00:00Z"),
            ("7d", "2027-01-25T00:00:00Z"),
            ("2027-01-31", "2027-01-31T00:00:00Z"),
            ("2027-01-31T12:00:00+01:00", "2027-01-31T11:00:00Z"),
        ] {
            let moment = text.parse::<Moment>().unwrap().millis(now);
            assert_eq!(moment, at.parse::<Timestamp>().unwrap().as_millisecond(), "{text}");
        }
        for text in ["", "2027", "yesterday", "-2h"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
