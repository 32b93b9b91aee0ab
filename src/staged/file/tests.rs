use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::beside::{PART, hidden_name};
use super::*;
use crate::error::Code;
use crate::names::STAGED_PREFIX;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn stage(target: &Path, bytes: &[u8]) -> Result<StagedFile, StageError> {
    let staged = StagedFile::create(target, bytes.len() as u64)?;
    staged.write_all_at(bytes, 0)?;
    Ok(staged)
}

#[test]
fn a_committed_file_has_its_name_and_nothing_else_is_left() {
    let folder = Folder::new();
    let target = folder.path("new/er/file");
    stage(&target, b"bytes").unwrap().commit(Replace::Never, true).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"bytes");
    assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_dropped_file_leaves_nothing_behind_and_the_old_one_as_it_was() {
    let folder = Folder::new();
    drop(stage(&folder.path("new/er/file"), b"bytes").unwrap());
    assert_eq!(folder.names(), Vec::<String>::new());
    fs::write(folder.path("old"), "old").unwrap();
    drop(stage(&folder.path("old"), b"bytes").unwrap());
    assert_eq!(folder.names(), ["old"]);
    assert_eq!(fs::read(folder.path("old")).unwrap(), b"old");
}

#[test]
fn folders_that_can_be_made_only_in_part_are_taken_back() {
    let folder = Folder::new();
    let beyond = format!("new/{}/file", "x".repeat(300));
    assert_eq!(stage(&folder.path(&beyond), b"bytes").unwrap_err().code(), Code::LocalIo);
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn the_target_appears_only_with_the_commit() {
    let folder = Folder::new();
    let staged = stage(&folder.path("file"), b"bytes").unwrap();
    assert!(folder.names().iter().all(|name| name.starts_with(STAGED_PREFIX)));
    staged.commit(Replace::Always, false).unwrap();
    assert_eq!(folder.names(), ["file"]);
}

#[test]
fn never_means_never_even_if_the_target_appeared_meanwhile() {
    let folder = Folder::new();
    let staged = stage(&folder.path("file"), b"new").unwrap();
    fs::write(folder.path("file"), "old").unwrap();
    let error = staged.commit(Replace::Never, true).unwrap_err();
    assert_eq!(error.code(), Code::Exists, "{error}");
    assert_eq!(fs::read(folder.path("file")).unwrap(), b"old");
    assert_eq!(folder.names(), ["file"]);
}

#[test]
fn a_replaced_file_hands_its_permissions_on_but_no_special_bits() {
    let folder = Folder::new();
    fs::write(folder.path("file"), "old").unwrap();
    fs::set_permissions(folder.path("file"), Permissions::from_mode(0o4640)).unwrap();
    stage(&folder.path("file"), b"new").unwrap().commit(Replace::Always, false).unwrap();
    assert_eq!(fs::metadata(folder.path("file")).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn two_receivers_of_one_target_never_mix_and_a_left_over_is_taken_over() {
    let folder = Folder::new();
    let first = stage(&folder.path("file"), b"first").unwrap();
    let second = stage(&folder.path("file"), b"second").unwrap_err();
    assert!(matches!(second, StageError::Busy(_)), "{second}");
    let other = stage(&folder.path("other"), b"other").unwrap();
    other.commit(Replace::Always, false).unwrap();
    first.commit(Replace::Always, false).unwrap();
    assert_eq!(fs::read(folder.path("file")).unwrap(), b"first");

    let part = folder.path(&hidden_name(Path::new("file"), PART));
    fs::write(&part, "the rest of one that was killed, and longer").unwrap();
    stage(&folder.path("file"), b"third").unwrap().commit(Replace::Always, false).unwrap();
    assert_eq!(fs::read(folder.path("file")).unwrap(), b"third");
    assert_eq!(folder.names(), ["file", "other"]);
}

#[test]
fn what_others_put_in_the_way_is_neither_followed_nor_written() {
    let folder = Folder::new();
    let part = folder.path(&hidden_name(Path::new("file"), PART));
    fs::write(folder.path("victim"), "precious").unwrap();
    symlink("victim", &part).unwrap();
    assert!(matches!(stage(&folder.path("file"), b"x"), Err(StageError::InTheWay(_))));
    fs::remove_file(&part).unwrap();
    fs::hard_link(folder.path("victim"), &part).unwrap();
    assert!(matches!(stage(&folder.path("file"), b"x"), Err(StageError::InTheWay(_))));
    assert_eq!(fs::read(folder.path("victim")).unwrap(), b"precious");
}

#[test]
fn a_target_that_is_a_link_is_replaced_and_not_written_through() {
    let folder = Folder::new();
    fs::write(folder.path("victim"), "precious").unwrap();
    symlink("victim", folder.path("file")).unwrap();
    stage(&folder.path("file"), b"new").unwrap().commit(Replace::Always, false).unwrap();
    assert_eq!(fs::read(folder.path("victim")).unwrap(), b"precious");
    assert!(folder.path("file").symlink_metadata().unwrap().is_file());
}

#[test]
fn a_folder_is_never_replaced() {
    let folder = Folder::new();
    fs::create_dir(folder.path("file")).unwrap();
    let error = stage(&folder.path("file"), b"new").unwrap().commit(Replace::Always, true).unwrap_err();
    assert!(matches!(error, StageError::NotAFile(_)), "{error}");
    assert_eq!(folder.names(), ["file"]);
}

#[test]
fn a_size_beyond_the_disk_is_known_before_the_first_byte() {
    let folder = Folder::new();
    let error = StagedFile::create(&folder.path("file"), i64::MAX.unsigned_abs()).unwrap_err();
    assert_eq!(error.code(), Code::NoSpace, "{error}");
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn the_longest_name_can_be_staged() {
    let folder = Folder::new();
    let target = folder.path(&"x".repeat(crate::limits::COMPONENT_MAX));
    stage(&target, b"x").unwrap().commit(Replace::Always, false).unwrap();
    assert!(target.exists());
}
