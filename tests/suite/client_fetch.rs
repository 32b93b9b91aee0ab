//! What a client fetches, and where it puts it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::harness::{Place, bytes};
use crate::machine::skipped;
use crate::original::{Files, Original};
use crate::scripted::{Scripted, answer, header, until_gone};

const MIB: usize = 1 << 20;

#[test]
fn files_of_every_size_arrive_whole_from_an_original_server() {
    let sizes = [0, 1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 20 * MIB + 17];
    let files: Files = sizes.iter().map(|&size| (format!("f{size}"), bytes(size as u64, size))).collect();
    let server = Original::serving(files.clone());
    let place = Place::new();
    for (name, data) in &files {
        let ended = place.fetch(name, server.address, &[]).end().expect(0);
        assert!(place.read(format!("client_downloads/{name}")) == *data, "{name} differs");
        let said = ended.stdout();
        assert!(said.starts_with(&format!("client_downloads/{name}: ")), "{said}");
        assert!(said.ends_with("MD5 verified\n") && said.lines().count() == 1, "{said}");
    }
    assert_eq!(place.tree().len(), sizes.len() + 1, "something else was left: {:?}", place.tree());
}

#[test]
fn an_answer_may_come_in_any_pieces() {
    let data = bytes(1, 300);
    let whole = answer("f", &data);
    for piece in [1, 2, 3, 5, 7, 47, whole.len()] {
        let pieces: Vec<Vec<u8>> = whole.chunks(piece).map(<[u8]>::to_vec).collect();
        let server = Scripted::version_1(move |mut stream, _, _| {
            stream.set_nodelay(true).unwrap();
            for piece in &pieces {
                stream.write_all(piece).unwrap();
                std::thread::yield_now();
            }
        });
        let place = Place::new();
        place.fetch("f", server.address, &["--no-sync"]).end().expect(0);
        assert_eq!(place.read("client_downloads/f"), data);
    }
}

#[test]
fn a_name_is_asked_for_as_it_is_and_saved_under_its_last_part() {
    let server = Scripted::serving(b"data");
    let long = "x".repeat(255);
    for (asked, saved) in [
        ("two words.txt", "two words.txt"),
        ("日本 – ü.txt", "日本 – ü.txt"),
        ("a/b/c.txt", "c.txt"),
        ("/etc/passwd", "passwd"),
        ("../../up", "up"),
        (&long, &long),
    ] {
        let place = Place::new();
        place.fetch(asked, server.address, &[]).end().expect(0);
        assert_eq!(place.tree(), ["client_downloads/", &format!("client_downloads/{saved}")]);
        assert_eq!(server.requests().last().unwrap(), asked);
    }
}

#[test]
fn a_name_that_cannot_be_saved_is_refused_before_anything_is_sent() {
    let server = Scripted::serving(b"data");
    let place = Place::new();
    for name in ["", "..", ".", "a/..", "a/", &"x".repeat(256), &"x/".repeat(2049)] {
        place.fetch(name, server.address, &[]).end().expect(2);
    }
    assert!(server.requests().is_empty());
    // Under another name they can be asked for.
    place.fetch(&"x".repeat(256), server.address, &["-o", "short"]).end().expect(0);
    assert_eq!(place.tree(), ["short"]);
}

#[test]
fn output_goes_where_it_is_told() {
    let server = Scripted::serving(b"data");
    for (options, expected) in [
        (vec!["-o", "mine"], "mine"),
        (vec!["-o", "here"], "here/f"),
        (vec!["-o", "new/deep/"], "new/deep/f"),
        (vec!["-o", "new/deep/mine"], "new/deep/mine"),
        (vec!["-d", "new/deep"], "new/deep/f"),
    ] {
        let place = Place::new();
        fs::create_dir(place.path("here")).unwrap();
        let ended = place.fetch("x/f", server.address, &options).end().expect(0);
        assert_eq!(place.read(expected), b"data", "{options:?}");
        assert!(ended.stdout().starts_with(&format!("{expected}: 4 B in ")), "{}", ended.stdout());
    }
}

