use std::fs;
use std::os::unix::fs::symlink;

use super::*;

struct Tree {
    dir: tempfile::TempDir,
    disk: LocalDisk,
}

/// A root with files and links, a canary outside, and hidden folders within.
fn tree() -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for folder in ["a/b", "logs", "state", ".oneport"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for (file, text) in [
        ("top", "top"),
        ("a/b/deep", "deep"),
        ("logs/log", "log"),
        ("state/owner", "owner"),
        (".oneport/x", "x"),
        (".oneport-1.part", "part"),
        ("../canary", "canary"),
    ] {
        fs::write(root.join(file), text).unwrap();
    }
    let (logs, state) = (root.join("logs"), root.join("state"));
    let disk = LocalDisk::new(&root, &[&logs, &state]).unwrap();
    Tree { dir, disk }
}

impl Tree {
    fn link(&self, target: &str, link: &str) {
        symlink(target, self.dir.path().join("root").join(link)).unwrap();
    }

    fn read(&self, name: &str) -> Result<String, OpenError> {
        let name = FileName::parse(name.as_bytes()).unwrap();
        let file = self.disk.open(&name);
        if let Some(now) = self.disk.open_now(&name) {
            assert_eq!(now.is_ok(), file.is_ok(), "{name}: whoever does not wait must be told the same");
        }
        for mut trail in [Trail::default(), self.trail_to("a/b/deep"), self.trail_to("top")] {
            if let Some(along) = self.disk.open_along(&name, &mut trail) {
                assert_eq!(along.is_ok(), file.is_ok(), "{name}: whatever was opened before it");
            }
        }
        let file = file?;
        let mut bytes = vec![0; usize::try_from(file.size()).unwrap()];
        let count = file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(count, bytes.len());
        Ok(String::from_utf8(bytes).unwrap())
    }

    /// What is left of the way to a file that was opened.
    fn trail_to(&self, name: &str) -> Trail {
        let mut trail = Trail::default();
        let opened = self.disk.open_along(&FileName::parse(name.as_bytes()).unwrap(), &mut trail);
        assert!(opened.is_none_or(|opened| opened.is_ok()), "{name}");
        trail
    }

    #[track_caller]
    fn refuses(&self, name: &str) {
        let error = self.read(name).unwrap_err();
        assert!(matches!(error, OpenError::NotFound | OpenError::Refused(_)), "{name}: {error}");
    }
}

#[test]
fn files_and_links_within_the_root_are_served() {
    let tree = tree();
    tree.link("top", "to-file");
    tree.link("a/b", "to-folder");
    tree.link("../../top", "a/b/up-and-back");
    tree.link("a/../a/./b//deep", "crooked");
    for (name, text) in [
        ("top", "top"),
        ("a/b/deep", "deep"),
        ("to-file", "top"),
        ("to-folder/deep", "deep"),
        ("to-folder/up-and-back", "top"),
        ("crooked", "deep"),
    ] {
        assert_eq!(tree.read(name).unwrap(), text, "{name}");
    }
}

#[test]
fn nothing_leads_out_of_the_root() {
    let tree = tree();
    let canary = tree.dir.path().join("canary");
    tree.link("../canary", "relative");
    tree.link(canary.to_str().unwrap(), "absolute");
    tree.link("..", "parent");
    tree.link("a/b/../../../canary", "around");
    tree.link("/", "slash");
    tree.link("relative", "chained");
    let proc = format!("/proc/self/cwd/{}", canary.display());
    tree.link(&proc, "magic");
    for name in ["relative", "absolute", "parent/canary", "around", "slash/etc/passwd", "chained", "magic"] {
        tree.refuses(name);
    }
    let inside = tree.dir.path().join("root/top");
    tree.link(inside.to_str().unwrap(), "absolute-inside");
    tree.refuses("absolute-inside");
}

#[test]
fn state_logs_and_staged_files_are_unreachable_even_through_links() {
    let tree = tree();
    tree.link("logs", "l");
    tree.link("state/owner", "s");
    tree.link(".oneport-1.part", "p");
    tree.link(".oneport", "o");
    for name in ["logs/log", "l/log", "state/owner", "s", "p", "o/x"] {
        tree.refuses(name);
    }
}

