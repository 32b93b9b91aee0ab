//! Small files that clients put as a whole: stored when END says so, whatever else comes, and never more than a
//! key may have.

use std::fs;
use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use oneport::codec::v2::{ClientFrame, File, Form, Put, RequestId, ServerFrame};
use oneport::priority::Priority;
use oneport::tree::Root;

use crate::holders::{add, holder, key};
use crate::raw::noise;
use crate::serving::{Server, Site};
use crate::v2_peer::{Asker, MIB, get};

const VIOLATED: u16 = 8;
const LIMIT: u16 = 10;
const NOT_ALLOWED: u16 = 4;
const EXISTS: u16 = 13;
const DAMAGED: u16 = 32;
const CANCELLED: u16 = 130;
/// Memory that many large files at once may cost, which have more than three times as many bytes: those that wait, a
/// group that is staged, the connections, and what the allocator has not given back yet.
const MEMORY_MAX: u64 = 112 << 20;

fn put(name: &str, bytes: &[u8]) -> Put {
    let root = Some(Root::of(bytes));
    let file =
        File { size: bytes.len() as u64, modified: (1_700_000_000, 7), mode: 0o644, token: [1; 16], root };
    let name = Bytes::copy_from_slice(name.as_bytes());
    Put {
        replace: false,
        unless_same: false,
        form: Form::Whole,
        name,
        transfer: [2; 16],
        attempt: 1,
        file,
        priority: Priority::default(),
    }
}

fn head(request: RequestId, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    ClientFrame::Bytes { request, offset, len: bytes.len() as u64 }.encode(&mut frame).unwrap();
    [&frame, bytes].concat()
}

/// PUT with these words, and then the bytes in frames of at most `most`.
fn whole(request: RequestId, put: Put, bytes: &[u8], most: usize) -> Vec<u8> {
    let mut frame = BytesMut::new();
    ClientFrame::Put(request, put).encode(&mut frame).unwrap();
    let mut all = frame.to_vec();
    for (index, piece) in bytes.chunks(most).enumerate() {
        all.extend(head(request, (index * most) as u64, piece));
    }
    all
}

/// What came of one request: the root, or the code of the error.
fn outcome(asker: &mut Asker, request: RequestId) -> Result<Option<Root>, u16> {
    loop {
        match asker.hear().expect("the connection goes on").frame {
            ServerFrame::End(number, root) if number == request => return Ok(root),
            ServerFrame::Error(number, code, _) if number == request => return Err(code.0),
            _ => {}
        }
    }
}

/// A site, and a server of it with a key that may write.
fn writing(options: &[&str], limits: &[&str]) -> (Site, Server, String) {
    let site = Site::new();
    let word = add(&site, "writer", &[&["--allow", "write"], limits].concat());
    let server = site.serve(options);
    (site, server, word)
}

#[test]
fn files_that_come_as_a_whole_are_stored_under_their_root() {
    let (site, server, word) = writing(&[], &[]);
    let mut asker = holder(&server, &word);
    let all: Vec<(String, Vec<u8>)> = [0, 1, 5, 4096, MIB - 1, MIB]
        .into_iter()
        .enumerate()
        .map(|(seed, size)| (format!("sub/{size}"), noise(seed as u64, size)))
        .collect();
    for ((name, bytes), request) in all.iter().zip(1..) {
        asker.stream.write_all(&whole(request, put(name, bytes), bytes, 1 + MIB / 3)).unwrap();
        assert_eq!(outcome(&mut asker, request), Ok(Some(Root::of(bytes))), "{name}");
        assert_eq!(&fs::read(site.root(name)).unwrap(), bytes, "{name}");
    }
    for ((name, bytes), request) in all.iter().zip(100..) {
        asker.send(&[get(request, name)]);
        assert_eq!(&asker.hear_all(request).unwrap(), bytes);
    }
    let log = server.wait_log("Stored 'sub/4096'");
    assert!(log.contains(&Root::of(&all[3].1).to_string()), "{log}");
}

#[test]
fn many_files_on_their_way_at_once_each_have_an_answer() {
    let (site, server, word) = writing(&[], &[]);
    let mut asker = holder(&server, &word);
    let mut sending = asker.stream.try_clone().unwrap();
    const COUNT: u32 = 3000;
    let sender = std::thread::spawn(move || {
        for request in 1..=COUNT {
            let bytes = noise(u64::from(request), 512);
            sending
                .write_all(&whole(request, put(&format!("{}/{request}", request % 5), &bytes), &bytes, MIB))
                .unwrap();
        }
    });
    let mut stored = 0;
    while stored < COUNT {
        if let ServerFrame::End(_, Some(_)) = asker.hear().unwrap().frame {
            stored += 1;
        }
    }
    sender.join().unwrap();
    for request in 1..=COUNT {
        let stored = fs::read(site.root(format!("{}/{request}", request % 5))).unwrap();
        assert_eq!(stored, noise(u64::from(request), 512));
    }
}

