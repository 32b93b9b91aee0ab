//! Wire format v1 to the letter: segmentation of the request and the answer, sizes, names, refusals.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use oneport::digest::Md5;

use crate::raw::{self, Answer, brief, fetch, fetch_whole, finish, noise, request};
use crate::serving::{PATIENCE, Server, Site};

const MIB: usize = 1 << 20;

#[test]
fn ok_arrives_alone_and_the_header_a_pause_later() {
    let site = Site::new();
    site.file("small", &noise(1, 100));
    site.file("large", &noise(2, MIB));
    // Long enough that no busy machine can make two reads of it by accident or one in spite of it.
    let server = site.serve(&["--v1-pause", "1s"]);
    for name in ["small", "large"] {
        let mut stream = server.connect();
        stream.write_all(&request(name.as_bytes())).unwrap();
        let mut buffer = [0; 5];
        let count = stream.read(&mut buffer).unwrap();
        let ok_at = Instant::now();
        assert_eq!(&buffer[..count], b"OK", "{name}");
        stream.peek(&mut buffer).unwrap();
        assert!(ok_at.elapsed() >= Duration::from_millis(700), "{name}: after {:?}", ok_at.elapsed());
    }
}

#[test]
fn the_header_is_one_contiguous_segment() {
    let site = Site::new();
    let longest = "n".repeat(255);
    site.file(&longest, b"");
    site.file("small", b"12345");
    site.file("large", &noise(3, 200_000));
    let server = site.serve(&[]);
    for name in [longest.as_str(), "small", "large"] {
        for _ in 0..15 {
            let mut stream = server.connect();
            stream.write_all(&request(name.as_bytes())).unwrap();
            stream.read_exact(&mut [0; 2]).unwrap();
            // One read that is there for the first byte of the header: whatever was written apart
            // from it would not be in this read.
            let mut segment = [0; 1024];
            let count = stream.read(&mut segment).unwrap();
            assert!(count >= 4 + name.len() + 8 + 32, "{name}: {count} bytes of the header came first");
        }
    }
}

#[test]
fn the_request_may_come_in_any_segmentation() {
    let site = Site::new();
    let name = "ordner/ü 1.bin";
    let data = noise(4, 5000);
    site.file(name, &data);
    let server = site.serve(&[]);
    let request = request(name.as_bytes());
    let send = |pieces: &[&[u8]]| {
        let mut stream = server.connect();
        for piece in pieces {
            // Without delay, each write is a segment; the wait keeps the server from joining them.
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        match finish(stream) {
            Answer::Whole(file) => assert!(file.data == data && file.name == "ü 1.bin".as_bytes()),
            other => panic!("{}", brief(&other)),
        }
    };
    send(&request.iter().map(std::slice::from_ref).collect::<Vec<_>>());
    for cut in 0..=request.len() {
        let (head, tail) = request.split_at(cut);
        send(&[head, tail]);
    }
}

#[test]
fn files_of_every_awkward_size_arrive_whole() {
    let site = Site::new();
    let sizes = [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, MIB - 1, MIB, MIB + 1, 5 * MIB + 17];
    for size in sizes {
        site.file(format!("{size}"), &noise(size as u64, size));
    }
    let server = site.serve(&[]);
    for size in sizes {
        let Answer::Whole(file) = fetch(server.address, format!("{size}")) else { panic!("{size}") };
        let data = noise(size as u64, size);
        assert_eq!((file.size, file.name), (size as u64, size.to_string().into_bytes()));
        assert_eq!(file.md5, Md5::of(&data).to_string(), "{size}: 32 lower-case digits");
        assert!(file.data == data, "{size}");
    }
}

#[test]
fn five_gib_are_streamed_without_being_held() {
    /// MD5 of 5 GiB of zeros.
    const MD5: &str = "ec4bcc8776ea04479b786e063a9ace45";
    const SIZE: u64 = 5 << 30;
    let site = Site::new();
    File::create(site.root("huge")).unwrap().set_len(SIZE).unwrap();
    let server = site.serve(&[]);
    let mut stream = server.connect();
    // Hashing 5 GiB takes a while beside other tests.
    stream.set_read_timeout(Some(PATIENCE * 6)).unwrap();
    stream.write_all(&request(b"huge")).unwrap();
    let mut head = [0; 2 + 4 + 4 + 8 + 32];
    stream.read_exact(&mut head).unwrap();
    let (name, size, md5, _) = raw::split(&head).unwrap();
    assert_eq!((name, size, md5.as_str()), (b"huge".as_slice(), SIZE, MD5));
    let mut buffer = vec![0; 4 * MIB];
    let zeros = vec![0; buffer.len()];
    let mut done = 0;
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        assert!(buffer[..count] == zeros[..count], "only zeros");
        done += count as u64;
    }
    assert_eq!(done, SIZE);
    let peak = server.peak_memory();
    assert!(peak < 64 << 20, "the server held {peak} bytes");
}

