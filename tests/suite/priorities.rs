//! Priorities: whose bytes go first, told by how far others have come when the urgent ones are there. No time is measured.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use oneport::codec::v2::{ClientFrame, Get, ServerFrame};
use oneport::priority::Priority;
use serde_json::Value;

use crate::harness::{Place, Running};
use crate::holders::add;
use crate::serving::{Server, Site, wait_for};
use crate::v2_peer::{Asker, MIB};

/// A window that is never used up, in a hello.
const WIDE: &str = "window=1000000000000";

/// Somebody who fetches a file, and how much has come.
struct Fetching {
    came: Arc<AtomicUsize>,
    fetching: JoinHandle<usize>,
}

impl Fetching {
    fn begin(server: &Server, name: &str, priority: u8) -> Self {
        let mut asker = Asker::new(server, WIDE);
        let priority = Priority::at_most(priority);
        let get = Get { name: name.to_owned().into(), priority, ..Get::default() };
        asker.send(&[ClientFrame::Get(1, get)]);
        let came = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&came);
        let fetching = thread::spawn(move || {
            loop {
                let told = asker.hear().expect("the connection ended");
                counted.fetch_add(told.data.len(), Ordering::Relaxed);
                match told.frame {
                    ServerFrame::End(..) => return counted.load(Ordering::Relaxed),
                    ServerFrame::Error(_, code, text) => panic!("{code:?} {text:?}"),
                    _ => {}
                }
            }
        });
        Self { came, fetching }
    }

    fn came(&self) -> usize {
        self.came.load(Ordering::Relaxed)
    }

    fn wait_for(&self, count: usize) {
        wait_for("some bytes", || (self.came() >= count).then_some(()));
    }

    fn end(self) -> usize {
        self.fetching.join().unwrap()
    }
}

/// A file of zeros that takes no room.
fn sparse(site: &Site, name: &str, len: usize) {
    File::create(site.root(name)).unwrap().set_len(len as u64).unwrap();
}

#[test]
fn the_higher_of_two_transfers_through_a_limited_rate_ends_first_though_it_began_later() {
    let site = Site::new();
    sparse(&site, "low", 4 * MIB);
    sparse(&site, "high", 4 * MIB);
    let server = site.serve(&["--limit-rate", "3MiB"]);
    let low = Fetching::begin(&server, "low", 0);
    low.wait_for(MIB / 4);
    let before = low.came();
    let high = Fetching::begin(&server, "high", 10);
    assert_eq!(high.end(), 4 * MIB);
    let meanwhile = low.came() - before;
    // Had they shared evenly, it would have come to its end.
    assert!(meanwhile < 2 * MIB, "{meanwhile} of {} bytes", 4 * MIB);
    assert!(meanwhile > 0, "it starved");
    assert_eq!(low.end(), 4 * MIB);
}

#[test]
fn the_higher_of_two_transfers_goes_first_where_no_rate_is_limited() {
    let site = Site::alone();
    sparse(&site, "low", 1024 * MIB);
    sparse(&site, "high", 96 * MIB);
    let server = site.serve(&[]);
    let low = Fetching::begin(&server, "low", 4);
    low.wait_for(MIB);
    let high = Fetching::begin(&server, "high", 6);
    high.wait_for(MIB);
    let before = low.came();
    assert_eq!(high.end(), 96 * MIB);
    let meanwhile = low.came() - before;
    assert!(meanwhile < 48 * MIB, "{meanwhile} bytes while the other one moved {}", 96 * MIB);
    low.wait_for(before + meanwhile + MIB);
}

/// What the server says of a running transfer.
fn status(site: &Site, name: &str) -> Option<Value> {
    let ended = site.launch_bare(&["status", "--json", "--state", "state"]).run();
    let records = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.into_iter().find(|record| record["event"] == "transfer" && record["name"] == name)
}

/// Bytes of the lower one that are moved from now on until the higher one ends, and those that the higher one moves
/// meanwhile.
fn meanwhile(site: &Site, high: Running, size: usize) -> (u64, u64) {
    let moved = |transfer: &Value| transfer["moved"].as_u64().unwrap();
    let begun = wait_for("the higher one", || status(site, "high").filter(|high| moved(high) > 0));
    let before = status(site, "low").expect("the lower one is still running");
    assert!(before["priority"].as_u64() < begun["priority"].as_u64(), "{before} {begun}");
    high.end().expect(0);
    let after = status(site, "low").expect("the lower one is still running");
    (moved(&after) - moved(&before), size as u64 - moved(&begun))
}

#[test]
fn the_client_says_how_urgent_a_file_is_in_whichever_form_it_is_asked_for() {
    let site = Site::new();
    sparse(&site, "low", 256 * MIB);
    sparse(&site, "high", 6 * MIB);
    let server = site.serve(&["--limit-rate", "2MiB"]);
    let place = Place::new();
    let to = server.address.to_string();
    let low = place.client(&["get", "low", "-s", &to, "--priority", "1"]).start();
    wait_for("the lower one", || status(&site, "low"));
    let (host, port) = (server.address.ip().to_string(), server.address.port().to_string());
    let high = place.client(&["high", &host, &port, "--priority", "9"]).start();
    let (low_moved, high_moved) = meanwhile(&site, high, 6 * MIB);
    assert!(low_moved < high_moved / 2 + MIB as u64 / 2, "{low_moved} while {high_moved}");
    drop(low);
    place.client(&["low", "--priority", "11"]).end().expect(2).says("from 0 to 10");
}

#[test]
fn the_more_urgent_upload_goes_first_though_it_began_later() {
    let site = Site::new();
    let key = add(&site, "ann", &["--allow", "write"]);
    let server = site.serve(&[]);
    let place = Place::new();
    let to = server.address.to_string();
    for (name, len) in [("low", 512 * MIB), ("high", 32 * MIB)] {
        File::create(place.path(name)).unwrap().set_len(len as u64).unwrap();
    }
    // Each of them could have as much as this at the same time.
    let put = |name: &str, priority: &str| {
        let words = ["put", name, "-s", &to, "--priority", priority, "-j", "1", "--limit-rate", "8MiB"];
        place.client(&words).env("ONEPORT_KEY", &key).start()
    };
    let low = put("low", "0");
    wait_for("the lower one", || status(&site, "low").filter(|low| low["moved"].as_u64() > Some(0)));
    let (low_moved, high_moved) = meanwhile(&site, put("high", "10"), 32 * MIB);
    assert!(low_moved < high_moved / 2 + MIB as u64, "{low_moved} while {high_moved}");
    drop(low);
}
