//! What is on the disk when things go wrong: under the final name the old file, or nothing, or the
//! whole new one.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Place, await_for, bytes};
use crate::machine::skipped;
use crate::scripted::{Scripted, answer, until_gone};

/// Sends half of the file and then nothing.
fn half(data: &[u8]) -> Scripted {
    let data = data.to_vec();
    Scripted::version_1(move |mut stream, name, _| {
        let whole = answer(name, &data);
        let _ = stream.write_all(&whole[..whole.len() / 2]);
        until_gone(&stream);
    })
}

fn parts(place: &Place) -> usize {
    place.tree().iter().filter(|name| name.ends_with(".part")).count()
}

#[test]
fn ctrl_c_in_the_middle_leaves_no_rubbish_and_no_wrong_file() {
    let server = half(&bytes(1, 4 << 20));
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for there_before in [false, true] {
            let place = Place::new();
            if there_before {
                place.write("client_downloads/f", "old");
            }
            let running = place.fetch("f", server.address, &["--timeout", "60s"]).start();
            running.await_stderr("40%");
            assert_eq!(parts(&place), 1);
            running.signal(signal);
            running.end().expect(code);
            let left: &[&str] = if there_before { &["client_downloads/", "client_downloads/f"] } else { &[] };
            assert_eq!(place.tree(), left);
            if there_before {
                assert_eq!(place.read("client_downloads/f"), b"old");
            }
        }
    }
}

#[test]
fn a_client_killed_at_any_point_leaves_the_old_file_or_the_new_one() {
    let (old, new) = (bytes(1, 100_000), bytes(2, 6 << 20));
    let server = Scripted::serving(&new);
    let mut chance = fastrand::Rng::with_seed(7);
    let (mut kept, mut replaced) = (0, 0);
    for round in 0..40 {
        let place = Place::new();
        place.write("client_downloads/f", &old);
        let running = place.fetch("f", server.address, &[]).start();
        // Any point will do; a wait for an event would always hit the same ones.
        std::thread::sleep(Duration::from_micros(chance.u64(0..60_000)));
        running.signal(Signal::KILL);
        let ended = running.end();
        let there = place.read("client_downloads/f");
        match (there == old, there == new) {
            (true, _) => kept += 1,
            (_, true) => replaced += 1,
            _ => panic!("round {round}: {} bytes of neither stand there", there.len()),
        }
        assert!(ended.signal == Some(9) || ended.code == Some(0));
        // The next one is not held up by what is left, and leaves nothing of it.
        place.fetch("f", server.address, &["--no-sync"]).end().expect(0);
        assert!(place.read("client_downloads/f") == new);
        assert_eq!(place.tree(), ["client_downloads/", "client_downloads/f"]);
    }
    println!("kept {kept}, replaced {replaced}");
}

#[test]
fn what_a_killed_client_left_is_taken_over_even_if_it_was_longer() {
    let server = half(&bytes(1, 4 << 20));
    let place = Place::new();
    let running = place.fetch("f", server.address, &["--timeout", "60s"]).start();
    running.await_stderr("40%");
    running.signal(Signal::KILL);
    running.end();
    assert_eq!(parts(&place), 1, "{:?}", place.tree());
    place.fetch("f", Scripted::serving(b"short").address, &[]).end().expect(0);
    assert_eq!(place.read("client_downloads/f"), b"short");
    assert_eq!(parts(&place), 0);
}

#[test]
fn two_clients_never_mix_in_one_target() {
    let server = half(&bytes(1, 4 << 20));
    let place = Place::new();
    let first = place.fetch("f", server.address, &["--timeout", "60s"]).start();
    first.await_stderr("40%");
    let quick = Scripted::serving(b"second");
    place.fetch("f", quick.address, &[]).end().expect(13).says("another client is receiving");
    assert_eq!(parts(&place), 1, "the second one removed the first one's part");
    first.signal(Signal::INT);
    first.end().expect(130);
    place.fetch("f", quick.address, &[]).end().expect(0);
    assert_eq!(place.read("client_downloads/f"), b"second");
}

#[test]
fn clients_of_one_second_have_logs_of_their_own() {
    let server = Scripted::serving(b"data");
    let place = Place::new();
    let names = ["a", "b", "c", "d", "e"];
    let running = names.map(|name| place.fetch(name, server.address, &[]).start());
    for client in running {
        client.end().expect(0);
    }
    let logs = place.logs();
    assert_eq!(logs.len(), names.len());
    for name in names {
        assert_eq!(logs.iter().filter(|log| log.contains(&format!("File '{name}' received"))).count(), 1);
    }
}

#[test]
fn nothing_in_the_way_of_the_part_is_followed_or_destroyed() {
    let server = Scripted::serving(b"data");
    let place = Place::new();
    place.write("victim", "precious");
    place.fetch("f", server.address, &[]).end().expect(0);
    // Its name is learned from a client that is in the middle.
    let slow = half(&bytes(1, 4 << 20));
    let running = place.fetch("f", slow.address, &["--timeout", "60s"]).start();
    running.await_stderr("40%");
    let part = place.path(place.tree().into_iter().find(|name| name.ends_with(".part")).unwrap());
    running.signal(Signal::INT);
    running.end().expect(130);
    for link in [fs::hard_link, |from, to| std::os::unix::fs::symlink(from, to)] {
        link(place.path("victim"), part.clone()).unwrap();
        place.fetch("f", server.address, &[]).end().expect(11).says("in the way");
        fs::remove_file(&part).unwrap();
    }
    assert_eq!(place.read("victim"), b"precious");
}

