//! Listeners, servers and senders that are killed anywhere while a file is on its way, and started again: it arrives
//! whole and once, its sender ends well, and only what is missing is moved again.

use std::time::Duration;

use crate::chance::{part, seed};
use crate::harness::Place;
use crate::proxy::{Plan, Proxy};
use crate::putting::{Came, Putter};
use crate::raw::noise;
use crate::receivers::{Peer, await_listening, hear_pushed, listen_by_hand, push, received, spooled};
use crate::serving::{Signal, Site, wait_for};
use crate::storing::{MIB, again, count, kill, told};

const SIZE: usize = 10 * MIB + 5;
/// One that takes so long that to begin anew would be seen.
const LONG: usize = 24 * MIB + 5;
/// Kills within one file.
const KILLS: usize = 3;
/// What the server moves in a second, so that there is time to be killed in.
const RATE: [&str; 2] = ["--limit-rate", "24MiB"];
/// What the log says of a file that was received.
const DELIVERED: &str = "received by ann";
/// What lets a sender live through them.
const STUBBORN: [&str; 4] = ["--retries", "300", "--retry-max-delay", "50ms"];

/// Whoever sends, whoever listens, and the folder where it does.
struct Both {
    sender: Peer,
    ann: Peer,
}

impl Both {
    fn new(site: &Site) -> Self {
        Self { sender: Peer::new(site, "sender"), ann: Peer::new(site, "ann") }
    }
}

/// The file is there whole, and nothing else but what is named.
#[track_caller]
fn expect_one(place: &Place, data: &[u8], what: &str) {
    let names: Vec<_> =
        std::fs::read_dir(place.path("in")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["x"], "{what}");
    assert!(place.read("in/x") == data, "{what}");
}

#[test]
fn a_listener_killed_anywhere_goes_on_where_it_was_and_the_sender_hears_of_nothing() {
    let (seed, site) = (seed(), Site::new());
    let both = Both::new(&site);
    let server = site.serve(&RATE);
    let mut kills = 0;
    for number in 0..count(4) {
        let mut chance = part(seed, number);
        let what = format!("round {number} of seed {seed}");
        let data = noise(seed ^ number as u64, LONG);
        both.sender.place.write("x", &data);
        let _ = std::fs::remove_dir_all(both.ann.place.path("in"));
        let proxy = Proxy::faulty(server.address, |_| Plan::none()).unwrap();
        let links = (1 + number % 2).to_string();
        let options = ["-d", "in", "-j", &links];
        let mut listening = both.ann.listen(proxy.address, "ann", &options);
        let words = [&["push", "ann", "x", "--json"], &STUBBORN[..]].concat();
        let sending = both.sender.client(server.address, &words).start();
        // It is all on the server, and the listener has been told.
        server.wait_log_count("Sending file '.oneport-push/", kills + 1);
        let mut own = 0;
        for _ in 0..KILLS {
            std::thread::sleep(Duration::from_millis(chance.u64(150..400)));
            listening.signal(Signal::KILL);
            listening.end();
            own += 1;
            listening = both.ann.start_listening(proxy.address, "ann", &options);
        }
        let ended = sending.end().expect(0);
        assert_eq!(told(&ended.stdout).last().unwrap()["ok"], true, "{what}");
        expect_one(&both.ann.place, &data, &what);
        // The block that was under way on each connection, and what lay in sockets for a client that was gone.
        let down: u64 = proxy.connections().iter().map(|traffic| traffic.down).sum();
        let bound = (LONG + MIB + own * links.parse::<usize>().unwrap() * 3 * MIB) as u64;
        assert!(down < bound, "{what}: {down} bytes for {LONG}, {own} kills, {links} links");
        drop(listening);
        kills = server.log().matches("Sending file '.oneport-push/").count();
        wait_for("nothing on its way", || (spooled(&site) == 0).then_some(()));
    }
}

#[test]
fn a_server_killed_anywhere_loses_nothing_of_what_is_on_its_way() {
    let (seed, site) = (seed(), Site::new());
    let both = Both::new(&site);
    let mut server = site.serve(&RATE);
    for number in 0..count(4) {
        let mut chance = part(seed, number);
        let data = noise(seed ^ number as u64, SIZE);
        both.sender.place.write("x", &data);
        let _ = std::fs::remove_dir_all(both.ann.place.path("in"));
        let listening = both.ann.listen(server.address, "ann", &["-d", "in"]);
        let words = [&["push", "ann", "x", "--json"], &STUBBORN[..]].concat();
        let sending = both.sender.client(server.address, &words).start();
        server.wait_log("Receiving file");
        for run in 0..KILLS {
            std::thread::sleep(Duration::from_millis(chance.u64(..500)));
            kill(&mut server);
            let what = format!("round {number}, kill {run} of seed {seed}");
            if sending.stdout().contains("\"result\"") {
                expect_one(&both.ann.place, &data, &what);
            }
            server = again(&site, &server, &RATE);
        }
        let what = format!("round {number} of seed {seed}");
        sending.end().expect(0);
        expect_one(&both.ann.place, &data, &what);
        assert!(
            received(&listening).iter().filter(|event| event["unchanged"] == false).count() == 1,
            "{what}"
        );
        drop(listening);
        wait_for("nothing on its way", || (spooled(&site) == 0).then_some(()));
    }
}

