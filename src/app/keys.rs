//! `server key …`: keys are made, listed, changed and revoked in the state folder, beside a server that may be
//! running. A token is shown once, on standard output, and is nowhere else.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use serde_json::json;
use zeroize::Zeroizing;

use super::address::Address;
use super::{Failure, folders, say};
use crate::config::keys::{Action, Expiry, KeyTask};
use crate::error::{Code, in_words};
use crate::keys::{self, Change, Key, KeysError};
use crate::pin::Pin;
use crate::text::shown;
use crate::tls::Identity;
use crate::token::{TOKEN_RANDOM, Token};
use crate::units::Bytes;

/// Does what was asked for.
pub(super) fn run(task: KeyTask) -> anyhow::Result<ExitCode> {
    let KeyTask { state, action } = task;
    match action {
        Action::Add { name, grant, expires, quota, json } => {
            let created = whole_second(Timestamp::now());
            let expires = expires.map(ends_at).transpose()?;
            let token = new_token()?;
            let (id, hash) = (token.id(), token.hash());
            add(&state, &token, &Key { id, name, hash, grant, created, expires, quota }, json)?;
        }
        Action::List { json } => list(&state, json)?,
        Action::Set { key, expires, quota } => {
            let expires = expires.map(|when| when.map(ends_at).transpose()).transpose()?;
            set(&state, &key, Change { expires, quota })?;
        }
        Action::Revoke(word) => revoke(&state, &word)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// When a key ends that is made now.
fn ends_at(expires: Expiry) -> Result<Timestamp, Failure> {
    let moment = expires.moment(Timestamp::now()).map(whole_second);
    moment.ok_or_else(|| Failure::new(Code::Usage, "--expires must be in the future"))
}

fn add(state: &Path, token: &Token, key: &Key, json: bool) -> anyhow::Result<()> {
    folders::make_state(state)?;
    keys::add(state, key.clone(), key.created).map_err(failure)?;
    show(token, key, reach(state), json).map_err(|error| {
        let (name, cause) = (&key.name, in_words(&error));
        let text = format!(
            "the key {name} was made but could not be shown: {cause}; revoke it (server key revoke {name}) and make another"
        );
        Failure::new(Code::LocalIo, text).into()
    })
}

/// A token whose identifier can be given as an argument: it does not look like an option. One in 64 would.
pub(super) fn new_token() -> Result<Token, Failure> {
    loop {
        let mut random = Zeroizing::new([0; TOKEN_RANDOM]);
        aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut *random)
            .map_err(|_| Failure::new(Code::Other, "the system has no random numbers; no key was made"))?;
        let token = Token::new(&random);
        if !token.id().to_string().starts_with('-') {
            return Ok(token);
        }
    }
}

/// Where a client finds the server, and by what it knows it: as the server noted them when it started last. One that
/// has not been started yet gets its identity now.
fn reach(state: &Path) -> (Option<Address>, Option<Pin>) {
    match Address::noted(state) {
        Some(address) => (Some(address), address.pin),
        None => (None, Identity::load_or_make(state).ok().map(|identity| identity.pin())),
    }
}

/// The token for programs, on standard output; what a person should know about it, on standard error.
fn show(
    token: &Token,
    key: &Key,
    (address, pin): (Option<Address>, Option<Pin>),
    json: bool,
) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if json {
        let mut object = described(key);
        object["token"] = token.expose().into();
        object["address"] = address.map(Address::shown).into();
        object["pin"] = pin.map(|pin| pin.to_string()).into();
        let text = Zeroizing::new(crate::text::json_for_terminal(&object.to_string()));
        writeln!(stdout, "{}", *text)?;
        return stdout.flush();
    }
    writeln!(stdout, "{}", token.expose())?;
    stdout.flush()?;
    let ends = key.expires.map_or_else(|| "never expires".to_owned(), |expires| format!("expires {expires}"));
    let quota = key.quota.map_or_else(String::new, |quota| format!(", stores at most {}", Bytes(quota)));
    say(&format!(
        "Key {} (id {}): allows {} of {}{quota}, {ends}.",
        key.name,
        key.id,
        key.grant.rights,
        path(key),
    ));
    say("It is shown this once. Keep it where only its holder can read it; only a hash of it is kept here.");
    say(
        "A client takes it from ONEPORT_KEY, --key-file or --ask-key, and shows it over TLS to a server that it knows, or on its own machine:",
    );
    match (address, pin) {
        (Some(address), Some(_)) => say(&format!("    client ls -s '{}'", address.shown())),
        (Some(_), None) => {
            say("    this server speaks no TLS (--tls off), so keys can only be used on this machine")
        }
        (None, Some(pin)) => say(&format!("    client ls -s 'oneport://HOST:PORT#{}'", pin.letters())),
        (None, None) => say("    the server's log says its pin when it starts"),
    }
    Ok(())
}

