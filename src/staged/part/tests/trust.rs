//! How far the journal of a part is believed when it is opened again.

use super::super::super::journal::{HEADER_LEN, RECORD_LEN};
use super::*;

const NEXT_BOOT: [u8; TOKEN_LEN] = [2; TOKEN_LEN];

/// Damages one byte of a block in the part file, as a lost write would.
fn damage(place: &Place, index: u64) {
    let file = File::options().write(true).open(place.hidden(PART)).unwrap();
    file.write_all_at(&[0xff], index * BLOCK_LEN).unwrap();
}

/// The blocks that are found in the next boot, and how many bytes were hashed for that.
fn found_after(place: &Place, boot: [u8; TOKEN_LEN]) -> (Vec<u64>, u64) {
    let mut hashed = 0;
    let mut watch = |done, total| {
        assert!(done <= total);
        hashed = done;
        ControlFlow::Continue(())
    };
    let part = Part::open_since(&place.path("file"), true, Some(boot), &mut watch).unwrap();
    (kept(&part), hashed)
}

#[test]
fn in_the_same_boot_all_stands_without_a_look() {
    let (place, bytes) = (Place::new(), content(3 * MIB + 5));
    drop(place.receive(&bytes, &[3, 1]));
    assert_eq!(found_after(&place, BOOT), (vec![1, 3], 0));
}

#[test]
fn an_unknown_boot_is_never_the_same() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    let mut part = place.try_open([0; TOKEN_LEN]).unwrap();
    part.begin(&source(&bytes), &BlockSet::default()).unwrap();
    put(&part, &bytes, &[0, 1]);
    drop(part);
    damage(&place, 1);
    assert_eq!(found_after(&place, [0; TOKEN_LEN]), (vec![0], 2 * MIB));
}

#[test]
fn after_another_boot_what_was_flushed_stands_and_the_rest_is_looked_at() {
    let (place, bytes) = (Place::new(), content(4 * MIB + 5));
    let part = place.receive(&bytes, &[0, 1]);
    part.sync_point().unwrap();
    part.sync_point().unwrap();
    put(&part, &bytes, &[2, 3, 4]);
    drop(part);
    damage(&place, 3);
    assert_eq!(found_after(&place, NEXT_BOOT), (vec![0, 1, 2, 4], 2 * MIB + 5));
    // Nothing was received meanwhile, so the same is found; then it is the present boot's.
    let mut part = place.try_open(NEXT_BOOT).unwrap();
    let has = part.kept().unwrap().has();
    part.begin(&source(&bytes), &has).unwrap();
    drop(part);
    assert_eq!(found_after(&place, NEXT_BOOT), (vec![0, 1, 2, 4], 0));
    assert_eq!(found_after(&place, [3; TOKEN_LEN]), (vec![0, 1, 2, 4], MIB + 5), "what was flushed still is");
}

#[test]
fn without_sync_points_everything_is_looked_at_after_another_boot() {
    let (place, bytes) = (Place::new(), content(3 * MIB));
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let mut part = Part::open_since(&place.path("file"), false, Some(BOOT), go_on).unwrap();
    part.begin(&source(&bytes), &BlockSet::default()).unwrap();
    put(&part, &bytes, &[0, 1, 2]);
    part.sync_point().unwrap();
    drop(part);
    damage(&place, 0);
    assert_eq!(found_after(&place, NEXT_BOOT), (vec![1, 2], 3 * MIB));
}

#[test]
fn a_sync_point_covers_only_what_was_recorded_before_its_flush_began() {
    let (place, bytes) = (Place::new(), content(3 * MIB));
    let part = place.receive(&bytes, &[0]);
    part.sync_point().unwrap();
    put(&part, &bytes, &[1]);
    assert_eq!(part.state().covered, 1);
    part.sync_point().unwrap();
    assert_eq!(part.state().covered, 3, "two blocks and a sync point");
    let length = fs::metadata(place.hidden(JOURNAL)).unwrap().len();
    part.sync_point().unwrap();
    assert_eq!(fs::metadata(place.hidden(JOURNAL)).unwrap().len(), length, "nothing new to be said");
}

