//! What a person or a script sees of one fetch, and what the log keeps of it.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oneport::app::say;
use oneport::client::{Event, FetchError, Fetched, Observer, Put, Server};
use oneport::pin::Pin;
use oneport::progress::Steps;
use oneport::text::{logged, shown};
use oneport::units::{Bytes, Rate};
use tracing::{info, warn};

use crate::args::{Delivery, File, Job, Progress, Task, Upload};
use crate::bar::Bar;
use crate::json;
use crate::plain::Plain;

/// A way to show how far a fetch is.
pub(crate) trait Show: Send {
    /// A file of this size begins to arrive, of which so many bytes are here already.
    fn started(&mut self, size: u64, have: u64);
    /// So many bytes of so many are here.
    fn progress(&mut self, done: u64, size: u64);
    /// A line that must be seen, in between.
    fn say(&mut self, line: &str);
    /// Nothing more comes.
    fn ended(&mut self);
}

/// Shows nothing but lines that must be seen.
struct Silent;

impl Show for Silent {
    fn started(&mut self, _size: u64, _have: u64) {}

    fn progress(&mut self, _done: u64, _size: u64) {}

    fn say(&mut self, line: &str) {
        say(line);
    }

    fn ended(&mut self) {}
}

/// Hears what happens to one file and tells everybody who should know.
pub(crate) struct Reporter<'a> {
    job: &'a Job,
    file: &'a File,
    state: Mutex<State>,
}

struct State {
    show: Box<dyn Show>,
    steps: Steps,
}

