use std::fs;
use std::path::PathBuf;

use super::*;
use crate::catalog::Forgetful;
use crate::fileops;
use crate::service::{Access, Event, Observer};
use crate::storage::local::LocalDisk;

struct Deaf;

impl Observer for Deaf {
    fn observe(&self, _: &Event<'_>) {}
}

/// A served folder with one file.
struct Site {
    dir: tempfile::TempDir,
    service: Service,
}

impl Site {
    fn new(bytes: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/f"), bytes).unwrap();
        let service = Service::new(LocalDisk::new(dir.path(), &[]).unwrap(), Forgetful, Deaf, Access::open());
        Self { dir, service }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("sub/f")
    }

    fn file(&self) -> StoredFile {
        StoredFile::new(fs::File::open(self.path()).unwrap()).unwrap().unwrap()
    }
}

fn permit() -> Permit {
    Permit::unchecked("10.0.0.1:1", "sub/f")
}

fn at(file: &StoredFile, bytes: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
    file.read_at(bytes, offset).map(Some)
}

#[tokio::test]
async fn a_small_file_is_described_as_an_open_version_of_it_is() {
    for size in [0, 1, 4096, usize::try_from(SMALL_FILE_MAX).unwrap()] {
        let content = vec![b'x'; size];
        let site = Site::new(&content);
        let mut lane = Lane::default();
        let mut cold = vec![1, 2, 3];
        let told = site.service.read_cold(&permit(), SMALL_FILE_MAX, &mut cold).unwrap();
        let Reading::Whole(beside) = told else { panic!("{size} bytes are not small") };
        let told = site.service.read_now(&permit(), SMALL_FILE_MAX, &mut lane).unwrap();
        let version = site.service.open_version(&permit(), None, None, None).await.unwrap();
        // Where the system cannot tell what is in memory, nothing is.
        let now = if let Reading::Whole(now) = told { now } else { beside };
        for small in [beside, now] {
            assert_eq!((small.size, small.modified), (version.size(), version.modified()));
            assert_eq!((small.mode, small.token), (version.mode(), version.token()));
            assert_eq!(small.root, version.tree().unwrap().root());
        }
        assert_eq!(cold, content);
        assert!(lane.bytes() == content || matches!(told, Reading::Cold));
    }
}

#[test]
fn what_is_larger_than_it_may_be_is_only_opened() {
    for (size, most) in [(SMALL_FILE_MAX + 1, u64::MAX), (10, 9)] {
        let site = Site::new(&vec![0; usize::try_from(size).unwrap()]);
        let told = site.service.read_cold(&permit(), most, &mut Vec::new()).unwrap();
        assert!(matches!(told, Reading::Open(file) if file.size() == size));
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_taken_for_what_it_was() {
    const SIZE: usize = 5000;
    let old = [b'o'; SIZE];
    type Change = fn(&std::path::Path);
    let changes: [(&str, Change); 4] = [
        ("other bytes", |path| fs::write(path, [b'n'; SIZE]).unwrap()),
        ("more of them", |path| fs::write(path, [b'o'; SIZE + 1]).unwrap()),
        ("fewer", |path| fs::write(path, [b'o'; SIZE - 1]).unwrap()),
        ("none", |path| fs::write(path, b"").unwrap()),
    ];
    for (what, change) in changes {
        for is_behind in [false, true] {
            let site = Site::new(&old);
            // A clock that is coarse would hide a change at once.
            let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
            fs::File::options().write(true).open(site.path()).unwrap().set_modified(long_ago).unwrap();
            let changing = |file: &StoredFile, bytes: &mut [u8], offset: u64| {
                if offset == 0 && !is_behind {
                    let told = at(file, &mut bytes[..SIZE / 2], offset);
                    change(&site.path());
                    return told;
                }
                let told = at(file, bytes, offset);
                change(&site.path());
                told
            };
            let told = Roots::default().read(site.file(), SMALL_FILE_MAX, now(), &mut Vec::new(), changing);
            assert!(matches!(told, Ok(Reading::Open(_))), "{what}, behind the last byte: {is_behind}");
        }
    }
    let mut bytes = Vec::new();
    let site = Site::new(&old);
    let file = site.file();
    fs::remove_file(site.path()).unwrap();
    assert!(
        matches!(Roots::default().read(file, SMALL_FILE_MAX, now(), &mut bytes, at), Ok(Reading::Whole(_))),
        "it is only unlinked"
    );
}

#[test]
fn what_cannot_be_read_or_would_have_to_be_waited_for_is_said() {
    let site = Site::new(b"content");
    let broken = |_: &StoredFile, _: &mut [u8], _| Err(io::Error::other("a broken disk"));
    let told = Roots::default().read(site.file(), SMALL_FILE_MAX, now(), &mut Vec::new(), broken);
    assert!(matches!(told, Err(ServiceError::Unavailable(_))));
    let cold = |file: &StoredFile, bytes: &mut [u8], offset| {
        if offset > 0 { Ok(None) } else { at(file, &mut bytes[..1], offset) }
    };
    assert!(matches!(
        Roots::default().read(site.file(), SMALL_FILE_MAX, now(), &mut Vec::new(), cold),
        Ok(Reading::Cold)
    ));
    fs::remove_file(site.path()).unwrap();
    let told = site.service.read_cold(&permit(), SMALL_FILE_MAX, &mut Vec::new());
    assert!(matches!(told, Err(ServiceError::Refused(_))));
}

#[test]
fn a_root_is_remembered_of_a_version_that_was_quiet_and_of_no_other() {
    let site = Site::new(b"content");
    let (roots, mut bytes) = (Roots::default(), Vec::new());
    let mut told = |began, content: &[u8]| {
        // What is remembered is not hashed, so other bytes show it.
        let reading = |_: &StoredFile, bytes: &mut [u8], _| {
            bytes.copy_from_slice(content);
            Ok(Some(content.len()))
        };
        match roots.read(site.file(), SMALL_FILE_MAX, began, &mut bytes, reading) {
            Ok(Reading::Whole(small)) => small.root,
            _ => panic!("it is small"),
        }
    };
    let quiet = (now().0 + 10, 0);
    assert_eq!(told(now(), b"another"), Root::of(b"another"), "it was written a moment ago");
    assert_eq!(told(quiet, b"content"), Root::of(b"content"), "nothing was remembered yet");
    assert_eq!(told(quiet, b"another"), Root::of(b"content"));
    // Its time stays, that of the change of its attributes does not.
    let modified = site.file().modified();
    fs::write(site.path(), b"changed").unwrap();
    fileops::set_modified(&fs::File::options().write(true).open(site.path()).unwrap(), modified).unwrap();
    assert_eq!(told(quiet, b"changed"), Root::of(b"changed"));
}