/// A client on a small disk of its own: 1 MiB of tmpfs at `small`.
fn on_small_disk(place: &Place, test: &str) -> Option<Vec<std::ffi::OsString>> {
    fs::create_dir(place.path("small")).unwrap();
    let mount = "mount -t tmpfs -o size=1m none small";
    let allowed = Command::new("unshare")
        .args(["-rm", "sh", "-c", mount])
        .current_dir(place.path(""))
        .output()
        .is_ok_and(|output| output.status.success());
    if !allowed {
        skipped(test, "a disk cannot be mounted here (unshare -rm, mount)");
        return None;
    }
    let script = format!("{mount} && \"$@\"; code=$?; ls -A small >small.ls; exit $code");
    let words = ["unshare", "-rm", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_client")];
    Some(words.map(Into::into).to_vec())
}

#[test]
fn a_disk_too_small_is_known_before_the_data() {
    let place = Place::new();
    let Some(program) = on_small_disk(&place, "a_disk_too_small_is_known_before_the_data") else { return };
    let program: Vec<&OsStr> = program.iter().map(AsRef::as_ref).collect();
    // No byte of data comes: the client must know without.
    let server = Scripted::version_1(|mut stream, name, _| {
        let whole = answer(name, &bytes(1, 4 << 20));
        let _ = stream.write_all(&whole[..100]);
        until_gone(&stream);
    });
    let port = server.address.port().to_string();
    let arguments = ["f", "127.0.0.1", &port, "-d", "small", "--timeout", "60s"];
    place.program(&program, &arguments).end().expect(9).says("space");
    assert_eq!(place.read("small.ls"), b"", "something was left on the disk");
    assert_eq!(server.requests().len(), 1, "a full disk is not tried again");
    let small = Scripted::serving(b"data");
    let port = small.address.port().to_string();
    place.program(&program, &["f", "127.0.0.1", &port, "-d", "small"]).end().expect(0);
    assert_eq!(place.read("small.ls"), b"f\n");
}

#[test]
fn a_working_folder_that_cannot_be_written_only_costs_the_log() {
    let test = "a_working_folder_that_cannot_be_written_only_costs_the_log";
    let place = Place::new();
    let server = Scripted::serving(b"data");
    let elsewhere = tempfile::tempdir().unwrap();
    let script = "mount --bind . . && mount -o remount,bind,ro . && cd \"$PWD\" && exec \"$@\"";
    let words = ["unshare", "-rm", "sh", "-c", script, "sh"];
    let allowed = Command::new(words[0])
        .args(&words[1..])
        .args(["sh", "-c", "! touch probe"])
        .current_dir(place.path(""))
        .output()
        .is_ok_and(|output| output.status.success());
    if !allowed {
        return skipped(test, "a folder cannot be made read-only here (unshare -rm, mount)");
    }
    let program: Vec<&OsStr> =
        words.iter().copied().chain([env!("CARGO_BIN_EXE_client")]).map(OsStr::new).collect();
    let port = server.address.port().to_string();
    let output = elsewhere.path().join("f");
    let arguments = ["f", "127.0.0.1", &port, "-o", output.to_str().unwrap()];
    let ended = place.program(&program, &arguments).end().expect(0);
    let warnings: Vec<_> = ended.stderr.lines().filter(|line| line.contains("log")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(fs::read(&output).unwrap(), b"data");
    // The file itself cannot be saved there.
    place.program(&program, &["f", "127.0.0.1", &port]).end().expect(11).says("client_downloads");
}

#[test]
fn folders_made_for_a_file_that_does_not_come_go_again_and_others_stay() {
    let place = Place::new();
    fs::create_dir(place.path("there")).unwrap();
    fs::set_permissions(place.path("there"), fs::Permissions::from_mode(0o700)).unwrap();
    let server = Scripted::version_1(|mut stream, name, _| {
        let whole = answer(name, b"data");
        let _ = stream.write_all(&whole[..whole.len() - 1]);
    });
    place.fetch("f", server.address, &["-o", "there/new/deep/f"]).end().expect(6);
    assert_eq!(place.tree(), ["there/"]);
    let refusing = Scripted::version_1(|mut stream, _, _| drop(stream.write_all(b"ERRORno")));
    place.fetch("f", refusing.address, &[]).end().expect(4);
    assert_eq!(place.tree(), ["there/"], "a folder was made for a file that was refused");
}

#[test]
fn a_full_device_is_a_failure_and_says_so() {
    if !std::path::Path::new("/dev/full").exists() {
        return skipped("a_full_device_is_a_failure_and_says_so", "there is no /dev/full");
    }
    let server = Scripted::serving(b"data");
    let place = Place::new();
    place.fetch("f", server.address, &["-o", "/dev/full"]).end().expect(9);
    // Nobody reads what goes to the standard output: not a crash.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    place.fetch("f", server.address, &["-o", "-"]).stdout_to(writer).end().expect(11).says("standard output");
    await_for("nothing left", || place.tree().is_empty().then_some(()));
}
