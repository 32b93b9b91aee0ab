//! What is believed of a new folder that an earlier run has left.

use super::*;

#[test]
fn in_the_same_boot_whole_files_stand_and_half_written_ones_do_not() {
    for sync in [false, true] {
        let site = Site::new();
        let folder = if sync { site.open() } else { site.unflushed() };
        put(&folder, "whole", b"12345").unwrap();
        put(&folder, "sub/whole", b"12345").unwrap();
        // The run is killed after all bytes are written and before the time is set.
        fs::write(site.staged("half"), b"12345").unwrap();
        fs::write(site.staged("quarter"), b"1").unwrap();
        drop(folder);
        let folder = if sync { site.open() } else { site.unflushed() };
        let found = ["whole", "sub/whole", "half", "quarter", "none", "none/at/all"]
            .map(|text| standing(&folder, text, 5));
        use Standing::*;
        assert_eq!(found, [Same, Same, Different, Different, Missing, Missing]);
        assert_eq!(standing(&folder, "whole", 4), Different);
        assert_eq!(folder.standing(&name("whole"), 5, (EARLY.0, EARLY.1 + 1)).unwrap(), Different);
        for text in ["half", "quarter"] {
            folder.small(&name(text), b"54321", &PLAIN, Replace::Never).unwrap();
        }
        for text in ["whole", "sub/whole"] {
            folder.keep(&name(text)).unwrap();
            let error = put(&folder, text, b"x").unwrap_err();
            assert!(matches!(error, StageError::Collides { .. }), "{error}");
            assert!(matches!(folder.keep(&name(text)), Err(StageError::Collides { .. })));
        }
        folder.commit().unwrap();
        assert_eq!(fs::read(site.path("t/half")).unwrap(), b"54321");
        assert_eq!(site.tree(), ["t", "t/half", "t/quarter", "t/sub", "t/sub/whole", "t/whole"]);
    }
}

#[test]
fn after_a_power_cut_only_what_a_sync_point_covered_stands() {
    let site = Site::new();
    let folder = site.open();
    put(&folder, "before", b"12345").unwrap();
    await_tick();
    folder.sync_point().unwrap();
    put(&folder, "after", b"12345").unwrap();
    drop(folder);
    let folder = site.try_open(NEXT_BOOT).unwrap();
    assert_eq!(standing(&folder, "before", 5), Standing::Same);
    assert_ne!(standing(&folder, "after", 5), Standing::Same);
    // Nor does it later, and a third boot still believes what the first one flushed.
    drop(folder);
    let folder = site.try_open(NEXT_BOOT).unwrap();
    assert_ne!(standing(&folder, "after", 5), Standing::Same);
    folder.keep(&name("before")).unwrap();
    put(&folder, "later", b"12345").unwrap();
    drop(folder);
    let folder = site.try_open([3; TOKEN_LEN]).unwrap();
    assert_eq!(standing(&folder, "before", 5), Standing::Same);
    assert_ne!(standing(&folder, "later", 5), Standing::Same);
}

#[test]
fn what_comes_while_a_sync_point_flushes_is_not_covered_by_it() {
    let site = Site::new();
    let folder = site.open();
    put(&folder, "before", b"12345").unwrap();
    await_tick();
    let flush = || {
        put(&folder, "meanwhile", b"12345").unwrap();
        await_tick();
        Ok(())
    };
    folder.sync_point_by(&flush).unwrap();
    drop(folder);
    let folder = site.try_open(NEXT_BOOT).unwrap();
    assert_eq!(standing(&folder, "before", 5), Standing::Same);
    assert_ne!(standing(&folder, "meanwhile", 5), Standing::Same);
}

#[test]
fn without_sync_points_nothing_stands_after_a_power_cut() {
    let site = Site::new();
    let folder = site.unflushed();
    put(&folder, "a", b"12345").unwrap();
    await_tick();
    folder.sync_point().unwrap();
    drop(folder);
    assert_ne!(standing(&site.try_open(NEXT_BOOT).unwrap(), "a", 5), Standing::Same);
}

