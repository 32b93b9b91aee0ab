use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::super::journal::Source;
use super::super::{Part, beside};
use super::*;
use crate::error::Code;
use crate::limits::COMPONENT_MAX;
use crate::tree::{BlockSet, Root};

#[path = "tests/existing.rs"]
mod existing;
#[path = "tests/surroundings.rs"]
mod surroundings;
#[path = "tests/trust.rs"]
mod trust;

const BOOT: [u8; TOKEN_LEN] = [1; TOKEN_LEN];
const NEXT_BOOT: [u8; TOKEN_LEN] = [2; TOKEN_LEN];
/// Before 1970, and with nanoseconds.
const EARLY: (i64, u32) = (-1_000_000, 123_456_789);
const PLAIN: Attributes = Attributes { mode: 0o644, modified: EARLY, sparse: false };

fn name(text: &str) -> FileName {
    FileName::parse(text.as_bytes()).unwrap()
}

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn staged(&self, name: &str) -> PathBuf {
        self.path(&beside::hidden_name(Path::new("t"), beside::PART)).join(name)
    }

    fn try_open(&self, boot: [u8; TOKEN_LEN]) -> Result<StagedFolder, StageError> {
        StagedFolder::open_since(&self.path("t"), true, Some(boot))
    }

    fn open(&self) -> StagedFolder {
        self.try_open(BOOT).unwrap()
    }

    fn unflushed(&self) -> StagedFolder {
        StagedFolder::open_since(&self.path("t"), false, Some(BOOT)).unwrap()
    }

    /// The names of everything, sorted.
    fn tree(&self) -> Vec<String> {
        fn list(folder: &Path, top: &Path, names: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                names.push(path.strip_prefix(top).unwrap().to_str().unwrap().to_owned());
                if path.symlink_metadata().unwrap().is_dir() {
                    list(&path, top, names);
                }
            }
        }
        let mut names = Vec::new();
        list(self.folder.path(), self.folder.path(), &mut names);
        names.sort();
        names
    }
}

fn put(folder: &StagedFolder, text: &str, bytes: &[u8]) -> Result<(), StageError> {
    folder.small(&name(text), bytes, &PLAIN, Replace::Always)
}

fn standing(folder: &StagedFolder, text: &str, len: u64) -> Standing {
    folder.standing(&name(text), len, EARLY).unwrap()
}

fn large(folder: &StagedFolder, text: &str, bytes: &[u8], attributes: &Attributes) -> Result<(), StageError> {
    let place = folder.large(&name(text), Replace::Always)?;
    let source = Source { size: bytes.len() as u64, root: Some(Root::of(bytes)), token: [0; TOKEN_LEN] };
    let mut part = Part::open(&place.path, false, &mut |_, _| std::ops::ControlFlow::Continue(()))?;
    part.begin(&source, &BlockSet::default())?;
    part.write_at(bytes, 0)?;
    part.record(0, *Root::of(bytes).as_bytes())?;
    part.commit(place.replace)?;
    folder.large_done(&name(text), attributes)
}

