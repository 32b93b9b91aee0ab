//! Files that are put: what is stored, when it is said to be, and who goes on with what.

use std::fs;
use std::os::unix::fs::MetadataExt;

use oneport::codec::v2::{ClientFrame, Form, Put, ServerFrame};

use crate::holders::add;
use crate::putting::{Came, Putter};
use crate::raw::{self, noise};
use crate::serving::{Signal, Site, wait_for};
use crate::v2_peer::MIB;

const EXISTS: u16 = 13;
const CHECKSUM: u16 = 32;
const CHANGED: u16 = 24;

/// A site and a key to write.
fn site() -> (Site, String) {
    let site = Site::new();
    let key = add(&site, "ann", &["--allow", "read,write,delete"]);
    (site, key)
}

fn is_clean(site: &Site) -> bool {
    !fs::read_dir(site.root(""))
        .unwrap()
        .any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(".oneport-"))
}

#[test]
fn what_is_put_is_stored_with_its_time_and_said_to_be_with_its_root() {
    let (site, key) = site();
    let server = site.serve(&[]);
    for (index, size) in [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 17, 40 * MIB].into_iter().enumerate() {
        for tells_root in [true, false] {
            let data = noise(index as u64, size);
            let mut putter = Putter::new(&server, &key, &data);
            putter.tells_root = tells_root;
            let name = format!("new/{size}-{tells_root}");
            let put = putter.put(&name, 1);
            assert_eq!(putter.offer(1, put), Came::Ended(1, Some(putter.root())), "{name}");
            let path = site.root(&name);
            assert!(fs::read(&path).unwrap() == data, "{name}");
            let found = fs::metadata(&path).unwrap();
            assert_eq!((found.mtime(), found.mtime_nsec(), found.mode() & 0o777), (1_700_000_000, 5, 0o640));
            assert_eq!(putter.sent, size, "nothing was asked for twice");
        }
    }
    let log = server.wait_log("stored for");
    assert!(log.contains("Receiving file 'new/41943040-true' (41943040 bytes) from 127.0.0.1:"), "{log}");
    assert!(log.contains("(key=ann)") && log.contains("BLAKE3"), "{log}");
}

#[test]
fn an_upload_that_was_cut_goes_on_where_it_was_also_after_the_end_of_the_server() {
    let (site, key) = site();
    let mut server = site.serve(&[]);
    let data = noise(1, 20 * MIB + 5);
    let mut sent = 0;
    for (attempt, most) in [MIB / 2, 3 * MIB + 7, 9 * MIB, usize::MAX].into_iter().enumerate() {
        let mut putter = Putter::new(&server, &key, &data);
        putter.most = most;
        let put = putter.put("f", attempt as u32);
        let came = putter.offer(1, put);
        sent += putter.sent;
        if most < usize::MAX {
            assert_eq!(came, Came::Enough);
            putter.close();
            server.wait_log_count("Upload of 'f' from", if attempt == 2 { 2 } else { attempt + 1 });
            if attempt == 1 {
                drop(server);
                fs::remove_dir_all(site.path().join("logs")).unwrap();
                server = site.serve(&[]);
                let mut putter = Putter::new(&server, &key, &data);
                putter.most = 0;
                let put = putter.put("f", 2);
                assert_eq!(putter.offer(1, put), Came::Enough);
                putter.close();
                server.wait_log_count("Upload of 'f' from", 1);
            }
        } else {
            assert_eq!(came, Came::Ended(1, Some(putter.root())));
        }
    }
    assert!(fs::read(site.root("f")).unwrap() == data);
    assert!(sent < data.len() + 3 * MIB, "a block may be lost at each cut, and no more: {sent}");
    assert!(is_clean(&site));
}

#[test]
fn a_later_attempt_takes_over_at_once_and_what_the_earlier_one_brings_is_not_written() {
    let (site, key) = site();
    let server = site.serve(&[]);
    let (data, other) = (noise(1, 6 * MIB), vec![0; MIB]);
    let mut stale = Putter::new(&server, &key, &data);
    let put = stale.put("f", 1);
    stale.send(&ClientFrame::Put(1, put));
    let (ask, _) = stale.hear_get();
    stale.tell(&ServerFrame::File(ask, stale.file.clone()));

    let mut later = Putter::new(&server, &key, &data);
    let put = later.put("f", 2);
    later.most = 2 * MIB;
    assert_eq!(later.offer(1, put), Came::Enough, "without waiting for the silent one");
    // The stale one speaks again.
    stale.tell(&ServerFrame::Data { request: ask, offset: 0, len: MIB as u64 });
    stale.write(&other);
    let came = stale.answer();
    let Came::Failed(1, EXISTS, text) = came else { panic!("it should have been told, and not {came:?}") };
    assert_eq!(text, "another connection goes on with this upload");

    later.most = usize::MAX;
    drop(later);
    let mut last = Putter::new(&server, &key, &data);
    let put = last.put("f", 3);
    assert_eq!(last.offer(1, put), Came::Ended(1, Some(last.root())));
    assert!(fs::read(site.root("f")).unwrap() == data);
}

