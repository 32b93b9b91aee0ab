//! `--on-received`: a command for each file that was fetched or sent to this client, and for each folder that was fetched.
//!
//! Commands run while further files are fetched; before the client ends it waits for all of them. One that fails does
//! not make a file any less received, but the client ends with a status of its own.

use std::process::ExitCode;

use oneport::app::command::{Commands, Details, Queue, Tally};
use oneport::app::say;
use oneport::client::{Fetched, FolderFetched};
use oneport::error::Code;

use crate::Stop;
use crate::args::{File, Folder, Job};

/// The commands of a run, if there are any.
pub(crate) struct Hooks {
    commands: Option<(Commands, Queue)>,
}

impl Hooks {
    /// None are running yet. To be called within a runtime.
    pub(crate) fn new(job: &Job) -> Self {
        let started = job.on_received.as_ref().map(|(words, patience)| {
            let commands = Commands::start(words.clone(), *patience);
            let queue = commands.queue();
            (commands, queue)
        });
        Self { commands: started }
    }

    /// Where more of them wait, if there are any.
    pub(crate) fn queue(&self) -> Option<Queue> {
        self.commands.as_ref().map(|(commands, _)| commands.queue())
    }

    /// A file is here that was not here before.
    pub(crate) fn fetched(&self, file: &File, fetched: &Fetched) {
        let Some((_, queue)) = &self.commands else { return };
        if let Some(path) = fetched.path.as_deref().filter(|_| !fetched.unchanged) {
            let server = file.server.to_string();
            queue.tell(Details::of_fetched(path, &file.name, &server, fetched.size, fetched.digest));
        }
    }

    /// A folder is here, with files that were not here before.
    pub(crate) fn fetched_folder(&self, folder: &Folder, fetched: &FolderFetched) {
        let Some((_, queue)) = &self.commands else { return };
        if fetched.files > 0 {
            let server = folder.server.to_string();
            let FolderFetched { path, files, bytes, .. } = fetched;
            queue.tell(Details::of_folder(path, &folder.name, &server, *files, *bytes));
        }
    }

    /// Waits for the commands that still run; `code` is how the run ends otherwise.
    pub(crate) async fn finish(self, stop: &Stop, code: ExitCode) -> ExitCode {
        let Some((commands, queue)) = self.commands else { return code };
        drop(queue);
        let Tally { failed, skipped, .. } = commands.finish(stop.token.cancelled()).await;
        if failed + skipped == 0 || code != ExitCode::SUCCESS {
            return code;
        }
        if stop.token.is_cancelled() {
            return ExitCode::from(stop.status());
        }
        let not_run = if skipped > 0 { format!(", and {skipped} were not run") } else { String::new() };
        say(&format!(
            "client: the files are here, but {failed} commands failed (--on-received){not_run}; the log says why"
        ));
        ExitCode::from(Code::Command.exit_status())
    }
}