fn modified(path: &Path) -> (i64, u32) {
    let found = path.symlink_metadata().unwrap();
    (found.mtime(), found.mtime_nsec().try_into().unwrap())
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

#[test]
fn a_new_folder_gets_its_name_at_once_with_all_that_was_given() {
    for sync in [false, true] {
        let site = Site::new();
        let folder = StagedFolder::open(&site.path("above/t"), sync).unwrap();
        assert!(folder.is_new());
        assert_eq!(standing(&folder, "a", 1), Standing::Missing);
        put(&folder, "a", b"1").unwrap();
        put(&folder, "sub/er/b", b"").unwrap();
        large(&folder, "sub/large", &[7; 5000], &PLAIN).unwrap();
        let late = Attributes { mode: 0o750, modified: (1_600_000_000, 5), sparse: false };
        folder.folder(&name("sub"), &late).unwrap();
        folder.folder(&name("empty/inner"), &late).unwrap();
        folder.top(&late);
        assert!(folder.sync_point().unwrap().is_empty());
        put(&folder, "c", b"3").unwrap();
        assert!(!site.path("above/t").exists());
        let (path, refused) = folder.commit().unwrap();
        assert!(refused.is_empty() && path == site.path("above/t"));
        let names = "above above/t above/t/a above/t/c above/t/empty above/t/empty/inner above/t/sub \
                     above/t/sub/er above/t/sub/er/b above/t/sub/large";
        assert_eq!(site.tree().join(" "), names);
        for folder in ["above/t", "above/t/sub", "above/t/empty/inner"] {
            assert_eq!((modified(&site.path(folder)), mode(&site.path(folder))), (late.modified, 0o750));
        }
        for file in ["above/t/a", "above/t/sub/er/b", "above/t/sub/large"] {
            assert_eq!((modified(&site.path(file)), mode(&site.path(file))), (EARLY, 0o644), "{file}");
        }
        assert_eq!(fs::read(site.path("above/t/sub/large")).unwrap(), [7; 5000]);
    }
}

#[test]
fn special_bits_and_those_of_the_mask_are_left_out_and_no_others() {
    let site = Site::new();
    fs::create_dir(site.path("probe")).unwrap();
    let allowed = mode(&site.path("probe")) & 0o777;
    let folder = site.open();
    let all = Attributes { mode: 0o7777, ..PLAIN };
    folder.small(&name("small"), b"1", &all, Replace::Never).unwrap();
    large(&folder, "large", b"1", &all).unwrap();
    folder.folder(&name("folder"), &all).unwrap();
    folder.small(&name("none"), b"1", &Attributes { mode: 0, ..PLAIN }, Replace::Never).unwrap();
    folder.commit().unwrap();
    for name in ["t", "t/small", "t/large", "t/folder"] {
        assert_eq!(mode(&site.path(name)), allowed, "{name}");
    }
    assert_eq!(mode(&site.path("t/none")), 0);
}

#[test]
fn what_is_staged_is_nobody_elses_to_see() {
    let site = Site::new();
    let folder = site.open();
    put(&folder, "a", b"1").unwrap();
    assert_eq!(mode(&site.staged("")), 0o700);
}

#[test]
fn if_nothing_came_nothing_stays() {
    let site = Site::new();
    let folder = StagedFolder::open(&site.path("above/t"), true).unwrap();
    folder.folder(&name("a/b"), &PLAIN).unwrap();
    drop(folder);
    assert!(site.tree().is_empty(), "{:?}", site.tree());
    fs::create_dir(site.path("t")).unwrap();
    let folder = site.open();
    folder.folder(&name("a/b"), &PLAIN).unwrap();
    drop(folder);
    assert_eq!(site.tree(), ["t"]);
}

#[test]
fn an_empty_folder_is_committed() {
    let site = Site::new();
    site.open().commit().unwrap();
    assert_eq!(site.tree(), ["t"]);
    site.open().commit().unwrap();
    assert_eq!(site.tree(), ["t"]);
}

#[test]
fn the_second_receiver_is_told() {
    for exists in [false, true] {
        let site = Site::new();
        if exists {
            fs::create_dir(site.path("t")).unwrap();
            symlink("t", site.path("link")).unwrap();
        }
        let first = site.open();
        put(&first, "a", b"1").unwrap();
        for target in if exists { &["t", "link", "t/."][..] } else { &["t"] } {
            let second = StagedFolder::open(&site.path(target), true).unwrap_err();
            assert!(matches!(second, StageError::Busy(_)) && second.code() == Code::Exists, "{second}");
        }
        first.commit().unwrap();
        assert_eq!(fs::read(site.path("t/a")).unwrap(), b"1");
        drop(site.open());
    }
}

#[test]
fn a_target_that_appears_meanwhile_is_not_replaced_and_nothing_is_lost() {
    let site = Site::new();
    let folder = site.open();
    put(&folder, "a", b"1").unwrap();
    fs::create_dir(site.path("t")).unwrap();
    assert!(matches!(folder.commit(), Err(StageError::Exists(_))));
    fs::remove_dir(site.path("t")).unwrap();
    let folder = site.open();
    assert_eq!(standing(&folder, "a", 1), Standing::Same);
    folder.keep(&name("a")).unwrap();
    folder.commit().unwrap();
    assert_eq!(site.tree(), ["t", "t/a"]);
}

#[test]
fn a_name_that_comes_twice_never_replaces_the_first() {
    for exists in [false, true] {
        let site = Site::new();
        if exists {
            fs::create_dir(site.path("t")).unwrap();
        }
        let folder = site.open();
        put(&folder, "a", b"first").unwrap();
        large(&folder, "b", b"first", &PLAIN).unwrap();
        let mut errors = vec![large(&folder, "b", b"second", &PLAIN).unwrap_err()];
        for text in ["a", "b"] {
            errors.extend(put(&folder, text, b"second").err());
        }
        let (_, refused) = folder.commit().unwrap();
        errors.extend(refused.into_iter().map(|(_, error)| error));
        assert_eq!(errors.len(), 3, "{errors:?}");
        for error in errors {
            assert!(matches!(error, StageError::Collides { .. }) && error.code() == Code::Exists, "{error}");
        }
        assert_eq!(fs::read(site.path("t/a")).unwrap(), b"first");
        assert_eq!(fs::read(site.path("t/b")).unwrap(), b"first");
        assert_eq!(site.tree(), ["t", "t/a", "t/b"]);
    }
}

#[test]
fn threads_that_race_for_one_name_leave_one_whole_file() {
    for sync in [false, true] {
        for exists in [false, true] {
            let site = Site::new();
            if exists {
                fs::create_dir(site.path("t")).unwrap();
                fs::write(site.path("t/f0"), "old").unwrap();
            }
            let folder = StagedFolder::open(&site.path("t"), sync).unwrap();
            let done = AtomicBool::new(false);
            let outcomes: usize = std::thread::scope(|scope| {
                let threads = [b"one", b"two", b"six"].map(|bytes| {
                    let folder = &folder;
                    scope.spawn(move || {
                        let texts = (0..50).map(|n| format!("f{n}"));
                        texts.filter(|text| put(folder, text, bytes).is_ok()).count()
                    })
                });
                let syncing = scope.spawn(|| {
                    let mut refused = 0;
                    while !done.load(Ordering::Acquire) {
                        refused += folder.sync_point().unwrap().len();
                    }
                    refused
                });
                let stored: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
                done.store(true, Ordering::Release);
                stored - syncing.join().unwrap()
            });
            let (_, refused) = folder.commit().unwrap();
            assert_eq!(outcomes - refused.len(), 50, "{sync} {exists}");
            assert_eq!(site.tree().len(), 51);
            for n in 0..50 {
                let found = fs::read(site.path(&format!("t/f{n}"))).unwrap();
                assert!([&b"one"[..], b"two", b"six"].contains(&&*found));
            }
        }
    }
}

#[test]
fn a_file_where_a_folder_is_needed_is_told_and_so_is_the_reverse() {
    for exists in [false, true] {
        let site = Site::new();
        if exists {
            fs::create_dir(site.path("t")).unwrap();
        }
        let folder = site.open();
        put(&folder, "file", b"1").unwrap();
        folder.sync_point().unwrap();
        folder.folder(&name("folder"), &PLAIN).unwrap();
        for error in [
            put(&folder, "file/x", b"2").unwrap_err(),
            folder.folder(&name("file"), &PLAIN).unwrap_err(),
            folder.large(&name("file/x/y"), Replace::Always).unwrap_err(),
        ] {
            assert!(matches!(error, StageError::NotAFolder(_)), "{error}");
        }
        let mut errors = vec![folder.large(&name("folder"), Replace::Always).unwrap_err()];
        errors.extend(folder.keep(&name("folder")).err());
        errors.extend(put(&folder, "folder", b"2").err());
        errors.extend(folder.commit().unwrap().1.into_iter().map(|(_, error)| error));
        assert_eq!(errors.len(), 3);
        assert!(errors.iter().all(|error| matches!(error, StageError::NotAFile(_))), "{errors:?}");
        assert_eq!(site.tree(), ["t", "t/file", "t/folder"]);
        assert!(matches!(StagedFolder::open(&site.path("t/file"), true), Err(StageError::NotAFolder(_))));
    }
}

#[test]
fn what_an_earlier_run_had_and_this_one_has_not_is_not_in_the_folder() {
    let site = Site::new();
    let folder = site.open();
    for text in ["a", "gone", "sub/gone", "sub/b"] {
        put(&folder, text, b"1").unwrap();
    }
    folder.folder(&name("empty"), &PLAIN).unwrap();
    folder.folder(&name("stays"), &PLAIN).unwrap();
    let place = folder.large(&name("sub/large"), Replace::Always).unwrap();
    let kept = folder.large(&name("sub/kept"), Replace::Always).unwrap();
    for place in [place, kept] {
        let source = Source { size: 5000, root: None, token: [4; TOKEN_LEN] };
        let mut part =
            Part::open(&place.path, false, &mut |_, _| std::ops::ControlFlow::Continue(())).unwrap();
        part.begin(&source, &BlockSet::default()).unwrap();
        part.record(0, [0; 32]).unwrap();
    }
    drop(folder);
    let folder = site.open();
    folder.folder(&name("stays"), &PLAIN).unwrap();
    folder.keep(&name("a")).unwrap();
    put(&folder, "sub/b", b"2").unwrap();
    folder.large(&name("sub/kept"), Replace::Always).unwrap();
    folder.commit().unwrap();
    let hidden = |ending| format!("t/sub/{}", beside::hidden_name(Path::new("kept"), ending));
    let (part, journal) = (hidden(beside::PART), hidden(beside::JOURNAL));
    assert_eq!(site.tree(), ["t", "t/a", "t/stays", "t/sub", &journal, &part, "t/sub/b"]);
}

#[test]
fn a_run_that_was_about_to_finish_is_gone_on_with() {
    let site = Site::new();
    let folder = site.open();
    put(&folder, "sub/a", b"1").unwrap();
    folder.folder(&name("sub"), &Attributes { mode: 0, ..PLAIN }).unwrap();
    folder.top(&Attributes { mode: 0o555, ..PLAIN });
    assert!(folder.finish_folders().unwrap().is_empty());
    drop(folder);
    assert_eq!((mode(&site.staged("")), mode(&site.staged("sub"))), (0o555, 0));
    let folder = site.open();
    assert_eq!((mode(&site.staged("")), mode(&site.staged("sub"))), (0o700, 0o700));
    assert_eq!(standing(&folder, "sub/a", 1), Standing::Same);
}

#[test]
fn what_was_received_is_forgotten_when_asked() {
    let site = Site::new();
    let folder = site.open();
    put(&folder, "sub/a", b"1").unwrap();
    folder.sync_point().unwrap();
    drop(folder);
    let mut folder = site.open();
    folder.discard().unwrap();
    assert_eq!(standing(&folder, "sub/a", 1), Standing::Missing);
    put(&folder, "sub/b", b"1").unwrap();
    folder.discard().unwrap();
    drop(folder);
    assert!(site.tree().is_empty(), "{:?}", site.tree());
}

#[test]
fn a_name_that_cannot_be_here_is_told() {
    let site = Site::new();
    let folder = site.open();
    // The path of the whole is longer than a path may be, which only a large file needs.
    let deep = format!("{}f", format!("{}/", "d".repeat(COMPONENT_MAX)).repeat(15));
    put(&folder, &deep, b"1").unwrap();
    let error = look::at(&folder.top, OsStr::new(&"x".repeat(COMPONENT_MAX + 1))).unwrap_err();
    let error = named("create", Path::new("x"))(error);
    assert!(matches!(error, StageError::Name { .. }) && error.code() == Code::LocalIo, "{error}");
    folder.commit().unwrap();
}

#[test]
fn more_folders_than_are_kept_open_are_filled_in_turns() {
    let site = Site::new();
    let folder = site.open();
    for round in 0..2 {
        for n in 0..100 {
            put(&folder, &format!("d{n}/e/f{round}"), b"1").unwrap();
        }
    }
    folder.commit().unwrap();
    assert_eq!(site.tree().len(), 1 + 100 * 4);
}

#[test]
fn zeros_of_a_sparse_file_take_no_room() {
    let site = Site::new();
    let folder = site.open();
    let mut bytes = vec![0; 64 << 10];
    bytes[5000] = 1;
    for sparse in [false, true] {
        let attributes = Attributes { sparse, ..PLAIN };
        folder.small(&name(&format!("s{sparse}")), &bytes, &attributes, Replace::Never).unwrap();
    }
    folder.commit().unwrap();
    let blocks = |name: &str| fs::metadata(site.path(name)).unwrap().blocks();
    assert!(fs::read(site.path("t/strue")).unwrap() == bytes);
    assert_eq!(modified(&site.path("t/strue")), EARLY);
    assert!(blocks("t/strue") * 4 < blocks("t/sfalse"), "{} {}", blocks("t/strue"), blocks("t/sfalse"));
}

#[test]
fn what_is_in_the_way_of_the_staged_folder_is_told_and_left_alone() {
    let site = Site::new();
    fs::create_dir(site.path("elsewhere")).unwrap();
    let staged = site.path(&beside::hidden_name(Path::new("t"), beside::PART));
    symlink("elsewhere", &staged).unwrap();
    assert!(matches!(site.try_open(BOOT), Err(StageError::InTheWay(_))));
    fs::remove_file(&staged).unwrap();
    fs::write(&staged, "a part of a file").unwrap();
    assert!(matches!(site.try_open(BOOT), Err(StageError::InTheWay(_))));
    assert_eq!(fs::read(&staged).unwrap(), b"a part of a file");
    fs::remove_file(&staged).unwrap();
    site.open().commit().unwrap();
    symlink("nowhere", site.path("u")).unwrap();
    assert!(matches!(StagedFolder::open(&site.path("u"), true), Err(StageError::NotAFolder(_))));
}
