//! Files that are added to a folder that exists.

use super::*;

fn existing() -> Site {
    let site = Site::new();
    fs::create_dir(site.path("t")).unwrap();
    site
}

fn hidden(site: &Site) -> usize {
    site.tree().iter().filter(|name| name.ends_with(".part")).count()
}

#[test]
fn files_get_their_names_after_a_flush_and_not_before() {
    let site = existing();
    fs::write(site.path("t/old"), "old").unwrap();
    let folder = site.open();
    assert!(!folder.is_new());
    put(&folder, "old", b"new").unwrap();
    put(&folder, "sub/a", b"1").unwrap();
    assert_eq!(fs::read(site.path("t/old")).unwrap(), b"old");
    let flushes = std::cell::Cell::new(0);
    let flush = || {
        let is_named = flushes.replace(flushes.get() + 1) > 0;
        assert_eq!(site.path("t/sub/a").exists(), is_named, "once before the names and once after");
        Ok(())
    };
    assert!(folder.sync_point_by(&flush).unwrap().is_empty());
    assert_eq!(flushes.get(), 2);
    assert_eq!(fs::read(site.path("t/old")).unwrap(), b"new");
    assert_eq!((modified(&site.path("t/old")), hidden(&site)), (EARLY, 0));
    put(&folder, "b", b"2").unwrap();
    folder.commit().unwrap();
    assert_eq!(site.tree(), ["t", "t/b", "t/old", "t/sub", "t/sub/a"]);
}

#[test]
fn without_flushes_files_get_their_names_at_once() {
    let site = existing();
    let folder = site.unflushed();
    put(&folder, "a", b"1").unwrap();
    assert_eq!(fs::read(site.path("t/a")).unwrap(), b"1");
    assert!(matches!(put(&folder, "a", b"2"), Err(StageError::Collides { .. })));
    drop(folder);
    assert_eq!(site.tree(), ["t", "t/a"]);
}

#[test]
fn a_failed_flush_gives_no_file_its_name() {
    let site = existing();
    fs::write(site.path("t/a"), "old").unwrap();
    let folder = site.open();
    put(&folder, "a", b"new").unwrap();
    put(&folder, "b", b"new").unwrap();
    assert!(folder.sync_point_by(&|| Err(io::Error::other("planted"))).is_err());
    assert!(matches!(folder.commit(), Err(StageError::FlushFailed(_))));
    assert_eq!(site.tree(), ["t", "t/a"]);
    assert_eq!(fs::read(site.path("t/a")).unwrap(), b"old");
}

#[test]
fn folders_that_were_there_keep_their_modes_and_others_get_theirs() {
    let site = existing();
    fs::create_dir(site.path("t/old")).unwrap();
    fs::set_permissions(site.path("t/old"), Permissions::from_mode(0o711)).unwrap();
    let before = mode(&site.path("t"));
    let folder = site.open();
    let attributes = Attributes { mode: 0o750, ..PLAIN };
    put(&folder, "new/a", b"1").unwrap();
    for text in ["old", "old/inner", "new"] {
        folder.folder(&name(text), &attributes).unwrap();
    }
    folder.top(&Attributes { mode: 0, ..PLAIN });
    folder.commit().unwrap();
    assert_eq!((mode(&site.path("t")), mode(&site.path("t/old"))), (before, 0o711));
    for text in ["t/old/inner", "t/new"] {
        assert_eq!((mode(&site.path(text)), modified(&site.path(text))), (0o750, EARLY), "{text}");
    }
}

#[test]
fn what_is_there_stands_if_size_and_time_are_those_asked_for() {
    let site = existing();
    fs::write(site.path("t/a"), "12345").unwrap();
    fileops::set_modified(&File::open(site.path("t/a")).unwrap(), EARLY).unwrap();
    fs::write(site.path("t/b"), "12345").unwrap();
    symlink("a", site.path("t/link")).unwrap();
    let folder = site.open();
    use Standing::*;
    let found = ["a", "b", "link", "c", "d/e"].map(|text| standing(&folder, text, 5));
    assert_eq!(found, [Same, Different, Different, Missing, Missing]);
    assert!(!site.path("t/d").exists(), "a look makes nothing");
    folder.keep(&name("a")).unwrap();
    put(&folder, "a", b"again").unwrap();
    let (_, refused) = folder.commit().unwrap();
    assert!(matches!(refused[..], [(_, StageError::Collides { .. })]), "{refused:?}");
    assert_eq!(fs::read(site.path("t/a")).unwrap(), b"12345");
}