#[test]
fn bytes_that_are_not_as_announced_are_a_violation_and_nothing_is_stored() {
    let (site, server, word) = writing(&[], &[]);
    let bytes = noise(1, 100);
    let begun = |sent: &[u8]| whole(1, put("a", &bytes), sent, MIB);
    for (what, sent) in [
        ("too many", [begun(&bytes[..60]), head(1, 60, &bytes[..41])].concat()),
        ("more behind the end", [whole(1, put("ok", b"x"), b"x", MIB), head(1, 1, b"y")].concat()),
        ("a gap", [begun(&bytes[..60]), head(1, 61, &bytes[61..])].concat()),
        ("the same again", [begun(&bytes[..60]), head(1, 0, &bytes[..40])].concat()),
        ("another number", [begun(&bytes[..60]), head(2, 60, &bytes[60..])].concat()),
        ("bytes of a file of none", [whole(1, put("empty", b""), b"", MIB), head(1, 0, b"x")].concat()),
        ("bytes of nothing", head(1, 0, b"x")),
        ("too few, and another file", [begun(&bytes[..60]), whole(2, put("b", b"x"), b"x", MIB)].concat()),
    ] {
        let mut asker = holder(&server, &word);
        asker.stream.write_all(&sent).unwrap();
        let ended = std::iter::from_fn(|| asker.hear_error()).last();
        assert_eq!(ended.map(|(request, code, _)| (request, code)), Some((0, VIOLATED)), "{what}");
    }
    // One that ends in the middle is no violation, and leaves nothing.
    drop({
        let mut asker = holder(&server, &word);
        asker.stream.write_all(&begun(&bytes[..60])).unwrap();
        asker
    });
    assert!(!site.root("a").exists() && !site.root("b").exists());
}

#[test]
fn what_is_refused_comes_all_the_same_and_the_connection_goes_on() {
    let (site, server, word) = writing(&["--upload-max", "1000"], &["--path", "mine"]);
    fs::create_dir_all(site.root("mine/folder")).unwrap();
    let mut asker = holder(&server, &word);
    let bytes = noise(1, 900);
    let wrong = Put {
        file: File { root: Some(Root::of(b"other")), ..put("", &bytes).file },
        ..put("mine/wrong", &bytes)
    };
    let large = noise(2, 1001);
    for (request, put, sent, code) in [
        (1, wrong, &bytes, DAMAGED),
        (2, put("theirs", &bytes), &bytes, NOT_ALLOWED),
        (3, put("mine/../x", &bytes), &bytes, NOT_ALLOWED),
        (4, put("mine/large", &large), &large, LIMIT),
        (5, Put { replace: true, ..put("mine/folder", &bytes) }, &bytes, EXISTS),
    ] {
        asker.stream.write_all(&whole(request, put, sent, 400)).unwrap();
        let told = outcome(&mut asker, request);
        assert!(
            matches!(told, Err(told) if told == code || (request == 5 && told == 11)),
            "{request}: {told:?}"
        );
    }
    // A file may be given up in the middle; one that is the same is kept.
    asker.stream.write_all(&whole(6, put("mine/a", &bytes), &bytes[..10], 400)).unwrap();
    asker.send(&[ClientFrame::Cancel(6)]);
    assert_eq!(outcome(&mut asker, 6), Err(CANCELLED));
    asker.stream.write_all(&whole(7, put("mine/a", &bytes), &bytes, 400)).unwrap();
    assert_eq!(outcome(&mut asker, 7), Ok(Some(Root::of(&bytes))));
    asker.stream.write_all(&whole(8, put("mine/a", &bytes), &bytes, 400)).unwrap();
    assert_eq!(outcome(&mut asker, 8), Err(EXISTS));
    let same = Put { unless_same: true, ..put("mine/a", &bytes) };
    asker.stream.write_all(&whole(9, same, &bytes, 400)).unwrap();
    assert_eq!(outcome(&mut asker, 9), Ok(None));
    assert_eq!(fs::read_dir(site.root("mine")).unwrap().count(), 2);
}

