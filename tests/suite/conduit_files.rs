//! Files over Conduit: what is brought is whole or not there, what is fetched is what there is, and all dialects see the
//! same.

use std::fs;

use base64ct::{Base64, Encoding as _};
use serde_json::json;

use crate::conduit_peer::{CHUNK, Peer, chunk, hex, serve, wanted};
use crate::raw::{Answer, fetch, fetch_whole, noise};
use crate::serving::{Site, wait_for};
use crate::storing::{Files, Holder, MIB, expect_all, found};

/// What a call fails with.
const PARAMETERS: u64 = 2000;
const VALUE: u64 = 2003;
const NOT_FOUND: u64 = 4000;
const BUSY: u64 = 6000;
const NO_ROOM: u64 = 6001;

#[test]
fn what_is_uploaded_is_there_for_all_dialects_and_comes_back_the_same() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let sizes = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, MIB, MIB + 1, 3 * MIB + 5];
    let mut expected = Files::new();
    for size in sizes {
        let (name, bytes) = (format!("f{size}"), noise(size as u64, size));
        assert_eq!(peer.upload(&name, &bytes), name);
        assert!(peer.download(&name) == bytes, "{size}");
        assert!(fetch_whole(server.address, &name) == bytes, "{size}");
        expected.insert(name, bytes);
    }
    expect_all(&site.root(""), &expected, "uploaded");
    let listed = peer.get("file_list", json!({}));
    let mut files: Vec<_> = listed["files"].as_array().unwrap().clone();
    files.sort_by_key(|file| file["size"].as_u64());
    let told: Vec<_> = sizes.iter().map(|size| json!({ "name": format!("f{size}"), "size": size })).collect();
    assert_eq!((files, &listed["truncated"]), (told, &json!(false)));
}

#[test]
fn what_version_2_puts_is_fetched_here_and_what_is_brought_here_is_fetched_by_it() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let (one, two) = (noise(1, 2 * MIB + 3), noise(2, MIB + 7));
    holder.place.write("one", &one);
    holder.client(server.address, &["put", "one"]).end().expect(0);
    assert!(peer.download("one") == one);
    peer.upload("two", &two);
    holder.client(server.address, &["get", "two", "-o", "two"]).end().expect(0);
    assert!(holder.place.read("two") == two);
}

#[test]
fn nothing_is_to_be_seen_of_an_upload_before_all_of_it_was_verified() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let bytes = noise(1, MIB + 5);
    let transfer = peer.start("file", &bytes);
    for (index, part) in bytes.chunks(CHUNK).enumerate() {
        peer.bring(&transfer, index, part);
        assert!(matches!(fetch(server.address, "file"), Answer::Refused(_)));
    }
    assert_eq!(peer.get("file_list", json!({}))["files"], json!([]));
    peer.get("file_upload_complete", json!({ "transfer_id": transfer }));
    assert!(fetch_whole(server.address, "file") == bytes);
    assert_eq!(peer.fault("file_upload_complete", json!({ "transfer_id": transfer })), NOT_FOUND);
}

#[test]
fn what_is_not_as_announced_is_not_stored_and_leaves_nothing() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let bytes = noise(1, MIB + 5);
    let mut other = bytes.clone();
    other[MIB] ^= 1;
    let complete = |transfer| json!({ "transfer_id": transfer });
    // A byte that is another one; a byte too few; a byte too many; nothing at all.
    for brought in [&other[..], &bytes[..MIB + 4], &[&bytes[..], b"x"].concat(), b""] {
        let transfer = peer.start("file", &bytes);
        let mut is_over = false;
        for (index, part) in brought.chunks(CHUNK).enumerate() {
            let received = peer.call("file_upload_chunk", chunk(&transfer, index, part));
            is_over = received["success"] == false;
        }
        let expected = if is_over { NOT_FOUND } else { VALUE };
        assert_eq!(
            (is_over, peer.fault("file_upload_complete", complete(transfer))),
            (brought.len() > bytes.len(), expected)
        );
        wait_for("that nothing is left", || (found(&site.root("")) == Default::default()).then_some(()));
    }
    for (checksum, code) in
        [(json!(hex(b"")[1..]), VALUE), (json!("x".repeat(64)), VALUE), (json!(7), PARAMETERS)]
    {
        let params = json!({ "filename": "file", "size": 5, "checksum": checksum });
        assert_eq!(peer.fault("file_upload_start", params), code);
    }
    assert_eq!(peer.upload("file", &bytes), "file", "the name is free");
}

