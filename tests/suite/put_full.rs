//! Disks, their inodes and quotas that are full: who stores is told and told why, who reads notices nothing, and once
//! there is room the same server goes on.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use oneport::codec::v2::Put;

use crate::harness::{Ended, Place, await_for};
use crate::putting::{Came, Putter};
use crate::raw::noise;
use crate::serving::{Server, Site, skipped, wait_for};
use crate::storing::{Holder, MIB, found, result};

const NO_SPACE: i32 = 9;
const LIMIT: i32 = 10;
const LIMIT_CODE: u16 = 10;

/// A server that serves a small disk of its own, in memory.
fn on_small_disk(site: &Site, test: &str, options: &str) -> Option<Server> {
    let mount = format!("mount -t tmpfs -o {options} none root");
    let tried = Command::new("unshare").args(["-rm", "sh", "-c", &mount]).current_dir(site.path()).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        skipped(test, "a disk cannot be mounted here (unshare -rm, mount)");
        return None;
    }
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    Some(
        site.launch(&[])
            .by_way_of(&["unshare", "-rm", "sh", "-c", &script])
            .try_serve()
            .unwrap_or_else(|_| panic!("the server does not listen")),
    )
}

/// A name in the served folder as the server sees it.
fn within(server: &Server, site: &Site, name: &str) -> PathBuf {
    let path = site.root(name);
    PathBuf::from(format!("/proc/{}/root", server.id())).join(path.strip_prefix("/").unwrap())
}

/// Takes all the room that there is.
fn fill_up(path: PathBuf) {
    let mut file = fs::File::create(path).unwrap();
    let mut size = MIB;
    while size > 0 {
        if file.write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
}

/// Reads a file over and over again through the server while something is done.
fn while_reading<T>(server: &Server, name: &str, data: &[u8], work: impl FnOnce() -> T) -> T {
    let (is_over, place) = (AtomicBool::new(false), Place::new());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !is_over.load(Ordering::Relaxed) {
                let ended = place.fetch(name, server.address, &["-o", "-"]).end().expect(0);
                assert!(ended.stdout == data, "somebody who reads was disturbed");
                reads += 1;
            }
            reads
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0, "nothing was read meanwhile");
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// It was refused with this status, and says why in words.
#[track_caller]
fn refused(ended: Ended, status: i32, why: &str) {
    let ended = ended.expect(status).says(why);
    let last = result(&ended);
    assert_eq!((&last["ok"], &last["exit_status"]), (&false.into(), &status.into()), "{last}");
}

#[test]
fn a_disk_that_fills_up_fails_an_upload_that_goes_on_once_there_is_room() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let Some(server) = on_small_disk(
        &site,
        "a_disk_that_fills_up_fails_an_upload_that_goes_on_once_there_is_room",
        "size=48m",
    ) else {
        return;
    };
    let (kept, data) = (noise(1, MIB), noise(2, 10 * MIB));
    fs::write(within(&server, &site, "kept"), &kept).unwrap();
    holder.place.write("large", &data);
    holder.place.write("huge", vec![1; 60 * MIB]);
    holder.place.write("small", b"small");
    let put = |name: &str, more: &[&str]| {
        holder.client(server.address, &[&["put", name, "--json", "--progress", "plain"], more].concat())
    };
    while_reading(&server, "kept", &kept, || {
        // What cannot fit is refused before a byte.
        refused(put("huge", &[]).end(), NO_SPACE, "space");
        let log = server.wait_log("Nothing was changed at 'huge'");
        assert!(!log.contains("Receiving file 'huge'") && log.contains("not enough space"), "{log}");
        let running = put("large", &["--limit-rate", "8MiB"]).start();
        await_for("a part of it", || running.stdout().contains("\"percent\":50").then_some(()));
        fill_up(within(&server, &site, "filler"));
        refused(running.end(), NO_SPACE, "space");
        assert!(!within(&server, &site, "large").exists());
        let log = server.wait_log("Upload of 'large'");
        assert!(
            log.lines().any(|line| line.contains("'large'") && line.to_lowercase().contains("space")),
            "{log}"
        );
        // It stays full, and whoever tries learns that at once.
        refused(put("small", &[]).end(), NO_SPACE, "space");
        refused(put("large", &[]).end(), NO_SPACE, "space");
        holder.client(server.address, &["rm", "filler"]).end().expect(0);
        let ended = put("large", &[]).end().expect(0);
        let resumed = result(&ended)["resumed"].as_u64().unwrap();
        assert!(resumed >= 3 * MIB as u64, "{resumed} bytes were kept");
        put("small", &[]).end().expect(0);
    });
    assert!(fs::read(within(&server, &site, "large")).unwrap() == data);
    let (files, hidden) = found(&within(&server, &site, ""));
    assert_eq!((files.len(), hidden.len()), (3, 0), "{:?} {hidden:?}", files.keys());
}

