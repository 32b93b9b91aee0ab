//! Files are put on servers that are played here: they ask as a server does, or as none should.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::client::{Backoff, Checksum, Event, OldServers, Overwrite, Protocol, Security};
use crate::codec::v2::{Form, Get};
use crate::error::Code;
use crate::tree::BLOCK_LEN;

#[path = "tests/folders.rs"]
mod folders;
#[path = "tests/hostile.rs"]
mod hostile;
#[path = "tests/puller.rs"]
mod puller;

use puller::{Puller, Script};

const MIB: usize = 1 << 20;

fn settings() -> Settings {
    Settings {
        backoff: Backoff { retries: 0, first: Duration::ZERO, longest: Duration::ZERO },
        timeout: Duration::from_secs(20),
        wait_max: Duration::from_secs(60),
        overwrite: Overwrite::Never,
        sync: false,
        protocol: Protocol::Auto,
        links: 1,
        limit_rate: None,
        priority: crate::priority::Priority::default(),
        sparse: false,
        restart: false,
        checksum: None,
        old_servers: OldServers::default(),
        security: Security::default(),
    }
}

fn with_retries_of(retries: u32) -> Settings {
    let first = Duration::from_millis(1);
    Settings { backoff: Backoff { retries, first, longest: first }, ..settings() }
}

fn content(len: usize) -> Vec<u8> {
    let mut chance = fastrand::Rng::with_seed(len as u64);
    let mut bytes = vec![0; len];
    chance.fill(&mut bytes);
    bytes
}

/// A local file and what it holds.
fn local(len: usize) -> (TempDir, UploadSource, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (path, bytes) = (dir.path().join("local"), content(len));
    std::fs::write(&path, &bytes).unwrap();
    (dir, UploadSource::File(path), bytes)
}

/// Notes what it hears.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn observe(&self, event: &Event<'_>) {
        let note = match *event {
            Event::Started { have, size, .. } => format!("started {have} of {size}"),
            Event::Waiting { error, .. } => format!("again: {error}"),
            Event::FileDone { name, size, .. } => format!("done {} {size}", name.escape_ascii()),
            Event::FileKept { name, .. } => format!("kept {}", name.escape_ascii()),
            Event::FileFailed { name, error } => format!("failed {}: {error}", name.escape_ascii()),
            Event::FileSkipped { name } => format!("skipped {}", name.escape_ascii()),
            Event::FileSpecial { name } => format!("special {}", name.escape_ascii()),
            _ => return,
        };
        self.0.lock().unwrap().push(note);
    }
}

impl Notes {
    fn all(&self) -> Vec<String> {
        let mut notes = self.0.lock().unwrap().clone();
        notes.sort();
        notes
    }
}

