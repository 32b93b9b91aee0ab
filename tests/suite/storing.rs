//! The real client with a key, and what has to hold on the server's disk whatever happens to it: under each name what
//! was there before or what was put, whole, and all that was said to be stored.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::chance::part;
use crate::harness::{Ended, Place, Run, await_for};
use crate::holders::add;
use crate::raw::noise;
use crate::serving::{Server, Site, wait_for};

pub(crate) const MIB: usize = 1 << 20;
/// How what nobody is to see begins.
const HIDDEN: &str = ".oneport-";
/// Sets how often each campaign of this kind is repeated; and how often if it is not set.
const COUNT: &str = "ONEPORT_PUT_KILLS";
const SHORT: usize = 12;

/// How many rounds a campaign has that takes this share of all.
pub(crate) fn count(share: usize) -> usize {
    std::env::var(COUNT).map_or(SHORT, |text| text.parse().expect("a count is a number")).div_ceil(share)
}

/// Somebody who may do everything, and where that one has its files.
pub(crate) struct Holder {
    pub(crate) place: Place,
    token: String,
}

impl Holder {
    /// One with a key of its own; there is one of them for a site.
    pub(crate) fn new(site: &Site, options: &[&str]) -> Self {
        let options = [&["--allow", "read,write,delete"], options].concat();
        Self { place: Place::new(), token: add(site, "holder", &options) }
    }

    /// The key.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A client that is yet to be started: the first word is the command.
    pub(crate) fn client(&self, to: impl ToString, words: &[&str]) -> Run<'_> {
        let (to, (command, rest)) = (to.to_string(), words.split_first().unwrap());
        let fixed = [*command, "-s", &to, "--known-hosts", "known", "--retry-delay", "20ms"];
        self.place.client(&[&fixed, rest].concat()).env("ONEPORT_KEY", &self.token)
    }
}

/// Files by their names.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// What lies in a folder that others change meanwhile: the files that are to be seen, and what is hidden.
pub(crate) fn found(root: &Path) -> (Files, Vec<String>) {
    let (mut files, mut hidden, mut open) = (Files::new(), Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if entry.file_name().to_string_lossy().starts_with(HIDDEN) {
                hidden.push(name);
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                files.insert(name, bytes);
            }
        }
    }
    (files, hidden)
}

/// Each name holds what it held before, or what is put there.
#[track_caller]
pub(crate) fn expect_old_or_new(root: &Path, old: &Files, new: &Files, what: &str) {
    for (name, bytes) in &found(root).0 {
        let is_whole = [old, new].iter().any(|files| files.get(name) == Some(bytes));
        assert!(is_whole, "{what}: '{name}' has {} bytes that nobody has put there", bytes.len());
    }
    for name in old.keys() {
        assert!(root.join(name).exists(), "{what}: '{name}' is gone");
    }
}

/// Exactly these files are there, and nothing is hidden beside them.
#[track_caller]
pub(crate) fn expect_all(root: &Path, expected: &Files, what: &str) {
    let (files, hidden) = found(root);
    let names: Vec<_> = files.keys().collect();
    assert_eq!(names, expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in &files {
        assert!(expected[name] == *bytes, "{what}: '{name}' has other bytes");
    }
    assert_eq!(hidden, [""; 0], "{what}");
}

/// The events that a client has told so far; a line that was being written when it was killed has no end.
pub(crate) fn told(stdout: &[u8]) -> Vec<Value> {
    let lines = stdout.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The last event of a run that has come to its end.
pub(crate) fn result(ended: &Ended) -> Value {
    let last = told(&ended.stdout).pop().unwrap();
    assert_eq!(last["event"], "result", "{last}");
    last
}

/// Whatever was said to be stored of a folder is there with the bytes that were put. The names, and whether each was
/// there already.
#[track_caller]
pub(crate) fn expect_told(
    stdout: &[u8],
    folder: &str,
    root: &Path,
    new: &Files,
    what: &str,
) -> Vec<(String, bool)> {
    let mut stored = Vec::new();
    for event in told(stdout).into_iter().filter(|event| event["event"] == "file") {
        assert_eq!(event["ok"], true, "{what}: {event}");
        let name = format!("{folder}/{}", event["file"].as_str().unwrap());
        let there = fs::read(root.join(&name)).unwrap_or_default();
        assert!(
            there == new[&name],
            "{what}: '{name}' was said to be stored, and {} bytes are there",
            there.len()
        );
        stored.push((name, event["unchanged"] == true));
    }
    stored
}

/// A folder `d` to be put, with small files and large ones; and if it is put over an older one, what is there of that.
pub(crate) fn folder(
    holder: &Holder,
    site: &Site,
    seed: u64,
    number: usize,
    is_over: bool,
) -> (Files, Files) {
    const SMALL: usize = 80;
    const LARGE: [usize; 2] = [MIB + 1, 4 * MIB];
    let mut chance = part(seed, number);
    let (mut old, mut new) = (Files::new(), Files::new());
    let sizes = (0..SMALL).map(|_| [0, 100, 5000, 70_000, 300_000][chance.usize(..5)]).chain(LARGE);
    for (number, size) in sizes.collect::<Vec<_>>().into_iter().enumerate() {
        let name = format!("d/{}f{number}", ["", "a/", "a/b/", "c/"][number % 4]);
        let bytes = noise(seed ^ number as u64, size);
        holder.place.write(&name, &bytes);
        new.insert(name.clone(), bytes);
        if is_over && chance.bool() {
            let bytes = noise(!seed ^ number as u64, size / 2 + 1);
            site.file(&name, &bytes);
            old.insert(name, bytes);
        }
    }
    (old, new)
}

/// Removes what a round has left in the served folder, and what it had to put.
pub(crate) fn clear(holder: &Holder, site: &Site) {
    let _ = fs::remove_dir_all(holder.place.path("d"));
    for entry in fs::read_dir(site.root("")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

/// Ends a server as a crash does.
pub(crate) fn kill(server: &mut Server) {
    server.signal(crate::serving::Signal::KILL);
    server.wait_exit();
}

/// Starts a server that was ended again, on its port.
pub(crate) fn again(site: &Site, server: &Server, options: &[&str]) -> Server {
    let port = server.address.port().to_string();
    let fixed = [port.as_str(), "root", "--state", "state", "--log-dir", "logs"];
    await_for("the port", || site.launch_bare(&[&fixed, options].concat()).try_serve().ok())
}

/// Starts a server again and waits until it has removed what killed ones have left.
pub(crate) fn swept(site: &Site, server: &mut Server) {
    kill(server);
    *server = again(site, server, &["--staged-age", "1s"]);
    wait_for("nothing hidden", || found(&site.root("")).1.is_empty().then_some(()));
}
