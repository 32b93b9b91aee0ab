//! What is found of a part when it is opened: the journal, and how much of it still holds.
//!
//! Called once for each opened part, under its lock. It changes nothing but this: a journal beside an
//! empty part, which no journal can be about, and a journal that never got its name are removed.

use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use super::super::StageError;
use super::super::beside::{self, failed, shown};
use super::super::home::{Home, Trust};
use super::super::journal::{Contents, TOKEN_LEN};
use super::super::log::Log;
use super::super::place::{Hidden, Place};
use super::{State, Watch, span_len};
use crate::limits::{HASH_CHUNK, JOURNAL_CHUNK};
use crate::tree::{BlockHasher, HASH_LEN, block_span};

/// Reads the journal of an open part and looks at the blocks that it cannot vouch for.
pub(super) fn look(
    file: &File,
    place: &Place,
    journal: &Hidden,
    since: Option<[u8; TOKEN_LEN]>,
    watch: &mut Watch<'_>,
) -> Result<State, StageError> {
    // If it is not there, or cannot be removed, nothing is lost.
    let _ = beside::remove(place, &place.hidden(beside::NEW_JOURNAL));
    let target = place.path();
    let len = file.metadata().map_err(failed("look at", target))?.len();
    if len == 0 {
        beside::forget_journal(place, journal)?;
        return Ok(State::default());
    }
    let Some(log) = beside::open_journal(place, journal)? else { return Ok(State::default()) };
    let read = Contents::read(&mut BufReader::with_capacity(JOURNAL_CHUNK, &log));
    let Some(mut contents) = read else { return Ok(State { has_journal: true, ..State::default() }) };
    let home = Home::of(file, since).map_err(failed("look at", target))?;
    // Of another length than it was given, it was in other hands.
    let is_own = len == contents.header.source.size;
    let trust = if is_own { contents.header.home.trust(&home) } else { Trust::Nothing };
    let covered = if trust == Trust::Nothing { 0 } else { contents.covered };
    if trust != Trust::Written && sift(file, &mut contents, covered, watch).is_break() {
        return Err(StageError::Stopped(shown(target)));
    }
    // Only a journal that means this boot and this file, and ends where it should, goes on.
    let goes_on = trust == Trust::Written && contents.is_whole;
    let log = goes_on.then(|| Log::resume(log, &contents.header, contents.records));
    let recorded = contents.blocks.values().map(|entry| entry.number + 1).max().unwrap_or_default();
    let (source, blocks) = (Some(contents.header.source), contents.blocks);
    Ok(State { source, blocks, log, covered, recorded, has_journal: true, ..State::default() })
}

/// Hashes the blocks that are not `covered` and forgets those whose bytes are others.
fn sift(file: &File, contents: &mut Contents, covered: u32, watch: &mut Watch<'_>) -> ControlFlow<()> {
    let size = contents.header.source.size;
    let doubtful = contents.blocks.iter().filter(|(_, entry)| entry.number >= covered);
    let doubtful: Vec<(u64, [u8; HASH_LEN])> = doubtful.map(|(&index, entry)| (index, entry.hash)).collect();
    let total = doubtful.iter().map(|&(index, _)| span_len(size, index)).sum();
    let mut buffer = vec![0; HASH_CHUNK];
    let mut done = 0;
    for (index, hash) in doubtful {
        let mut hasher = BlockHasher::new(size, index);
        let mut span = block_span(size, index);
        while !span.is_empty() {
            watch(done, total)?;
            let len = usize::try_from(span.end - span.start).map_or(HASH_CHUNK, |len| len.min(HASH_CHUNK));
            // What cannot be read is as good as lost.
            if file.read_exact_at(&mut buffer[..len], span.start).is_err() {
                break;
            }
            hasher.update(&buffer[..len]);
            span.start += len as u64;
            done += len as u64;
        }
        if !span.is_empty() || *hasher.finish().as_bytes() != hash {
            contents.blocks.remove(&index);
            done += span.end - span.start;
        }
    }
    watch(done, total)
}
