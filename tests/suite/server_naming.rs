//! `--name-template`: what comes in gets the server's names, whatever happens on its way.

use std::fs;

use crate::raw::noise;
use crate::serving::{Server, Signal, Site, wait_for};
use crate::storing::{Holder, MIB, again, found, kill, result};

const TEMPLATE: [&str; 2] = ["--name-template", "{key}/{base}-{counter}{ext}"];

/// The options of a client that is slow enough to be met in the middle.
const SLOWLY: [&str; 4] = ["--limit-rate", "4MiB", "-j", "1"];

/// Waits until some of an upload is here that has not come to its end.
fn wait_begun(server: &Server) {
    server.wait_log("Progress from");
}

#[test]
fn a_client_that_was_killed_goes_on_with_a_file_whose_name_is_yet_to_come() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let server = site.serve(&TEMPLATE);
    let bytes = noise(7, 16 * MIB);
    holder.place.write("big.bin", &bytes);
    let put = ["put", "big.bin", "--json"];
    let running = holder.client(server.address, &[&put[..], &SLOWLY].concat()).start();
    wait_begun(&server);
    running.signal(Signal::KILL);
    running.end();
    server.wait_log("cut after");
    assert!(found(&site.root("")).0.is_empty(), "nothing has a name yet");
    let ended = holder.client(server.address, &put).end().expect(0);
    let told = result(&ended);
    assert_eq!(told["stored_as"], "holder/big-1.bin", "{told}");
    assert!(told["resumed"].as_u64().unwrap() >= MIB as u64, "{told}");
    assert!(fs::read(site.root("holder/big-1.bin")).unwrap() == bytes);
    let (files, hidden) = found(&site.root(""));
    assert_eq!((files.len(), hidden.len()), (1, 0), "nothing else is left: {hidden:?}");
    server.wait_log("File 'holder/big-1.bin' stored");
}

#[test]
fn a_server_that_was_killed_goes_on_with_it_and_gives_one_name_only() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let mut server = site.serve(&TEMPLATE);
    let bytes = noise(8, 16 * MIB);
    holder.place.write("big.bin", &bytes);
    let put = [&["put", "big.bin", "--json", "--retries", "100"][..], &SLOWLY].concat();
    let running = holder.client(server.address, &put).start();
    wait_begun(&server);
    kill(&mut server);
    let _server = again(&site, &server, &TEMPLATE);
    let ended = running.end().expect(0);
    assert_eq!(result(&ended)["stored_as"], "holder/big-1.bin");
    let (files, hidden) = found(&site.root(""));
    assert_eq!((files.len(), hidden.len()), (1, 0), "{hidden:?}");
    assert!(files["holder/big-1.bin"] == bytes);
}

#[test]
fn small_files_and_folders_get_names_too_and_a_person_is_told() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let server = site.serve(&["--name-template", "{key}/{name}.{counter}"]);
    holder.place.write("a", b"one");
    let ended = holder.client(server.address, &["put", "a"]).end().expect(0);
    assert!(ended.stdout().contains("as 'holder/a.1'"), "{}", ended.stdout());
    holder.place.write("d/b", b"two");
    holder.place.write("d/c/e", b"three");
    holder.client(server.address, &["put", "-r", "d"]).end().expect(0);
    let (files, hidden) = found(&site.root(""));
    assert_eq!(hidden, [""; 0]);
    let mut names: Vec<_> = files.keys().map(|name| name.rsplit_once('.').unwrap().0.to_owned()).collect();
    names.sort();
    assert_eq!(names, ["holder/a", "holder/d/b", "holder/d/c/e"]);
    server.wait_log("Stored 'holder/d/b.");
}

#[test]
fn a_hostile_name_of_a_key_or_a_file_leads_nowhere() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let token = crate::holders::add(&site, "..", &["--allow", "write"]);
    let server = site.serve(&["--name-template", "{key}/{base}{ext}/x"]);
    holder.place.write("small", b"x");
    holder.place.write("big", noise(9, 2 * MIB));
    for file in ["small", "big"] {
        let put = holder.client(server.address, &["put", file]).env("ONEPORT_KEY", &token).end();
        assert_eq!(put.code, Some(4), "{}", put.stderr);
        let named = holder.client(server.address, &["put", file, "--name", "..a"]).end();
        assert_eq!(named.code, Some(0), "{}", named.stderr);
        fs::remove_dir_all(site.root("holder")).unwrap();
    }
    assert!(found(&site.root("")).0.is_empty());
    assert!(!site.path().join("small").exists() && !site.path().join("big").exists());
    wait_for("the refusal in the log", || server.log().contains("name for it that is none").then_some(()));
}

#[test]
fn a_template_that_makes_no_names_keeps_the_server_from_starting() {
    let site = Site::new();
    for template in ["{nothing}", "{name", "/{name}", "../{base}", ""] {
        let ended = site.launch(&["--name-template", template]).run();
        assert_eq!(ended.code, Some(2), "{template}: {}", ended.stderr);
    }
}
