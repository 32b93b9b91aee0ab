//! Files that are pushed to clients of Conduit, who speak by hand here: announced, taken, and ended; and what comes of
//! those who are gone, do not want them, or are many.

use std::fs;

use base64ct::{Base64, Encoding as _};
use oneport::limits::CONDUIT_PUSH_CHUNKS;
use serde_json::{Value, json};

use crate::conduit_peer::{ANSWER, CHUNK, MESSAGE, PING, PONG, Peer, frame, hex, packed, serve};
use crate::raw::{noise, reset};
use crate::serving::{Server, Signal, Site};

const NOT_FOUND: u64 = 4000;

/// Somebody who listens, and has been heard since it was let in.
fn listener(server: &Server, name: &str) -> Peer {
    let mut peer = Peer::named(server, name);
    peer.get("listall", json!({}));
    peer
}

/// The next message.
#[track_caller]
fn message(peer: &mut Peer, kind: &str) -> Value {
    let came = peer.hear().unwrap();
    assert_eq!((came.kind, &came.said["type"]), (MESSAGE, &json!(kind)), "{came:?}");
    came.said["data"].clone()
}

fn acknowledge(peer: &mut Peer, transfer: &Value, ready: bool) {
    let said = json!({ "type": "file_incoming_ack", "data": { "transfer_id": transfer, "ready": ready } });
    peer.say(&frame(MESSAGE, 0, &packed(&said)));
}

/// Takes a file to its end; its name and its bytes, which are what was announced.
#[track_caller]
fn receive(peer: &mut Peer) -> (String, Vec<u8>) {
    let announced = message(peer, "file_incoming");
    let transfer = &announced["transfer_id"];
    acknowledge(peer, transfer, true);
    let mut bytes = Vec::new();
    for index in 0..announced["total_chunks"].as_u64().unwrap() {
        let part = message(peer, "file_chunk");
        assert_eq!((&part["transfer_id"], &part["chunk_index"]), (transfer, &json!(index)));
        bytes.extend(Base64::decode_vec(part["data_b64"].as_str().unwrap()).unwrap());
    }
    let complete = message(peer, "file_complete");
    assert_eq!((&complete["transfer_id"], &complete["checksum"]), (transfer, &announced["checksum"]));
    assert_eq!((&announced["size"], &announced["checksum"]), (&json!(bytes.len()), &json!(hex(&bytes))));
    // The pong to this one says that all of it was read.
    assert_eq!(peer.hear_any().unwrap().kind, PING);
    peer.say(&frame(PONG, 0, &[]));
    (announced["filename"].as_str().unwrap().to_owned(), bytes)
}

fn push(to: &str, name: &str) -> Value {
    json!({ "client": to, "filename": name })
}

/// What came of a push, by the names of the receivers: nothing, or why not.
fn outcomes(result: &Value) -> Vec<(String, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let receivers = result["data"]["receivers"].as_array().unwrap_or_else(|| panic!("{result}"));
    let mut outcomes: Vec<_> = receivers
        .iter()
        .map(|one| {
            assert_eq!(one["delivered"].as_bool().unwrap(), one.get("error").is_none(), "{one}");
            (text(&one["name"]).unwrap(), one.get("error").and_then(text))
        })
        .collect();
    outcomes.sort();
    outcomes
}

#[test]
fn a_pushed_file_arrives_whole_at_all_who_are_meant_and_at_nobody_else() {
    let site = Site::new();
    let sizes = [0, 1, CHUNK, CHUNK + 1, 10 * CHUNK + 3];
    for size in sizes {
        site.file(format!("folder/f{size}"), &noise(size as u64, size));
    }
    let server = serve(&site, &[]);
    let mut peers = [listener(&server, "desk"), listener(&server, "desk"), listener(&server, "other")];
    let mut pusher = Peer::named(&server, "pusher");
    for size in sizes {
        let call = pusher.send("file_push", &push("desk", &format!("folder/f{size}")));
        for peer in &mut peers[..2] {
            let (name, bytes) = receive(peer);
            assert_eq!(name, format!("f{size}"), "no folder of the server's is anybody's business");
            assert!(bytes == noise(size as u64, size), "{size}");
        }
        let result = pusher.answer(call);
        assert_eq!(outcomes(&result), [("desk".to_owned(), None), ("desk".to_owned(), None)]);
    }
    // A session is one of them.
    let clients = pusher.get("client_list", json!({}));
    let clients = clients["clients"].as_array().unwrap();
    assert_eq!(clients.len(), 4);
    let other = clients.iter().find(|client| client["name"] == "other").unwrap();
    let call = pusher.send("file_push", &push(other["session"].as_str().unwrap(), "folder/f1"));
    assert_eq!(receive(&mut peers[2]).1, noise(1, 1));
    assert_eq!(outcomes(&pusher.answer(call)), [("other".to_owned(), None)]);
    for peer in &mut peers {
        peer.get("listall", json!({}));
    }
    server.wait_log("'folder/f1' sent successfully");
}

#[test]
fn a_client_may_push_to_itself_and_call_meanwhile() {
    let site = Site::new();
    site.file("file", b"to myself");
    let server = serve(&site, &[]);
    let mut peer = listener(&server, "me");
    let call = peer.send("file_push", &push("me", "file"));
    assert_eq!(receive(&mut peer).1, b"to myself");
    assert_eq!(outcomes(&peer.answer(call)), [("me".to_owned(), None)]);
}

