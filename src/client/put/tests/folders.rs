//! Whole folders are put: small and large files, folders, links, and what cannot be put.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::client::{FolderPut, Selection, put_folder};
use crate::patterns::{Pattern, Patterns, Verdict};

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn all() -> Selection {
    Selection { recursive: true, itself: true, ..Selection::default() }
}

async fn put_all(
    puller: &Puller,
    dir: &Path,
    name: &[u8],
    selection: &Selection,
    settings: &Settings,
) -> (Result<FolderPut, FetchError>, Vec<String>) {
    let notes = Notes::default();
    let stop = CancellationToken::new();
    let put = put_folder(&puller.server(), dir, name, selection, settings, &notes, &stop).await;
    (put, notes.all())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_there_with_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (content(1000), content(3 * MIB + 7));
    write(dir.path(), "a", &small);
    write(dir.path(), "sub/deep/b", &large);
    write(dir.path(), "sub/none", b"");
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    std::fs::set_permissions(dir.path().join("empty"), PermissionsExt::from_mode(0o710)).unwrap();
    for links in [1, 2] {
        let puller = Puller::start(Script::default()).await;
        let settings = Settings { links, ..settings() };
        let (put, notes) = put_all(&puller, dir.path(), b"top", &all(), &settings).await;
        let put = put.unwrap();
        assert_eq!((put.files, put.bytes, put.folders), (3, (1000 + large.len()) as u64, 4));
        assert_eq!((put.failed, put.skipped, put.unchanged), (0, 0, 0));
        assert_eq!(puller.names(), ["top/a", "top/sub/deep/b", "top/sub/none"]);
        assert!(puller.stored(b"top/sub/deep/b").is_some_and(|there| there == large));
        let folders: Vec<_> = puller.folders().into_iter().map(|(name, _)| name).collect();
        assert_eq!(folders, ["top", "top/empty", "top/sub", "top/sub/deep"]);
        assert_eq!(puller.folders()[1].1, 0o710);
        let done = notes.iter().filter(|note| note.starts_with("done")).count();
        assert_eq!(done, 3, "{notes:?}");
        // The root of a server has no name of its own.
        let puller = Puller::start(Script::default()).await;
        put_all(&puller, dir.path(), b"", &all(), &settings).await.0.unwrap();
        assert_eq!(puller.names(), ["a", "sub/deep/b", "sub/none"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_file_is_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    for index in 0..50 {
        write(dir.path(), &format!("f{index}"), &content(index));
    }
    write(dir.path(), "large", &content(2 * MIB));
    write(dir.path(), "x/.oneport-1.part", b"reserved");
    symlink("nowhere", dir.path().join("broken")).unwrap();
    let refuses = vec![
        ("f7".into(), Code::Exists, "there is something of this name already"),
        ("large".into(), Code::Limit, "it is larger than this server takes"),
    ];
    let puller = Puller::start(Script { refuses, ..Script::default() }).await;
    let (put, notes) = put_all(&puller, dir.path(), b"", &all(), &settings()).await;
    let put = put.unwrap();
    assert_eq!((put.files, put.failed), (49, 4), "{notes:?}");
    let failed: Vec<_> = notes.iter().filter(|note| note.starts_with("failed")).collect();
    for (failed, says) in failed.iter().zip(["broken", "f7: ", "large: ", "x/.oneport-1.part: "]) {
        assert!(failed.contains(says), "{failed}");
    }
    assert_eq!(puller.names().len(), 49);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_to_folders_are_followed_only_if_asked_for_and_never_in_a_circle() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(other.path(), "beyond", b"beyond");
    write(dir.path(), "a/file", b"file");
    symlink(other.path(), dir.path().join("a/link")).unwrap();
    symlink(dir.path(), dir.path().join("a/circle")).unwrap();
    symlink("file", dir.path().join("a/same")).unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let puller = Puller::start(Script::default()).await;
    let (put, notes) = put_all(&puller, dir.path(), b"", &all(), &settings()).await;
    assert_eq!(put.unwrap().skipped, 3);
    assert_eq!(puller.names(), ["a/file", "a/same"]);
    for note in ["skipped a/circle", "skipped a/link", "special pipe"] {
        assert!(notes.iter().any(|noted| noted == note), "{notes:?}");
    }
    let puller = Puller::start(Script::default()).await;
    let selection = Selection { follow_links: true, ..all() };
    let (put, notes) = put_all(&puller, dir.path(), b"", &selection, &settings()).await;
    assert_eq!(put.unwrap().skipped, 2, "{notes:?}");
    assert_eq!(puller.names(), ["a/file", "a/link/beyond", "a/same"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_choose_what_is_put() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.txt", "b.bin", "sub/c.txt", "left/out.txt"] {
        write(dir.path(), name, b"x");
    }
    let pattern = |verdict, text: &'static str| Pattern::parse(verdict, text.into()).unwrap();
    let patterns = vec![pattern(Verdict::Exclude, "*.bin"), pattern(Verdict::Exclude, "left")];
    let selection = Selection { patterns: Patterns::new(patterns).unwrap(), ..all() };
    let puller = Puller::start(Script::default()).await;
    let (put, _) = put_all(&puller, dir.path(), b"", &selection, &settings()).await;
    assert_eq!(put.unwrap().files, 2);
    assert_eq!(puller.names(), ["a.txt", "sub/c.txt"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broken_connection_did_not_answer_is_offered_again_as_the_same_upload() {
    let dir = tempfile::tempdir().unwrap();
    for index in 0..300 {
        write(dir.path(), &format!("f{index:03}"), &content(index));
    }
    let puller = Puller::start(Script { cut_after: vec![20, 100, 1], ..Script::default() }).await;
    let (put, notes) = put_all(&puller, dir.path(), b"", &all(), &with_retries_of(2)).await;
    assert_eq!((put.unwrap().files, puller.names().len()), (300, 300));
    assert_eq!(notes.iter().filter(|note| note.starts_with("again")).count(), 3, "{notes:?}");
    let puts = puller.puts();
    assert!(puts.iter().any(|put| put.attempt > 1));
    for (index, put) in puts.iter().enumerate() {
        // Whoever takes over has to be known as the same one.
        let earlier = puts[..index].iter().filter(|earlier| earlier.name == put.name);
        for earlier in earlier {
            assert_eq!(earlier.transfer, put.transfer);
            assert!(earlier.attempt < put.attempt, "{put:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_folder_is_not_put_as_one() {
    let (dir, _, _) = local(1);
    let puller = Puller::start(Script::default()).await;
    let (put, _) = put_all(&puller, &dir.path().join("local"), b"", &all(), &settings()).await;
    assert!(matches!(put, Err(FetchError::NotALocalFolder { .. })), "{put:?}");
    let (put, _) = put_all(&puller, &dir.path().join("missing"), b"", &all(), &settings()).await;
    assert!(matches!(put, Err(FetchError::Unreadable { .. })), "{put:?}");
}