async fn put_to(puller: &Puller, source: &UploadSource, settings: &Settings) -> Result<Put, FetchError> {
    put(&puller.server(), source, b"there", settings, &Notes::default(), &CancellationToken::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_every_size_are_stored_whole_whichever_way_they_go() {
    for len in [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB, 5 * MIB + 17] {
        let (_dir, source, bytes) = local(len);
        let puller = Puller::start(Script::default()).await;
        let stored = put_to(&puller, &source, &settings()).await.unwrap();
        assert_eq!((stored.size, stored.root, stored.unchanged), (len as u64, Some(Root::of(&bytes)), false));
        let form = if len <= MIB { Form::Whole } else { Form::Asked };
        assert_eq!(puller.puts()[0].form, form, "{len}");
        assert!(puller.stored(b"there").is_some_and(|there| there == bytes), "{len}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_goes_over_several_connections_and_no_block_twice() {
    let (_dir, source, bytes) = local(48 * MIB + 5);
    // The first one is asked for no more than a block before the second one is there.
    let puller = Puller::start(Script { waits_for_links: 2, ..Script::default() }).await;
    let settings = Settings { links: 2, ..settings() };
    let stored = put_to(&puller, &source, &settings).await.unwrap();
    assert_eq!(stored.root, Some(Root::of(&bytes)));
    let puts = puller.puts();
    assert_eq!(puts.len(), 2);
    assert_eq!((puts[0].transfer, puts[0].attempt), (puts[1].transfer, puts[1].attempt));
    let connections: BTreeSet<_> = puller.arrived().iter().map(|&(connection, _)| connection).collect();
    assert_eq!(connections.len(), 2);
    assert_eq!(puller.arrived().len(), 49);
    assert!(puller.stored(b"there").is_some_and(|there| there == bytes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_cut_again_and_again_goes_on_where_it_was() {
    let (_dir, source, bytes) = local(12 * MIB);
    let puller = Puller::start(Script { cut_after: vec![2, 3, 3], ..Script::default() }).await;
    let notes = Notes::default();
    // Each attempt brings something, so one retry is enough for all of them.
    let settings = with_retries_of(1);
    let (server, stop) = (puller.server(), CancellationToken::new());
    let stored = put(&server, &source, b"there", &settings, &notes, &stop).await.unwrap();
    assert_eq!((stored.root, stored.resumed), (Some(Root::of(&bytes)), 0));
    assert_eq!(puller.arrived().len(), 12, "no block is given twice");
    let puts = puller.puts();
    let attempts: Vec<_> = puts.iter().map(|put| put.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
    assert!(puts.iter().all(|put| put.transfer == puts[0].transfer));
    let started: Vec<_> = notes.all().into_iter().filter(|note| note.starts_with("started")).collect();
    assert_eq!(started.len(), 4, "{started:?}");
    assert!(started.contains(&format!("started {} of {}", 8 * MIB, 12 * MIB)), "{started:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_program_gave_is_not_given_again() {
    let (_dir, source, bytes) = local(6 * MIB);
    let puller = Puller::start(Script { cut_after: vec![4], ..Script::default() }).await;
    assert!(put_to(&puller, &source, &settings()).await.is_err());
    let stored = put_to(&puller, &source, &settings()).await.unwrap();
    assert_eq!((stored.root, stored.resumed), (Some(Root::of(&bytes)), 4 * BLOCK_LEN));
    assert_eq!(puller.arrived().len(), 6);
    assert_ne!(puller.puts()[0].transfer, puller.puts()[1].transfer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_values_and_the_root_first_is_told_them() {
    let (_dir, source, bytes) = local(5 * MIB + 1);
    let puller = Puller::start(Script { asks_values: true, ..Script::default() }).await;
    let stored = put_to(&puller, &source, &settings()).await.unwrap();
    assert_eq!(stored.root, Some(Root::of(&bytes)));
    assert_eq!(puller.values(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_while_it_is_sent_is_told_by_its_name_and_never_stored() {
    let (dir, source, _) = local(6 * MIB);
    let path = dir.path().join("local");
    let puller = Puller::start(Script { changes: Some((2, path.clone())), ..Script::default() }).await;
    let error = put_to(&puller, &source, &settings()).await.unwrap_err();
    assert!(matches!(error, FetchError::LocalChanged { .. }), "{error}");
    assert_eq!(error.code(), Code::SourceChanged);
    assert_eq!(error.to_string(), format!("{} changed while it was being sent", path.display()));
    assert!(puller.stored(b"there").is_none());
    assert_eq!(puller.failures(), [Code::SourceChanged]);
    // What it is now is stored by the next attempt, as another version of the same upload.
    let stored = put_to(&puller, &source, &settings()).await.unwrap();
    assert_eq!(stored.root, Some(Root::of(&std::fs::read(&path).unwrap())));
    assert_ne!(puller.puts()[0].file.token, puller.puts()[1].file.token);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_replaced_follows_from_the_setting() {
    use Overwrite::{Always, Different, Never};
    let (_dir, source, _) = local(10);
    for (overwrite, flags) in [(Never, (false, false)), (Different, (true, true)), (Always, (true, false))] {
        let puller = Puller::start(Script::default()).await;
        put_to(&puller, &source, &Settings { overwrite, ..settings() }).await.unwrap();
        let put = &puller.puts()[0];
        assert_eq!((put.replace, put.unless_same), flags);
    }
    let puller = Puller::start(Script { is_same: true, ..Script::default() }).await;
    // What an attempt has stored whose end was not heard must not stand in the way of the next.
    let again = Puller::start(Script { cut_after: vec![0], ..Script::default() }).await;
    put_to(&again, &source, &with_retries_of(1)).await.unwrap();
    let flags: Vec<_> = again.puts().iter().map(|put| (put.replace, put.unless_same)).collect();
    assert_eq!(flags, [(false, false), (false, true)]);
    let settings = Settings { overwrite: Different, ..settings() };
    let kept = put_to(&puller, &source, &settings).await.unwrap();
    assert!(kept.unchanged && kept.root.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_file_is_put_with_the_mode_and_time_that_were_said() {
    let (_dir, source, bytes) = local(2 * MIB);
    let UploadSource::File(path) = source else { panic!() };
    let file = File::open(path).unwrap();
    let source = UploadSource::Open { file, mode: 0o640, modified: (7, 8) };
    let puller = Puller::start(Script::default()).await;
    let stored = put_to(&puller, &source, &settings()).await.unwrap();
    assert_eq!(stored.root, Some(Root::of(&bytes)));
    let put = &puller.puts()[0];
    assert_eq!((put.file.mode, put.file.modified), (0o640, (7, 8)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_not_the_one_that_was_meant_is_not_even_offered() {
    for len in [100, 2 * MIB] {
        let (_dir, source, bytes) = local(len);
        let puller = Puller::start(Script::default()).await;
        for wrong in
            [Checksum::Blake3(Root::of(b"other")), "md5=00000000000000000000000000000000".parse().unwrap()]
        {
            let settings = Settings { checksum: Some(wrong), ..settings() };
            let error = put_to(&puller, &source, &settings).await.unwrap_err();
            assert!(matches!(error, FetchError::OtherSource { .. }), "{error}");
        }
        assert!(puller.puts().is_empty());
        let settings = Settings { checksum: Some(Checksum::Blake3(Root::of(&bytes))), ..settings() };
        put_to(&puller, &source, &settings).await.unwrap();
        assert_eq!(puller.puts()[0].file.root, Some(Root::of(&bytes)), "what was computed is told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_regular_files_with_fit_names_is_offered() {
    let puller = Puller::start(Script::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for path in [dir.path().to_owned(), pipe] {
        let error = put_to(&puller, &UploadSource::File(path), &settings()).await.unwrap_err();
        assert!(matches!(error, FetchError::NotALocalFile { .. }), "{error}");
    }
    let missing = UploadSource::File(dir.path().join("missing"));
    let error = put_to(&puller, &missing, &settings()).await.unwrap_err();
    assert!(matches!(error, FetchError::Unreadable { .. }), "{error}");
    let (_dir, source, _) = local(1);
    let (server, notes, stop) = (puller.server(), Notes::default(), CancellationToken::new());
    for name in [&b""[..], b"/etc/x", b"a/../b", b".oneport/x"] {
        let error = put(&server, &source, name, &settings(), &notes, &stop).await.unwrap_err();
        assert!(matches!(error, FetchError::Name { .. }), "{error}");
    }
    assert!(puller.puts().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_want_it_any_more_is_not_waited_for() {
    let (_dir, source, _) = local(2 * MIB);
    for script in
        [Script { is_silent: true, ..Script::default() }, Script { waits_for_links: 9, ..Script::default() }]
    {
        let puller = Puller::start(script).await;
        let (stop, server) = (CancellationToken::new(), puller.server());
        let own = stop.clone();
        let settings = settings();
        let notes = Notes::default();
        let putting = put(&server, &source, b"there", &settings, &notes, &stop);
        let stopping = async {
            puller.offered().await;
            own.cancel();
        };
        let (put, ()) = tokio::join!(putting, stopping);
        assert!(matches!(put, Err(FetchError::Interrupted)), "{put:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limited_rate_is_kept_in_both_forms() {
    for len in [MIB, 2 * MIB] {
        let (_dir, source, _) = local(len);
        let puller = Puller::start(Script::default()).await;
        let settings = Settings { limit_rate: Some(len as u64), ..settings() };
        let stored = put_to(&puller, &source, &settings).await.unwrap();
        // A second, less what may be made up for at once and the last turn.
        assert!(stored.elapsed >= Duration::from_millis(800), "{:?}", stored.elapsed);
    }
}

#[test]
fn a_block_is_hashed_once_however_many_ask_for_it() {
    let (_dir, source, bytes) = local(9 * MIB + 3);
    let offer = Arc::new(offer::Offer::open(&source).unwrap());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let offer = Arc::clone(&offer);
            std::thread::spawn(move || (0..10).map(|index| offer.value(index).unwrap()).collect::<Vec<_>>())
        })
        .collect();
    let values: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(values.iter().all(|told| *told == values[0]));
    assert_eq!(offer.complete().unwrap().root(), Root::of(&bytes));
    assert_eq!(offer.hashed(), 10);
}

/// A request for some blocks of what was offered.
fn get_of(put: &crate::codec::v2::Put) -> Get {
    Get { name: put.name.clone(), transfer: put.transfer, token: put.file.token, ..Get::default() }
}
