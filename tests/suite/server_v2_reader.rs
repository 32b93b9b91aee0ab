//! Version 2 as a stranger reads it: the real server and the reader that was written from the page
//! alone. The reader proves every block and refuses whatever the page does not allow, so that each
//! of these tests is also one of order, offsets, values and windows.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use oneport::digest::Md5;
use serde_json::Value;

use crate::harness::{Ended, Place};
use crate::peers::reader;
use crate::raw::noise;
use crate::serving::{Server, Site, wait_settled};

const MIB: usize = 1 << 20;
const SIZES: [usize; 5] = [0, 1, MIB, MIB + 1, 3 * MIB + 5];
/// Codes of the page's table.
const NOT_IN_THE_FILE: i32 = 2;
const NOT_FOUND: i32 = 3;
const NOT_THERE: i32 = 7;
const CANCELLED: i64 = 130;

/// Python where tests run, a server, and a folder for its readers.
struct Reader<'a> {
    test: &'static str,
    place: Place,
    server: &'a Server,
}

impl<'a> Reader<'a> {
    fn of(test: &'static str, server: &'a Server) -> Self {
        Self { test, place: Place::new(), server }
    }

    /// Runs a command of the reader; `None` where Python is missing.
    fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Option<Ended> {
        let address = self.server.address;
        let mut all: Vec<OsString> = vec![address.ip().to_string().into(), address.port().to_string().into()];
        all.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        Some(reader(self.test, &self.place, &all)?.end())
    }

    /// Runs a command that prints facts, and succeeds.
    #[track_caller]
    fn facts<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Option<Value> {
        let ended = self.run(arguments)?.expect(0);
        Some(serde_json::from_slice(&ended.stdout).unwrap())
    }

    /// Gets a file; its bytes, and the facts.
    #[track_caller]
    fn get(&self, name: &str, options: &[&str]) -> Option<(Vec<u8>, Value)> {
        let ended = self.run(&[&["get", name, "--facts"], options].concat())?.expect(0);
        let facts = serde_json::from_str(&ended.stderr).unwrap();
        Some((ended.stdout, facts))
    }
}

/// Puts a file of each size into the site, under its size.
fn files_of_all_sizes(site: &Site) {
    for size in SIZES {
        site.file(size.to_string(), &noise(size as u64, size));
    }
}

/// Has the server know the root of a file, for good.
#[track_caller]
fn warm(reader: &Reader<'_>, site: &Site, name: &str) -> Option<String> {
    wait_settled(&site.root(name));
    let facts = reader.facts(&["stat", name, "--root"])?;
    Some(facts["root"].as_str().unwrap().to_owned())
}

#[test]
fn a_file_whose_root_is_not_known_arrives_whole_with_a_value_before_each_block() {
    let site = Site::new();
    files_of_all_sizes(&site);
    let server = site.serve(&["--hash-ahead", "0"]);
    let test = "a_file_whose_root_is_not_known_arrives_whole_with_a_value_before_each_block";
    let reader = Reader::of(test, &server);
    for size in SIZES {
        let Some((data, facts)) = reader.get(&size.to_string(), &[]) else { return };
        assert!(data == noise(size as u64, size), "{size}");
        assert_eq!(facts["proven"], true, "{size}");
        if size > MIB {
            assert_eq!(facts["file_root"], Value::Null, "{size}: nobody has computed it");
            assert_eq!(facts["pairs"], 0, "{size}");
        }
    }
}

#[test]
fn a_file_whose_root_is_known_is_proven_block_by_block() {
    let site = Site::new();
    files_of_all_sizes(&site);
    let server = site.serve(&["--hash-ahead", "0"]);
    let reader = Reader::of("a_file_whose_root_is_known_is_proven_block_by_block", &server);
    for size in SIZES {
        let Some(root) = warm(&reader, &site, &size.to_string()) else { return };
        // In segments as small as one byte where that does not take for ever.
        let segment = if size < MIB { "1" } else { "4099" };
        let (data, facts) = reader.get(&size.to_string(), &["--segment", segment]).unwrap();
        assert!(data == noise(size as u64, size), "{size}");
        assert_eq!((&facts["file_root"], &facts["root"]), (&root.clone().into(), &root.into()), "{size}");
        let blocks = size.div_ceil(MIB).max(1);
        assert_eq!(facts["pairs"], blocks - 1, "{size}: one pair for each parent");
    }
}