#[test]
fn several_connections_bring_one_file_and_all_are_told() {
    let (site, key) = site();
    let server = site.serve(&[]);
    let data = noise(1, 64 * MIB);
    let mut putters: Vec<_> = (0..3).map(|_| Putter::new(&server, &key, &data)).collect();
    let came: Vec<_> = std::thread::scope(|scope| {
        let offer = |putter: &mut Putter| {
            let put = putter.put("f", 1);
            (putter.offer(1, put), putter.sent)
        };
        let running: Vec<_> = putters.iter_mut().map(|putter| scope.spawn(move || offer(putter))).collect();
        running.into_iter().map(|running| running.join().unwrap()).collect()
    });
    let root = putters[0].root();
    assert!(came.iter().all(|(came, _)| *came == Came::Ended(1, Some(root))), "{came:?}");
    assert_eq!(came.iter().map(|(_, sent)| sent).sum::<usize>(), data.len());
    assert!(fs::read(site.root("f")).unwrap() == data);
}

#[test]
fn of_two_keys_one_uploads_a_name_and_the_other_is_told() {
    let (site, key) = site();
    let other = add(&site, "bob", &["--allow", "write"]);
    let server = site.serve(&[]);
    let data = noise(1, 3 * MIB);
    let mut first = Putter::new(&server, &key, &data);
    first.most = MIB + 1;
    let put = first.put("f", 1);
    assert_eq!(first.offer(1, put), Came::Enough);
    let mut second = Putter::new(&server, &other, &data);
    let put = second.put("f", 9);
    let came = second.offer(1, put.clone());
    let text =
        "another client is storing, removing or renaming something of this name at this moment".to_owned();
    assert_eq!(came, Came::Failed(1, EXISTS, text));
    drop(first);
    server.wait_log("Upload of 'f' from");
    // What one key has brought is of no use to another.
    let mut second = Putter::new(&server, &other, &data);
    assert_eq!(second.offer(1, put), Came::Ended(1, Some(second.root())));
    assert_eq!(second.sent, data.len());
}

#[test]
fn what_is_there_is_replaced_only_if_that_is_wanted_and_readers_keep_what_they_have() {
    let (site, key) = site();
    site.file("f", b"old");
    let server = site.serve(&[]);
    let data = noise(1, 2 * MIB);
    let mut putter = Putter::new(&server, &key, &data);
    let put = putter.put("f", 1);
    assert!(matches!(putter.offer(1, put.clone()), Came::Failed(1, EXISTS, _)));
    assert_eq!(raw::fetch_whole(server.address, "f"), b"old");
    let replacing = Put { replace: true, ..put.clone() };
    assert_eq!(putter.offer(2, replacing.clone()), Came::Ended(2, Some(putter.root())));
    assert!(raw::fetch_whole(server.address, "f") == data, "the digest is the new file's");
    assert_eq!(putter.sent, data.len(), "nothing was sent for what was refused");
    // Whoever asks again has missed the answer.
    assert_eq!(putter.offer(3, put.clone()), Came::Ended(3, Some(putter.root())));
    let again = Put { unless_same: true, transfer: [8; 16], ..replacing };
    assert_eq!(putter.offer(4, again), Came::Ended(4, None));
    assert_eq!(putter.sent, data.len());
    let folder = Put { transfer: [9; 16], replace: true, name: "d".into(), ..put };
    fs::create_dir(site.root("d")).unwrap();
    assert!(matches!(putter.offer(5, folder), Came::Failed(5, EXISTS, _)));
}

#[test]
fn bytes_that_are_not_the_files_are_never_stored() {
    let (site, key) = site();
    let server = site.serve(&[]);
    let data = noise(1, 3 * MIB);
    // The root is another file's, and the client says so from the beginning, or only at the end.
    for tells_root in [true, false] {
        let mut putter = Putter::new(&server, &key, &data);
        putter.tells_root = tells_root;
        let mut put = putter.put("f", 1);
        put.file.root = Some(Putter::new(&server, &key, b"other").root());
        let came = putter.offer(1, put);
        assert!(matches!(came, Came::Failed(1, CHECKSUM | CHANGED, _)), "{came:?}");
        assert!(!site.root("f").exists());
    }
    // A block arrives damaged again and again.
    let mut putter = Putter::new(&server, &key, &data);
    let put = putter.put("g", 1);
    putter.send(&ClientFrame::Put(1, put));
    let mut tries = 0;
    loop {
        match putter.hear() {
            None => panic!("it should have been told"),
            Some(oneport::codec::v2::Frame::Asks(ClientFrame::Get(ask, get))) => {
                tries += 1;
                assert!(tries < 100, "it gives up");
                let first = get.ranges[0].offset;
                putter.tell(&ServerFrame::File(ask, putter.file.clone()));
                let mut offset = first;
                while offset < first + get.ranges[0].len {
                    let value = oneport::tree::Value::from_bytes([1; 32]);
                    putter.tell(&ServerFrame::Values(ask, oneport::codec::v2::Values::Single(value)));
                    putter.tell(&ServerFrame::Data { request: ask, offset, len: MIB as u64 });
                    putter.write(&vec![0; MIB]);
                    offset += MIB as u64;
                }
                putter.tell(&ServerFrame::End(ask, None));
            }
            Some(oneport::codec::v2::Frame::Tells(ServerFrame::Error(_, code, _))) => {
                assert_eq!(code.0, CHECKSUM);
                break;
            }
            Some(_) => {}
        }
    }
    assert!(!site.root("g").exists());
}