#[test]
fn who_does_not_want_a_file_gets_nothing_of_it_and_the_next_one_all_the_same() {
    let site = Site::new();
    site.file("one", b"one");
    site.file("two", b"two");
    let server = serve(&site, &[]);
    let mut peer = listener(&server, "desk");
    let mut pusher = Peer::named(&server, "pusher");
    let call = pusher.send("file_push", &push("desk", "one"));
    let announced = message(&mut peer, "file_incoming");
    // An answer to something else is none.
    acknowledge(&mut peer, &json!("another"), true);
    acknowledge(&mut peer, &announced["transfer_id"], false);
    let refused = Some("it does not want the file".to_owned());
    assert_eq!(outcomes(&pusher.answer(call)), [("desk".to_owned(), refused)]);
    let call = pusher.send("file_push", &push("desk", "two"));
    assert_eq!(receive(&mut peer).1, b"two");
    assert_eq!(outcomes(&pusher.answer(call)), [("desk".to_owned(), None)]);
}

#[test]
fn a_receiver_that_is_gone_in_the_middle_is_told_and_the_others_have_the_file() {
    let site = Site::new();
    let bytes = noise(1, 100 * CHUNK);
    site.file("file", &bytes);
    let server = serve(&site, &[]);
    let (mut stays, mut goes) = (listener(&server, "desk"), listener(&server, "desk"));
    let mut pusher = Peer::named(&server, "pusher");
    let call = pusher.send("file_push", &push("desk", "file"));
    let announced = message(&mut goes, "file_incoming");
    acknowledge(&mut goes, &announced["transfer_id"], true);
    message(&mut goes, "file_chunk");
    reset(goes.stream);
    assert!(receive(&mut stays).1 == bytes);
    let gone = Some("its connection ended".to_owned());
    assert_eq!(outcomes(&pusher.answer(call)), [("desk".to_owned(), None), ("desk".to_owned(), gone)]);
    // One who comes again has the next one.
    let mut again = listener(&server, "back");
    let call = pusher.send("file_push", &push("back", "file"));
    assert!(receive(&mut again).1 == bytes);
    assert_eq!(outcomes(&pusher.answer(call)), [("back".to_owned(), None)]);
}

#[test]
fn a_file_that_changes_while_it_is_pushed_is_ended_early_so_that_the_checksum_does_not_fit() {
    let site = Site::new();
    let path = site.file("file", &noise(1, 3 * CHUNK));
    let server = serve(&site, &[]);
    let mut peer = listener(&server, "desk");
    let mut pusher = Peer::named(&server, "pusher");
    let call = pusher.send("file_push", &push("desk", "file"));
    let announced = message(&mut peer, "file_incoming");
    fs::write(&path, b"short").unwrap();
    acknowledge(&mut peer, &announced["transfer_id"], true);
    message(&mut peer, "file_complete");
    let changed = Some("the file changed while it was being sent".to_owned());
    assert_eq!(outcomes(&pusher.answer(call)), [("desk".to_owned(), changed)]);
}

#[test]
fn nobody_and_nothing_are_told_as_such() {
    let site = Site::new();
    site.file("file", b"x");
    let server = serve(&site, &[]);
    let mut pusher = listener(&server, "pusher");
    assert_eq!(pusher.fault("file_push", push("nobody", "file")), NOT_FOUND);
    assert_eq!(pusher.fault("file_push", push("pusher", "nothing")), NOT_FOUND);
    assert_eq!(pusher.fault("file_push", push("pusher", "../file")), 2003);
    assert_eq!(pusher.fault("file_push", json!({ "client": "pusher" })), 2000);
}

#[test]
fn a_push_that_runs_when_the_server_stops_comes_to_its_end() {
    let site = Site::new();
    let bytes = noise(1, 40 * CHUNK);
    site.file("file", &bytes);
    let mut server = serve(&site, &[]);
    let mut peer = listener(&server, "desk");
    let mut pusher = Peer::named(&server, "pusher");
    let call = pusher.send("file_push", &push("desk", "file"));
    server.wait_log("Sending file 'file'");
    server.signal(Signal::INT);
    server.wait_log("No new connections are accepted");
    assert!(receive(&mut peer).1 == bytes);
    assert_eq!(outcomes(&pusher.answer(call)), [("desk".to_owned(), None)]);
    assert_eq!(server.wait_exit(), Some(0));
}

#[test]
fn a_client_that_does_not_answer_is_sent_no_more_than_a_few_chunks() {
    let site = Site::new();
    site.file("file", &noise(1, 100 * CHUNK));
    let server = serve(&site, &[]);
    let mut peer = listener(&server, "desk");
    let mut pusher = Peer::named(&server, "pusher");
    pusher.send("file_push", &push("desk", "file"));
    let announced = message(&mut peer, "file_incoming");
    acknowledge(&mut peer, &announced["transfer_id"], true);
    let (mut chunks, mut pings) = (0, 0);
    while pings < 2 {
        match peer.hear_any().unwrap().kind {
            PING => pings += 1,
            _ => chunks += 1,
        }
    }
    assert_eq!(chunks, 2 * CONDUIT_PUSH_CHUNKS);
    // Nothing of it comes however long that is.
    for _ in 0..100 {
        peer.send("listall", &json!({}));
        assert_eq!(peer.hear_any().unwrap().kind, ANSWER);
    }
    peer.say(&frame(PONG, 0, &[]));
    message(&mut peer, "file_chunk");
}
