//! Servers and clients within another program, by nothing but what the library makes public.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test says what it expects")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use oneport::app::embed::StartError;
use oneport::app::received::Received;
use oneport::client::{
    Event, Existing, FetchError, Listen, Listened, Observer, Offered, ReceivingObserver, Selection, TlsMode,
};
use oneport::config;
use oneport::error::Code;
use oneport::rights::{Grant, Right, Rights, Verb};
use oneport::{Client, ClientBuilder, Server, ServerBuilder};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longest wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// Folders for a server and a client.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn builder(&self) -> ServerBuilder {
        Server::builder(self.path("root")).bind("127.0.0.1".parse().unwrap())
    }
}

/// A client that may do everything.
fn holder(server: &Server) -> ClientBuilder {
    let rights = Rights::from_iter(Right::ALL);
    let key = server.issue_key("holder", Grant { rights, ..Grant::default() }).unwrap();
    Client::to(&server.address().to_string()).unwrap().key(key)
}

/// Bytes that no two blocks of have in common.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(size).collect()
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("this takes too long")
}

fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != ".oneport").collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_puts_is_listed_asked_about_and_fetched_in_the_same_process() {
    let place = Place::new();
    let server = place.builder().start().await.unwrap();
    let client = holder(&server).build();
    let bytes = noise(3 * MIB + 17);
    let large = place.write("large", &bytes);
    let small = place.write("small", b"hello");
    let put = within(client.put(&large, "in/large.bin")).await.unwrap();
    assert_eq!((put.size, put.unchanged, put.resumed), (bytes.len() as u64, false, 0));
    within(client.put(&small, "in/small.txt")).await.unwrap();
    let mut listing = client.list("in", Selection::default());
    let mut names = Vec::new();
    while let Some(entry) = within(listing.next()).await.unwrap() {
        names.push((String::from_utf8_lossy(&entry.name).into_owned(), entry.size));
    }
    names.sort();
    assert_eq!(names, [("large.bin".to_owned(), bytes.len() as u64), ("small.txt".to_owned(), 5)]);
    assert!(within(listing.next()).await.unwrap().is_none(), "the end stays the end");
    let facts = within(client.stat("in/large.bin")).await.unwrap();
    assert_eq!((facts.size, Some(facts.root)), (bytes.len() as u64, put.root));
    let fetched = within(client.get("in/large.bin", place.path("out/back"))).await.unwrap();
    assert_eq!(fetched.path.as_deref(), Some(place.path("out/back").as_path()));
    assert!(fs::read(place.path("out/back")).unwrap() == bytes);
    let error = within(client.get("nothing", place.path("out/nothing"))).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound(_)), "{error}");
    assert_eq!(error.code(), Code::NotFound);
    assert!(within(server.shutdown()).await.unwrap().drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_in_one_process_have_nothing_in_common() {
    let (one, two) = (Place::new(), Place::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let first = one.builder().listener(listener).start().await.unwrap();
    assert_eq!(first.address(), address, "a given listener is used");
    let second = two.builder().state(two.path("state")).start().await.unwrap();
    assert_ne!(first.pin(), second.pin());
    let (to_first, to_second) = (holder(&first).build(), holder(&second).build());
    let file = one.write("file", b"of the first");
    let other = two.write("file", b"of the second");
    let puts = async { tokio::join!(to_first.put(&file, "x"), to_second.put(&other, "x")) };
    let (put, also) = within(puts).await;
    put.unwrap();
    also.unwrap();
    assert_eq!(fs::read(one.path("root/x")).unwrap(), b"of the first");
    assert_eq!(fs::read(two.path("root/x")).unwrap(), b"of the second");
    // A key of one is none for the other.
    let wrong = Client::to(&second.address().to_string()).unwrap();
    let key = first.issue_key("another", Grant::reading()).unwrap();
    let error = within(wrong.key(key).build().put(&file, "y")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotAllowed, "{error}");
    // One that stops leaves the other alone.
    within(first.shutdown()).await.unwrap();
    within(to_second.get("x", two.path("back"))).await.unwrap();
    within(second.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_said_with_a_code() {
    let place = Place::new();
    let server = place.builder().start().await.unwrap();
    let error = place.builder().start().await.unwrap_err();
    assert!(matches!(error, StartError::State(_)), "{error}");
    assert_eq!(error.code(), Code::Exists);
    let other = Place::new();
    let error = other.builder().port(server.address().port()).start().await.unwrap_err();
    assert!(matches!(error, StartError::Listen(_)), "{error}");
    assert_eq!(error.code(), Code::Connect);
    fs::write(other.path("file"), b"x").unwrap();
    let error = Server::builder(other.path("file")).start().await.unwrap_err();
    assert!(matches!(error, StartError::Root(_)), "{error}");
    // What was claimed by one that did not start, or has stopped, is free again.
    let port = server.address().port();
    within(server.shutdown()).await.unwrap();
    let again = place.builder().port(port).start().await.unwrap();
    within(again.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_what_is_under_way_end_and_takes_nothing_new() {
    let place = Place::new();
    let bytes = noise(16 * MIB);
    place.write("root/large", &bytes);
    let server = place.builder().start().await.unwrap();
    let address = server.address().to_string();
    // Slow enough to be under way when the server is stopped; the reading end sets the pace. It asks once, for all of it.
    let (begun, mut heard) = mpsc::channel(1);
    let settings = || oneport::client::Settings {
        backoff: oneport::client::Backoff { retries: 0, ..Default::default() },
        protocol: oneport::client::Protocol::V1,
        ..Default::default()
    };
    let client = Client::to(&address)
        .unwrap()
        .settings(settings())
        .limit_rate(Some(8 * MIB as u64))
        .on_progress(move |progress| {
            if progress.transferred > 0 {
                let _ = begun.try_send(());
            }
        })
        .build();
    let back = place.path("back");
    let fetching = tokio::spawn(async move { client.get("large", back).await });
    within(heard.recv()).await.unwrap();
    let stopped = tokio::spawn(server.shutdown());
    let fetched = within(fetching).await.unwrap().unwrap();
    assert_eq!(fetched.size, bytes.len() as u64);
    assert!(fs::read(place.path("back")).unwrap() == bytes);
    assert!(within(stopped).await.unwrap().unwrap().drained);
    let late = Client::to(&address).unwrap().settings(settings()).build();
    let error = within(late.get("large", place.path("late"))).await.unwrap_err();
    assert_eq!(error.code(), Code::Connect, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stops_by_its_token_and_when_it_is_dropped() {
    let place = Place::new();
    let token = CancellationToken::new();
    let server = place.builder().stopped_by(token.clone()).start().await.unwrap();
    token.cancel();
    assert!(within(server.ended()).await.unwrap().drained);
    let server = place.builder().start().await.unwrap();
    drop(server);
    // It gives its folder free in the background.
    let again = async {
        loop {
            match place.builder().start().await {
                Ok(server) => return server,
                Err(error) => assert!(matches!(error, StartError::State(_)), "{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    within(within(again).await.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_that_is_received_is_told_of_when_it_is_there() {
    let place = Place::new();
    let (tell, mut told) = mpsc::unbounded_channel::<(Received, Vec<u8>)>();
    let before = SystemTime::now();
    let server = place
        .builder()
        .on_file_received(move |received| {
            let there = fs::read(&received.path).unwrap();
            tell.send((received.clone(), there)).unwrap();
        })
        .start()
        .await
        .unwrap();
    let client = holder(&server).build();
    let large = noise(2 * MIB);
    let (one, other) = (place.write("one", &large), place.write("other", b"small"));
    let put = within(client.put(&one, "a/one")).await.unwrap();
    let (received, there) = within(told.recv()).await.unwrap();
    assert!(there == large, "it was whole when that was told");
    assert_eq!((received.path, received.size), (place.path("root/a/one"), large.len() as u64));
    assert_eq!((received.name.as_bytes(), received.dialect), (&b"a/one"[..], "v2"));
    assert_eq!(received.key.unwrap().as_str(), "holder");
    assert_eq!(received.digest.to_hex(), put.root.unwrap().to_string());
    assert!(received.peer.unwrap().ip().is_loopback() && received.time >= before);
    within(client.put(&other, "b")).await.unwrap();
    assert_eq!(within(told.recv()).await.unwrap().1, b"small");
    // What is kept as it is was not received.
    let again = holder_again(&client, &server);
    assert!(within(again.put(&other, "b")).await.unwrap().unchanged);
    within(server.shutdown()).await.unwrap();
    assert!(within(told.recv()).await.is_none(), "nothing else is told, and the closure is gone");
}

/// The same, for files that may be there already.
fn holder_again(client: &Client, server: &Server) -> Client {
    let key = server.issue_key("again", Grant { rights: Rights::from_iter(Right::ALL), ..Grant::default() });
    Client::builder(client.server().clone())
        .key(key.unwrap())
        .overwrite(oneport::client::Overwrite::Different)
        .build()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_check_narrows_what_keys_allow_and_never_widens_it() {
    let place = Place::new();
    place.write("root/open", b"x");
    place.write("root/secret/a", b"x");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let server = place
        .builder()
        .access_check(move |wanted| {
            let key = wanted.key.map(ToString::to_string);
            seen.lock().unwrap().push((wanted.verb, key, wanted.name.to_vec()));
            !wanted.name.starts_with(b"secret")
        })
        .start()
        .await
        .unwrap();
    let anybody = Client::to(&server.address().to_string()).unwrap().build();
    let holder = holder(&server).build();
    within(anybody.get("open", place.path("open"))).await.unwrap();
    for client in [&anybody, &holder] {
        let error = within(client.get("secret/a", place.path("a"))).await.unwrap_err();
        assert_eq!(error.code(), Code::NotAllowed, "{error}");
        let mut listing = client.list("secret", Selection::default());
        assert_eq!(within(listing.next()).await.unwrap_err().code(), Code::NotAllowed);
    }
    let file = place.write("file", b"y");
    let error = within(holder.put(&file, "secret/b")).await.unwrap_err();
    assert!(error.to_string().contains("the server does not allow this"), "{error}");
    within(holder.put(&file, "b")).await.unwrap();
    // It says yes to this one, but nobody without a key may store anything.
    let before = asked.lock().unwrap().len();
    let error = within(anybody.put(&file, "c")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotAllowed, "{error}");
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), before, "what is not allowed anyhow is not asked about");
    assert!(asked.contains(&(Verb::Get, None, b"open".to_vec())), "{asked:?}");
    assert!(asked.contains(&(Verb::Put, Some("holder".to_owned()), b"b".to_vec())), "{asked:?}");
    assert_eq!(entries(&place.path("root")), ["b", "open", "secret"]);
    within(server.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_generator_says_how_files_are_called_and_the_client_hears_of_it() {
    let place = Place::new();
    place.write("root/in/holder-1", b"there already");
    let (tell, mut told) = mpsc::unbounded_channel::<Received>();
    let server = place
        .builder()
        .name_generator(|file| {
            let key = file.key.map(ToString::to_string).unwrap_or_default();
            match file.name.as_bytes() {
                b"up" => b"../up".to_vec(),
                b"fixed" => b"in/fixed".to_vec(),
                _ => format!("in/{key}-{}", file.counter).into_bytes(),
            }
        })
        .on_file_received(move |received| drop(tell.send(received.clone())))
        .start()
        .await
        .unwrap();
    let client = holder(&server).build();
    let large = noise(3 * MIB + 1);
    let (small, big) = (place.write("small", b"small"), place.write("large", &large));
    let put = within(client.put(&small, "x/y")).await.unwrap();
    assert_eq!(put.name.unwrap().as_bytes(), b"in/holder-2", "what is there is not replaced");
    assert_eq!(within(told.recv()).await.unwrap().path, place.path("root/in/holder-2"));
    let put = within(client.put(&big, "x/y")).await.unwrap();
    assert_eq!(put.name.unwrap().as_bytes(), b"in/holder-3");
    assert_eq!(within(told.recv()).await.unwrap().name.as_bytes(), b"in/holder-3");
    assert!(fs::read(place.path("root/in/holder-3")).unwrap() == large);
    assert_eq!(fs::read(place.path("root/in/holder-1")).unwrap(), b"there already");
    // What it says is no more than what any client says.
    let error = within(client.put(&big, "up")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotAllowed, "{error}");
    let error = within(client.put(&small, "up")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotAllowed, "{error}");
    // Nor does it lead where the key may not go.
    let beneath = Grant { rights: Rights::from_iter([Right::Write]), prefix: (*b"x").into() };
    let key = server.issue_key("beneath", beneath).unwrap();
    let narrow = Client::to(&server.address().to_string()).unwrap().key(key).build();
    for file in [&small, &big] {
        let error = within(narrow.put(file, "x/y")).await.unwrap_err();
        assert_eq!(error.code(), Code::NotAllowed, "{error}");
    }
    // One that makes one name only: whether that is replaced is for the client to say.
    within(client.put(&small, "fixed")).await.unwrap();
    within(client.put(&big, "fixed")).await.unwrap();
    assert!(fs::read(place.path("root/in/fixed")).unwrap() == large);
    let key =
        server.issue_key("careful", Grant { rights: Rights::from_iter(Right::ALL), ..Grant::default() });
    let careful = Client::to(&server.address().to_string()).unwrap().key(key.unwrap());
    let careful = careful.overwrite(oneport::client::Overwrite::Never).build();
    for file in [&small, &big] {
        let error = within(careful.put(file, "fixed")).await.unwrap_err();
        assert_eq!(error.code(), Code::Exists, "{error}");
    }
    assert_eq!(entries(&place.path("root/in")), ["fixed", "holder-1", "holder-2", "holder-3"]);
    assert!(!place.path("root/x").exists() && !place.path("up").exists());
    within(server.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_files_that_are_to_have_one_name_get_a_hundred_names() {
    const FILES: usize = 100;
    let place = Place::new();
    let template: config::template::NameTemplate = "got/{counter:3}{ext}".parse().unwrap();
    let server = place.builder().name_generator(move |file| template.make(file)).start().await.unwrap();
    let client = holder(&server).build();
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..FILES {
        // Every tenth of them is large.
        let bytes = [number.to_string().into_bytes(), vec![b'x'; if number % 10 == 0 { 2 * MIB } else { 0 }]]
            .concat();
        let (client, file) = (client.clone(), place.write(&format!("f{number}"), &bytes));
        puts.spawn(async move {
            let put = client.put(&file, "same.txt").await;
            (put.unwrap().name.unwrap(), bytes)
        });
    }
    let mut names = Vec::new();
    while let Some(put) = within(puts.join_next()).await {
        let (name, bytes) = put.unwrap();
        let name = name.as_text().unwrap().to_owned();
        assert!(fs::read(place.path("root").join(&name)).unwrap() == bytes, "{name}");
        names.push(name);
    }
    names.sort();
    let expected: Vec<_> = (1..=FILES).map(|number| format!("got/{number:03}.txt")).collect();
    assert_eq!(names, expected);
    within(server.shutdown()).await.unwrap();
    // Another server begins to count anew, and finds what is free.
    let template: config::template::NameTemplate = "got/{counter:3}{ext}".parse().unwrap();
    let server = place.builder().name_generator(move |file| template.make(file)).start().await.unwrap();
    let key = server.issue_key("later", Grant { rights: Rights::from_iter(Right::ALL), ..Grant::default() });
    let client = Client::to(&server.address().to_string()).unwrap().key(key.unwrap()).build();
    let put = within(client.put(place.path("f1"), "same.txt")).await.unwrap();
    assert_eq!(put.name.unwrap().as_bytes(), b"got/101.txt");
    within(server.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_from_the_beginning_to_the_end() {
    let place = Place::new();
    let server = place.builder().start().await.unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let client = holder(&server)
        .on_progress(move |now| {
            let line = (now.name.to_owned(), now.percent, now.transferred, now.total, now.eta);
            seen.lock().unwrap().push(line);
        })
        .build();
    let size = 5 * MIB as u64;
    let file = place.write("file", &noise(5 * MIB));
    within(client.put(&file, "a/file")).await.unwrap();
    within(client.get("a/file", place.path("back"))).await.unwrap();
    let told = told.lock().unwrap().clone();
    assert!(told.iter().all(|(name, percent, transferred, total, _)| {
        name == "a/file" && (0.0..=100.0).contains(percent) && transferred <= total && *total == size
    }));
    let ends = told.iter().filter(|line| line.2 == size && line.4 == Some(Duration::ZERO)).count();
    assert!(ends >= 2, "both come to their ends: {told:?}");
    assert!(told.windows(2).filter(|pair| pair[1].2 < pair[0].2).count() <= 1, "it goes on: {told:?}");
    within(server.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_given_up_by_its_token_and_by_dropping_it_and_gone_on_with() {
    let place = Place::new();
    let bytes = noise(8 * MIB);
    place.write("root/large", &bytes);
    let server = place.builder().start().await.unwrap();
    let (target, begun) = (place.path("back"), Arc::new(AtomicUsize::new(0)));
    let slow = |stopping: &CancellationToken| {
        let count = Arc::clone(&begun);
        let counted = move |now: &oneport::client::Progress<'_>| {
            count.fetch_max(usize::try_from(now.transferred).unwrap(), Ordering::SeqCst);
        };
        let address = server.address().to_string();
        let client = Client::to(&address).unwrap().limit_rate(Some(4 * MIB as u64)).links(1);
        client.stopped_by(stopping.clone()).on_progress(counted).build()
    };
    let has_begun = async || {
        while begun.load(Ordering::SeqCst) < 2 * MIB {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // Dropped in the middle.
    let client = slow(&CancellationToken::new());
    tokio::select! {
        _ = client.get("large", &target) => panic!("it was to be slow"),
        () = within(has_begun()) => {}
    }
    // Stopped in the middle; the one before may hold its part for a moment still.
    let stopping = CancellationToken::new();
    stopping.cancel();
    let error = within(slow(&stopping).get("large", &target)).await.unwrap_err();
    assert!(matches!(error, FetchError::Interrupted), "{error}");
    assert!(!target.exists(), "nothing has the name before it is whole");
    let fetched = async {
        loop {
            let client = Client::to(&server.address().to_string()).unwrap().build();
            match client.get("large", &target).await {
                Ok(fetched) => return fetched,
                Err(error) => assert_eq!(error.code(), Code::Exists, "only the part may be in use: {error}"),
            }
        }
    };
    let fetched = within(fetched).await;
    assert!(fetched.resumed >= MIB as u64, "what had come is kept: {}", fetched.resumed);
    assert!(fs::read(&target).unwrap() == bytes);
    within(server.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_nobody_takes_is_held_up_and_ends_when_it_is_dropped() {
    const FILES: usize = 5000;
    let place = Place::new();
    for number in 0..FILES {
        let name = format!("root/{}{number}", "a".repeat(200));
        fs::write(place.path(&name), b"").unwrap();
    }
    let server = place.builder().start().await.unwrap();
    let client = Client::to(&server.address().to_string()).unwrap().build();
    let mut listing = client.list("", Selection::default());
    let mut count = 0;
    while within(listing.next()).await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, FILES);
    let mut given_up = client.list("", Selection::default());
    within(given_up.next()).await.unwrap().unwrap();
    drop(given_up);
    // Its connection is gone, or the server would wait for it.
    assert!(within(server.shutdown()).await.unwrap().drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_demands_tls_and_keys_is_reached_by_its_pin() {
    let place = Place::new();
    place.write("root/x", b"hello");
    let server = place.builder().tls(config::TlsMode::Require).require_key(true).start().await.unwrap();
    let address = server.address().to_string();
    let key = server.issue_key("reader", Grant::reading()).unwrap();
    let pinned = Client::to(&address).unwrap().pin(server.pin().unwrap());
    let error = within(pinned.clone().build().get("x", place.path("x"))).await.unwrap_err();
    assert_eq!(error.code(), Code::NotAllowed, "{error}");
    within(pinned.key(key).build().get("x", place.path("x"))).await.unwrap();
    assert_eq!(fs::read(place.path("x")).unwrap(), b"hello");
    let other = Place::new().builder().start().await.unwrap();
    let wrong = Client::to(&address).unwrap().pin(other.pin().unwrap()).tls(TlsMode::Require).build();
    let error = within(wrong.get("x", place.path("y"))).await.unwrap_err();
    assert_eq!(error.code(), Code::Certificate, "{error}");
    within(server.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_slow_who_is_told_of_files_holds_up_no_transfer() {
    let place = Place::new();
    let (may_end, is_slow) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (end, calls) = (Arc::clone(&may_end), Arc::clone(&is_slow));
    let server = place
        .builder()
        .on_file_received(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            while !end.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        })
        .start()
        .await
        .unwrap();
    let client = holder(&server).build();
    let file = place.write("file", b"x");
    for number in 0..20 {
        within(client.put(&file, format!("f{number}"))).await.unwrap();
    }
    assert!(is_slow.load(Ordering::SeqCst) <= 1, "the first call has not ended");
    may_end.store(true, Ordering::SeqCst);
    within(server.shutdown()).await.unwrap();
    assert_eq!(is_slow.load(Ordering::SeqCst), 20, "all were told of, at the latest at the end");
}

/// Passes on what a client that listens hears.
struct Heard(mpsc::UnboundedSender<String>);

struct Deaf;

impl Observer for Deaf {
    fn observe(&self, _: &Event<'_>) {}
}

impl ReceivingObserver for Heard {
    fn observe(&self, event: &Listened<'_>) {
        let _ = match event {
            Listened::Listening { .. } => self.0.send("listening".to_owned()),
            Listened::Received(offered, received) => {
                let (name, from, path) = (&offered.name, &offered.from, received.path.display());
                self.0.send(format!("{name} from {from} at {path}"))
            }
            _ => Ok(()),
        };
    }

    fn begins(&self, _: &Offered) -> Box<dyn Observer> {
        Box::new(Deaf)
    }
}

#[tokio::test]
async fn a_client_that_listens_gets_what_another_one_pushes_in_the_same_process() {
    let place = Place::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let [namer, hook] = [Arc::clone(&asked), Arc::clone(&asked)];
    let builder = place.builder().name_generator(move |_| {
        namer.fetch_add(1, Ordering::Relaxed);
        b"another".to_vec()
    });
    let told_of = move |_: &Received| {
        hook.fetch_add(1, Ordering::Relaxed);
    };
    let server = builder.on_file_received(told_of).start().await.unwrap();
    let data = noise(2 * MIB + 5);
    let file = place.write("local/report", &data);
    let grant = Grant { rights: Rights::from_iter([Right::Push]), ..Grant::default() };
    let [ann, sender] = ["ann", "sender"].map(|name| {
        let key = server.issue_key(name, grant.clone()).unwrap();
        Client::to(&server.address().to_string()).unwrap().key(key).build()
    });
    let (tell, mut told) = mpsc::unbounded_channel();
    let listening = Listen {
        name: "ann".parse().unwrap(),
        directory: place.path("in"),
        existing: Existing::Rename,
        max_size: None,
        once: false,
    };
    let receiving: Arc<dyn ReceivingObserver> = Arc::new(Heard(tell));
    let listener = tokio::spawn(async move { ann.listen(listening, receiving).await });
    assert_eq!(within(told.recv()).await.unwrap(), "listening");
    let receiver = "ann".parse().unwrap();
    let sent = within(sender.push(&receiver, &file, "report")).await.unwrap();
    assert_eq!(sent.size, data.len() as u64);
    let at = place.path("in/report");
    assert_eq!(within(told.recv()).await.unwrap(), format!("report from sender at {}", at.display()));
    assert!(fs::read(at).unwrap() == data);
    assert!(entries(&place.path("root")).is_empty(), "the server keeps nothing of it");
    let nobody = within(sender.push(&"nobody".parse().unwrap(), &file, "report")).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
    listener.abort();
    within(server.shutdown()).await.unwrap();
    assert_eq!(asked.load(Ordering::Relaxed), 0, "the server neither names nor receives it");
}
