//! Sessions of Conduit: who is let in and what that allows, signs of life, pauses and ends, with TLS and without.

use std::io::{Read as _, Write as _};
use std::time::Instant;

use oneport::limits::CONDUIT_QUIET;
use rusqlite::Connection;
use serde_json::json;

use crate::conduit_peer::{
    ACK, CALL, CHUNK, CLOSE, CLOSE_ACK, FAILURE, LIST, PASSWORD, PAUSE, PING, PONG, Peer, RESUME, auth,
    flagged, frame, hex, packed, serve, write_password,
};
use crate::raw::{Answer, fetch, noise, read_all};
use crate::serving::{Signal, Site, wait_for};
use crate::tls_raw::shaken;

const DENIED: u64 = 3003;
const NOT_FOUND: u64 = 4000;

#[test]
fn a_wrong_password_is_told_and_nobody_else_is_kept_waiting() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let nearly = hex(PASSWORD.as_bytes());
    let shown = |hash: serde_json::Value| frame(7, 0, &packed(&json!({ "password_hash": hash })));
    let wrong = [
        auth("wrong", "x"),
        auth("", "x"),
        shown(json!(nearly[1..])),
        shown(json!(nearly.to_uppercase())),
        shown(json!(7)),
        frame(7, 0, &packed(&json!({}))),
        frame(7, 0, b"\xc1"),
    ];
    for said in wrong {
        let mut stream = server.connect();
        stream.write_all(&said).unwrap();
        let answer = read_all(&mut stream);
        assert_eq!(u16::from_be_bytes([answer[6], answer[7]]), FAILURE);
        assert!(answer.ends_with(b"\xa6reason\xb0Invalid password"), "{}", answer.escape_ascii());
    }
    Peer::new(&server).download_list();
    let log = server.wait_log_count("Refused a key", 7);
    assert!(!log.contains(&nearly) && !log.contains(PASSWORD), "{log}");
}

impl Peer {
    #[track_caller]
    fn download_list(&mut self) {
        self.get("file_list", json!({}));
    }
}

#[test]
fn nothing_is_said_behind_the_password_s_answer_before_the_client_says_more() {
    let site = Site::new();
    let server = serve(&site, &[]);
    site.file("file", b"pushed");
    let began = Instant::now();
    let mut peer = Peer::named(&server, "listener");
    // Something is pushed to it at once.
    let mut pusher = Peer::new(&server);
    pusher.send("file_push", &json!({ "client": "listener", "filename": "file" }));
    server.wait_log("Sending file 'file'");
    peer.stream.set_nonblocking(true).unwrap();
    let is_silent = peer.stream.read(&mut [0]).is_err();
    // For as long as that, whatever the machine does meanwhile.
    assert!(is_silent || began.elapsed() >= CONDUIT_QUIET, "nothing yet");
    peer.stream.set_nonblocking(false).unwrap();
    if !is_silent {
        return;
    }
    peer.say(&frame(PING, 0, &[]));
    let came = [peer.hear().unwrap(), peer.hear().unwrap()];
    assert!(came.iter().any(|came| came.kind == PONG), "{came:?}");
    assert!(came.iter().any(|came| came.said["type"] == "file_incoming"), "{came:?}");
}

#[test]
fn bytes_of_the_first_frame_may_come_one_at_a_time() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut stream = server.connect();
    let bytes = auth(PASSWORD, "slow");
    for byte in &bytes[..bytes.len() - 1] {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.write_all(&bytes[bytes.len() - 1..]).unwrap();
    let mut head = [0; 8];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head, *b"CNDT\x01\0\0\x08");
}

#[test]
fn the_password_allows_what_the_option_says_and_no_more() {
    let site = Site::new();
    site.file("file", b"bytes");
    let server = serve(&site, &["--conduit-allow", "read", "--require-key"]);
    assert!(matches!(fetch(server.address, "file"), Answer::Refused(_)), "others need a key");
    let mut peer = Peer::new(&server);
    assert_eq!(peer.download("file"), b"bytes");
    peer.download_list();
    let upload = json!({ "filename": "new", "size": 1, "checksum": hex(b"x") });
    assert_eq!(peer.fault("file_upload_start", upload), DENIED);
    assert_eq!(peer.fault("client_list", json!({})), DENIED);
    assert_eq!(peer.fault("file_push", json!({ "client": "peer", "filename": "file" })), DENIED);
    let site = Site::new();
    site.file("file", b"bytes");
    let server = serve(&site, &["--conduit-allow", "write", "--require-key"]);
    let mut peer = Peer::new(&server);
    peer.upload("new", b"x");
    assert_eq!(peer.fault("file_download_start", json!({ "filename": "file" })), DENIED);
    assert_eq!(peer.fault("file_list", json!({})), DENIED);
}

