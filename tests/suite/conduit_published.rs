//! The client that others have published, unchanged (`netconduit` 4.0.0, `tests/peers/conduit_client.py`), and the real
//! server.
//!
//! The package is not on every machine. `ONEPORT_NETCONDUIT` names a Python that has it, and then it must be there; without
//! that, the Python of the path is tried.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::conduit_peer::{CHUNK, serve};
use crate::harness::{Ended, Place, Run};
use crate::machine::skipped;
use crate::raw::{fetch_whole, noise};
use crate::serving::{Server, Site};
use crate::storing::{Holder, MIB};

const VARIABLE: &str = "ONEPORT_NETCONDUIT";
const VERSION: &str = "4.0.0";
/// What the script ends with if it is not let in.
const NOT_LET_IN: i32 = 3;

/// A machine with the package, and a place for its clients.
struct Published {
    python: OsString,
    place: Place,
    password: OsString,
}

impl Published {
    /// `None`, and a line that says so, where the package is missing.
    fn new(test: &str, site: &Site) -> Option<Self> {
        let named = std::env::var_os(VARIABLE);
        let python = named.clone().unwrap_or_else(|| "python3".into());
        let has = version_of(&python).is_some_and(|version| version == VERSION);
        if !has && named.is_none() {
            skipped(
                test,
                &format!("netconduit {VERSION} is missing (set {VARIABLE} to a Python that has it)"),
            );
            return None;
        }
        assert!(has, "{VARIABLE} is {python:?}, which does not have netconduit {VERSION}");
        let password = site.path().join("password").into_os_string();
        Some(Self { python, place: Place::new(), password })
    }

    /// A client of this name, with a command and its arguments.
    fn run(&self, server: &Server, name: &str, words: &[&str]) -> Run<'_> {
        let script = script();
        let program = [&*self.python, OsStr::new("-B"), script.as_os_str()];
        let (ip, port) = (server.address.ip().to_string(), server.address.port().to_string());
        let mut arguments: Vec<OsString> = vec![ip.into(), port.into(), self.password.clone(), name.into()];
        arguments.extend(words.iter().map(OsString::from));
        self.place.program(&program, &arguments)
    }

    /// What a client says that is let in.
    #[track_caller]
    fn facts(&self, server: &Server, words: &[&str]) -> Vec<Value> {
        facts(&self.run(server, "published", words).end().expect(0))
    }
}

/// The version of the package that this Python has.
fn version_of(python: &OsStr) -> Option<String> {
    let mut command = Command::new(python);
    command.arg("-B").arg(script()).arg("version").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim_end().to_owned())
}

fn script() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/conduit_client.py")
}

fn facts(ended: &Ended) -> Vec<Value> {
    ended.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const SIZES: [usize; 7] = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, MIB, 3 * MIB + 17];

#[test]
fn the_published_client_uploads_downloads_and_lists() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let test = "the_published_client_uploads_downloads_and_lists";
    let Some(published) = Published::new(test, &site) else { return };
    let names: Vec<String> = SIZES.iter().map(|size| format!("f{size}.bin")).collect();
    for (name, size) in names.iter().zip(SIZES) {
        published.place.write(name, noise(size as u64, size));
    }
    let words: Vec<&str> = names.iter().map(String::as_str).collect();
    let uploads = published.facts(&server, &[&["upload"], &words[..]].concat());
    for ((fact, name), size) in uploads.iter().zip(&names).zip(SIZES) {
        let (result, progress) = (&fact["result"], &fact["progress"]);
        assert_eq!(
            (&result["success"], &result["filename"], &result["size"]),
            (&json!(true), &json!(name), &json!(size))
        );
        assert!(size == 0 || *progress == json!([100.0]), "{progress}");
        assert!(fetch_whole(server.address, name) == noise(size as u64, size), "{name}");
    }
    assert_eq!(uploads.len(), SIZES.len());
    let downloads = published.facts(&server, &[&["download", "got"], &words[..]].concat());
    assert!(downloads.iter().all(|fact| fact["result"]["success"] == true), "{downloads:?}");
    for (name, size) in names.iter().zip(SIZES) {
        assert!(published.place.read(format!("got/{name}")) == noise(size as u64, size), "{name}");
    }
    let listed = &published.facts(&server, &["list"])[0]["result"];
    assert_eq!(listed["data"]["files"].as_array().unwrap().len(), SIZES.len(), "{listed}");
    let again = &published.facts(&server, &["upload", &names[1]])[0]["result"];
    assert!(again["filename"].as_str().unwrap().starts_with("f1_"), "nothing is replaced: {again}");
    let said = &published.facts(&server, &["methods"])[0];
    assert_eq!((&said["result"]["success"], &said["unknown"]["code"]), (&json!(true), &json!(4000)));
    let missing = &published.facts(&server, &["download", "got", "nothing"])[0]["result"];
    assert_eq!((&missing["success"], &missing["error"]), (&json!(false), &json!("File not found")));
}