#[test]
fn a_disk_without_inodes_fails_uploads_that_go_on_once_there_are_some() {
    let site = Site::new();
    let holder = Holder::new(&site, &[]);
    let Some(server) = on_small_disk(
        &site,
        "a_disk_without_inodes_fails_uploads_that_go_on_once_there_are_some",
        "size=32m,nr_inodes=140",
    ) else {
        return;
    };
    let kept = noise(1, 100_000);
    fs::write(within(&server, &site, "kept"), &kept).unwrap();
    fs::create_dir(within(&server, &site, "old")).unwrap();
    for number in 0..80 {
        fs::write(within(&server, &site, &format!("old/{number}")), b"old").unwrap();
    }
    for number in 0..100 {
        holder.place.write(format!("d/{}/f{number}", number % 3), noise(number, 500));
    }
    holder.place.write("large", noise(3, 3 * MIB));
    let folder = || holder.client(server.address, &["put", "-r", "d", "--json"]).end();
    while_reading(&server, "kept", &kept, || {
        refused(folder(), NO_SPACE, "space");
        // Not one inode is left.
        for number in 0.. {
            if fs::write(within(&server, &site, &format!("old/more{number}")), b"").is_err() {
                break;
            }
        }
        refused(holder.client(server.address, &["put", "large", "--json"]).end(), NO_SPACE, "space");
        server.wait_log("space");
        for (name, bytes) in found(&within(&server, &site, "")).0 {
            let Some(own) = name.strip_prefix("d/") else { continue };
            assert!(holder.place.read(format!("d/{own}")) == bytes, "{name} is not whole");
        }
        holder.client(server.address, &["rm", "-r", "old"]).end().expect(0);
        let ended = folder().expect(0);
        assert_eq!(result(&ended)["failed"], 0);
        holder.client(server.address, &["put", "large", "--json"]).end().expect(0);
    });
    let (files, hidden) = found(&within(&server, &site, ""));
    assert_eq!((files.len(), hidden.len()), (102, 0), "{hidden:?}");
}

#[test]
fn of_many_uploads_at_once_exactly_those_are_stored_that_the_quota_has_room_for() {
    const UPLOADS: usize = 64;
    const FITTING: usize = 20;
    let site = Site::new();
    let (size, rest) = (MIB + 4321, 1000);
    let quota = (FITTING * size + rest).to_string();
    let holder = Holder::new(&site, &["--quota", &quota]);
    let server = site.serve(&[]);
    let stored_bytes = || -> u64 {
        let (files, _) = found(&site.root(""));
        files.values().map(|bytes| bytes.len() as u64).sum()
    };
    let (stored, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                assert!(stored_bytes() <= quota.parse().unwrap(), "more than the quota");
            }
        });
        let uploads: Vec<_> = (0..UPLOADS)
            .map(|number| {
                let (server, token, stored) = (&server, holder.token(), &stored);
                scope.spawn(move || {
                    let data = noise(number as u64, size);
                    loop {
                        let mut putter = Putter::new(server, token, &data);
                        let mut transfer = [1; 16];
                        transfer[0] = number as u8;
                        let put = Put { transfer, ..putter.put(&format!("f{number}"), 1) };
                        match putter.offer(1, put) {
                            Came::Ended(1, Some(_)) => {
                                stored.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                            Came::Failed(1, LIMIT_CODE, text) if text.contains("quota") => break,
                            Came::Failed(1, LIMIT_CODE, text) if text.contains("too many") => {}
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = uploads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    assert_eq!(stored.into_inner(), FITTING as u64);
    let (files, hidden) = found(&site.root(""));
    assert_eq!((files.len(), hidden.len()), (FITTING, 0), "{hidden:?}");
    assert_eq!(stored_bytes(), (FITTING * size) as u64);
    // What is left of it can still be used to the last byte, and what is removed comes back.
    holder.place.write("large", noise(99, size));
    holder.place.write("rest", noise(98, rest));
    let put = |name: &str| holder.client(server.address, &["put", name, "--json"]).end();
    refused(put("large"), LIMIT, "quota");
    put("rest").expect(0);
    server.wait_log("quota");
    let one = files.keys().next().unwrap();
    holder.client(server.address, &["rm", one]).end().expect(0);
    put("large").expect(0);
    wait_for("the quota", || (stored_bytes() == quota.parse::<u64>().unwrap()).then_some(()));
}
