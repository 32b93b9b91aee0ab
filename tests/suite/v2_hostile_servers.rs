//! Servers that speak version 2 and lie, stall, or talk without end: the client ends in time with a
//! clear error, the target stays as it was, and nothing is left but blocks that were proven.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use oneport::client::{
    Backoff, Event, FetchError, Observer, OldServers, Overwrite, Protocol, Security, Server, Settings, stat,
};
use oneport::codec::v2::{ClientFrame, ErrorCode, File, ServerFrame, Welcome};
use oneport::error::Code;
use oneport::tree::Root;
use tokio_util::sync::CancellationToken;

use crate::harness::{Ended, Place, await_for, bytes};
use crate::scripted::Scripted;
use crate::v2_peer::{self, MIB, Speaker, answer, encoded, frame, server, welcome};

pub(crate) const SAVED: &str = "client_downloads/f";
/// What the client of these tests waits for the next thing.
const TIMEOUT: &str = "400ms";
/// Most time that a client with that timeout may need, on a busy machine.
const END_MAX: Duration = Duration::from_secs(20);
/// Most memory that a client may need, whatever its server says.
const MEMORY_MAX: u64 = 64 << 20;
/// Bytes behind the length of a server's longest frame that is no DATA, and of its longest DATA.
const FRAME_MAX: usize = 65_536;
const DATA_FRAME_MAX: usize = 1_048_589;

const FILE: u8 = 0x42;
const VALUES: u8 = 0x43;
const DATA: u8 = 0x44;
const END: u8 = 0x45;
const OPTIONAL: u8 = 0x80;

/// Fetches over a target that is there, which must stay as it is; and nothing else may be left.
#[track_caller]
fn gains_nothing(what: &str, server: &Scripted, codes: &[i32]) -> Ended {
    gains_nothing_within(TIMEOUT, what, server, codes)
}

/// The same with another timeout: servers that make up large files need time themselves.
#[track_caller]
pub(crate) fn gains_nothing_within(timeout: &str, what: &str, server: &Scripted, codes: &[i32]) -> Ended {
    let place = Place::new();
    place.write(SAVED, "old");
    let began = Instant::now();
    let ended = place.fetch("f", server.address, &["--timeout", timeout]).end();
    let took = began.elapsed();
    let code = ended.code.unwrap_or(-1);
    assert!(codes.contains(&code), "{what}: {code} instead of {codes:?}: {}", ended.stderr);
    let ended = ended.expect(code);
    assert!(took < END_MAX, "{what}: {took:?}");
    assert_eq!(place.read(SAVED), b"old", "{what}");
    let left: Vec<_> = place.tree().into_iter().filter(|name| !name.contains(".oneport-")).collect();
    assert_eq!(left, ["client_downloads/", SAVED], "{what}");
    assert!(ended.stdout.is_empty() && ended.stderr.contains("client: f: "), "{what}: {}", ended.stderr);
    if place.tree().len() > 2 {
        assert_part_is_proven(what, &place);
    }
    ended
}

/// What is left goes on to the right file, fetched from an honest server.
fn assert_part_is_proven(what: &str, place: &Place) {
    let data = data();
    let honest = server(move |asked, _| answer(asked, &self::data(), true));
    place.fetch("f", honest.address, &[]).end().expect(0);
    assert!(place.read(SAVED) == data, "{what}: what was kept is not the file");
}

pub(crate) fn data() -> Vec<u8> {
    bytes(9, 3 * MIB + 5)
}

fn kind(frame: &[u8]) -> u8 {
    frame[4]
}

fn position(frames: &[Vec<u8>], wanted: u8) -> usize {
    frames.iter().position(|frame| kind(frame) == wanted).unwrap()
}

/// A server whose answer to each GET is honest but for what `change` does to it.
fn lying(root_known: bool, change: impl Fn(&mut Vec<Vec<u8>>) + Send + Sync + 'static) -> Scripted {
    server(move |asked, _| {
        let mut frames = answer(asked, &data(), root_known);
        if matches!(asked, ClientFrame::Get(..)) {
            change(&mut frames);
        }
        frames
    })
}

fn facts(size: u64) -> File {
    let root = Some(Root::of(b"x"));
    File { size, modified: (0, 0), mode: 0o644, token: [7; 16], root }
}

type Change = fn(&mut Vec<Vec<u8>>);

