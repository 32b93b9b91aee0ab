//! A disk that is full, and another one: small file systems in memory, seen only by a process of their own.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::error::Code;

/// Where the process that plays a test finds its small disk.
const SMALL_DISK: &str = "ONEPORT_TEST_SMALL_DISK";

/// Runs a test once more, in a process that has a file system of 1 MiB, and tells it where; `None` in the process that
/// only waits for that one, or where there can be no such thing.
fn small_disk(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(SMALL_DISK) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=1m none \"$0\" || exit 77; exec \"$@\"";
    let own = std::env::current_exe().unwrap();
    let name = format!("storage::local::change::tests::disk::{test}");
    let run = Command::new("unshare")
        .args(["-m", "sh", "-c", mount])
        .arg(folder.path())
        .arg(own)
        .args(["--exact", &name, "--nocapture"])
        .env(SMALL_DISK, folder.path())
        .output();
    match run {
        // Only the superuser may, and not everywhere.
        Err(_) => {}
        Ok(run) if run.status.code() == Some(77) || run.stderr.starts_with(b"unshare: ") => {}
        Ok(run) => {
            let text = String::from_utf8_lossy(&run.stdout).into_owned();
            assert!(
                run.status.success() && text.contains("1 passed"),
                "{text}{}",
                String::from_utf8_lossy(&run.stderr)
            );
        }
    }
    None
}

fn disk_at(root: &Path) -> LocalDisk {
    LocalDisk::new(root, &[]).unwrap()
}

#[test]
fn a_full_disk_is_told_as_one_and_leaves_what_was_there() {
    let Some(root) = small_disk("a_full_disk_is_told_as_one_and_leaves_what_was_there") else { return };
    let disk = disk_at(&root);
    let bytes = vec![1; 600 << 10];
    begin(disk.place(&name("file")).unwrap(), &bytes).unwrap().commit(Replace::Never).unwrap();
    // It is known before the first byte.
    let error = begin(disk.place(&name("new/file")).unwrap(), &bytes).unwrap_err();
    assert_eq!(error.code(), Code::NoSpace, "{error}");
    let error = StagedFile::create_at(disk.place(&name("new/file")).unwrap(), 1 << 20).unwrap_err();
    assert_eq!(error.code(), Code::NoSpace, "{error}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "and leaves no folder");
    // It fills up meanwhile.
    let part = begin(disk.place(&name("file")).unwrap(), b"small").unwrap();
    let _ = fs::write(root.join("filler"), vec![0; 1 << 20]);
    let error = part.write_at(&bytes, 5).unwrap_err();
    assert_eq!(error.code(), Code::NoSpace, "{error}");
    drop(part);
    assert_eq!(fs::read(root.join("file")).unwrap(), bytes);
    // Removing makes room, whatever is full.
    disk.remove(&name("filler"), false).unwrap();
    disk.sweep(Duration::ZERO, &|_| false).unwrap();
    begin(disk.place(&name("file")).unwrap(), b"small").unwrap().commit(Replace::Always).unwrap();
    assert_eq!(fs::read(root.join("file")).unwrap(), b"small");
}

#[test]
fn nothing_is_moved_to_another_file_system_nor_removed_from_one() {
    let Some(root) = small_disk("nothing_is_moved_to_another_file_system_nor_removed_from_one") else {
        return;
    };
    let above = root.parent().unwrap();
    let base = root.file_name().unwrap().to_str().unwrap();
    let disk = disk_at(above);
    let here = tempfile::tempdir_in(above).unwrap();
    let other = here.path().file_name().unwrap().to_str().unwrap();
    fs::write(here.path().join("f"), "f").unwrap();
    let error = disk.rename(&name(&format!("{other}/f")), &name(&format!("{base}/f")), false).unwrap_err();
    assert!(error.to_string().contains("another file system"), "{error}");
    assert_eq!(fs::read(here.path().join("f")).unwrap(), b"f");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    // A folder in which another file system is mounted.
    fs::create_dir(root.join("m")).unwrap();
    fs::write(root.join("m/f"), "f").unwrap();
    assert!(disk.remove(&name(base), true).is_err());
    assert!(root.join("m/f").exists(), "nothing in it was touched");
    disk.remove(&name(&format!("{base}/m")), true).unwrap();
    assert!(!root.join("m").exists());
}
