//! The commands that move no file: `stat`, `verify` and `ping`.

use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use oneport::app::say;
use oneport::client::{Event, Facts, FetchError, Observer, Pinger, Server, Verified, stat, verify};
use oneport::error::Code;
use oneport::limits::PING_INTERVAL;
use oneport::text::logged;
use oneport::units::Bytes;
use tokio::time::sleep;
use tracing::{error, info};

use crate::Stop;
use crate::args::{File, Job, Task};
use crate::json;
use crate::view::{Reporter, tell_remembered, write_result};

/// Asks about one file after the other.
pub(crate) async fn ask_all(job: &Job, stop: &Stop) -> ExitCode {
    let mut codes = Vec::new();
    for file in &job.files {
        match ask(job, file, stop).await {
            Ok(true) => {}
            Ok(false) => codes.push(Code::Checksum.exit_status()),
            Err(FetchError::Interrupted) if stop.token.is_cancelled() => {
                return ExitCode::from(stop.status());
            }
            Err(error) => {
                let text = error.to_string();
                error!(event = "failed", file = %logged(&file.name), "{}", logged(text.as_bytes()));
                say(&format!("client: {}: {error}", file.shown()));
                if job.json {
                    write_result(&json::failed(file, &error), false);
                }
                codes.push(error.code().exit_status());
            }
        }
    }
    match codes.as_slice() {
        [] => ExitCode::SUCCESS,
        [code] if job.files.len() == 1 => ExitCode::from(*code),
        // All for the same reason, or each for its own.
        [first, rest @ ..] if rest.len() + 1 == job.files.len() && rest.iter().all(|code| code == first) => {
            ExitCode::from(*first)
        }
        _ => ExitCode::from(Code::Partial.exit_status()),
    }
}

/// Asks about one file; `false` if the local one is another one.
async fn ask(job: &Job, file: &File, stop: &Stop) -> Result<bool, FetchError> {
    let reporter = Reporter::new(job, file);
    let (server, name, settings) = (&file.server, file.name.as_slice(), &job.settings);
    if matches!(job.task, Task::Stat) {
        let facts = stat(server, name, settings, &reporter, &stop.token).await?;
        info!(event = "stat", file = %logged(name), size = facts.size, blake3 = %facts.root, "Asked about '{}'", logged(name));
        let line = if job.json { json::facts(file, &facts) } else { shown_facts(file, &facts) };
        write_result(&line, false);
        return Ok(true);
    }
    let verified = verify(server, name, &file.target, settings, &reporter, &stop.token).await?;
    let (is_same, into) = (verified.is_same(), file.target.shown());
    info!(event = "verified", file = %logged(name), is_same, "Compared '{}' with {}", logged(name), logged(into.as_bytes()));
    if job.json {
        write_result(&json::verified(file, &verified), false);
    } else if !is_same {
        say(&format!("client: {into} is not the server's file: {}", difference(&verified)));
    } else if !job.quiet {
        write_result(&format!("{into}: same, {}, BLAKE3 verified", Bytes(verified.size)), false);
    }
    Ok(is_same)
}

fn difference(verified: &Verified) -> String {
    let Verified { facts, size, root, .. } = verified;
    if *size == facts.size {
        format!("BLAKE3 {root} here, {} there", facts.root)
    } else {
        format!("{size} bytes here, {} there", facts.size)
    }
}

fn shown_facts(file: &File, facts: &Facts) -> String {
    let (seconds, nanos) = facts.modified;
    let modified = i32::try_from(nanos).ok().and_then(|nanos| Timestamp::new(seconds, nanos).ok());
    let modified = modified.map_or_else(|| "unknown".to_owned(), |time| format!("{time:.0}"));
    let Facts { size, mode, identity, root, .. } = facts;
    format!(
        "{}\n  size      {size} bytes ({})\n  modified  {modified}\n  mode      {mode:04o}\n  \
         identity  {identity}\n  blake3    {root}",
        file.shown(),
        Bytes(*size)
    )
}

/// Measures the time that answers take.
pub(crate) async fn ping(job: &Job, server: &Server, count: u32, stop: &Stop) -> ExitCode {
    let asked = stop.token.run_until_cancelled(ping_all(job, server, count)).await;
    match asked.unwrap_or(Err(FetchError::Interrupted)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(FetchError::Interrupted) if stop.token.is_cancelled() => ExitCode::from(stop.status()),
        Err(error) => {
            let text = error.to_string();
            error!(event = "failed", %server, "{}", logged(text.as_bytes()));
            say(&format!("client: {server}: {error}"));
            if job.json {
                write_result(&json::unanswered(&server.to_string(), &error), false);
            }
            ExitCode::from(error.code().exit_status())
        }
    }
}

async fn ping_all(job: &Job, server: &Server, count: u32) -> Result<(), FetchError> {
    let mut pinger = Pinger::open(server, &job.settings, &Pinging(job)).await?;
    let peer = pinger.peer();
    let mut times = Vec::new();
    for round in 0..count {
        if round > 0 {
            sleep(PING_INTERVAL).await;
        }
        let time = pinger.ping().await?;
        times.push(time);
        if !job.json && !job.quiet {
            write_result(&format!("answer from {peer}: {}", millis(time)), false);
        }
    }
    let (Some(least), Some(most)) = (times.iter().min(), times.iter().max()) else { return Ok(()) };
    let mean = times.iter().sum::<Duration>() / count;
    info!(event = "ping", %server, %peer, count, "Pinged {server}");
    if job.json {
        write_result(&json::pings(&server.to_string(), &peer.to_string(), &times), false);
    } else {
        let (least, mean, most) = (millis(*least), millis(mean), millis(*most));
        write_result(&format!("{count} answers: least {least}, mean {mean}, most {most}"), false);
    }
    Ok(())
}

fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

/// Hears only of keys that are remembered: a ping says enough itself.
struct Pinging<'a>(&'a Job);

impl Observer for Pinging<'_> {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Remembered { server, pin, file, is_pinned } = *event
            && let Some(line) = tell_remembered(self.0, server, pin, file, is_pinned)
        {
            say(&line);
        }
    }
}
