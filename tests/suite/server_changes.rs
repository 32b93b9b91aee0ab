//! Files that change while they are sent: what was only replaced or removed ends whole, what was
//! grown, shortened or written to never ends as a clean transfer.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::raw::{self, Answer, noise, request};
use crate::serving::{Server, Site};

/// Size of the files that change: far more than the sockets of both ends hold.
const SIZE: usize = 40 << 20;
/// What is left to be read, at least, when the change happens: more than the sockets hold, so that
/// the server has not sent the last of it.
const LEFT_MIN: usize = 16 << 20;
/// How often each change is tried.
const ROUNDS: u64 = 4;

/// Asks for `name` through a narrow socket and reads its first `count` bytes, header included.
fn begin(server: &Server, name: &str, count: usize) -> (TcpStream, Vec<u8>) {
    let mut stream = raw::connect_narrow(server.address);
    stream.write_all(&request(name.as_bytes())).unwrap();
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    (stream, bytes)
}

/// Reads what comes, after some of it has been read.
fn end((stream, mut bytes): (TcpStream, Vec<u8>)) -> Vec<u8> {
    bytes.extend(raw::read_all(stream));
    bytes
}

/// Changes a file in the middle of several transfers; none of them may end as if it were whole.
fn never_ends_clean(change: impl Fn(&Path, &mut fastrand::Rng)) {
    let site = Site::new();
    let server = site.serve(&[]);
    let mut chance = fastrand::Rng::with_seed(7);
    let data = noise(8, SIZE);
    for round in 0..ROUNDS {
        let name = format!("file{round}");
        let path = site.file(&name, &data);
        let running = begin(&server, &name, chance.usize(100..SIZE - LEFT_MIN));
        change(&path, &mut chance);
        let bytes = end(running);
        let (_, size, _, got) = raw::split(&bytes).unwrap();
        assert_eq!(size, SIZE as u64);
        assert!(got.len() < SIZE, "round {round}: the transfer ended as if it were whole");
        server.wait_log(&format!("Transfer of '{name}' to"));
    }
    let log = server.log();
    assert!(!log.contains("sent successfully"), "{log}");
    assert_eq!(log.matches("the file changed while it was being sent").count(), ROUNDS as usize, "{log}");
    // It is served again as it is now.
    let path = site.root("file0");
    assert!(raw::fetch_whole(server.address, "file0") == fs::read(path).unwrap());
}

#[test]
fn a_file_that_grows_while_it_is_sent_never_ends_clean() {
    never_ends_clean(|path, _| {
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
    });
}

#[test]
fn a_file_that_is_truncated_while_it_is_sent_never_ends_clean() {
    never_ends_clean(|path, chance| {
        let size = chance.u64(0..SIZE as u64);
        OpenOptions::new().write(true).open(path).unwrap().set_len(size).unwrap();
    });
}

#[test]
fn a_file_that_is_written_to_while_it_is_sent_never_ends_clean() {
    never_ends_clean(|path, chance| {
        let at = chance.u64(0..SIZE as u64);
        OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"!", at).unwrap();
    });
}

#[test]
fn a_file_that_is_rewritten_with_the_same_size_while_it_is_sent_never_ends_clean() {
    never_ends_clean(|path, _| fs::write(path, noise(9, SIZE)).unwrap());
}

#[test]
fn a_file_that_is_replaced_or_removed_while_it_is_sent_ends_whole_as_it_was() {
    let site = Site::new();
    let server = site.serve(&[]);
    let old = noise(10, SIZE);
    for (name, replace) in [("replaced", true), ("removed", false)] {
        let path = site.file(name, &old);
        let running = begin(&server, name, 5 << 20);
        if replace {
            File::create(site.path().join("new")).unwrap().write_all(b"the new one").unwrap();
            fs::rename(site.path().join("new"), &path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let Answer::Whole(file) = raw::parse(end(running)) else { panic!("{name}: not whole") };
        assert!(file.data == old, "{name}: the old version");
        server.wait_log(&format!("File '{name}' sent successfully"));
    }
    assert_eq!(raw::fetch_whole(server.address, "replaced"), b"the new one");
    assert!(matches!(raw::fetch(server.address, "removed"), Answer::Refused(_)));
}