#[test]
fn a_chunk_that_came_is_acknowledged_again_and_one_ahead_of_its_turn_is_refused() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let bytes = noise(1, 3 * CHUNK + 5);
    let parts: Vec<_> = bytes.chunks(CHUNK).collect();
    let transfer = peer.start("file", &bytes);
    assert_eq!(peer.fault("file_upload_chunk", chunk(&transfer, 1, parts[1])), VALUE);
    peer.bring(&transfer, 0, parts[0]);
    peer.bring(&transfer, 1, parts[1]);
    for again in [0, 1] {
        assert_eq!(peer.bring(&transfer, again, b"whatever")["chunks_received"], 2);
    }
    assert_eq!(peer.fault("file_upload_chunk", chunk(&transfer, 3, parts[3])), VALUE);
    let wrong = json!({ "transfer_id": transfer, "chunk_index": 2, "data_b64": "no Base64!" });
    assert_eq!(peer.fault("file_upload_chunk", wrong), VALUE);
    for wrong in [
        json!({}),
        json!({ "transfer_id": transfer }),
        json!({ "transfer_id": transfer, "chunk_index": -1, "data_b64": "" }),
    ] {
        assert_eq!(peer.fault("file_upload_chunk", wrong), PARAMETERS);
    }
    peer.bring(&transfer, 2, parts[2]);
    peer.bring(&transfer, 3, parts[3]);
    peer.get("file_upload_complete", json!({ "transfer_id": transfer }));
    assert!(fetch_whole(server.address, "file") == bytes);
}

#[test]
fn chunks_of_an_upload_may_have_any_length() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    for (name, len) in [("small", 10_007), ("large", 1_500_000)] {
        let bytes = noise(len as u64, 2 * MIB + 5);
        let transfer = peer.start(name, &bytes);
        for (index, part) in bytes.chunks(len).enumerate() {
            peer.bring(&transfer, index, part);
        }
        peer.get("file_upload_complete", json!({ "transfer_id": transfer }));
        assert!(peer.download(name) == bytes, "{name}");
    }
}

#[test]
fn no_name_leads_out_of_what_is_served() {
    let site = Site::new();
    fs::write(site.path().join("outside"), "secret").unwrap();
    site.file("sub/inside", b"inside");
    std::os::unix::fs::symlink("..", site.root("up")).unwrap();
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let long = "x".repeat(300);
    for name in [
        "../outside",
        "/etc/passwd",
        "",
        ".",
        "sub/../../outside",
        "a\0b",
        ".oneport/x",
        ".oneport-x.part",
        &long,
    ] {
        let upload = json!({ "filename": name, "size": 1, "checksum": hex(b"x") });
        assert_eq!(peer.fault("file_upload_start", upload), VALUE, "{name:?}");
        assert_eq!(peer.fault("file_download_start", json!({ "filename": name })), VALUE, "{name:?}");
    }
    let upload = json!({ "filename": "up/outside2", "size": 1, "checksum": hex(b"x") });
    assert_eq!(peer.call("file_upload_start", upload)["success"], false);
    assert_eq!(peer.fault("file_download_start", json!({ "filename": "up/outside" })), NOT_FOUND);
    for name in ["sub", "nothing", "sub/nothing"] {
        assert_eq!(peer.fault("file_download_start", json!({ "filename": name })), NOT_FOUND, "{name}");
    }
    assert_eq!(peer.download("sub/inside"), b"inside");
    assert_eq!(peer.upload("new/folder/file", b"x"), "new/folder/file");
    let names: Vec<_> = found(&site.root("")).0.into_keys().collect();
    assert_eq!(names, ["new/folder/file", "sub/inside"]);
    assert_eq!(fs::read(site.path().join("outside")).unwrap(), b"secret");
}