#[test]
fn standard_output_gets_the_data_and_nothing_else() {
    let data = bytes(3, 3 * MIB);
    let server = Scripted::serving(&data);
    for output in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let place = Place::new();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let running = place.fetch("f", server.address, &["-o", output]).stdout_to(writer).start();
        let mut piped = Vec::new();
        reader.read_to_end(&mut piped).unwrap();
        running.end().expect(0).says("MD5 verified");
        assert!(piped == data, "{output}: {} bytes came through a pipe", piped.len());
        assert!(place.tree().is_empty());
        // A file behind it is no file to be replaced.
        let ended = place.fetch("f", server.address, &["-o", output]).end().expect(0);
        assert!(ended.stdout == data, "{output}: {} bytes came into a file", ended.stdout.len());
    }
}

#[test]
fn a_stream_gets_nothing_that_is_not_verified() {
    let wrong = [header(b"f", 4, "00000000000000000000000000000000"), b"data".to_vec()].concat();
    let server = Scripted::saying(wrong);
    let place = Place::new();
    let ended = place.fetch("f", server.address, &["-o", "-"]).end().expect(32);
    assert!(ended.stdout.is_empty());
    assert!(place.tree().is_empty());
}

#[test]
fn pipes_and_devices_are_written_and_not_replaced() {
    let server = Scripted::serving(b"data");
    let place = Place::new();
    place.fetch("f", server.address, &["-o", "/dev/null"]).end().expect(0);
    let pipe = place.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let running = place.fetch("f", server.address, &["-o", "pipe"]).start();
    assert_eq!(fs::read(&pipe).unwrap(), b"data");
    running.end().expect(0);
    assert_eq!(place.tree(), ["pipe"]);
}

#[test]
fn a_pipe_that_nobody_reads_ends_at_ctrl_c() {
    let server = Scripted::serving(b"data");
    let place = Place::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, place.path("pipe"), rustix::fs::Mode::RWXU).unwrap();
    let running = place.fetch("f", server.address, &["-o", "pipe"]).start();
    running.await_stderr("100%");
    running.signal(rustix::process::Signal::INT);
    running.end().expect(130);
}

#[test]
fn never_leaves_what_is_there_and_does_not_even_ask() {
    let server = Scripted::serving(b"new");
    let place = Place::new();
    place.write("client_downloads/f", "old");
    place.fetch("f", server.address, &["--overwrite", "never"]).end().expect(13).says("exists");
    assert_eq!(place.read("client_downloads/f"), b"old");
    assert!(server.requests().is_empty());
    place.fetch("g", server.address, &["--overwrite", "never"]).end().expect(0);
    assert_eq!(place.read("client_downloads/g"), b"new");
}

#[test]
fn never_leaves_what_came_while_the_file_was_received() {
    let place = Place::new();
    let target = place.path("client_downloads/f");
    let server = Scripted::version_1(move |mut stream, name, _| {
        let answer = answer(name, b"new");
        stream.write_all(&answer[..answer.len() - 1]).unwrap();
        crate::harness::await_for("the part file", || target.parent().unwrap().is_dir().then_some(()));
        fs::write(&target, "other").unwrap();
        stream.write_all(&answer[answer.len() - 1..]).unwrap();
    });
    place.fetch("f", server.address, &["--overwrite", "never"]).end().expect(13);
    assert_eq!(place.read("client_downloads/f"), b"other");
    assert_eq!(place.tree(), ["client_downloads/", "client_downloads/f"]);
}

#[test]
fn different_transfers_only_what_differs() {
    // Sends no data: the client must not need any.
    let server = Scripted::version_1(|mut stream, _, _| {
        let whole = answer("f", b"same");
        stream.write_all(&whole[..whole.len() - 4]).unwrap();
        until_gone(&stream);
    });
    let place = Place::new();
    place.write("client_downloads/f", "same");
    let ended = place.fetch("f", server.address, &["--overwrite", "different"]).end().expect(0);
    assert!(ended.stdout().contains("unchanged"), "{}", ended.stdout());
    let server = Scripted::serving(b"same");
    for other in ["sane", "longer", ""] {
        place.write("client_downloads/f", other);
        place.fetch("f", server.address, &["--overwrite", "different"]).end().expect(0);
        assert_eq!(place.read("client_downloads/f"), b"same");
    }
}

