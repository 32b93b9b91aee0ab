//! Words that name files and folders of a server, and where what they name is saved.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use oneport::client::{Server, Target};
use oneport::limits::{COMPONENT_MAX, NAME_MAX};
use oneport::names::base;
use oneport::text;

use super::{ArgsError, File, Files, Place, wrong};

/// How a file on a server is written in one word.
pub(super) const SCHEME: &str = Server::SCHEME;

pub(super) fn checked_files(files: Files, place: &Place, may_pour: bool) -> Result<Vec<File>, ArgsError> {
    let named = files.host.server;
    let server = named.clone().unwrap_or_default();
    let mut checked = Vec::new();
    let mut targets = BTreeSet::new();
    for name in &files.names {
        let is_located = name.as_bytes().starts_with(SCHEME.as_bytes());
        if is_located && named.is_some() {
            return wrong("the server is named twice: in oneport://HOST:PORT/NAME, and beside it");
        }
        let (server, name) = located(name, &server)?;
        let target = target(&name, place, files.names.len() > 1)?;
        if target == Target::Stdout && !may_pour {
            return wrong("standard output is no file that could be compared");
        }
        if !targets.insert(target.path().map(Path::to_owned)) && matches!(target, Target::File(_)) {
            let (name, target) = (text::shown(&name), target.shown());
            return wrong(&format!("'{name}' and another file would both be {target}"));
        }
        checked.push(File { server, name, target });
    }
    Ok(checked)
}

/// The server and the name of a file, written as a name or as `oneport://HOST:PORT/NAME`. Whether there
/// is such a file is for the server to say.
pub(super) fn located(word: &OsStr, server: &Server) -> Result<(Server, Vec<u8>), ArgsError> {
    let (server, name) = placed(word, server)?;
    match name.len() {
        0 => wrong(&format!("'{}' cannot be asked for: the name is empty", text::shown(word.as_bytes()))),
        _ => Ok((server, name)),
    }
}

/// The server and the name of a folder; the name is empty for all that is served.
pub(super) fn folder(word: &OsStr, server: &Server) -> Result<(Server, Vec<u8>), ArgsError> {
    let (server, name) = placed(word, server)?;
    let end = name.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let name = match &name[..end] {
        b"." => Vec::new(),
        folder => folder.to_vec(),
    };
    Ok((server, name))
}

/// As [`located`], but the name may be empty.
fn placed(word: &OsStr, server: &Server) -> Result<(Server, Vec<u8>), ArgsError> {
    let shown = text::shown(word.as_bytes()).to_string();
    let refused = |why: &str| Err(ArgsError::Wrong(format!("'{shown}' cannot be asked for: {why}")));
    let (server, name) = match word.as_bytes().strip_prefix(SCHEME.as_bytes()) {
        None => {
            let name = word.as_bytes();
            (server.clone(), name.strip_prefix(b"./").unwrap_or(name).to_vec())
        }
        Some(rest) => {
            let Some(slash) = rest.iter().position(|&byte| byte == b'/') else {
                return refused("write oneport://HOST:PORT/NAME");
            };
            let behind = &rest[slash + 1..];
            let (name, pin) = match behind.iter().position(|&byte| byte == b'#') {
                None => (behind, None),
                Some(at) => {
                    match std::str::from_utf8(&behind[at + 1..]).ok().and_then(|pin| pin.parse().ok()) {
                        Some(pin) => (&behind[..at], Some(pin)),
                        None => return refused("what stands behind # is no pin; write # in a name as %23"),
                    }
                }
            };
            let host = std::str::from_utf8(&rest[..slash]).ok().and_then(|host| host.parse().ok());
            let (Some(server), Some(name)) = (host, unescaped(name)) else {
                return refused("write oneport://HOST:PORT/NAME, with %25 for %");
            };
            (Server { pin, ..server }, name)
        }
    };
    match name.len() {
        NAME_TOO_LONG.. => refused("it is too long"),
        _ => Ok((server, name)),
    }
}

const NAME_TOO_LONG: usize = NAME_MAX + 1;

/// Undoes percent-encoding (RFC 3986, section 2.1).
fn unescaped(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            plain.push(byte);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>()?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        plain.push(u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()?);
        rest = behind;
    }
    Some(plain)
}

pub(super) fn target(name: &[u8], place: &Place, several: bool) -> Result<Target, ArgsError> {
    let base = base(name);
    let within = |folder: &Path| match base {
        b"" | b"." | b".." => {
            let name = text::shown(name);
            wrong(&format!("'{name}' does not end in a file's name; say where to save it with -o"))
        }
        long if long.len() > COMPONENT_MAX => wrong(&format!(
            "'{}' is too long for a file's name here; say where to save it with -o",
            text::shown(long)
        )),
        _ => Ok(Target::File(folder.join(OsString::from_vec(base.to_vec())))),
    };
    match place.output.as_deref() {
        None => within(&place.directory),
        Some(path) if path == Path::new("-") => Ok(Target::Stdout),
        Some(path) if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") => within(path),
        Some(_) if several => wrong("several files can only be saved into a folder: -o DIR/"),
        Some(path) if path.as_os_str().is_empty() => wrong("-o must not be empty"),
        Some(path) => Ok(Target::at(path.to_owned())),
    }
}