#[test]
fn without_a_good_note_of_this_very_folder_nothing_stands() {
    let spoil: [fn(&Site, &Path); 4] = [
        |_, lock| fs::remove_file(lock).unwrap(),
        |_, lock| fs::write(lock, "").unwrap(),
        |_, lock| {
            let mut bytes = fs::read(lock).unwrap();
            for slot in [0, 4096] {
                if let Some(byte) = bytes.get_mut(slot + 70) {
                    *byte ^= 1;
                }
            }
            fs::write(lock, bytes).unwrap();
        },
        |site, _| {
            // A copy of the folder: its files have other times of change, but say the same themselves.
            let copy = site.path("copy");
            fs::create_dir(&copy).unwrap();
            fs::rename(site.staged("a"), copy.join("a")).unwrap();
            fs::remove_dir(site.staged("")).unwrap();
            fs::rename(copy, site.staged("")).unwrap();
        },
    ];
    for spoil in spoil {
        let site = Site::new();
        let folder = site.open();
        put(&folder, "a", b"12345").unwrap();
        await_tick();
        folder.sync_point().unwrap();
        drop(folder);
        spoil(&site, &site.path(&beside::hidden_name(Path::new("t"), beside::LOCK)));
        assert_ne!(standing(&site.open(), "a", 5), Standing::Same);
    }
}

#[test]
fn a_torn_note_leaves_the_one_before() {
    let site = Site::new();
    let folder = site.open();
    put(&folder, "a", b"12345").unwrap();
    await_tick();
    folder.sync_point().unwrap();
    put(&folder, "b", b"12345").unwrap();
    await_tick();
    let lock = site.path(&beside::hidden_name(Path::new("t"), beside::LOCK));
    let before = fs::read(&lock).unwrap();
    folder.sync_point().unwrap();
    drop(folder);
    let mut torn = fs::read(&lock).unwrap();
    torn.resize(before.len().max(torn.len()), 0);
    let at = (0..torn.len()).find(|&at| before.get(at) != Some(&torn[at])).unwrap();
    torn[at] ^= 0x80;
    fs::write(&lock, torn).unwrap();
    let folder = site.try_open(NEXT_BOOT).unwrap();
    assert_eq!(standing(&folder, "a", 5), Standing::Same);
    assert_ne!(standing(&folder, "b", 5), Standing::Same);
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_look_older_than_it_is() {
    let site = Site::new();
    let folder = site.open();
    put(&folder, "a", b"12345").unwrap();
    // The last sync point was made when the clock was wrong.
    folder.lock.write(folder.home, (i64::MAX, 0), true).unwrap();
    drop(folder);
    let folder = site.open();
    assert_eq!(standing(&folder, "a", 5), Standing::Same, "no power was cut");
    put(&folder, "b", b"12345").unwrap();
    drop(folder);
    let folder = site.try_open(NEXT_BOOT).unwrap();
    assert_ne!(standing(&folder, "b", 5), Standing::Same);
}

#[test]
fn after_a_failed_flush_nothing_more_is_taken_and_only_what_was_flushed_before_stands() {
    let site = Site::new();
    let folder = site.open();
    put(&folder, "before", b"12345").unwrap();
    await_tick();
    folder.sync_point().unwrap();
    put(&folder, "after", b"12345").unwrap();
    let error = folder.sync_point_by(&|| Err(io::Error::other("planted"))).unwrap_err();
    assert_eq!(error.code(), Code::LocalIo);
    assert!(matches!(put(&folder, "more", b"1"), Err(StageError::FlushFailed(_))));
    assert!(matches!(folder.sync_point(), Err(StageError::FlushFailed(_))));
    assert!(matches!(folder.commit(), Err(StageError::FlushFailed(_))));
    // In the same boot.
    let folder = site.open();
    assert_eq!(standing(&folder, "before", 5), Standing::Same);
    assert_ne!(standing(&folder, "after", 5), Standing::Same);
}

#[test]
fn the_system_tells_the_same_boot_twice() {
    let site = Site::new();
    let folder = StagedFolder::open(&site.path("t"), true).unwrap();
    put(&folder, "a", b"12345").unwrap();
    drop(folder);
    let folder = StagedFolder::open(&site.path("t"), true).unwrap();
    assert_eq!(standing(&folder, "a", 5), Standing::Same);
}

/// Until a change gets a later time than one before: clocks of file systems are coarse.
fn await_tick() {
    std::thread::sleep(std::time::Duration::from_millis(25));
}
