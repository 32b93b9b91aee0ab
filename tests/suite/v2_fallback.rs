//! Which version is spoken with whom, and what the client does with each: the fall back to version 1,
//! questions, checksums, streams, interrupted and resumed fetches.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use oneport::digest::Md5;
use rustix::process::Signal;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::harness::{Place, bytes};
use crate::original::{Files, Original};
use crate::raw::{self, noise};
use crate::scripted::{Scripted, answer, until_gone};
use crate::serving::{Site, wait_settled};
use crate::v2_peer::{self, HELLO, MIB, Speaker, server_that_stops, welcome};

/// Frames of an answer that hold FILE and at least two whole blocks, of which each is four frames.
const TWO_BLOCKS: usize = 12;
const SAVED: &str = "client_downloads/f";

/// What a server does with a hello that it does not understand.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Error,
    BareError,
    Ok,
    HalfOk,
    Close,
    Reset,
    Silence,
}

impl Manner {
    const SAID: [Self; 4] = [Self::Error, Self::BareError, Self::Ok, Self::HalfOk];
    const UNSAID: [Self; 3] = [Self::Close, Self::Reset, Self::Silence];

    fn meet(self, mut stream: TcpStream, name: &str) {
        let said = match self {
            Self::Error => format!("ERRORFile '{name}' not found on server").into_bytes(),
            Self::BareError => b"ERROR".to_vec(),
            Self::Ok => answer("x", b"something else"),
            Self::HalfOk => b"O".to_vec(),
            Self::Close => return,
            Self::Reset => return raw::reset(stream),
            Self::Silence => return until_gone(&stream),
        };
        let _ = stream.write_all(&said);
    }

    /// A server of version 1 with this manner.
    fn server(self, data: &[u8]) -> Scripted {
        let data = data.to_vec();
        Scripted::start(move |mut stream, name, _| {
            if name.starts_with(HELLO) {
                return self.meet(stream, name);
            }
            let _ = stream.write_all(&answer(name, &data));
        })
    }
}

/// The requests of a server, hellos as `?`.
fn asked(server: &Scripted) -> Vec<String> {
    let shorten = |name: String| if name.starts_with(HELLO) { "?".to_owned() } else { name };
    server.requests().into_iter().map(shorten).collect()
}

/// Whether a part and its journal are there.
fn has_part(place: &Place) -> bool {
    place.tree().iter().filter(|name| name.contains(".oneport-")).count() == 2
}

/// Fetches as much of the data as leaves a part.
fn leave_part(place: &Place, data: &[u8]) {
    let server = server_that_stops(data, true, TWO_BLOCKS);
    place.fetch("f", server.address, &[]).end().expect(6);
    assert!(has_part(place), "{:?}", place.tree());
}

#[test]
fn whatever_a_server_of_version_1_makes_of_a_hello_it_is_asked_again_at_once_without_a_retry() {
    for manner in Manner::SAID.into_iter().chain(Manner::UNSAID) {
        let server = manner.server(b"data");
        let place = Place::new();
        let ended = place.fetch("f", server.address, &["--retries", "0"]).end().expect(0);
        assert_eq!(place.read(SAVED), b"data", "{manner:?}");
        assert_eq!(asked(&server), ["?", "f"], "{manner:?}");
        assert!(!ended.stderr.contains("retry"), "{manner:?}: {}", ended.stderr);
        assert_eq!(place.tree(), ["client_downloads/", SAVED], "{manner:?}");
    }
}

#[test]
fn a_server_that_said_version_1_is_asked_for_version_2_once_and_a_silent_one_each_time() {
    for (manner, wanted) in [
        (Manner::Error, &["?", "a", "b", "c"][..]),
        (Manner::Ok, &["?", "a", "b", "c"]),
        (Manner::Close, &["?", "a", "?", "b", "?", "c"]),
    ] {
        let server = manner.server(b"data");
        let place = Place::new();
        place.get(server.address, &["a", "b", "c"]).end().expect(0);
        assert_eq!(asked(&server), wanted, "{manner:?}");
    }
}

