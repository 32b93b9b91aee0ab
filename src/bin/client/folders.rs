//! `get -r` and `--files-from`: many files in one go, what a person sees of them, and what the log keeps.

use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oneport::app::say;
use oneport::client::{Event, FetchError, FolderFetched, Observer, fetch_folder};
use oneport::error::Code;
use oneport::text::{logged, shown};
use oneport::units::{Bytes, Rate};
use tracing::{error, info, warn};

use crate::Stop;
use crate::args::{Folder, Job, Task};
use crate::hooks::Hooks;
use crate::json;
use crate::total::{self, Total};
use crate::view::{log_waiting, tell_remembered, write_result};

/// Failed files that are named once more at the end, at most.
const FAILED_SHOWN: usize = 20;

/// Fetches one folder after the other.
pub(crate) async fn fetch_all(job: &Job, folders: &[Folder], hooks: &Hooks, stop: &Stop) -> ExitCode {
    let mut worst = None;
    for folder in folders {
        let code = fetch_one(job, folder, hooks, stop).await;
        match code {
            Ok(None) => {}
            Ok(Some(code)) if folders.len() == 1 => return ExitCode::from(code.exit_status()),
            Ok(Some(_)) => worst = Some(Code::Partial),
            Err(()) => return ExitCode::from(stop.status()),
        }
    }
    worst.map_or(ExitCode::SUCCESS, |code| ExitCode::from(code.exit_status()))
}

/// Fetches one folder; says why not all of it is here. `Err` if the user does not want it any more.
async fn fetch_one(job: &Job, folder: &Folder, hooks: &Hooks, stop: &Stop) -> Result<Option<Code>, ()> {
    let (name, server) = (logged(&folder.name), &folder.server);
    let target = folder.target_shown();
    info!(event = "fetch", %name, %server, %target, "Fetching the files of '{name}' from {server} into {target}");
    let reporter = FolderReporter::new(job, &folder.name);
    let (files, settings) = (&folder.files, &job.settings);
    let fetched = fetch_folder(server, files, &folder.target, settings, &reporter, &stop.token).await;
    reporter.ended();
    match fetched {
        Ok(fetched) => {
            finished(&reporter, folder, &fetched);
            hooks.fetched_folder(folder, &fetched);
            Ok((fetched.failed > 0).then_some(Code::Partial))
        }
        Err(FetchError::Interrupted) if stop.token.is_cancelled() => {
            info!(event = "interrupted", "Interrupted");
            say("client: interrupted; what has arrived is kept, and the next run goes on with it");
            if job.json {
                write_result(&json::folder_interrupted(&folder.name, stop.status()), false);
            }
            Err(())
        }
        Err(error) => {
            let (text, code) = (error.to_string(), error.code().name());
            let text = logged(text.as_bytes());
            error!(event = "failed", %name, %server, code, "Failed to fetch the files of '{name}': {text}");
            say(&format!("client: {}: {error}", folder.shown()));
            if job.json {
                write_result(&json::folder_failed(&folder.name, &error), false);
            }
            Ok(Some(error.code()))
        }
    }
}

fn finished(reporter: &FolderReporter<'_>, folder: &Folder, fetched: &FolderFetched) {
    let FolderFetched { files, bytes, unchanged, failed, skipped, resumed, elapsed, .. } = *fetched;
    let counts = Counts { files, bytes, unchanged, failed, skipped, resumed, elapsed };
    let (target, seconds, rate) = (folder.target_shown(), elapsed.as_secs_f64(), counts.rate());
    info!(
        event = "finished", %target, files, bytes, unchanged, failed, skipped, resumed, seconds,
        "Fetched {files} files into {target}: {bytes} bytes in {seconds:.3} s ({rate}), BLAKE3 verified; \
         {unchanged} unchanged, {skipped} links skipped, {failed} failed"
    );
    reporter.tell_end(&target, &counts, || json::folder_finished(folder, fetched));
}

/// Hears what happens to the files of one folder and tells everybody who should know.
pub(crate) struct FolderReporter<'a> {
    job: &'a Job,
    /// What the folder is called.
    folder: &'a [u8],
    /// Whether the files go to the server, and do not come from there.
    is_giving: bool,
    state: Mutex<State>,
}

struct State {
    total: Box<dyn Total>,
    /// The first files that failed.
    failed: Vec<String>,
}

/// What came of the files of a folder.
pub(crate) struct Counts {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) unchanged: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) resumed: u64,
    pub(crate) elapsed: Duration,
}

impl Counts {
    /// Their rate, without what was there before.
    pub(crate) fn rate(&self) -> Rate {
        Rate::new(self.bytes.saturating_sub(self.resumed), self.elapsed)
    }
}