#[test]
fn others_record_while_a_sync_point_flushes_and_are_not_covered_by_it() {
    let (place, bytes) = (Place::new(), content(3 * MIB));
    let part = place.receive(&bytes, &[0]);
    part.sync_point_by(|| {
        put(&part, &bytes, &[1]);
        Ok(())
    })
    .unwrap();
    drop(part);
    damage(&place, 1);
    assert_eq!(found_after(&place, NEXT_BOOT), (vec![0], MIB));
}

#[test]
fn a_flush_that_fails_is_told_and_not_tried_again() {
    let (place, bytes) = (Place::new(), content(3 * MIB));
    let part = place.receive(&bytes, &[0]);
    let failed = part.sync_point_by(|| Err(io::Error::other("planted"))).unwrap_err();
    assert!(failed.to_string().contains("planted"), "{failed}");
    let again = part.sync_point_by(|| panic!("tried again")).unwrap_err();
    assert!(matches!(again, StageError::FlushFailed(_)), "{again}");
}

#[test]
fn what_was_flushed_still_is_in_a_journal_that_was_written_anew() {
    let (place, bytes) = (Place::new(), content(4 * MIB));
    let mut part = place.receive(&bytes, &[0, 1]);
    part.sync_point().unwrap();
    put(&part, &bytes, &[2]);
    for keep in [&[1, 2][..], &[1]] {
        part.begin(&source(&bytes), &set(keep)).unwrap();
    }
    put(&part, &bytes, &[3]);
    drop(part);
    damage(&place, 3);
    assert_eq!(found_after(&place, NEXT_BOOT), (vec![1], MIB));
}

#[test]
fn a_copied_part_is_looked_at_whatever_was_flushed() {
    let (place, bytes) = (Place::new(), content(3 * MIB));
    let part = place.receive(&bytes, &[0, 1, 2]);
    part.sync_point().unwrap();
    drop(part);
    fs::copy(place.hidden(PART), place.path("copy")).unwrap();
    fs::rename(place.path("copy"), place.hidden(PART)).unwrap();
    damage(&place, 1);
    assert_eq!(found_after(&place, BOOT), (vec![0, 2], 3 * MIB));
    // What was looked at is not flushed: it is looked at again after the next boot.
    let mut part = place.open();
    part.begin(&source(&bytes), &set(&[0, 2])).unwrap();
    drop(part);
    assert_eq!(found_after(&place, BOOT), (vec![0, 2], 0));
    assert_eq!(found_after(&place, NEXT_BOOT), (vec![0, 2], 2 * MIB));
}

#[test]
fn a_part_of_another_length_is_looked_at() {
    let (place, bytes) = (Place::new(), content(3 * MIB));
    drop(place.receive(&bytes, &[0, 1, 2]));
    File::options().write(true).open(place.hidden(PART)).unwrap().set_len(2 * MIB + 5).unwrap();
    assert_eq!(found_after(&place, BOOT), (vec![0, 1], 3 * MIB));
}

