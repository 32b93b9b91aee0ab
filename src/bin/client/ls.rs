//! `client ls`: what is in a folder of a server.
//!
//! Entries arrive in batches. For people they are sorted before they are shown, as long as there are not so
//! many that memory would fill; then they are shown as they come. Scripts get them as they come.

use std::io::{self, BufWriter, Stdout, Write};
use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use oneport::app::say;
use oneport::client::{Entry, FetchError, Kind, Selection, list};
use oneport::error::Code;
use oneport::limits::LIST_SORTED_MAX;
use oneport::text::{listed, logged, shown};
use tokio::sync::mpsc::{Receiver, channel};
use tracing::{error, info};

use crate::Stop;
use crate::args::{File, Job, Ls};
use crate::json;
use crate::view::Reporter;

/// Batches that wait to be shown.
const BATCHES: usize = 4;
/// Digits of a size where nobody knows the largest one.
const SIZE_WIDTH: usize = 14;

/// Why nothing more is shown.
enum Stopped {
    Failed(FetchError),
    /// Nobody reads standard output any more.
    Unread,
}

/// Lists one folder after the other.
pub(crate) async fn list_all(job: &Job, ls: &Ls, stop: &Stop) -> ExitCode {
    let mut codes = Vec::new();
    for (index, folder) in job.files.iter().enumerate() {
        let mut shower = Shower::new(job, ls, folder);
        shower.begin(index);
        match list_one(job, &ls.selection, folder, &mut shower, stop).await {
            Ok(()) if shower.closed == 0 => {}
            Ok(()) => codes.push(Code::Partial.exit_status()),
            Err(Stopped::Unread) => return ExitCode::SUCCESS,
            Err(Stopped::Failed(FetchError::Interrupted)) if stop.token.is_cancelled() => {
                return ExitCode::from(stop.status());
            }
            Err(Stopped::Failed(error)) => {
                let text = error.to_string();
                error!(event = "failed", folder = %logged(&folder.name), "{}", logged(text.as_bytes()));
                say(&format!("client: {}: {error}", name_of(folder)));
                codes.push(error.code().exit_status());
            }
        }
    }
    match codes.as_slice() {
        [] => ExitCode::SUCCESS,
        [first, rest @ ..] if rest.len() + 1 == job.files.len() && rest.iter().all(|code| code == first) => {
            ExitCode::from(*first)
        }
        _ => ExitCode::from(Code::Partial.exit_status()),
    }
}

/// Lists one folder and shows it.
async fn list_one(
    job: &Job,
    selection: &Selection,
    folder: &File,
    shower: &mut Shower<'_>,
    stop: &Stop,
) -> Result<(), Stopped> {
    let reporter = Reporter::new(job, folder);
    let (sender, batches) = channel(BATCHES);
    let listing = async {
        let name = folder.name.as_slice();
        let listed =
            list(&folder.server, name, selection, &job.settings, &reporter, &stop.token, &sender).await;
        drop(sender);
        listed
    };
    let (listed, shown) = tokio::join!(listing, shower.show_all(batches));
    shown.map_err(|_| Stopped::Unread)?;
    match &listed {
        Ok(()) => info!(
            event = "listed", folder = %logged(&folder.name), server = %folder.server, entries = shower.count,
            "Listed '{}' on {}: {} entries", logged(&folder.name), folder.server, shower.count
        ),
        Err(FetchError::Interrupted) => info!(event = "interrupted", "Interrupted"),
        Err(_) => {}
    }
    shower.end(listed.as_ref().err(), stop.status()).map_err(|_| Stopped::Unread)?;
    listed.map_err(Stopped::Failed)
}

/// Shows what is found.
struct Shower<'a> {
    job: &'a Job,
    ls: &'a Ls,
    folder: &'a File,
    output: BufWriter<Stdout>,
    /// What is to be sorted; none if it is shown as it comes.
    kept: Option<Vec<Entry>>,
    count: u64,
    /// Folders that could not be listed.
    closed: u64,
}

impl<'a> Shower<'a> {
    fn new(job: &'a Job, ls: &'a Ls, folder: &'a File) -> Self {
        let kept = (!job.json).then(Vec::new);
        Self { job, ls, folder, output: BufWriter::new(io::stdout()), kept, count: 0, closed: 0 }
    }