#[test]
fn ctrl_c_ends_the_comparison_of_a_large_file() {
    // A hole: it takes no room, but its digest takes long.
    const SIZE: u64 = 32 << 30;
    let server = Scripted::version_1(|mut stream, _, _| {
        stream.write_all(&header(b"f", SIZE, &"0".repeat(32))).unwrap();
        until_gone(&stream);
    });
    let place = Place::new();
    place.write("client_downloads/f", "");
    fs::File::options().write(true).open(place.path("client_downloads/f")).unwrap().set_len(SIZE).unwrap();
    let running = place.fetch("f", server.address, &["--overwrite", "different", "-v"]).start();
    running.await_stderr(&format!("({SIZE} bytes)"));
    let began = std::time::Instant::now();
    running.signal(rustix::process::Signal::INT);
    running.end().expect(130);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_replaced_file_keeps_its_permissions() {
    let server = Scripted::serving(b"new");
    let place = Place::new();
    place.write("client_downloads/f", "old");
    fs::set_permissions(place.path("client_downloads/f"), fs::Permissions::from_mode(0o4604)).unwrap();
    place.fetch("f", server.address, &[]).end().expect(0);
    assert_eq!(fs::metadata(place.path("client_downloads/f")).unwrap().permissions().mode() & 0o7777, 0o604);
}

#[test]
fn a_folder_in_the_target_s_place_is_told_before_connecting() {
    let server = Scripted::serving(b"new");
    let place = Place::new();
    fs::create_dir_all(place.path("client_downloads/f")).unwrap();
    place.fetch("f", server.address, &[]).end().expect(11).says("client_downloads/f");
    assert!(server.requests().is_empty());
}

#[test]
fn one_of_several_that_fails_does_not_keep_the_others_back() {
    let files = [("a", "1"), ("c", "3")].map(|(name, data)| (name.to_owned(), data.into()));
    let server = Original::serving(Files::from(files));
    let place = Place::new();
    let ended = place.get(server.address, &["a", "b", "c"]).end().expect(23).says("1 of 3 files failed: b");
    assert_eq!(ended.stdout().lines().count(), 2);
    assert_eq!(place.tree(), ["client_downloads/", "client_downloads/a", "client_downloads/c"]);
}

#[test]
fn two_files_for_one_target_are_refused_at_once() {
    let server = Scripted::serving(b"data");
    let place = Place::new();
    for arguments in [["x/a", "y/a"].as_slice(), &["a", "./a"], &["a", "b", "-o", "c"]] {
        place.get(server.address, arguments).end().expect(2);
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_run_ends_when_there_is_no_server_for_any_file() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let place = Place::new();
    let ended = place.get(address, &["a", "b", "c"]).end().expect(5);
    assert_eq!(ended.stderr.matches("cannot connect").count(), 1, "{}", ended.stderr);
}

#[test]
fn ipv6_addresses_are_understood_in_every_form() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return skipped("ipv6_addresses_are_understood_in_every_form", "there is no IPv6 here");
    };
    let port = listener.local_addr().unwrap().port();
    let _server = Scripted::version_1_on(listener, |mut stream, name, _| {
        drop(stream.write_all(&answer(name, b"data")))
    });
    let (both, port) = (format!("[::1]:{port}"), port.to_string());
    for arguments in [vec!["f", "::1", &port], vec!["f", "[::1]", &port], vec!["get", "-s", &both, "f"]] {
        let place = Place::new();
        place.client(&arguments).end().expect(0);
        assert_eq!(place.read("client_downloads/f"), b"data");
    }
}

#[test]
fn a_server_that_stays_open_after_the_last_byte_does_not_hold_the_file_up() {
    let server = Scripted::version_1(|mut stream, name, _| {
        stream.write_all(&answer(name, b"data")).unwrap();
        until_gone(&stream);
    });
    let place = Place::new();
    let began = std::time::Instant::now();
    place.fetch("f", server.address, &["--timeout", "30s"]).end().expect(0);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