#[test]
fn a_sender_killed_anywhere_and_started_anew_brings_only_what_is_missing() {
    let (seed, site) = (seed(), Site::new());
    let both = Both::new(&site);
    // Its own rate, not the server's: what waits in a socket for that would be lost as well.
    let server = site.serve(&[]);
    let mut delivered = 0;
    for number in 0..count(4) {
        let mut chance = part(seed, number);
        let what = format!("round {number} of seed {seed}");
        let data = noise(seed ^ number as u64, SIZE);
        both.sender.place.write("x", &data);
        let _ = std::fs::remove_dir_all(both.ann.place.path("in"));
        let listening = both.ann.listen(server.address, "ann", &["-d", "in"]);
        let proxy = Proxy::faulty(server.address, |_| Plan::none()).unwrap();
        let links = (1 + chance.u64(..2)).to_string();
        let words = [&["push", "ann", "x", "--json", "-j", &links], &STUBBORN[..], &RATE[..]].concat();
        let mut cuts = 0;
        for run in 0..=KILLS {
            let sending = both.sender.client(proxy.address, &words).start();
            if run < KILLS {
                std::thread::sleep(Duration::from_millis(chance.u64(..250)));
                sending.signal(Signal::KILL);
            }
            let ended = sending.end();
            assert!(ended.signal == Some(9) || ended.code == Some(0), "{what}: {}", ended.stderr);
            cuts += usize::from(ended.signal == Some(9));
            if ended.code == Some(0) {
                break;
            }
        }
        expect_one(&both.ann.place, &data, &what);
        let up: u64 = proxy.connections().iter().map(|traffic| traffic.up).sum();
        // A sender that was killed when its file had been received, before it heard of that, sends it once more.
        let times = server.wait_log_count(DELIVERED, delivered + 1).matches(DELIVERED).count() - delivered;
        delivered += times;
        let bound = (times * SIZE + (1 + cuts * links.parse::<usize>().unwrap()) * MIB) as u64;
        assert!(up < bound, "{what}: {up} bytes for {SIZE}, {cuts} kills, {links} links, {times} times");
        drop(listening);
    }
}

#[test]
fn a_server_that_stops_waits_for_a_receiver_that_is_at_it_and_for_no_other_one() {
    let site = Site::new();
    let both = Both::new(&site);
    // Longer than anything here is waited for.
    let mut server = site.serve(&[&RATE[..], &["--drain-timeout", "1h"]].concat());
    let data = noise(7, SIZE);
    both.sender.place.write("x", &data);
    let listening = both.ann.listen(server.address, "ann", &["-d", "in"]);
    let sending = both.sender.client(server.address, &["push", "ann", "x"]).start();
    server.wait_log("Sending file '.oneport-push/");
    server.signal(Signal::TERM);
    sending.end().expect(0);
    expect_one(&both.ann.place, &data, "it was on its way to the receiver");
    assert_eq!(server.wait_exit(), Some(0));
    drop(listening);

    let mut server = again(&site, &server, &[&RATE[..], &["--drain-timeout", "1h"]].concat());
    let listening = both.ann.listen(server.address, "ann", &["-d", "in"]);
    both.sender.place.write("x", noise(8, SIZE));
    let sending = both.sender.client(server.address, &["push", "ann", "x", "--retries", "0"]).start();
    server.wait_log_count("Receiving file", 2);
    listening.signal(Signal::KILL);
    listening.end();
    server.wait_log_count("stored for", 2);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0));
    sending.end().expect(1).says("is not there");
}

#[test]
fn what_nobody_goes_on_with_is_removed_from_among_the_files_on_their_way() {
    let site = Site::new();
    let both = Both::new(&site);
    let mut server = site.serve(&[]);
    // A part of one file, and all of another one.
    let mut putter = Putter::new(&server, &both.sender.token, &noise(1, 3 * MIB));
    let mut listener = listen_by_hand(&server, &both.ann.token, "ann");
    putter.most = 2 * MIB + 5;
    let frame = push(&putter, 1, "ann", "part", 1);
    putter.send(&frame);
    assert_eq!(putter.answer(), Came::Enough);
    let mut other = Putter::new(&server, &both.sender.token, b"whole");
    let frame = push(&other, 1, "ann", "whole", 1);
    other.send(&frame);
    let sending = std::thread::spawn(move || other.answer());
    let _ = hear_pushed(&mut listener);
    kill(&mut server);
    assert_eq!(sending.join().unwrap(), Came::Closed);
    assert!(spooled(&site) >= 2);
    let server = again(&site, &server, &["--staged-age", "1s"]);
    wait_for("nothing on its way", || (spooled(&site) == 0).then_some(()));
    server.wait_log("Removed what uploads had left");
}

#[test]
fn a_file_waits_for_a_listener_that_went_away_and_goes_to_it_when_it_is_back() {
    let site = Site::new();
    let both = Both::new(&site);
    let server = site.serve(&RATE);
    let data = noise(7, SIZE);
    both.sender.place.write("x", &data);
    let listening = both.ann.listen(server.address, "ann", &["-d", "in"]);
    let sending = both.sender.client(server.address, &["push", "ann", "x", "--json"]).start();
    server.wait_log("Receiving file");
    // Before all of it is there.
    listening.signal(Signal::KILL);
    listening.end();
    server.wait_log("stored for");
    server.wait_log("does not listen as ann any more");
    let back = both.ann.start_listening(server.address, "ann", &["-d", "in"]);
    await_listening(&back);
    sending.end().expect(0);
    expect_one(&both.ann.place, &data, "it came back");
}
