//! Many small files on one connection of version 2: all of them arrive, each fails alone, and the server
//! neither opens nor logs more than it should.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use oneport::codec::v2::{ClientFrame, Get, ServerFrame};
use rustix::fs::{Advice, fadvise};

use crate::raw::noise;
use crate::serving::{Site, wait_for};
use crate::v2_peer::{Asker, MIB, get, root_of, stat};

/// Requests that may be in flight, and those of them that are begun.
const REQUESTS: u32 = 1024;
const BEGUN: usize = 64;
const NOT_FOUND: u16 = 3;
const SMALL_MAX: usize = 64 << 10;

/// What came of one request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    bytes: Vec<u8>,
    /// The code of its error; 0 for its end.
    code: Option<u16>,
}

/// Hears all until each of these requests has ended. What is not in order is a failure: a small
/// file is FILE, then its bytes, then END, and all three say the same.
fn hear_all(asker: &mut Asker, requests: u32) -> BTreeMap<u32, Answer> {
    let mut answers = BTreeMap::<u32, Answer>::new();
    let mut roots = BTreeMap::new();
    let mut missing = requests;
    while missing > 0 {
        let told = asker.hear().expect("the connection ended");
        match told.frame {
            ServerFrame::File(request, file) => {
                let root = file.root.expect("the root of a small file is known");
                assert!(roots.insert(request, (file.size, root)).is_none());
            }
            ServerFrame::Data { request, offset, .. } => {
                let answer = answers.entry(request).or_default();
                assert!(answer.code.is_none() && offset == answer.bytes.len() as u64);
                answer.bytes.extend(told.data);
            }
            ServerFrame::End(request, root) => {
                let answer = answers.entry(request).or_default();
                assert_eq!(roots[&request], (answer.bytes.len() as u64, root_of(&answer.bytes)));
                assert_eq!(root, Some(roots[&request].1));
                assert!(answer.code.replace(0).is_none());
                missing -= 1;
            }
            ServerFrame::Error(request, code, _) => {
                assert!(answers.entry(request).or_default().code.replace(code.0).is_none());
                missing -= 1;
            }
            _ => {}
        }
    }
    answers
}

fn content(number: u32) -> Vec<u8> {
    noise(u64::from(number), [4096, 0, 1, 70, SMALL_MAX][number as usize % 5])
}

fn name(number: u32) -> String {
    [format!("f{number}"), format!("a/f{number}"), format!("a/b c/f{number}")][number as usize % 3].clone()
}

#[test]
fn a_thousand_small_files_arrive_and_each_has_one_line_which_the_console_does_not_show() {
    let site = Site::new();
    (1..=REQUESTS).for_each(|number| drop(site.file(name(number), &content(number))));
    site.file("large", &noise(5, 2 * MIB));
    let server = site.serve(&["--hash-ahead", "0"]);
    let mut asker = Asker::new(&server, "");
    let peer = asker.stream.local_addr().unwrap();
    asker.send(&(1..=REQUESTS).map(|number| get(number, &name(number))).collect::<Vec<_>>());
    for (number, answer) in hear_all(&mut asker, REQUESTS) {
        assert!(answer == Answer { bytes: content(number), code: Some(0) }, "{number}");
    }
    asker.send(&[get(REQUESTS + 1, "large")]);
    assert_eq!(asker.hear_all(REQUESTS + 1).unwrap().len(), 2 * MIB);
    drop(asker);
    let log = server.wait_log(&format!("Connection closed with {peer}"));
    for number in 1..=REQUESTS {
        let (name, content) = (name(number), content(number));
        let line = format!(
            " INFO  Sent '{name}' to {peer}: {} bytes, BLAKE3 {}\n",
            content.len(),
            root_of(&content)
        );
        assert_eq!(log.matches(&line).count(), 1, "{line}");
        assert_eq!(log.matches(&format!("'{name}'")).count(), 1, "nothing else is said of {name}");
    }
    let shown = server.stderr();
    assert!(!shown.contains("Sent '"), "{shown}");
    for text in [&log, &shown] {
        assert_eq!(text.matches("Progress to ").count(), 10, "those of the large file: {text}");
        assert_eq!(text.matches("requested file").count(), 1, "{text}");
    }
}

#[test]
fn what_cannot_be_sent_among_many_fails_alone() {
    let site = Site::new();
    (1..=REQUESTS).for_each(|number| drop(site.file(name(number), &content(number))));
    fs::create_dir_all(site.root("folder")).unwrap();
    symlink("../../logs", site.root("a/out")).unwrap();
    symlink("f3", site.root("link")).unwrap();
    let arguments = ["0", "root", "--state", "root/state", "--log-dir", "logs", "--hash-ahead", "0"];
    let server = site.launch_bare(&arguments).serve();
    let mut asker = Asker::new(&server, "");
    let bad = [
        "missing",
        "a/missing",
        "missing/f",
        "folder",
        "a/b c",
        "../x",
        "state/catalog.db",
        ".oneport/x",
        "a/out/x",
        "f1/x",
    ];
    let wanted = |number: u32| match number % 7 {
        0 => bad[number as usize / 7 % bad.len()].to_owned(),
        1 => "link".to_owned(),
        _ => name(number),
    };
    asker.send(&(1..=REQUESTS).map(|number| get(number, &wanted(number))).collect::<Vec<_>>());
    for (number, answer) in hear_all(&mut asker, REQUESTS) {
        let expected = match number % 7 {
            0 => Answer { bytes: Vec::new(), code: Some(NOT_FOUND) },
            1 => Answer { bytes: content(3), code: Some(0) },
            _ => Answer { bytes: content(number), code: Some(0) },
        };
        assert!(answer == expected, "{}: {:?}", wanted(number), answer.code);
    }
    assert!(asker.is_answered());
    let refused = (1..=REQUESTS).filter(|number| number % 7 == 0).count();
    server.wait_log_count("Refused '", refused);
}