#[test]
fn a_first_frame_that_breaks_off_is_a_loss_and_not_another_version() {
    for cut in [1, 4, 5, 20] {
        let server = Scripted::start(move |mut stream, _, before| {
            if before == 0 {
                let _ = stream.write_all(&welcome()[..cut]);
                return;
            }
            until_gone(&stream);
        });
        let place = Place::new();
        place.fetch("f", server.address, &[]).end().expect(6).says("lost");
        assert_eq!(asked(&server), ["?"], "{cut}");
        assert!(place.tree().is_empty(), "{:?}", place.tree());
    }
}

#[test]
fn beside_a_part_a_server_that_says_nothing_is_tried_again_in_version_2() {
    let data = bytes(1, 5 * MIB + 7);
    for manner in Manner::UNSAID {
        let place = Place::new();
        leave_part(&place, &data);
        let server = manner.server(b"of version 1");
        place.fetch("f", server.address, &["--retries", "1"]).end().expect(6).says("did not answer");
        assert_eq!(asked(&server), ["?", "?"], "{manner:?}");
        assert!(has_part(&place), "{manner:?}: {:?}", place.tree());
    }
}

#[test]
fn beside_a_part_a_server_that_says_version_1_is_believed() {
    let data = bytes(1, 5 * MIB + 7);
    let place = Place::new();
    leave_part(&place, &data);
    let server = Manner::Error.server(&data);
    place.fetch("f", server.address, &[]).end().expect(0);
    assert_eq!(asked(&server), ["?", "f"]);
    assert!(place.read(SAVED) == data);
    assert_eq!(place.tree(), ["client_downloads/", SAVED]);
}

#[test]
fn the_version_can_be_demanded() {
    let site = Site::new();
    site.file("f", b"data");
    let real = site.serve(&[]);
    let place = Place::new();
    place.fetch("f", real.address, &["--protocol", "v1"]).end().expect(0);
    real.wait_log(&format!(", MD5 {}", Md5::of(b"data")));
    place.fetch("f", real.address, &["--protocol", "v2"]).end().expect(0);
    real.wait_log(", BLAKE3 ");
    for (manner, code) in [(Manner::Error, 7), (Manner::Ok, 7), (Manner::Close, 6), (Manner::Silence, 6)] {
        let old = manner.server(b"data");
        place.fetch("f", old.address, &["--protocol", "v2"]).end().expect(code);
        assert_eq!(asked(&old), ["?"], "{manner:?}");
    }
    let old = Manner::Error.server(b"data");
    place.fetch("f", old.address, &["--protocol", "v1"]).end().expect(0);
    assert_eq!(asked(&old), ["f"]);
}

#[test]
fn a_server_of_version_1_cannot_be_asked_questions_and_the_client_says_so() {
    let original = Original::serving(Files::from([("f".to_owned(), b"data".to_vec())]));
    let address = original.address.to_string();
    let place = Place::new();
    place.write(SAVED, b"data");
    for arguments in
        [&["stat", "-s", &address, "f"][..], &["verify", "-s", &address, "f"], &["ping", "-s", &address]]
    {
        let ended = place.client(arguments).end().expect(7).says("speaks only version 1 of the protocol");
        assert!(ended.stdout.is_empty() && !ended.stderr.contains("retry"), "{}", ended.stderr);
        let ended = place.client(&[arguments, &["--json"]].concat()).end().expect(7);
        let said: Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(
            (&said["ok"], &said["code"], &said["exit_status"]),
            (&false.into(), &"unsupported".into(), &7.into())
        );
    }
}

