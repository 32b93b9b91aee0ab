//! Files that go from client to client: who gets them, where they land, and who may not.

use std::fs;
use std::io::Write as _;

use bytes::BytesMut;
use oneport::codec::v2::{ClientFrame, Received, ServerFrame};
use oneport::error::Code;
use rusqlite::Connection;

use crate::harness::await_for;
use crate::holders::{Outcome, add, ask_get, ask_stat, holder, revoke};
use crate::putting::{Came, Putter};
use crate::raw::noise;
use crate::receivers::{
    Peer, await_received, hear_pushed, listen, listen_by_hand, name_of, push, received, spool, spooled,
};
use crate::serving::{Site, wait_for};
use crate::storing::{MIB, told};
use crate::v2_peer::{encoded, get, root_of, server, stat};

const NOT_FOUND: i32 = 3;
const NOT_ALLOWED: i32 = 4;
const UNSUPPORTED: i32 = 7;
const LIMIT: i32 = 10;
const EXISTS: i32 = 13;

#[test]
fn a_file_reaches_each_receiver_whole_and_is_nowhere_else() {
    let site = Site::new();
    let (sender, ann, bob) = (Peer::new(&site, "sender"), Peer::new(&site, "ann"), Peer::new(&site, "bob"));
    let server = site.serve(&[]);
    let listening =
        [ann.listen(server.address, "ann", &["-d", "in"]), bob.listen(server.address, "bob", &["-d", "in"])];
    let sizes = [0, 1, MIB, MIB + 1, 5 * MIB + 17];
    let names: Vec<String> = sizes.iter().map(|size| format!("f{size}")).collect();
    for (name, size) in names.iter().zip(sizes) {
        sender.place.write(name, noise(size as u64, size));
    }
    let files: Vec<&str> = names.iter().map(String::as_str).collect();
    let ended =
        sender.client(server.address, &[&["push", "ann,bob", "--json"], &files[..]].concat()).end().expect(0);
    let results = told(&ended.stdout).into_iter().filter(|event| event["event"] == "result");
    assert_eq!(results.filter(|result| result["ok"] == true).count(), 2 * sizes.len());
    for (peer, listening) in [&ann, &bob].into_iter().zip(&listening) {
        let all = await_received(listening, sizes.len());
        assert!(all.iter().all(|event| event["ok"] == true && event["from"] == "sender"), "{all:?}");
        for (name, size) in names.iter().zip(sizes) {
            assert!(peer.place.read(format!("in/{name}")) == noise(size as u64, size), "{name}");
        }
        let in_folder = fs::read_dir(peer.place.path("in")).unwrap().count();
        assert_eq!(in_folder, sizes.len(), "nothing else is there");
    }
    assert_eq!(fs::read_dir(site.root("")).unwrap().count(), 0, "nothing is served");
    assert_eq!(spooled(&site), 0, "nothing is left on its way");
    let log = server.wait_log_count("received by", 2 * sizes.len());
    assert!(log.contains("(key=sender) received by bob: 1 bytes"), "{log}");
    assert_eq!(rows(&site, 2 * sizes.len()).iter().filter(|row| *row == "push ann/f1 whole").count(), 1);
}

/// What the catalog says of transfers, once there are so many.
fn rows(site: &Site, count: usize) -> Vec<String> {
    wait_for("rows in the catalog", || {
        let catalog = Connection::open(site.path().join("state/catalog.db")).unwrap();
        let mut select =
            catalog.prepare("SELECT direction, name, cause FROM transfer ORDER BY number").ok()?;
        let row = |row: &rusqlite::Row<'_>| {
            let (direction, name, cause): (String, Vec<u8>, Option<String>) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let name = String::from_utf8(name).unwrap();
            Ok(format!("{direction} {name} {}", cause.as_deref().unwrap_or("whole")))
        };
        let rows: Vec<String> = select.query_map([], row).ok()?.map(Result::unwrap).collect();
        assert!(rows.len() <= count, "one row for each push: {rows:?}");
        (rows.len() == count).then_some(rows)
    })
}

