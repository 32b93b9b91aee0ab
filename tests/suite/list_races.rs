//! Listings that race with whoever swaps folders for links that lead out: nothing outside is ever listed.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use oneport::codec::v2::{ClientFrame, List, ServerFrame};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::harness::Place;
use crate::serving::Site;
use crate::storing::count;
use crate::v2_peer::Asker;

/// What lies outside begins so, and nothing inside does.
const OUTSIDE: &str = "secret";
/// Listings of a round.
const LISTINGS: u32 = 150;

#[test]
fn a_listing_that_races_with_links_that_lead_out_never_tells_what_is_outside() {
    let (site, place) = (Site::new(), Place::new());
    let outside = site.path().join("outside");
    for folder in ["", "secret-deep/secret-er"] {
        fs::create_dir_all(outside.join(folder)).unwrap();
        (0..5)
            .for_each(|number| fs::write(outside.join(folder).join(format!("secret{number}")), "").unwrap());
    }
    for folder in ["a/x", "a/b/x", "x"] {
        site.file(format!("{folder}/in/file"), b"inside");
        symlink(&outside, site.root(format!("{folder}-link"))).unwrap();
    }
    let server = site.serve(&[]);
    let (is_over, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for folder in ["a/x", "a/b/x", "x"] {
                    let (one, other) = (site.root(folder), site.root(format!("{folder}-link")));
                    renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                    swaps.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let over = scopeguard(&is_over);
        let mut told = 0;
        for _ in 0..count(4) {
            let mut asker = Asker::new(&server, "window=4000000");
            for request in 1..=LISTINGS {
                told += listed(&mut asker, request, request % 2 == 0);
            }
            for options in [&["-r"][..], &["-rL"]] {
                let address = server.address.to_string();
                let words = [&["ls", "-s", &address], options].concat();
                let ended = place.client(&words).end();
                // What vanishes while it is listed may be told, and is no failure.
                assert!(matches!(ended.code, Some(0 | 23)), "{:?} {}", ended.code, ended.stderr);
                assert!(!ended.stdout().contains(OUTSIDE), "{}", ended.stdout());
            }
        }
        drop(over);
        assert!(told > 0, "nothing was listed");
        println!("{told} entries while {} swaps were made", swaps.load(Ordering::Relaxed));
    });
}

/// Lists all that is served once; how many entries there were.
fn listed(asker: &mut Asker, request: u32, follow_links: bool) -> usize {
    let list = List { recursive: true, follow_links, name: Bytes::new(), ..List::default() };
    asker.send(&[ClientFrame::List(request, list)]);
    let mut count = 0;
    loop {
        match asker.hear().expect("the connection ended").frame {
            ServerFrame::Entries(_, entries) => {
                for entry in &entries.entries {
                    let name = String::from_utf8_lossy(&entry.name).into_owned();
                    assert!(!name.contains(OUTSIDE), "{name}");
                }
                count += entries.entries.len();
            }
            ServerFrame::End(..) | ServerFrame::Error(..) => return count,
            _ => {}
        }
    }
}

/// Ends the other thread, also where a test fails.
fn scopeguard(is_over: &AtomicBool) -> impl Drop + '_ {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    Over(is_over)
}