#[test]
fn a_name_that_is_taken_is_never_replaced() {
    let site = Site::new();
    site.file("a.txt", b"first");
    fs::create_dir(site.root("folder")).unwrap();
    let server = serve(&site, &[]);
    let (mut peer, mut other) = (Peer::new(&server), Peer::new(&server));
    let mut names = vec!["a.txt".to_owned()];
    for number in 0..3 {
        names.push(peer.upload("a.txt", format!("number {number}").as_bytes()));
    }
    // Two at the same time, both of them under way.
    let (one, two) = (peer.start("a.txt", b"one"), other.start("a.txt", b"two"));
    for (peer, transfer, bytes) in [(&mut peer, one, b"one"), (&mut other, two, b"two")] {
        peer.bring(&transfer, 0, bytes);
        let stored = peer.get("file_upload_complete", json!({ "transfer_id": transfer }));
        names.push(stored["filename"].as_str().unwrap().to_owned());
    }
    assert!(names[1..].iter().all(|name| name.starts_with("a_") && name.ends_with(".txt")), "{names:?}");
    let told = [&b"first"[..], b"number 0", b"number 1", b"number 2", b"one", b"two"];
    let expected = names.into_iter().zip(told.map(<[u8]>::to_vec)).collect::<Files>();
    assert_eq!(expected.len(), 6, "each has a name of its own");
    expect_all(&site.root(""), &expected, "taken");
    assert!(peer.upload("folder", b"x").starts_with("folder_"));
}

#[test]
fn an_upload_whose_connection_is_lost_leaves_nothing_and_its_name_is_free() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let bytes = noise(1, 3 * MIB);
    for is_reset in [false, true] {
        let mut peer = Peer::new(&server);
        let transfer = peer.start("file", &bytes);
        for (index, part) in bytes.chunks(CHUNK).take(40).enumerate() {
            peer.bring(&transfer, index, part);
        }
        assert_ne!(found(&site.root("")).1.len(), 0, "what has come is staged");
        if is_reset {
            crate::raw::reset(peer.stream);
        } else {
            drop(peer);
        }
        wait_for("that nothing is left", || (found(&site.root("")) == Default::default()).then_some(()));
    }
    assert_eq!(Peer::new(&server).upload("file", &bytes), "file");
    server.wait_log("the client gave it up");
}

#[test]
fn a_client_that_comes_again_at_once_gets_the_name_that_it_had() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let bytes = noise(1, 3 * MIB);
    for _ in 0..10 {
        let mut peer = Peer::new(&server);
        let transfer = peer.start("file", &bytes);
        for (index, part) in bytes.chunks(CHUNK).take(20).enumerate() {
            peer.bring(&transfer, index, part);
        }
    }
    assert_eq!(Peer::new(&server).upload("file", &bytes), "file");
}

#[test]
fn a_server_that_was_killed_goes_on_without_what_had_not_been_stored() {
    let site = Site::new();
    let mut server = serve(&site, &[]);
    let (stored, cut) = (noise(1, MIB), noise(2, 3 * MIB));
    let mut peer = Peer::new(&server);
    peer.upload("stored", &stored);
    let transfer = peer.start("cut", &cut);
    for (index, part) in cut.chunks(CHUNK).take(40).enumerate() {
        peer.bring(&transfer, index, part);
    }
    crate::storing::kill(&mut server);
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    assert_eq!(peer.get("file_list", json!({}))["files"], json!([{ "name": "stored", "size": MIB }]));
    // What the killed one had left is of no use to anybody, and in nobody's way.
    assert_eq!(peer.upload("cut", &cut), "cut");
    expect_all(&site.root(""), &Files::from([("stored".into(), stored), ("cut".into(), cut)]), "killed");
}