#[test]
fn questions_are_answered_for_people_and_for_programs() {
    let site = Site::new();
    let data = noise(3, 2 * MIB + 5);
    site.file("sub/f", &data);
    let server = site.serve(&[]);
    let address = server.address.to_string();
    let root = v2_peer::root_of(&data).to_string();
    let place = Place::new();
    let ask = |arguments: &[&str]| {
        place.client(&[&arguments[..1], &["-s", &address], &arguments[1..]].concat()).end()
    };
    let json = |arguments: &[&str], code: i32| -> Value {
        serde_json::from_slice(&ask(&[arguments, &["--json"]].concat()).expect(code).stdout).unwrap()
    };

    let said = ask(&["stat", "sub/f"]).expect(0).stdout();
    assert!(
        said.starts_with("sub/f\n") && said.contains(&root) && said.contains(&data.len().to_string()),
        "{said}"
    );
    let said = json(&["stat", "sub/f"], 0);
    assert_eq!(
        (&said["ok"], &said["size"], &said["blake3"]),
        (&true.into(), &data.len().into(), &root.as_str().into())
    );
    ask(&["stat", "missing"]).expect(3).says("no file 'missing'");
    assert_eq!(json(&["stat", "missing"], 3)["code"], "not-found");

    place.write(SAVED, &data);
    assert!(ask(&["verify", "sub/f"]).expect(0).stdout().contains("same"));
    assert_eq!(json(&["verify", "sub/f"], 0)["ok"], true);
    place.write("other", &data[1..]);
    ask(&["verify", "sub/f", "-o", "other"]).expect(32).says("is not the server's file");
    let said = json(&["verify", "sub/f", "-o", "other"], 32);
    assert_eq!((&said["ok"], &said["exit_status"]), (&false.into(), &32.into()));
    ask(&["verify", "sub/f", "-o", "nothing"]).expect(11).says("cannot read");

    let said = ask(&["ping", "--count", "1"]).expect(0).stdout();
    assert!(said.contains("answer from") && said.contains("1 answers"), "{said}");
    let said = json(&["ping", "--count", "1"], 0);
    assert_eq!(said["milliseconds"].as_array().unwrap().len(), 1);
}

#[test]
fn a_checksum_that_the_user_knows_is_compared_in_each_version_to_a_file_and_to_a_stream() {
    let site = Site::new();
    let data = noise(4, 2 * MIB + 11);
    site.file("f", &data);
    let server = site.serve(&[]);
    let sha256 = Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let right = [
        format!("blake3={}", v2_peer::root_of(&data)),
        format!("sha256={sha256}"),
        format!("md5={}", Md5::of(&data)),
    ];
    for protocol in ["v1", "v2"] {
        for checksum in &right {
            let end = checksum.len() - 1;
            let wrong = format!("{}{}", &checksum[..end], if checksum.ends_with('0') { '1' } else { '0' });
            let place = Place::new();
            let fetch = |checksum: &str, options: &[&str]| {
                let all = [&["--protocol", protocol, "--checksum", checksum], options].concat();
                place.fetch("f", server.address, &all).end()
            };
            place.write(SAVED, "old");
            fetch(&wrong, &[]).expect(32).says("--checksum");
            assert_eq!(place.read(SAVED), b"old", "{protocol} {wrong}");
            assert_eq!(place.tree(), ["client_downloads/", SAVED], "{protocol} {wrong}");
            fetch(checksum, &[]).expect(0);
            assert!(place.read(SAVED) == data, "{protocol} {checksum}");
            assert!(fetch(checksum, &["-o", "-"]).expect(0).stdout == data, "{protocol} {checksum}");
            let ended = fetch(&wrong, &["-o", "-"]).expect(32);
            // What a stream got was proven to be the server's; that it is not the user's shows at the end.
            assert!(data.starts_with(&ended.stdout), "{protocol} {wrong}");
            assert!(protocol == "v2" || ended.stdout.is_empty(), "{protocol} {wrong}");
        }
    }
}

#[test]
fn a_file_may_be_written_as_one_word_with_its_server() {
    let site = Site::new();
    site.file("sub/50% #1", b"data");
    let server = site.serve(&[]);
    let place = Place::new();
    let url = format!("oneport://{}/sub/50%25%20%231", server.address);
    place.client(&[&url]).end().expect(0);
    assert_eq!(place.read("client_downloads/50% #1"), b"data");
    place.client(&["stat", &url]).end().expect(0);
    place.client(&["verify", &url]).end().expect(0);
    place.client(&["get", "-s", "localhost", &url]).end().expect(2).says("named twice");
    for wrong in
        ["oneport://", "oneport://h", "oneport://h/", "oneport://h/%4", "oneport://h/%zz", "oneport://h/a#b"]
    {
        place.client(&[wrong]).end().expect(2);
    }
}

