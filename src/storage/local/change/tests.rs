//! What is changed beneath the root, and that nothing else is.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::limits::DEPTH_MAX;
use crate::staged::{Attributes, Held, Part, Replace, Source, StageError, StagedFile};
use crate::storage::{Removed, Storage};
use crate::tree::{BlockHash, BlockSet, Root};

#[path = "tests/disk.rs"]
mod disk;
#[path = "tests/flushes.rs"]
mod flushes;
#[path = "tests/races.rs"]
mod races;
#[path = "tests/sweeps.rs"]
mod sweeps;

const TIME: (i64, u32) = (1_000_000_000, 5);

/// A root with some files, the server's own folders in it, and a folder outside.
struct Site {
    dir: tempfile::TempDir,
    disk: LocalDisk,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        for folder in ["root/a/b", "root/own/state", "root/.oneport", "outside/b/c"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for (file, text) in [
            ("root/top", "top"),
            ("root/a/b/deep", "deep"),
            ("root/own/state/owner", "owner"),
            ("root/.oneport/x", "x"),
            ("outside/canary", "canary"),
            ("outside/b/f", "canary"),
            ("outside/b/c/f", "canary"),
        ] {
            fs::write(dir.path().join(file), text).unwrap();
        }
        let disk = LocalDisk::new(&root, &[&root.join("own/state"), &root.join("logs")]).unwrap();
        Self { dir, disk }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn link(&self, target: &str, name: &str) {
        symlink(target, self.path(name)).unwrap();
    }

    fn place(&self, at: &str) -> Result<Place, ChangeError> {
        self.disk.place(&name(at))
    }

    fn make_folder(&self, at: &str) -> Result<(), ChangeError> {
        self.disk.make_folder(&name(at))
    }

    fn remove(&self, at: &str, recursive: bool) -> Result<Removed, ChangeError> {
        self.disk.remove(&name(at), recursive)
    }

    fn rename(&self, from: &str, to: &str, replace: bool) -> Result<(), ChangeError> {
        self.disk.rename(&name(from), &name(to), replace)
    }

    /// Everything in a folder and what it holds; links as such.
    fn all(&self, folder: &str) -> BTreeMap<PathBuf, String> {
        let (mut all, mut folders) = (BTreeMap::new(), vec![self.dir.path().join(folder)]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                let text = if kind.is_dir() {
                    folders.push(path.clone());
                    "/".to_owned()
                } else if kind.is_symlink() {
                    fs::read_link(&path).unwrap().display().to_string()
                } else {
                    String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
                };
                all.insert(path.strip_prefix(self.dir.path()).unwrap().to_owned(), text);
            }
        }
        all
    }
}

fn name(name: &str) -> FileName {
    FileName::parse(name.as_bytes()).unwrap()
}

/// Begins a part of one block in a place.
fn begin(place: Place, bytes: &[u8]) -> Result<Part, StageError> {
    let mut part = Part::open_at(place, true, &mut |_, _| ControlFlow::Continue(()))?;
    let size = bytes.len() as u64;
    part.begin(&Source { size, root: Some(Root::of(bytes)), token: [3; 16] }, &BlockSet::default())?;
    part.write_at(bytes, 0)?;
    part.record(0, *BlockHash::of(size, 0, bytes).as_bytes())?;
    Ok(part)
}

fn attributes(mode: u32) -> Attributes {
    Attributes { mode, modified: TIME, sparse: false }
}

#[test]
fn a_file_gets_its_name_and_attributes_in_folders_that_were_missing() {
    let site = Site::new();
    let place = site.place("new/er/file").unwrap();
    assert_eq!(place.holds().unwrap(), None);
    begin(place, b"bytes").unwrap().commit_with(Replace::Never, &attributes(0o4640)).unwrap();
    assert_eq!(fs::read(site.path("new/er/file")).unwrap(), b"bytes");
    assert_eq!(fs::read_dir(site.path("new/er")).unwrap().count(), 1);
    let found = fs::metadata(site.path("new/er/file")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.mtime(), found.mtime_nsec()), (0o640, TIME.0, 5));
    let held = site.place("new/er/file").unwrap().holds().unwrap();
    assert_eq!(held, Some(Held::File { size: 5, modified: TIME, mode: 0o640 }));
    assert_eq!(site.place("a").unwrap().holds().unwrap(), Some(Held::Folder));
}