#[test]
fn names_with_spaces_unicode_255_bytes_and_folders_are_served() {
    let site = Site::new();
    let longest = format!("{}.bin", "é".repeat(125)) + "x";
    assert_eq!(longest.len(), 255);
    let names = [
        "a b  c.txt",
        " lead and trail ",
        "Ünïcödé – 日本語 🦀.txt",
        "-rf",
        "...",
        "..x",
        "a\\b",
        "C:\\x",
        "%2e%2e%2f",
        "new\nline",
        "~",
        "*",
        "a/b/c/d/e.txt",
        "?question",
        ".hidden",
        &longest,
    ];
    for name in names {
        site.file(name, name.as_bytes());
    }
    let server = site.serve(&[]);
    for name in names {
        let Answer::Whole(file) = fetch(server.address, name) else { panic!("{name}") };
        assert_eq!(file.data, name.as_bytes());
        assert_eq!(file.name, name.rsplit('/').next().unwrap().as_bytes());
    }
}

#[test]
fn bytes_after_the_request_are_ignored() {
    let site = Site::new();
    let data = noise(5, 3 * MIB);
    site.file("large", &data);
    site.file("small", &data[..100]);
    let server = site.serve(&[]);
    for (name, wanted) in [("large", &data[..]), ("small", &data[..100])] {
        for trailing in [1, 100, 70_000] {
            let mut stream = server.connect();
            stream.write_all(&[request(name.as_bytes()), vec![0; trailing]].concat()).unwrap();
            let Answer::Whole(file) = finish(stream) else { panic!("{name} and {trailing} bytes") };
            assert!(file.data == wanted);
        }
    }
}

#[test]
fn megabytes_after_the_request_cost_a_slow_reader_nothing() {
    let site = Site::new();
    let data = noise(6, MIB);
    site.file("file", &data);
    let server = site.serve(&[]);
    let mut stream = raw::connect_narrow(server.address);
    let mut flood = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let _ = flood.write_all(&request(b"file"));
        let _ = flood.write_all(&vec![b'x'; 8 * MIB]);
    });
    // All has been written, and the server says farewell, before half has been read.
    let mut bytes = vec![0; MIB / 4];
    stream.read_exact(&mut bytes).unwrap();
    server.wait_log("Progress to");
    let rest = raw::read_all(stream);
    bytes.extend(rest);
    writer.join().unwrap();
    let Answer::Whole(file) = raw::parse(bytes) else { panic!("cut by what the client said too much") };
    assert!(file.data == data);
}

#[test]
fn files_dropped_in_removed_and_replaced_while_it_runs_are_seen() {
    let site = Site::new();
    let server = site.serve(&[]);
    assert!(matches!(fetch(server.address, "late/file"), Answer::Refused(_)));
    let path = site.file("late/file", b"first");
    assert_eq!(fetch_whole(server.address, "late/file"), b"first");
    // At once, in place, of the same size: no remembered digest may survive it.
    for round in 0..20_u8 {
        let data = noise(round.into(), 70_000);
        fs::write(&path, &data).unwrap();
        assert!(fetch_whole(server.address, "late/file") == data, "round {round}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(fetch(server.address, "late/file"), Answer::Refused(_)));
}

fn refusal(server: &Server, name: &[u8]) -> String {
    match fetch(server.address, name) {
        Answer::Refused(text) => text,
        other => panic!("{}: {}", name.escape_ascii(), brief(&other)),
    }
}

#[test]
fn a_refusal_has_the_original_s_words_and_at_most_1024_bytes() {
    let site = Site::new();
    fs::create_dir(site.root("folder")).unwrap();
    let server = site.serve(&[]);
    for name in
        ["missing.txt", "", ".", "..", "/etc/passwd", "../x", "folder", "folder/", "日本 x", "?oneport/3?"]
    {
        assert_eq!(refusal(&server, name.as_bytes()), format!("File '{name}' not found on server"));
    }
    assert_eq!(refusal(&server, b"a\0b\n\x1b[2J"), "File 'a\\u{0}b\\n\\u{1b}[2J' not found on server");
    for length in [900, 1024, 4096, 4097, 60_000] {
        let text = refusal(&server, &vec![b'x'; length]);
        assert!(text.starts_with("File 'xxx") && text.ends_with("' not found on server"), "{text}");
        assert!(text.len() <= 1024, "{} bytes", text.len());
    }
}

#[test]
fn a_name_announced_as_huge_is_answered_without_waiting_for_it() {
    let site = Site::new();
    let server = site.serve(&[]);
    // The largest length that is still the native protocol's.
    let mut stream = server.connect();
    stream.write_all(&[&[0, 0xff, 0xff, 0xff][..], &[b'x'; 256]].concat()).unwrap();
    assert!(matches!(finish(stream), Answer::Refused(_)));
}
