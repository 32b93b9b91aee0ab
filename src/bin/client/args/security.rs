//! Options that say whom to trust, and where the key comes from.
//!
//! A key is read from a file, the environment or a terminal and never stands on the command line, which
//! everybody on the machine can read. What goes wrong with one is told by where it came from.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use oneport::app::say;
use oneport::client::{KnownHosts, Security, TlsMode};
use oneport::error::in_words;
use oneport::limits::{CA_FILE_MAX, KEY_FILE_MAX};
use oneport::pin::Pin;
use oneport::text::shown;
use oneport::tls::Trust;
use oneport::token::{Token, secrets};
use zeroize::Zeroizing;

use super::ArgsError;

/// The environment variable that holds a key.
const KEY_VARIABLE: &str = "ONEPORT_KEY";
/// The permission bits by which others can read a file.
const READABLE_BY_OTHERS: u32 = 0o044;
/// So many letters behind the name of a key look like its secret part, and not like a file's name.
const SECRET_LEAST: usize = 24;

#[derive(Debug, Args)]
pub(super) struct SecurityArgs {
    /// Whether to encrypt; auto does so if the server is pinned or known, or a key is to be sent
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    tls: TlsArg,

    /// Accept only a server with this key, as oneport://HOST:PORT/NAME#PIN does; may be given often
    #[arg(long, value_name = "PIN")]
    pin: Vec<Pin>,

    /// Accept servers with a certificate of these authorities (PEM)
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,

    /// Where keys of servers are remembered [default: ~/.config/oneport/known_hosts]
    #[arg(long, value_name = "FILE", env = "ONEPORT_KNOWN_HOSTS", hide_env_values = true)]
    known_hosts: Option<PathBuf>,

    /// Show the key in the first line of this file to the server; - is standard input [default: the
    /// environment's ONEPORT_KEY, if it is set]
    #[arg(long, value_name = "FILE", conflicts_with = "ask_key")]
    key_file: Option<PathBuf>,

    /// Ask for the key on the terminal
    #[arg(long)]
    ask_key: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TlsArg {
    /// If the server is pinned or known, or a key is to be sent
    Auto,
    /// Always; a server that is not known is remembered
    Require,
    /// Never
    Off,
}

impl SecurityArgs {
    /// Whether the key is to be read from standard input.
    pub(super) fn takes_stdin(&self) -> bool {
        self.key_file.as_deref() == Some(Path::new("-"))
    }

    /// What they mean. It may ask the user.
    pub(super) fn checked(self) -> Result<Security, ArgsError> {
        let mut security = Security::default();
        security.tls = match self.tls {
            TlsArg::Auto => TlsMode::Auto,
            TlsArg::Require => TlsMode::Require,
            TlsArg::Off => TlsMode::Off,
        };
        security.authorities = self.ca_cert.as_deref().map(authorities).transpose()?;
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let known_hosts = self.known_hosts.filter(|path| !path.as_os_str().is_empty());
        let known_hosts = known_hosts.or_else(|| default_known_hosts(variable));
        security.known_hosts = known_hosts.map(KnownHosts::at);
        security.key = match (self.key_file, self.ask_key) {
            (Some(path), _) => Some(key_of_file(&path)?),
            (None, true) => Some(asked_key()?),
            (None, false) => variable(KEY_VARIABLE).map(key_of_environment).transpose()?,
        };
        security.pins = self.pin;
        Ok(security)
    }
}

/// Refuses words that hold a key: everybody on the machine can read a command line.
pub(super) fn check_words(words: &[OsString]) -> Result<(), ArgsError> {
    let has_key = |word: &OsString| secrets(word.as_bytes()).any(|secret| secret.len() >= SECRET_LEAST);
    match words.iter().skip(1).any(has_key) {
        false => Ok(()),
        true => Err(ArgsError::Wrong(format!(
            "a word of the command line looks like a key. Others can read it there, and the shell may have kept \
             it, so it should be replaced by a new one. Put the key into a file that only you can read and \
             write --key-file FILE, or into the environment as {KEY_VARIABLE}, or write --ask-key"
        ))),
    }
}

/// The file of known hosts where nobody names one.
fn default_known_hosts(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".config"));
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(config.or_else(home)?.join("oneport/known_hosts"))
}

