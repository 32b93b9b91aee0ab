//! What can be asked of a running server, and what it says of itself.
//!
//! A [`Question`] goes over the wire in binary form (`codec`), the answers as records: each one a JSON object
//! of text, which is also a line of what `--json` prints. Here is what their fields are called and mean; who
//! may ask, and how an answer is found, is for the rules. Names and causes in records are text of strangers:
//! whoever shows them escapes them.

use serde::{Deserialize, Serialize};

use crate::limits::{HISTORY_CLIENT_MAX, PATTERN_MAX, TRANSFER_ID_MAX};

/// Version of the format of records. Fields may be added without a new one.
const VERSION: u32 = 1;

/// What is asked of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// How is it, and what is being moved?
    Status,
    /// Who is connected?
    Clients,
    /// What was moved?
    History(Wanted),
    /// End the running transfer that is called so.
    Cancel(String),
    /// Something that is not known here, by its number.
    Unknown(u8),
}

/// Which transfers of the past are wanted: those to which all of it applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Ended at this moment or later, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Ended before this moment, in milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Ended so.
    pub result: Option<Outcome>,
    /// Went this way.
    pub direction: Option<Direction>,
    /// Of the key of this name, or from this address, with or without its port; empty for anybody.
    pub client: String,
    /// A pattern as in a listing, which the name matches; empty for every name.
    pub name: String,
    /// The newest so many; 0 for all.
    pub limit: u32,
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the client.
    Download,
    /// From the client.
    Upload,
    /// From one client to another one, which listens.
    Push,
}

impl Direction {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Download, Self::Upload, Self::Push];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Push => "push",
        }
    }

    /// The one that is called so.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| direction.name() == name)
    }
}

/// What came of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was moved.
    Ok,
    /// It ended before its end.
    Failed,
    /// Somebody who may ended it.
    Cancelled,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::Cancelled];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The one that is called so.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// A question that is too long for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} is too long")]
pub struct TooLong(&'static str);

impl Question {
    /// Whether it fits into a request.
    ///
    /// # Errors
    /// Says what of it does not.
    pub fn check(&self) -> Result<(), TooLong> {
        match self {
            Self::History(wanted) if wanted.client.len() > HISTORY_CLIENT_MAX => Err(TooLong("client")),
            Self::History(wanted) if wanted.name.len() > PATTERN_MAX => Err(TooLong("pattern")),
            Self::Cancel(id) if id.len() > TRANSFER_ID_MAX => Err(TooLong("id")),
            _ => Ok(()),
        }
    }
}

/// One thing that a server says of itself. Which one it is stands in the field `event`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Record {
    /// How it is.
    Status(Status),
    /// Something that is being moved.
    Transfer(Running),
    /// Somebody who is connected.
    Client(Connected),
    /// Something that was moved.
    Past(Past),
    /// A transfer that was ended.
    Cancelled(Cancelled),
    /// Something that is not known here.
    #[serde(other)]
    Unknown,
}

impl Record {
    /// As the JSON object that goes over the wire: one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(mut object)) => {
                object.insert("version".to_owned(), VERSION.into());
                serde_json::Value::Object(object).to_string()
            }
            // Every record is an object whose keys are text.
            _ => String::from("{}"),
        }
    }

    /// Reads one; fields that are not known are skipped, those that are missing are empty.
    ///
    /// # Errors
    /// If it is no JSON object, or one whose fields are of other kinds.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }
}

/// How a server is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Status {
    /// Version of the program.
    pub server: String,
    /// When it was started (RFC 3339, UTC).
    pub started: String,
    /// For how long it has been running, in seconds.
    pub seconds: u64,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Connections that are open.
    pub connections: u64,
    /// Connections that may be open at once.
    pub connections_max: u64,
    /// Connections that were accepted since the start.
    pub accepted: u64,
    /// Transfers that are running; a record of each follows.
    pub running: u64,
    /// Files that were sent whole since the start.
    pub sent: u64,
    /// Bytes that were sent of files since the start, those of cut transfers included.
    pub sent_bytes: u64,
    /// Files that were stored since the start.
    pub stored: u64,
    /// Bytes that came in of files since the start, those of cut uploads included.
    pub stored_bytes: u64,
    /// Transfers that ended before their end since the start.
    pub cut: u64,
    /// Those of them that were cancelled.
    pub cancelled: u64,
    /// Requests that were refused since the start.
    pub refused: u64,
}

