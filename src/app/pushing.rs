//! `server push`: files of this machine for clients that listen to the running server.
//!
//! The owner of the server sends as any client does, over the one port, with the token of the state folder. What came of
//! each file goes to standard output, how far it is to standard error.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::control::{Reached, failure};
use super::{Failure, say};
use crate::client::{Event, FetchError, Observer, Put, UploadSource, push};
use crate::config::pushing::PushTask;
use crate::error::{Code, EXIT_INTERRUPTED};
use crate::names::{ReceiverName, base};
use crate::progress::Steps;
use crate::text::{json_for_terminal, shown};
use crate::units::Bytes;

/// Sends all files to all receivers at once, to each one file after the other. One that fails does not keep the others
/// back.
pub(super) fn run(task: &PushTask, stopping: &CancellationToken) -> anyhow::Result<ExitCode> {
    let reached = Reached::of(&task.state)?;
    let receivers: BTreeSet<ReceiverName> = task.receivers.iter().cloned().collect();
    let all = task.files.len() * receivers.len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sending = Rc::new(Sending { task: task.clone(), reached, stopping: stopping.clone() });
    let sent = LocalSet::new().block_on(&runtime, async {
        let mut lanes = JoinSet::new();
        for receiver in receivers {
            lanes.spawn_local(Rc::clone(&sending).push_all(receiver));
        }
        lanes.join_all().await
    });
    runtime.shutdown_background();
    let failed =
        sent.into_iter().collect::<io::Result<Vec<_>>>().context("cannot write to standard output")?;
    if stopping.is_cancelled() {
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    }
    let failed = failed.concat();
    let Some(first) = failed.first() else { return Ok(ExitCode::SUCCESS) };
    let is_one_cause = failed.len() == all && failed.iter().all(|code| code == first);
    Ok(ExitCode::from(if is_one_cause { *first } else { Code::Partial }.exit_status()))
}

/// What is sent, and by way of which server.
struct Sending {
    task: PushTask,
    reached: Reached,
    stopping: CancellationToken,
}

impl Sending {
    /// Sends all files to one receiver; how those failed that did.
    async fn push_all(self: Rc<Self>, receiver: ReceiverName) -> io::Result<Vec<Code>> {
        let Self { task, reached, stopping } = &*self;
        let mut failed = Vec::new();
        for path in &task.files {
            if stopping.is_cancelled() {
                break;
            }
            let sent = push_one(reached, &receiver, path, stopping).await;
            let failure = match &sent {
                Ok(_) => None,
                Err(FetchError::Interrupted) => Some(Failure::new(Code::Other, "interrupted")),
                Err(error) => Some(failure(error, reached.address, &task.state)),
            };
            failed.extend(failure.as_ref().map(|failure| failure.code));
            let tell = if task.json { tell_json } else { tell };
            tell((&receiver, path.as_path()), sent.as_ref().ok(), failure)?;
        }
        Ok(failed)
    }
}

async fn push_one(
    reached: &Reached,
    receiver: &ReceiverName,
    path: &Path,
    stopping: &CancellationToken,
) -> Result<Put, FetchError> {
    let (source, name) = (UploadSource::File(path.to_owned()), base(path.as_os_str().as_encoded_bytes()));
    let meter = Meter { name: format!("{} for {receiver}", shown(name)), steps: Mutex::default() };
    push(&reached.server, receiver, &source, name, &reached.settings, &meter, stopping).await
}

fn tell(
    (receiver, path): (&ReceiverName, &Path),
    sent: Option<&Put>,
    failure: Option<Failure>,
) -> io::Result<()> {
    let local = shown(path.as_os_str().as_encoded_bytes());
    if let Some(failure) = failure {
        say(&format!("server: {local} was not sent to {receiver}: {failure}"));
    }
    let Some(sent) = sent else { return Ok(()) };
    let mut stdout = io::stdout().lock();
    let root = sent.root.map(|root| root.to_string()).unwrap_or_default();
    writeln!(stdout, "{local} -> {receiver}  {}  {root}", Bytes(sent.size))?;
    stdout.flush()
}

fn tell_json(
    (receiver, path): (&ReceiverName, &Path),
    sent: Option<&Put>,
    failure: Option<Failure>,
) -> io::Result<()> {
    let mut object = json!({
        "version": 1, "event": "result", "file": path.to_string_lossy(), "receiver": receiver.as_str(),
        "ok": sent.is_some(),
    });
    if let Some(sent) = sent {
        object["size"] = sent.size.into();
        object["blake3"] = sent.root.map(|root| root.to_string()).into();
        object["resumed"] = sent.resumed.into();
    }
    if let Some(Failure { code, text }) = failure {
        object["code"] = code.name().into();
        object["exit_status"] = code.exit_status().into();
        object["error"] = text.into();
    }
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", json_for_terminal(&object.to_string()))?;
    stdout.flush()
}

/// Says on standard error how far a file is, every 10 %.
struct Meter {
    name: String,
    steps: Mutex<Option<Steps>>,
}

impl Observer for Meter {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Progress { done, size } => {
                let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
                for percent in steps.get_or_insert_with(|| Steps::new(size)).reached(done) {
                    say(&format!("{}: {percent}%", self.name));
                }
            }
            Event::Waiting { wait, error, .. } => {
                say(&format!("{}: {error}; trying again in {:.1} s", self.name, wait.as_secs_f32()));
            }
            _ => {}
        }
    }
}
