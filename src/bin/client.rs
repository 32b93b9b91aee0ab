//! `client FILE [HOST [PORT]]`: fetches files from a oneport server, or from an original one, and stores them there.
//!
//! 1. Ctrl+C is caught before anything else; the command line becomes a checked [`args::Job`].
//! 2. The log is opened if it can be; each file is fetched by [`oneport::client::fetch`], or asked about
//!    ([`asking`]), or a folder is listed ([`ls`]); or files are stored, removed or moved ([`storing`]);
//!    or the server is asked about itself ([`steering`]).
//! 3. What happens is shown by a view and logged; the results go to standard output.

use std::process::ExitCode;

use oneport::app::{Failure, fail, is_hangup_ignored, say};
use oneport::client::{FetchError, Fetched, fetch};
use oneport::error::{Code, EXIT_HANGUP, EXIT_INTERRUPTED, EXIT_TERMINATED};
use oneport::limits::{LOG_AGE_MAX, LOG_SIZE_MAX};
use oneport::logging::{self, Logging};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

#[path = "client/args.rs"]
mod args;
#[path = "client/asking.rs"]
mod asking;
#[path = "client/bar.rs"]
mod bar;
#[path = "client/folders.rs"]
mod folders;
#[path = "client/hooks.rs"]
mod hooks;
#[path = "client/json.rs"]
mod json;
#[path = "client/listening.rs"]
mod listening;
#[path = "client/listening_json.rs"]
mod listening_json;
#[path = "client/ls.rs"]
mod ls;
#[path = "client/plain.rs"]
mod plain;
#[path = "client/pushing.rs"]
mod pushing;
#[path = "client/steering.rs"]
mod steering;
#[path = "client/storing.rs"]
mod storing;
#[path = "client/total.rs"]
mod total;
#[path = "client/view.rs"]
mod view;

use args::{File, Job, Task};
use hooks::Hooks;
use view::Reporter;

fn main() -> ExitCode {
    let stop = Stop::default();
    let caught = stop.catch_interrupts();
    let job = match args::parse(std::env::args_os()) {
        Ok(job) => job,
        Err(args::ArgsError::Clap(error)) => {
            // Help and version are errors to clap, but of status 0 and for standard output.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Code::Usage.exit_status()));
        }
        Err(args::ArgsError::Interrupted) => return ExitCode::from(EXIT_INTERRUPTED),
        Err(args::ArgsError::Wrong(text)) => return fail("client", &Failure::new(Code::Usage, text).into()),
    };
    let result = caught.and_then(|()| run(&job, &stop));
    match result {
        Ok(code) => code,
        Err(error) => fail("client", &error),
    }
}

/// The wish to stop, and the exit status that goes with its cause.
#[derive(Clone, Default)]
struct Stop {
    token: CancellationToken,
    status: std::sync::Arc<std::sync::atomic::AtomicU8>,
}

impl Stop {
    /// The first Ctrl+C stops, the second ends the program at once.
    fn catch_interrupts(&self) -> anyhow::Result<()> {
        let stop = self.clone();
        ctrlc::set_handler(move || {
            if stop.token.is_cancelled() {
                std::process::exit(EXIT_INTERRUPTED.into());
            }
            stop.now(EXIT_INTERRUPTED);
        })?;
        Ok(())
    }

    /// SIGTERM and SIGHUP stop as the first Ctrl+C does. To be called within a runtime.
    fn catch_signals(&self) -> anyhow::Result<()> {
        let mut kinds = vec![(SignalKind::terminate(), EXIT_TERMINATED)];
        if !is_hangup_ignored() {
            kinds.push((SignalKind::hangup(), EXIT_HANGUP));
        }
        for (kind, status) in kinds {
            let mut signals = signal(kind)?;
            let stop = self.clone();
            tokio::spawn(async move {
                if signals.recv().await.is_some() {
                    stop.now(status);
                }
            });
        }
        Ok(())
    }

    fn now(&self, status: u8) {
        self.status.store(status, std::sync::atomic::Ordering::SeqCst);
        self.token.cancel();
    }

    fn status(&self) -> u8 {
        self.status.load(std::sync::atomic::Ordering::SeqCst)
    }
}

