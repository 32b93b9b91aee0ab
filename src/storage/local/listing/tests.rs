use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::patterns::{Pattern, Patterns, Verdict};
use crate::storage::Storage as _;

/// A served folder.
struct Tree {
    dir: tempfile::TempDir,
    disk: LocalDisk,
}

fn tree(files: &[&str]) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for folder in ["state", "logs"] {
        fs::create_dir_all(root.join(folder)).unwrap();
        fs::write(root.join(folder).join("own"), "").unwrap();
    }
    for file in files.iter().chain(&["../canary", ".oneport/owner", ".oneport-1.part"]) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    let disk = LocalDisk::new(&root, &[&root.join("logs"), &root.join("state")]).unwrap();
    Tree { dir, disk }
}

fn everything() -> Selection {
    Selection { recursive: true, ..Selection::default() }
}

fn following() -> Selection {
    Selection { follow_links: true, ..everything() }
}

impl Tree {
    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    fn link(&self, target: &str, link: &str) {
        symlink(target, self.root().join(link)).unwrap();
    }

    /// All stretches, each from the cursor of the one before; each name once.
    #[track_caller]
    fn list(&self, folder: &str, selection: &Selection) -> BTreeMap<String, Kind> {
        let name = (!folder.is_empty()).then(|| FileName::parse(folder.as_bytes()).unwrap());
        let mut found = BTreeMap::new();
        let mut cursor = Bytes::new();
        loop {
            let stretch = self.disk.list(name.as_ref(), selection, &cursor).unwrap();
            for entry in stretch.entries {
                entry.check_name().unwrap();
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                let parent = name.rsplit_once('/').map(|(parent, _)| parent);
                assert!(parent.is_none_or(|parent| found.contains_key(parent)), "{name} before its folder");
                assert!(found.insert(name.clone(), entry.kind).is_none(), "{name} twice");
            }
            cursor = stretch.cursor;
            if stretch.is_last {
                let again = self.disk.list(name.as_ref(), selection, &cursor).unwrap();
                assert!(again.is_last && again.entries.is_empty(), "the end is the end");
                return found;
            }
        }
    }

    #[track_caller]
    fn lists(&self, folder: &str, selection: &Selection, expected: &[(&str, Kind)]) {
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        assert_eq!(self.list(folder, selection), expected);
    }
}

#[test]
fn the_folder_itself_comes_first_and_once_if_it_is_asked_for() {
    let tree = tree(&["d/a", "d/b"]);
    let selection = Selection { itself: true, ..everything() };
    for (folder, has) in [("d", 3), ("", 4), ("d/a", 1)] {
        let name = (!folder.is_empty()).then(|| FileName::parse(folder.as_bytes()).unwrap());
        let first = tree.disk.list(name.as_ref(), &selection, &[]).unwrap().entries.swap_remove(0);
        assert!(first.name.is_empty(), "{folder}");
        assert_eq!(first.kind, if folder == "d/a" { Kind::File } else { Kind::Folder });
        assert_eq!(tree.list(folder, &selection).len(), has, "{folder}");
    }
}

#[test]
fn files_and_folders_are_listed_and_nothing_of_the_servers_own() {
    use Kind::*;
    let tree = tree(&["top", "a/b/deep", "a/.oneport-2.journal", "a/.ONEPORT/x"]);
    fs::write(tree.root().join(OsStr::from_bytes(b"\xff\xfe")), "").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, tree.root().join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    tree.lists("", &Selection::default(), &[("top", File), ("a", Folder), ("\u{fffd}\u{fffd}", File)]);
    tree.lists(
        "",
        &everything(),
        &[("top", File), ("a", Folder), ("a/b", Folder), ("a/b/deep", File), ("\u{fffd}\u{fffd}", File)],
    );
    tree.lists("a", &everything(), &[("b", Folder), ("b/deep", File)]);
    tree.lists("a/b/deep", &everything(), &[("", File)]);
    for hidden in ["logs", "state", "missing", "top/below"] {
        let name = FileName::parse(hidden.as_bytes()).unwrap();
        let refused = tree.disk.list(Some(&name), &everything(), b"");
        assert!(
            matches!(refused, Err(ListError::Open(OpenError::NotFound | OpenError::Refused(_)))),
            "{hidden}"
        );
    }
}

