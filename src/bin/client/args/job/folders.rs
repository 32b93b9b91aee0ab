//! Commands for whole folders and lists of files: `get -r`, `get --files-from`, `ls`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use oneport::client::{Files as FolderFiles, Selection, Server, Target};
use oneport::error::in_words;
use oneport::limits::FILES_FROM_MAX;
use oneport::names::FileName;
use oneport::patterns::{Pattern, Patterns, Verdict};
use oneport::text;

use super::names::{SCHEME, folder, target};
use super::{
    ArgsError, Chosen, Common, File, Files, Host, Job, Options, OverwriteArg, Task, common_job, get_job,
    wrong,
};

/// How folders are listed.
#[derive(Debug)]
pub(crate) struct Ls {
    pub(crate) selection: Selection,
    pub(crate) is_long: bool,
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

/// Folders, each with everything in it.
pub(super) fn get_folders(files: Files, options: Options, patterns: Vec<Word>) -> Result<Job, ArgsError> {
    if options.moving.checksum.is_some() {
        return wrong("--checksum is that of one file, and no folder has one");
    }
    match options.place.output.as_deref() {
        Some(path) if path == Path::new("-") => return wrong("a folder can only be saved as a folder"),
        Some(path) if path.as_os_str().is_empty() => return wrong("-o must not be empty"),
        _ => {}
    }
    let named = files.host.server;
    let server = named.clone().unwrap_or_default();
    let follow_links = options.chosen.follow_links;
    let selection = Selection { recursive: true, follow_links, itself: true, patterns: parsed(patterns)? };
    let mut folders = Vec::new();
    let mut targets = BTreeSet::new();
    let is_only = files.names.len() == 1;
    for word in &files.names {
        if word.as_bytes().starts_with(SCHEME.as_bytes()) && named.is_some() {
            return wrong("the server is named twice: in oneport://HOST:PORT/NAME, and beside it");
        }
        let (server, name) = folder(word, &server)?;
        let target = match (name.as_slice(), &options.place.output) {
            // All that is served has no name of its own.
            (b"", output) => output.clone().unwrap_or_else(|| options.place.directory.clone()),
            // It means the same when the folder is there, so that the same command goes on with it.
            (_, Some(path)) if is_only && !path.as_os_str().as_bytes().ends_with(b"/") => path.clone(),
            (name, _) => match target(name, &options.place, !is_only)? {
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
pub(in crate::args) fn get_listed(
    host: Host,
    list: &Path,
    options: Options,
    patterns: Vec<Word>,
) -> Result<Job, ArgsError> {
    if list == Path::new("-") && options.common.security.takes_stdin() {
        return wrong("--files-from - and --key-file - both want standard input");
    }
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

/// The patterns of a command line in their order, whichever option they belong to.
pub(in crate::args) fn patterns(matches: &ArgMatches) -> Vec<(Verdict, OsString)> {
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

pub(in crate::args) fn ls(
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

/// A pattern as it was written.
pub(in crate::args) type Word = (Verdict, OsString);

pub(super) fn parsed(patterns: Vec<Word>) -> Result<Patterns, ArgsError> {
    let parse = |(verdict, word): Word| {
        let shown = text::shown(word.as_bytes()).to_string();
        let parsed = Pattern::parse(verdict, word.into_vec().into());
        parsed.map_err(|error| ArgsError::Wrong(format!("'{shown}': {error}")))
    };
    let patterns = patterns.into_iter().map(parse).collect::<Result<_, _>>()?;
    Patterns::new(patterns).map_err(|error| ArgsError::Wrong(error.to_string()))
}
