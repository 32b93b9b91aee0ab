//! What a command line means, checked.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use oneport::app::command::Words;
use oneport::client::{Backoff, Listen, Overwrite, Protocol, Server, Settings, Target};
use oneport::control::Question;
use oneport::limits::CLIENT_RATE_MIN;
use oneport::text;
use oneport::units::Rate;

use super::{
    ArgsError, Chosen, Common, ExistingArg, Files, Hook, Host, Moving, Options, OverwriteArg, Place,
    Progress, ProtocolArg,
};

#[path = "job/folders.rs"]
mod folders;
#[path = "job/names.rs"]
mod names;
#[path = "job/pushing.rs"]
mod pushing;
#[path = "job/storing.rs"]
mod storing;

pub(crate) use folders::{Folder, Ls};
pub(super) use folders::{Word, get_listed, ls, patterns};
use names::{checked_files, located};
pub(crate) use pushing::Delivery;
pub(super) use pushing::{Listening, listen, push};
pub(crate) use storing::{Local, Upload};
pub(super) use storing::{Named, mv, put, rm};

/// What is to be done, checked.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) task: Task,
    pub(crate) files: Vec<File>,
    pub(crate) settings: Settings,
    /// What is run for what was fetched, and for how long at most.
    pub(crate) on_received: Option<(Words, Duration)>,
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
    /// Local files and folders are stored.
    Put(Vec<Upload>),
    /// Local files are sent to clients that listen.
    Push(Vec<Delivery>),
    /// Files are received that others send.
    Listen(Server, Listen),
    /// They are removed, folders with all that is in them if it says so.
    Remove {
        recursive: bool,
    },
    /// The only one gets this name.
    Move {
        to: Vec<u8>,
        replace: bool,
    },
    Stat,
    Verify,
    /// They are folders.
    Ls(Ls),
    /// The server is asked about itself.
    Control {
        server: Server,
        question: Question,
    },
    /// Not with files at all.
    Ping {
        server: Server,
        count: u32,
    },
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

pub(super) fn get(files: Files, options: Options, patterns: Vec<Word>) -> Result<Job, ArgsError> {
    if options.chosen.recursive {
        return folders::get_folders(files, options, patterns);
    }
    if options.chosen.follow_links || !patterns.is_empty() {
        return wrong("-L, --include and --exclude choose among the files of folders: add -r");
    }
    let files = checked_files(files, &options.place, true)?;
    if options.common.json && files.iter().any(|file| file.target == Target::Stdout) {
        return wrong("--json and -o - both want standard output; drop one of them");
    }
    if options.moving.checksum.is_some() && files.len() > 1 {
        return wrong("--checksum is that of one file; fetch the files one by one");
    }
    get_job(Task::Get, files, options, OverwriteArg::Always)
}

fn get_job(
    task: Task,
    files: Vec<File>,
    options: Options,
    overwrite_default: OverwriteArg,
) -> Result<Job, ArgsError> {
    let Options { moving, restart, protocol, no_sync, hook, common, .. } = options;
    let on_received = hook.checked()?;
    if on_received.is_some() && files.iter().any(|file| file.target == Target::Stdout) {
        return wrong("--on-received needs a file, and -o - makes none; drop one of them");
    }
    if matches!((protocol, &task), (ProtocolArg::V1, Task::GetFolders(_))) {
        return wrong("version 1 fetches one file at a time; leave --protocol v1 out");
    }
    let mut job = moving_job(task, files, moving, overwrite_default, common)?;
    if matches!(protocol, ProtocolArg::V1) && job.settings.security.key.is_some() {
        return wrong("version 1 has no keys; leave --protocol v1 out, or the key (--key-file, ONEPORT_KEY)");
    }
    job.settings.protocol = match protocol {
        ProtocolArg::Auto => Protocol::Auto,
        ProtocolArg::V1 => Protocol::V1,
        ProtocolArg::V2 => Protocol::V2,
    };
    (job.settings.restart, job.settings.sync) = (restart, !no_sync);
    job.on_received = on_received;
    Ok(job)
}

impl Hook {
    /// The command, and how long it may run.
    fn checked(self) -> Result<Option<(Words, Duration)>, ArgsError> {
        if self.on_received_timeout.0.is_zero() {
            return wrong("--on-received-timeout must be longer than nothing");
        }
        Ok(self.on_received.map(|words| (words, self.on_received_timeout.0)))
    }
}

/// Files that are moved between two machines.
fn moving_job(
    task: Task,
    files: Vec<File>,
    moving: Moving,
    overwrite_default: OverwriteArg,
    common: Common,
) -> Result<Job, ArgsError> {
    let Moving { overwrite, connections, limit_rate, priority, checksum, progress } = moving;
    let limit_rate = limit_rate.map(|Rate(rate)| rate).filter(|&rate| rate > 0);
    if limit_rate.is_some_and(|rate| rate < CLIENT_RATE_MIN) {
        return wrong(&format!(
            "--limit-rate must be at least {CLIENT_RATE_MIN} bytes per second (4KiB): servers take slower \
             clients for dead"
        ));
    }
    let mut job = common_job(task, files, common)?;
    job.progress = progress;
    (job.settings.limit_rate, job.settings.priority) = (limit_rate, priority);
    job.settings.overwrite = match overwrite.unwrap_or(overwrite_default) {
        OverwriteArg::Never => Overwrite::Never,
        OverwriteArg::Different => Overwrite::Different,
        OverwriteArg::Always => Overwrite::Always,
    };
    (job.settings.links, job.settings.checksum) = (connections, checksum);
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

pub(super) fn ping(host: Host, count: u32, common: Common) -> Result<Job, ArgsError> {
    let server = host.server.unwrap_or_default();
    common_job(Task::Ping { server, count: count.max(1) }, Vec::new(), common)
}

pub(super) fn control(host: Host, question: Question, common: Common) -> Result<Job, ArgsError> {
    let server = host.server.unwrap_or_default();
    let mut job = common_job(Task::Control { server, question }, Vec::new(), common)?;
    job.settings.protocol = Protocol::V2;
    Ok(job)
}

fn common_job(task: Task, files: Vec<File>, common: Common) -> Result<Job, ArgsError> {
    if common.timeout.0.is_zero() {
        return wrong("--timeout must be longer than nothing");
    }
    let backoff =
        Backoff { retries: common.retries, first: common.retry_delay.0, longest: common.retry_max_delay.0 };
    let security = common.security.checked()?;
    let settings = Settings { backoff, timeout: common.timeout.0, security, ..Settings::default() };
    let Common { quiet, verbose, json, log_dir, log_level, .. } = common;
    let progress = Progress::Auto;
    Ok(Job { task, files, settings, on_received: None, progress, json, quiet, verbose, log_dir, log_level })
}

fn wrong<T>(text: &str) -> Result<T, ArgsError> {
    Err(ArgsError::Wrong(text.to_owned()))
}
