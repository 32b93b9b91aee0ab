//! `server status`, `clients`, `history` and `cancel`, and how what a server says of itself is shown by both programs.
//!
//! Tables are for people and written as they come; with `--json` each record is a line, as it came.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_util::sync::CancellationToken;

use super::owner::Owner;
use super::{Failure, say};
use crate::client::{
    self, Backoff, Event, FetchError, Observer, Overwrite, Protocol, Said, Security, Server, Settings,
    TlsMode,
};
use crate::config::control::ControlTask;
use crate::control::{Connected, Past, Question, Record, Running, Status};
use crate::error::{Code, in_words};
use crate::limits::CONTROL_RECORDS;
use crate::text::{json_for_terminal, shown};
use crate::units::{Bytes, Rate};

/// Asks the server of a state folder, and shows what it says.
pub(super) fn run(task: &ControlTask, stopping: &CancellationToken) -> anyhow::Result<ExitCode> {
    let ControlTask { state, question, json } = task;
    let Reached { address, server, settings } = Reached::of(state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(ask(&server, question, &settings, &Quiet, stopping, *json));
    runtime.shutdown_background();
    match asked {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(FetchError::Interrupted) if stopping.is_cancelled() => {
            Ok(ExitCode::from(crate::error::EXIT_INTERRUPTED))
        }
        Err(error) => Err(failure(&error, address, state).into()),
    }
}

/// The server of a state folder, as its owner reaches it.
pub(super) struct Reached {
    pub(super) address: SocketAddr,
    pub(super) server: Server,
    pub(super) settings: Settings,
}

impl Reached {
    pub(super) fn of(state: &Path) -> Result<Self, Failure> {
        let owner = owner(state)?;
        let address = owner.address;
        let (server, settings) = reach(owner)?;
        Ok(Self { address, server, settings })
    }
}

/// Why the owner of a server got nothing from it.
pub(super) fn failure(error: &FetchError, address: SocketAddr, state: &Path) -> Failure {
    let folder = state.display();
    match error {
        FetchError::Connect { .. } | FetchError::Unanswered { .. } => Failure::new(
            error.code(),
            format!(
                "no server answers at {address}, where the one with the state folder {folder} was ({error}); start it \
                 anew"
            ),
        ),
        FetchError::Untrusted(_) => Failure::new(
            error.code(),
            format!(
                "what listens at {address} is not the server with the state folder {folder}, and was told nothing \
                 ({error})"
            ),
        ),
        error => Failure::new(error.code(), error),
    }
}

/// What the server of a state folder has noted for its owner.
fn owner(state: &Path) -> Result<Owner, Failure> {
    let folder = state.display();
    match Owner::noted(state) {
        Ok(Some(owner)) => Ok(owner),
        Ok(None) => Err(Failure::new(
            Code::Connect,
            format!(
                "no server is running with the state folder {folder}; name that of the server with --state"
            ),
        )),
        Err(error) => {
            let code = match error.kind() {
                ErrorKind::PermissionDenied => Code::NotAllowed,
                _ => Code::LocalIo,
            };
            let text = format!(
                "cannot read the owner's token in {folder}: {}; do this as the server's user",
                in_words(&error)
            );
            Err(Failure::new(code, text))
        }
    }
}

/// How the owner speaks to the server.
fn reach(owner: Owner) -> Result<(Server, Settings), Failure> {
    let Owner { address, pin, token } = owner;
    let host = match address.ip() {
        // Every address of the machine, of which its own is the nearest.
        any if any.is_unspecified() => "localhost".to_owned(),
        one => one.to_string(),
    };
    let server = Server::new(&host, address.port()).map_err(|error| Failure::new(Code::Other, error))?;
    let mut security = Security::default();
    security.tls = if pin.is_some() { TlsMode::Auto } else { TlsMode::Off };
    security.key = Some(token);
    let settings = Settings {
        backoff: Backoff { retries: 0, ..Backoff::default() },
        overwrite: Overwrite::Never,
        protocol: Protocol::V2,
        security,
        ..Settings::default()
    };
    Ok((Server { pin, ..server }, settings))
}

/// Hears nothing: all that matters is what the server says.
struct Quiet;

impl Observer for Quiet {
    fn observe(&self, _: &Event<'_>) {}
}

/// Asks a server about itself, and shows on standard output what it says.
///
/// # Errors
/// As [`control`](client::control). Whoever reads standard output may go away: then it was interrupted.
pub async fn ask(
    server: &Server,
    question: &Question,
    settings: &Settings,
    observer: &dyn Observer,
    stopping: &CancellationToken,
    json: bool,
) -> Result<(), FetchError> {
    let (sender, said) = channel(CONTROL_RECORDS);
    let asking = async {
        let asked = client::control(server, question, settings, observer, stopping, &sender).await;
        drop(sender);
        asked
    };
    let (asked, shown) = tokio::join!(asking, show_all(said, json));
    match shown.context("cannot write to standard output") {
        Ok(()) => asked,
        Err(error) => {
            say(&format!("{error:#}"));
            Err(FetchError::Interrupted)
        }
    }
}

async fn show_all(mut said: Receiver<Said>, json: bool) -> io::Result<()> {
    let mut stdout = io::BufWriter::new(io::stdout());
    let mut table = Table::default();
    while let Some(Said { record, json: text }) = said.recv().await {
        if json {
            writeln!(stdout, "{}", json_for_terminal(&text))?;
        } else {
            table.write(&record, &mut stdout)?;
        }
        if said.is_empty() {
            stdout.flush()?;
        }
    }
    stdout.flush()
}

/// What has been written of tables.
#[derive(Default)]
struct Table {
    has_heading: bool,
}

impl Table {
    fn write(&mut self, record: &Record, to: &mut impl Write) -> io::Result<()> {
        match record {
            Record::Status(status) => write_status(status, to),
            Record::Transfer(running) => {
                self.heading(to, "\n", TRANSFER)?;
                write_running(running, to)
            }
            Record::Client(connected) => {
                self.heading(to, "", CLIENT)?;
                write_connected(connected, to)
            }
            Record::Past(past) => {
                self.heading(to, "", PAST)?;
                write_past(past, to)
            }
            Record::Cancelled(gone) => {
                let (name, peer) = (said(&gone.name), said(&gone.peer));
                writeln!(to, "cancelled {}: {} of '{name}', {peer}", said(&gone.id), said(&gone.direction))
            }
            Record::Unknown => Ok(()),
        }
    }

    fn heading(&mut self, to: &mut impl Write, before: &str, heading: &str) -> io::Result<()> {
        match std::mem::replace(&mut self.has_heading, true) {
            true => Ok(()),
            false => writeln!(to, "{before}{heading}"),
        }
    }
}

const TRANSFER: &str = "ID          WAY       CLIENT                 KEY             DONE       SIZE  %     RATE          PRIO  NAME";
const CLIENT: &str =
    "CLIENT                 KEY          DIALECT  TLS  OPEN      SENT       RECEIVED   DOING";
const PAST: &str =
    "ENDED                 RESULT     WAY       CLIENT                 KEY          SIZE       SECONDS  NAME";

fn write_status(status: &Status, to: &mut impl Write) -> io::Result<()> {
    let Status { seconds, connections, connections_max, accepted, running, .. } = *status;
    let Status { sent, sent_bytes, stored, stored_bytes, cut, cancelled, refused, .. } = *status;
    let (version, since) = (said(&status.server), said(&status.started));
    let addresses: Vec<_> = status.addresses.iter().map(|address| said(address)).collect();
    writeln!(to, "oneport {version} on {}", addresses.join(", "))?;
    writeln!(to, "  since        {since} ({})", span(seconds))?;
    writeln!(to, "  connections  {connections} of at most {connections_max}; {accepted} since the start")?;
    writeln!(to, "  sent         {sent} files, {}", Bytes(sent_bytes))?;
    writeln!(to, "  stored       {stored} files, {}", Bytes(stored_bytes))?;
    writeln!(
        to,
        "  cut          {cut} transfers, {cancelled} of them cancelled; {refused} requests refused"
    )?;
    writeln!(to, "  running      {running} transfers")
}

fn write_running(one: &Running, to: &mut impl Write) -> io::Result<()> {
    let Running { id, direction, peer, name, priority, .. } = one;
    let percent = if one.size == 0 { 100 } else { u128::from(one.done) * 100 / u128::from(one.size) };
    let (id, direction, peer, key) = (said(id), said(direction), said(peer), key(one.key.as_deref()));
    let (done, size) = (Bytes(one.done).to_string(), Bytes(one.size).to_string());
    let (rate, name) = (Rate(one.rate).to_string(), said(name));
    writeln!(
        to,
        "{id:<11} {direction:<9} {peer:<22} {key:<12} {done:>10} {size:>10}  {percent:<4}  {rate:<12}  {priority:<4}  {name}"
    )
}

fn write_connected(one: &Connected, to: &mut impl Write) -> io::Result<()> {
    let (peer, key, dialect) = (said(&one.peer), key(one.key.as_deref()), said(&one.dialect));
    let (tls, open) = (if one.secure { "yes" } else { "no" }, span(one.seconds));
    let (sent, received) = (Bytes(one.sent).to_string(), Bytes(one.received).to_string());
    let doing = said(&one.doing);
    writeln!(to, "{peer:<22} {key:<12} {dialect:<8} {tls:<4} {open:<9} {sent:<10} {received:<10} {doing}")
}

fn write_past(one: &Past, to: &mut impl Write) -> io::Result<()> {
    let Past { ended, result, direction, peer, name, files, .. } = one;
    let (result, direction, peer, key) = (said(result), said(direction), said(peer), key(one.key.as_deref()));
    let ended = said(ended.split('.').next().unwrap_or_default());
    let (size, seconds, name) = (Bytes(one.size).to_string(), one.seconds, said(name));
    write!(
        to,
        "{ended:<21} {result:<10} {direction:<9} {peer:<22} {key:<12} {size:<10} {seconds:<8.3} {name}"
    )?;
    match (&one.cause, *files) {
        (Some(cause), _) => writeln!(to, " ({})", said(cause)),
        (None, 2..) => writeln!(to, " and {} more files", files - 1),
        (None, _) => writeln!(to),
    }
}

/// Text of a stranger, made safe to show.
fn said(text: &str) -> String {
    shown(text.as_bytes()).to_string()
}

fn key(key: Option<&str>) -> String {
    key.map_or_else(|| "-".to_owned(), said)
}

/// A time in its two largest units.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (1.., ..) => format!("{days}d {}h", hours % 24),
        (0, 1.., _) => format!("{hours}h {}m", minutes % 60),
        (0, 0, 1..) => format!("{minutes}m {}s", seconds % 60),
        (0, 0, 0) => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(record: &Record) -> String {
        let mut text = Vec::new();
        Table::default().write(record, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_strangers_say_steers_no_terminal() {
        let hostile = "a\u{1b}[2J\n\u{202e}".to_owned();
        for record in [
            Record::Transfer(Running { name: hostile.clone(), id: hostile.clone(), ..Running::default() }),
            Record::Client(Connected {
                doing: hostile.clone(),
                key: Some(hostile.clone()),
                ..Connected::default()
            }),
            Record::Past(Past { name: hostile.clone(), cause: Some(hostile.clone()), ..Past::default() }),
            Record::Status(Status { server: hostile.clone(), addresses: vec![hostile], ..Status::default() }),
        ] {
            let text = written(&record);
            assert!(!text.contains(['\u{1b}', '\u{202e}']) && text.contains("\\n"), "{text}");
        }
    }

    #[test]
    fn times_are_shown_in_their_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (61, "1m 1s"), (3600, "1h 0m"), (90_061, "1d 1h")] {
            assert_eq!(span(seconds), text);
        }
    }
}
