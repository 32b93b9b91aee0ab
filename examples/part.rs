//! Receives a local file as the client receives one over version 2, for `faults/syscalls`.
//!
//! ```text
//! part SOURCE TARGET BLOCKS
//! ```
//! Goes on with the part of TARGET if there is one, makes a sync point after so many blocks, gives the
//! part its name, and prints `resumed BYTES`. All of it happens on one thread, so that every call can be
//! made to fail at a known place; the client makes its sync points after more bytes than a sweep has
//! time for.

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use oneport::staged::{Part, Replace, Source, StageError};
use oneport::tree::{BlockHash, BlockSet, Root, Tree, Value, block_count, block_span};

/// The exit status after a failure that is not one of the disk's.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match receive(&args).and_then(|resumed| Ok(writeln!(io::stdout(), "resumed {resumed}")?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "part: {error:#}");
            let code = error.downcast_ref::<StageError>().map(|error| error.code().exit_status());
            ExitCode::from(code.unwrap_or(FAILURE))
        }
    }
}

fn receive(args: &[String]) -> anyhow::Result<u64> {
    let [source, target, blocks] = args else { bail!("usage: part SOURCE TARGET BLOCKS") };
    let bytes = std::fs::read(source).context("SOURCE")?;
    let per_sync: u64 = blocks.parse().context("BLOCKS")?;
    let size = bytes.len() as u64;
    let span = |index| -> anyhow::Result<(u64, &[u8])> {
        let span = block_span(size, index);
        Ok((span.start, &bytes[usize::try_from(span.start)?..usize::try_from(span.end)?]))
    };
    let mut hashes = Vec::new();
    for index in 0..block_count(size) {
        hashes.push(*BlockHash::of(size, index, span(index)?.1).as_bytes());
    }
    let root = match hashes.as_slice() {
        [sole] => Some(Root::from_bytes(*sole)),
        all => Tree::over(all.iter().map(|hash| Value::from_bytes(*hash)).collect()).map(|tree| tree.root()),
    };
    let source = Source { size, root, token: Default::default() };

    let mut part = Part::open(Path::new(target), true, &mut |_, _| ControlFlow::Continue(()))?;
    let mut keep = BlockSet::default();
    if let Some(kept) = part.kept() {
        for (&index, hash) in &kept.blocks {
            if usize::try_from(index).is_ok_and(|index| hashes.get(index) == Some(hash)) {
                // They are ascending.
                let _ = keep.push(index..index + 1);
            }
        }
    }
    let resumed = if keep.count() == 0 { 0 } else { keep.bytes(size) };
    part.begin(&source, &keep)?;
    for (received, index) in (1..).zip(keep.missing(size).into_iter().flatten()) {
        let (offset, bytes) = span(index)?;
        part.write_at(bytes, offset)?;
        part.record(index, hashes[usize::try_from(index)?])?;
        if received % per_sync == 0 {
            part.sync_point()?;
        }
    }
    part.commit(Replace::Always)?;
    Ok(resumed)
}