#[test]
fn not_one_byte_that_is_not_proven_comes_out_of_a_stream() {
    let data = bytes(5, 4 * MIB + 9);
    let good = data.clone();
    // Its third block is damaged on every connection but the last.
    let server = v2_peer::server(move |asked, before| {
        let mut frames = v2_peer::answer(asked, &data, true);
        if before < 2 {
            for frame in frames.iter_mut().filter(|frame| frame[4] == 0x44) {
                let offset = u64::from_be_bytes(frame[9..17].try_into().unwrap()) as usize;
                if offset / MIB == 2 {
                    *frame.last_mut().unwrap() ^= 1;
                }
            }
        }
        frames
    });
    let place = Place::new();
    let ended =
        place.fetch("f", server.address, &["-o", "-"]).end().expect(32).says("block 2 arrived damaged");
    assert!(ended.stdout == good[..2 * MIB], "{} bytes came out", ended.stdout.len());
    let ended = place.fetch("f", server.address, &["-o", "-", "--retries", "1"]).end().expect(0);
    assert!(ended.stdout == good, "{} bytes came out", ended.stdout.len());
    assert!(place.tree().is_empty(), "{:?}", place.tree());
}

#[test]
fn a_stream_passes_through_a_pipe_and_ends_when_its_reader_does() {
    let site = Site::new();
    let data = noise(6, 40 * MIB + 1);
    site.file("f", &data);
    let server = site.serve(&[]);
    let place = Place::new();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let running = place.fetch("f", server.address, &["-o", "-"]).stdout_to(writer).start();
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    running.end().expect(0);
    assert!(got == data);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let running = place.fetch("f", server.address, &["-o", "-", "--retries", "6"]).stdout_to(writer).start();
    reader.read_exact(&mut [0; 1000]).unwrap();
    drop(reader);
    let ended = running.end().expect(11).says("cannot write to");
    assert!(!ended.stderr.contains("retry"), "{}", ended.stderr);
}

/// A server that gives the first blocks of the data and then nothing more.
fn stalling(data: &[u8]) -> Scripted {
    let data = data.to_vec();
    Scripted::start(move |stream, name, _| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        let Some(asked) = speaker.hear() else { return };
        let frames = v2_peer::answer(&asked, &data, true);
        speaker.say(&[welcome(), frames[..TWO_BLOCKS].concat()].concat());
        while speaker.hear().is_some() {}
    })
}

#[test]
fn an_interrupted_fetch_keeps_what_came_and_says_so_and_the_next_one_goes_on_with_it() {
    let data = bytes(7, 5 * MIB + 3);
    let (site, place) = (Site::new(), Place::new());
    wait_settled(&site.file("f", &data));
    let server = site.serve(&[]);
    // Then it knows the root, by which it is the same file as another server's.
    place.client(&["stat", "-s", &server.address.to_string(), "f"]).end().expect(0);
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for options in [&[][..], &["--restart"]] {
            let stalling = stalling(&data);
            let running = place.fetch("f", stalling.address, &[]).start();
            running.await_stderr("30%");
            running.signal(signal);
            running.end().expect(status).says("what has arrived is kept");
            assert!(has_part(&place), "{:?}", place.tree());
            let ended = place.fetch("f", server.address, options).end().expect(0);
            assert_eq!(ended.stderr.contains("going on"), options.is_empty(), "{}", ended.stderr);
            assert!(place.read(SAVED) == data);
            assert_eq!(place.tree(), ["client_downloads/", SAVED]);
        }
    }
    let log = server.wait_log_count("sent successfully", 4);
    assert_eq!(log.matches(", of which 2097152 bytes are there already").count(), 2, "{log}");
}

#[test]
fn of_two_clients_for_one_target_one_is_told() {
    let data = bytes(8, 5 * MIB);
    let stalling = stalling(&data);
    let place = Place::new();
    let first = place.fetch("f", stalling.address, &[]).start();
    first.await_stderr("30%");
    place.fetch("f", stalling.address, &[]).end().expect(13);
    first.signal(Signal::INT);
    first.end().expect(130);
    assert!(has_part(&place));
}
