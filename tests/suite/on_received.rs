//! `--on-received` of both programs: what a command is told, and that whatever it does changes nothing about a file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::serving::{Signal, Site, wait_for};
use crate::storing::Holder;

/// A name that would be another command, other arguments or other lines wherever somebody took it for such.
const HOSTILE: &[u8] = b"-rf $(touch hit) `touch hit`; touch hit & '\"\n\xff";

/// What a command has found in its environment, and left in a file by `env -0`.
fn environment(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let split = |pair: &[u8]| {
        let at = pair.iter().position(|&byte| byte == b'=').unwrap();
        (pair[..at].to_vec(), pair[at + 1..].to_vec())
    };
    let bytes = fs::read(path).unwrap();
    bytes.split(|&byte| byte == 0).filter(|pair| !pair.is_empty()).map(split).collect()
}

fn of<'a>(variables: &'a BTreeMap<Vec<u8>, Vec<u8>>, name: &str) -> Option<&'a [u8]> {
    variables.get(name.as_bytes()).map(Vec::as_slice)
}

/// Writes its environment into `folder`, all at once.
fn writer(folder: &Path) -> String {
    let out = folder.join("told");
    format!("sh -c 'env -0 >{0}.new && mv {0}.new {0}'", out.display())
}

#[test]
fn a_server_runs_a_command_for_a_hostile_name_and_tells_it_nothing_secret() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let server = site
        .launch(&["--on-received", &writer(site.path())])
        .env("ONEPORT_TLS_KEY_PASSPHRASE", "secret")
        .env("KEPT", "yes")
        .serve();
    holder.place.write("file", b"hello");
    let name = OsString::from_vec(HOSTILE.to_vec());
    let mut named = OsString::from("--name=");
    named.push(&name);
    let ended = holder.client(server.address, &["put", "file"]).arg(&named).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let told = site.path().join("told");
    wait_for("the command", || told.exists().then_some(()));
    let told = environment(&told);
    let path = fs::canonicalize(site.root("")).unwrap().join(&name);
    assert_eq!(
        fs::canonicalize(OsString::from_vec(of(&told, "ONEPORT_PATH").unwrap().to_vec())).unwrap(),
        path
    );
    assert_eq!(of(&told, "ONEPORT_NAME"), Some(HOSTILE));
    assert_eq!(of(&told, "ONEPORT_SIZE"), Some(&b"5"[..]));
    assert_eq!(of(&told, "ONEPORT_KEY_NAME"), Some(&b"holder"[..]));
    assert_eq!(of(&told, "ONEPORT_DIALECT"), Some(&b"v2"[..]));
    assert_eq!(of(&told, "ONEPORT_BLAKE3").unwrap(), blake3::hash(b"hello").to_hex().as_bytes());
    assert!(of(&told, "ONEPORT_PEER").unwrap().starts_with(b"127.0.0.1:"));
    assert_eq!((of(&told, "ONEPORT_TLS_KEY_PASSPHRASE"), of(&told, "KEPT")), (None, Some(&b"yes"[..])));
    let hits =
        fs::read_dir(site.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() == "hit");
    assert_eq!(hits.count() + usize::from(site.root("hit").exists()), 0, "a name was run");
    server.wait_log("succeeded in");
}

#[test]
fn a_command_that_fails_is_logged_and_the_file_is_stored() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let server = site.serve(&["--on-received", "sh -c 'echo what it says; exit 3'"]);
    holder.place.write("file", b"hello");
    let ended = holder.client(server.address, &["put", "file"]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let log = server.wait_log("it ended with status 3");
    assert!(log.contains("what it says"), "{log}");
    assert_eq!(fs::read(site.root("file")).unwrap(), b"hello");
}

#[test]
fn a_server_that_stops_ends_a_command_that_does_not() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let script = format!("sh -c 'echo $$ >{}; exec sleep 1000'", site.path().join("id").display());
    let mut server = site.serve(&["--on-received", &script, "--drain-timeout", "1s"]);
    holder.place.write("file", b"hello");
    assert_eq!(holder.client(server.address, &["put", "file"]).end().code, Some(0));
    let id = wait_for("the command", || {
        let text = fs::read_to_string(site.path().join("id")).ok()?;
        text.strip_suffix('\n').map(str::to_owned)
    });
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Some(0));
    wait_for("the end of the command", || {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    assert!(server.log().contains("it was killed"), "{}", server.log());
}

#[test]
fn a_client_runs_a_command_for_what_it_has_fetched_and_shows_it_no_key() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    site.file(OsString::from_vec(HOSTILE.to_vec()), b"hello");
    let server = site.serve(&["--require-key"]);
    let run = holder
        .client(server.address, &["get", "-o", "got", "--on-received", &writer(&holder.place.path(""))]);
    let ended = run.arg("--").arg(OsString::from_vec(HOSTILE.to_vec())).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // It was waited for.
    let told = environment(&holder.place.path("told"));
    assert_eq!(of(&told, "ONEPORT_NAME"), Some(HOSTILE));
    assert_eq!(of(&told, "ONEPORT_SIZE"), Some(&b"5"[..]));
    let path = fs::canonicalize(holder.place.path("got")).unwrap();
    assert!(of(&told, "ONEPORT_PATH").unwrap().ends_with(path.file_name().unwrap().as_bytes()));
    assert!(Path::new(&OsString::from_vec(of(&told, "ONEPORT_PATH").unwrap().to_vec())).is_absolute());
    assert_eq!(of(&told, "ONEPORT_KEY"), None, "the key is no business of a command");
}

#[test]
fn a_client_whose_command_fails_ends_with_a_status_of_its_own_and_has_the_file() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    site.file("a", b"hello");
    site.file("d/b", b"b");
    site.file("d/c", b"c");
    let server = site.serve(&[]);
    let ended = holder.client(server.address, &["get", "-o", "a", "--on-received", "false", "a"]).end();
    assert_eq!(ended.code, Some(40), "{}", ended.stderr);
    assert!(ended.stderr.contains("--on-received"), "{}", ended.stderr);
    assert_eq!(fs::read(holder.place.path("a")).unwrap(), b"hello");
    // What went wrong before that is told instead.
    let ended =
        holder.client(server.address, &["get", "-d", ".", "--on-received", "false", "a", "nothing"]).end();
    assert_eq!(ended.code, Some(23), "{}", ended.stderr);
    // A folder is one thing.
    let count = holder.place.path("count");
    let script = format!("sh -c 'echo $ONEPORT_FILES $ONEPORT_SIZE >>{}'", count.display());
    let ended = holder.client(server.address, &["get", "-r", "-o", "d", "--on-received", &script, "d"]).end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&count).unwrap(), "2 2\n");
    for wrong in [&["-o", "-", "--on-received", "true"][..], &["--on-received", "a 'b"]] {
        let ended = holder.client(server.address, &[&["get"], wrong, &["a"]].concat()).end();
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    }
}
