use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::*;

const TIME: (i64, u32) = (1_234_567_890, 987_654_321);

fn file(bytes: &[u8]) -> GroupFile<'_> {
    GroupFile { bytes, mode: 0o4751, modified: TIME }
}

/// A folder on a disk, where tests run.
fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn group_of(dir: &Path, bases: &[&str]) -> (Group, Vec<FileNumber>) {
    let mut group = Group::new(Arc::default());
    let folder = group.add_folder(b"", Place::at(&dir.join("x")).unwrap()).unwrap();
    let files =
        bases.iter().map(|base| group.stage(folder, OsStr::new(base), &file(base.as_bytes())).unwrap());
    let files = files.collect();
    (group, files)
}

#[test]
fn no_file_has_its_name_before_it_was_flushed_and_then_it_is_whole() {
    for bases in [&["a"][..], &["a", "b", "c"]] {
        let dir = dir();
        let (mut group, files) = group_of(dir.path(), bases);
        assert!(names_in(dir.path()).iter().all(|name| name.starts_with(STAGED_PREFIX)));
        group.flush().unwrap();
        for file in files {
            group.publish(file, Replace::Never).unwrap();
        }
        group.flush_names().unwrap();
        drop(group);
        assert_eq!(names_in(dir.path()), bases);
        for base in bases {
            let path = dir.path().join(base);
            assert_eq!(fs::read(&path).unwrap(), base.as_bytes());
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.mtime(), found.mtime_nsec()), (TIME.0, i64::from(TIME.1)));
            assert_eq!(found.permissions().mode() & 0o7000, 0, "special bits are nobody's to set");
            assert_eq!(found.permissions().mode() & 0o700, 0o700);
        }
    }
}

#[test]
fn many_files_are_flushed_once_and_one_by_itself() {
    let dir = dir();
    let flushes = Cell::new(0);
    let sync = |_: &File| {
        flushes.set(flushes.get() + 1);
        Ok(())
    };
    let (mut group, _files) = group_of(dir.path(), &["a", "b", "c"]);
    let sub = group.add_folder(b"sub", Place::at(&dir.path().join("sub/x")).unwrap()).unwrap();
    group.stage(sub, OsStr::new("d"), &file(b"d")).unwrap();
    group.flush_by(&sync).unwrap();
    assert_eq!(flushes.get(), 1, "two folders of one file system");
    let (mut group, _files) = group_of(dir.path(), &["a"]);
    group.flush_by(&sync).unwrap();
    assert_eq!(flushes.get(), 1);
}

#[test]
fn after_a_flush_that_failed_nothing_is_left() {
    let dir = dir();
    let (mut group, _files) = group_of(dir.path(), &["a", "b"]);
    let error = group.flush_by(&|_| Err(io::Error::other("the disk is broken"))).unwrap_err();
    assert!(error.to_string().contains("the disk is broken"), "{error}");
    drop(group);
    assert_eq!(names_in(dir.path()), [""; 0]);
}

#[test]
fn a_name_that_cannot_be_had_fails_alone() {
    let dir = dir();
    fs::create_dir(dir.path().join("folder")).unwrap();
    fs::write(dir.path().join("old"), "old").unwrap();
    fs::write(dir.path().join("older"), "older").unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
    let (mut group, files) = group_of(dir.path(), &["folder", "old", "older", "link", "new"]);
    group.flush().unwrap();
    let placed: Vec<_> = files
        .into_iter()
        .zip([true, false, true, true, false])
        .map(|(file, replace)| group.publish(file, if replace { Replace::Always } else { Replace::Never }))
        .collect();
    assert!(matches!(placed[0], Err(StageError::NotAFile(_))), "{placed:?}");
    assert!(matches!(placed[1], Err(StageError::Exists(_))), "{placed:?}");
    assert!(placed[2..].iter().all(Result::is_ok), "{placed:?}");
    group.flush_names().unwrap();
    drop(group);
    assert_eq!(names_in(dir.path()), ["folder", "link", "new", "old", "older"]);
    for (name, text) in [("old", "old"), ("older", "older"), ("link", "link"), ("new", "new")] {
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), text, "{name}");
    }
}

#[test]
fn the_same_is_a_file_of_that_size_and_time() {
    let dir = dir();
    let (mut group, files) = group_of(dir.path(), &["a"]);
    group.flush().unwrap();
    group.publish(files[0], Replace::Never).unwrap();
    let folder = group.folder(b"").unwrap();
    let same = |base: &str, size, time| group.has_same(folder, OsStr::new(base), size, time).unwrap();
    assert!(same("a", 1, TIME));
    assert!(!same("a", 2, TIME));
    assert!(!same("a", 1, (TIME.0, TIME.1 + 1)));
    assert!(!same("b", 1, TIME));
    assert!(group.free(folder).unwrap() > 0);
}