#[test]
fn chunks_of_a_download_come_in_any_order_and_are_those_of_the_file_that_was_opened() {
    let site = Site::new();
    let bytes = noise(1, 3 * CHUNK + 5);
    let path = site.file("file", &bytes);
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let begun = peer.get("file_download_start", json!({ "filename": "file" }));
    let transfer = &begun["transfer_id"];
    fs::remove_file(&path).unwrap();
    site.file("file", b"another one");
    for index in [3, 1, 0, 2, 2] {
        let part = peer.get("file_download_chunk", wanted(transfer, index));
        let from = index as usize * CHUNK;
        let data = Base64::decode_vec(part["data_b64"].as_str().unwrap()).unwrap();
        assert!(data == bytes[from..bytes.len().min(from + CHUNK)]);
        assert_eq!(part.get("checksum"), None, "nobody has seen the bytes in their order");
    }
    for index in [4, 1 << 40, u64::MAX] {
        assert_eq!(peer.fault("file_download_chunk", wanted(transfer, index)), VALUE);
    }
    assert_eq!(peer.download("file"), b"another one");
}

#[test]
fn a_file_that_changes_while_it_is_fetched_is_not_ended() {
    let site = Site::new();
    let path = site.file("file", &noise(1, 2 * CHUNK));
    let server = serve(&site, &[]);
    let mut peer = Peer::new(&server);
    let begun = peer.get("file_download_start", json!({ "filename": "file" }));
    peer.get("file_download_chunk", wanted(&begun["transfer_id"], 0));
    fs::write(&path, noise(2, 2 * CHUNK)).unwrap();
    assert_eq!(peer.fault("file_download_chunk", wanted(&begun["transfer_id"], 1)), 1001);
    assert_eq!(peer.fault("file_download_chunk", wanted(&begun["transfer_id"], 1)), NOT_FOUND);
    server.wait_log("the file changed while it was being sent");
}

#[test]
fn transfers_are_bounded_and_end_with_their_connection_or_when_nobody_goes_on_with_them() {
    let site = Site::new();
    site.file("file", &noise(1, 3 * CHUNK));
    let server = serve(&site, &["--idle-timeout", "2s"]);
    Peer::new(&server).download("file");
    let at_rest = server.descriptors_behind_a_transfer();
    let mut peer = Peer::new(&server);
    let transfers: Vec<_> = (0..8)
        .flat_map(|number| {
            let begun = peer.get("file_download_start", json!({ "filename": "file" }));
            [peer.start(&format!("new{number}"), b"new"), begun["transfer_id"].clone()]
        })
        .collect();
    assert_eq!(peer.fault("file_download_start", json!({ "filename": "file" })), BUSY);
    let upload = json!({ "filename": "more", "size": 1, "checksum": hex(b"x") });
    assert_eq!(peer.fault("file_upload_start", upload), BUSY);
    // Whoever is open on one connection is unknown on another.
    let mut other = Peer::new(&server);
    for transfer in &transfers {
        assert_eq!(other.fault("file_upload_complete", json!({ "transfer_id": transfer })), NOT_FOUND);
        assert_eq!(other.fault("file_download_chunk", wanted(transfer, 0)), NOT_FOUND);
    }
    // None of them is gone on with.
    server.wait_log_count("no chunk was asked for in 2 s", 8);
    wait_for("the end of all uploads", || (found(&site.root("")).1.is_empty()).then_some(()));
    assert_eq!(peer.fault("file_upload_complete", json!({ "transfer_id": transfers[0] })), NOT_FOUND);
    peer.download("file");
    drop((peer, other));
    assert_eq!(server.descriptors_at_rest(), at_rest);
}

#[test]
fn what_is_larger_than_the_server_takes_is_refused_before_a_byte() {
    let site = Site::new();
    let server = serve(&site, &["--upload-max", "1MiB"]);
    let mut peer = Peer::new(&server);
    let size = |size: u64| json!({ "filename": "file", "size": size, "checksum": hex(b"") });
    for bytes in [(1 << 20) + 1, 1 << 40, u64::MAX] {
        assert_eq!(peer.fault("file_upload_start", size(bytes)), NO_ROOM, "{bytes}");
    }
    assert_eq!(found(&site.root("")), Default::default());
    peer.upload("file", &noise(1, MIB));
}