#[test]
fn the_owner_of_a_server_sends_without_a_key_and_hears_what_came_of_each_file() {
    let site = Site::new();
    let (ann, bob) = (Peer::new(&site, "ann"), Peer::new(&site, "bob"));
    let server = site.serve(&[]);
    let listening = ann.listen(server.address, "ann", &["-d", "in"]);
    let strict = bob.listen(server.address, "bob", &["-d", "in", "--max-size", "10"]);
    let data = noise(1, 2 * MIB + 1);
    fs::write(site.path().join("report"), &data).unwrap();
    fs::write(site.path().join("short"), "x").unwrap();
    let push = |words: &[&str]| site.launch_bare(&[&["push", "--state", "state"], words].concat()).run();
    let ended = push(&["ann", "report", "short"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout.lines().count(), 2, "{}", ended.stdout);
    assert!(ended.stderr.contains("report for ann: 100%"), "{}", ended.stderr);
    assert!(await_received(&listening, 2).iter().all(|event| event["from"] == "owner"));
    assert!(ann.place.read("in/report") == data && ann.place.read("in/short") == b"x");

    let ended = push(&["ann,bob", "report", "short", "--json"]);
    assert_eq!(ended.code, Some(23), "one of four is too large for bob: {}", ended.stderr);
    let results = told(ended.stdout.as_bytes());
    let failed: Vec<_> = results.iter().filter(|result| result["ok"] == false).collect();
    assert_eq!((results.len(), failed.len()), (4, 1), "{results:?}");
    assert_eq!((&failed[0]["receiver"], &failed[0]["exit_status"]), (&"bob".into(), &LIMIT.into()));
    assert_eq!(await_received(&strict, 2).iter().filter(|event| event["ok"] == true).count(), 1);

    let ended = push(&["nobody", "short"]);
    assert_eq!(ended.code, Some(NOT_FOUND), "{}", ended.stderr);
    assert!(ended.stderr.contains("nobody"), "{}", ended.stderr);
    server.wait_log("(key=owner) received by ann");
    let bare = site.launch_bare(&["push", "--state", "none", "ann", "short"]).run();
    assert_eq!(bare.code, Some(5), "{}", bare.stderr);
    assert!(bare.stderr.contains("no server is running"), "{}", bare.stderr);
}

#[test]
fn where_nobody_listens_the_sender_is_told_before_a_byte() {
    let site = Site::new();
    let sender = Peer::new(&site, "sender");
    let server = site.serve(&[]);
    sender.place.write("x", noise(1, 3 * MIB));
    let push = ["push", "nobody", "x", "--retries", "0"];
    sender.client(server.address, &push).end().expect(NOT_FOUND).says("nobody listens as 'nobody'");
    assert_eq!(spooled(&site), 0);
    assert!(!server.log().contains("Receiving file"), "{}", server.log());
    let mut putter = Putter::new(&server, &sender.token, b"hello");
    for bad in ["", "a b", "../a", &"x".repeat(65)] {
        let frame = crate::receivers::push(&putter, 1, bad, "x", 1);
        putter.send(&frame);
        assert!(matches!(putter.answer(), Came::Failed(1, code, _) if code == NOT_FOUND as u16), "{bad}");
        putter = Putter::new(&server, &sender.token, b"hello");
    }
}

#[test]
fn a_name_belongs_to_the_key_that_listens_and_both_sides_need_the_right() {
    let site = Site::new();
    let (ann, eve) = (Peer::new(&site, "ann"), Peer::new(&site, "eve"));
    let reader = Peer::with(&site, "reader", &["--allow", "read,write,delete,admin"]);
    let narrow = Peer::with(&site, "narrow", &["--allow", "push", "--path", "narrow"]);
    let server = site.serve(&[]);
    let listening = ann.listen(server.address, "ann", &[]);
    for peer in [&reader, &narrow] {
        peer.start_listening(server.address, "ann", &[]).end().expect(NOT_ALLOWED);
        peer.place.write("x", b"x");
        peer.client(server.address, &["push", "ann", "x"]).end().expect(NOT_ALLOWED);
    }
    drop(narrow.listen(server.address, "narrow", &[]));
    eve.start_listening(server.address, "ann", &[]).end().expect(EXISTS).says("another key");
    assert_eq!(received(&listening).len(), 0);
    // The same key may: the one before hears of it and does not come back.
    let again = ann.listen(server.address, "ann", &[]);
    listening.end().expect(EXISTS).says("taken this name over");
    eve.place.write("x", b"x");
    eve.client(server.address, &["push", "ann", "x"]).end().expect(0);
    assert_eq!(await_received(&again, 1)[0]["from"], "eve");
}

#[test]
fn a_key_that_was_revoked_is_told_of_nothing() {
    let site = Site::new();
    let (ann, sender) = (add(&site, "ann", &["--allow", "push"]), Peer::new(&site, "sender"));
    let server = site.serve(&[]);
    let mut listener = listen_by_hand(&server, &ann, "ann");
    revoke(&site, "ann");
    let mut putter = Putter::new(&server, &sender.token, b"hello");
    let frame = push(&putter, 1, "ann", "x", 1);
    putter.send(&frame);
    let stream = putter.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || putter.answer());
    let told = listener.hear_error();
    assert!(told.is_some(), "it listens no more");
    // The sender waits for somebody who may.
    assert!(!sending.is_finished());
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(sending.join().unwrap(), Came::Closed);
    assert_eq!(i32::from(told.unwrap().1), NOT_ALLOWED);
}

