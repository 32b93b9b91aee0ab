//! Live control: what a running server says of itself, to whom, and how transfers are ended by somebody else's word.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;

use oneport::codec::v2::{ErrorCode, Put, ServerFrame};
use oneport::error::Code;
use serde_json::{Value, json};

use crate::conduit_peer;
use crate::harness::Place;
use crate::holders::{add, connect_from};
use crate::putting::{Came, Putter};
use crate::raw::{self, Answer, noise, request};
use crate::serving::{Ended, Signal, Site, wait_for};
use crate::v2_peer::{Asker, MIB, encoded, get, server as scripted};

/// The code of what was cancelled on the server.
const CANCELLED: u16 = 14;
/// A window that holds a transfer up until it grows.
const NARROW: &str = "window=1048576";

/// `server VERB …` with the site's state folder.
fn owner(site: &Site, words: &[&str]) -> Ended {
    site.launch_bare(&[words, &["--state", "state"]].concat()).run()
}

/// The records of an answer.
#[track_caller]
fn records(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_event(records: &[Value], event: &str) -> Vec<Value> {
    records.iter().filter(|record| record["event"] == event).cloned().collect()
}

/// The only transfer that is running, once it has moved this many bytes.
fn running(site: &Site, moved: usize) -> Value {
    wait_for("a transfer that is running", || {
        let transfers = of_event(&records(&owner(site, &["status", "--json"])), "transfer");
        let found = transfers.first()?;
        (transfers.len() == 1 && found["moved"].as_u64()? >= moved as u64).then(|| found.clone())
    })
}

fn id(transfer: &Value) -> &str {
    transfer["id"].as_str().unwrap()
}

/// What the history says of a file, once it does.
fn past(site: &Site, name: &str, options: &[&str]) -> Value {
    wait_for("an entry of the history", || {
        let words = [&["history", "--json", "--name", name], options].concat();
        records(&owner(site, &words)).first().cloned()
    })
}

#[test]
fn the_owner_sees_what_runs_and_ends_it_and_whose_it_was_is_told() {
    let site = Site::new();
    site.file("large", &noise(1, 4 * MIB));
    let key = add(&site, "ann", &["--allow", "read"]);
    let server = site.serve(&["--require-key"]);
    let mut asker = Asker::new(&server, NARROW);
    asker.stream.write_all(&crate::holders::auth(&key)).unwrap();
    asker.send(&[get(1, "large")]);
    let transfer = running(&site, MIB);
    let (peer, size) = (asker.stream.local_addr().unwrap().to_string(), 4 * MIB as u64);
    for (field, value) in [
        ("peer", Value::from(peer.clone())),
        ("key", "ann".into()),
        ("dialect", "v2".into()),
        ("direction", "download".into()),
        ("name", "large".into()),
        ("size", size.into()),
        ("done", (MIB as u64).into()),
    ] {
        assert_eq!(transfer[field], value, "{field} in {transfer}");
    }
    let clients = of_event(&records(&owner(&site, &["clients", "--json"])), "client");
    let ann = clients.iter().find(|client| client["peer"] == peer.as_str()).unwrap();
    assert_eq!((&ann["key"], &ann["doing"]), (&"ann".into(), &"download large".into()), "{ann}");
    assert_eq!(ann["transfers"][0], transfer["id"]);
    assert!(ann["sent"].as_u64().unwrap() > MIB as u64, "{ann}");
    assert!(clients.iter().any(|client| client["key"] == "owner" && client["doing"] == "idle"));
    let status = &of_event(&records(&owner(&site, &["status", "--json"])), "status")[0];
    assert_eq!((&status["running"], &status["version"]), (&1.into(), &1.into()), "{status}");
    assert!(status["addresses"][0].as_str().unwrap().ends_with(&server.address.port().to_string()));

    let gone = records(&owner(&site, &["cancel", id(&transfer), "--json"]));
    assert_eq!((&gone[0]["event"], &gone[0]["id"]), (&"cancelled".into(), &transfer["id"]));
    assert_eq!(asker.hear_all(1), Err(CANCELLED));
    assert!(asker.is_answered(), "the connection goes on");
    server.wait_log("cancelled by owner");
    let entry = past(&site, "large", &["--result", "cancelled"]);
    assert_eq!((&entry["cancelled_by"], &entry["key"]), (&"owner".into(), &"ann".into()), "{entry}");
    assert_eq!(entry["moved"], Value::from(MIB as u64));
    assert!(records(&owner(&site, &["history", "--json", "--result", "ok"])).is_empty());
    let again = owner(&site, &["cancel", id(&transfer)]);
    assert_eq!(again.code, Some(3), "{}", again.stderr);
    assert!(again.stderr.contains("no running transfer"), "{}", again.stderr);
    // For people.
    for (words, text) in
        [(&["status"][..], "connections"), (&["clients"], "DOING"), (&["history"], "cancelled")]
    {
        let shown = owner(&site, words);
        assert!(shown.code == Some(0) && shown.stdout.contains(text), "{}{}", shown.stdout, shown.stderr);
    }
    asker.send(&[get(2, "large")]);
    assert!(
        matches!(asker.hear().unwrap().frame, ServerFrame::File(2, _)),
        "whoever was told may begin anew"
    );
}

#[test]
fn a_download_and_an_upload_of_the_real_client_end_for_good_when_they_are_cancelled() {
    let site = Site::new();
    let data = noise(2, 8 * MIB);
    site.file("large", &data);
    let key = add(&site, "ann", &["--allow", "read,write"]);
    let server = site.serve(&[]);
    let place = Place::new();
    fs::write(place.path("up"), &data).unwrap();
    let to = server.address.to_string();
    let slow = ["--limit-rate", "200KiB", "--retries", "9", "--retry-delay", "20ms"];
    for words in [&["get", "large", "-s", &to][..], &["put", "up", "-s", &to]] {
        let client = place.client(&[words, &slow].concat()).env("ONEPORT_KEY", &key).start();
        let transfer = running(&site, 1);
        assert_eq!(owner(&site, &["cancel", id(&transfer)]).code, Some(0));
        client.end().expect(CANCELLED.into()).says("cancelled by an operator of the server");
    }
    assert!(!site.root("up").exists());
    assert_eq!(past(&site, "up", &[])["result"], "cancelled");
    // What has come stays, and whoever begins anew goes on with it.
    let words = ["put", "up", "-s", &to, "--retries", "0"];
    place.client(&words).env("ONEPORT_KEY", &key).end().expect(0);
    assert!(fs::read(site.root("up")).unwrap() == data);
}

#[test]
fn every_connection_of_an_upload_hears_that_it_was_cancelled_and_so_does_whoever_comes_again() {
    let site = Site::new();
    let key = add(&site, "ann", &["--allow", "write"]);
    let data = noise(3, 4 * MIB);
    let server = site.serve(&[]);
    let mut putter = Putter::new(&server, &key, &data);
    putter.most = 2 * MIB;
    let put = putter.put("up", 1);
    assert_eq!(putter.offer(1, put.clone()), Came::Enough);
    let transfer = running(&site, 1);
    assert_eq!(transfer["direction"], "upload");
    assert_eq!(owner(&site, &["cancel", id(&transfer)]).code, Some(0));
    let is_it = |came: Came| matches!(came, Came::Failed(1, CANCELLED, _));
    putter.most = usize::MAX;
    assert!(is_it(putter.answer()));
    let mut again = Putter::new(&server, &key, &data);
    let came = again.offer(1, Put { attempt: 2, ..put });
    assert!(is_it(came), "the same transfer");
    let mut anew = Putter::new(&server, &key, &data);
    let put = Put { transfer: [8; 16], ..anew.put("up", 1) };
    assert!(matches!(anew.offer(1, put), Came::Ended(1, Some(_))));
}

#[test]
fn a_transfer_of_version_1_is_cut_and_its_client_told_once_when_it_comes_again() {
    let site = Site::new();
    let data = noise(4, 64 * MIB);
    site.file("large", &data);
    let server = site.serve(&[]);
    let mut stream = server.connect();
    stream.write_all(&request(b"large")).unwrap();
    let mut some = [0; 4096];
    stream.read_exact(&mut some).unwrap();
    let transfer = running(&site, 1);
    assert_eq!((&transfer["dialect"], &transfer["key"]), (&"v1".into(), &Value::Null));
    assert_eq!(owner(&site, &["cancel", id(&transfer)]).code, Some(0));
    let mut rest = Vec::new();
    // It may be reset where bytes were on their way.
    let _ = stream.read_to_end(&mut rest);
    assert!(some.len() + rest.len() < data.len(), "it came to its end");
    assert_eq!(past(&site, "large", &[])["cancelled_by"], "owner");
    match raw::fetch(server.address, "large") {
        Answer::Refused(text) => assert!(text.contains("cancelled by an operator"), "{text}"),
        other => panic!("{}", raw::brief(&other)),
    }
    assert!(matches!(raw::fetch(server.address, "large"), Answer::Whole(_)), "it was told once");
}

#[test]
fn clients_of_conduit_are_seen_and_their_transfers_end_as_all_others() {
    let site = Site::new();
    site.file("large", &noise(1, 4 << 16));
    let server = conduit_peer::serve(&site, &[]);
    let mut peer = conduit_peer::Peer::named(&server, "desk");
    let begun = peer.get("file_download_start", json!({ "filename": "large" }));
    let chunk = json!({ "transfer_id": begun["transfer_id"], "chunk_index": 0 });
    peer.get("file_download_chunk", chunk.clone());
    let transfer = running(&site, 1 << 16);
    assert_eq!((&transfer["dialect"], &transfer["key"]), (&"conduit".into(), &"conduit".into()));
    let clients = of_event(&records(&owner(&site, &["clients", "--json"])), "client");
    let desk = clients.iter().find(|client| client["dialect"] == "conduit").unwrap();
    assert_eq!((&desk["key"], &desk["doing"]), (&"conduit".into(), &"download large".into()), "{desk}");
    records(&owner(&site, &["cancel", id(&transfer), "--json"]));
    let ended = peer.call("file_download_chunk", chunk);
    assert_eq!(ended["success"], false, "{ended}");
    assert!(ended["error"].as_str().unwrap().contains("cancelled by an operator"), "{ended}");
    assert_eq!(past(&site, "large", &["--result", "cancelled"])["cancelled_by"], "owner");
    peer.get("file_list", json!({}));
}

#[test]
fn a_client_that_takes_nothing_does_not_keep_its_transfer_alive() {
    let site = Site::new();
    site.file("large", &noise(5, 64 * MIB));
    let server = site.serve(&[]);
    let mut asker = Asker::new(&server, "window=1000000000");
    asker.send(&[get(1, "large")]);
    let transfer = running(&site, 1);
    assert_eq!(owner(&site, &["cancel", id(&transfer)]).code, Some(0));
    assert_eq!(past(&site, "large", &[])["cancelled_by"], "owner");
    drop(server);
}

#[test]
fn a_frame_that_takes_too_long_is_cut_and_its_client_told_when_it_comes_again() {
    let site = Site::new();
    site.file("large", &noise(5, MIB));
    // A frame takes 16 s then.
    let server = site.serve(&["--limit-rate-per-client", "256", "--tls", "off"]);
    let connect = || connect_from(&server, "127.0.0.7".parse().unwrap());
    let mut asker = Asker::on(connect(), "");
    asker.send(&[get(1, "large")]);
    let transfer = running(&site, 1);
    assert_eq!(owner(&site, &["cancel", id(&transfer)]).code, Some(0));
    server.wait_log("what was under way of it was not taken");
    drop(asker);
    let mut again = Asker::on(connect(), "");
    again.send(&[get(1, "large")]);
    assert_eq!(again.hear_all(1), Err(CANCELLED));
    again.send(&[get(2, "large")]);
    assert!(matches!(again.hear().unwrap().frame, ServerFrame::File(2, _)), "it was told once");
}

#[test]
fn the_client_asks_with_a_key_that_may_administer_and_with_no_other() {
    let site = Site::new();
    site.file("f", b"hello");
    let admin = add(&site, "boss", &["--allow", "admin"]);
    let part = add(&site, "part", &["--allow", "admin", "--path", "here"]);
    let reader = add(&site, "ann", &["--allow", "read"]);
    let server = site.serve(&[]);
    assert_eq!(raw::fetch_whole(server.address, "f"), b"hello");
    let place = Place::new();
    let to = server.address.to_string();
    let ask = |verb: &[&str], key: &str| {
        let words = [verb, &["-s", &to, "--json", "--retries", "0"]].concat();
        place.client(&words).env("ONEPORT_KEY", key).end()
    };
    let status = ask(&["status"], &admin).expect(0).stdout();
    assert!(status.contains(r#""event":"status""#) && status.contains(r#""sent":1"#), "{status}");
    let client = ask(&["clients"], &admin).expect(0).stdout();
    assert!(client.contains(r#""key":"boss""#), "{client}");
    wait_for("the history", || {
        ask(&["history", "--client", "127.0.0.1"], &admin)
            .expect(0)
            .stdout()
            .contains(r#""name":"f""#)
            .then_some(())
    });
    assert_eq!(ask(&["history", "--client", "10.0.0.1"], &admin).expect(0).stdout(), "");
    ask(&["cancel", "abc-1"], &admin).expect(3).says("no running transfer");
    for verb in [&["status"][..], &["clients"], &["history"], &["cancel", "abc-1"]] {
        ask(verb, &reader).expect(4).says("the key does not allow this");
        ask(verb, &part).expect(4);
    }
    let words = ["status", "-s", &to, "--retries", "0"];
    place.client(&words).end().expect(4).says("a key with the right to admin is needed");
}

#[test]
fn the_history_is_told_in_order_and_filtered_however_long_it_is() {
    let site = Site::new();
    let server = site.serve(&[]);
    let count = 300;
    for index in 0..count {
        let name = format!("f{index}.{}", if index % 3 == 0 { "iso" } else { "txt" });
        site.file(&name, b"x");
        assert_eq!(raw::fetch_whole(server.address, &name), b"x");
    }
    let all = wait_for("the last entry", || {
        let all = records(&owner(&site, &["history", "--json", "--limit", "0"]));
        (all.len() == count).then_some(all)
    });
    let names: Vec<_> = all.iter().map(|past| past["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!((names[0].as_str(), names[count - 1].as_str()), ("f299.txt", "f0.iso"), "the newest first");
    let told = |options: &[&str]| records(&owner(&site, &[&["history", "--json"], options].concat())).len();
    assert_eq!(told(&[]), 100, "as many as are shown where nobody says how many");
    assert_eq!(told(&["-n", "7"]), 7);
    assert_eq!(told(&["--name", "*.iso", "-n", "0"]), count / 3);
    assert_eq!(told(&["--name", "*.iso", "-n", "99"]), 99);
    assert_eq!(told(&["--since", "1d", "--direction", "download", "-n", "0"]), count);
    assert_eq!(told(&["--until", "1d"]), 0);
    assert_eq!(told(&["--direction", "upload"]), 0);
    assert_eq!(told(&["--result", "failed"]), 0);
}

#[test]
fn the_owners_token_is_of_one_run_and_nobody_elses() {
    let site = Site::new();
    let path = site.path().join("state/owner");
    let none = owner(&site, &["status"]);
    assert_eq!(none.code, Some(5), "{}", none.stderr);
    assert!(none.stderr.contains("no server is running with the state folder"), "{}", none.stderr);
    let mut server = site.serve(&[]);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let first = fs::read_to_string(&path).unwrap();
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0));
    assert!(!path.exists(), "it is gone with its server");
    let mut server = site.serve(&[]);
    let second = fs::read_to_string(&path).unwrap();
    let token = |note: &str| note.trim().rsplit(' ').next().unwrap().to_owned();
    assert_ne!(token(&first), token(&second), "each run has its own");
    server.signal(Signal::KILL);
    server.wait_exit();
    let stale = owner(&site, &["status"]);
    assert_eq!(stale.code, Some(5), "{}", stale.stderr);
    assert!(stale.stderr.contains("no server answers at"), "{}", stale.stderr);

    // Somebody else has taken the port.
    let (other, port) = (Site::new(), server.address.port().to_string());
    let stranger = other.launch_bare(&[&port, "root", "--state", "state", "--log-dir", "logs"]).serve();
    let refused = owner(&site, &["cancel", "abc-1"]);
    assert_eq!(refused.code, Some(Code::Certificate.exit_status().into()), "{}", refused.stderr);
    assert!(refused.stderr.contains("is not the server with the state folder"), "{}", refused.stderr);
    assert!(!stranger.log().contains("key"), "it was shown a key: {}", stranger.log());
    drop(stranger);
    let server = site.serve(&[]);
    let log = server.log();
    let secret = crate::holders::secret(&token(&second)).to_owned();
    let shown = [none, stale, refused].map(|ended| ended.stderr + &ended.stdout).concat();
    assert!(!log.contains(&secret) && !shown.contains(&secret), "the token is shown");
    assert_eq!(owner(&site, &["status"]).code, Some(0), "a new run is found where there was a stale note");
    drop(server);
    let refused = site.launch_bare(&["key", "add", "owner", "--allow", "read", "--state", "state"]).run();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
}

#[test]
fn the_owner_reaches_a_server_without_tls_and_one_on_another_address() {
    for options in [&["--tls", "off"][..], &["--bind", "127.0.0.9"], &["--bind", "127.0.0.9", "--tls", "off"]]
    {
        let site = Site::new();
        let _server = site.serve(options);
        let ended = owner(&site, &["status"]);
        assert_eq!(ended.code, Some(0), "{options:?}: {}", ended.stderr);
    }
}

#[test]
fn a_server_that_does_not_know_the_question_is_told_as_such() {
    let old = scripted(|_, _| {
        let text = "a frame of an unknown kind";
        vec![encoded(&ServerFrame::Error(0, ErrorCode::from(Code::Protocol), text.into()))]
    });
    let place = Place::new();
    let words = ["status", "-s", &old.address.to_string(), "--retries", "2", "--retry-delay", "20ms"];
    place.client(&words).end().expect(7).says("does not know this request");
}
