//! The server's identity changes while it serves, and what a SIGHUP means besides. And it is made whole or
//! not at all, wherever whoever makes it is killed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use oneport::pin::Pin;
use oneport::tls::Identity;

use crate::raw::{self, Answer, noise, request};
use crate::serving::{Server, Signal, Site, skipped, wait_for};
use crate::tls_raw;

/// Swaps under load.
const SWAPS: usize = 20;
/// More than the sockets of both ends hold.
const SIZE: usize = 32 << 20;

/// Puts a new identity into two files.
fn put_identity(folder: &Path) -> Pin {
    let (identity, certificate, key) = Identity::make().unwrap();
    fs::write(folder.join("cert.pem"), certificate).unwrap();
    fs::write(folder.join("key.pem"), key).unwrap();
    fs::set_permissions(folder.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    identity.pin()
}

fn pin_now(server: &Server) -> Pin {
    tls_raw::pin(&tls_raw::shaken(server.connect()).unwrap())
}

const GIVEN: [&str; 4] = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];

/// Says that something is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn on_sighup_new_connections_get_the_new_identity_and_open_ones_go_on() {
    let site = Site::new();
    let data = noise(80, SIZE);
    site.file("file", &data);
    site.file("a", b"a");
    let first = put_identity(site.path());
    let server = site.serve(&GIVEN);
    assert_eq!(pin_now(&server), first);
    // One that is in the middle of a transfer all the time.
    let mut open = tls_raw::shaken(raw::connect_narrow(server.address)).unwrap();
    open.write_all(&request(b"file")).unwrap();
    let mut bytes = vec![0; 1000];
    open.read_exact(&mut bytes).unwrap();
    let (is_over, fetched) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // However this ends, the others end too.
        let _over = Over(&is_over);
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut stream = tls_raw::shaken(server.connect()).unwrap();
                    stream.write_all(&request(b"a")).unwrap();
                    let mut bytes = Vec::new();
                    stream.read_to_end(&mut bytes).unwrap();
                    assert!(matches!(raw::parse(bytes), Answer::Whole(_)));
                    fetched.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for swap in 1..=SWAPS {
            let pin = put_identity(site.path());
            server.signal(Signal::HUP);
            server.wait_log_count("certificate and key were read again", swap);
            assert_eq!(pin_now(&server), pin);
            // The commands of this machine know it by then.
            let words = ["status", "--state", "state"];
            assert_eq!(site.launch_bare(&words).run().code, Some(0));
        }
    });
    println!("{} fetches during {SWAPS} swaps", fetched.load(Ordering::Relaxed));
    open.read_to_end(&mut bytes).unwrap();
    assert!(matches!(raw::parse(bytes), Answer::Whole(file) if file.data == data));
}

#[test]
fn a_broken_file_keeps_the_old_identity_and_the_log_says_so() {
    let site = Site::new();
    let pin = put_identity(site.path());
    let server = site.serve(&GIVEN);
    let key = site.path().join("key.pem");
    let good = fs::read(&key).unwrap();
    let breakages: [&dyn Fn(); 3] =
        [&|| fs::write(&key, b"half a k").unwrap(), &|| fs::remove_file(&key).unwrap(), &|| {
            fs::write(&key, &good).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o604)).unwrap();
        }];
    for (at, breakage) in breakages.iter().enumerate() {
        breakage();
        server.signal(Signal::HUP);
        server.wait_log_count("certificate and key stay as they were: ", at + 1);
        assert_eq!(pin_now(&server), pin);
    }
    let log = server.log();
    assert!(log.contains("key.pem") && !log.contains("half a k"), "{log}");
}

#[test]
fn a_server_without_tls_goes_on_after_sighup_too() {
    let site = Site::new();
    site.file("a", b"a");
    let server = site.serve(&["--tls", "off"]);
    server.signal(Signal::HUP);
    server.wait_log("nothing to read again");
    assert_eq!(raw::fetch_whole(server.address, "a"), b"a");
}