#[test]
fn a_file_on_its_way_is_read_by_its_receiver_alone() {
    let site = Site::new();
    let tokens = ["ann", "eve", "sender"].map(|name| add(&site, name, &["--allow", "read,push"]));
    let server = site.serve(&[]);
    let data = noise(1, 2 * MIB + 3);
    let mut listener = listen_by_hand(&server, &tokens[0], "ann");
    let mut eve = listen_by_hand(&server, &tokens[1], "eve");
    let mut putter = Putter::new(&server, &tokens[2], &data);
    let frame = push(&putter, 1, "ann", "x", 1);
    putter.send(&frame);
    let sending = std::thread::spawn(move || (putter.answer(), putter));
    let pushed = hear_pushed(&mut listener);
    assert_eq!((&pushed.name[..], &pushed.from[..]), (&b"x"[..], &b"sender"[..]));
    assert_eq!((pushed.file.size, pushed.file.root), (data.len() as u64, Some(root_of(&data))));
    let name = name_of(&pushed);
    // Its name on the server's disk is another one, and nobody's either.
    let on_disk = fs::read_dir(spool(&site)).unwrap().next().unwrap().unwrap().file_name();
    let on_disk = format!(".oneport-push/{}", on_disk.to_str().unwrap());
    assert_ne!(on_disk, name);
    let mut asked = 1;
    for stranger in [&mut eve, &mut holder(&server, &tokens[2]), &mut crate::v2_peer::Asker::new(&server, "")]
    {
        for name in [&name, &on_disk, &".oneport-push".to_owned()] {
            asked += 1;
            let refused =
                |outcome| matches!(outcome, Outcome::Refused(_, code, _) if code == NOT_FOUND as u16);
            assert!(refused(ask_get(stranger, asked, name)), "{name}");
            asked += 1;
            assert!(refused(ask_stat(stranger, asked, name)), "{name}");
        }
    }
    let mut reader = holder(&server, &tokens[0]);
    reader.send(&[stat(1, name.as_bytes()), get(2, &name)]);
    assert!(reader.hear_all(2).unwrap() == data);
    // Nobody else's word counts, nor one of another request.
    let answer = |outcome| Received { id: pushed.id, outcome };
    eve.send(&[ClientFrame::Received(1, answer(Ok(root_of(&data))))]);
    assert!(eve.is_answered());
    listener.send(&[ClientFrame::Received(9, answer(Ok(root_of(&data))))]);
    assert!(listener.is_answered() && !sending.is_finished());
    listener.send(&[ClientFrame::Received(1, answer(Ok(root_of(&data))))]);
    let (came, mut putter) = sending.join().unwrap();
    assert_eq!(came, Came::Ended(1, Some(root_of(&data))));
    assert_eq!(spooled(&site), 0);
    // Whoever has missed that may ask again, and nothing is sent twice.
    let mut once_more = Putter::new(&server, &tokens[2], &data);
    let frame = push(&once_more, 1, "ann", "x", 2);
    once_more.send(&frame);
    assert_eq!(once_more.answer(), Came::Ended(1, Some(root_of(&data))));
    assert_eq!(once_more.sent, 0);
    // What the receiver says is told to the sender; a root that is another one is no success.
    for (transfer, outcome, code) in [
        ([8; 16], Err((Code::Exists.into(), "I have one".into())), EXISTS as u16),
        ([9; 16], Ok(root_of(b"other")), Code::Checksum.exit_status().into()),
    ] {
        let mut another = putter.put("x", 1);
        another.transfer = transfer;
        let receiver = "ann".into();
        putter.sent = 0;
        let frame =
            ClientFrame::Push(u32::from(transfer[0]), oneport::codec::v2::Push { receiver, put: another });
        putter.send(&frame);
        let sending = std::thread::spawn(move || (putter.answer(), putter));
        let pushed = hear_pushed(&mut listener);
        listener.send(&[ClientFrame::Received(1, Received { id: pushed.id, outcome })]);
        let (came, back) = sending.join().unwrap();
        putter = back;
        assert!(matches!(&came, Came::Failed(_, told, _) if *told == code), "{came:?}");
    }
}