#[test]
fn many_large_files_at_once_cost_bounded_memory() {
    let (site, server, word) = writing(&[], &[]);
    let before = server.memory();
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (site, server, word) = (&site, &server, &word);
            scope.spawn(move || {
                let mut asker = holder(server, word);
                let mut sending = asker.stream.try_clone().unwrap();
                let bytes = noise(client, MIB);
                let sent = bytes.clone();
                let sender = std::thread::spawn(move || {
                    for request in 1..=96 {
                        sending
                            .write_all(&whole(
                                request,
                                put(&format!("{client}-{request}"), &sent),
                                &sent,
                                MIB,
                            ))
                            .unwrap();
                    }
                });
                for _ in 0..96 {
                    while !matches!(asker.hear().unwrap().frame, ServerFrame::End(..)) {}
                }
                sender.join().unwrap();
                for request in 1..=96 {
                    assert_eq!(fs::read(site.root(format!("{client}-{request}"))).unwrap(), bytes);
                }
            });
        }
    });
    let cost = server.peak_memory().saturating_sub(before);
    assert!(cost <= MEMORY_MAX, "{cost} bytes of memory");
}

#[test]
fn a_quota_holds_over_restarts_and_what_is_gone_is_free_again() {
    let site = Site::new();
    let word = add(&site, "writer", &["--allow", "write", "--quota", "1000"]);
    let listed = key(&site, &["list", "--json"]).stdout;
    assert!(listed.contains("\"quota\":1000"), "{listed}");
    assert!(key(&site, &["list"]).stdout.contains("1.0 kB"));
    let bytes = noise(1, 400);
    let server = site.serve(&[]);
    let mut asker = holder(&server, &word);
    for (request, name, told) in [(1, "a", None), (2, "b", None), (3, "c", Some(LIMIT))] {
        asker.stream.write_all(&whole(request, put(name, &bytes), &bytes, MIB)).unwrap();
        assert_eq!(outcome(&mut asker, request).err(), told, "{name}");
    }
    drop((asker, server));
    let server = site.serve(&[]);
    let mut asker = holder(&server, &word);
    asker.stream.write_all(&whole(1, put("c", &bytes), &bytes, MIB)).unwrap();
    let (_, code, text) = asker.hear_error().unwrap();
    assert_eq!((code, text.as_str()), (LIMIT, "it needs 400 bytes, and the key has 200 left of its quota"));
    drop((asker, server));
    // Somebody removes a file behind the server's back.
    fs::remove_file(site.root("a")).unwrap();
    let server = site.serve(&[]);
    let mut asker = holder(&server, &word);
    asker.stream.write_all(&whole(1, put("c", &bytes), &bytes, MIB)).unwrap();
    assert!(outcome(&mut asker, 1).is_ok());
}

#[test]
fn more_room_for_a_key_counts_with_the_next_file() {
    let site = Site::new();
    let word = add(&site, "writer", &["--allow", "write", "--quota", "500"]);
    let bytes = noise(1, 400);
    let server = site.serve(&[]);
    let mut asker = holder(&server, &word);
    let mut store = |request, name| {
        asker.stream.write_all(&whole(request, put(name, &bytes), &bytes, MIB)).unwrap();
        outcome(&mut asker, request).err()
    };
    assert_eq!((store(1, "a"), store(2, "b")), (None, Some(LIMIT)));
    assert_eq!(key(&site, &["set", "writer", "--quota", "800"]).code, Some(0));
    assert_eq!((store(3, "b"), store(4, "c")), (None, Some(LIMIT)));
    assert_eq!(key(&site, &["set", "writer", "--quota", "100"]).code, Some(0));
    assert_eq!(store(5, "d"), Some(LIMIT), "less than is there already");
}

#[test]
fn what_was_acknowledged_is_there_whole_when_the_server_is_killed() {
    let (site, mut server, word) = writing(&[], &[]);
    let mut asker = holder(&server, &word);
    let mut sending = asker.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for request in 1..=2000 {
            let bytes = noise(u64::from(request), 4096);
            if sending.write_all(&whole(request, put(&format!("{request}"), &bytes), &bytes, MIB)).is_err() {
                return;
            }
        }
    });
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 200 {
        if let ServerFrame::End(request, Some(_)) = asker.hear().unwrap().frame {
            acknowledged.push(request);
        }
    }
    server.signal(rustix::process::Signal::KILL);
    server.wait_exit();
    sender.join().unwrap();
    for request in acknowledged {
        assert_eq!(fs::read(site.root(format!("{request}"))).unwrap(), noise(u64::from(request), 4096));
    }
    for entry in fs::read_dir(site.root("")).unwrap() {
        let (name, path) =
            entry.map(|entry| (entry.file_name().into_string().unwrap(), entry.path())).unwrap();
        if let Ok(request) = name.parse::<u64>() {
            assert_eq!(fs::read(path).unwrap(), noise(request, 4096), "{name} has its name only as a whole");
        }
    }
}
