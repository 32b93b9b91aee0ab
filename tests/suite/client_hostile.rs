//! Servers that lie, and what they gain by it: nothing.

use std::io::Write as _;
use std::time::{Duration, Instant};

use oneport::digest::Md5;

use crate::harness::{Place, await_for, bytes};
use crate::scripted::{Scripted, answer, header, until_gone};

const MD5_OF_DATA: &str = "8d777f385d3dfec8815d20f7496026dc";

/// Runs a client against the answer, over what is there already; its target must stay as it was.
#[track_caller]
fn gains_nothing(answer: Vec<u8>, code: i32) -> crate::harness::Ended {
    let server = Scripted::saying(answer);
    let place = Place::new();
    place.write("client_downloads/f", "old");
    let ended = place.fetch("f", server.address, &[]).end().expect(code);
    assert_eq!(place.read("client_downloads/f"), b"old");
    assert_eq!(place.tree(), ["client_downloads/", "client_downloads/f"]);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout());
    ended
}

#[test]
fn the_server_s_name_for_the_file_is_never_a_path() {
    assert_eq!(Md5::of(b"data").to_string(), MD5_OF_DATA);
    for name in ["/tmp/oneport-canary", "../../up", "a/b", "..", "", "\0", "\x1b[2J\x07\u{202e}", "f\n100%"] {
        let server = Scripted::saying([header(name.as_bytes(), 4, MD5_OF_DATA), b"data".to_vec()].concat());
        let place = Place::new();
        let ended = place.fetch("f", server.address, &["-v"]).end().expect(0);
        assert_eq!(place.tree(), ["client_downloads/", "client_downloads/f"], "{name:?}");
        assert!(!ended.stdout().contains('\x1b'));
        for log in place.logs() {
            assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "{log:?}");
            assert!(!log.lines().any(|line| line.starts_with("100%")), "{log}");
        }
    }
    assert!(!std::path::Path::new("/tmp/oneport-canary").exists());
}

#[test]
fn the_words_of_a_refusal_cannot_steer_the_terminal_and_are_final() {
    let text = b"ERROR\x1b]0;owned\x07\x1b[2Jgo away\n\xff\xc2\x9b31m".to_vec();
    let ended = gains_nothing(text, 4).says("go away");
    assert!(!ended.stderr.contains('\u{9b}'));
    gains_nothing(b"ERRORFile 'f' not found on server".to_vec(), 3);
    gains_nothing(b"ERROR".to_vec(), 4);
}

#[test]
fn too_few_and_too_many_bytes_are_noticed() {
    gains_nothing([header(b"f", 5, MD5_OF_DATA), b"data".to_vec()].concat(), 6);
    gains_nothing([header(b"f", 3, MD5_OF_DATA), b"data".to_vec()].concat(), 8);
    gains_nothing([header(b"f", 0, &Md5::of(b"").to_string()), b"d".to_vec()].concat(), 8);
    // The excess comes alone, and late.
    let data = bytes(1, 2 << 20);
    let server = Scripted::version_1(move |mut stream, name, _| {
        stream.write_all(&answer(name, &data)).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let _ = stream.write_all(b"x");
        until_gone(&stream);
    });
    let place = Place::new();
    place.fetch("f", server.address, &[]).end().expect(8);
    assert!(place.tree().is_empty(), "{:?}", place.tree());
}

#[test]
fn wrong_bytes_are_noticed() {
    gains_nothing([header(b"f", 4, MD5_OF_DATA), b"dat4".to_vec()].concat(), 32);
    let upper = [header(b"f", 4, &MD5_OF_DATA.to_uppercase()), b"data".to_vec()].concat();
    let server = Scripted::saying(upper);
    Place::new().fetch("f", server.address, &[]).end().expect(0);
}

#[test]
fn sizes_that_no_file_or_no_disk_has_are_refused_before_the_data() {
    for size in [1 << 63, u64::MAX] {
        gains_nothing([header(b"f", size, MD5_OF_DATA), b"data".to_vec()].concat(), 8);
    }
    for size in [(1 << 63) - 1, 1 << 60] {
        gains_nothing([header(b"f", size, MD5_OF_DATA), b"data".to_vec()].concat(), 9);
    }
}

#[test]
fn garbage_is_no_answer() {
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\0\0\0\0", b"ok", b"ERR0R", b"\x1b[2J"] {
        gains_nothing(garbage.to_vec(), 8);
    }
    gains_nothing([header(b"f", 4, &"g".repeat(32)), b"data".to_vec()].concat(), 8);
    gains_nothing([&b"OK\xff\xff\xff\xff"[..], &[b'x'; 9000]].concat(), 8);
    gains_nothing([&b"OK\x00\x00\x10\x01"[..], &[b'x'; 9000]].concat(), 8);
}

#[test]
fn a_connection_cut_at_any_byte_is_a_loss_and_leaves_nothing() {
    let whole = answer("f", b"data");
    for cut in 0..whole.len() {
        gains_nothing(whole[..cut].to_vec(), 6);
    }
}

#[test]
fn endless_talk_is_cut() {
    // Endless data behind a small file, endless words of a refusal.
    for (beginning, code) in [(answer("f", b"data"), 8), (b"ERROR".to_vec(), 4)] {
        let server = Scripted::version_1(move |mut stream, _, _| {
            let _ = stream.write_all(&beginning);
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let place = Place::new();
        place.fetch("f", server.address, &[]).end().expect(code);
        assert!(place.tree().is_empty(), "{:?}", place.tree());
    }
}

#[test]
fn a_header_that_comes_byte_by_byte_for_ever_is_given_up() {
    let whole = header(&[b'x'; 4096], 4, MD5_OF_DATA);
    let server = Scripted::version_1(move |mut stream, _, _| {
        stream.set_nodelay(true).unwrap();
        for byte in &whole {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let began = Instant::now();
    Place::new().fetch("f", server.address, &["--timeout", "500ms"]).end().expect(28);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_refusal_stands_however_slowly_its_words_come() {
    let server = Scripted::version_1(|mut stream, _, _| {
        stream.write_all(b"ERRORno").unwrap();
        until_gone(&stream);
    });
    let ended = Place::new().fetch("f", server.address, &["--timeout", "300ms"]).end().expect(4);
    ended.says("no");
}

#[test]
fn silence_at_any_point_is_a_timeout() {
    let whole = answer("f", &bytes(1, 100_000));
    for said in [0, 1, 2, 20, 60, 50_000] {
        let beginning = whole[..said].to_vec();
        let server = Scripted::version_1(move |mut stream, _, _| {
            stream.write_all(&beginning).unwrap();
            until_gone(&stream);
        });
        let place = Place::new();
        place.fetch("f", server.address, &["--timeout", "300ms"]).end().expect(28).says("--timeout");
        assert!(place.tree().is_empty(), "{:?}", place.tree());
    }
}

#[test]
fn a_file_of_gigabytes_does_not_need_as_much_memory() {
    const SIZE: u64 = 1 << 30;
    let server = Scripted::version_1(|mut stream, _, _| {
        stream.write_all(&header(b"f", SIZE, MD5_OF_DATA)).unwrap();
        let chunk = vec![0; 1 << 20];
        for _ in 0..256 {
            if stream.write_all(&chunk).is_err() {
                return;
            }
        }
        until_gone(&stream);
    });
    let place = Place::new();
    let running = place.fetch("f", server.address, &[]).start();
    running.await_stderr("20%");
    let peak = await_for("its memory", || running.peak_memory());
    assert!(peak < 64 << 20, "{peak} bytes");
}