#[test]
fn links_are_listed_as_what_may_be_opened_through_them() {
    use Kind::*;
    let tree = tree(&["top", "a/b/deep"]);
    for (target, link) in [
        ("a/b/deep", "to-file"),
        ("a", "to-folder"),
        ("../canary", "out"),
        ("..", "up"),
        ("/etc", "absolute"),
        ("missing", "broken"),
        ("logs", "to-logs"),
        ("logs/own", "to-log"),
        ("self", "self"),
    ] {
        tree.link(target, link);
    }
    let plain = [("top", File), ("a", Folder), ("a/b", Folder), ("a/b/deep", File), ("to-file", File)];
    tree.lists("", &everything(), &[&plain[..], &[("to-folder", Link)]].concat());
    let through = [("to-folder", Folder), ("to-folder/b", Folder), ("to-folder/b/deep", File)];
    tree.lists("", &following(), &[&plain[..], &through].concat());
    tree.lists("to-folder", &everything(), &[("b", Folder), ("b/deep", File)]);
}

#[test]
fn a_folder_within_itself_ends_there() {
    use Kind::*;
    let tree = tree(&["a/b/deep"]);
    tree.link("../..", "a/b/root");
    tree.link("..", "a/b/parent");
    tree.link(".", "a/b/self");
    tree.lists(
        "",
        &following(),
        &[
            ("a", Folder),
            ("a/b", Folder),
            ("a/b/deep", File),
            ("a/b/root", Link),
            ("a/b/parent", Link),
            ("a/b/self", Link),
        ],
    );
    tree.lists("a/b", &following(), &[("deep", File), ("root", Link), ("parent", Link), ("self", Link)]);
}

#[test]
fn no_more_than_eight_links_are_followed_in_one_name() {
    let tree = tree(&["f0/file"]);
    for index in 1..=12 {
        let folder = tree.root().join(format!("f{index}"));
        fs::create_dir(&folder).unwrap();
        symlink(format!("../f{}", index - 1), folder.join("next")).unwrap();
    }
    let found = tree.list("f12", &following());
    let links = |name: &str| name.matches("next").count();
    assert_eq!(found.keys().map(|name| links(name)).max(), Some(9));
    assert!(found.iter().all(|(name, kind)| (*kind == Kind::Link) == (links(name) == 9)));
}

