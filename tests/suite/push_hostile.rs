//! Hostile servers before a real client that listens: whatever they tell of, nothing is written but where its user wants
//! it, under a name that was told and with the bytes that were told.

use std::fs;
use std::sync::mpsc::{Receiver as Told, Sender, channel};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use oneport::codec::v2::{ClientFrame, File, Pushed, Received, ServerFrame};
use oneport::error::Code;
use oneport::tree::Root;

use crate::harness::{CLIENT_PATIENCE, Place, Running};
use crate::raw::noise;
use crate::scripted::Scripted;
use crate::v2_peer::{MIB, Speaker, answer, encoded, root_of, welcome};

/// What a hostile server tells of, and with which bytes it answers who asks for it.
#[derive(Clone)]
struct Trap {
    name: Vec<u8>,
    size: u64,
    root: Root,
    bytes: Vec<u8>,
}

impl Trap {
    /// A file that is what it is said to be.
    fn honest(name: &[u8], bytes: &[u8]) -> Self {
        Self { name: name.to_vec(), size: bytes.len() as u64, root: root_of(bytes), bytes: bytes.to_vec() }
    }
}

/// A server that tells each listener of these files, one after the other, and passes on what it hears of them.
fn server(traps: Vec<Trap>) -> (Scripted, Told<Received>) {
    let (sender, told) = channel();
    let sender = Mutex::new(sender);
    let traps = Arc::new(traps);
    let server = Scripted::start(move |stream, name, _| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        if !speaker.say(&welcome()) {
            return;
        }
        let sender = sender.lock().unwrap().clone();
        serve(&mut speaker, &traps, &sender);
    });
    (server, told)
}

fn serve(speaker: &mut Speaker, traps: &[Trap], sender: &Sender<Received>) {
    let mut next = 0;
    while let Some(asked) = speaker.hear() {
        let frames = match &asked {
            ClientFrame::Listen(request, _) => {
                next = 1;
                vec![encoded(&pushed(*request, 0, &traps[0]))]
            }
            ClientFrame::Ping(request, bytes) => vec![encoded(&ServerFrame::Pong(*request, *bytes))],
            ClientFrame::Received(request, received) => {
                sender.send(received.clone()).unwrap();
                next += 1;
                traps
                    .get(next - 1)
                    .map(|trap| encoded(&pushed(*request, next - 1, trap)))
                    .into_iter()
                    .collect()
            }
            ClientFrame::Get(_, get) => honest(&asked, traps, &get.name),
            ClientFrame::Stat(_, stat) => honest(&asked, traps, &stat.name),
            _ => Vec::new(),
        };
        if !frames.iter().all(|frame| speaker.say(frame)) {
            return;
        }
    }
}

fn honest(asked: &ClientFrame, traps: &[Trap], name: &[u8]) -> Vec<Vec<u8>> {
    let hex = name.strip_prefix(b".oneport-push/").expect("nothing else is asked for");
    let number = usize::from_str_radix(std::str::from_utf8(&hex[..2]).unwrap(), 16).unwrap();
    answer(asked, &traps[number].bytes, true)
}

fn pushed(request: u32, number: usize, trap: &Trap) -> ServerFrame {
    let id = [u8::try_from(number).unwrap(); 16];
    let (root, token) = (Some(trap.root), [1; 16]);
    let file = File { size: trap.size, modified: (0, 0), mode: 0o777, token, root };
    let name = Bytes::copy_from_slice(&trap.name);
    ServerFrame::Pushed(request, Pushed { id, file, name, from: "\u{1b}[31mx".into() })
}

fn listener(place: &Place, server: &Scripted, options: &[&str]) -> Running {
    let to = server.address.to_string();
    let fixed = [
        "listen",
        "--name",
        "ann",
        "-s",
        &to,
        "-d",
        "in/deep",
        "--known-hosts",
        "known",
        "--retry-delay",
        "20ms",
    ];
    place.client(&[&fixed, options].concat()).start()
}

fn heard(told: &Told<Received>) -> Received {
    told.recv_timeout(CLIENT_PATIENCE).expect("the listener says what came of it")
}

