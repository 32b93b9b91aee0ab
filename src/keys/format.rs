//! The file of keys as text: one `[[key]]` each, in TOML.
//!
//! Reading accepts only what is understood as a whole: a misspelt word could otherwise mean more rights
//! than were meant. Errors repeat nothing of the file.

use std::collections::HashSet;
use std::fmt::Write;

use jiff::Timestamp;
use serde::Deserialize;

use super::Key;
use crate::limits::KEYS_MAX;
use crate::names::FileName;
use crate::rights::{Grant, Rights};
use crate::token::{KeyId, TokenHash};

const HEADING: &str = "# The API keys of this server. Of each only a hash is kept: nobody can get the key back from it.\n\
    # Edit it with: server key add, server key revoke. A running server follows at once.\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    #[serde(default)]
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    name: String,
    hash: String,
    allow: Vec<String>,
    path: Option<String>,
    created: String,
    expires: Option<String>,
    quota: Option<u64>,
}

/// What keeps a text from being a list of keys.
pub(super) enum Fault {
    TooMany,
    Wrong(String),
}

/// Reads all keys.
pub(super) fn parse(text: &str) -> Result<Vec<Key>, Fault> {
    let listed: Listed = toml::from_str(text).map_err(|error| Fault::Wrong(place(text, &error)))?;
    if listed.key.len() > KEYS_MAX {
        return Err(Fault::TooMany);
    }
    let mut ids = HashSet::new();
    let mut keys = Vec::with_capacity(listed.key.len());
    for (index, entry) in listed.key.into_iter().enumerate() {
        let wrong = |what: &str| Fault::Wrong(format!("of key {} {what}", index + 1));
        let key = key(entry).map_err(wrong)?;
        if !ids.insert(key.id) {
            return Err(wrong("the id is that of another one"));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn key(entry: Entry) -> Result<Key, &'static str> {
    let time = |text: String| text.parse::<Timestamp>().map_err(|_| "a time is not as in RFC 3339");
    let rights: Rights = entry.allow.join(",").parse().map_err(|_| "the rights are none")?;
    let prefix = match entry.path {
        None => Box::default(),
        Some(path) => prefix(&path).ok_or("the path is none beneath the root")?,
    };
    Ok(Key {
        id: KeyId::parse(&entry.id).ok_or("the id is none")?,
        name: entry.name.parse().map_err(|_| "the name is none")?,
        hash: TokenHash::parse_hex(&entry.hash).ok_or("the hash is none")?,
        grant: Grant { rights, prefix },
        created: time(entry.created)?,
        expires: entry.expires.map(time).transpose()?,
        quota: entry.quota,
    })
}

/// A prefix as a grant holds it; `None` if no file could have such a name.
fn prefix(path: &str) -> Option<Box<[u8]>> {
    FileName::parse(path.as_bytes()).ok().map(|name| name.as_bytes().into())
}

fn place(text: &str, error: &toml::de::Error) -> String {
    // Its message names keys and kinds of values. A value itself stands in it where a string was not
    // expected: then it is not a secret that somebody has put into the wrong place.
    let message = crate::text::shown(error.message().trim_end().as_bytes()).to_string();
    let line =
        error.span().and_then(|span| text.get(..span.start)).map(|before| before.lines().count().max(1));
    line.map_or_else(|| message.clone(), |line| format!("near line {line}: {message}"))
}

/// Writes all keys.
pub(super) fn render(keys: &[Key]) -> String {
    let mut text = String::from(HEADING);
    for Key { id, name, hash, grant, created, expires, quota } in keys {
        let allow: Vec<String> = grant.rights.iter().map(|right| format!("\"{}\"", right.name())).collect();
        let allow = allow.join(", ");
        let _ = write!(
            text,
            "\n[[key]]\nid = \"{id}\"\nname = \"{name}\"\nhash = \"{hash}\"\nallow = [{allow}]\n"
        );
        if !grant.prefix.is_empty() {
            let _ = writeln!(text, "path = {}", quoted(&String::from_utf8_lossy(&grant.prefix)));
        }
        let _ = writeln!(text, "created = \"{created}\"");
        if let Some(expires) = expires {
            let _ = writeln!(text, "expires = \"{expires}\"");
        }
        if let Some(quota) = quota {
            let _ = writeln!(text, "quota = {quota}");
        }
    }
    text
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
