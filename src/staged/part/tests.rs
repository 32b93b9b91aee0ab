use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::super::beside::{JOURNAL, NEW_JOURNAL, PART, hidden_name};
use super::super::{Replace, StagedFile};
use super::*;
use crate::error::Code;
use crate::tree::{BLOCK_LEN, BlockHash, Root};

#[path = "tests/trust.rs"]
mod trust;

const MIB: u64 = 1 << 20;
/// The boot that is the present one unless a test says otherwise.
const BOOT: [u8; TOKEN_LEN] = [1; TOKEN_LEN];

fn content(size: u64) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 251).unwrap() ^ u8::try_from(at / MIB).unwrap()).collect()
}

fn source(bytes: &[u8]) -> Source {
    Source { size: bytes.len() as u64, root: Some(Root::of(bytes)), token: [3; TOKEN_LEN] }
}

fn piece(bytes: &[u8], index: u64) -> &[u8] {
    let span = block_span(bytes.len() as u64, index);
    &bytes[usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap()]
}

fn hash(bytes: &[u8], index: u64) -> [u8; HASH_LEN] {
    *BlockHash::of(bytes.len() as u64, index, piece(bytes, index)).as_bytes()
}

fn set(indices: &[u64]) -> BlockSet {
    let mut set = BlockSet::default();
    assert!(indices.iter().all(|&index| set.push(index..index + 1)));
    set
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn hidden(&self, ending: &str) -> PathBuf {
        self.path(&hidden_name(Path::new("file"), ending))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn try_open(&self, boot: [u8; TOKEN_LEN]) -> Result<Part, StageError> {
        let go_on = &mut |_, _| ControlFlow::Continue(());
        Part::open_since(&self.path("file"), true, Some(boot), go_on)
    }

    fn open(&self) -> Part {
        self.try_open(BOOT).unwrap()
    }

    /// A part of `bytes` in which some blocks are written and recorded.
    fn receive(&self, bytes: &[u8], indices: &[u64]) -> Part {
        let mut part = self.open();
        let has = part.kept().map(|kept| kept.has()).unwrap_or_default();
        part.begin(&source(bytes), &has).unwrap();
        put(&part, bytes, indices);
        part
    }
}

fn put(part: &Part, bytes: &[u8], indices: &[u64]) {
    for &index in indices {
        part.write_at(piece(bytes, index), index * BLOCK_LEN).unwrap();
        part.record(index, hash(bytes, index)).unwrap();
    }
}

fn kept(part: &Part) -> Vec<u64> {
    part.kept().map(|kept| kept.blocks.into_keys().collect()).unwrap_or_default()
}

#[test]
fn files_of_every_size_go_on_block_by_block_and_become_the_target() {
    for size in [1, MIB - 1, MIB, MIB + 1, 3 * MIB + 5] {
        let (place, bytes) = (Place::new(), content(size));
        for index in 0..block_count(size) {
            let part = place.receive(&bytes, &[index]);
            assert_eq!(kept(&part), (0..=index).collect::<Vec<_>>(), "{size}");
        }
        let part = place.open();
        let found = part.kept().unwrap();
        assert_eq!(found.source, source(&bytes));
        assert_eq!(found.has(), BlockSet::all(size));
        assert!(found.blocks.iter().all(|(&index, found)| *found == hash(&bytes, index)));
        let mut buffer = vec![0; bytes.len() + 1];
        assert_eq!(part.read_at(&mut buffer, 0).unwrap(), bytes.len());
        part.commit(Replace::Never).unwrap();
        assert_eq!(fs::read(place.path("file")).unwrap(), bytes, "{size}");
        assert_eq!(place.names(), ["file"]);
    }
}

#[test]
fn an_empty_file_is_committed_and_never_worth_keeping() {
    let place = Place::new();
    drop(place.receive(b"", &[0]));
    assert!(place.names().is_empty());
    place.receive(b"", &[0]).commit(Replace::Never).unwrap();
    assert_eq!(fs::read(place.path("file")).unwrap(), b"");
    assert_eq!(place.names(), ["file"]);
}

#[test]
fn only_a_part_with_a_recorded_block_stays_and_so_do_its_folders() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    for recorded in [false, true] {
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let mut part = Part::open(&place.path("new/er/file"), true, go_on).unwrap();
        part.begin(&source(&bytes), &BlockSet::default()).unwrap();
        part.write_at(&bytes[..100], 0).unwrap();
        if recorded {
            put(&part, &bytes, &[1]);
        }
        drop(part);
        assert_eq!(place.path("new/er").is_dir(), recorded);
        assert_eq!(place.path("new").is_dir(), recorded);
    }
    assert_eq!(fs::read_dir(place.path("new/er")).unwrap().count(), 2);
}

