//! Servers that lie about folders: nothing outside the target is written, memory and time are bounded, and what
//! is wrong with one file is told of it alone.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use oneport::codec::v2::{ClientFrame, Entries, ErrorCode, File, RequestId, ServerFrame};
use oneport::listing::{Entry, Kind};
use rustix::process::Signal;

use crate::folders::events;
use crate::harness::{Ended, Place, bytes};
use crate::scripted::Scripted;
use crate::v2_peer::{MIB, Speaker, answer, encoded, frame, root_of, server, welcome};

const DATA: u8 = 0x44;
/// The exit status of whoever waited in vain.
const TIMEOUT: i32 = 28;
/// Most memory that a client may need: what two connections may hold, and the program itself.
const MEMORY_MAX: u64 = 160 << 20;
/// Most time until a client with short waits has ended, on a busy machine.
const END_MAX: Duration = Duration::from_secs(30);

fn entry(kind: Kind, name: &[u8], size: u64) -> Entry {
    let name = Bytes::copy_from_slice(name);
    Entry { kind, sparse: false, size, modified: (1_700_000_000, 0), mode: 0o644, name }
}

fn file(name: &str, size: u64) -> Entry {
    entry(Kind::File, name.as_bytes(), size)
}

/// A whole listing, in frames that are not too long.
fn listing(request: RequestId, entries: &[Entry]) -> Vec<Vec<u8>> {
    let stretch = |(number, entries): (usize, &[Entry])| {
        let cursor = Bytes::copy_from_slice(&[1, number as u8]);
        encoded(&ServerFrame::Entries(request, Entries { cursor, entries: entries.to_vec() }))
    };
    let stretches = entries.chunks(500).enumerate().map(stretch);
    stretches.chain([encoded(&ServerFrame::End(request, None))]).collect()
}

fn failure(request: RequestId, code: u16, text: &'static [u8]) -> Vec<Vec<u8>> {
    vec![encoded(&ServerFrame::Error(request, ErrorCode(code), Bytes::from_static(text)))]
}

