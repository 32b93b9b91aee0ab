//! Disks that are full or read-only, and another mask: each test runs once more in a process of its own.

use std::process::Command;

use super::*;

/// Tells a process where it is to work.
const FOLDER: &str = "ONEPORT_TEST_FOLDER";

/// The folder to work in, if this is the process that `script` has prepared; else runs the test in one,
/// unless that is not permitted here. The script finds the folder in `$0`, and the test in `"$@"`.
fn within(test: &str, is_namespace: bool, script: &str) -> Option<Site> {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return Some(Site { folder: tempfile::tempdir_in(folder).unwrap() });
    }
    let folder = tempfile::tempdir().unwrap();
    let shell = |script: &str| {
        let mut words = vec!["sh", "-c", script];
        if is_namespace {
            words.splice(..0, ["unshare", "-rm"]);
        }
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(folder.path());
        command
    };
    if !shell(script).arg("true").output().is_ok_and(|output| output.status.success()) {
        return None;
    }
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let mut command = shell(script);
    command.arg(std::env::current_exe().unwrap()).args([&name, "--exact"]).env(FOLDER, folder.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    None
}

#[test]
fn a_full_disk_is_told_and_leaves_only_whole_files() {
    let script = "mount -t tmpfs -o size=256k none \"$0\" && exec \"$@\"";
    let Some(site) = within("a_full_disk_is_told_and_leaves_only_whole_files", true, script) else { return };
    for exists in [false, true] {
        if exists {
            fs::create_dir(site.path("t")).unwrap();
        }
        let folder = site.open();
        put(&folder, "first", &[1; 60_000]).unwrap();
        let error = put(&folder, "second", &[2; 300_000]).unwrap_err();
        assert_eq!(error.code(), Code::NoSpace, "{error}");
        assert!(!site.staged("second").exists());
        put(&folder, "third", &[3; 60_000]).unwrap();
        folder.commit().unwrap();
        assert_eq!(site.tree(), ["t", "t/first", "t/third"]);
        fs::remove_dir_all(site.path("t")).unwrap();
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_nothing_is_left() {
    let script = "mount -t tmpfs none \"$0\" && exec \"$@\"";
    let name = "a_folder_that_cannot_be_written_is_told_and_nothing_is_left";
    let Some(site) = within(name, true, script) else { return };
    fs::create_dir(site.path("t")).unwrap();
    let mounted = site.folder.path().parent().unwrap();
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-o", how]).arg(mounted).status().unwrap();
        assert!(status.success());
    };
    remount("remount,ro");
    for target in ["t", "new", "ab/ove/new"] {
        let error = StagedFolder::open(&site.path(target), true).unwrap_err();
        assert_eq!(error.code(), Code::LocalIo, "{error}");
    }
    remount("remount,rw");
    assert_eq!(site.tree(), ["t"]);
}

#[test]
fn the_mask_of_the_process_is_left_out() {
    let Some(site) = within("the_mask_of_the_process_is_left_out", false, "umask 027 && exec \"$@\"") else {
        return;
    };
    let all = Attributes { mode: 0o4777, ..PLAIN };
    for exists in [false, true] {
        if exists {
            fs::create_dir(site.path("t")).unwrap();
        }
        let folder = site.open();
        folder.small(&name("small"), b"1", &all, Replace::Never).unwrap();
        large(&folder, "large", b"1", &all).unwrap();
        folder.folder(&name("folder"), &all).unwrap();
        put(&folder, "implied/file", b"1").unwrap();
        folder.commit().unwrap();
        for name in ["t", "t/small", "t/large", "t/folder", "t/implied"] {
            assert_eq!(mode(&site.path(name)), 0o750, "{name}");
        }
        fs::remove_dir_all(site.path("t")).unwrap();
    }
}
