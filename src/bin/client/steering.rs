//! The commands that ask a server about itself: `status`, `clients`, `history` and `cancel`.

use std::process::ExitCode;

use oneport::app::{control, say};
use oneport::client::{Event, FetchError, Observer, Server};
use oneport::control::Question;
use oneport::text::logged;
use tracing::{error, info};

use crate::Stop;
use crate::args::Job;
use crate::json;
use crate::view::{tell_remembered, write_result};

/// Asks, and shows what the server says.
pub(crate) async fn ask(job: &Job, server: &Server, question: &Question, stop: &Stop) -> ExitCode {
    let observer = Remembering(job);
    match control::ask(server, question, &job.settings, &observer, &stop.token, job.json).await {
        Ok(()) => {
            info!(event = "asked", %server, "Asked {server} about itself");
            ExitCode::SUCCESS
        }
        Err(FetchError::Interrupted) if stop.token.is_cancelled() => ExitCode::from(stop.status()),
        Err(cause) => {
            let text = cause.to_string();
            error!(event = "failed", %server, "{}", logged(text.as_bytes()));
            say(&format!("client: {server}: {cause}"));
            if job.json {
                write_result(&json::unanswered(&server.to_string(), &cause), false);
            }
            ExitCode::from(cause.code().exit_status())
        }
    }
}

/// Hears only of keys that are remembered.
struct Remembering<'a>(&'a Job);

impl Observer for Remembering<'_> {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Remembered { server, pin, file, is_pinned } = *event
            && let Some(line) = tell_remembered(self.0, server, pin, file, is_pinned)
        {
            say(&line);
        }
    }
}