#[test]
fn a_password_that_others_can_read_or_that_is_missing_stops_the_start() {
    let site = Site::new();
    write_password(&site, 0o644);
    for (file, code, says) in
        [("password", 4, "chmod 600 password"), ("nothing", 11, "cannot read the password in nothing")]
    {
        let ended = site.launch(&["--conduit-password-file", file]).run();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(says) && !ended.stderr.contains(PASSWORD), "{}", ended.stderr);
    }
    write_password(&site, 0o600);
    std::fs::rename(site.path().join("password"), site.root("password")).unwrap();
    let ended = site.launch(&["--conduit-password-file", "root/password"]).run();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert!(ended.stderr.contains("is in the folder that is served"), "{}", ended.stderr);
}

#[test]
fn within_tls_it_is_the_same_and_where_tls_is_demanded_nothing_else_is_served() {
    let site = Site::new();
    let server = serve(&site, &["--tls", "require"]);
    let bytes = noise(1, 3 * CHUNK + 7);
    let mut peer = Peer::over(shaken(server.connect()).unwrap(), "secret");
    peer.upload("file", &bytes);
    assert!(peer.download("file") == bytes);
    let mut stream = server.connect();
    stream.write_all(&auth(PASSWORD, "x")).unwrap();
    let answer = read_all(&mut stream);
    assert_eq!(answer[7], FAILURE as u8);
    assert!(String::from_utf8_lossy(&answer).contains("TLS only"));
    server.wait_log("refused: without TLS (--tls require)");
}

#[test]
fn pings_acknowledgements_lists_and_ends_are_answered() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    peer.say(&frame(PING, 3, &[]));
    let pong = peer.hear().unwrap();
    assert_eq!((pong.kind, pong.correlation), (PONG, 3));
    peer.say(&flagged(PING, 4, 5, &[]));
    let (ack, pong) = (peer.hear().unwrap(), peer.hear().unwrap());
    assert_eq!((ack.kind, ack.correlation, pong.kind), (ACK, 5, PONG));
    peer.say(&frame(LIST, 9, &[]));
    let list = peer.hear().unwrap();
    assert_eq!((list.kind, list.correlation), (LIST, 9));
    let methods = peer.get("listall", json!({}));
    assert_eq!(list.said, methods);
    let names: Vec<_> = methods["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|method| method["name"].as_str().unwrap())
        .collect();
    assert_eq!((names.len(), &methods["count"]), (9, &json!(9)));
    assert!(names.contains(&"file_upload_chunk") && methods["methods"][2]["parameters"]["size"] == "int");
    let unknown = peer.call("shutdown", json!({}));
    assert_eq!(
        unknown,
        json!({ "success": false, "error": "RPC method not found: shutdown", "code": NOT_FOUND })
    );
    // What nobody has asked for is nobody's fault.
    for kind in [3, 4, 6, 12, 13, 15] {
        peer.say(&frame(kind, 99, &packed(&json!({ "success": true }))));
    }
    peer.say(&frame(1, 0, &packed(&json!({ "type": "chat", "data": ["hello"] }))));
    peer.download_list();
    peer.say(&frame(CLOSE, 0, &packed(&json!({ "reason": "done" }))));
    assert_eq!(peer.hear().unwrap().kind, CLOSE_ACK);
    assert!(peer.is_over());
}

