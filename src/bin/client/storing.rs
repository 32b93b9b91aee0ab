//! The commands that change what a server holds: `put`, `rm` and `mv`.

use std::path::Path;
use std::process::ExitCode;

use oneport::app::say;
use oneport::client::{
    FetchError, FolderPut, Selection, Target, UploadSource, put, put_folder, remove, rename,
};
use oneport::error::Code;
use oneport::text::{logged, shown};
use tracing::{error, info};

use crate::args::{File, Job, Local, Task, Upload};
use crate::folders::{Counts, FolderReporter};
use crate::json;
use crate::view::{Reporter, write_result};
use crate::{Stop, concerns_all};

/// How something ended that did not fail as a whole.
enum Ended {
    Well,
    /// Some files of a folder failed.
    Partly,
}

/// Stores one file or folder after the other. One that fails does not keep the others back, unless it fails in a
/// way in which all others would.
pub(crate) async fn put_all(job: &Job, uploads: &[Upload], stop: &Stop) -> ExitCode {
    let mut failed = Vec::new();
    for upload in uploads {
        match put_one(job, upload, stop).await {
            Ok(Ended::Well) => {}
            Ok(Ended::Partly) if uploads.len() == 1 => return ExitCode::from(Code::Partial.exit_status()),
            Err(FetchError::Interrupted) if stop.token.is_cancelled() => {
                return ExitCode::from(stop.status());
            }
            Err(error) if uploads.len() == 1 || concerns_all(&error) => {
                return ExitCode::from(error.code().exit_status());
            }
            Ok(Ended::Partly) | Err(_) => failed.push(upload.local_shown()),
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    let (count, all) = (failed.len(), uploads.len());
    say(&format!("client: {count} of {all} failed: {}", failed.join(", ")));
    ExitCode::from(Code::Partial.exit_status())
}

async fn put_one(job: &Job, upload: &Upload, stop: &Stop) -> Result<Ended, FetchError> {
    let (file, server, local) = (logged(&upload.name), &upload.server, upload.local_shown());
    let local = logged(local.as_bytes());
    info!(event = "put", %file, %server, %local, "Storing {local} on {server} as '{file}'");
    let stored = match &upload.local {
        Local::Folder(path, selection) => put_files(job, upload, path, selection, stop).await,
        Local::File(_) | Local::Input => put_file(job, upload, stop).await,
    };
    if let Err(cause) = &stored {
        let (text, code) = (cause.to_string(), cause.code().name());
        let text = logged(text.as_bytes());
        error!(event = "failed", %file, %server, code, "Failed to store {local} as '{file}': {text}");
    }
    stored
}

async fn put_file(job: &Job, upload: &Upload, stop: &Stop) -> Result<Ended, FetchError> {
    let there = there(upload);
    let reporter = Reporter::new(job, &there);
    let storing = async {
        let source = source_of(upload).await?;
        put(&upload.server, &source, &upload.name, &job.settings, &reporter, &stop.token).await
    };
    // Whoever waits for standard input hears of nothing else.
    let stored = match upload.local {
        Local::Input => stop.token.run_until_cancelled(storing).await.unwrap_or(Err(FetchError::Interrupted)),
        _ => storing.await,
    };
    match &stored {
        Ok(stored) => reporter.stored(upload, stored),
        Err(FetchError::Interrupted) if stop.token.is_cancelled() => reporter.interrupted(stop.status()),
        Err(error) => reporter.failed(error),
    }
    stored.map(|_| Ended::Well)
}

/// What is offered; standard input is read to its end first.
pub(crate) async fn source_of(upload: &Upload) -> Result<UploadSource, FetchError> {
    match &upload.local {
        Local::File(path) | Local::Folder(path, _) => Ok(UploadSource::File(path.clone())),
        Local::Input => {
            let reading = tokio::task::spawn_blocking(|| UploadSource::from_input(std::io::stdin().lock()));
            reading.await.unwrap_or(Err(FetchError::Interrupted))
        }
    }
}

/// The place on the server, as a file of it.
fn there(upload: &Upload) -> File {
    File { server: upload.server.clone(), name: upload.name.clone(), target: Target::Stdout }
}

async fn put_files(
    job: &Job,
    upload: &Upload,
    local: &Path,
    selection: &Selection,
    stop: &Stop,
) -> Result<Ended, FetchError> {
    let (reporter, server) = (FolderReporter::new(job, &upload.name), &upload.server);
    let putting = put_folder(server, local, &upload.name, selection, &job.settings, &reporter, &stop.token);
    let put = putting.await;
    reporter.ended();
    match put {
        Ok(put) => {
            stored_all(&reporter, upload, &put);
            Ok(if put.failed > 0 { Ended::Partly } else { Ended::Well })
        }
        Err(FetchError::Interrupted) if stop.token.is_cancelled() => {
            info!(event = "interrupted", "Interrupted");
            say("client: interrupted; what is stored stays, and the next run goes on with the rest");
            if job.json {
                write_result(&json::folder_interrupted(&upload.name, stop.status()), false);
            }
            Err(FetchError::Interrupted)
        }
        Err(error) => {
            say(&format!("client: {}: {error}", upload.local_shown()));
            if job.json {
                write_result(&json::folder_failed(&upload.name, &error), false);
            }
            Err(error)
        }
    }
}

fn stored_all(reporter: &FolderReporter<'_>, upload: &Upload, put: &FolderPut) {
    let FolderPut { files, bytes, unchanged, failed, skipped, resumed, elapsed, .. } = *put;
    let counts = Counts { files, bytes, unchanged, failed, skipped, resumed, elapsed };
    let (name, server, seconds) = (upload.shown(), &upload.server, elapsed.as_secs_f64());
    let rate = counts.rate();
    info!(
        event = "stored", folder = %logged(&upload.name), %server, files, bytes, unchanged, failed, skipped, resumed, seconds,
        "Stored {files} files on {server}: {bytes} bytes in {seconds:.3} s ({rate}), BLAKE3 verified; {unchanged} \
         unchanged, {skipped} skipped, {failed} failed"
    );
    reporter.tell_end(&format!("{name}: stored on {server}"), &counts, || json::folder_stored(upload, put));
}

/// Removes one thing after the other, or gives the only one another name.
pub(crate) async fn change_all(job: &Job, stop: &Stop) -> ExitCode {
    let mut codes = Vec::new();
    for file in &job.files {
        match change(job, file, stop).await {
            Ok(()) => {}
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
                codes.push(error.code());
                if concerns_all(&error) {
                    break;
                }
            }
        }
    }
    match codes.as_slice() {
        [] => ExitCode::SUCCESS,
        [first, rest @ ..]
            if job.files.len() == 1
                || rest.len() + 1 == job.files.len() && rest.iter().all(|code| code == first) =>
        {
            ExitCode::from(first.exit_status())
        }
        _ => ExitCode::from(Code::Partial.exit_status()),
    }
}

async fn change(job: &Job, file: &File, stop: &Stop) -> Result<(), FetchError> {
    let reporter = Reporter::new(job, file);
    let (server, name, settings) = (&file.server, file.name.as_slice(), &job.settings);
    let (line, json_line) = match &job.task {
        Task::Move { to, replace } => {
            rename(server, name, to, *replace, settings, &reporter, &stop.token).await?;
            let (from, to_name) = (logged(name), logged(to));
            info!(event = "moved", %from, to = %to_name, %server, "'{from}' on {server} is '{to_name}' now");
            (format!("{} is {} now", file.shown(), shown(to)), json::changed_there(file, "moved", Some(to)))
        }
        task => {
            let recursive = matches!(task, Task::Remove { recursive: true });
            remove(server, name, recursive, settings, &reporter, &stop.token).await?;
            info!(event = "removed", file = %logged(name), %server, "'{}' was removed from {server}", logged(name));
            (format!("{}: removed", file.shown()), json::changed_there(file, "removed", None))
        }
    };
    if job.json {
        write_result(&json_line, false);
    } else if !job.quiet {
        write_result(&line, false);
    }
    Ok(())
}