#[test]
fn ranges_bring_their_blocks_and_what_proves_them_and_nothing_else() {
    let site = Site::new();
    let data = noise(7, 3 * MIB + 5);
    site.file("file", &data);
    site.file("empty", b"");
    let server = site.serve(&["--hash-ahead", "0"]);
    let reader = Reader::of("ranges_bring_their_blocks_and_what_proves_them_and_nothing_else", &server);
    let (start, last) = (MIB + 7, 3 * MIB + 1);
    let ranges = ["--range", &format!("{start}:9"), "--range", &format!("{last}:{MIB}")];
    let wanted = [&data[start..start + 9], &data[last..]].concat();
    // Cold: on trust.
    let Some((got, facts)) = reader.get("file", &ranges) else { return };
    assert!(got == wanted);
    assert_eq!((&facts["blocks"], &facts["file_root"]), (&[1, 3].into_iter().collect(), &Value::Null));
    // With proof, cold or not, the root comes first.
    for _ in 0..2 {
        let (got, facts) = reader.get("file", &[&ranges[..], &["--proof"]].concat()).unwrap();
        assert!(got == wanted);
        assert_eq!((&facts["blocks"], &facts["proven"]), (&[1, 3].into_iter().collect(), &Value::Bool(true)));
        assert_eq!(facts["pairs"], 3, "the root's and one for each half");
        assert_eq!(facts["received"], MIB + 5);
    }
    let (got, facts) = reader.get("empty", &["--range", "0:10"]).unwrap();
    assert_eq!((got.len(), &facts["proven"]), (0, &Value::Bool(true)));
    let behind = format!("{}:1", data.len());
    reader.run(&["get", "file", "--range", &behind]).unwrap().expect(NOT_IN_THE_FILE);
}

#[test]
fn values_alone_are_all_values_of_the_blocks_and_no_bytes() {
    let site = Site::new();
    site.file("file", &noise(8, 3 * MIB + 5));
    site.file("small", b"small");
    let server = site.serve(&["--hash-ahead", "0"]);
    let reader = Reader::of("values_alone_are_all_values_of_the_blocks_and_no_bytes", &server);
    let Some(facts) = reader.facts(&["values", "file"]) else { return };
    assert_eq!(facts["values"].as_object().unwrap().len(), 4);
    assert_eq!((&facts["received"], &facts["pairs"]), (&0.into(), &3.into()));
    let one = reader.facts(&["values", "file", "--range", "0:1"]).unwrap();
    assert_eq!(one["values"]["0"], facts["values"]["0"]);
    let small = reader.facts(&["values", "small"]).unwrap();
    assert!(small["values"].as_object().unwrap().is_empty() && small["root"].is_string());
}

#[test]
fn a_small_request_beside_a_large_one_does_not_wait_for_its_end() {
    let site = Site::new();
    let names = ["large", "small", "medium", "missing", "empty"];
    let sizes = [8 * MIB, 100, 3 * MIB + 5, 0, 0];
    for (name, size) in names.into_iter().zip(sizes).filter(|(name, _)| *name != "missing") {
        site.file(name, &noise(size as u64, size));
    }
    let server = site.serve(&["--hash-ahead", "0"]);
    let reader = Reader::of("a_small_request_beside_a_large_one_does_not_wait_for_its_end", &server);
    // A window that the large one needs many times over, so that it cannot be sent at once.
    let arguments = [&["many", "--window", "262144"], &names[..]].concat();
    let Some(facts) = reader.facts(&arguments) else { return };
    for (answer, (name, size)) in
        facts["answers"].as_array().unwrap().iter().zip(names.into_iter().zip(sizes))
    {
        if name == "missing" {
            assert_eq!(answer["error"], NOT_FOUND);
        } else {
            let md5 = Md5::of(&noise(size as u64, size)).to_string();
            assert_eq!((&answer["md5"], &answer["proven"]), (&md5.into(), &Value::Bool(true)), "{name}");
        }
    }
    let order: Vec<_> =
        facts["order"].as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect();
    let end_of = |number| order.iter().rposition(|&each| each == number).unwrap();
    assert!([2, 4, 5].iter().all(|&number| end_of(number) < end_of(1)), "{order:?}");
}

#[test]
fn names_that_are_not_utf_8_are_served() {
    let site = Site::new();
    let names = [&b"caf\xe9 \xff.bin"[..], "ordner/ü 1.bin".as_bytes(), b"\xed\xa0\x80"];
    for name in names {
        site.file(OsStr::from_bytes(name), name);
    }
    let server = site.serve(&[]);
    let reader = Reader::of("names_that_are_not_utf_8_are_served", &server);
    for name in names {
        let Some(ended) = reader.run(&[OsStr::new("get"), OsStr::from_bytes(name)]) else { return };
        assert_eq!(ended.expect(0).stdout, name);
    }
}

