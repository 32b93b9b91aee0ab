//! Trees of files: made where a server serves, and compared with what a client has made of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::harness::Place;
use crate::raw::noise;
use crate::serving::{Server, Site};

/// How a client's hidden files begin.
const HIDDEN: &str = ".oneport";

/// What a file or folder is like: its mode, its time, and the bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    mode: u32,
    modified: (i64, i64),
    bytes: Option<Vec<u8>>,
}

impl Facts {
    pub(crate) fn is_file(&self) -> bool {
        self.bytes.is_some()
    }

    /// Whether both are files with the same bytes.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        self.is_file() && self.bytes == other.bytes
    }
}

pub(crate) type Tree = BTreeMap<Vec<u8>, Facts>;

/// What is beneath a folder, as a client should have it: links to files as files, other links only if they
/// are followed, nothing that leads out.
pub(crate) fn tree(root: &Path, follows: bool) -> Tree {
    let mut found = Tree::new();
    walk(&root.canonicalize().unwrap(), root, b"", follows, &mut found);
    found
}

fn walk(root: &Path, folder: &Path, above: &[u8], follows: bool, found: &mut Tree) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, is_link) = (entry.path(), entry.file_type().unwrap().is_symlink());
        let Ok(real) = path.canonicalize() else { continue };
        if !real.starts_with(root) || (is_link && real.is_dir() && !follows) {
            continue;
        }
        let name = [above, entry.file_name().as_bytes()].concat();
        let told = fs::metadata(&path).unwrap();
        let bytes = told.is_file().then(|| fs::read(&path).unwrap());
        let modified = (told.mtime(), told.mtime_nsec());
        found.insert(name.clone(), Facts { mode: told.mode() & 0o777 & !umask(), modified, bytes });
        if told.is_dir() {
            walk(root, &path, &[&name, &b"/"[..]].concat(), follows, found);
        }
    }
}

/// The permission bits that nothing gets here.
pub(crate) fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(mask.trim(), 8).unwrap()
}

/// Checks that a client has what is served, and nothing else: names, bytes, times and modes.
#[track_caller]
pub(crate) fn assert_same(served: &Path, here: &Path) {
    let told = differs(&tree(served, false), &tree(here, false));
    assert_eq!(told, None, "{} and {}", served.display(), here.display());
}

/// What is not the same in two trees.
pub(crate) fn differs(served: &Tree, here: &Tree) -> Option<String> {
    let shown = |name: &[u8]| oneport::text::shown(name).to_string();
    for (name, facts) in served {
        let Some(found) = here.get(name) else { return Some(format!("'{}' is missing", shown(name))) };
        if found.bytes != facts.bytes {
            let len = |facts: &Facts| facts.bytes.as_ref().map(Vec::len);
            return Some(format!("'{}' has other bytes: {:?}, {:?}", shown(name), len(facts), len(found)));
        }
        if (found.mode, found.modified) != (facts.mode, facts.modified) {
            let of = |facts: &Facts| (facts.mode, facts.modified);
            return Some(format!("'{}' is {:?} and not {:?}", shown(name), of(found), of(facts)));
        }
    }
    here.keys().find(|name| !served.contains_key(*name)).map(|name| format!("'{}' is too much", shown(name)))
}

/// Whether something that a client hides lies anywhere in its working folder.
pub(crate) fn hidden(place: &Place) -> Vec<String> {
    place.tree().into_iter().filter(|name| name.contains(HIDDEN)).collect()
}

/// The same tree without what folders are like: those that an earlier run has made in an existing one
/// keep what they had then.
pub(crate) fn without_folders(mut tree: Tree) -> Tree {
    for facts in tree.values_mut().filter(|facts| !facts.is_file()) {
        *facts = Facts { mode: 0, modified: (0, 0), bytes: None };
    }
    tree
}

/// Sets a file's or folder's time and mode.
pub(crate) fn dress(path: &Path, mode: u32, nanoseconds: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, nanoseconds);
    fs::File::open(path).unwrap().set_modified(at).unwrap();
}

/// Something of everything that a tree may hold.
pub(crate) fn everything(site: &Site) {
    const MIB: usize = 1 << 20;
    let sizes = [0, 1, 4096, 65_536, 65_537, MIB, MIB + 1, 5 * MIB];
    for (seed, (folder, size)) in
        ["", "a/", "a/b c/", "deep/er/and/er/"].iter().cycle().zip(sizes).enumerate()
    {
        let path = site.file(format!("{folder}f{size}"), &noise(seed as u64, size));
        dress(&path, [0o644, 0o4755, 0o2600, 0o444][seed % 4], [1, 999_999_999, 0, 123][seed % 4]);
    }
    for odd in [&b"a/\xff\xfe"[..], b"new\nline", b"a/\x1b[2J\x07", b" ", b"a/ends\\", b"%41", "ü".as_bytes()]
    {
        site.file(OsStr::from_bytes(odd), odd);
    }
    for folder in ["void", "void2/inner"] {
        fs::create_dir_all(site.root(folder)).unwrap();
    }
    for (name, size) in [("a/small-holes", MIB / 2), ("large-holes", 9 * MIB)] {
        let path = site.file(name, b"");
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(size as u64).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", size as u64 / 2).unwrap();
    }
    for (target, link) in [
        ("a/f1", "to-file"),
        ("a", "to-folder"),
        ("/etc/passwd", "out"),
        ("nowhere", "a/dangling"),
        ("..", "a/up"),
    ] {
        symlink(target, site.root(link)).unwrap();
    }
    dress(&site.root("void"), 0o1750, 5);
    dress(&site.root("a/b c"), 0o755, 6);
}

/// How often a server has sent a file so far.
pub(crate) fn sent(server: &Server) -> usize {
    server.log().lines().filter(|line| is_sending(line)).count()
}

/// Whether a line of a log says that a file is sent.
pub(crate) fn is_sending(line: &str) -> bool {
    line.contains(" Sent '") || line.contains("Sending file '")
}