#[test]
fn looking_can_be_stopped_and_nothing_is_lost() {
    let (place, bytes) = (Place::new(), content(3 * MIB));
    drop(place.receive(&bytes, &[0, 1, 2]));
    let mut watch = |done, _| if done < MIB { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
    let stopped = Part::open_since(&place.path("file"), true, Some(NEXT_BOOT), &mut watch).unwrap_err();
    assert!(matches!(stopped, StageError::Stopped(_)), "{stopped}");
    assert_eq!(found_after(&place, BOOT), (vec![0, 1, 2], 0));
}

#[test]
fn a_journal_cut_at_any_byte_costs_its_last_record_and_goes_on() {
    let (place, bytes) = (Place::new(), content(2 * MIB + 5));
    drop(place.receive(&bytes, &[0, 1, 2]));
    let (journal, whole) = (place.hidden(JOURNAL), fs::read(place.hidden(JOURNAL)).unwrap());
    let end = HEADER_LEN + 3 * RECORD_LEN;
    assert_eq!(whole.len(), end);
    for cut in end - RECORD_LEN..end {
        fs::write(&journal, &whole[..cut]).unwrap();
        let mut part = place.open();
        assert_eq!(kept(&part), [0, 1], "cut at {cut}");
        part.begin(&source(&bytes), &set(&[0, 1])).unwrap();
        put(&part, &bytes, &[2]);
        drop(part);
        assert_eq!(kept(&place.open()), [0, 1, 2], "cut at {cut}");
    }
}

#[test]
fn what_stood_behind_a_bad_record_never_comes_back() {
    let (place, bytes) = (Place::new(), content(3 * MIB));
    drop(place.receive(&bytes, &[0, 1, 2]));
    let mut journal = fs::read(place.hidden(JOURNAL)).unwrap();
    let good = journal.clone();
    journal[HEADER_LEN + RECORD_LEN] ^= 1;
    fs::write(place.hidden(JOURNAL), &journal).unwrap();
    let mut part = place.open();
    assert_eq!(kept(&part), [0]);
    part.begin(&source(&bytes), &set(&[0])).unwrap();
    drop(part);
    // Were the good record written again in its place, the one behind it would fit.
    let mut now = fs::read(place.hidden(JOURNAL)).unwrap();
    now.truncate(HEADER_LEN + RECORD_LEN);
    now.extend_from_slice(&good[HEADER_LEN + RECORD_LEN..]);
    fs::write(place.hidden(JOURNAL), now).unwrap();
    assert_eq!(kept(&place.open()), [0]);
}

#[test]
fn no_flipped_bit_of_a_journal_makes_wrong_bytes_stand() {
    let (place, bytes) = (Place::new(), content(2 * MIB + 5));
    let part = place.receive(&bytes, &[2, 0]);
    part.sync_point().unwrap();
    put(&part, &bytes, &[1]);
    drop(part);
    // The last block did not reach the disk before the power went off.
    damage(&place, 1);
    let (at, journal) = (crate::staged::Place::at(&place.path("file")).unwrap(), place.hidden(JOURNAL));
    let (file, whole) = (File::open(place.hidden(PART)).unwrap(), fs::read(&journal).unwrap());
    let rest = fs::read(place.hidden(PART)).unwrap();
    let look = |bytes: &[u8]| {
        fs::write(&journal, bytes).unwrap();
        let watch = &mut |_, _| ControlFlow::Continue(());
        found::look(&file, &at, &at.hidden(JOURNAL), Some(NEXT_BOOT), watch).unwrap().blocks
    };
    assert_eq!(look(&whole).into_keys().collect::<Vec<_>>(), [0, 2]);
    for bit in 0..8 * whole.len() {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = look(&flipped);
        for (&index, entry) in &found {
            assert_eq!(entry.hash, hash(&bytes, index), "bit {bit}");
            assert_eq!(piece(&rest, index), piece(&bytes, index), "bit {bit}");
        }
        assert_eq!(found.is_empty(), bit / 8 < HEADER_LEN + RECORD_LEN, "bit {bit}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_system_tells_the_same_boot_twice() {
    let (place, bytes) = (Place::new(), content(2 * MIB));
    for round in 0..2 {
        let watch = &mut |_, total| {
            assert_eq!(total, 0, "round {round} looks at nothing");
            ControlFlow::Continue(())
        };
        let mut part = Part::open(&place.path("file"), true, watch).unwrap();
        part.begin(&source(&bytes), &set(&[0])).unwrap();
        put(&part, &bytes, &[0]);
    }
    damage(&place, 0);
    assert_eq!(found_after(&place, NEXT_BOOT), (vec![], MIB));
}