#[test]
fn names_that_lead_anywhere_else_are_refused_and_never_repaired() {
    let names: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "../x",
        "../../x",
        "a/b",
        "a/../b",
        "/etc/x",
        "/",
        "a/",
        "./a",
        "a\0b",
        ".oneport",
        ".ONEPORT",
        ".oneport-0123456789abcdef.part",
        ".oneport-push",
        "?oneport/2?x",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .chain([vec![b'x'; 256], vec![b'x'; 4096]])
    .collect();
    let place = Place::new();
    let traps =
        names.iter().map(|name| Trap::honest(name, b"hostile")).chain([Trap::honest(b"good", b"good")]);
    let (server, told) = server(traps.collect());
    let listening = listener(&place, &server, &[]);
    for name in &names {
        let received = heard(&told);
        let shown = name.escape_ascii();
        assert!(
            matches!(&received.outcome, Err((code, _)) if code.kind() == Code::NotAllowed),
            "{shown}: {received:?}"
        );
    }
    assert_eq!(heard(&told).outcome, Ok(root_of(b"good")));
    assert_eq!(place.tree(), ["in/", "in/deep/", "in/deep/good"]);
    assert!(!listening.stderr().contains('\u{1b}'), "nothing steers the terminal");
}

#[test]
fn names_that_look_strange_stay_in_the_folder() {
    let names: [&[u8]; 6] = [b"...", b"..x", b"a\\..\\b", b"-rf", b"\x1b[31mred\n", b"\xff\xfe"];
    let place = Place::new();
    let (server, told) = server(names.iter().map(|name| Trap::honest(name, b"odd")).collect());
    let listening = listener(&place, &server, &["--json"]);
    for _ in names {
        assert_eq!(heard(&told).outcome, Ok(root_of(b"odd")));
    }
    assert_eq!(fs::read_dir(place.path("in/deep")).unwrap().count(), names.len());
    assert_eq!(fs::read_dir(place.path("in")).unwrap().count(), 1);
    let said = listening.stdout() + &listening.stderr();
    assert!(!said.contains('\u{1b}'), "nothing steers the terminal: {said:?}");
}

#[test]
fn sizes_and_digests_that_lie_leave_nothing() {
    let (data, large) = (noise(1, 3 * MIB), noise(2, MIB + 1));
    let of =
        |size: u64, root: Root, bytes: &[u8]| Trap { name: b"x".to_vec(), size, root, bytes: bytes.to_vec() };
    let traps = vec![
        // Larger and smaller than it was said to be, with its own root and with another one.
        of(1, root_of(&data), &data),
        of(1 << 40, root_of(&data), &data),
        of(u64::from(u32::MAX), root_of(b"other"), &data),
        of(data.len() as u64, root_of(b"other"), &data),
        of(5, root_of(b"other"), b"hello"),
        of(0, root_of(b""), b"hello"),
        of(5, root_of(b"hello"), b""),
        // More than its user wants.
        of(1 << 43, root_of(&large), &large),
        Trap::honest(b"good", &large),
    ];
    let (place, count) = (Place::new(), traps.len());
    let (server, told) = server(traps);
    let _listening = listener(&place, &server, &["--max-size", "8TiB", "--retries", "1"]);
    for number in 1..count {
        let received = heard(&told);
        assert!(received.outcome.is_err(), "{number}: {received:?}");
        let there: Vec<_> = fs::read_dir(place.path("in/deep")).into_iter().flatten().flatten().collect();
        // What has arrived of a file that lies may lie in a part, and nowhere else.
        let is_part = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".oneport-");
        assert!(there.iter().all(is_part), "{number}: {there:?}");
    }
    assert_eq!(heard(&told).outcome, Ok(root_of(&large)));
    assert!(place.read("in/deep/good") == large);
    assert!(!place.path("in/deep/x").exists());
}

#[test]
fn a_link_or_a_file_that_waits_in_the_folder_is_not_written_through() {
    let place = Place::new();
    place.write("outside", b"mine");
    place.write("in/deep/file", b"mine");
    std::os::unix::fs::symlink(place.path("outside"), place.path("in/deep/link")).unwrap();
    std::os::unix::fs::symlink(place.path("nowhere"), place.path("in/deep/dangling")).unwrap();
    fs::create_dir(place.path("in/deep/folder")).unwrap();
    let names: [&[u8]; 4] = [b"file", b"link", b"dangling", b"folder"];
    let (server, told) = server(names.iter().map(|name| Trap::honest(name, b"theirs")).collect());
    let _listening = listener(&place, &server, &[]);
    for _ in names {
        assert_eq!(heard(&told).outcome, Ok(root_of(b"theirs")));
    }
    assert_eq!([place.read("outside"), place.read("in/deep/file")], [b"mine", b"mine"]);
    assert!(!place.path("nowhere").exists());
    for name in names {
        let name = format!("in/deep/{} (1)", std::str::from_utf8(name).unwrap());
        assert_eq!(place.read(name), b"theirs");
    }
}
