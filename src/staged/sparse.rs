//! Files that take no room for their zeros.
//!
//! A stretch of zeros that fills pages becomes a hole. Other bytes may have lain there (a block that
//! comes again, or garbage after a power cut), so a hole is punched and not merely left out, unless
//! the caller knows that the file is new.

use std::fs::File;
use std::io;
use std::ops::Range;

use crate::fileops;
use crate::limits::HOLE_LEN;

const ZEROS: [u8; HOLE_LEN] = [0; HOLE_LEN];

/// Writes `bytes` at a position and leaves holes for pages of zeros, whatever was there before.
pub(super) fn write_over(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    for (span, is_zero) in runs(bytes, offset) {
        let (at, piece) = (offset + span.start as u64, &bytes[span]);
        if !(is_zero && fileops::punch_hole(file, at, piece.len() as u64)?) {
            fileops::write_all_at(file, piece, at)?;
        }
    }
    Ok(())
}

/// Writes all of a file that is new and empty. It has its length only when all bytes are there.
pub(super) fn write_new(file: &File, bytes: &[u8]) -> io::Result<()> {
    let mut ends_in_hole = false;
    for (span, is_zero) in runs(bytes, 0) {
        ends_in_hole = is_zero;
        if !is_zero {
            fileops::write_all_at(file, &bytes[span.clone()], span.start as u64)?;
        }
    }
    if ends_in_hole { fileops::set_length(file, bytes.len() as u64) } else { Ok(()) }
}

/// Cuts bytes that belong at `offset` into runs of whole aligned pages of zeros, and what is between.
fn runs(bytes: &[u8], offset: u64) -> impl Iterator<Item = (Range<usize>, bool)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == bytes.len() {
            return None;
        }
        let start = at;
        let is_zero = is_hole(bytes, offset, at);
        while at < bytes.len() && is_hole(bytes, offset, at) == is_zero {
            at = next_page(offset, at).min(bytes.len());
        }
        Some((start..at, is_zero))
    })
}

/// Whether a page begins at `at` that is there as a whole and all zeros.
fn is_hole(bytes: &[u8], offset: u64, at: usize) -> bool {
    (offset + at as u64).is_multiple_of(HOLE_LEN as u64)
        && bytes.get(at..at + HOLE_LEN).is_some_and(|page| page == ZEROS)
}

/// Where the next page begins.
fn next_page(offset: u64, at: usize) -> usize {
    let within = (offset + at as u64) % HOLE_LEN as u64;
    at + HOLE_LEN - usize::try_from(within).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn whatever_was_there_the_bytes_are_those_that_were_written() {
        let mut chance = fastrand::Rng::with_seed(3);
        for round in 0..200 {
            let mut wanted = vec![7; 40_000];
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&wanted, 0).unwrap();
            let offset = chance.usize(0..20_000);
            let mut bytes = vec![0; chance.usize(0..20_000)];
            for _ in 0..chance.usize(0..3) {
                if !bytes.is_empty() {
                    let at = chance.usize(0..bytes.len());
                    bytes[at] = 9;
                }
            }
            write_over(&file, &bytes, offset as u64).unwrap();
            wanted[offset..offset + bytes.len()].copy_from_slice(&bytes);
            let mut found = vec![1; wanted.len()];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == wanted, "round {round}");

            let file = tempfile::tempfile().unwrap();
            write_new(&file, &bytes).unwrap();
            let mut found = vec![1; bytes.len()];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == bytes, "round {round}");
            assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64);
        }
    }

    #[test]
    fn only_whole_aligned_pages_are_holes_and_neighbours_are_one() {
        let bytes = [vec![1; 10], vec![0; 3 * HOLE_LEN], vec![1; 10]].concat();
        let cut: Vec<_> = runs(&bytes, 0).collect();
        assert_eq!(
            cut,
            [(0..HOLE_LEN, false), (HOLE_LEN..3 * HOLE_LEN, true), (3 * HOLE_LEN..bytes.len(), false)]
        );
        let cut: Vec<_> = runs(&bytes, HOLE_LEN as u64 - 10).collect();
        assert_eq!(
            cut,
            [(0..10, false), (10..10 + 3 * HOLE_LEN, true), (10 + 3 * HOLE_LEN..bytes.len(), false)]
        );
        assert_eq!(runs(&vec![0; HOLE_LEN - 1], 0).collect::<Vec<_>>(), [(0..HOLE_LEN - 1, false)]);
        assert_eq!(runs(b"", 5).count(), 0);
    }
}
