//! Many who write under one name, readers in between, and names that lead elsewhere: always one whole version, and
//! nothing outside of what is served.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oneport::codec::v2::{ClientFrame, Form, Move, Put, Remove};

use crate::holders::add;
use crate::putting::{Came, Putter};
use crate::raw::noise;
use crate::serving::{Site, wait_for};
use crate::v2_peer::{Asker, MIB, get};

const EXISTS: u16 = 13;
/// Codes with which a name may be refused: there is nothing, it is not allowed, there is something else.
const REFUSALS: [u16; 3] = [3, 4, EXISTS];

fn site() -> (Site, String) {
    let site = Site::new();
    let key = add(&site, "ann", &["--allow", "read,write,delete"]);
    (site, key)
}

/// The version of this writer: its number again and again, and a length of its own.
fn version(writer: u8, round: u32, large: bool) -> Vec<u8> {
    let len = if large { MIB + 1000 } else { 2000 } + usize::from(writer) * 16 + (round % 16) as usize;
    vec![writer; len]
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some(&first) = bytes.first() else { return false };
    let base = usize::from(first) * 16;
    bytes.iter().all(|&byte| byte == first)
        && [2000 + base, MIB + 1000 + base].iter().any(|least| (*least..least + 16).contains(&bytes.len()))
}

fn replacing(putter: &Putter, name: &str, round: u32) -> Put {
    let mut transfer = [0; 16];
    transfer[0] = putter.data()[0];
    transfer[4..8].copy_from_slice(&(round + 1).to_be_bytes());
    Put { replace: true, transfer, ..putter.put(name, 1) }
}

#[test]
fn of_sixteen_writers_of_one_name_each_leaves_a_whole_version_or_is_told() {
    const WRITERS: u8 = 16;
    const ROUNDS: u32 = 32;
    let (site, key) = site();
    let server = site.serve(&[]);
    let (stored, told, is_over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(bytes) = fs::read(site.root("one")) {
                    assert!(is_whole(&bytes), "{} bytes that nobody has written", bytes.len());
                    reads += 1;
                }
            }
            reads
        });
        let writers: Vec<_> = (1..=WRITERS)
            .map(|writer| {
                let (site, server, key, stored, told) = (&site, &server, &key, &stored, &told);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let data = version(writer, round, round.is_multiple_of(8));
                        loop {
                            let mut putter = Putter::new(server, key, &data);
                            let put = replacing(&putter, "one", round);
                            match putter.offer(1, put) {
                                Came::Ended(1, Some(root)) => {
                                    assert_eq!(root, putter.root());
                                    stored.fetch_add(1, Ordering::Relaxed);
                                    break;
                                }
                                Came::Failed(1, EXISTS, _) => drop(told.fetch_add(1, Ordering::Relaxed)),
                                other => panic!("{other:?}"),
                            }
                        }
                        assert!(is_whole(
                            &fs::read(site.root("one")).unwrap_or_else(|_| version(1, 0, false))
                        ));
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    let (stored, told) = (stored.into_inner(), told.into_inner());
    println!("{stored} stored, {told} told that somebody else was at it");
    assert_eq!(stored, u64::from(WRITERS) * u64::from(ROUNDS));
    assert!(told > 0, "they were never at it at the same time");
    assert!(is_whole(&fs::read(site.root("one")).unwrap()));
    wait_for("nothing left beside it", || (fs::read_dir(site.root("")).unwrap().count() == 1).then_some(()));
}

#[test]
fn a_file_that_is_replaced_while_it_is_read_ends_as_it_was() {
    let (site, key) = site();
    let old = noise(1, 6 * MIB + 7);
    site.file("f", &old);
    let server = site.serve(&[]);
    let mut reader = Asker::new(&server, "window=0");
    reader.send(&[get(1, "f"), ClientFrame::Window(1, MIB as u64)]);
    // The first block is on its way, so the file is open.
    while !matches!(reader.hear().unwrap().frame, oneport::codec::v2::ServerFrame::Data { .. }) {}
    for (request, size) in [(1, 3 * MIB + 1), (2, 50)] {
        let new = noise(request, size);
        let mut putter = Putter::new(&server, &key, &new);
        let put = Put { replace: true, ..putter.put("f", 1) };
        assert_eq!(putter.offer(1, put), Came::Ended(1, Some(putter.root())));
        assert_eq!(fs::read(site.root("f")).unwrap(), new);
        let mut other = Asker::new(&server, "");
        other.send(&[get(1, "f")]);
        assert_eq!(other.hear_all(1).unwrap(), new, "who asks now gets the new one");
    }
    let mut remover = Putter::new(&server, &key, b"x");
    remover.send(&ClientFrame::Remove(1, Remove { recursive: false, name: "f".into() }));
    assert_eq!(remover.answer(), Came::Ended(1, None));
    reader.send(&[ClientFrame::Window(1, 1 << 40)]);
    let mut rest = MIB;
    loop {
        match reader.hear().expect("it goes on").frame {
            oneport::codec::v2::ServerFrame::Data { offset, len, .. } => {
                assert!(offset as usize >= rest.min(offset as usize));
                rest = (offset + len) as usize;
            }
            oneport::codec::v2::ServerFrame::End(1, root) => {
                assert_eq!(root, Some(crate::v2_peer::root_of(&old)), "the old one, proven");
                break;
            }
            oneport::codec::v2::ServerFrame::Error(.., text) => panic!("{text:?}"),
            _ => {}
        }
    }
    assert_eq!(rest, old.len());
}

/// Names that lead out of what is served, or to what is hidden in it.
const ASTRAY: [&[u8]; 22] = [
    b"..",
    b"../outside",
    b"../outside/canary",
    b"a/../../outside/canary",
    b"a/..",
    b"/etc/oneport-test",
    b"//outside",
    b"",
    b".",
    b"./x",
    b"a//b",
    b"a/",
    b"a/./b",
    b"x\0y",
    b"out/canary",
    b"out/new",
    b"out",
    b"deep/out/canary",
    b".oneport",
    b".ONEPORT/keys.toml",
    b".oneport-0000000000000000.part",
    b"a/.oneport-x/y",
];

#[test]
fn names_that_lead_astray_are_refused_by_every_verb_and_nothing_outside_is_touched() {
    let (site, key) = site();
    let outside = site.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), b"canary").unwrap();
    site.file("a/b", b"mine");
    fs::create_dir(site.root("deep")).unwrap();
    for link in ["out", "deep/out"] {
        symlink(&outside, site.root(link)).unwrap();
    }
    let server = site.serve(&[]);
    for name in ASTRAY {
        let name = Bytes::from_static(name);
        let own = Bytes::from_static(b"a/b");
        let data = noise(1, 10);
        let whole =
            |putter: &Putter, form| Put { replace: true, form, name: name.clone(), ..putter.put("", 1) };
        let folder = |putter: &Putter| {
            let put = whole(putter, Form::Folder);
            Put { file: oneport::codec::v2::File { size: 0, ..put.file.clone() }, ..put }
        };
        let mut tries: Vec<(&str, Came)> = Vec::new();
        let mut putter = Putter::new(&server, &key, &data);
        let put = whole(&putter, Form::Asked);
        tries.push(("asked", putter.offer(1, put)));
        let put = folder(&putter);
        tries.push(("folder", putter.offer(2, put)));
        putter.send(&ClientFrame::Remove(3, Remove { recursive: true, name: name.clone() }));
        tries.push(("remove", putter.answer()));
        for (request, from, to) in
            [(4, name.clone(), Bytes::from_static(b"new")), (5, own.clone(), name.clone())]
        {
            putter.send(&ClientFrame::Move(request, Move { replace: true, from, to }));
            tries.push(("move", putter.answer()));
        }
        let is_link = [&b"out"[..], b"deep/out"].contains(&&name[..]);
        for (what, came) in tries {
            match came {
                Came::Failed(_, code, _) if REFUSALS.contains(&code) => {}
                // A link is a thing of its own, which can be replaced, moved and removed.
                Came::Ended(..) if is_link => {}
                other => panic!("{what} {name:?}: {other:?}"),
            }
        }
        if is_link {
            for link in ["out", "new"] {
                let _ = fs::remove_file(site.root(link));
            }
            site.file("a/b", b"mine");
            symlink(&outside, site.root("out")).unwrap();
        }
        assert_eq!(fs::read(site.root("a/b")).unwrap(), b"mine", "{name:?}");
        assert_untouched(&outside);
    }
    assert!(!Path::new("/etc/oneport-test").exists());
}