#[test]
fn the_second_receiver_is_told_and_takes_nothing_away() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    let first = place.receive(&bytes, &[0]);
    let error = place.try_open(BOOT).unwrap_err();
    assert!(matches!(error, StageError::Busy(_)), "{error}");
    let error = StagedFile::create(&place.path("file"), 1).unwrap_err();
    assert!(matches!(error, StageError::Busy(_)), "{error}");
    put(&first, &bytes, &[1]);
    drop(first);
    assert_eq!(kept(&place.open()), [0, 1]);
}

#[test]
fn threads_write_record_and_flush_at_once_and_nothing_is_lost() {
    let (place, bytes) = (Place::new(), content(24 * MIB + 5));
    let part = place.receive(&bytes, &[]);
    std::thread::scope(|scope| {
        for first in 0..5 {
            let (part, bytes) = (&part, &bytes);
            scope.spawn(move || (first..25).step_by(5).for_each(|index| put(part, bytes, &[index])));
        }
        for _ in 0..2 {
            scope.spawn(|| (0..5).for_each(|_| part.sync_point().unwrap()));
        }
    });
    part.sync_point().unwrap();
    drop(part);
    let part = place.try_open([2; TOKEN_LEN]).unwrap();
    assert_eq!(kept(&part), (0..25).collect::<Vec<_>>());
    let State { covered, recorded, .. } = *part.state();
    assert!(covered >= recorded, "all were flushed");
    part.commit(Replace::Never).unwrap();
    assert_eq!(fs::read(place.path("file")).unwrap(), bytes);
}

#[test]
fn what_is_there_is_forgotten_when_asked() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    drop(place.receive(&bytes, &[0]));
    let mut part = place.open();
    part.discard().unwrap();
    assert_eq!(part.kept(), None);
    assert!(!place.hidden(JOURNAL).exists());
    assert_eq!(fs::metadata(place.hidden(PART)).unwrap().len(), 0);
    part.begin(&source(&bytes), &BlockSet::default()).unwrap();
    put(&part, &bytes, &[1]);
    drop(part);
    assert_eq!(kept(&place.open()), [1]);
}

#[test]
fn what_could_not_be_forgotten_is_not_left_behind() {
    let (place, bytes) = (Place::new(), content(3 * MIB));
    let mut part = place.open();
    part.begin(&source(&bytes), &set(&[])).unwrap();
    put(&part, &bytes, &[0, 1]);
    fs::remove_file(place.hidden(JOURNAL)).unwrap();
    fs::create_dir(place.hidden(JOURNAL)).unwrap();
    assert!(part.discard().is_err());
    drop(part);
    assert_eq!(place.names(), [hidden_name(Path::new("file"), JOURNAL)]);
}

#[test]
fn a_journal_that_never_got_its_name_goes_with_the_next_part() {
    let (place, bytes) = (Place::new(), content(MIB));
    fs::write(place.hidden(NEW_JOURNAL), "anything").unwrap();
    drop(place.receive(&bytes, &[0]));
    assert!(!place.hidden(NEW_JOURNAL).exists());
}

#[test]
fn a_changed_source_keeps_the_blocks_that_are_the_same_and_no_others() {
    let (place, old) = (Place::new(), content(4 * MIB + 5));
    drop(place.receive(&old, &[0, 1, 2, 4]));
    // Longer, with another block 1: the last block has moved, so it cannot be the same.
    let mut new = content(5 * MIB + 7);
    new[usize::try_from(MIB).unwrap()] ^= 1;
    let mut part = place.open();
    part.begin(&source(&new), &set(&[0, 2, 3, 4])).unwrap();
    assert_eq!(kept(&part), [0, 2]);
    drop(part);
    let part = place.receive(&new, &[1, 3, 4, 5]);
    assert_eq!(part.kept().unwrap().has(), BlockSet::all(new.len() as u64));
    part.commit(Replace::Never).unwrap();
    assert_eq!(fs::read(place.path("file")).unwrap(), new);
    // Shorter than what was there, and nothing is the same.
    let short = content(MIB / 2);
    drop(place.receive(&old, &[0]));
    let mut part = place.open();
    part.begin(&source(&short), &set(&[0])).unwrap();
    put(&part, &short, &[0]);
    part.commit(Replace::Always).unwrap();
    assert_eq!(fs::read(place.path("file")).unwrap(), short);
    assert_eq!(place.names(), ["file"]);
}