#[test]
fn the_published_client_has_what_version_2_puts_and_the_other_way_round() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let server = serve(&site, &[]);
    let test = "the_published_client_has_what_version_2_puts_and_the_other_way_round";
    let Some(published) = Published::new(test, &site) else { return };
    let (one, two) = (noise(1, 2 * MIB + 3), noise(2, MIB + 7));
    holder.place.write("one", &one);
    holder.client(server.address, &["put", "one"]).end().expect(0);
    published.facts(&server, &["download", "got", "one"]);
    assert!(published.place.read("got/one") == one);
    published.place.write("two", &two);
    published.facts(&server, &["upload", "two"]);
    holder.client(server.address, &["get", "two", "-o", "two"]).end().expect(0);
    assert!(holder.place.read("two") == two);
}

#[test]
fn the_published_client_is_not_let_in_with_another_password() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let test = "the_published_client_is_not_let_in_with_another_password";
    let Some(mut published) = Published::new(test, &site) else { return };
    published.place.write("wrong", "another\n");
    published.password = published.place.path("wrong").into_os_string();
    let ended = published.run(&server, "published", &["list"]).end();
    assert_eq!((ended.code, ended.stdout().as_str()), (Some(NOT_LET_IN), ""));
    assert!(ended.stderr.contains("Invalid password"), "{}", ended.stderr);
}

#[test]
fn the_published_client_has_its_pings_answered() {
    let site = Site::new();
    let server = serve(&site, &[]);
    let Some(published) = Published::new("the_published_client_has_its_pings_answered", &site) else {
        return;
    };
    let fact = &published.facts(&server, &["ping", "4"])[0];
    assert_eq!(fact["connected"], true);
    assert!(fact["pongs"].as_u64().unwrap() >= 1, "{fact}");
}

#[test]
fn the_published_client_receives_what_is_pushed() {
    let site = Site::new();
    for size in SIZES {
        site.file(format!("f{size}"), &noise(size as u64, size));
    }
    let server = serve(&site, &[]);
    let Some(published) = Published::new("the_published_client_receives_what_is_pushed", &site) else {
        return;
    };
    let listeners: Vec<_> = ["one", "two"]
        .iter()
        .map(|folder| {
            fs::create_dir(published.place.path(folder)).unwrap();
            published.run(&server, "desk", &["listen", folder]).start()
        })
        .collect();
    server.wait_log_count("Folder '.' listed", 2);
    for size in SIZES {
        let fact = &published.facts(&server, &["push", "desk", &format!("f{size}")])[0];
        let receivers = fact["result"]["data"]["receivers"].as_array().unwrap();
        let delivered = receivers.iter().filter(|one| one["delivered"] == true).count();
        assert_eq!((receivers.len(), delivered), (2, 2), "{fact}");
    }
    for (listener, folder) in listeners.into_iter().zip(["one", "two"]) {
        // They are told what they have before the server hears that they have read it.
        assert_eq!(listener.stdout().lines().count(), SIZES.len() + 1);
        for size in SIZES {
            assert!(published.place.read(format!("{folder}/f{size}")) == noise(size as u64, size), "{size}");
        }
    }
}