fn run(job: &Job, stop: &Stop) -> anyhow::Result<ExitCode> {
    let logging = start_log(job)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        stop.catch_signals()?;
        let hooks = Hooks::new(job);
        match &job.task {
            Task::Get => {
                let code = fetch_all(job, &hooks, stop).await?;
                Ok(hooks.finish(stop, code).await)
            }
            Task::GetFolders(folders) => {
                let code = folders::fetch_all(job, folders, &hooks, stop).await;
                Ok(hooks.finish(stop, code).await)
            }
            Task::Put(uploads) => Ok(storing::put_all(job, uploads, stop).await),
            Task::Push(deliveries) => Ok(pushing::push_all(job, deliveries, stop).await),
            Task::Listen(server, listen) => {
                let code = listening::run(job, server, listen, &hooks, stop).await;
                Ok(hooks.finish(stop, code).await)
            }
            Task::Remove { .. } | Task::Move { .. } => Ok(storing::change_all(job, stop).await),
            Task::Ping { server, count } => Ok(asking::ping(job, server, *count, stop).await),
            Task::Control { server, question } => Ok(steering::ask(job, server, question, stop).await),
            Task::Ls(ls) => Ok(ls::list_all(job, ls, stop).await),
            Task::Stat | Task::Verify => Ok(asking::ask_all(job, stop).await),
        }
    });
    // A name that is still being looked up, or a stream that nobody reads, is not waited for.
    runtime.shutdown_background();
    if let Some(logging) = logging {
        logging.close();
    }
    code
}

/// A client that cannot log goes on without a log; one that was asked for nonsense does not.
fn start_log(job: &Job) -> Result<Option<Logging>, Failure> {
    let settings = logging::Settings {
        role: logging::Role::Client,
        dir: job.log_dir.clone(),
        format: logging::Format::Text,
        level: job.log_level.clone(),
        console: None,
        size_max: LOG_SIZE_MAX,
        age_max: LOG_AGE_MAX,
    };
    match logging::start(&settings) {
        Ok(logging) => Ok(Some(logging)),
        Err(error) if error.code() == Code::Usage => Err(Failure::new(error.code(), error)),
        Err(error) => {
            say(&format!("client: no log is kept: {error}"));
            Ok(None)
        }
    }
}

/// Fetches one file after the other. One that fails does not keep the others back, unless it fails
/// in a way in which all others would.
async fn fetch_all(job: &Job, hooks: &Hooks, stop: &Stop) -> anyhow::Result<ExitCode> {
    let mut failed = Vec::new();
    for file in &job.files {
        let reporter = Reporter::new(job, file);
        match fetch_one(job, file, &reporter, stop).await {
            Ok(fetched) => {
                reporter.finished(&fetched);
                hooks.fetched(file, &fetched);
            }
            Err(FetchError::Interrupted) if stop.token.is_cancelled() => {
                reporter.interrupted(stop.status());
                return Ok(ExitCode::from(stop.status()));
            }
            Err(error) => {
                reporter.failed(&error);
                if job.files.len() == 1 || (concerns_all(&error) && have_one_server(job)) {
                    return Ok(ExitCode::from(error.code().exit_status()));
                }
                failed.push(file.shown());
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let (count, all) = (failed.len(), job.files.len());
    say(&format!("client: {count} of {all} files failed: {}", failed.join(", ")));
    Ok(ExitCode::from(Code::Partial.exit_status()))
}

async fn fetch_one(
    job: &Job,
    file: &File,
    reporter: &Reporter<'_>,
    stop: &Stop,
) -> Result<Fetched, FetchError> {
    let (name, server, target) = (oneport::text::logged(&file.name), &file.server, file.target.shown());
    let target = oneport::text::logged(target.as_bytes());
    info!(event = "fetch", %name, %server, %target, "Fetching '{name}' from {server} into {target}");
    let fetched = fetch(server, &file.name, &file.target, &job.settings, reporter, &stop.token).await;
    if let Err(cause) = &fetched {
        let (text, code) = (cause.to_string(), cause.code().name());
        let text = oneport::text::logged(text.as_bytes());
        error!(event = "failed", %name, %server, code, "Failed to fetch '{name}': {text}");
    }
    fetched
}

/// Whether every other file of the same server would fail likewise.
fn concerns_all(error: &FetchError) -> bool {
    matches!(error.code(), Code::Connect | Code::Certificate)
}

fn have_one_server(job: &Job) -> bool {
    job.files.iter().all(|file| file.server == job.files[0].server)
}
