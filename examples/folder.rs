//! Receives files into a folder as the client does, to measure it and for `strace -c`.
//!
//! ```text
//! folder TARGET FILES BYTES FOLDERS SYNC [--no-sync]
//! ```
//! Stores so many files of so many bytes, spread over so many folders, from one thread, with a sync point
//! after every SYNC files (0: none but the last), and prints the time that each step took and how many
//! files were there already. TARGET is made, or files are added to it if it is there.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use oneport::names::FileName;
use oneport::staged::{Attributes, Replace, StageError, StagedFolder, Standing};

/// The exit status after a failure that is not one of the disk's.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match receive(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "folder: {error:#}");
            let code = error.downcast_ref::<StageError>().map(|error| error.code().exit_status());
            ExitCode::from(code.unwrap_or(FAILURE))
        }
    }
}

fn receive(args: &[String]) -> anyhow::Result<()> {
    let (target, numbers, sync) = match args {
        [target, numbers @ .., last] if last == "--no-sync" => (target, numbers, false),
        [target, numbers @ ..] => (target, numbers, true),
        [] => bail!("usage: folder TARGET FILES BYTES FOLDERS SYNC [--no-sync]"),
    };
    let [files, bytes, folders, per_sync] = numbers else { bail!("four numbers are needed") };
    let per_sync: usize = per_sync.parse().context("SYNC")?;
    let (files, folders): (u32, u32) = (files.parse().context("FILES")?, folders.parse().context("FOLDERS")?);
    let bytes = vec![7; bytes.parse().context("BYTES")?];
    let attributes = Attributes { mode: 0o644, modified: (1_000_000_000, 5), sparse: false };
    let mut names = Vec::new();
    for file in 0..files {
        names.push(FileName::parse(format!("d{}/f{file}", file % folders.max(1)).as_bytes())?);
    }

    let begin = Instant::now();
    let folder = StagedFolder::open(Path::new(target), sync)?;
    let opened = begin.elapsed();
    let (mut kept, mut refused) = (0, Vec::new());
    for (number, name) in (1..).zip(&names) {
        if folder.standing(name, bytes.len() as u64, attributes.modified)? == Standing::Same {
            folder.keep(name)?;
            kept += 1;
        } else {
            folder.small(name, &bytes, &attributes, Replace::Always)?;
        }
        if per_sync > 0 && number % per_sync == 0 {
            refused.extend(folder.sync_point()?);
        }
    }
    let stored = begin.elapsed();
    refused.extend(folder.commit()?.1);
    let all = begin.elapsed();
    for (name, error) in &refused {
        writeln!(io::stderr(), "{name}: {error}")?;
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(files.max(1));
    writeln!(
        io::stdout(),
        "open {:.1} ms, store {:.2} µs a file, commit {:.1} ms, in all {:.2} µs a file, {kept} kept",
        opened.as_secs_f64() * 1e3,
        each(stored - opened),
        (all - stored).as_secs_f64() * 1e3,
        each(all)
    )?;
    // As the client: some of several failed.
    refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error.into()))
}