#[test]
fn wrong_order_wrong_values_and_wrong_lengths_gain_nothing() {
    let changes: [(&str, Change, &[i32]); 17] = [
        ("a wrong pair", |all| *all[1].last_mut().unwrap() ^= 1, &[8]),
        ("pairs of the wrong order", |all| all[1][10..74].rotate_left(32), &[8]),
        ("no values", |all| drop(all.remove(1)), &[8]),
        ("values twice", |all| all.insert(1, all[1].clone()), &[8]),
        ("data before its values", |all| all.swap(1, 2), &[8]),
        ("no file", |all| drop(all.remove(0)), &[8]),
        ("a file twice", |all| all.insert(1, all[0].clone()), &[8]),
        ("data twice", |all| all.insert(2, all[2].clone()), &[8]),
        ("a gap", |all| drop(all.remove(3)), &[8]),
        ("data backwards", |all| all.swap(2, 3), &[8]),
        ("an end too early", |all| all.swap(3, 13), &[8]),
        (
            "damaged data",
            |all| {
                all.iter_mut().filter(|one| kind(one) == DATA).for_each(|one| *one.last_mut().unwrap() ^= 1)
            },
            &[32],
        ),
        ("another file's values", |all| all[1] = frame(VALUES, 1, &[0; 65]), &[8]),
        ("an unknown form", |all| all[1] = frame(VALUES, 1, &[2; 65]), &[8]),
        ("a form of the other kind", |all| all[1] = frame(VALUES, 1, &[1; 33]), &[8]),
        ("nothing for another request", |all| all.insert(1, frame(END, 77, &[0; 33])), &[8]),
        ("an unknown kind", |all| all.insert(1, frame(0x7f, 1, b"")), &[8]),
    ];
    for (what, change, codes) in changes {
        assert_eq!(
            answer(&v2_peer::get(1, "f"), &data(), true).iter().map(|one| kind(one)).collect::<Vec<_>>()[..3],
            [FILE, VALUES, DATA]
        );
        gains_nothing(what, &lying(true, change), codes);
    }
}

#[test]
fn what_was_taken_on_trust_must_be_what_the_root_says() {
    // All blocks are other ones than the root says, with values that fit them, and so are its proofs.
    let other = |asked: &ClientFrame| match asked {
        ClientFrame::Get(..) => {
            let mut frames = answer(asked, &bytes(10, data().len()), false);
            let honest = answer(asked, &data(), false);
            frames[0].clone_from(&honest[0]);
            frames
        }
        _ => answer(asked, &data(), true),
    };
    gains_nothing_within("10s", "other blocks", &server(move |asked, _| other(asked)), &[8]);
    // Its end lies about the root.
    let lying_end = server(move |asked, _| {
        let mut frames = answer(asked, &data(), false);
        let end = frames.iter_mut().find(|frame| kind(frame) == END);
        end.into_iter().for_each(|end| end[10..].fill(3));
        frames
    });
    let place = Place::new();
    place.fetch("f", lying_end.address, &[]).end().expect(0);
    assert!(place.read(SAVED) == data(), "whatever an end says, what was proven counts");
}

#[test]
fn files_that_no_disk_or_no_version_2_can_hold_are_refused_before_their_data() {
    for (size, codes) in
        [(1u64 << 60, &[8][..]), ((1 << 63) - 1, &[8]), (1 << 44, &[9]), ((1 << 44) + 1, &[8])]
    {
        // It says so again when it is asked again: a size that no disk can hold is not believed at once.
        let scripted = server(move |asked, _| {
            let (ClientFrame::Get(number, _) | ClientFrame::Stat(number, _)) = asked else {
                return Vec::new();
            };
            vec![encoded(&ServerFrame::File(*number, facts(size)))]
        });
        gains_nothing(&format!("{size} bytes"), &scripted, codes);
    }
    for size in [1 << 63, u64::MAX] {
        let mut file = encoded(&ServerFrame::File(1, facts(1)));
        file[9..17].copy_from_slice(&u64::to_be_bytes(size));
        gains_nothing(&format!("{size} bytes"), &server(move |_, _| vec![file.clone()]), &[8]);
    }
    let mut nanoseconds = encoded(&ServerFrame::File(1, facts(1)));
    nanoseconds[25..29].copy_from_slice(&1_000_000_000_u32.to_be_bytes());
    gains_nothing("nanoseconds", &server(move |_, _| vec![nanoseconds.clone()]), &[8]);
    let nobody = encoded(&ServerFrame::File(1, File { token: [0; 16], ..facts(1) }));
    gains_nothing("no identity", &server(move |_, _| vec![nobody.clone()]), &[8]);
}

#[test]
fn the_words_of_an_error_cannot_steer_the_terminal_and_its_code_is_the_status() {
    let text = Bytes::from_static(b"\x1b]0;owned\x07\x1b[2J50%\ngo away\xff\xc2\x9b31m\xe2\x80\xae");
    for (code, status) in
        [(2, 2), (3, 3), (4, 4), (7, 7), (8, 8), (10, 10), (11, 1), (24, 24), (130, 1), (0, 8), (9999, 1)]
    {
        for request in [0, 1] {
            let error = encoded(&ServerFrame::Error(request, ErrorCode(code), text.clone()));
            let ended =
                gains_nothing(&format!("{code}"), &server(move |_, _| vec![error.clone()]), &[status]);
            assert!(!ended.stderr.contains(['\u{9b}', '\x07', '\x1b']), "{:?}", ended.stderr);
        }
    }
    // As the very first frame, in place of the welcome.
    let error = encoded(&ServerFrame::Error(0, Code::Unsupported.into(), text));
    gains_nothing("before the welcome", &Scripted::saying(error), &[7]);
}

