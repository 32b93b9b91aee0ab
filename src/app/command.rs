//! Commands that are run for files that were received (`--on-received`), and what keeps them in bounds.
//!
//! No shell is involved: what the user wrote is cut into words once, at the start, and nothing of a file's name is ever
//! among them. What there is to know of the file is in the command's environment. A few commands run at a time, each in a
//! process group of its own and for a limited time; the others wait in a bounded queue. Whatever comes of a command is
//! logged, and changes nothing about the file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::received::Received;
use crate::digest::Digest;
use crate::limits::{COMMANDS_QUEUE_MAX, COMMANDS_RUNNING_MAX};
use crate::text::{logged, shown};
use crate::tree::Root;

mod output;
mod words;

use output::Output;
pub use words::{Words, WordsError};

/// How every variable begins that this program reads or sets. A command gets those that are set here, and no others:
/// one of them may hold a key.
const VARIABLES: &str = "ONEPORT_";

/// What has come of the commands that were to be run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// They ended with status 0.
    pub succeeded: u64,
    /// They could not be started, ended with another status, took too long, or were ended with this program.
    pub failed: u64,
    /// They were never started: too many waited, or this program ended.
    pub skipped: u64,
}

/// Runs a command for each file that was received.
#[derive(Debug)]
pub struct Commands {
    queue: Queue,
    running: JoinHandle<Tally>,
    /// Ends those that run, and skips those that wait.
    end: CancellationToken,
}

/// The way to the commands that wait. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    waiting: Sender<Details>,
    skipped: Arc<AtomicU64>,
}

/// What a command is told, as variables of its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// What was received, for the log.
    name: OsString,
    variables: Vec<(&'static str, OsString)>,
}

impl From<&Received> for Details {
    fn from(received: &Received) -> Self {
        let Received { path, name, size, digest, key, peer, dialect, time } = received;
        let name = OsStr::from_bytes(name.as_bytes()).to_owned();
        let (algorithm, digest) = of_digest(*digest);
        let mut variables = vec![
            ("ONEPORT_PATH", path.clone().into_os_string()),
            ("ONEPORT_NAME", name.clone()),
            ("ONEPORT_SIZE", size.to_string().into()),
            (algorithm, digest.into()),
            ("ONEPORT_DIALECT", (*dialect).into()),
            ("ONEPORT_TIME", seconds(*time).into()),
        ];
        variables.extend(key.as_ref().map(|key| ("ONEPORT_KEY_NAME", key.as_str().into())));
        variables.extend(peer.map(|peer| ("ONEPORT_PEER", peer.to_string().into())));
        Self { name, variables }
    }
}

impl Details {
    /// A file that a client has fetched from `server`, where it is called `name`.
    #[must_use]
    pub fn of_fetched(path: &Path, name: &[u8], server: &str, size: u64, digest: Digest) -> Self {
        let digest = of_digest(digest);
        Self::of_client(path, name, server, &[("ONEPORT_SIZE", size.to_string()), digest])
    }

    /// A file that somebody, whose key is called `from`, has sent to a client that listens on `server`.
    #[must_use]
    pub fn of_pushed(path: &Path, name: &[u8], server: &str, from: &str, size: u64, root: Root) -> Self {
        let (size, digest) = (("ONEPORT_SIZE", size.to_string()), of_digest(Digest::Blake3(root)));
        Self::of_client(path, name, server, &[size, digest, ("ONEPORT_KEY_NAME", from.to_owned())])
    }

    /// A folder that a client has fetched, with so many files that have so many bytes in all.
    #[must_use]
    pub fn of_folder(path: &Path, name: &[u8], server: &str, files: u64, bytes: u64) -> Self {
        let counts = [("ONEPORT_FILES", files.to_string()), ("ONEPORT_SIZE", bytes.to_string())];
        Self::of_client(path, name, server, &counts)
    }

    fn of_client(path: &Path, name: &[u8], server: &str, more: &[(&'static str, String)]) -> Self {
        let name = OsStr::from_bytes(name).to_owned();
        // A command may look at it from elsewhere.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut variables = vec![
            ("ONEPORT_PATH", path.into_os_string()),
            ("ONEPORT_NAME", name.clone()),
            ("ONEPORT_SERVER", server.into()),
            ("ONEPORT_TIME", seconds(SystemTime::now()).into()),
        ];
        variables.extend(more.iter().map(|(name, value)| (*name, value.into())));
        Self { name, variables }
    }
}

fn of_digest(digest: Digest) -> (&'static str, String) {
    match digest {
        Digest::Blake3(root) => ("ONEPORT_BLAKE3", root.to_string()),
        Digest::Md5(md5) => ("ONEPORT_MD5", md5.to_string()),
    }
}

/// Since 1970.
fn seconds(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string()
}

/// What is run, and for how long at most.
struct Job {
    words: Words,
    patience: Duration,
    end: CancellationToken,
}

impl Commands {
    /// Runs `words` for each file that is told of, each for at most `patience`. To be called within a runtime.
    #[must_use]
    pub fn start(words: Words, patience: Duration) -> Self {
        let (waiting, taken) = channel(COMMANDS_QUEUE_MAX);
        let end = CancellationToken::new();
        let job = Arc::new(Job { words, patience, end: end.clone() });
        let queue = Queue { waiting, skipped: Arc::default() };
        Self { queue, running: tokio::spawn(run_all(taken, job)), end }
    }

