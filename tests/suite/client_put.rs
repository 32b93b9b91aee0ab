//! Files and folders that our client's library puts on the real server: whole whatever happens on the way, never mixed, and
//! gone on with where they were.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use oneport::client::{
    Event, FetchError, FolderPut, Observer, Overwrite, Put, Security, Selection, Server as Address, Settings,
    UploadSource, put, put_folder, remove, rename,
};
use oneport::error::Code;
use oneport::token::Token;
use oneport::tree::Root;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::chance::{part, seed};
use crate::fetching;
use crate::harness::CLIENT_PATIENCE;
use crate::holders;
use crate::proxy::{Fault, Plan, Proxy};
use crate::raw::noise;
use crate::serving::{Server, Signal, Site};
use crate::tls_raw;
use crate::trees::{differs, dress, tree, without_folders};

const MIB: usize = 1 << 20;

/// A key that may do all that is done here.
fn writer(site: &Site) -> Security {
    let word = holders::add(site, "writer", &["--allow", "read,write,delete"]);
    holder(&word)
}

fn holder(word: &str) -> Security {
    let mut security = Security::default();
    security.key = Some(Token::parse(word.as_bytes()).unwrap());
    security
}

fn settings(security: &Security, links: u64, retries: u32) -> Settings {
    Settings { security: security.clone(), ..fetching::settings(links, retries) }
}

/// Counts attempts, and does something once half of a file is there.
struct Watch<'a> {
    had: Mutex<Vec<u64>>,
    done: AtomicU64,
    at_half: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
    told: Mutex<Vec<String>>,
}

impl<'a> Watch<'a> {
    fn new() -> Self {
        let (had, told) = (Mutex::default(), Mutex::default());
        Self { had, done: AtomicU64::new(0), at_half: Mutex::new(None), told }
    }

    fn at_half(work: impl FnOnce() + Send + 'a) -> Self {
        Self { at_half: Mutex::new(Some(Box::new(work))), ..Self::new() }
    }
}

impl Observer for Watch<'_> {
    fn observe(&self, event: &Event<'_>) {
        match *event {
            Event::Started { have, .. } => self.had.lock().unwrap().push(have),
            Event::Progress { done, size } => {
                self.done.store(done, Ordering::Relaxed);
                if done >= size / 2
                    && let Some(work) = self.at_half.lock().unwrap().take()
                {
                    work();
                }
            }
            Event::Waiting { error, .. } => self.told.lock().unwrap().push(error.to_string()),
            Event::FileFailed { name, error } => {
                self.told.lock().unwrap().push(format!("{}: {error}", name.escape_ascii()));
            }
            _ => {}
        }
    }
}

/// Runs the library, and fails where that takes longer than a client may.
fn within<T>(work: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(CLIENT_PATIENCE, work).await.unwrap_or(Err(FetchError::Interrupted))
    })
}

fn put_at(
    to: SocketAddr,
    path: &Path,
    name: &str,
    settings: &Settings,
    watch: &Watch<'_>,
) -> Result<Put, FetchError> {
    let server: Address = to.to_string().parse().unwrap();
    let source = UploadSource::File(path.to_owned());
    within(put(&server, &source, name.as_bytes(), settings, watch, &CancellationToken::new()))
}

fn local(len: usize) -> (TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (path, data) = (dir.path().join("local"), noise(len as u64, len));
    fs::write(&path, &data).unwrap();
    (dir, path, data)
}