#[test]
fn frames_of_every_kind_and_of_every_length_are_met_without_much_memory() {
    let kinds = (0x41..=0x49).chain([0, 1, 0x7f, OPTIONAL, 0xff]);
    for kind in kinds {
        let longest = if kind == DATA { DATA_FRAME_MAX } else { FRAME_MAX };
        for (len, fill) in [(0, 0), (longest - 5, 0), (longest - 5, 0xff)] {
            let odd = frame(kind, 1, &vec![fill; len]);
            let scripted = Scripted::start(move |stream, name, _| {
                let Some(mut speaker) = Speaker::new(stream, name) else { return };
                speaker.say(&welcome());
                speaker.say(&odd);
            });
            gains_nothing(&format!("kind {kind:x} with {len} bytes"), &scripted, &[1, 6, 8]);
        }
    }
    let frame_max = FRAME_MAX as u32;
    let lies = [0_u32, 4, frame_max + 1, u32::MAX].map(|length| (length, OPTIONAL));
    for (length, kind) in lies.into_iter().chain([(DATA_FRAME_MAX as u32 + 1, DATA)]) {
        let lie = [&length.to_be_bytes()[..], &[kind, 0, 0, 0, 1]].concat();
        let scripted = Scripted::start(move |stream, name, _| {
            let Some(mut speaker) = Speaker::new(stream, name) else { return };
            speaker.say(&[welcome(), lie.clone()].concat());
        });
        gains_nothing(&format!("length {length}"), &scripted, &[8]);
    }
    gains_nothing("no welcome", &Scripted::saying(encoded(&ServerFrame::Wait(1))), &[8]);
    gains_nothing("welcome twice", &Scripted::saying([welcome(), welcome()].concat()), &[8]);
    gains_nothing("a broken welcome", &Scripted::saying(frame(0x41, 0, b"minor=x")), &[8]);
}

/// A server that sends these bytes again and again behind what comes first.
fn endless(first: Vec<u8>, again: Vec<u8>, pause: Duration) -> Scripted {
    Scripted::start(move |stream, name, _| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        let mut is_there = speaker.say(&[welcome(), first.clone()].concat());
        while is_there {
            is_there = speaker.say(&again);
            std::thread::sleep(pause);
        }
    })
}

#[test]
fn endless_talk_that_brings_nothing_on_is_a_timeout_in_little_memory() {
    let pongs = encoded(&ServerFrame::Pong(0, [1; 8])).repeat(100);
    let optional = frame(OPTIONAL, 1, b"for later");
    let large = frame(OPTIONAL | 1, 0, &[7; FRAME_MAX - 5]);
    let file = || answer(&v2_peer::get(1, "f"), &data(), true)[0].clone();
    for (what, again) in [("pongs", pongs), ("optional frames", optional), ("large frames", large)] {
        for pause in [Duration::ZERO, Duration::from_millis(100)] {
            for first in [Vec::new(), file()] {
                let first_is_empty = first.is_empty();
                let scripted = endless(first, again.clone(), pause);
                gains_nothing(what, &scripted, &[28]).says("sent nothing");
                let place = Place::new();
                let address = scripted.address.to_string();
                // What STAT is answered with is a FILE, and there is none for a ping.
                for command in [&["stat", "f"][..], &["ping"]].iter().filter(|_| first_is_empty) {
                    let options = ["-s", &address, "--timeout", TIMEOUT, "--retries", "0"];
                    let running = place.client(&[&command[..1], &options, &command[1..]].concat()).start();
                    await_for("its end", || {
                        let peak = running.peak_memory();
                        assert!(peak.unwrap_or(0) < MEMORY_MAX, "{what}: {peak:?} bytes");
                        peak.is_none().then_some(())
                    });
                    running.end().expect(28);
                }
            }
        }
    }
}

/// Hears nothing.
struct Quiet;