#[test]
fn a_name_that_is_taken_keeps_what_was_received_and_a_later_commit_replaces() {
    let site = Site::new();
    let part = begin(site.place("top").unwrap(), b"new").unwrap();
    let error = part.commit_with(Replace::Never, &attributes(0o600)).unwrap_err();
    assert!(matches!(error, StageError::Exists(_)), "{error}");
    assert_eq!(fs::read(site.path("top")).unwrap(), b"top");
    let part =
        Part::open_at(site.place("top").unwrap(), true, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(part.kept().unwrap().blocks.len(), 1);
    part.commit_with(Replace::Always, &attributes(0o600)).unwrap();
    assert_eq!(fs::read(site.path("top")).unwrap(), b"new");
    let error =
        begin(site.place("a").unwrap(), b"x").unwrap().commit_with(Replace::Always, &attributes(0o600));
    assert!(matches!(error, Err(StageError::NotAFile(_))), "{error:?}");
}

#[test]
fn a_link_is_replaced_as_such_and_removed_as_such() {
    let site = Site::new();
    site.link("top", "link");
    site.link("../outside/canary", "out");
    let before = site.all("outside");
    for at in ["link", "out"] {
        let place = site.place(at).unwrap();
        assert_eq!(place.holds().unwrap(), Some(Held::Link));
        begin(place, b"new").unwrap().commit_with(Replace::Always, &attributes(0o600)).unwrap();
        assert!(site.path(at).symlink_metadata().unwrap().is_file());
    }
    site.link("../outside", "out-folder");
    assert_eq!(site.remove("out-folder", true).unwrap(), Removed { files: 1, folders: 0, bytes: 0 });
    assert_eq!(site.all("outside"), before);
    assert_eq!(fs::read(site.path("top")).unwrap(), b"top");
}

#[test]
fn links_within_the_root_lead_to_places_and_links_out_of_it_never_do() {
    let site = Site::new();
    site.link("a/b", "in");
    StagedFile::create_at(site.place("in/x/f").unwrap(), 0).unwrap().commit(Replace::Never, true).unwrap();
    assert!(site.path("a/b/x/f").is_file());
    site.link("../outside", "out");
    site.link(site.dir.path().join("outside").to_str().unwrap(), "absolute");
    site.link("..", "up");
    site.link(".oneport", "state");
    site.link("own/state", "own-state");
    let (outside, root) = (site.all("outside"), site.all("root"));
    for at in ["out", "absolute", "up/outside", "up", "a/../../outside", "state", "own-state", "own/state"] {
        if FileName::parse(format!("{at}/b").as_bytes()).is_err() {
            continue;
        }
        for beneath in ["b", "new/f", "b/f"] {
            let at = format!("{at}/{beneath}");
            let refused = [
                site.place(&at).map(drop),
                site.make_folder(&at),
                site.remove(&at, false).map(drop),
                site.remove(&at, true).map(drop),
                site.rename(&at, "elsewhere", true),
                site.rename("top", &at, true),
                site.rename("a", &at, false),
            ];
            for (index, refused) in refused.into_iter().enumerate() {
                assert!(matches!(refused, Err(ChangeError::Open(_))), "{at}: {index}: {refused:?}");
            }
        }
    }
    assert_eq!((site.all("outside"), site.all("root")), (outside, root));
}

#[test]
fn the_servers_own_folders_are_neither_taken_nor_moved_nor_removed_nor_made() {
    let site = Site::new();
    let root = site.all("root");
    for at in ["own/state", "logs"] {
        assert!(site.place(at).is_err(), "{at}: a file of this name would stand in its way");
        assert!(site.rename("top", at, true).is_err(), "{at}");
        assert!(site.rename("a", at, false).is_err(), "{at}");
    }
    assert!(site.make_folder("logs/x").is_err());
    for at in ["own/state", "own"] {
        for recursive in [false, true] {
            let error = site.remove(at, recursive).unwrap_err();
            assert!(matches!(error, ChangeError::Open(OpenError::Refused(_))), "{at}: {error}");
        }
        assert!(site.rename(at, "moved", false).is_err(), "{at}");
    }
    assert_eq!(site.all("root"), root);
}

#[test]
fn folders_are_made_with_those_above_them_and_those_that_are_there_are_fine() {
    let site = Site::new();
    for at in ["x/y/z", "x/y/z", "x", "a/b"] {
        site.make_folder(at).unwrap();
        assert!(site.path(at).is_dir(), "{at}");
    }
    assert!(matches!(site.make_folder("top"), Err(ChangeError::Exists)));
    assert!(matches!(site.make_folder("top/x"), Err(ChangeError::Exists)));
    assert!(matches!(site.place("top/x"), Err(ChangeError::Exists)));
    site.disk.make_folder_with(&name("private"), 0o4055).unwrap();
    let mode = fs::metadata(site.path("private")).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode & 0o700, mode & !0o755), (0o700, 0), "its owner can use it, and no special bits");
    site.make_folder(&vec!["d"; DEPTH_MAX].join("/")).unwrap();
}