fn authorities(path: &Path) -> Result<Trust, ArgsError> {
    let name = shown(path.as_os_str().as_bytes()).to_string();
    let wrong = |why: String| ArgsError::Wrong(format!("--ca-cert {name}: {why}"));
    let mut pem = Vec::new();
    let read = File::open(path).and_then(|file| file.take(CA_FILE_MAX + 1).read_to_end(&mut pem));
    if read.map_err(|error| wrong(in_words(&error)))? as u64 > CA_FILE_MAX {
        return Err(wrong(format!("it is longer than {CA_FILE_MAX} bytes")));
    }
    Trust::authorities(&pem).map_err(|error| wrong(error.to_string()))
}

fn key_of_file(path: &Path) -> Result<Token, ArgsError> {
    let name = match path == Path::new("-") {
        true => "standard input".to_owned(),
        false => shown(path.as_os_str().as_bytes()).to_string(),
    };
    let unreadable = |error: std::io::Error| {
        ArgsError::Wrong(format!("cannot read the key from {name}: {}", in_words(&error)))
    };
    let mut text = Zeroizing::new(vec![0; KEY_FILE_MAX]);
    let count = match path == Path::new("-") {
        true => fill(&mut std::io::stdin().lock(), &mut text),
        false => File::open(path).and_then(|mut file| {
            let found = file.metadata()?;
            if found.is_file() && found.mode() & READABLE_BY_OTHERS != 0 {
                say(&format!("client: others can read the key in {name}; do: chmod 600 {name}"));
            }
            fill(&mut file, &mut text)
        }),
    };
    let count = count.map_err(unreadable)?;
    let first = text[..count].split(|&byte| byte == b'\n').next().unwrap_or_default();
    key(first.strip_suffix(b"\r").unwrap_or(first), &format!("the first line of {name}"))
}

/// Reads until a line has ended, there is no more, or no more room. The buffer is never moved, so no copy of
/// it stays in memory.
fn fill(source: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() && !into[..filled].contains(&b'\n') {
        match source.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn key_of_environment(value: OsString) -> Result<Token, ArgsError> {
    let value = Zeroizing::new(value.into_encoded_bytes());
    key(&value, KEY_VARIABLE)
}

fn asked_key() -> Result<Token, ArgsError> {
    let no_terminal =
        || ArgsError::Wrong("--ask-key needs a terminal; write --key-file FILE instead".to_owned());
    if !std::io::stdin().is_terminal() {
        return Err(no_terminal());
    }
    let word = rpassword::prompt_password("Key: ").map_err(|error| match error.kind() {
        ErrorKind::Interrupted => ArgsError::Interrupted,
        _ => no_terminal(),
    })?;
    let word = Zeroizing::new(word);
    key(word.trim().as_bytes(), "what was typed")
}

/// Reads a key; says of a wrong one only where it came from.
fn key(word: &[u8], source: &str) -> Result<Token, ArgsError> {
    Token::parse(word).map_err(|error| ArgsError::Wrong(format!("{source} is no key: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hosts_lie_where_configuration_lies() {
        let at = |xdg: Option<&str>, home: Option<&str>| {
            default_known_hosts(|name| match name {
                "XDG_CONFIG_HOME" => xdg.map(Into::into),
                _ => home.map(Into::into),
            })
        };
        assert_eq!(at(Some("/x"), Some("/h")), Some("/x/oneport/known_hosts".into()));
        assert_eq!(at(Some("x"), Some("/h")), Some("/h/.config/oneport/known_hosts".into()));
        assert_eq!(at(None, Some("/h")), Some("/h/.config/oneport/known_hosts".into()));
        assert_eq!(at(None, None), None);
    }

    #[test]
    fn a_key_on_the_command_line_is_refused_and_not_repeated() {
        let key = Token::new(&[7; oneport::token::TOKEN_RANDOM]);
        for word in
            [key.expose().to_owned(), format!("--key={}", key.expose()), key.expose()[..50].to_owned()]
        {
            let words = ["client".into(), OsString::from(&word)];
            let Err(ArgsError::Wrong(text)) = check_words(&words) else { panic!("{word}") };
            assert!(!text.contains(&word[12..30]) && text.contains("--key-file"), "{text}");
        }
        for word in ["oneport_backup_2026-01-01.tar.gz", "oneport_a_long_name_of_a_file", "f", ""] {
            assert!(check_words(&["client".into(), word.into()]).is_ok(), "{word}");
        }
    }
}