/// Nothing but this lies in the served folder.
#[track_caller]
fn expect_only(site: &Site, name: &str, data: &[u8]) {
    assert!(fs::read(site.root(name)).unwrap() == data, "{name} is not what was put");
    let names: Vec<_> =
        fs::read_dir(site.root("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn files_of_every_size_are_stored_with_their_modes_and_times_over_one_connection_and_several() {
    let site = Site::new();
    let security = writer(&site);
    let server = site.serve(&[]);
    for links in [1, 2, 4] {
        for len in [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 17, 70 * MIB + 3] {
            let (_dir, path, data) = local(len);
            dress(&path, 0o640, 123_456_789);
            let settings = settings(&security, links, 0);
            let stored = put_at(server.address, &path, "x", &settings, &Watch::new()).unwrap();
            assert_eq!((stored.size, stored.root), (len as u64, Some(Root::of(&data))), "{len}");
            expect_only(&site, "x", &data);
            let (here, there) = (fs::metadata(&path).unwrap(), fs::metadata(site.root("x")).unwrap());
            assert_eq!(here.modified().unwrap(), there.modified().unwrap(), "{len}");
            assert_eq!(here.permissions(), there.permissions(), "{len}");
        }
    }
}

#[test]
fn uploads_that_are_cut_anywhere_go_on_where_they_were_and_give_little_twice() {
    let (site, seed) = (Site::new(), seed());
    let security = writer(&site);
    let server = site.serve(&[]);
    let len = 24 * MIB + 5;
    let (_dir, path, data) = local(len);
    for round in 0..6 {
        let mut chance = part(seed, round);
        let cuts: Vec<(u64, Fault, bool)> = (0..6)
            .map(|_| {
                let fault = if chance.bool() { Fault::Cut } else { Fault::Reset };
                let goes_up = chance.u8(..4) > 0;
                // What the server says is short.
                (chance.u64(..if goes_up { 9 << 20 } else { 1200 }), fault, goes_up)
            })
            .collect();
        let plans = cuts.clone();
        let proxy = Proxy::faulty(server.address, move |number| match plans.get(number) {
            Some(&(at, fault, true)) => Plan::up(at, fault),
            Some(&(at, fault, false)) => Plan::down(at, fault),
            None => Plan::none(),
        });
        let proxy = proxy.unwrap();
        let links = 1 + round as u64 % 2;
        let watch = Watch::new();
        let settings = settings(&security, links, 8);
        let put = put_at(proxy.address, &path, "x", &settings, &watch);
        let stored =
            put.unwrap_or_else(|error| panic!("{seed} {round} {cuts:?}: {error} after {:?}", watch.told));
        assert_eq!(stored.root, Some(Root::of(&data)), "{seed} {round}");
        expect_only(&site, "x", &data);
        let up: u64 = proxy.connections().iter().map(|traffic| traffic.up).sum();
        // Of each connection that was cut, what it had under way: a run of blocks, and a window of them at most.
        let waste = up.saturating_sub(len as u64);
        let most = (proxy.connections().len() as u64) * (16 << 20);
        assert!(waste <= most, "{seed} {round}: {waste} bytes were given in vain");
        fs::remove_file(site.root("x")).unwrap();
    }
}

#[test]
fn an_upload_outlives_its_server() {
    let site = Site::new();
    let security = writer(&site);
    let mut server = site.serve(&[]);
    let (address, len) = (server.address, 40 * MIB);
    let (_dir, path, data) = local(len);
    let next = Mutex::new(None::<Server>);
    let watch = Watch::at_half(|| {
        server.signal(Signal::KILL);
        server.wait_exit();
        let port = address.port().to_string();
        let launch = site.launch_bare(&[&port, "root", "--state", "state", "--log-dir", "logs"]);
        *next.lock().unwrap() = Some(launch.serve());
    });
    let settings = Settings { limit_rate: Some(40 << 20), ..settings(&security, 2, 6) };
    let stored = put_at(address, &path, "x", &settings, &watch).unwrap();
    assert_eq!(stored.root, Some(Root::of(&data)));
    let had = watch.had.lock().unwrap().clone();
    assert!(had.len() > 1 && had.last() > Some(&0), "it began at nothing again: {had:?}");
    drop(watch);
    expect_only(&site, "x", &data);
}

#[test]
fn an_upload_outlives_its_client() {
    let site = Site::new();
    let security = writer(&site);
    let server = site.serve(&[]);
    let (_dir, path, data) = local(32 * MIB);
    let stop = CancellationToken::new();
    let watch = Watch::at_half(|| stop.cancel());
    let to: Address = server.address.to_string().parse().unwrap();
    let source = UploadSource::File(path.clone());
    let slow = Settings { limit_rate: Some(32 << 20), ..settings(&security, 1, 0) };
    let put = within(put(&to, &source, b"x", &slow, &watch, &stop));
    assert!(matches!(put, Err(FetchError::Interrupted)), "{put:?}");
    drop(watch);
    assert!(!site.root("x").exists());
    let stored = put_at(server.address, &path, "x", &settings(&security, 2, 3), &Watch::new()).unwrap();
    assert_eq!(stored.root, Some(Root::of(&data)));
    assert!(stored.resumed > 8 << 20, "{} bytes were kept", stored.resumed);
    expect_only(&site, "x", &data);
}

#[test]
fn a_file_that_changes_on_the_way_is_stored_as_what_it_is_in_the_end() {
    let site = Site::new();
    let security = writer(&site);
    let server = site.serve(&[]);
    let (_dir, path, mut data) = local(24 * MIB);
    data[20 * MIB..].fill(1);
    let own = data.clone();
    let watch = Watch::at_half(|| fs::write(&path, own).unwrap());
    let settings = Settings { limit_rate: Some(24 << 20), ..settings(&security, 2, 3) };
    let stored = put_at(server.address, &path, "x", &settings, &watch).unwrap();
    assert_eq!(stored.root, Some(Root::of(&data)));
    let told = watch.told.lock().unwrap().join("\n");
    assert!(told.contains("local changed while it was being sent"), "{told}");
    drop(watch);
    expect_only(&site, "x", &data);
}

#[test]
fn who_may_not_write_is_told_so_and_nothing_is_there() {
    let site = Site::new();
    let word = holders::add(&site, "reader", &["--allow", "read"]);
    let server = site.serve(&[]);
    for security in [Security::default(), holder(&word)] {
        for len in [10, 3 * MIB] {
            let (_dir, path, _) = local(len);
            let put = put_at(server.address, &path, "x", &settings(&security, 2, 3), &Watch::new());
            let error = put.unwrap_err();
            assert_eq!(error.code(), Code::NotAllowed, "{error}");
        }
    }
    assert_eq!(fs::read_dir(site.root("")).unwrap().count(), 0);
}

#[test]
fn what_is_there_is_replaced_kept_or_in_the_way_as_was_asked() {
    let site = Site::new();
    let security = writer(&site);
    let server = site.serve(&[]);
    for len in [100, 3 * MIB] {
        let (_dir, path, data) = local(len);
        let with = |overwrite| Settings { overwrite, ..settings(&security, 1, 0) };
        let put = |overwrite| put_at(server.address, &path, "x", &with(overwrite), &Watch::new());
        site.file("x", b"another");
        let error = put(Overwrite::Never).unwrap_err();
        assert_eq!(error.code(), Code::Exists, "{error}");
        assert_eq!(fs::read(site.root("x")).unwrap(), b"another");
        assert!(!put(Overwrite::Different).unwrap().unchanged);
        assert!(put(Overwrite::Different).unwrap().unchanged);
        assert!(!put(Overwrite::Always).unwrap().unchanged);
        expect_only(&site, "x", &data);
    }
}

#[test]
fn an_end_that_was_not_heard_does_not_make_a_stored_file_stand_in_its_own_way() {
    let site = Site::new();
    let security = writer(&site);
    let server = site.serve(&[]);
    for len in [100, 3 * MIB] {
        let (_dir, path, data) = local(len);
        // The last words of the server are lost: more and more of them come through.
        for at in (40..).step_by(7) {
            let proxy = Proxy::faulty(server.address, move |number| match number {
                0 => Plan::down(at, Fault::Reset),
                _ => Plan::none(),
            });
            let proxy = proxy.unwrap();
            let never = Settings { overwrite: Overwrite::Never, ..settings(&security, 1, 3) };
            let stored = put_at(proxy.address, &path, "x", &never, &Watch::new());
            let stored = stored.unwrap_or_else(|error| panic!("{len} {at}: {error}"));
            assert!(stored.unchanged || stored.root == Some(Root::of(&data)));
            expect_only(&site, "x", &data);
            fs::remove_file(site.root("x")).unwrap();
            if proxy.connections().len() == 1 {
                break;
            }
        }
    }
}

fn folder(
    to: SocketAddr,
    from: &Path,
    settings: &Settings,
    watch: &Watch<'_>,
) -> Result<FolderPut, FetchError> {
    let server: Address = to.to_string().parse().unwrap();
    let selection = Selection { recursive: true, itself: true, ..Selection::default() };
    within(put_folder(&server, from, b"top", &selection, settings, watch, &CancellationToken::new()))
}

/// The same files are in the folder there as here, and nothing else is.
#[track_caller]
fn expect_same(here: &Path, site: &Site) {
    let files = |root: &Path| without_folders(tree(root, false));
    assert_eq!(differs(&files(here), &files(&site.root("top"))), None);
}

#[test]
fn a_folder_is_stored_as_it_is_and_once_more_changes_nothing() {
    let (site, other) = (Site::new(), Site::new());
    let security = writer(&site);
    for number in 0..300_usize {
        let size = [0, 10, 5000, 70_000][number % 4];
        other.file(format!("d/{}/f{number}", number % 7), &noise(number as u64, size));
    }
    other.file("d/large", &noise(1, 3 * MIB + 1));
    fs::create_dir_all(other.root("d/empty/er")).unwrap();
    let server = site.serve(&[]);
    let settings = Settings { overwrite: Overwrite::Different, ..settings(&security, 2, 3) };
    let (from, watch) = (other.root("d"), Watch::new());
    let put = folder(server.address, &from, &settings, &watch).unwrap();
    assert_eq!((put.files, put.failed, put.unchanged), (301, 0, 0), "{:?}", watch.told);
    expect_same(&from, &site);
    assert!(site.root("top/empty/er").is_dir());
    let between = Proxy::faulty(server.address, |_| Plan::none()).unwrap();
    let put = folder(between.address, &from, &settings, &watch).unwrap();
    assert_eq!((put.files, put.failed, put.unchanged), (0, 0, 301), "{:?}", watch.told);
    let sent: u64 = between.connections().iter().map(|traffic| traffic.up).sum();
    assert!(sent < 64 << 10, "what is there is not sent again: {sent} bytes of {}", put.bytes);
    // One that has changed is, and nothing else.
    other.file("d/3/f3", &noise(9, 70_000));
    let put = folder(server.address, &from, &settings, &watch).unwrap();
    assert_eq!((put.files, put.failed, put.unchanged), (1, 0, 300), "{:?}", watch.told);
    expect_same(&from, &site);
}

#[test]
fn who_may_only_write_cannot_see_what_is_there_and_the_server_says_what_is_unchanged() {
    let (site, other) = (Site::new(), Site::new());
    let security = holder(&holders::add(&site, "dropper", &["--allow", "write"]));
    for number in 0..20_u64 {
        other.file(format!("d/f{number}"), &noise(number, 3000));
    }
    let server = site.serve(&["--require-key"]);
    let settings = Settings { overwrite: Overwrite::Different, ..settings(&security, 2, 3) };
    let (from, watch) = (other.root("d"), Watch::new());
    for (files, unchanged) in [(20, 0), (0, 20)] {
        let put = folder(server.address, &from, &settings, &watch).unwrap();
        assert_eq!((put.files, put.failed, put.unchanged), (files, 0, unchanged), "{:?}", watch.told);
    }
    expect_same(&from, &site);
}

#[test]
fn a_folder_whose_connections_are_cut_is_stored_all_the_same() {
    let (site, other, seed) = (Site::new(), Site::new(), seed());
    let security = writer(&site);
    for number in 0..200_usize {
        other.file(format!("d/{}/f{number}", number % 3), &noise(number as u64, number * 700));
    }
    other.file("d/large", &noise(1, 6 * MIB + 1));
    let server = site.serve(&[]);
    for round in 0..4 {
        let mut chance = part(seed, round);
        let cuts: Vec<u64> = (0..8).map(|_| chance.u64(..3 << 20)).collect();
        let proxy = Proxy::faulty(server.address, move |number| match cuts.get(number) {
            Some(&at) => Plan::up(at, Fault::Reset),
            None => Plan::none(),
        });
        let (proxy, watch) = (proxy.unwrap(), Watch::new());
        let overwrite = if round % 2 == 0 { Overwrite::Never } else { Overwrite::Different };
        let settings = Settings { overwrite, ..settings(&security, 2, 9) };
        let put = folder(proxy.address, &other.root("d"), &settings, &watch);
        let put = put.unwrap_or_else(|error| panic!("{seed} {round}: {error} after {:?}", watch.told));
        assert_eq!((put.files + put.unchanged, put.failed), (201, 0), "{seed} {round}: {:?}", watch.told);
        expect_same(&other.root("d"), &site);
        fs::remove_dir_all(site.root("top")).unwrap();
    }
}

#[test]
fn over_tls_everything_goes_the_same_way() {
    let site = Site::new();
    let security = writer(&site);
    let server = site.serve(&["--tls", "require"]);
    let mut security = security;
    security.pins = vec![tls_raw::pin(&tls_raw::shaken(server.connect()).unwrap())];
    let settings = settings(&security, 2, 0);
    for len in [100, 40 * MIB + 3] {
        let (_dir, path, data) = local(len);
        let stored = put_at(server.address, &path, "x", &settings, &Watch::new()).unwrap();
        assert_eq!(stored.root, Some(Root::of(&data)));
        expect_only(&site, "x", &data);
    }
}

#[test]
fn files_and_folders_are_removed_and_renamed() {
    let site = Site::new();
    let security = writer(&site);
    let server = site.serve(&[]);
    let to: Address = server.address.to_string().parse().unwrap();
    let (settings, watch, stop) = (settings(&security, 1, 0), Watch::new(), CancellationToken::new());
    site.file("a", b"a");
    site.file("b", b"b");
    site.file("d/e/f", b"f");
    let error = within(rename(&to, b"a", b"b", false, &settings, &watch, &stop)).unwrap_err();
    assert_eq!(error.code(), Code::Exists, "{error}");
    within(rename(&to, b"a", b"b", true, &settings, &watch, &stop)).unwrap();
    assert_eq!(fs::read(site.root("b")).unwrap(), b"a");
    within(rename(&to, b"b", b"new/c", false, &settings, &watch, &stop)).unwrap();
    assert_eq!(fs::read(site.root("new/c")).unwrap(), b"a");
    within(remove(&to, b"new/c", false, &settings, &watch, &stop)).unwrap();
    assert!(!site.root("new/c").exists());
    let error = within(remove(&to, b"new/c", false, &settings, &watch, &stop)).unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    within(remove(&to, b"d", false, &settings, &watch, &stop)).unwrap_err();
    within(remove(&to, b"d", true, &settings, &watch, &stop)).unwrap();
    assert!(!site.root("d").exists());
    let nobody = Settings { security: Security::default(), ..settings };
    let error = within(remove(&to, b"new", false, &nobody, &watch, &stop)).unwrap_err();
    assert_eq!(error.code(), Code::NotAllowed, "{error}");
}