#[test]
fn what_is_no_file_of_the_folder_is_not_found() {
    let site = Site::new();
    site.file("folder/file", b"");
    std::fs::write(site.path().join("outside"), b"secret").unwrap();
    std::os::unix::fs::symlink("../outside", site.root("link")).unwrap();
    let server = site.serve(&[]);
    let reader = Reader::of("what_is_no_file_of_the_folder_is_not_found", &server);
    for name in
        ["missing", "folder", "folder/", "../outside", "/etc/passwd", "link", ".oneport", "?oneport/2?"]
    {
        for command in ["stat", "get"] {
            let Some(ended) = reader.run(&[command, name]) else { return };
            let ended = ended.expect(NOT_FOUND);
            assert!(ended.stdout.is_empty(), "{name}");
        }
    }
}

#[test]
fn a_cancelled_request_ends_and_the_connection_goes_on() {
    let site = Site::new();
    site.file("file", &noise(9, 3 * MIB));
    let server = site.serve(&["--hash-ahead", "0"]);
    let reader = Reader::of("a_cancelled_request_ends_and_the_connection_goes_on", &server);
    for window in ["1", "70000", "2000000"] {
        let Some(facts) = reader.facts(&["cancel", "file", "--window", window]) else { return };
        assert_eq!(facts["code"], CANCELLED, "{window}");
        // That it is no more than the window, the reader sees to.
        assert!(facts["received"].as_u64().unwrap() > 0, "{window}");
        assert_eq!(facts["after"]["size"], 3 * MIB);
    }
}

#[test]
fn pings_come_back_with_their_bytes() {
    let site = Site::new();
    let server = site.serve(&[]);
    let reader = Reader::of("pings_come_back_with_their_bytes", &server);
    let Some(facts) = reader.facts(&["ping"]) else { return };
    assert_eq!(facts["pongs"], 3);
    assert!(facts["welcome"]["requests"].as_str().unwrap().parse::<u32>().unwrap() >= 1);
}

#[test]
fn a_tiny_window_is_kept_to_and_what_is_added_to_it_is_used() {
    let site = Site::new();
    let data = noise(10, 2 * MIB + 5);
    site.file("large", &data);
    site.file("small", &data[..200]);
    let server = site.serve(&["--hash-ahead", "0"]);
    let reader = Reader::of("a_tiny_window_is_kept_to_and_what_is_added_to_it_is_used", &server);
    for (name, window, frames) in [("small", 1, 200), ("large", 9973, 200)] {
        let Some((got, facts)) = reader.get(name, &["--window", &window.to_string()]) else { return };
        assert!(got == data[..got.len()] && facts["received"] == got.len(), "{name}");
        assert!(facts["data_frames"].as_u64().unwrap() >= frames, "{name}: {facts}");
        assert_eq!(facts["proven"], true, "{name}");
    }
}

#[test]
fn a_first_request_may_also_come_after_the_welcome() {
    let site = Site::new();
    site.file("file", b"hello");
    let long = ["n".repeat(250), "o".repeat(250), "p".repeat(250)].join("/");
    site.file(&long, b"long");
    let server = site.serve(&[]);
    let reader = Reader::of("a_first_request_may_also_come_after_the_welcome", &server);
    let Some((got, _)) = reader.get("file", &["--no-first"]) else { return };
    assert_eq!(got, b"hello");
    // Its name does not fit into a hello.
    assert_eq!(reader.get(&long, &[]).unwrap().0, b"long");
}

#[test]
fn a_capability_that_is_not_there_is_refused_before_anything_is_sent() {
    let site = Site::new();
    site.file("file", b"hello");
    let server = site.serve(&[]);
    let test = "a_capability_that_is_not_there_is_refused_before_anything_is_sent";
    let Some(ended) = Reader::of(test, &server).run(&["get", "file", "--need", "holes"]) else { return };
    assert!(ended.expect(NOT_THERE).stdout.is_empty());
}

#[test]
fn the_identity_of_a_file_is_the_same_until_it_changes() {
    let site = Site::new();
    site.file("file", b"first");
    let server = site.serve(&[]);
    let reader = Reader::of("the_identity_of_a_file_is_the_same_until_it_changes", &server);
    let Some(first) = reader.facts(&["stat", "file"]) else { return };
    let again = reader.facts(&["stat", "file", "--root"]).unwrap();
    assert_eq!(first["identity"], again["identity"]);
    let identity = first["identity"].as_str().unwrap();
    let (got, facts) = reader.get("file", &["--identity", identity]).unwrap();
    assert_eq!((&got[..], &facts["identity"]), (&b"first"[..], &first["identity"]));
    site.file("file", b"other");
    let (got, facts) = reader.get("file", &["--identity", identity]).unwrap();
    assert_eq!(got, b"other");
    assert_ne!(facts["identity"], first["identity"]);
}

