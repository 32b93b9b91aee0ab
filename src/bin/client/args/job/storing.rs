//! Commands that change what a server holds: `put`, `rm`, `mv`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oneport::client::{Protocol, Selection, Server, Target};
use oneport::error::in_words;
use oneport::names::FileName;
use oneport::text;

use super::folders::{Word, parsed};
use super::names::{SCHEME, folder, located};
use super::{
    ArgsError, Chosen, Common, File, Host, Job, Moving, OverwriteArg, Task, common_job, moving_job, wrong,
};

/// Something local, and where it goes.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) server: Server,
    /// Its name on the server; empty for all that is served.
    pub(crate) name: Vec<u8>,
    pub(crate) local: Local,
}

/// What is stored.
#[derive(Debug)]
pub(crate) enum Local {
    File(PathBuf),
    Folder(PathBuf, Selection),
    /// Standard input.
    Input,
}

impl Upload {
    /// The name, made safe to show.
    pub(crate) fn shown(&self) -> String {
        match self.name.as_slice() {
            b"" => ".".to_owned(),
            name => text::shown(name).to_string(),
        }
    }

    /// What is stored, made safe to show.
    pub(crate) fn local_shown(&self) -> String {
        match &self.local {
            Local::File(path) | Local::Folder(path, _) => {
                text::shown(path.as_os_str().as_bytes()).to_string()
            }
            Local::Input => "standard input".to_owned(),
        }
    }
}

/// Where things are stored, as it was written.
pub(in crate::args) struct Named {
    pub(in crate::args) to: Option<OsString>,
    pub(in crate::args) name: Option<OsString>,
}

pub(in crate::args) fn put(
    host: Host,
    files: &[OsString],
    named: &Named,
    chosen: &Chosen,
    patterns: Vec<Word>,
    moving: Moving,
    common: Common,
) -> Result<Job, ArgsError> {
    let recursive = chosen.recursive;
    if !recursive && (chosen.follow_links || !patterns.is_empty()) {
        return wrong("-L, --include and --exclude choose among the files of folders: add -r");
    }
    if moving.checksum.is_some() && (recursive || files.len() > 1) {
        return wrong("--checksum is that of one file; store the files one by one");
    }
    if named.name.is_some() && files.len() > 1 {
        return wrong(
            "--name is that of one file or folder; for several, --to names the folder that they go to",
        );
    }
    let takes_stdin = files.iter().any(|file| file == "-");
    if takes_stdin && common.security.takes_stdin() {
        return wrong("- and --key-file - both want standard input");
    }
    if takes_stdin && recursive {
        return wrong("standard input is no folder; leave -r out");
    }
    let follow_links = chosen.follow_links;
    let selection = Selection { recursive: true, follow_links, itself: true, patterns: parsed(patterns)? };
    let server = host.server.unwrap_or_default();
    let (mut uploads, mut names) = (Vec::new(), BTreeSet::new());
    for word in files {
        let name = stored_name(word, named, recursive)?;
        if !names.insert(name.clone()) {
            return wrong(&format!("two of these would both be stored as '{}'", text::shown(&name)));
        }
        let local = match (word.as_bytes(), recursive) {
            (b"-", _) => Local::Input,
            (_, true) => Local::Folder(word.into(), selection.clone()),
            (_, false) => Local::File(word.into()),
        };
        uploads.push(Upload { server: server.clone(), name, local });
    }
    let overwrite = if recursive { OverwriteArg::Different } else { OverwriteArg::Always };
    let mut job = moving_job(Task::Put(uploads), Vec::new(), moving, overwrite, common)?;
    job.settings.protocol = Protocol::V2;
    Ok(job)
}

