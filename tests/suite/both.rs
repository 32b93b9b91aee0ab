//! Our client and our server together, as a user starts them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use crate::harness::{Place, bytes};
use crate::serving::Site;

const MIB: usize = 1 << 20;

#[test]
fn files_of_every_size_arrive_whole_and_are_told_alike_on_both_sides() {
    let site = Site::new();
    let sizes = [0, 1, 4095, 4096, 4097, 65_536, 65_537, MIB - 1, MIB, MIB + 1, 20 * MIB + 17];
    for size in sizes {
        site.file(format!("f{size}"), &bytes(size as u64, size));
    }
    let server = site.serve(&[]);
    let place = Place::new();
    for size in sizes {
        place.fetch(&format!("f{size}"), server.address, &[]).end().expect(0);
        assert!(
            place.read(format!("client_downloads/f{size}")) == bytes(size as u64, size),
            "f{size} differs"
        );
    }
    assert_eq!(place.tree().len(), sizes.len() + 1, "something else was left: {:?}", place.tree());
    server.wait_log_count("sent successfully", sizes.len());
}

#[test]
fn names_of_every_kind_are_fetched_and_saved_as_they_are() {
    let longest = "x".repeat(255);
    let names = [
        "with spaces in it.txt",
        "Übergrößen – 日本語.bin",
        "50%.txt",
        "quote'\"$HOME`.sh",
        "-dash",
        longest.as_str(),
    ];
    let site = Site::new();
    for name in names {
        site.file(name, name.as_bytes());
    }
    site.file("folder/in a/folder.txt", b"deep");
    let server = site.serve(&[]);
    let place = Place::new();
    for name in names {
        place.get(server.address, &["--no-sync", "--", name]).end().expect(0);
        assert_eq!(place.read(format!("client_downloads/{name}")), name.as_bytes());
    }
    place.fetch("folder/in a/folder.txt", server.address, &[]).end().expect(0);
    assert_eq!(place.read("client_downloads/folder.txt"), b"deep");
}

#[test]
fn five_gib_arrive_whole_and_verified_over_version_1() {
    five_gib_arrive("v1", "MD5 verified\n");
}

#[test]
fn five_gib_arrive_whole_and_verified_over_version_2() {
    five_gib_arrive("v2", "BLAKE3 verified\n");
}

fn five_gib_arrive(protocol: &str, verified: &str) {
    const SIZE: u64 = 5 << 30;
    let site = Site::new();
    File::create(site.root("huge")).unwrap().set_len(SIZE).unwrap();
    let server = site.serve(&[]);
    let place = Place::new();
    // Hashing takes a while beside other tests; a client that gives up too early joins in again.
    let ended = place
        .fetch(
            "huge",
            server.address,
            &["--no-sync", "--retries", "20", "--timeout", "30s", "--protocol", protocol],
        )
        .end();
    assert!(ended.expect(0).stdout().ends_with(verified));
    let path = place.path("client_downloads/huge");
    assert_eq!(fs::metadata(&path).unwrap().size(), SIZE);
    fs::remove_file(path).unwrap();
    assert_eq!(
        server.wait_log("sent successfully").matches("% (").count() % 10,
        0,
        "ten steps for each attempt"
    );
}

#[test]
fn a_hundred_clients_at_once_each_have_their_file() {
    const CLIENTS: usize = 100;
    let site = Site::new();
    let data = |client: usize| bytes(client as u64, 300_000 + client);
    for client in 0..CLIENTS {
        site.file(format!("f{client}"), &data(client));
    }
    let server = site.serve(&[]);
    let place = Place::new();
    let names: Vec<String> = (0..CLIENTS).map(|client| format!("f{client}")).collect();
    let running: Vec<_> =
        names.iter().map(|name| place.fetch(name, server.address, &["--no-sync"]).start()).collect();
    for client in running {
        client.end().expect(0);
    }
    for (client, name) in names.iter().enumerate() {
        assert!(place.read(format!("client_downloads/{name}")) == data(client), "{name} differs");
    }
    assert_eq!(place.logs().len(), CLIENTS, "each client has a log of its own");
    server.wait_log_count("sent successfully", CLIENTS);
}

#[test]
fn a_server_that_is_killed_and_started_again_is_only_a_wait() {
    let site = Site::new();
    let data = bytes(7, 40 * MIB);
    site.file("file", &data);
    // A host of its own: its port does not become the source of another test's connection.
    let on = |port: &str| {
        site.launch_bare(&["--log-dir", "logs", "--state", "state", "--bind", "127.0.0.64", port, "root"])
            .serve()
    };
    let mut server = on("0");
    let port = server.address.port().to_string();
    let place = Place::new();
    let client = place.fetch("file", server.address, &["--retries", "20", "--progress", "plain"]).start();
    client.await_stderr("10%");
    server.signal(rustix::process::Signal::KILL);
    server.wait_exit();
    let _server = on(&port);
    client.end().expect(0);
    assert!(place.read("client_downloads/file") == data);
}
