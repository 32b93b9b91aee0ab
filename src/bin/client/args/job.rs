//! What a command line means, checked.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use oneport::client::{
    Backoff, Files as FolderFiles, OldServers, Overwrite, Protocol, Selection, Server, Settings, Target,
};
use oneport::error::in_words;
use oneport::limits::{CLIENT_RATE_MIN, COMPONENT_MAX, FILES_FROM_MAX, NAME_MAX, V2_LINKS, V2_WAIT_MAX};
use oneport::names::{FileName, base};
use oneport::patterns::{Pattern, Patterns, Verdict};
use oneport::text;
use oneport::units::Rate;

use super::{ArgsError, Chosen, Common, Files, Host, Options, OverwriteArg, Place, Progress, ProtocolArg};

/// How a file on a server is written in one word.
const SCHEME: &str = "oneport://";

/// What is to be done, checked.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) task: Task,
    pub(crate) files: Vec<File>,
    pub(crate) settings: Settings,
    pub(crate) progress: Progress,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
    pub(crate) log_dir: PathBuf,
    pub(crate) log_level: String,
}

/// What is to be done with each file.
#[derive(Debug)]
pub(crate) enum Task {
    Get,
    /// Many files at a time.
    GetFolders(Vec<Folder>),
    Stat,
    Verify,
    /// They are folders.
    Ls(Ls),
    /// Not with files at all.
    Ping {
        server: Server,
        count: u32,
    },
}

/// How folders are listed.
#[derive(Debug)]
pub(crate) struct Ls {
    pub(crate) selection: Selection,
    pub(crate) is_long: bool,
}

/// One file of a server.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) server: Server,
    pub(crate) name: Vec<u8>,
    pub(crate) target: Target,
}

impl File {
    /// The name, made safe to show.
    pub(crate) fn shown(&self) -> String {
        text::shown(&self.name).to_string()
    }
}

/// Several files, or a folder with everything in it.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) server: Server,
    /// The folder's name, or that of the list of names.
    pub(crate) name: Vec<u8>,
    pub(crate) files: FolderFiles,
    pub(crate) target: PathBuf,
}

impl Folder {
    /// The name, made safe to show.
    pub(crate) fn shown(&self) -> String {
        text::shown(&self.name).to_string()
    }

    /// The target, made safe to show.
    pub(crate) fn target_shown(&self) -> String {
        text::shown(self.target.as_os_str().as_bytes()).to_string()
    }
}

pub(super) fn get(files: Files, options: Options, patterns: Vec<Word>) -> Result<Job, ArgsError> {
    if options.chosen.recursive {
        return get_folders(files, options, patterns);
    }
    if options.chosen.follow_links || !patterns.is_empty() {
        return wrong("-L, --include and --exclude choose among the files of folders: add -r");
    }
    let files = checked_files(files, &options.place, true)?;
    if options.common.json && files.iter().any(|file| file.target == Target::Stdout) {
        return wrong("--json and -o - both want standard output; drop one of them");
    }
    if options.checksum.is_some() && files.len() > 1 {
        return wrong("--checksum is that of one file; fetch the files one by one");
    }
    get_job(Task::Get, files, options, OverwriteArg::Always)
}

/// Folders, each with everything in it.
fn get_folders(files: Files, options: Options, patterns: Vec<Word>) -> Result<Job, ArgsError> {
    if options.checksum.is_some() {
        return wrong("--checksum is that of one file, and no folder has one");
    }
    let server = files.host.server.unwrap_or_default();
    let follow_links = options.chosen.follow_links;
    let selection = Selection { recursive: true, follow_links, itself: true, patterns: parsed(patterns)? };
    let mut folders = Vec::new();
    let mut targets = BTreeSet::new();
    for word in &files.names {
        let (server, name) = folder(word, &server)?;
        let target = match name.as_slice() {
            // All that is served has no name of its own.
            b"" => options.place.output.clone().unwrap_or_else(|| options.place.directory.clone()),
            name => match target(name, &options.place, files.names.len() > 1)? {
                Target::File(path) => path,
                Target::Stream(_) | Target::Stdout => return wrong("a folder can only be saved as a folder"),
            },
        };
        if !targets.insert(target.clone()) {
            return wrong(&format!("two folders would both be {}", target.display()));
        }
        let files = FolderFiles::Folder { name: name.clone(), selection: selection.clone() };
        folders.push(Folder { server, name, files, target });
    }
    get_job(Task::GetFolders(folders), Vec::new(), options, OverwriteArg::Different)
}