/// The name that something local gets on the server.
fn stored_name(word: &OsStr, named: &Named, recursive: bool) -> Result<Vec<u8>, ArgsError> {
    let shown = text::shown(word.as_bytes()).to_string();
    let own = match &named.name {
        Some(name) => name.as_bytes().to_vec(),
        None if word == "-" => {
            return wrong("standard input has no name; say with --name under which it is stored");
        }
        None => own_name(word)?,
    };
    let mut name = named.to.as_ref().map_or_else(Vec::new, |to| to.as_bytes().to_vec());
    let end = name.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    name.truncate(end);
    let is_top = name.is_empty() || name == b".";
    if recursive && is_top && own == b"." {
        // All that is served: what is in the folder is stored at its top.
        return Ok(Vec::new());
    }
    name = if is_top { own } else { [&name, b"/".as_slice(), &own].concat() };
    let parsed = FileName::parse(name.strip_prefix(b"./").unwrap_or(&name));
    let refused = |error| {
        let name = text::shown(&name);
        ArgsError::Wrong(format!(
            "'{shown}' cannot be stored as '{name}': {error}; say another name with --name"
        ))
    };
    Ok(parsed.map_err(refused)?.as_bytes().to_vec())
}

/// What something local is called, also if it is written as `.` or `..`.
pub(super) fn own_name(word: &OsStr) -> Result<Vec<u8>, ArgsError> {
    let path = Path::new(word);
    let shown = text::shown(word.as_bytes()).to_string();
    let real = match path.file_name() {
        Some(name) => return Ok(name.as_bytes().to_vec()),
        None => path
            .canonicalize()
            .map_err(|error| ArgsError::Wrong(format!("cannot find {shown}: {}", in_words(&error))))?,
    };
    match real.file_name() {
        Some(name) => Ok(name.as_bytes().to_vec()),
        None => wrong(&format!("{shown} has no name of its own; say with --name under which it is stored")),
    }
}

pub(in crate::args) fn rm(
    host: Host,
    names: Vec<OsString>,
    recursive: bool,
    common: Common,
) -> Result<Job, ArgsError> {
    let mut files = Vec::new();
    for word in &names {
        let (server, name) = named_file(word, &host, recursive)?;
        files.push(File { server, name, target: Target::Stdout });
    }
    changing_job(Task::Remove { recursive }, files, common)
}

pub(in crate::args) fn mv(
    host: Host,
    from: &OsStr,
    to: &OsStr,
    replace: bool,
    common: Common,
) -> Result<Job, ArgsError> {
    let (server, name) = named_file(from, &host, true)?;
    if to.as_bytes().starts_with(SCHEME.as_bytes()) {
        return wrong("the new name is on the same server; write it without oneport://HOST:PORT/");
    }
    let mut to = to.as_bytes().strip_prefix(b"./").unwrap_or(to.as_bytes()).to_vec();
    if to.ends_with(b"/") {
        // Into that folder, under its own name.
        to.extend_from_slice(oneport::names::base(&name));
    }
    let refused =
        |error| ArgsError::Wrong(format!("'{}' cannot be a name on the server: {error}", text::shown(&to)));
    FileName::parse(&to).map_err(refused)?;
    let files = vec![File { server, name, target: Target::Stdout }];
    changing_job(Task::Move { to, replace }, files, common)
}

/// The server and the name of a file or folder there.
fn named_file(word: &OsStr, host: &Host, may_be_folder: bool) -> Result<(Server, Vec<u8>), ArgsError> {
    if word.as_bytes().starts_with(SCHEME.as_bytes()) && host.server.is_some() {
        return wrong("the server is named twice: in oneport://HOST:PORT/NAME, and beside it");
    }
    let server = host.server.clone().unwrap_or_default();
    let (server, name) = if may_be_folder { folder(word, &server)? } else { located(word, &server)? };
    if name.is_empty() {
        return wrong("all that is served can be neither removed nor moved; name what is in it");
    }
    Ok((server, name))
}

fn changing_job(task: Task, files: Vec<File>, common: Common) -> Result<Job, ArgsError> {
    let mut job = common_job(task, files, common)?;
    job.settings.protocol = Protocol::V2;
    Ok(job)
}