#[test]
fn a_client_that_breaks_the_order_is_dropped_and_nothing_is_stored() {
    let (site, key) = site();
    let server = site.serve(&[]);
    let data = noise(1, 3 * MIB);
    let block = vec![0; MIB];
    for (what, lie) in [
        ("data that was not asked for", ServerFrame::Data { request: 99, offset: 0, len: MIB as u64 }),
        ("an end too early", ServerFrame::End(1, None)),
        ("a welcome", ServerFrame::Welcome(oneport::codec::v2::Welcome::default())),
        ("data before the file", ServerFrame::Data { request: 1, offset: 0, len: MIB as u64 }),
        ("wait for nothing", ServerFrame::Wait(77)),
    ] {
        let mut putter = Putter::new(&server, &key, &data);
        let put = putter.put("f", 1);
        putter.send(&ClientFrame::Put(1, put));
        let _ = putter.hear_get();
        putter.tell(&lie);
        putter.write(&block);
        let came = loop {
            match putter.answer() {
                Came::Failed(0, code, _) => break code,
                other => assert!(matches!(other, Came::Failed(..)), "{what}: {other:?}"),
            }
        };
        assert_eq!(came, 8, "{what}");
        assert!(!site.root("f").exists(), "{what}");
    }
    wait_for("no part of nothing", || is_clean(&site).then_some(()));
}

#[test]
fn a_silent_client_and_one_that_only_waits_are_dropped() {
    let (site, key) = site();
    let server = site.serve(&["--idle-timeout", "1"]);
    let data = noise(1, 3 * MIB);
    for says_wait in [false, true] {
        let mut putter = Putter::new(&server, &key, &data);
        let put = putter.put("f", 1);
        putter.send(&ClientFrame::Put(1, put));
        let (ask, _) = putter.hear_get();
        if says_wait {
            putter.tell(&ServerFrame::Wait(ask));
        }
        while putter.hear().is_some() {}
    }
    server.wait_log_count("Upload of 'f' from", 2);
}

#[test]
fn folders_are_made_and_things_removed_and_renamed() {
    let (site, key) = site();
    site.file("a", b"x");
    let server = site.serve(&[]);
    let mut putter = Putter::new(&server, &key, b"");
    let folder = Put { form: Form::Folder, ..putter.put("d/e", 1) };
    assert_eq!(putter.offer(1, folder), Came::Ended(1, None));
    assert!(site.root("d/e").is_dir());
    let names = |from: &str, to: &str, replace| oneport::codec::v2::Move {
        replace,
        from: from.to_owned().into(),
        to: to.to_owned().into(),
    };
    putter.send(&ClientFrame::Move(2, names("a", "d/b", false)));
    assert_eq!(putter.answer(), Came::Ended(2, None));
    assert_eq!(fs::read(site.root("d/b")).unwrap(), b"x");
    site.file("a", b"y");
    putter.send(&ClientFrame::Move(3, names("a", "d/b", false)));
    assert!(matches!(putter.answer(), Came::Failed(3, EXISTS, _)));
    let remove = oneport::codec::v2::Remove { recursive: false, name: "a".into() };
    putter.send(&ClientFrame::Remove(4, remove.clone()));
    assert_eq!(putter.answer(), Came::Ended(4, None));
    assert!(!site.root("a").exists());
    putter.send(&ClientFrame::Remove(5, remove));
    assert!(matches!(putter.answer(), Came::Failed(5, 3, _)));
    let log = server.wait_log("Removed 'a'");
    assert!(
        log.contains("Made the folder 'd/e' for 127.0.0.1:") && log.contains("Moved 'a' to 'd/b' for"),
        "{log}"
    );
}

#[test]
fn the_summary_of_a_run_counts_what_was_stored() {
    let (site, key) = site();
    let server = site.serve(&[]);
    for (transfer, size) in [(1, 3 * MIB), (2, MIB)] {
        let mut putter = Putter::new(&server, &key, &noise(1, size));
        let put = Put { transfer: [transfer; 16], replace: true, ..putter.put("f", 0) };
        assert_eq!(putter.offer(1, put), Came::Ended(1, Some(putter.root())));
    }
    server.signal(Signal::INT);
    let received = 4 * MIB;
    server.wait_log(&format!("0 files sent (0 bytes), 2 files stored ({received} bytes), 0 transfers cut"));
}
