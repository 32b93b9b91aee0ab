//! Folders that somebody swaps for links to the outside as fast as possible.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;
use crate::listing::Selection;

/// How often each change is tried, at least.
const ROUNDS: usize = 600;
/// Time in which a change has to win the race once, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says that it is over, also where a test fails.
pub(super) struct AtEnd<'a>(pub(super) &'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something again and again while a folder and a link to the outside take turns at being `a`, and another
/// pair deeper; the outside must stay as it was. `change` says whether it could be done, which has to be so now and
/// then.
fn race(site: &Site, mut change: impl FnMut(usize) -> bool) {
    let before = site.all("outside");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let outside = site.dir.path().join("outside");
            while !is_over.load(Ordering::Relaxed) {
                for (at, away, target) in
                    [("a", "a-away", outside.clone()), ("a/b", "a/b-away", outside.join("b"))]
                {
                    // Any of them may fail, because the others change the same names.
                    let link = PathBuf::from(if at == "a" { "../outside" } else { "../../outside/b" });
                    let _ = fs::rename(site.path(at), site.path(away));
                    let _ = symlink(if fastrand::bool() { target } else { link }, site.path(at));
                    std::thread::yield_now();
                    let _ = fs::remove_file(site.path(at));
                    let _ = fs::rename(site.path(away), site.path(at));
                }
            }
        });
        let _over = AtEnd(&is_over);
        let (began, mut has_won) = (Instant::now(), false);
        for round in 0.. {
            has_won |= change(round);
            if round >= ROUNDS && has_won {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "the race was never won");
        }
    });
    assert_eq!(site.all("outside"), before);
}

#[test]
fn nothing_is_staged_or_committed_outside_while_folders_are_swapped() {
    let site = Site::new();
    race(&site, |round| {
        let at = ["a/f", "a/b/f", "a/b/c/f"][round % 3];
        let Ok(place) = site.place(at) else { return false };
        let Ok(part) = begin(place, b"bytes") else { return false };
        part.commit_with(Replace::Always, &attributes(0o600)).is_ok()
    });
}

#[test]
fn nothing_is_removed_outside_while_folders_are_swapped() {
    let site = Site::new();
    race(&site, |round| {
        let _ = site.make_folder("a/b/c/d");
        if let Ok(place) = site.place("a/b/c/f") {
            let _ = StagedFile::create_at(place, 0).and_then(|staged| staged.commit(Replace::Always, false));
        }
        let at = ["a", "a/b", "a/b/c", "a/b/f", "a/canary"][round % 5];
        site.remove(at, true).is_ok()
    });
}

#[test]
fn nothing_is_moved_in_or_out_while_folders_are_swapped() {
    let site = Site::new();
    race(&site, |round| {
        let _ = fs::write(site.path("here"), "here");
        let _ = site.make_folder("a/b/c");
        let (from, to) =
            [("here", "a/f"), ("a/canary", "got"), ("here", "a/b/c/f"), ("a/b/f", "got")][round % 4];
        let has_moved = site.rename(from, to, true).is_ok();
        assert!(!site.path("got").exists() || fs::read(site.path("got")).unwrap() != b"canary");
        has_moved
    });
}

#[test]
fn nothing_outside_is_listed_while_folders_are_swapped() {
    let site = Site::new();
    let selection = Selection { recursive: true, ..Selection::default() };
    race(&site, |_| {
        let Ok(stretch) = site.disk.list(Some(&name("a")), &selection, b"") else { return false };
        for entry in stretch.entries {
            assert!(!entry.name.ends_with(b"canary") && !entry.name.ends_with(b"f"), "{:?}", entry.name);
        }
        true
    });
}

#[test]
fn a_sweep_goes_nowhere_else_while_folders_are_swapped() {
    let site = Site::new();
    let part = site.dir.path().join("outside/b/.oneport-0123456789abcdef.part");
    fs::write(&part, "somebody else's").unwrap();
    race(&site, |_| site.disk.sweep(Duration::ZERO, &|_| false).is_ok());
    assert!(part.exists());
}
