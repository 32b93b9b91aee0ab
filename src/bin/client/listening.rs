//! `listen`: files that others send, what a person or a script sees of them, and what the log keeps.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use oneport::app::command::{Details, Queue};
use oneport::app::say;
use oneport::client::{
    Event, FetchError, Listen, Listened, Observer, Offered, Received, ReceivingObserver, Server, listen,
};
use oneport::text::{logged, shown};
use oneport::units::{Bytes, Rate};
use tracing::{error, info, warn};

use crate::Stop;
use crate::args::Job;
use crate::hooks::Hooks;
use crate::listening_json as json;
use crate::plain::Plain;
use crate::view::{Show, tell_remembered, write_result};

/// Listens until the user does not want it any more, or it cannot be done.
pub(crate) async fn run(job: &Job, server: &Server, how: &Listen, hooks: &Hooks, stop: &Stop) -> ExitCode {
    let (json, quiet, verbose) = (job.json, job.quiet, job.verbose);
    let (name, server_shown, queue) = (how.name.to_string(), server.to_string(), hooks.queue());
    let view = View { json, quiet, verbose, name, server: server_shown, queue };
    let receiving: Arc<dyn ReceivingObserver> = Arc::new(view);
    let connections = Connections { job };
    info!(event = "listen", %server, name = %how.name, "Listening on {server} as {}", how.name);
    match listen(server, how, &job.settings, &connections, &receiving, &stop.token).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(FetchError::Interrupted) if stop.token.is_cancelled() => {
            info!(event = "interrupted", "Interrupted");
            ExitCode::from(stop.status())
        }
        Err(error) => {
            let (text, code) = (error.to_string(), error.code());
            error!(event = "failed", %server, code = code.name(), "Cannot listen: {}", logged(text.as_bytes()));
            say(&format!("client: {error}"));
            if job.json {
                write_result(&json::listen_failed(&how.name, &error), false);
            }
            ExitCode::from(code.exit_status())
        }
    }
}

/// Hears of connections.
struct Connections<'a> {
    job: &'a Job,
}

impl Observer for Connections<'_> {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Connecting { peer } => info!(event = "connecting", %peer, "Connecting to {peer}"),
            Event::Remembered { server, pin, file, is_pinned } => {
                if let Some(line) = tell_remembered(self.job, server, pin, file, is_pinned) {
                    say(&line);
                }
            }
            _ => {}
        }
    }
}

/// Hears of files.
struct View {
    json: bool,
    quiet: bool,
    verbose: bool,
    name: String,
    server: String,
    /// Where commands wait to be run for what was received.
    queue: Option<Queue>,
}

impl View {
    fn received(&self, offered: &Offered, received: &Received) {
        let Offered { name, from, size, root, .. } = offered;
        let path = shown(received.path.as_os_str().as_bytes()).to_string();
        let (seconds, rate) =
            (received.elapsed.as_secs_f64(), Rate::new(size - received.resumed.min(*size), received.elapsed));
        let (file, target, unchanged) =
            (logged(name.as_bytes()), logged(path.as_bytes()), received.unchanged);
        let resumed = received.resumed;
        info!(
            event = "received", %file, %from, %target, size, seconds, resumed, unchanged, blake3 = %root,
            "Received '{file}' from {from} into {target}: {size} bytes in {seconds:.3} s ({rate}), BLAKE3 {root} verified"
        );
        if let Some(queue) = self.queue.as_ref().filter(|_| !unchanged) {
            let (path, name) = (&received.path, name.as_bytes());
            queue.tell(Details::of_pushed(path, name, &self.server, from, *size, *root));
        }
        if self.json {
            return write_result(&json::received(offered, received), false);
        }
        if self.quiet {
            return;
        }
        let size = Bytes(*size);
        let line = if unchanged {
            format!("{path}: unchanged, {size} from {from}, BLAKE3 verified")
        } else {
            format!("{path}: {size} from {from} in {seconds:.1} s ({rate}), BLAKE3 verified")
        };
        write_result(&line, false);
    }
}

impl ReceivingObserver for View {
    fn observe(&self, event: &Listened<'_>) {
        match *event {
            Listened::Listening { peer } => {
                let (name, server) = (&self.name, &self.server);
                info!(event = "listening", %peer, %name, "Listening on {peer} as {name}");
                if self.json {
                    write_result(&json::listening(name, server), false);
                } else if !self.quiet {
                    say(&format!("listening on {server} as {name}"));
                }
            }
            Listened::Received(offered, received) => self.received(offered, received),
            Listened::Refused { name, from, error } => {
                let text = error.to_string();
                let (file, cause) = (logged(name.as_bytes()), logged(text.as_bytes()));
                warn!(event = "refused", %file, %from, %cause, "Did not receive '{file}' from {from}: {cause}");
                say(&format!("client: {name} from {from}: {error}"));
                if self.json {
                    write_result(&json::not_received(name, from, error), false);
                }
            }
            Listened::Waiting { wait, error } => {
                let (seconds, text) = (wait.as_secs_f64(), error.to_string());
                let cause = logged(text.as_bytes());
                warn!(event = "waiting", seconds, %cause, "Listening again in {seconds:.1} s: {cause}");
                if self.json {
                    write_result(&json::listen_waiting(&self.name, wait, error), false);
                }
                if !self.quiet {
                    say(&format!("{error}; listening again in {seconds:.1} s"));
                }
            }
            _ => {}
        }
    }

    fn begins(&self, offered: &Offered) -> Box<dyn Observer> {
        let file = logged(offered.name.as_bytes()).to_string();
        let (from, size) = (&offered.from, offered.size);
        info!(event = "started", %file, %from, size, "Receiving '{file}' ({size} bytes) from {from}");
        if self.verbose {
            say(&format!("{}: {} from {from}", offered.name, Bytes(size)));
        }
        let show = (!self.quiet).then(|| Plain::new(&offered.name.to_string()));
        Box::new(Progress { show: Mutex::new(show) })
    }
}

/// Shows how far one file is. Several may come at once, so there are lines and no bars.
struct Progress {
    show: Mutex<Option<Plain>>,
}

impl Observer for Progress {
    fn observe(&self, event: &Event<'_>) {
        let mut show = self.show.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(show) = &mut *show else { return };
        match *event {
            Event::Started { size, have, .. } => show.started(size, have),
            Event::Progress { done, size } => show.progress(done, size),
            Event::Waiting { wait, error, .. } => {
                show.say(&format!("{error}; trying again in {:.1} s", wait.as_secs_f64()));
            }
            _ => {}
        }
    }
}