/// The files that are named in a file.
pub(super) fn get_listed(
    host: Host,
    list: &Path,
    options: Options,
    patterns: Vec<Word>,
) -> Result<Job, ArgsError> {
    let (server, patterns) = (host.server.unwrap_or_default(), parsed(patterns)?);
    let shown = text::shown(list.as_os_str().as_bytes()).to_string();
    let unreadable =
        |error: std::io::Error| ArgsError::Wrong(format!("cannot read {shown}: {}", in_words(&error)));
    let mut lines = Vec::new();
    let read = match list == Path::new("-") {
        true => std::io::stdin().lock().take(FILES_FROM_MAX + 1).read_to_end(&mut lines),
        false => {
            std::fs::File::open(list).and_then(|file| file.take(FILES_FROM_MAX + 1).read_to_end(&mut lines))
        }
    };
    if read.map_err(unreadable)? as u64 > FILES_FROM_MAX {
        return wrong(&format!("{shown} is longer than {FILES_FROM_MAX} bytes; cut it into several"));
    }
    let mut names = BTreeSet::new();
    for line in lines.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let name = line.strip_prefix(b"./").unwrap_or(line);
        if name.is_empty() {
            continue;
        }
        let parsed = FileName::parse(name);
        let refused = |error| ArgsError::Wrong(format!("{shown}: '{}': {error}", text::shown(name)));
        let name = parsed.map_err(refused)?;
        if patterns.include(name.as_bytes()) {
            names.insert(name);
        }
    }
    let files = FolderFiles::Names(names.into_iter().collect());
    let target = options.place.directory.clone();
    let folder = Folder { server, name: list.as_os_str().as_bytes().to_vec(), files, target };
    get_job(Task::GetFolders(vec![folder]), Vec::new(), options, OverwriteArg::Different)
}

fn get_job(
    task: Task,
    files: Vec<File>,
    options: Options,
    overwrite_default: OverwriteArg,
) -> Result<Job, ArgsError> {
    let Options {
        overwrite,
        restart,
        connections,
        limit_rate,
        checksum,
        protocol,
        progress,
        no_sync,
        common,
        ..
    } = options;
    let limit_rate = limit_rate.map(|Rate(rate)| rate).filter(|&rate| rate > 0);
    if limit_rate.is_some_and(|rate| rate < CLIENT_RATE_MIN) {
        return wrong(&format!(
            "--limit-rate must be at least {CLIENT_RATE_MIN} bytes per second (4KiB): servers take slower \
             clients for dead"
        ));
    }
    let mut job = common_job(task, files, common)?;
    job.progress = progress;
    job.settings.limit_rate = limit_rate;
    job.settings.overwrite = match overwrite.unwrap_or(overwrite_default) {
        OverwriteArg::Never => Overwrite::Never,
        OverwriteArg::Different => Overwrite::Different,
        OverwriteArg::Always => Overwrite::Always,
    };
    job.settings.protocol = match protocol {
        ProtocolArg::Auto => Protocol::Auto,
        ProtocolArg::V1 => Protocol::V1,
        ProtocolArg::V2 => Protocol::V2,
    };
    (job.settings.restart, job.settings.links) = (restart, connections);
    (job.settings.checksum, job.settings.sync) = (checksum, !no_sync);
    Ok(job)
}

pub(super) fn stat(files: Files, common: Common) -> Result<Job, ArgsError> {
    let server = files.host.server.unwrap_or_default();
    let file = |name: &OsString| {
        let (server, name) = located(name, &server)?;
        Ok(File { server, name, target: Target::Stdout })
    };
    let files = files.names.iter().map(file).collect::<Result<_, ArgsError>>()?;
    common_job(Task::Stat, files, common)
}

pub(super) fn verify(files: Files, place: &Place, common: Common) -> Result<Job, ArgsError> {
    let files = checked_files(files, place, false)?;
    common_job(Task::Verify, files, common)
}

/// The patterns of a command line in their order, whichever option they belong to.
pub(super) fn patterns(matches: &ArgMatches) -> Vec<(Verdict, OsString)> {
    let mut found = Vec::new();
    for (option, verdict) in [("exclude", Verdict::Exclude), ("include", Verdict::Include)] {
        // Other commands do not have these options.
        let Ok(Some(words)) = matches.try_get_many::<OsString>(option) else { continue };
        let places = matches.indices_of(option).into_iter().flatten();
        found.extend(places.zip(words).map(|(place, word)| (place, verdict, word.clone())));
    }
    found.sort_by_key(|(place, ..)| *place);
    found.into_iter().map(|(_, verdict, word)| (verdict, word)).collect()
}