#[test]
fn a_trail_leads_to_what_lies_in_its_folders_and_never_into_hidden_ones() {
    let tree = tree();
    let root = tree.dir.path().join("root");
    for (file, text) in
        [("a/b/other", "other"), ("a/b/c/d", "d"), ("a/x/b/deep", "not it"), ("b/deep", "nor it")]
    {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), text).unwrap();
    }
    fs::create_dir_all(root.join("state/beneath")).unwrap();
    fs::write(root.join("state/beneath/owner"), "owner").unwrap();
    tree.link("a", "link");
    let mut trail = Trail::default();
    let mut text = |name: &str| {
        let name = FileName::parse(name.as_bytes()).unwrap();
        let file = tree.disk.open_along(&name, &mut trail)?.ok()?;
        let mut bytes = vec![0; usize::try_from(file.size()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        Some(String::from_utf8(bytes).unwrap())
    };
    for (name, there) in [
        ("a/b/deep", "deep"),
        ("a/b/other", "other"),
        ("a/b/c/d", "d"),
        ("top", "top"),
        ("a/b/deep", "deep"),
        ("a/x/b/deep", "not it"),
        ("b/deep", "nor it"),
        ("a/b/c/d", "d"),
    ] {
        assert_eq!(text(name).as_deref(), Some(there), "{name}");
        for hidden in ["state/owner", "state/beneath/owner", "logs/log"] {
            assert_eq!(text(hidden), None, "{hidden} after {name}");
        }
        assert_eq!(text("a/b/missing"), None);
        assert_eq!(text("a/b"), None, "a folder of the trail is no file");
    }
}

#[test]
fn each_trail_finds_the_folders_as_they_are_then() {
    let tree = tree();
    let root = tree.dir.path().join("root");
    let name = FileName::parse(b"a/b/deep").unwrap();
    tree.trail_to("a/b/deep");
    // The hidden folder takes the place of one that was walked through.
    fs::rename(root.join("a"), root.join("old")).unwrap();
    fs::rename(root.join("state"), root.join("a")).unwrap();
    fs::create_dir(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/deep"), "the server's own").unwrap();
    symlink("a", root.join("state")).unwrap();
    let told = tree.disk.open_along(&name, &mut Trail::default());
    assert!(!matches!(told, Some(Ok(_))), "it is hidden by what it is");
    // The root is replaced.
    fs::rename(&root, tree.dir.path().join("old-root")).unwrap();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/b/deep"), "another root").unwrap();
    assert_eq!(tree.read("a/b/deep").unwrap(), "another root");
    tree.trail_to("a/b/deep");
}

#[test]
fn a_hidden_folder_stays_hidden_when_it_is_made_anew() {
    let tree = tree();
    let logs = tree.dir.path().join("root/logs");
    fs::rename(&logs, tree.dir.path().join("old-logs")).unwrap();
    fs::create_dir(&logs).unwrap();
    fs::write(logs.join("log"), "new").unwrap();
    tree.refuses("logs/log");
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    let tree = tree();
    let fifo = tree.dir.path().join("root/fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.dir.path().join("root/socket")).unwrap();
    for name in ["fifo", "socket", "a", "a/b", "missing", "top/below", "missing/below"] {
        tree.refuses(name);
    }
}

#[test]
fn a_loop_of_links_ends() {
    let tree = tree();
    tree.link("loop-b", "loop-a");
    tree.link("loop-a", "loop-b");
    tree.refuses("loop-a");
    tree.link("a/self/..", "a/self");
    tree.refuses("a/self/deep");
}

#[test]
fn a_root_within_a_hidden_folder_is_refused_at_once() {
    let tree = tree();
    let state = tree.dir.path().join("root/state");
    assert!(LocalDisk::new(&state, &[&state]).is_err());
    assert!(LocalDisk::new(&tree.dir.path().join("root/a/b"), &[&tree.dir.path().join("root/a")]).is_err());
}

#[test]
fn an_open_file_tells_whether_its_bytes_changed_but_not_that_it_was_unlinked() {
    let tree = tree();
    let path = tree.dir.path().join("root/top");
    let name = FileName::parse(b"top").unwrap();
    let file = tree.disk.open(&name).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(file.is_unchanged().unwrap());
    fs::write(&path, "second").unwrap();
    assert!(file.is_unchanged().unwrap(), "another file of that name is not a change");

    let file = tree.disk.open(&name).unwrap();
    fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(3).unwrap();
    assert!(!file.is_unchanged().unwrap());
}

#[test]
fn what_is_in_memory_is_opened_and_read_without_waiting() {
    let tree = tree();
    for name in ["top", "a/b/deep"] {
        let name = FileName::parse(name.as_bytes()).unwrap();
        tree.disk.open(&name).unwrap();
        let file = tree.disk.open_now(&name).expect("a file that was just written is in memory").unwrap();
        let mut bytes = [0; 3];
        assert_eq!(file.read_now(&mut bytes, 0).unwrap(), Some(3));
        assert!(file.is_warm(0, file.size()));
    }
}

#[test]
fn the_survey_names_large_files_that_may_be_served_and_no_others() {
    let tree = tree();
    let root = tree.dir.path().join("root");
    for name in
        ["logs/large", "state/large", ".oneport/large", ".oneport-2.part", "a/b/large", "large", "../large"]
    {
        fs::write(root.join(name), vec![0; 100]).unwrap();
    }
    tree.link("large", "link");
    tree.link("../large", "out");
    tree.link("..", "up");
    let mut found = tree.disk.large_files(100, 10).unwrap();
    found.sort();
    assert_eq!(found, [b"a/b/large".as_slice(), b"large"].map(|name| FileName::parse(name).unwrap()));
    assert_eq!(tree.disk.large_files(100, 1).unwrap().len(), 1);
    assert!(tree.disk.large_files(101, 10).unwrap().is_empty());
}