/// A transfer that is running.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Running {
    /// What it is called, as long as the server runs.
    pub id: String,
    /// The client's address and port.
    pub peer: String,
    /// The name of the key that the client has shown.
    pub key: Option<String>,
    /// The dialect that is spoken.
    pub dialect: String,
    /// `download` or `upload`.
    pub direction: String,
    /// The file.
    pub name: String,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of the file that are there, of earlier transfers too.
    pub done: u64,
    /// Bytes that this transfer has moved.
    pub moved: u64,
    /// For how long it has been running, in seconds.
    pub seconds: u64,
    /// Bytes per second that it has moved since it began.
    pub rate: u64,
    /// How urgent it is, 0 to 10.
    pub priority: u8,
}

/// A connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Connected {
    /// The client's address and port.
    pub peer: String,
    /// The name of the key that the client has shown.
    pub key: Option<String>,
    /// The dialect that is spoken; `unknown` until the client has asked for something.
    pub dialect: String,
    /// Whether it is encrypted.
    pub secure: bool,
    /// Since when it is open (RFC 3339, UTC).
    pub since: String,
    /// For how long it has been open, in seconds.
    pub seconds: u64,
    /// What it does: `download NAME`, `upload NAME`, or `idle`, where NAME may be shortened.
    pub doing: String,
    /// The ids of the transfers that it takes part in, the first few of them.
    pub transfers: Vec<String>,
    /// Bytes that were sent over it, whatever they are; over TLS as they go over the wire.
    pub sent: u64,
    /// Bytes that came over it, likewise.
    pub received: u64,
}

/// A transfer that has ended, or the small files of one connection taken together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Past {
    /// When it ended (RFC 3339, UTC).
    pub ended: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The client's address and port.
    pub peer: String,
    /// The name of the key that the client had shown.
    pub key: Option<String>,
    /// The dialect that was spoken.
    pub dialect: String,
    /// `download` or `upload`.
    pub direction: String,
    /// The file; of several small files the last one.
    pub name: String,
    /// How many files.
    pub files: u64,
    /// Bytes of the files.
    pub size: u64,
    /// Bytes that were moved.
    pub moved: u64,
    /// `blake3=HEX` or `md5=HEX` of a single file that was moved whole.
    pub digest: Option<String>,
    /// `ok`, `failed` or `cancelled`.
    pub result: String,
    /// Why it is not whole.
    pub cause: Option<String>,
    /// The name of the key whose holder cancelled it; `owner` for whoever did so on the server's own machine.
    pub cancelled_by: Option<String>,
}

/// A transfer that was ended by whoever asked for that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Cancelled {
    /// What it was called.
    pub id: String,
    /// The client's address and port.
    pub peer: String,
    /// The name of the key that the client has shown.
    pub key: Option<String>,
    /// `download` or `upload`.
    pub direction: String,
    /// The file.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_whatever_a_newer_server_adds() {
        let running = Running { id: "abc-1".into(), name: "a\n\u{1b}".into(), size: 7, ..Running::default() };
        let json = Record::Transfer(running.clone()).to_json();
        assert!(!json.contains('\n') && json.contains(r#""version":1"#), "{json}");
        let grown = json.replacen('{', r#"{"colour":"red","#, 1);
        assert_eq!(Record::parse(grown.as_bytes()).unwrap(), Record::Transfer(running));
        assert_eq!(Record::parse(br#"{"event":"weather","sun":true}"#).unwrap(), Record::Unknown);
        let bare = Record::parse(br#"{"event":"status"}"#).unwrap();
        assert_eq!(bare, Record::Status(Status::default()));
        assert!(Record::parse(b"[]").is_err() && Record::parse(b"{}").is_err());
    }

    #[test]
    fn what_no_request_can_hold_is_told_before() {
        let client = Wanted { client: "x".repeat(HISTORY_CLIENT_MAX + 1), ..Wanted::default() };
        for (question, fits) in [
            (Question::Cancel("x".repeat(TRANSFER_ID_MAX)), true),
            (Question::Cancel("x".repeat(TRANSFER_ID_MAX + 1)), false),
            (Question::History(client), false),
        ] {
            assert_eq!(question.check().is_ok(), fits, "{question:?}");
        }
    }
}