#[test]
fn blocks_that_the_caller_gives_up_are_forgotten_although_the_source_is_the_same() {
    let (place, bytes) = (Place::new(), content(3 * MIB));
    drop(place.receive(&bytes, &[0, 1, 2]));
    let mut part = place.open();
    part.begin(&source(&bytes), &set(&[0, 2])).unwrap();
    assert_eq!(kept(&part), [0, 2]);
    drop(part);
    assert_eq!(kept(&place.open()), [0, 2]);
}

#[test]
fn a_root_that_becomes_known_is_remembered() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    let unknown = Source { root: None, ..source(&bytes) };
    let mut part = place.open();
    part.begin(&unknown, &BlockSet::default()).unwrap();
    put(&part, &bytes, &[0]);
    drop(part);
    let mut part = place.open();
    assert_eq!(part.kept().unwrap().source, unknown);
    part.begin(&source(&bytes), &set(&[0])).unwrap();
    part.begin(&unknown, &set(&[0])).unwrap();
    drop(part);
    assert_eq!(place.open().kept().unwrap().source, source(&bytes));
}

#[test]
fn a_journal_is_never_believed_beside_the_bytes_of_version_1() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    drop(place.receive(&bytes, &[0]));
    let staged = StagedFile::create(&place.path("file"), 2 * MIB).unwrap();
    staged.write_all_at(&vec![9; bytes.len()], 0).unwrap();
    assert!(!place.hidden(JOURNAL).exists());
    // It is killed: what it leaves is no part to go on with.
    let rest = fs::read(place.hidden(PART)).unwrap();
    drop(staged);
    fs::write(place.hidden(PART), rest).unwrap();
    assert_eq!(place.open().kept(), None);
}

#[test]
fn the_commit_replaces_only_what_it_may_and_keeps_the_bytes_if_it_may_not() {
    let (place, bytes) = (Place::new(), content(MIB + 1));
    fs::write(place.path("file"), "old").unwrap();
    let error = place.receive(&bytes, &[0, 1]).commit(Replace::Never).unwrap_err();
    assert_eq!(error.code(), Code::Exists, "{error}");
    assert_eq!(fs::read(place.path("file")).unwrap(), b"old");
    let part = place.open();
    assert_eq!(kept(&part), [0, 1]);
    part.commit(Replace::Always).unwrap();
    assert_eq!(fs::read(place.path("file")).unwrap(), bytes);
    assert_eq!(place.names(), ["file"]);
}

#[test]
fn a_journal_that_is_left_over_after_the_commit_harms_nobody() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    let part = place.receive(&bytes, &[0, 1]);
    let journal = fs::read(place.hidden(JOURNAL)).unwrap();
    part.commit(Replace::Never).unwrap();
    fs::write(place.hidden(JOURNAL), journal).unwrap();
    let part = place.open();
    assert_eq!(part.kept(), None);
    assert!(!place.hidden(JOURNAL).exists(), "an empty part has none");
}

#[test]
fn a_committed_part_does_not_take_the_journal_of_the_next_one_away() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    let part = place.receive(&bytes, &[0, 1]);
    fs::remove_file(place.hidden(JOURNAL)).unwrap();
    fs::write(place.hidden(JOURNAL), "of another one").unwrap();
    part.commit(Replace::Never).unwrap();
    assert!(place.hidden(JOURNAL).exists());
}

#[test]
fn after_a_failed_flush_nothing_is_recorded_committed_or_kept() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    let part = place.receive(&bytes, &[0]);
    let failure = failed("flush", Path::new("file"))(io::Error::other("planted"));
    assert!(part.trusted(Err(failure)).is_err());
    assert_eq!(fs::metadata(place.hidden(JOURNAL)).unwrap().len(), 0, "a kill would find nothing");
    let tries = [part.record(1, hash(&bytes, 1)), part.sync_point(), part.commit(Replace::Always)];
    for result in tries {
        assert!(matches!(result, Err(StageError::FlushFailed(_))), "{result:?}");
    }
    assert!(place.names().is_empty());
}

