//! What is told as done survives a power cut: the calls that a process makes are looked at from outside.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::*;

/// Set in the process that is looked at.
const WATCHED: &str = "ONEPORT_TEST_WATCHED";
/// What no other file is called: to look for it tells that something is done.
const DONE: &str = "told-as-done";

/// Tells whoever looks that something was told as done.
fn done() {
    assert!(fs::metadata(format!("/{DONE}")).is_err());
}

fn change_everything() {
    let site = Site::new();
    done();
    site.make_folder("x/y/z").unwrap();
    done();
    site.rename("top", "p/q/top", false).unwrap();
    done();
    site.rename("a/b", "x/b", false).unwrap();
    done();
    site.remove("x/b/deep", false).unwrap();
    done();
    site.remove("p", true).unwrap();
    done();
    // Somebody else has made the folders, and has not come to anything yet.
    let waiting = site.place("n/m/waiting").unwrap();
    begin(site.place("n/m/f").unwrap(), b"bytes")
        .unwrap()
        .commit_with(Replace::Never, &attributes(0o600))
        .unwrap();
    done();
    drop(waiting);
    // Somebody has left a part in a new folder, and another one goes on there.
    drop(begin(site.place("l/left").unwrap(), b"bytes").unwrap());
    StagedFile::create_at(site.place("l/f").unwrap(), 0).unwrap().commit(Replace::Never, true).unwrap();
    done();
}

/// The folder that a descriptor in the text of a call means: `7</folder>`.
fn folders(arguments: &str) -> Vec<String> {
    let marked = arguments.split('<').skip(1).filter_map(|rest| rest.split('>').next());
    marked.map(str::to_owned).collect()
}

#[test]
fn every_change_is_on_the_disk_before_it_is_told_as_done() {
    if std::env::var_os(WATCHED).is_some() {
        return change_everything();
    }
    let log = tempfile::NamedTempFile::new().unwrap();
    let name =
        "storage::local::change::tests::flushes::every_change_is_on_the_disk_before_it_is_told_as_done";
    let calls = "trace=fsync,mkdirat,renameat,renameat2,unlinkat,?statx,?newfstatat,?stat";
    let run = Command::new("strace")
        .args(["-f", "-y", "-qq", "-s", "200", "-e", calls, "-o"])
        .arg(log.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads", "1"])
        .env(WATCHED, "1")
        .output();
    let text = fs::read_to_string(log.path()).unwrap();
    // Where strace is missing, or not allowed to trace, this is looked at by nobody.
    let Ok(run) = run else { return };
    if !run.status.success() && text.is_empty() {
        return;
    }
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let (mut dirty, mut told, mut seen) = (BTreeSet::new(), 0, BTreeSet::new());
    for line in text.lines() {
        if line.contains(DONE) {
            assert!(dirty.is_empty() || told == 0, "{told}: {dirty:?} were not flushed");
            (dirty, told) = (BTreeSet::new(), told + 1);
        }
        let Some((call, arguments)) = line.split_once('(').filter(|_| line.ends_with("= 0")) else {
            continue;
        };
        let call = call.rsplit(' ').next().unwrap_or_default();
        seen.insert(call.to_owned());
        match call {
            "fsync" => dirty.retain(|folder| !folders(arguments).contains(folder)),
            // What was removed with all that is in it needs no flush of its own.
            "unlinkat" if arguments.contains("AT_REMOVEDIR") => {
                let name = arguments.split('"').nth(1).unwrap_or_default();
                let above = folders(arguments).remove(0);
                let gone = Path::new(&above).join(name);
                dirty.retain(|folder: &String| !Path::new(folder).starts_with(&gone));
                dirty.insert(above);
            }
            "mkdirat" | "renameat" | "renameat2" | "unlinkat" => dirty.extend(folders(arguments)),
            _ => {}
        }
    }
    assert_eq!(told, 8, "{text}");
    assert!(seen.contains("fsync") && seen.contains("mkdirat"), "{seen:?}");
}