/// A server that lists these entries, and answers each GET as `make` says for the name within the folder.
fn serving(
    entries: Vec<Entry>,
    make: impl Fn(&ClientFrame, RequestId, &str) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> Scripted {
    server(move |asked, _| match asked {
        ClientFrame::List(request, _) => listing(*request, &entries),
        ClientFrame::Get(request, get) => {
            make(asked, *request, std::str::from_utf8(&get.name).unwrap().trim_start_matches("d/"))
        }
        _ => Vec::new(),
    })
}

/// Fetches the folder `d` into a place where something else lies beside it.
fn fetch(place: &Place, from: &Scripted, arguments: &[&str]) -> Ended {
    place.write("canary", "canary");
    let began = Instant::now();
    let arguments = [&["-r", "d", "-o", "in/d", "--timeout", "1s"][..], arguments].concat();
    let ended = place.get(from.address, &arguments).end();
    assert!(began.elapsed() < END_MAX, "{:?}", began.elapsed());
    assert_eq!(place.read("canary"), b"canary");
    ended
}

#[test]
fn names_that_lead_elsewhere_end_the_fetch_before_anything_is_written() {
    for bad in [
        &b"../canary"[..],
        b"/tmp/x",
        b"a/../../canary",
        b"a//b",
        b"./a",
        b"a/.",
        b"..",
        b"a\0b",
        b".oneport-0.part",
        b"a/.oneport-0.part",
        b"a/",
    ] {
        for kind in [Kind::File, Kind::Folder] {
            let place = Place::new();
            let entries = vec![file("good", 2), entry(kind, bad, 4)];
            let liar = serving(entries, |asked, _, _| answer(asked, b"evil", true));
            fetch(&place, &liar, &[]).expect(8).says("broke the protocol");
            assert_eq!(place.tree(), ["canary"], "{}", oneport::text::shown(bad));
        }
    }
}

#[test]
fn a_name_that_comes_twice_and_a_file_that_is_a_folder_are_told_and_the_others_arrive() {
    for there_before in [false, true] {
        let place = Place::new();
        if there_before {
            fs::create_dir_all(place.path("in/d")).unwrap();
        }
        let folder = |name: &str| entry(Kind::Folder, name.as_bytes(), 0);
        let entries = vec![
            file("twice", 5),
            file("twice", 5),
            file("both", 5),
            folder("both"),
            file("both/in", 5),
            folder("other"),
            file("other", 5),
            file("f", 5),
            file("f/g/h", 5),
            file("good", 5),
        ];
        let liar = serving(entries, |asked, _, _| answer(asked, b"bytes", true));
        let ended = fetch(&place, &liar, &[]).expect(23);
        let mut names = place.tree();
        names.retain(|name| !name.contains("canary"));
        assert!(
            names.contains(&"in/d/good".to_owned()) && names.contains(&"in/d/twice".to_owned()),
            "{names:?}"
        );
        assert!(!names.iter().any(|name| name.contains(".oneport")), "{names:?}");
        assert!(ended.stderr.contains("client: twice: "), "{}", ended.stderr);
        assert!(ended.stderr.lines().count() >= 4, "{}", ended.stderr);
        for name in names.iter().filter(|name| !name.ends_with('/')) {
            assert_eq!(place.read(name), b"bytes", "{name}");
        }
    }
}

#[test]
fn files_that_fail_or_are_of_another_size_concern_only_themselves() {
    let refused = [("gone", 3), ("now", 11), ("changed", 24), ("limit", 10), ("strange", 999), ("zero", 4)];
    let mut entries: Vec<_> = refused.iter().map(|(name, _)| file(name, 10)).collect();
    entries.extend([
        file("larger", 10),
        file("smaller", 10),
        file("huge", 10),
        file("empty", 10),
        file("was-empty", 0),
    ]);
    entries.extend([file("was-huge", 3 * MIB as u64), file("good", 4), file("damaged", 4)]);
    let liar = serving(entries, move |asked, request, name| {
        if let Some((_, code)) = refused.iter().find(|(refused, _)| *refused == name) {
            return failure(request, *code, b"\x1b[2J no\n\xff");
        }
        match name {
            "larger" | "was-empty" => answer(asked, &[7; 50_000], true),
            "smaller" | "was-huge" => answer(asked, b"s", true),
            "huge" => answer(asked, &bytes(1, 2 * MIB + 1), true),
            "empty" => answer(asked, b"", true),
            "damaged" => {
                let mut frames = answer(asked, b"good", true);
                let at = frames.iter().position(|frame| frame[4] == DATA).unwrap();
                *frames[at].last_mut().unwrap() ^= 1;
                frames
            }
            _ => answer(asked, b"good", true),
        }
    });
    let place = Place::new();
    let ended = fetch(&place, &liar, &["--json"]).expect(23);
    let failed: Vec<_> = events(&ended)
        .iter()
        .filter(|event| event["event"] == "file" && event["ok"] == false)
        .map(|event| event["file"].as_str().unwrap().to_owned())
        .collect();
    let mut expected: Vec<_> =
        refused.iter().map(|(name, _)| (*name).to_owned()).chain(["damaged".into()]).collect();
    let mut found = failed.clone();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    for name in &expected {
        assert_eq!(ended.stderr.matches(&format!("client: {name}: ")).count(), 1, "{}", ended.stderr);
        assert!(!place.path("in/d").join(name).exists());
    }
    for (name, len) in [
        ("larger", 50_000),
        ("was-empty", 50_000),
        ("smaller", 1),
        ("was-huge", 1),
        ("huge", 2 * MIB + 1),
        ("empty", 0),
    ] {
        assert_eq!(place.read(format!("in/d/{name}")).len(), len, "{name}");
    }
}

#[test]
fn special_bits_are_not_taken_from_a_server() {
    let place = Place::new();
    let mut odd = file("f", 1);
    odd.mode = 0o777;
    let liar = serving(vec![odd], |asked, request, _| {
        let mut frames = answer(asked, b"x", true);
        let root = Some(root_of(b"x"));
        frames[0] = encoded(&ServerFrame::File(
            request,
            File { size: 1, modified: (0, 0), mode: 0o7777, token: [1; 16], root },
        ));
        frames
    });
    let ended = fetch(&place, &liar, &[]);
    if ended.code == Some(0) {
        let mode = fs::metadata(place.path("in/d/f")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7000, 0, "{mode:o}");
    } else {
        ended.expect(8);
    }
}

#[test]
fn files_that_are_much_larger_than_listed_do_not_fill_the_memory() {
    let entries = (0..2048).map(|number| file(&format!("f{number}"), 100)).collect::<Vec<_>>();
    let whole = bytes(1, MIB);
    let root = root_of(&whole);
    let half = [&0_u64.to_be_bytes()[..], &whole[..MIB / 2]].concat();
    let liar = serving(entries, move |_, request, _| {
        let told = File { size: MIB as u64, modified: (0, 0), mode: 0o644, token: [1; 16], root: Some(root) };
        // The other half never comes.
        vec![encoded(&ServerFrame::File(request, told)), frame(DATA, request, &half)]
    });
    let place = Place::new();
    let running = place.get(liar.address, &["-r", "d", "--timeout", "3s"]).start();
    let (began, mut peak) = (Instant::now(), 0);
    while let Some(memory) = running.peak_memory() {
        peak = memory.max(peak);
        assert!(began.elapsed() < END_MAX);
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{peak} bytes of memory");
    assert!(peak < MEMORY_MAX, "{peak} bytes");
    running.end().expect(TIMEOUT);
}

#[test]
fn a_listing_of_endless_garbage_costs_bounded_memory_and_can_be_stopped() {
    for kind in [Kind::Link, Kind::Folder, Kind::File] {
        let endless = Scripted::start(move |stream, name, _| {
            let Some(mut speaker) = Speaker::new(stream, name) else { return };
            speaker.say(&welcome());
            let Some(ClientFrame::List(request, _)) = speaker.hear() else {
                return speaker.answer_all(|asked| match asked {
                    ClientFrame::Get(request, _) => failure(*request, 3, b"no such file"),
                    _ => Vec::new(),
                });
            };
            for number in 0_u64.. {
                // Folders have one name: of how many there are, a client keeps a list.
                let name = |at| {
                    if kind == Kind::Folder { "same".to_owned() } else { format!("{number}-{at}-{:0100}", 7) }
                };
                let entries = (0..300).map(|at| entry(kind, name(at).as_bytes(), 1)).collect();
                let entries = Entries { cursor: Bytes::copy_from_slice(&number.to_be_bytes()), entries };
                if !speaker.say(&encoded(&ServerFrame::Entries(request, entries))) {
                    return;
                }
            }
        });
        let place = Place::new();
        let running = place.get(endless.address, &["-r", "d", "-q"]).start();
        std::thread::sleep(Duration::from_secs(3));
        let peak = running.peak_memory().unwrap();
        println!("{kind:?}: {peak} bytes of memory");
        assert!(peak < MEMORY_MAX, "{kind:?}: {peak} bytes");
        let began = Instant::now();
        running.signal(Signal::INT);
        running.end().expect(130);
        assert!(began.elapsed() < END_MAX);
        assert_eq!(place.tree(), [""; 0]);
    }
}

#[test]
fn a_listing_that_stands_still_or_does_not_end_is_given_up() {
    let entries =
        |cursor: &'static [u8]| Entries { cursor: Bytes::from_static(cursor), entries: vec![file("f", 1)] };
    for (what, cursors, code) in [
        ("the same again", vec![&b"x"[..]; 5], 8),
        ("no cursor", vec![b""], 8),
        ("no end", vec![b"x"], TIMEOUT),
    ] {
        let liar = server(move |asked, _| match asked {
            ClientFrame::List(request, _) => cursors
                .iter()
                .map(|cursor| encoded(&ServerFrame::Entries(*request, entries(cursor))))
                .collect(),
            _ => answer(asked, b"x", true),
        });
        let place = Place::new();
        let ended = fetch(&place, &liar, &[]);
        assert_eq!(ended.code, Some(code), "{what}: {}", ended.stderr);
        assert!(!place.path("in/d").exists(), "{what}");
    }
}

#[test]
fn answers_that_nobody_asked_for_and_answers_without_an_end() {
    let told = |request| File {
        size: 1,
        modified: (0, 0),
        mode: 0o644,
        token: [request as u8; 16],
        root: Some(root_of(b"x")),
    };
    let odd = [
        encoded(&ServerFrame::File(99, told(99))),
        encoded(&ServerFrame::End(99, None)),
        frame(DATA, 99, &[0; 9]),
        failure(99, 3, b"no").concat(),
    ];
    for (number, odd) in odd.into_iter().enumerate() {
        let liar = serving(vec![file("f", 1), file("g", 1)], move |_, _, _| vec![odd.clone()]);
        let place = Place::new();
        let ended = fetch(&place, &liar, &[]);
        assert!([8, TIMEOUT].contains(&ended.code.unwrap()), "{number}: {}", ended.stderr);
        assert!(!place.path("in/d").exists());
    }
    let without_end = |data: &'static [u8]| {
        serving(vec![file("f", 1)], move |asked, _, _| {
            let mut frames = answer(asked, data, true);
            frames.pop();
            frames
        })
    };
    // Bytes that are proven need no end; of an empty file it is all that tells.
    let place = Place::new();
    fetch(&place, &without_end(b"x"), &[]).expect(0);
    assert_eq!(place.read("in/d/f"), b"x");
    fetch(&Place::new(), &without_end(b""), &[]).expect(TIMEOUT);
}