    /// A heading, where there are several folders.
    fn begin(&mut self, index: usize) {
        if !self.job.json && self.job.files.len() > 1 {
            let space = if index == 0 { "" } else { "\n" };
            let _ = writeln!(self.output, "{space}{}:", name_of(self.folder));
        }
    }

    /// Takes batches until there are no more. Whoever listens to standard output may go away.
    async fn show_all(&mut self, mut batches: Receiver<Vec<Entry>>) -> io::Result<()> {
        while let Some(entries) = batches.recv().await {
            self.take(entries)?;
            if self.kept.is_none() && batches.is_empty() {
                self.output.flush()?;
            }
        }
        Ok(())
    }

    fn take(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        for entry in entries {
            self.count += 1;
            if entry.kind == Kind::Closed {
                self.closed += 1;
                say(&format!("client: {} cannot be listed by the server", shown(&self.whole_name(&entry))));
            }
            match &mut self.kept {
                Some(kept) => kept.push(entry),
                None => self.write(&entry, SIZE_WIDTH)?,
            }
        }
        if self.kept.as_ref().is_some_and(|kept| kept.len() > LIST_SORTED_MAX) {
            say(&format!("client: more than {LIST_SORTED_MAX} entries: they are not sorted"));
            for entry in self.kept.take().unwrap_or_default() {
                self.write(&entry, SIZE_WIDTH)?;
            }
        }
        Ok(())
    }

    /// All has come that will come.
    fn end(&mut self, error: Option<&FetchError>, status: u8) -> io::Result<()> {
        if let Some(mut kept) = self.kept.take() {
            kept.sort_by(|one, other| one.name.cmp(&other.name));
            let width = kept.iter().map(|entry| entry.size.to_string().len()).max().unwrap_or(0);
            for entry in &kept {
                self.write(entry, width)?;
            }
        }
        if self.job.json {
            let line = match error {
                None => json::listed(self.folder, self.count, self.closed),
                Some(FetchError::Interrupted) => json::interrupted(self.folder, status),
                Some(error) => json::failed(self.folder, error),
            };
            writeln!(self.output, "{line}")?;
        }
        self.output.flush()
    }

    fn write(&mut self, entry: &Entry, width: usize) -> io::Result<()> {
        if self.job.json {
            return writeln!(self.output, "{}", json::entry(self.folder, entry));
        }
        let name = if entry.name.is_empty() { &self.folder.name } else { &entry.name[..] };
        let mark = match entry.kind {
            Kind::File => "",
            Kind::Folder | Kind::Closed => "/",
            Kind::Link => "@",
        };
        if self.ls.is_long {
            let (mode, time) = (mode_of(entry), time_of(entry.modified));
            write!(self.output, "{mode} {:>width$} {time} ", entry.size)?;
        }
        writeln!(self.output, "{}{mark}", listed(name))
    }

    fn whole_name(&self, entry: &Entry) -> Vec<u8> {
        let separator: &[u8] = if self.folder.name.is_empty() { b"" } else { b"/" };
        [&self.folder.name, separator, &entry.name].concat()
    }
}

/// The folder's name, or the server where all that it serves is meant.
fn name_of(folder: &File) -> String {
    if folder.name.is_empty() { folder.server.to_string() } else { folder.shown() }
}

fn mode_of(entry: &Entry) -> String {
    let kind = match entry.kind {
        Kind::File => '-',
        Kind::Folder | Kind::Closed => 'd',
        Kind::Link => 'l',
    };
    let bit = |index: u32| entry.mode >> (8 - index) & 1 == 1;
    let letters = (0..9).zip("rwxrwxrwx".chars());
    std::iter::once(kind)
        .chain(letters.map(|(index, letter)| if bit(index) { letter } else { '-' }))
        .collect()
}

fn time_of((seconds, nanos): (i64, u32)) -> String {
    let time = i32::try_from(nanos).ok().and_then(|nanos| Timestamp::new(seconds, nanos).ok());
    let time = time.map(|time| time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%SZ").to_string());
    time.unwrap_or_else(|| "unknown".to_owned())
}
