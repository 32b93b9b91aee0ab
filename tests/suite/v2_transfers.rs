//! Transfers of version 2 as one thing, over any number of requests, connections, cuts and kills: the file is
//! whole in the end, and the log tells of each once.

use rustix::process::Signal;

use crate::chance;
use crate::harness::{Place, await_for};
use crate::raw::noise;
use crate::serving::{Site, wait_settled};
use crate::v2_peer::MIB;

/// The lines of a log that tell of one transfer.
pub(crate) fn transfers(log: &str) -> [usize; 3] {
    ["Sending file '", "sent successfully to", " cut after "].map(|text| log.matches(text).count())
}

#[test]
fn a_transfer_over_many_connections_and_requests_is_logged_as_one() {
    let site = Site::new();
    let size = 70 * MIB + 5;
    wait_settled(&site.file("f", &noise(21, size)));
    let server = site.serve(&["--hash-ahead", "0"]);
    for links in ["1", "2", "4"] {
        let place = Place::new();
        place.fetch("f", server.address, &["-j", links, "--no-sync"]).end().expect(0);
        let count = ["1", "2", "4"].iter().position(|each| *each == links).unwrap() + 1;
        let log = server.wait_log_count("sent successfully", count);
        assert_eq!(transfers(&log), [count, count, 0], "-j {links}: {log}");
        for percent in (10..=100).step_by(10) {
            let done = (size * percent).div_ceil(100);
            let line = format!(": {percent}% ({done}/{size} bytes)");
            assert_eq!(log.matches(&line).count(), count, "-j {links}: {line} in {log}");
        }
        assert!(log.contains(&format!("Sending file 'f' ({size} bytes) to 127.0.0.1:")));
    }
}

#[test]
fn a_cut_transfer_says_why_and_a_resumed_one_what_it_saved() {
    let site = Site::new();
    let size = 96 * MIB;
    wait_settled(&site.file("f", &noise(22, size)));
    let server = site.serve(&["--hash-ahead", "0"]);
    let place = Place::new();
    place.client(&["stat", "-s", &server.address.to_string(), "f"]).end().expect(0);
    let running = place.fetch("f", server.address, &["--no-sync", "-j", "2"]).start();
    running.await_stderr("10%");
    running.signal(Signal::KILL);
    assert_eq!(running.end().signal, Some(9));
    if place.path("client_downloads/f").exists() {
        crate::serving::skipped("a_cut_transfer_says_why", "the client was too fast to be killed");
        return;
    }
    let log = server.wait_log("Transfer of 'f' to 127.0.0.1:");
    assert!(log.contains(&format!(" of {size} bytes: the connection broke")), "{log}");
    place.fetch("f", server.address, &["--no-sync"]).end().expect(0).says("going on");
    let log = server.wait_log("sent successfully");
    assert!(log.contains("bytes are there already") && log.contains("bytes were there already"), "{log}");
    assert_eq!(transfers(&log), [2, 1, 1], "{log}");
}

#[test]
fn killed_at_any_point_client_and_server_come_to_the_whole_file() {
    const KILLS: usize = 6;
    let mut chance = chance::part(chance::seed(), 0);
    let site = Site::new();
    let data = noise(23, 48 * MIB + 77);
    wait_settled(&site.file("f", &data));
    let mut server = Some(site.serve(&[]));
    let address = server.as_ref().unwrap().address;
    let port = address.port().to_string();
    let place = Place::new();
    for round in 0..KILLS {
        let kills_server = round % 2 == 1;
        let options = ["--retries", "1000", "--retry-max-delay", "50ms"];
        let running = place.fetch("f", address, &options).start();
        let percent = chance.u32(1..8) * 10;
        await_for("work", || {
            let said = running.stderr();
            let is_far = said.contains(&format!("{percent}%")) || said.contains("going on");
            (is_far || place.path("client_downloads/f").exists()).then_some(())
        });
        if kills_server {
            drop(server.take());
            let state = ["root", "--state", "state", "--log-dir", "logs"];
            server = Some(site.launch_bare(&[&[port.as_str()], &state[..]].concat()).serve());
            running.end().expect(0);
            assert!(place.read("client_downloads/f") == data);
            std::fs::remove_file(place.path("client_downloads/f")).unwrap();
        } else {
            running.signal(Signal::KILL);
            running.end();
        }
    }
    place.fetch("f", address, &[]).end().expect(0);
    assert!(place.read("client_downloads/f") == data);
    assert_eq!(place.tree(), ["client_downloads/", "client_downloads/f"]);
}