fn assert_untouched(outside: &Path) {
    assert_eq!(fs::read(outside.join("canary")).unwrap(), b"canary");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
}

#[test]
fn an_upload_ends_when_its_key_is_revoked_and_what_was_received_waits_for_its_holder() {
    let (site, key) = site();
    let server = site.serve(&[]);
    let data = noise(1, 8 * MIB);
    let mut putter = Putter::new(&server, &key, &data);
    putter.most = 2 * MIB + 5;
    let put = putter.put("f", 1);
    assert_eq!(putter.offer(1, put), Came::Enough);
    crate::holders::revoke(&site, "ann");
    putter.most = usize::MAX;
    let rest = (MIB - 5).min(data.len());
    putter.write(&data[2 * MIB + 5..2 * MIB + 5 + rest]);
    match putter.answer() {
        Came::Failed(1, 4, _) => {}
        other => panic!("{other:?}"),
    }
    assert!(!site.root("f").exists());
}

#[test]
fn parts_that_nobody_goes_on_with_are_swept_and_those_that_somebody_holds_are_not() {
    let (site, key) = site();
    let server = site.serve(&["--staged-age", "1s"]);
    let data = noise(1, 4 * MIB);
    let mut held = Putter::new(&server, &key, &data);
    held.most = 2 * MIB;
    let put = held.put("held", 1);
    assert_eq!(held.offer(1, put), Came::Enough);
    let mut left = Putter::new(&server, &key, &data);
    left.most = 2 * MIB;
    let put = Put { transfer: [9; 16], ..left.put("left", 1) };
    assert_eq!(left.offer(1, put), Came::Enough);
    let hidden = || {
        let names = fs::read_dir(site.root("")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".part")).count()
    };
    assert_eq!(hidden(), 2);
    drop(left);
    server.wait_log("Removed what uploads had left: ");
    wait_for("one part only", || (hidden() == 1).then_some(()));
    // Long enough for two more rounds.
    let began = std::time::Instant::now();
    wait_for("two rounds", || (began.elapsed() > Duration::from_millis(2500)).then_some(()));
    assert_eq!(hidden(), 1, "the one that is held");
    drop(held);
}