#[test]
fn an_excluded_folder_is_not_looked_into() {
    let tree = tree(&["a/x.o", "a/x.c", "b/a/y.c", "c/y.o"]);
    let of = |patterns: &[(Verdict, &'static str)]| {
        let parse =
            |(verdict, source): &(Verdict, &'static str)| Pattern::parse(*verdict, (*source).into()).unwrap();
        let patterns = Patterns::new(patterns.iter().map(parse).collect()).unwrap();
        tree.list("", &Selection { patterns, ..everything() }).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(of(&[(Verdict::Exclude, "a")]), ["b", "c", "c/y.o"]);
    assert_eq!(of(&[(Verdict::Exclude, "**/*.o"), (Verdict::Exclude, "b/**")]), ["a", "a/x.c", "b", "c"]);
    assert_eq!(
        of(&[(Verdict::Include, "c"), (Verdict::Include, "y.o"), (Verdict::Exclude, "*")]),
        ["c", "c/y.o"]
    );
}

#[test]
fn a_large_folder_comes_in_stretches_that_fit_into_a_frame() {
    let tree = tree(&[]);
    for index in 0..5000 {
        fs::write(tree.root().join(format!("{index:050}")), "").unwrap();
        if index % 1000 == 0 {
            fs::create_dir(tree.root().join(format!("folder{index}"))).unwrap();
            fs::write(tree.root().join(format!("folder{index}/in-it")), "").unwrap();
        }
    }
    let first = tree.disk.list(None, &everything(), b"").unwrap();
    let bytes: usize = first.entries.iter().map(Entry::wire_len).sum();
    assert!(!first.is_last && (LIST_STRETCH..LIST_STRETCH + 5000).contains(&bytes), "{bytes}");
    assert_eq!(tree.list("", &everything()).len(), 5010);
}

#[test]
fn what_vanishes_or_comes_between_two_stretches_disturbs_nothing_else() {
    let tree = tree(&[]);
    for folder in 0..30 {
        for file in 0..40 {
            let path = tree.root().join(format!("f{folder}/{file}{}", "x".repeat(60)));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }
    let first = tree.disk.list(None, &everything(), b"").unwrap();
    let last = String::from_utf8(first.entries.last().unwrap().name.to_vec()).unwrap();
    let standing = last.split('/').next().unwrap();
    for vanishes in ["removed", "a file", "a link"] {
        let path = tree.root().join(standing);
        let _ = fs::remove_dir_all(&path);
        let _ = fs::remove_file(&path);
        match vanishes {
            "a file" => fs::write(&path, "").unwrap(),
            "a link" => symlink("..", &path).unwrap(),
            _ => {}
        }
        let mut names: Vec<_> = first.entries.iter().map(|entry| entry.name.clone()).collect();
        let (mut cursor, mut is_last) = (first.cursor.clone(), false);
        while !is_last {
            let stretch = tree.disk.list(None, &everything(), &cursor).unwrap();
            names.extend(stretch.entries.iter().map(|entry| entry.name.clone()));
            (cursor, is_last) = (stretch.cursor, stretch.is_last);
        }
        names.retain(|name| {
            !name.starts_with(standing.as_bytes())
                || name.get(standing.len()).is_some_and(|b| !b"/".contains(b))
        });
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!((count, names.len()), (29 * 41, 29 * 41), "{vanishes}");
    }
}

#[test]
fn a_cursor_leads_nowhere_that_may_not_be_listed() {
    let tree = tree(&["a/b/deep"]);
    tree.link("../..", "a/b/root");
    tree.link("..", "up");
    let cursor = |names: &[&str]| {
        let place = |name: &&str| Position::beginning_of(name.as_bytes().to_vec());
        Cursor::Within(names.iter().map(place).collect()).to_bytes()
    };
    let names = |cursor: &[u8], selection: &Selection| {
        let stretch = tree.disk.list(None, selection, cursor).unwrap();
        stretch.entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
    };
    let whole = names(b"", &following());
    for hostile in
        [&["", "logs"][..], &["", "up"], &["", "a", "b", "root"], &["", "missing"], &["", "a", "b", "deep"]]
    {
        for name in names(&cursor(hostile), &following()) {
            assert!(whole.contains(&name), "{hostile:?}: {name:?}");
        }
    }
    assert!(matches!(
        tree.disk.list(None, &Selection::default(), &cursor(&["", "a"])),
        Err(ListError::Cursor)
    ));
    for offset in [1, 7, 1 << 31, u64::MAX >> 1, u64::MAX] {
        let cursor = Cursor::Within(vec![Position { name: Vec::new(), offset }]).to_bytes();
        match tree.disk.list(None, &everything(), &cursor) {
            Ok(stretch) => assert!(stretch.entries.iter().all(|entry| whole.contains(&entry.name))),
            Err(error) => assert!(matches!(error, ListError::Cursor), "{error}"),
        }
    }
}

#[test]
fn what_lies_too_deep_to_be_asked_for_is_said_to_be_closed() {
    let tree = tree(&[]);
    let path = Path::new("d").components().cycle().take(DEPTH_MAX + 3).collect::<std::path::PathBuf>();
    fs::create_dir_all(tree.root().join(path)).unwrap();
    let found = tree.list("", &everything());
    assert_eq!(found.len(), DEPTH_MAX);
    assert_eq!(found.values().filter(|kind| **kind == Kind::Closed).count(), 1);
    assert_eq!(tree.list("d/d", &everything()).len(), DEPTH_MAX - 2);
}

#[test]
fn size_time_and_mode_are_told_and_holes_are_seen() {
    use std::os::unix::fs::PermissionsExt as _;
    let tree = tree(&["plain"]);
    let file = fs::File::create(tree.root().join("holes")).unwrap();
    file.set_len(1 << 20).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o4640)).unwrap();
    tree.link("holes", "link");
    let stretch = tree.disk.list(None, &everything(), b"").unwrap();
    let of = |name: &str| stretch.entries.iter().find(|entry| entry.name == name).unwrap();
    for name in ["holes", "link"] {
        assert_eq!((of(name).sparse, of(name).size, of(name).mode), (true, 1 << 20, 0o640));
    }
    assert_eq!((of("plain").sparse, of("plain").size), (false, 5));
    assert!(of("plain").modified.0 > 1_700_000_000);
}