#[test]
fn a_client_that_says_pause_is_sent_nothing_before_it_says_resume() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    peer.say(&frame(PAUSE, 0, &[]));
    let call = peer.send("file_list", &json!({}));
    server.wait_log("Folder '.' listed");
    // The call behind it has been answered as well by then.
    let other = peer.send("file_download_start", &json!({ "filename": "nothing" }));
    server.wait_log("Refused 'nothing'");
    peer.stream.set_nonblocking(true).unwrap();
    assert!(peer.stream.read(&mut [0]).is_err(), "nothing was sent");
    peer.stream.set_nonblocking(false).unwrap();
    peer.say(&frame(RESUME, 0, &[]));
    assert_eq!(peer.answer(call)["success"], true);
    assert_eq!(peer.answer(other)["code"], NOT_FOUND);
}

#[test]
fn calls_that_come_together_are_answered_in_their_order() {
    let site = Site::new();
    site.file("file", b"x");
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let mut calls = Vec::new();
    for number in 0..200 {
        let params = json!({ "filename": if number % 2 == 0 { "nothing" } else { "none" } });
        calls.push(peer.send("file_download_start", &params));
    }
    for call in calls {
        assert_eq!(peer.answer(call)["code"], NOT_FOUND);
    }
}

#[test]
fn a_client_is_pinged_after_half_a_minute_and_one_that_answers_stays() {
    let site = Site::new();
    let server = serve(&site, &["--idle-timeout", "1s"]);
    let mut peer = Peer::new(&server);
    let ping = peer.hear_any().unwrap();
    assert_eq!(ping.kind, PING);
    peer.say(&frame(PONG, 0, &[]));
    peer.download_list();
}

#[test]
fn a_server_that_stops_says_so_to_those_who_are_idle() {
    let site = Site::new();
    let mut server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    peer.download_list();
    server.signal(Signal::INT);
    let close = peer.hear().unwrap();
    assert_eq!((close.kind, &close.said["reason"]), (CLOSE, &json!("the server is stopping")));
    assert!(peer.is_over());
    assert_eq!(server.wait_exit(), Some(0));
}

#[test]
fn a_transfer_that_runs_when_the_server_stops_comes_to_its_end() {
    let site = Site::new();
    let mut server = serve(&site, &[]);
    let bytes = noise(1, 3 * CHUNK);
    let mut peer = Peer::new(&server);
    let transfer = peer.start("file", &bytes);
    server.signal(Signal::INT);
    server.wait_log("No new connections are accepted");
    for (index, part) in bytes.chunks(CHUNK).enumerate() {
        peer.bring(&transfer, index, part);
    }
    peer.get("file_upload_complete", json!({ "transfer_id": transfer }));
    assert_eq!(peer.hear().unwrap().kind, CLOSE);
    assert_eq!(server.wait_exit(), Some(0));
    assert!(std::fs::read(site.root("file")).unwrap() == bytes);
}

#[test]
fn transfers_stand_in_log_and_history_with_the_name_of_the_key() {
    let site = Site::new();
    let mut server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    peer.upload("up", &noise(1, 5000));
    peer.download("up");
    let begun = peer.get("file_download_start", json!({ "filename": "up" }));
    assert!(begun["transfer_id"].is_string());
    drop(peer);
    server.wait_log("Transfer of 'up'");
    server.signal(Signal::INT);
    assert_eq!(server.wait_exit(), Some(0));
    let catalog = Connection::open(site.path().join("state/catalog.db")).unwrap();
    let select =
        "SELECT dialect, direction, size, moved, cause IS NULL, key_name FROM transfer ORDER BY number";
    let mut select = catalog.prepare(select).unwrap();
    type Row = (String, String, u32, u32, bool, Option<String>);
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
    };
    let rows: Vec<Row> = select.query_map([], read).unwrap().map(Result::unwrap).collect();
    let row = |direction: &str, moved, is_whole| {
        ("conduit".to_owned(), direction.to_owned(), 5000, moved, is_whole, Some("conduit".to_owned()))
    };
    let expected = [row("upload", 5000, true), row("download", 5000, true), row("download", 0, false)];
    assert_eq!(rows, expected);
}

#[test]
fn without_a_password_the_dialect_is_not_served() {
    let site = Site::new();
    let server = site.serve(&[]);
    let mut stream = server.connect();
    stream.write_all(&[auth(PASSWORD, "x"), frame(CALL, 1, &[])].concat()).unwrap();
    assert_eq!(read_all(&mut stream), b"");
    wait_for("one line", || server.log().contains("not served: Conduit").then_some(()));
}