/// Runs a server on a terminal of its own, and says how it ended once that is hung up.
const ON_A_TERMINAL: &str = "
import os, pty, signal, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], sys.argv[1:])
signal.alarm(60)
print(child, flush=True)
sys.stdin.readline()
os.kill(child, 1)
sys.stdin.readline()
os.close(terminal)
print(os.waitpid(child, 0)[1], flush=True)
";

#[test]
fn sighup_stops_the_server_when_its_terminal_hangs_up_and_not_before() {
    let site = Site::new();
    let arguments = ["0", "root", "--state", "state", "--log-dir", "logs"];
    let wrapper = Command::new("python3")
        .args(["-c", ON_A_TERMINAL, env!("CARGO_BIN_EXE_server")])
        .args(arguments)
        .current_dir(site.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut wrapper) = wrapper else {
        return skipped("a server whose terminal hangs up", "no python3");
    };
    let mut said = BufReader::new(wrapper.stdout.take().unwrap()).lines();
    let _server: u32 = said.next().unwrap().unwrap().parse().unwrap();
    let log = || {
        let files = fs::read_dir(site.path().join("logs")).into_iter().flatten();
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect::<String>()
    };
    wait_for("a server that listens", || log().contains("listening on").then_some(()));
    let mut orders = wrapper.stdin.take().unwrap();
    orders.write_all(b"signal\n").unwrap();
    wait_for("a reload", || log().contains("certificate and key were read again").then_some(()));
    orders.write_all(b"hang up\n").unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "0", "it ended in the ordinary way");
    assert!(log().contains("Stopping: SIGHUP, the terminal is gone"), "{}", log());
    assert!(wrapper.wait().unwrap().success());
}

#[test]
fn a_server_that_was_started_with_sighup_ignored_ignores_it() {
    let site = Site::new();
    let server = site.launch(&[]).by_way_of(&["nohup"]).serve();
    server.signal(Signal::HUP);
    assert!(tls_raw::shaken(server.connect()).is_ok());
    server.signal(Signal::TERM);
    let log = server.wait_log("Summary: ");
    assert!(!log.contains("SIGHUP"), "{log}");
}

#[test]
fn killed_anywhere_while_the_identity_is_made_a_server_leaves_none_or_a_whole_one() {
    let site = Site::new();
    // With -D the tracer stands aside, and the process is the server.
    const STRACE: [&str; 6] = ["strace", "-D", "-f", "-qq", "-o", "/dev/null"];
    let mut probe = site.launch_bare(&["--version"]).by_way_of(&STRACE).start();
    if probe.wait_exit() != Some(0) {
        return skipped("kills while an identity is made", "no strace, or it is not allowed");
    }
    let (state, mut kills) = (site.path().join("state"), 0);
    for call in ["pwrite64", "fsync", "renameat2"] {
        for count in 1.. {
            let _ = fs::remove_dir_all(&state);
            let inject = format!("inject={call}:signal=KILL:when={count}");
            let trace = format!("trace={call}");
            let words = [&STRACE[..], &["-e", &trace, "-e", &inject]].concat();
            let mut server = site.launch(&[]).by_way_of(&words).start();
            let listens = wait_for("a start or an end", || {
                if server.stdout().contains("listening") {
                    return Some(true);
                }
                server.has_ended().then_some(false)
            });
            if listens {
                break;
            }
            kills += 1;
            let key = fs::read(state.join("tls.key")).ok();
            if let Some(key) = &key {
                Identity::from_pem(&fs::read(state.join("tls.crt")).unwrap_or_default(), key)
                    .map(|_| ())
                    .or_else(|error| {
                        // The certificate is made after the key, and can be made again.
                        if state.join("tls.crt").exists() { Err(error) } else { Ok(()) }
                    })
                    .unwrap_or_else(|error| panic!("after {call} {count}: {error}"));
            }
            let again = site.serve(&[]);
            pin_now(&again);
            assert!(key.is_none_or(|key| fs::read(state.join("tls.key")).unwrap() == key), "{call} {count}");
            let left = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name());
            assert!(left.into_iter().all(|name| !name.to_string_lossy().ends_with(".new")), "{call} {count}");
        }
    }
    println!("killed {kills} times");
    assert!(kills >= 6, "only {kills} kills");
}
