//! `push`: files for clients that listen, for each receiver one after the other, and for all receivers at once.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::Poll;

use oneport::app::say;
use oneport::client::{FetchError, Target, push};
use oneport::error::Code;
use oneport::text::logged;
use tracing::{error, info};

use crate::args::{Delivery, File, Job, Local};
use crate::storing::source_of;
use crate::view::Reporter;
use crate::{Stop, concerns_all};

/// Sends all files. One that fails does not keep the others back, unless it fails in a way in which all others would.
pub(crate) async fn push_all(job: &Job, deliveries: &[Delivery], stop: &Stop) -> ExitCode {
    let mut lanes: BTreeMap<_, Vec<&Delivery>> = BTreeMap::new();
    for delivery in deliveries {
        lanes.entry(&delivery.receiver).or_default().push(delivery);
    }
    let lanes = lanes.into_values().map(|lane| Box::pin(push_lane(job, lane, stop)));
    let failed: Vec<(String, Code)> = all(lanes.collect()).await.into_iter().flatten().collect();
    if stop.token.is_cancelled() && !failed.is_empty() {
        return ExitCode::from(stop.status());
    }
    let Some((_, code)) = failed.first() else { return ExitCode::SUCCESS };
    if deliveries.len() == 1 {
        return ExitCode::from(code.exit_status());
    }
    let (count, all) = (failed.len(), deliveries.len());
    let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
    say(&format!("client: {count} of {all} failed: {}", names.join(", ")));
    let is_one_cause = count == all && failed.iter().all(|(_, other)| other == code);
    ExitCode::from(if is_one_cause { *code } else { Code::Partial }.exit_status())
}

/// Sends the files for one receiver; what has failed, and why.
async fn push_lane(job: &Job, lane: Vec<&Delivery>, stop: &Stop) -> Vec<(String, Code)> {
    let mut failed = Vec::new();
    for (at, delivery) in lane.iter().enumerate() {
        let Err(error) = push_one(job, delivery, stop).await else { continue };
        let is_over = concerns_all(&error) || stop.token.is_cancelled();
        let rest = if is_over { &lane[at..] } else { &lane[at..=at] };
        let shown = |left: &&Delivery| format!("{} for {}", left.upload.local_shown(), left.receiver);
        failed.extend(rest.iter().map(|left| (shown(left), error.code())));
        if is_over {
            break;
        }
    }
    failed
}

async fn push_one(job: &Job, delivery: &Delivery, stop: &Stop) -> Result<(), FetchError> {
    let Delivery { receiver, upload } = delivery;
    let (file, server, local) = (logged(&upload.name), &upload.server, upload.local_shown());
    let local = logged(local.as_bytes());
    info!(event = "push", %file, %server, %receiver, %local, "Sending {local} to {receiver} by way of {server} as '{file}'");
    let there = File { server: server.clone(), name: upload.name.clone(), target: Target::Stdout };
    let reporter = Reporter::new(job, &there);
    let sending = async {
        let source = source_of(upload).await?;
        push(server, receiver, &source, &upload.name, &job.settings, &reporter, &stop.token).await
    };
    // Whoever waits for standard input hears of nothing else.
    let sent = match upload.local {
        Local::Input => stop.token.run_until_cancelled(sending).await.unwrap_or(Err(FetchError::Interrupted)),
        _ => sending.await,
    };
    match sent {
        Ok(sent) => {
            reporter.delivered(delivery, &sent);
            Ok(())
        }
        Err(cause) => {
            let (text, code) = (cause.to_string(), cause.code().name());
            let text = logged(text.as_bytes());
            error!(event = "failed", %file, %server, %receiver, code, "Failed to send {local} to {receiver}: {text}");
            match &cause {
                FetchError::Interrupted if stop.token.is_cancelled() => reporter.interrupted(stop.status()),
                error => reporter.not_delivered(delivery, error),
            }
            Err(cause)
        }
    }
}

/// Does all of it at the same time, in this task; what came of each.
async fn all<T>(mut works: Vec<Pin<Box<impl Future<Output = T>>>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = works.iter().map(|_| None).collect();
    poll_fn(move |context| {
        for (work, done) in works.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(came) = work.as_mut().poll(context)
            {
                *done = Some(came);
            }
        }
        if done.iter().any(Option::is_none) {
            return Poll::Pending;
        }
        Poll::Ready(done.iter_mut().filter_map(Option::take).collect())
    })
    .await
}