fn list(state: &Path, json: bool) -> anyhow::Result<()> {
    let keys = keys::list(state).map_err(failure)?;
    let mut text = String::new();
    if json {
        for key in &keys {
            text += &crate::text::json_for_terminal(&described(key).to_string());
            text.push('\n');
        }
    } else {
        let rows = keys.iter().map(|key| {
            let (name, id, rights) = (key.name.to_string(), key.id.to_string(), key.grant.rights.to_string());
            [name, id, rights, until(key), quota(key), path(key)]
        });
        let heading = ["NAME", "ID", "ALLOWS", "EXPIRES", "QUOTA", "PATH"].map(str::to_owned);
        let rows: Vec<[String; 6]> = std::iter::once(heading).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        for [name, id, allows, expires, quota, path] in &rows {
            let [a, b, c, d, e] = widths;
            text += &format!("{name:a$}  {id:b$}  {allows:c$}  {expires:d$}  {quota:e$}  {path}\n");
        }
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("cannot print the keys")
}

/// Without a state folder there is nothing to lock, and nothing is to be made.
fn must_exist(state: &Path, word: &str) -> Result<(), Failure> {
    if state.is_dir() { Ok(()) } else { Err(failure(KeysError::NotFound(word.to_owned()))) }
}

fn set(state: &Path, word: &str, change: Change) -> anyhow::Result<()> {
    must_exist(state, word)?;
    let key = keys::change(state, word, change).map_err(failure)?;
    let (until, quota) = (until(&key), quota(&key));
    say(&format!("Key {} (id {}) now: expires {until}, quota {quota}.", key.name, key.id));
    Ok(())
}

fn revoke(state: &Path, word: &str) -> anyhow::Result<()> {
    must_exist(state, word)?;
    for key in keys::revoke(state, word).map_err(failure)? {
        say(&format!("Revoked key {} (id {}).", key.name, key.id));
    }
    Ok(())
}

/// A key as an object; never its hash.
fn described(key: &Key) -> serde_json::Value {
    let Key { id, name, grant, created, expires, quota, .. } = key;
    let allow: Vec<&str> = grant.rights.iter().map(crate::rights::Right::name).collect();
    let path = (!grant.prefix.is_empty()).then(|| String::from_utf8_lossy(&grant.prefix));
    json!({
        "id": id.to_string(),
        "name": name.as_str(),
        "allow": allow,
        "path": path,
        "created": created.to_string(),
        "expires": expires.map(|expires| expires.to_string()),
        "quota": quota,
        "expired": key.is_expired(Timestamp::now()),
    })
}

fn path(key: &Key) -> String {
    if key.grant.prefix.is_empty() { "everything".to_owned() } else { shown(&key.grant.prefix).to_string() }
}

/// How much a key may store, in a column.
fn quota(key: &Key) -> String {
    key.quota.map_or_else(|| "none".to_owned(), |quota| Bytes(quota).to_string())
}

/// When a key ends, in a column.
fn until(key: &Key) -> String {
    match key.expires {
        None => "never".to_owned(),
        Some(expires) if key.is_expired(Timestamp::now()) => format!("{expires} (over)"),
        Some(expires) => expires.to_string(),
    }
}

pub(super) fn whole_second(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

fn failure(error: KeysError) -> Failure {
    Failure::new(error.code(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_identifier_looks_like_an_option_and_no_two_are_the_same() {
        let ids: std::collections::BTreeSet<String> =
            (0..2000).map(|_| new_token().unwrap().id().to_string()).collect();
        assert_eq!(ids.len(), 2000);
        assert!(!ids.iter().any(|id| id.starts_with('-')));
    }
}