#[test]
fn files_that_change_or_vanish_in_the_middle_of_a_batch_are_what_they_were_or_are_or_fail_alone() {
    let site = Site::new();
    let old = |number: u32| noise(u64::from(number), SMALL_MAX);
    (1..=REQUESTS).for_each(|number| drop(site.file(format!("f{number}"), &old(number))));
    let server = site.serve(&["--hash-ahead", "0"]);
    let mut asker = Asker::new(&server, "");
    asker.send(&(1..=REQUESTS).map(|number| get(number, &format!("f{number}"))).collect::<Vec<_>>());
    // It has to wait for us by now: 64 MiB do not fit between us.
    std::thread::sleep(Duration::from_millis(300));
    for number in 1..=REQUESTS {
        let path = site.root(format!("f{number}"));
        match number % 4 {
            0 => fs::remove_file(path).unwrap(),
            1 => fs::write(path, &old(number)[..1000]).unwrap(),
            2 => {
                fs::write(site.root("new"), noise(7, SMALL_MAX + 9)).unwrap();
                fs::rename(site.root("new"), path).unwrap();
            }
            _ => {}
        }
    }
    let (mut is_old, mut is_new) = (0, 0);
    for (number, answer) in hear_all(&mut asker, REQUESTS) {
        if answer == (Answer { bytes: old(number), code: Some(0) }) {
            is_old += 1;
            continue;
        }
        is_new += 1;
        let expected = match number % 4 {
            0 => Answer { bytes: Vec::new(), code: Some(NOT_FOUND) },
            1 => Answer { bytes: old(number)[..1000].to_vec(), code: Some(0) },
            2 => Answer { bytes: noise(7, SMALL_MAX + 9), code: Some(0) },
            _ => panic!("{number} did not change"),
        };
        assert!(answer == expected, "{number}: {:?}, {} bytes", answer.code, answer.bytes.len());
    }
    assert!(is_old > REQUESTS / 4 && is_new > REQUESTS / 4, "{is_old} as they were, {is_new} as they are");
}

#[test]
fn files_that_are_not_in_memory_arrive_among_those_that_are() {
    let site = Site::new();
    for number in 1..=REQUESTS {
        let path = site.file(name(number), &content(number));
        if number % 2 == 0 {
            let file = fs::File::open(path).unwrap();
            file.sync_all().unwrap();
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
    }
    let server = site.serve(&["--hash-ahead", "0"]);
    let mut asker = Asker::new(&server, "");
    asker.send(&(1..=REQUESTS).map(|number| get(number, &name(number))).collect::<Vec<_>>());
    for (number, answer) in hear_all(&mut asker, REQUESTS) {
        assert!(answer == Answer { bytes: content(number), code: Some(0) }, "{number}");
    }
    server.wait_log_count(" INFO  Sent '", REQUESTS as usize);
}

#[test]
fn requests_that_wait_have_nothing_open() {
    let site = Site::new();
    for number in 1..=REQUESTS {
        site.file(format!("f{number}"), &noise(1, SMALL_MAX + 1));
    }
    let server = site.serve(&["--hash-ahead", "0"]);
    let before = server.descriptors();
    let mut asker = Asker::new(&server, "window=0");
    asker.send(&(1..=REQUESTS).map(|number| get(number, &format!("f{number}"))).collect::<Vec<_>>());
    // The socket, and what the catalog opens.
    let most = before + BEGUN + 1 + crate::serving::CATALOG_DESCRIPTORS;
    wait_for("as many open files as may be", || (server.descriptors() > before + BEGUN).then_some(()));
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        let open = server.descriptors();
        assert!(open <= most, "{open} open descriptors, of which {before} were before");
    }
    // Each that ends makes room for one more, and in the end nothing is left.
    for number in 1..=REQUESTS {
        asker.send(&[ClientFrame::Cancel(number)]);
        let open = server.descriptors();
        assert!(open <= most + 8, "{open} after {number}");
    }
    asker.send(&[stat(REQUESTS + 1, b"f1")]);
    while !matches!(asker.hear().unwrap().frame, ServerFrame::File(number, _) if number == REQUESTS + 1) {}
    drop(asker);
    wait_for("all files closed", || {
        (server.descriptors() <= before + crate::serving::CATALOG_DESCRIPTORS).then_some(())
    });
}

#[test]
fn a_version_that_came_as_a_whole_is_known_when_the_client_comes_back_with_it() {
    let site = Site::new();
    site.file("f", b"hello");
    let server = site.serve(&["--hash-ahead", "0"]);
    let mut asker = Asker::new(&server, "");
    let mut token = |request: u32, get: Get| {
        asker.send(&[ClientFrame::Get(request, Get { name: "f".into(), ..get })]);
        let mut token = None;
        loop {
            match asker.hear().unwrap().frame {
                ServerFrame::File(_, file) => token = Some(file.token),
                ServerFrame::End(..) => break token.unwrap(),
                ServerFrame::Welcome(_) | ServerFrame::Data { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let whole = token(1, Get::default());
    let usual = token(2, Get { transfer: [3; 16], ..Get::default() });
    assert_eq!(whole, usual);
    assert_eq!(token(3, Get { token: whole, ..Get::default() }), whole);
    assert_eq!(token(4, Get { token: [9; 16], ..Get::default() }), whole, "another version is not there");
    drop(asker);
    let log = server.wait_log("Connection closed");
    assert_eq!(log.matches("Sent 'f'").count(), 2, "{log}");
    assert_eq!(log.matches("Sending file 'f'").count(), 2, "{log}");
}