#[test]
fn a_folder_that_several_places_need_stays_until_the_last_one_gave_it_up() {
    let site = Site::new();
    let (first, second) = (site.place("new/er/one").unwrap(), site.place("new/er/two").unwrap());
    let third = site.place("new/three").unwrap();
    drop(first);
    assert!(site.path("new/er").is_dir(), "another one counts on it");
    drop(second);
    assert!(!site.path("new/er").exists());
    StagedFile::create_at(third, 0).unwrap().commit(Replace::Never, true).unwrap();
    assert!(site.path("new/three").is_file());
    assert_eq!(site.all("root").keys().filter(|path| path.ends_with("new")).count(), 1);
}

#[test]
fn files_and_empty_folders_are_removed_and_full_ones_only_when_that_was_asked_for() {
    let site = Site::new();
    assert_eq!(site.remove("top", false).unwrap(), Removed { files: 1, folders: 0, bytes: 3 });
    assert!(matches!(site.remove("top", false), Err(ChangeError::Open(OpenError::NotFound))));
    assert!(matches!(site.remove("a", false), Err(ChangeError::NotEmpty)));
    for index in 0..500 {
        fs::write(site.path(&format!("a/b/{index}")), "x").unwrap();
    }
    fs::create_dir(site.path("a/empty")).unwrap();
    site.link("../../outside", "a/b/out");
    let before = site.all("outside");
    assert_eq!(site.remove("a/empty", false).unwrap(), Removed { files: 0, folders: 1, bytes: 0 });
    assert_eq!(site.remove("a", true).unwrap(), Removed { files: 502, folders: 2, bytes: 504 });
    assert!(!site.path("a").exists());
    assert_eq!(site.all("outside"), before);
}

#[test]
fn a_folder_in_which_somebody_stages_is_not_removed_and_what_was_left_in_it_goes_with_it() {
    let site = Site::new();
    let part = begin(site.place("a/b/coming").unwrap(), b"bytes").unwrap();
    assert!(matches!(site.remove("a", true), Err(ChangeError::NotEmpty)));
    part.commit(Replace::Never).unwrap();
    assert_eq!(fs::read(site.path("a/b/coming")).unwrap(), b"bytes");
    drop(begin(site.place("a/b/left").unwrap(), b"bytes").unwrap());
    assert!(fs::read_dir(site.path("a/b")).unwrap().count() > 1);
    site.remove("a", true).unwrap();
    assert!(!site.path("a").exists());
}