impl Observer for Quiet {
    fn observe(&self, _: &Event<'_>) {}
}

#[test]
fn a_server_that_is_always_still_at_it_is_waited_for_only_so_long() {
    const WAIT_MAX: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(50);
    let scripted = endless(Vec::new(), encoded(&ServerFrame::Wait(1)), PAUSE);
    let timeout = Duration::from_millis(600);
    let settings = Settings {
        backoff: Backoff { retries: 0, first: timeout, longest: timeout },
        timeout,
        wait_max: WAIT_MAX,
        overwrite: Overwrite::Always,
        sync: true,
        protocol: Protocol::Auto,
        links: 1,
        limit_rate: None,
        priority: oneport::priority::Priority::default(),
        sparse: false,
        restart: false,
        checksum: None,
        old_servers: OldServers::default(),
        security: Security::default(),
    };
    let server: Server = scripted.address.to_string().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    let asked = runtime.block_on(async {
        let stopping = CancellationToken::new();
        tokio::time::timeout(END_MAX, stat(&server, b"f", &settings, &Quiet, &stopping)).await
    });
    let asked = asked.expect("the client waits and waits");
    let took = began.elapsed();
    assert!(matches!(asked, Err(FetchError::Silent { .. })), "{asked:?}");
    assert!(took >= WAIT_MAX, "it was told to be patient: {took:?}");
    assert!(took < END_MAX, "{took:?}");
    // A WAIT for a request that there is not is none.
    gains_nothing("a wait for nothing", &endless(Vec::new(), encoded(&ServerFrame::Wait(9)), PAUSE), &[8]);
}

#[test]
fn a_server_that_stops_at_any_frame_is_a_loss_or_a_timeout_and_what_it_proved_is_kept() {
    let whole = answer(&v2_peer::get(1, "f"), &data(), true);
    let end = position(&whole, END);
    for frames in 0..=end {
        for (is_silent, code) in [(false, 6), (true, 28)] {
            if is_silent && frames % 3 != 0 {
                continue;
            }
            let scripted = Scripted::start(move |stream, name, _| {
                let Some(mut speaker) = Speaker::new(stream, name) else { return };
                let Some(asked) = speaker.hear() else { return };
                let said = answer(&asked, &data(), true)[..frames].concat();
                speaker.say(&[welcome(), said].concat());
                if is_silent {
                    while speaker.hear().is_some() {}
                }
            });
            gains_nothing(&format!("{frames} frames"), &scripted, &[code]);
        }
    }
}

#[test]
fn an_answer_that_comes_byte_by_byte_is_taken_and_one_that_never_ends_is_given_up() {
    let small = Scripted::start(|stream, name, _| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        let Some(asked) = speaker.hear() else { return };
        let said = [welcome(), answer(&asked, b"hello", true).concat()].concat();
        said.iter().all(|&byte| speaker.say(&[byte]));
        while speaker.hear().is_some() {}
    });
    let place = Place::new();
    place.fetch("f", small.address, &[]).end().expect(0);
    assert_eq!(place.read(SAVED), b"hello");
    for (what, first, again) in [
        ("a welcome", Vec::new(), frame(0x41, 0, &vec![b'a'; 1024])),
        ("a file", welcome(), frame(FILE, 1, &vec![1; 60_000])),
        ("an optional frame", welcome(), frame(OPTIONAL, 1, &vec![1; 60_000])),
    ] {
        let slow = Scripted::start(move |stream, name, _| {
            let Some(mut speaker) = Speaker::new(stream, name) else { return };
            speaker.say(&first);
            for &byte in &again {
                if !speaker.say(&[byte]) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        gains_nothing(what, &slow, &[28]);
    }
}

#[test]
fn data_without_end_is_cut_where_the_file_ends() {
    let more = || {
        lying(true, |all| {
            let last = all.iter().rposition(|one| kind(one) == DATA).unwrap();
            let again = all[last].clone();
            all.truncate(last + 1);
            all.extend(std::iter::repeat_n(again, 200));
        })
    };
    let place = Place::new();
    let running = place.fetch("f", more().address, &["--timeout", TIMEOUT]).start();
    let _ = running.end();
    gains_nothing("more data", &more(), &[8]);
    let ended = place.fetch("f", more().address, &["-o", "-"]).end();
    assert!(ended.stdout.is_empty() || ended.stdout == data(), "{} bytes", ended.stdout.len());
}

#[test]
fn no_more_requests_are_in_flight_than_the_server_allows() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let strict = Scripted::start(move |stream, name, _| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        let data = bytes(11, 60 * MIB);
        speaker.say(&encoded(&ServerFrame::Welcome(Welcome { requests: 1, ..Welcome::default() })));
        let patience = Duration::from_millis(200);
        while let Some(asked) = speaker.hear() {
            // Whatever else is asked before this one has ended is one too many.
            speaker.stream.set_read_timeout(Some(patience)).unwrap();
            let early = speaker.stream.peek(&mut [0]).is_ok_and(|count| count > 0);
            noted.lock().unwrap().push(early);
            speaker.stream.set_read_timeout(Some(crate::harness::CLIENT_PATIENCE)).unwrap();
            speaker.say(&answer(&asked, &data, true).concat());
        }
    });
    let place = Place::new();
    place.fetch("f", strict.address, &["-j", "1"]).end().expect(0);
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 3 && !seen.contains(&true), "{seen:?}");
}