pub(super) fn ls(
    host: Host,
    mut names: Vec<OsString>,
    chosen: &Chosen,
    patterns: Vec<(Verdict, OsString)>,
    is_long: bool,
    common: Common,
) -> Result<Job, ArgsError> {
    let server = host.server.clone().unwrap_or_default();
    if names.is_empty() {
        names.push(OsString::new());
    }
    let asked = |word: &OsString| {
        if word.as_bytes().starts_with(SCHEME.as_bytes()) && host.server.is_some() {
            return wrong("the server is named twice: in oneport://HOST:PORT/NAME, and beside it");
        }
        let (server, name) = folder(word, &server)?;
        Ok(File { server, name, target: Target::Stdout })
    };
    let folders = names.iter().map(asked).collect::<Result<_, ArgsError>>()?;
    let patterns = parsed(patterns)?;
    let Chosen { recursive, follow_links, .. } = *chosen;
    let selection = Selection { recursive, follow_links, itself: false, patterns };
    common_job(Task::Ls(Ls { selection, is_long }), folders, common)
}

pub(super) fn ping(host: Host, count: u32, common: Common) -> Result<Job, ArgsError> {
    let server = host.server.unwrap_or_default();
    common_job(Task::Ping { server, count: count.max(1) }, Vec::new(), common)
}

fn common_job(task: Task, files: Vec<File>, common: Common) -> Result<Job, ArgsError> {
    if common.timeout.0.is_zero() {
        return wrong("--timeout must be longer than nothing");
    }
    let backoff =
        Backoff { retries: common.retries, first: common.retry_delay.0, longest: common.retry_max_delay.0 };
    let settings = Settings {
        backoff,
        timeout: common.timeout.0,
        wait_max: V2_WAIT_MAX,
        overwrite: Overwrite::Always,
        sync: true,
        protocol: Protocol::Auto,
        links: V2_LINKS,
        limit_rate: None,
        sparse: false,
        restart: false,
        checksum: None,
        old_servers: OldServers::default(),
    };
    let Common { quiet, verbose, json, log_dir, log_level, .. } = common;
    let progress = Progress::Auto;
    Ok(Job { task, files, settings, progress, json, quiet, verbose, log_dir, log_level })
}

fn checked_files(files: Files, place: &Place, may_pour: bool) -> Result<Vec<File>, ArgsError> {
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
        if !targets.insert(target.shown()) && matches!(target, Target::File(_)) {
            let (name, target) = (text::shown(&name), target.shown());
            return wrong(&format!("'{name}' and another file would both be {target}"));
        }
        checked.push(File { server, name, target });
    }
    Ok(checked)
}

/// The server and the name of a file, written as a name or as `oneport://HOST:PORT/NAME`. Whether there
/// is such a file is for the server to say.
fn located(word: &OsStr, server: &Server) -> Result<(Server, Vec<u8>), ArgsError> {
    let (server, name) = placed(word, server)?;
    match name.len() {
        0 => wrong(&format!("'{}' cannot be asked for: the name is empty", text::shown(word.as_bytes()))),
        _ => Ok((server, name)),
    }
}

/// The server and the name of a folder; the name is empty for all that is served.
fn folder(word: &OsStr, server: &Server) -> Result<(Server, Vec<u8>), ArgsError> {
    let (server, name) = placed(word, server)?;
    let end = name.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    let name = match &name[..end] {
        b"." => Vec::new(),
        folder => folder.to_vec(),
    };
    Ok((server, name))
}

/// A pattern as it was written.
pub(super) type Word = (Verdict, OsString);

fn parsed(patterns: Vec<Word>) -> Result<Patterns, ArgsError> {
    let parse = |(verdict, word): Word| {
        let shown = text::shown(word.as_bytes()).to_string();
        let parsed = Pattern::parse(verdict, word.into_vec().into());
        parsed.map_err(|error| ArgsError::Wrong(format!("'{shown}': {error}")))
    };
    let patterns = patterns.into_iter().map(parse).collect::<Result<_, _>>()?;
    Patterns::new(patterns).map_err(|error| ArgsError::Wrong(error.to_string()))
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
            if rest.contains(&b'#') {
                return refused("a pin (#...) is not understood yet; write # in a name as %23");
            }
            let host = std::str::from_utf8(&rest[..slash]).ok().and_then(|host| host.parse().ok());
            let (Some(server), Some(name)) = (host, unescaped(&rest[slash + 1..])) else {
                return refused("write oneport://HOST:PORT/NAME, with %25 for %");
            };
            (server, name)
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

fn target(name: &[u8], place: &Place, several: bool) -> Result<Target, ArgsError> {
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

fn wrong<T>(text: &str) -> Result<T, ArgsError> {
    Err(ArgsError::Wrong(text.to_owned()))
}