#[test]
fn only_the_names_that_cannot_be_given_are_refused() {
    let site = existing();
    fs::create_dir(site.path("t/folder")).unwrap();
    fs::write(site.path("t/stays"), "old").unwrap();
    let folder = site.open();
    for text in ["folder", "good", "good", "gone/x", "last"] {
        put(&folder, text, text.as_bytes()).unwrap();
    }
    folder.small(&name("stays"), b"new", &PLAIN, Replace::Never).unwrap();
    fs::remove_dir_all(site.path("t/gone")).unwrap();
    let refused = folder.sync_point().unwrap();
    let codes: Vec<_> = refused.iter().map(|(name, error)| (name.to_string(), error.code())).collect();
    let expected = [
        ("folder", Code::LocalIo),
        ("good", Code::Exists),
        ("gone/x", Code::LocalIo),
        ("stays", Code::Exists),
    ];
    assert_eq!(codes, expected.map(|(name, code)| (name.to_owned(), code)));
    assert!(folder.commit().unwrap().1.is_empty(), "they are told once");
    assert_eq!(fs::read(site.path("t/stays")).unwrap(), b"old");
    assert_eq!(site.tree(), ["t", "t/folder", "t/good", "t/last", "t/stays"]);
}

#[test]
fn links_are_replaced_as_files_and_never_passed_as_folders() {
    let site = existing();
    fs::create_dir(site.path("outside")).unwrap();
    fs::write(site.path("victim"), "precious").unwrap();
    symlink("../outside", site.path("t/way")).unwrap();
    symlink("../victim", site.path("t/small")).unwrap();
    symlink("../victim", site.path("t/large")).unwrap();
    let folder = site.open();
    for error in [
        put(&folder, "way/a", b"1").unwrap_err(),
        folder.large(&name("way/b"), Replace::Always).unwrap_err(),
        folder.folder(&name("way/c"), &PLAIN).unwrap_err(),
        folder.folder(&name("way"), &PLAIN).unwrap_err(),
        folder.standing(&name("way/a"), 1, EARLY).unwrap_err(),
    ] {
        assert!(matches!(error, StageError::NotAFolder(_)), "{error}");
    }
    put(&folder, "small", b"new").unwrap();
    large(&folder, "large", b"new", &PLAIN).unwrap();
    // Somebody changes a link for the file before its attributes are set.
    fs::remove_file(site.path("t/large")).unwrap();
    symlink("../victim", site.path("t/large")).unwrap();
    assert!(folder.large_done(&name("large"), &Attributes { mode: 0, ..PLAIN }).is_err());
    assert!(folder.commit().unwrap().1.is_empty());
    assert_eq!(fs::read(site.path("victim")).unwrap(), b"precious");
    assert_ne!(mode(&site.path("victim")), 0);
    assert_eq!(fs::read(site.path("t/small")).unwrap(), b"new");
    assert!(site.path("t/small").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read_dir(site.path("outside")).unwrap().count(), 0);
}

#[test]
fn a_folder_that_becomes_a_link_leads_nowhere_else() {
    let site = existing();
    fs::create_dir(site.path("outside")).unwrap();
    let folder = site.open();
    put(&folder, "sub/a", b"1").unwrap();
    fs::rename(site.path("t/sub"), site.path("t/moved")).unwrap();
    symlink("../outside", site.path("t/sub")).unwrap();
    put(&folder, "sub/b", b"1").unwrap();
    put(&folder, "sub/c/d", b"1").unwrap();
    folder.commit().unwrap();
    assert_eq!(fs::read_dir(site.path("outside")).unwrap().count(), 0);
}

#[test]
fn names_that_lead_to_one_file_collide_and_hard_links_do_not() {
    let site = existing();
    fs::write(site.path("t/a"), "12345").unwrap();
    fs::hard_link(site.path("t/a"), site.path("t/b")).unwrap();
    let folder = site.open();
    folder.keep(&name("a")).unwrap();
    put(&folder, "b", b"other").unwrap();
    put(&folder, "a", b"other").unwrap();
    let (_, refused) = folder.commit().unwrap();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].0 == name("a") && matches!(refused[0].1, StageError::Collides { .. }));
    assert_eq!(fs::read(site.path("t/a")).unwrap(), b"12345");
    assert_eq!(fs::read(site.path("t/b")).unwrap(), b"other");
}