#[test]
fn a_folder_is_listed_as_the_page_says_on_one_connection_or_on_many() {
    let site = Site::new();
    for folder in 0..30 {
        for file in 0..100 {
            site.file(format!("many/{folder}/{file:050}"), b"");
        }
    }
    site.file("small/x.txt", b"hello");
    site.file("small/y.o", b"");
    std::os::unix::fs::symlink("../many", site.root("small/link")).unwrap();
    let server = site.serve(&["--hash-ahead", "0"]);
    let reader = Reader::of("a_folder_is_listed_as_the_page_says_on_one_connection_or_on_many", &server);
    let hex = |name: &str| name.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let Some(small) = reader.facts(&["list", "small", "--exclude", "*.o"]) else { return };
    let entries = small["entries"].as_object().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(
        (&entries[&hex("x.txt")]["kind"], &entries[&hex("x.txt")]["size"]),
        (&"file".into(), &5.into())
    );
    assert_eq!(entries[&hex("link")]["kind"], "link");
    let file = reader.facts(&["list", "small/x.txt"]).unwrap();
    assert_eq!(file["entries"][""]["size"], 5);
    reader.run(&["list", "small/missing"]).unwrap().expect(NOT_FOUND);
    let whole = reader.facts(&["list", "", "--recursive"]).unwrap();
    assert_eq!(whole["entries"].as_object().unwrap().len(), 3000 + 30 + 2 + 3);
    assert!(whole["frames"].as_u64().unwrap() > 2, "{}", whole["frames"]);
    for options in [&["--cut", "1"][..], &["--window", "1"], &["--window", "60000", "--segment", "999"]] {
        let again = reader.facts(&[&["list", "", "--recursive"], options].concat()).unwrap();
        assert_eq!(again["entries"], whole["entries"], "{options:?}");
    }
    let linked = reader.facts(&["list", "small", "--recursive", "--links"]).unwrap();
    assert_eq!(linked["entries"].as_object().unwrap().len(), 3000 + 30 + 3);
}

#[test]
fn a_folder_is_fetched_while_it_is_listed_with_hundreds_of_requests_in_flight_and_over_cuts() {
    const FLIGHT: u64 = 200;
    let site = Site::new();
    let mut files = Vec::new();
    for folder in 0..12 {
        for file in 0..50 {
            let name = format!("{folder}/file {file}").into_bytes();
            files.push((name, noise(folder * 100 + file, 37 * file as usize)));
        }
    }
    files.push((b"deep/er/caf\xe9".to_vec(), b"not UTF-8".to_vec()));
    files.push((b"large".to_vec(), noise(1000, MIB + 5)));
    for (name, data) in &files {
        site.file(OsStr::from_bytes(&[b"tree/", &name[..]].concat()), data);
    }
    site.file("beside", b"not of this folder");
    std::fs::create_dir(site.root("tree/empty")).unwrap();
    std::os::unix::fs::symlink("deep/er/caf\u{e9}", site.root("tree/nowhere")).unwrap();
    let server = site.serve(&["--hash-ahead", "0"]);
    let test = "a_folder_is_fetched_while_it_is_listed_with_hundreds_of_requests_in_flight_and_over_cuts";
    let reader = Reader::of(test, &server);
    for options in [&[][..], &["--cut", "150"], &["--window", "1000", "--segment", "997"]] {
        let Some(facts) = reader.facts(&[&["tree", "tree"], options].concat()) else { return };
        let found = facts["files"].as_object().unwrap();
        assert_eq!((found.len(), &facts["refused"]), (files.len(), &serde_json::json!({})), "{options:?}");
        for (name, data) in &files {
            let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found[&hex]["md5"], Md5::of(data).to_string(), "{options:?}: {}", name.escape_ascii());
        }
        assert_eq!(facts["entries"].as_u64().unwrap() as usize, files.len() + 12 + 3, "{options:?}");
        assert_eq!(facts["most"], FLIGHT, "{options:?}");
        let was_cut = options.contains(&"--cut");
        assert_eq!(
            facts["connections"].as_u64().unwrap() > 5,
            was_cut,
            "{options:?}: {}",
            facts["connections"]
        );
    }
    // A file is a folder with nothing but itself in it.
    let one = reader.facts(&["tree", "tree/large"]).unwrap();
    assert_eq!(one["files"][""]["size"], MIB + 5);
}