#[test]
fn what_has_the_name_already_stays_unless_the_receiver_says_otherwise() {
    let site = Site::new();
    let (sender, ann) = (Peer::new(&site, "sender"), Peer::new(&site, "ann"));
    let server = site.serve(&[]);
    let send = |name: &str, bytes: &[u8]| {
        sender.place.write("x.txt", bytes);
        sender.client(server.address, &["push", name, "x.txt", "--retries", "0"]).end()
    };
    let listening = ann.listen(server.address, "rename", &["-d", "a"]);
    for bytes in [b"one", b"one", b"two", b"two", b"one"] {
        send("rename", bytes).expect(0);
    }
    let all = await_received(&listening, 5);
    let paths: Vec<&str> = all.iter().map(|event| event["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["a/x.txt", "a/x.txt", "a/x (1).txt", "a/x (1).txt", "a/x.txt"]);
    assert_eq!([ann.place.read("a/x.txt"), ann.place.read("a/x (1).txt")], [b"one", b"two"]);
    drop(listening);
    let keeping = ann.listen(server.address, "keep", &["-d", "a", "--overwrite", "never"]);
    send("keep", b"one").expect(0);
    send("keep", b"new").expect(EXISTS).says("'keep' did not take it");
    drop(keeping);
    let _replacing = ann.listen(server.address, "replace", &["-d", "a", "--overwrite", "always"]);
    send("replace", b"new").expect(0);
    assert_eq!(ann.place.read("a/x.txt"), b"new");
    assert_eq!(spooled(&site), 0);
}

#[test]
fn a_file_that_is_too_large_for_its_receiver_is_refused_before_a_byte_of_it() {
    let site = Site::new();
    let (sender, ann) = (Peer::new(&site, "sender"), Peer::new(&site, "ann"));
    let server = site.serve(&[]);
    let listening = ann.listen(server.address, "ann", &["-d", "a", "--max-size", "1MiB"]);
    for (size, code) in [(MIB, 0), (MIB + 1, LIMIT)] {
        sender.place.write("x", noise(1, size));
        sender.client(server.address, &["push", "ann", "x", "--retries", "0"]).end().expect(code);
    }
    assert_eq!(await_received(&listening, 2)[1]["code"], "limit");
    assert_eq!(server.log().matches("requested file").count(), 1, "{}", server.log());
    assert_eq!(fs::read_dir(ann.place.path("a")).unwrap().count(), 1);
    // Nor is one taken that is too large for the server, or for the sender's quota.
    drop(listening);
    let poor = Peer::with(&site, "poor", &["--allow", "push", "--quota", "1MiB"]);
    let _listening = ann.listen(server.address, "ann", &["-d", "b"]);
    poor.place.write("x", noise(2, MIB + 1));
    poor.client(server.address, &["push", "ann", "x", "--retries", "0"]).end().expect(LIMIT).says("quota");
    poor.place.write("x", noise(2, MIB));
    for _ in 0..3 {
        poor.client(server.address, &["push", "ann", "x"]).end().expect(0);
    }
    assert_eq!(spooled(&site), 0);
}

#[test]
fn a_listener_runs_a_command_for_what_was_sent_to_it() {
    const COMMAND: &str = "sh -c 'printf %s,%s,%s \"$ONEPORT_KEY_NAME\" \"$ONEPORT_NAME\" \"$ONEPORT_KEY\" > told; cp \"$ONEPORT_PATH\" copy'";
    let site = Site::new();
    let (sender, ann) = (Peer::new(&site, "sender"), Peer::new(&site, "ann"));
    let server = site.serve(&[]);
    let listening = ann.listen(server.address, "ann", &["--once", "-d", "in", "--on-received", COMMAND]);
    sender.place.write("x", b"hello");
    sender.client(server.address, &["push", "ann", "x"]).end().expect(0);
    listening.end().expect(0);
    assert_eq!(ann.place.read("told"), b"sender,x,", "and no key of this client");
    assert_eq!(ann.place.read("copy"), b"hello");
    let failing = ann.listen(server.address, "ann", &["--once", "--on-received", "false"]);
    sender.client(server.address, &["push", "ann", "x"]).end().expect(0);
    failing.end().expect(40);
    assert_eq!(ann.place.read("x"), b"hello");
}

#[test]
fn a_listener_that_wants_one_file_ends_behind_it() {
    let site = Site::new();
    let (sender, ann) = (Peer::new(&site, "sender"), Peer::new(&site, "ann"));
    let server = site.serve(&[]);
    let listening = ann.listen(server.address, "ann", &["--once"]);
    sender.place.write("x", b"hello");
    sender.client(server.address, &["push", "ann", "x"]).end().expect(0);
    listening.end().expect(0);
    assert_eq!(ann.place.read("x"), b"hello");
    sender.client(server.address, &["push", "ann", "x", "--retries", "0"]).end().expect(NOT_FOUND);
}

#[test]
fn a_sender_that_comes_back_before_its_receiver_is_waited_with() {
    let site = Site::new();
    let tokens = ["ann", "sender"].map(|name| add(&site, name, &["--allow", "push"]));
    let server = site.serve(&[]);
    // As behind a restart of the server: nobody is there yet.
    let mut putter = Putter::new(&server, &tokens[1], b"hello");
    let frame = push(&putter, 1, "ann", "x", 2);
    putter.send(&frame);
    let sending = std::thread::spawn(move || putter.answer());
    server.wait_log("stored for");
    let mut listener = holder(&server, &tokens[0]);
    listener.send(&[listen(1, "ann")]);
    let pushed = hear_pushed(&mut listener);
    let outcome = Ok(root_of(b"hello"));
    listener.send(&[ClientFrame::Received(1, Received { id: pushed.id, outcome })]);
    assert_eq!(sending.join().unwrap(), Came::Ended(1, Some(root_of(b"hello"))));
}

#[test]
fn a_sender_that_gives_up_ends_what_it_sends_and_the_receiver_goes_on_listening() {
    let site = Site::new();
    let tokens = ["ann", "sender"].map(|name| add(&site, name, &["--allow", "push"]));
    let server = site.serve(&[]);
    let mut listener = listen_by_hand(&server, &tokens[0], "ann");
    let mut putter = Putter::new(&server, &tokens[1], b"hello");
    let frame = push(&putter, 1, "ann", "x", 1);
    putter.send(&frame);
    let mut stream = putter.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || putter.answer());
    let _ = hear_pushed(&mut listener);
    let mut cancel = BytesMut::new();
    ClientFrame::Cancel(1).encode(&mut cancel).unwrap();
    stream.write_all(&cancel).unwrap();
    assert!(matches!(sending.join().unwrap(), Came::Failed(1, 130, _)));
    listener.send(&[ClientFrame::Cancel(1)]);
    assert_eq!(listener.hear_error().map(|(request, code, _)| (request, code)), Some((1, 130)));
    listener.send(&[listen(2, "ann")]);
    assert!(matches!(listener.hear().unwrap().frame, ServerFrame::Pushed(2, _)), "it is told of again");
}

#[test]
fn a_server_that_knows_nothing_of_it_is_told_as_such() {
    let old =
        server(|_, _| vec![encoded(&ServerFrame::Error(0, Code::Protocol.into(), "unknown kind".into()))]);
    let place = crate::harness::Place::new();
    place.write("x", b"x");
    let to = old.address.to_string();
    for words in [&["listen", "--name", "ann"][..], &["push", "ann", "x"]] {
        let words = [words, &["-s", &to, "--known-hosts", "known"]].concat();
        place.client(&words).end().expect(UNSUPPORTED).says("does not know how to send files");
    }
    await_for("no file", || (place.tree() == ["known", "x"] || place.tree() == ["x"]).then_some(()));
}