#[test]
fn an_alias_of_a_file_with_several_names_collides_all_the_same() {
    // What a file system that folds case tells: two names, one file, and one entry only.
    let found = look::Found {
        identity: (1, 2),
        kind: FileType::RegularFile,
        size: 0,
        modified: EARLY,
        changed: EARLY,
        links: 2,
        mode: 0,
    };
    let is_entry = |entry: &FileName| [name("a"), name("link")].contains(entry);
    for (first, second, is_collision) in [("a", "A", true), ("A", "a", true), ("a", "link", false)] {
        let given = Given::nothing();
        assert!(given.claim(&found, &name(first), &is_entry));
        assert_eq!(given.claim(&found, &name(second), &is_entry), !is_collision, "{first} {second}");
        assert!(!given.claim(&found, &name(first), &is_entry), "the same name twice");
    }
}

#[test]
fn what_a_killed_receiver_left_goes_and_what_is_of_others_stays() {
    let site = existing();
    let folder = site.open();
    put(&folder, "sub/a", b"1").unwrap();
    let left: Vec<String> = site.tree();
    let left: Vec<(PathBuf, Vec<u8>)> = left
        .iter()
        .filter(|name| name.contains(".oneport-"))
        .map(|name| (site.path(name), fs::read(site.path(name)).unwrap()))
        .collect();
    assert_eq!(left.len(), 2, "the lock and the file");
    drop(folder);
    let other = site.path("t/sub/.oneport-0123456789abcdef-0.part");
    // What was noted in the lock may be lost with the power.
    for has_note in [true, false] {
        for (path, bytes) in &left {
            let is_lock = path.extension().is_some_and(|ending| ending == "lock");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, if is_lock && !has_note { &[] } else { &bytes[..] }).unwrap();
        }
        fs::write(&other, "of a receiver of a folder in this one").unwrap();
        drop(site.open());
        assert_eq!(site.tree(), ["t", "t/sub", "t/sub/.oneport-0123456789abcdef-0.part"]);
    }
    // Even if the lock was lost with the power.
    let (hidden, bytes) =
        left.iter().find(|(path, _)| path.extension().is_some_and(|ending| ending == "part")).unwrap();
    fs::write(hidden, bytes).unwrap();
    let folder = site.open();
    put(&folder, "sub/a", b"2").unwrap();
    assert_eq!(fs::read(hidden).unwrap(), b"2");
    folder.commit().unwrap();
    assert_eq!(fs::read(site.path("t/sub/a")).unwrap(), b"2");
}

#[test]
fn what_was_begun_as_a_large_file_goes_when_it_comes_as_a_small_one() {
    let site = existing();
    for ending in [beside::PART, beside::JOURNAL] {
        fs::write(site.path("t").join(beside::hidden_name(Path::new("a"), ending)), "begun").unwrap();
    }
    let folder = site.open();
    put(&folder, "a", b"1").unwrap();
    folder.commit().unwrap();
    assert_eq!(site.tree().into_iter().filter(|name| name.contains("/.")).count(), 0);
}

#[test]
fn the_lock_that_a_killed_receiver_left_beside_a_finished_folder_goes() {
    let site = Site::new();
    site.open().commit().unwrap();
    fs::write(site.path(&beside::hidden_name(Path::new("t"), beside::LOCK)), "left").unwrap();
    drop(site.open());
    assert_eq!(site.tree(), ["t"]);
}

#[test]
fn a_large_file_replaces_only_what_it_may() {
    let site = existing();
    fs::write(site.path("t/a"), "old").unwrap();
    let folder = site.open();
    assert!(matches!(folder.large(&name("a"), Replace::Never), Err(StageError::Exists(_))));
    assert_eq!(folder.large(&name("b"), Replace::Always).unwrap().replace, Replace::Never);
    drop(folder);
    let folder = site.open();
    let place = folder.large(&name("a"), Replace::Always).unwrap();
    assert_eq!(place.replace, Replace::Always);
    assert_eq!(folder.large(&name("a"), Replace::Always).unwrap(), place, "asked again");
    put(&folder, "a", b"small").unwrap();
    large(&folder, "a", b"large", &PLAIN).unwrap();
    let (_, refused) = folder.commit().unwrap();
    assert!(matches!(refused[..], [(_, StageError::Collides { .. })]), "{refused:?}");
    assert_eq!(fs::read(site.path("t/a")).unwrap(), b"large");
    assert_eq!(site.tree(), ["t", "t/a"]);
}

#[test]
fn an_existing_folder_that_cannot_be_opened_is_left_without_a_lock() {
    let site = existing();
    let probe = beside::hidden_name(Path::new(""), open::PROBE);
    fs::write(site.path("t").join(&probe), "not of ours").unwrap();
    assert!(site.try_open(BOOT).is_err());
    assert_eq!(site.tree(), ["t".to_owned(), format!("t/{probe}")]);
}