impl<'a> Reporter<'a> {
    pub(crate) fn new(job: &'a Job, file: &'a File) -> Self {
        let show: Box<dyn Show> = match (job.progress, job.quiet) {
            (_, true) | (Progress::None, _) => Box::new(Silent),
            (Progress::Bar, _) => Box::new(Bar::new(&file.shown())),
            (Progress::Auto, _) if is_smart_terminal() => Box::new(Bar::new(&file.shown())),
            (Progress::Auto | Progress::Plain, _) => Box::new(Plain::new(&file.shown())),
        };
        Self { job, file, state: Mutex::new(State { show, steps: Steps::new(0) }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file is here.
    pub(crate) fn finished(&self, fetched: &Fetched) {
        self.state().show.ended();
        let target = self.file.target.shown();
        let Fetched { size, digest, elapsed, resumed, .. } = *fetched;
        let (seconds, rate) = (elapsed.as_secs_f64(), Rate::new(size - resumed, elapsed));
        let (file, into) = (logged(&self.file.name), logged(target.as_bytes()));
        let saved = match resumed {
            0 => String::new(),
            resumed => format!(", {} of it were here before", Bytes(resumed)),
        };
        if fetched.unchanged {
            info!(event = "unchanged", %file, size, %digest, "'{file}' is the same as {into} already, {digest}");
        } else {
            info!(
                event = "finished", %file, size, seconds, resumed, %digest,
                "File '{file}' received into {into}: {size} bytes in {seconds:.3} s ({rate}), {digest} verified{saved}"
            );
        }
        if self.job.json {
            return write_result(&json::finished(self.file, fetched), false);
        }
        if self.job.quiet {
            return;
        }
        let algorithm = digest.algorithm();
        let line = if fetched.unchanged {
            format!("{target}: unchanged, {}, {algorithm} verified", Bytes(size))
        } else {
            format!("{target}: {} in {seconds:.1} s ({rate}), {algorithm} verified{saved}", Bytes(size))
        };
        write_result(&line, self.file.target.path().is_none());
    }

    /// The file is on the server.
    pub(crate) fn stored(&self, upload: &Upload, stored: &Put) {
        self.state().show.ended();
        let Put { size, root, elapsed, resumed, .. } = *stored;
        let (seconds, rate) = (elapsed.as_secs_f64(), Rate::new(size.saturating_sub(resumed), elapsed));
        let (file, server) = (logged(&self.file.name), &self.file.server);
        let blake3 = root.map(|root| root.to_string()).unwrap_or_default();
        let given = stored.name.as_ref().map(|name| format!(" as '{name}'")).unwrap_or_default();
        if stored.unchanged {
            info!(event = "unchanged", %file, %server, size, "'{file}' is on {server} already, with the same size and time");
        } else {
            info!(
                event = "stored", %file, %server, size, seconds, resumed, %blake3, stored_as = stored.name.as_ref().map(tracing::field::display),
                "File '{file}' stored on {server}{given}: {size} bytes in {seconds:.3} s ({rate}), BLAKE3 {blake3}"
            );
        }
        if self.job.json {
            return write_result(&json::stored(self.file, upload, stored), false);
        }
        if self.job.quiet {
            return;
        }
        let name = self.file.shown();
        let line = if stored.unchanged {
            format!("{name}: unchanged on {server}, {}", Bytes(size))
        } else {
            let saved = match resumed {
                0 => String::new(),
                resumed => format!(", {} of it were there before", Bytes(resumed)),
            };
            format!(
                "{name}: stored on {server}{given}, {} in {seconds:.1} s ({rate}), BLAKE3 {blake3}{saved}",
                Bytes(size)
            )
        };
        write_result(&line, false);
    }

    /// A receiver has the file.
    pub(crate) fn delivered(&self, delivery: &Delivery, sent: &Put) {
        self.state().show.ended();
        let Put { size, root, elapsed, resumed, .. } = *sent;
        let (seconds, rate) = (elapsed.as_secs_f64(), Rate::new(size.saturating_sub(resumed), elapsed));
        let (file, server, receiver) = (logged(&self.file.name), &self.file.server, &delivery.receiver);
        let blake3 = root.map(|root| root.to_string()).unwrap_or_default();
        info!(
            event = "delivered", %file, %server, %receiver, size, seconds, resumed, %blake3,
            "File '{file}' received by {receiver} by way of {server}: {size} bytes in {seconds:.3} s ({rate}), BLAKE3 {blake3}"
        );
        if self.job.json {
            write_result(&json::delivered(self.file, delivery, sent), false);
        } else if !self.job.quiet {
            let (name, size) = (self.file.shown(), Bytes(size));
            write_result(
                &format!(
                    "{name}: received by {receiver}, {size} in {seconds:.1} s ({rate}), BLAKE3 {blake3}"
                ),
                false,
            );
        }
    }

    /// A receiver has not got the file.
    pub(crate) fn not_delivered(&self, delivery: &Delivery, error: &FetchError) {
        self.state().show.ended();
        say(&format!("client: {} for {}: {error}", self.file.shown(), delivery.receiver));
        if self.job.json {
            write_result(&json::not_delivered(self.file, delivery, error), false);
        }
    }

    /// Whether the file goes to the server, and does not come from there.
    fn is_giving(&self) -> bool {
        matches!(self.job.task, Task::Put(_) | Task::Push(_))
    }

    /// The file did not come.
    pub(crate) fn failed(&self, error: &FetchError) {
        self.state().show.ended();
        say(&format!("client: {}: {error}", self.file.shown()));
        if self.job.json {
            write_result(&json::failed(self.file, error), false);
        }
    }

    /// The user does not want it any more.
    pub(crate) fn interrupted(&self, status: u8) {
        self.state().show.ended();
        if self.is_giving() {
            say(
                "client: interrupted; what the server has of it is kept there, and the next run goes on with it",
            );
        } else if self.file.target.has_part() {
            say("client: interrupted; what has arrived is kept, and the next run goes on with it");
        } else {
            say("client: interrupted; nothing was kept");
        }
        info!(event = "interrupted", "Interrupted");
        if self.job.json {
            write_result(&json::interrupted(self.file, status), false);
        }
    }

    fn started(&self, name: &[u8], size: u64, have: u64) {
        let (file, peer_name) = (logged(&self.file.name), logged(name));
        if self.is_giving() {
            info!(event = "started", %file, size, have, "Sending '{file}' ({size} bytes)");
        } else {
            info!(event = "started", %file, size, have, "Receiving '{file}' ({size} bytes), which the server calls '{peer_name}'");
        }
        let mut state = self.state();
        state.steps = Steps::new(size);
        if have > 0 {
            // Those steps were told when their bytes arrived.
            let _ = state.steps.reached(have);
        }
        state.show.started(size, have);
        if self.job.verbose {
            state.show.say(&format!("{}: {} ({size} bytes)", shown(name), Bytes(size)));
        }
        if have > 0 && !self.job.quiet {
            let (name, have, size) = (self.file.shown(), Bytes(have), Bytes(size));
            let place = if self.is_giving() { "there" } else { "here" };
            state.show.say(&format!("{name}: going on, {have} of {size} are {place}"));
        }
    }

    fn changed(&self, kept: u64, had: u64) {
        let file = logged(&self.file.name);
        warn!(event = "changed", %file, kept, had, "The server has another version of '{file}': {kept} of {had} bytes are the same");
        if self.job.json {
            write_result(&json::changed(self.file, kept, had), false);
        }
        if !self.job.quiet {
            let (name, kept, had) = (self.file.shown(), Bytes(kept), Bytes(had));
            let line = format!(
                "{name}: the server has another version now; {kept} of the {had} that are here are the same"
            );
            self.state().show.say(&line);
        }
    }

    fn progress(&self, done: u64, size: u64) {
        let mut state = self.state();
        state.show.progress(done, size);
        for percent in state.steps.reached(done) {
            let file = logged(&self.file.name);
            info!(event = "progress", %file, percent, done, size, "Progress of '{file}': {percent}% ({done}/{size} bytes)");
            if self.job.json {
                write_result(&json::progress(self.file, percent, done, size), false);
            }
        }
    }
}

impl Observer for Reporter<'_> {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Connecting { peer } => {
                info!(event = "connecting", %peer, "Connecting to {peer}");
                if self.job.verbose {
                    self.state().show.say(&format!("connecting to {peer}"));
                }
            }
            Event::Connected { peer } => {
                info!(event = "connected", %peer, "Connected to {peer}");
            }
            Event::Started { name, size, have, .. } => {
                if self.job.json {
                    write_result(&json::started(self.file, name, size, have), false);
                }
                self.started(name, size, have);
            }
            Event::Remembered { server, pin, file, is_pinned } => {
                if let Some(line) = tell_remembered(self.job, server, pin, file, is_pinned) {
                    self.state().show.say(&line);
                }
            }
            Event::Changed { kept, had } => self.changed(kept, had),
            Event::Progress { done, size } => self.progress(done, size),
            Event::Waiting { retry, retries, wait, error } => {
                let line = log_waiting(retry, retries, wait, error);
                if self.job.json {
                    write_result(&json::waiting(self.file, retry, retries, wait, error), false);
                }
                if !self.job.quiet {
                    self.state().show.say(&line);
                }
            }
            _ => {}
        }
    }
}