#[test]
fn a_block_that_the_source_has_not_is_not_recorded() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    let mut part = place.open();
    assert!(part.record(0, hash(&bytes, 0)).is_err(), "of nothing");
    part.begin(&source(&bytes), &BlockSet::default()).unwrap();
    assert!(part.record(2, hash(&bytes, 0)).is_err(), "behind the end");
    let huge = Source { size: u64::MAX, ..source(&bytes) };
    assert!(part.begin(&huge, &BlockSet::default()).is_err(), "too many blocks");
}

#[test]
fn a_size_beyond_the_disk_is_known_before_anything_is_given_up() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    drop(place.receive(&bytes, &[0]));
    let huge = Source { size: BLOCKS_MAX * BLOCK_LEN, ..source(&bytes) };
    let error = place.open().begin(&huge, &BlockSet::default()).unwrap_err();
    assert_eq!(error.code(), Code::NoSpace, "{error}");
    assert_eq!(kept(&place.open()), [0]);
}

#[test]
fn what_others_put_in_the_way_of_the_journal_is_neither_followed_nor_written() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    fs::write(place.path("victim"), "precious").unwrap();
    for link in [|from, to| symlink(from, to), |from: PathBuf, to| fs::hard_link(from, to)] {
        for ending in [JOURNAL, NEW_JOURNAL] {
            drop(place.receive(&bytes, &[0, 1]));
            let planted = place.hidden(ending);
            let _ = fs::remove_file(&planted);
            link(place.path("victim"), planted.clone()).unwrap();
            let outcome = place.try_open(BOOT).and_then(|mut part| part.begin(&source(&bytes), &set(&[0])));
            // A name that only a replacement uses is taken back; no other one is.
            assert_eq!(outcome.is_err(), ending == JOURNAL, "{outcome:?}");
            assert_eq!(fs::read(place.path("victim")).unwrap(), b"precious");
            let _ = fs::remove_file(&planted);
        }
    }
}

#[test]
fn a_sparse_part_takes_no_room_for_zeros_and_never_keeps_what_lay_there() {
    let (place, mut bytes) = (Place::new(), vec![0; usize::try_from(4 * MIB).unwrap()]);
    bytes[5] = 1;
    bytes[usize::try_from(3 * MIB - 1).unwrap()] = 1;
    // An earlier receiver had written garbage: to block 0, which it did not record, and to block 2.
    let part = place.receive(&bytes, &[1, 3]);
    part.write_at(&vec![9; usize::try_from(MIB).unwrap()], 0).unwrap();
    part.write_at(&vec![9; usize::try_from(MIB).unwrap()], 2 * MIB).unwrap();
    drop(part);
    let mut part = place.open().sparse(true);
    let has = part.kept().unwrap().has();
    part.begin(&source(&bytes), &has).unwrap();
    // In pieces that are no pages, and one block twice.
    for chunk in (0..MIB).step_by(100_001) {
        let end = MIB.min(chunk + 100_001);
        part.write_at(&bytes[usize::try_from(chunk).unwrap()..usize::try_from(end).unwrap()], chunk).unwrap();
    }
    part.record(0, hash(&bytes, 0)).unwrap();
    put(&part, &bytes, &[2, 2]);
    part.commit(Replace::Never).unwrap();
    assert!(fs::read(place.path("file")).unwrap() == bytes);
}

#[test]
fn a_sparse_part_may_be_longer_than_the_disk_has_room() {
    let (place, size) = (Place::new(), BLOCKS_MAX * BLOCK_LEN / 8);
    let source = Source { size, root: None, token: [3; TOKEN_LEN] };
    let mut part = place.open().sparse(true);
    part.begin(&source, &BlockSet::default()).unwrap();
    part.write_at(&vec![0; usize::try_from(MIB).unwrap()], size - MIB).unwrap();
    part.write_at(b"x", MIB).unwrap();
    let found = part.file().metadata().unwrap();
    assert_eq!(found.len(), size);
    assert!(found.blocks() * ALLOCATION_UNIT <= 64 << 10, "{}", found.blocks());
}