#[test]
fn what_lies_too_deep_is_not_removed() {
    let site = Site::new();
    fs::create_dir_all(site.path(&"d/".repeat(DEPTH_MAX + 40))).unwrap();
    assert!(matches!(site.remove("d", true), Err(ChangeError::Open(OpenError::Refused(_)))));
}

#[test]
fn names_are_given_anew_and_nothing_is_lost_by_it() {
    let site = Site::new();
    site.rename("top", "new/er/top", false).unwrap();
    assert_eq!(fs::read(site.path("new/er/top")).unwrap(), b"top");
    assert!(matches!(site.rename("new/er/top", "a/b/deep", false), Err(ChangeError::Exists)));
    assert_eq!(fs::read(site.path("a/b/deep")).unwrap(), b"deep");
    site.rename("new/er/top", "a/b/deep", true).unwrap();
    assert_eq!(fs::read(site.path("a/b/deep")).unwrap(), b"top");
    site.rename("a", "moved", true).unwrap();
    assert_eq!(fs::read(site.path("moved/b/deep")).unwrap(), b"top");
    site.link("moved/b/deep", "link");
    site.rename("link", "other", false).unwrap();
    assert!(site.path("other").is_symlink());
    assert!(matches!(site.rename("missing", "x/y", true), Err(ChangeError::Open(OpenError::NotFound))));
    assert!(!site.path("x").exists(), "nothing has changed");
}

#[test]
fn a_folder_is_neither_replaced_nor_moved_into_itself() {
    let site = Site::new();
    site.make_folder("empty").unwrap();
    site.link("a/b", "in");
    let before = site.all("root");
    for (from, to) in [("top", "empty"), ("a", "empty"), ("empty", "a"), ("empty", "top")] {
        for replace in [false, true] {
            let outcome = site.rename(from, to, replace);
            assert!(matches!(outcome, Err(ChangeError::Exists)), "{from} {to}: {outcome:?}");
        }
    }
    for to in ["a/x", "a/b/x/y", "in/x", "in/x/y"] {
        let outcome = site.rename("a", to, false);
        assert!(matches!(outcome, Err(ChangeError::Open(OpenError::Refused(_)))), "{to}: {outcome:?}");
    }
    assert!(matches!(site.rename("a", "a", false), Err(ChangeError::Exists)));
    site.rename("top", "top", true).unwrap();
    assert_eq!(site.all("root"), before);
}

#[test]
fn what_is_no_file_is_left_alone() {
    let site = Site::new();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, site.path("fifo"), fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert!(site.remove("fifo", false).is_err());
    assert!(site.rename("fifo", "x", false).is_err());
    assert!(matches!(site.rename("top", "fifo", true), Err(ChangeError::Exists)));
    let outcome = begin(site.place("fifo").unwrap(), b"x").unwrap().commit(Replace::Always);
    assert!(matches!(outcome, Err(StageError::NotAFile(_))), "{outcome:?}");
}

/// Puts a link to the outside in the place of a folder.
fn swap(site: &Site, at: &str) {
    fs::rename(site.path(at), site.path("away")).unwrap();
    symlink(site.dir.path().join("outside"), site.path(at)).unwrap();
}

#[test]
fn a_place_stays_where_it_was_when_a_link_takes_the_place_of_its_folder() {
    let site = Site::new();
    let before = site.all("outside");
    let places = [site.place("a/f").unwrap(), site.place("a/g").unwrap(), site.place("a/new/h").unwrap()];
    let [first, second, third] = places;
    let begun = begin(second, b"begun").unwrap();
    swap(&site, "a");
    begin(first, b"bytes").unwrap().commit_with(Replace::Always, &attributes(0o600)).unwrap();
    begun.commit(Replace::Never).unwrap();
    drop(third);
    assert_eq!(fs::read(site.path("away/f")).unwrap(), b"bytes");
    assert_eq!(fs::read(site.path("away/g")).unwrap(), b"begun");
    assert!(!site.path("away/new").exists());
    assert_eq!(fs::read_dir(site.path("away")).unwrap().count(), 3);
    assert_eq!(site.all("outside"), before);
}