/// Logs that an attempt failed and another one follows; returns the line for a person.
pub(crate) fn log_waiting(retry: u32, retries: u32, wait: Duration, error: &FetchError) -> String {
    let (seconds, text) = (wait.as_secs_f64(), error.to_string());
    let text = logged(text.as_bytes());
    warn!(event = "waiting", retry, retries, seconds, "Retry {retry} of {retries} in {seconds:.1} s: {text}");
    format!("{error}; retry {retry} of {retries} in {seconds:.1} s")
}

/// Logs that the key of a server is remembered, and tells scripts; returns the line for a person, if there is to
/// be one.
pub(crate) fn tell_remembered(
    job: &Job,
    server: &Server,
    pin: Pin,
    known_hosts: &str,
    is_pinned: bool,
) -> Option<String> {
    let file = logged(known_hosts.as_bytes());
    info!(event = "remembered", %server, %pin, is_pinned, "The key of {server}, {pin}, is remembered in {file}");
    if job.json {
        write_result(&json::remembered(server, pin, known_hosts, is_pinned), false);
    }
    let line = match is_pinned {
        true => format!("{server}: its key is remembered in {known_hosts}"),
        false => format!(
            "{server}: first contact; its key is {pin}, and is remembered in {known_hosts}. Nobody has compared it \
             with anything: compare it with what the server's log says"
        ),
    };
    (!job.quiet).then_some(line)
}

/// A result goes to standard output, unless the file itself does.
pub(crate) fn write_result(line: &str, stdout_is_taken: bool) {
    if stdout_is_taken {
        return say(line);
    }
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Whether standard error is a terminal that can draw a bar.
pub(crate) fn is_smart_terminal() -> bool {
    io::stderr().is_terminal()
        && std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}