    /// The way to tell of files. It has to be given up before [`Self::finish`] can end well.
    #[must_use]
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Waits until all commands have ended; when `given_up` comes to its end before, those that run are killed and those
    /// that wait are skipped.
    pub async fn finish(self, given_up: impl Future<Output = ()>) -> Tally {
        let Self { queue: Queue { waiting, skipped }, mut running, end } = self;
        drop(waiting);
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = given_up => {
                end.cancel();
                running.await
            }
        };
        let mut tally = ended.unwrap_or_default();
        tally.skipped += skipped.load(Ordering::Relaxed);
        if tally.failed + tally.skipped > 0 {
            let Tally { succeeded, failed, skipped } = tally;
            warn!(
                event = "commands-ended",
                succeeded,
                failed,
                skipped,
                "Commands for received files: {succeeded} succeeded, {failed} failed, {skipped} were not run"
            );
        }
        tally
    }
}

impl Queue {
    /// Tells of a file. Never waits: where too many wait already the command is not run for it, which is logged.
    pub fn tell(&self, details: impl Into<Details>) {
        if self.waiting.try_send(details.into()).is_err() && self.skipped.fetch_add(1, Ordering::Relaxed) == 0
        {
            warn!(
                event = "command-skipped",
                "No command is run for some files that were received: {COMMANDS_QUEUE_MAX} wait already"
            );
        }
    }

    /// Tells of a file, and waits for room. Not to be called on a thread that others wait for.
    pub fn tell_blocking(&self, details: impl Into<Details>) {
        if self.waiting.blocking_send(details.into()).is_err() {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn run_all(mut waiting: Receiver<Details>, job: Arc<Job>) -> Tally {
    let (mut tally, mut running) = (Tally::default(), JoinSet::new());
    let count = |tally: &mut Tally, ended: Result<bool, tokio::task::JoinError>| match ended {
        Ok(true) => tally.succeeded += 1,
        Ok(false) | Err(_) => tally.failed += 1,
    };
    loop {
        tokio::select! {
            Some(ended) = running.join_next() => count(&mut tally, ended),
            () = job.end.cancelled() => {
                waiting.close();
                while waiting.recv().await.is_some() {
                    tally.skipped += 1;
                }
                break;
            }
            details = waiting.recv(), if running.len() < COMMANDS_RUNNING_MAX => match details {
                Some(details) => drop(running.spawn(run(Arc::clone(&job), details))),
                None => break,
            },
        }
    }
    while let Some(ended) = running.join_next().await {
        count(&mut tally, ended);
    }
    tally
}

/// Why a command did not end by itself.
#[derive(Clone, Copy)]
enum Killed {
    TooLong,
    WithThis,
}

/// Runs the command for one file; whether it succeeded.
async fn run(job: Arc<Job>, details: Details) -> bool {
    let (file, command, began) = (logged(details.name.as_bytes()), job.words.program(), Instant::now());
    let mut child = match prepare(&job.words, details.variables).spawn() {
        Ok(child) => child,
        Err(error) => {
            warn!(event = "command-failed", %file, command, %error, "The command {command} for '{file}' cannot be started: {error}");
            return false;
        }
    };
    let output = Output::of(&mut child);
    let ended = tokio::select! {
        status = child.wait() => status.map_err(|_| Killed::TooLong),
        () = sleep(job.patience) => Err(Killed::TooLong),
        () = job.end.cancelled() => Err(Killed::WithThis),
    };
    if ended.is_err() {
        kill(&mut child).await;
    }
    let said = output.end().await;
    let (said, seconds) = (logged(said.as_bytes()), began.elapsed().as_secs_f64());
    let cause = match ended {
        Ok(status) if status.success() => {
            info!(
                event = "command-ended", %file, command, seconds, output = %said,
                "The command {command} for '{file}' succeeded in {seconds:.3} s: {said}"
            );
            return true;
        }
        Ok(status) => status_in_words(status),
        Err(Killed::TooLong) => format!("it was killed after {} s", job.patience.as_secs_f64()),
        Err(Killed::WithThis) => "it was killed, as this program ends".to_owned(),
    };
    warn!(
        event = "command-failed", %file, command, seconds, output = %said, cause,
        "The command {command} for '{file}' failed: {cause}: {said}"
    );
    false
}

fn prepare(words: &Words, variables: Vec<(&'static str, OsString)>) -> Command {
    let mut command = Command::new(words.program());
    command.args(words.arguments()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // What the terminal sends to this program is for this program, which ends the commands itself.
    command.process_group(0).kill_on_drop(true);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(VARIABLES.as_bytes()))
    {
        command.env_remove(name);
    }
    command.envs(variables);
    command
}

/// Ends a command and all that it has started and that has not left its group.
async fn kill(child: &mut Child) {
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(group) = group {
        // It may have ended by now.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
}

fn status_in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("signal {signal} ended it"),
        (None, None) => "it ended".to_owned(),
    }
}

/// Shown as it was cut, for the log.
impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.program())?;
        self.arguments().iter().try_for_each(|word| write!(f, " {}", shown(word.as_bytes())))
    }
}

#[cfg(test)]
#[path = "command/tests.rs"]
mod tests;