impl<'a> FolderReporter<'a> {
    pub(crate) fn new(job: &'a Job, folder: &'a [u8]) -> Self {
        let is_giving = matches!(job.task, Task::Put(_));
        let state = Mutex::new(State { total: total::shown(job), failed: Vec::new() });
        Self { job, folder, is_giving, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more comes.
    pub(crate) fn ended(&self) {
        self.state().total.ended();
    }

    /// Names some of those that failed once more, and says in one line what came of all: `place` says where they
    /// are now.
    pub(crate) fn tell_end(&self, place: &str, counts: &Counts, json_line: impl FnOnce() -> String) {
        let Counts { files, bytes, unchanged, failed, skipped, resumed, elapsed } = *counts;
        if failed > 0 {
            let names = &self.state().failed;
            let count = u64::try_from(names.len()).unwrap_or(u64::MAX);
            let others = if failed > count { format!(" and {} more", failed - count) } else { String::new() };
            say(&format!("client: {failed} failed: {}{others}", names.join(", ")));
        }
        if self.job.json {
            return write_result(&json_line(), false);
        }
        if self.job.quiet {
            return;
        }
        let mut line = format!("{place}: {} in {:.1} s", of_files(files, bytes), elapsed.as_secs_f64());
        if files > 0 {
            line.push_str(&format!(" ({}), BLAKE3 verified", counts.rate()));
        }
        for (count, what) in [(unchanged, "unchanged"), (skipped, "skipped"), (failed, "failed")] {
            if count > 0 {
                line.push_str(&format!(", {count} {what}"));
            }
        }
        if resumed > 0 {
            let there = if self.is_giving { "there" } else { "here" };
            line.push_str(&format!(", {} were {there} before", Bytes(resumed)));
        }
        write_result(&line, false);
    }

    fn failed(&self, name: &[u8], error: &FetchError) {
        let (file, text, code) = (logged(name), error.to_string(), error.code().name());
        let text = logged(text.as_bytes());
        let verb = if self.is_giving { "store" } else { "fetch" };
        error!(event = "failed", %file, code, "Failed to {verb} '{file}': {text}");
        let mut state = self.state();
        if state.failed.len() < FAILED_SHOWN {
            state.failed.push(shown(name).to_string());
        }
        state.total.file(name);
        state.total.say(&format!("client: {}: {error}", shown(name)));
        if self.job.json {
            write_result(&json::folder_file_failed(self.folder, name, error), false);
        }
    }
}

impl Observer for FolderReporter<'_> {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::FileDone { name, size, digest } => {
                let file = logged(name);
                if self.is_giving {
                    info!(event = "stored", %file, size, %digest, "File '{file}' stored: {size} bytes, {digest}");
                } else {
                    info!(event = "received", %file, size, %digest, "File '{file}' received: {size} bytes, {digest} verified");
                }
                self.state().total.file(name);
                if self.job.json {
                    write_result(&json::folder_file(self.folder, name, size, Some(digest)), false);
                }
            }
            Event::FileKept { name, size } => {
                let file = logged(name);
                let there = if self.is_giving { "there" } else { "here" };
                info!(event = "unchanged", %file, size, "File '{file}' is {there} already: {size} bytes");
                if self.job.json {
                    write_result(&json::folder_file(self.folder, name, size, None), false);
                }
            }
            Event::FileFailed { name, error } => self.failed(name, error),
            Event::FileSkipped { name } => {
                let file = logged(name);
                warn!(event = "skipped", %file, "The link '{file}' to a folder is not followed");
                if !self.job.quiet {
                    let line = format!("{}: a link to a folder, not followed (-L follows)", shown(name));
                    self.state().total.say(&line);
                }
            }
            Event::FileProgress { name, done, size } => self.state().total.progress(name, done, size),
            Event::Total(totals) => self.state().total.total(&totals),
            Event::Waiting { retry, retries, wait, error } => {
                let line = log_waiting(retry, retries, wait, error);
                if self.job.json {
                    write_result(&json::folder_waiting(self.folder, retry, retries, wait, error), false);
                }
                if !self.job.quiet {
                    self.state().total.say(&line);
                }
            }
            Event::Remembered { server, pin, file, is_pinned } => {
                if let Some(line) = tell_remembered(self.job, server, pin, file, is_pinned) {
                    self.state().total.say(&line);
                }
            }
            Event::Changed { kept, had } => {
                warn!(
                    event = "changed",
                    kept, had, "The server has another version of a file: {kept} of {had} bytes are the same"
                );
            }
            _ => {}
        }
    }
}

/// So many files of so many bytes, for a person.
pub(crate) fn of_files(files: u64, bytes: u64) -> String {
    let noun = if files == 1 { "file" } else { "files" };
    format!("{files} {noun}, {}", Bytes(bytes))
}
