//! What is swept, and what never is.

use super::*;
use crate::storage::Swept;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn hidden(site: &Site, folder: &str) -> Vec<String> {
    let names = fs::read_dir(site.path(folder)).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with(".oneport-")).collect()
}

fn sweep(site: &Site, older_than: Duration) -> Swept {
    site.disk.sweep(older_than, &|_| false).unwrap()
}

#[test]
fn what_was_given_up_is_swept_once_it_is_old_and_nothing_else() {
    let site = Site::new();
    let before = site.all("root");
    for at in ["a/b/left", "left"] {
        drop(begin(site.place(at).unwrap(), b"bytes").unwrap());
    }
    assert_eq!((hidden(&site, "a/b").len(), hidden(&site, "").len()), (2, 2), "a part and its journal");
    fs::write(site.path("a/.oneport-0123456789abcdef.journal"), "of a part that is gone").unwrap();
    fs::write(site.path("a/.oneport-0123456789abcdef.journal-new"), "and its next one").unwrap();
    assert_eq!(sweep(&site, HOUR), Swept::default(), "all of it is young");
    let owned = site.disk.sweep(Duration::ZERO, &|_| true).unwrap();
    assert_eq!(owned, Swept::default(), "somebody knows all of it");
    let swept = sweep(&site, Duration::ZERO);
    assert_eq!(swept.files, 6);
    assert!(swept.bytes > 0);
    assert_eq!(site.all("root"), before);
    assert_eq!(sweep(&site, Duration::ZERO), Swept::default());
}

#[test]
fn what_is_being_received_is_never_swept() {
    let site = Site::new();
    let part = begin(site.place("a/b/coming").unwrap(), b"bytes").unwrap();
    assert_eq!(sweep(&site, Duration::ZERO), Swept::default());
    assert_eq!(hidden(&site, "a/b").len(), 2);
    part.commit(Replace::Never).unwrap();
    assert_eq!(fs::read(site.path("a/b/coming")).unwrap(), b"bytes");
}

#[test]
fn no_receiver_that_begins_during_a_sweep_loses_bytes() {
    let site = Site::new();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                sweep(&site, Duration::ZERO);
            }
        });
        let _over = races::AtEnd(&is_over);
        for round in 0..400 {
            match begin(site.place("a/b/f").unwrap(), b"bytes") {
                // It is left for the sweep now and then.
                Ok(part) if round % 2 == 0 => part.commit(Replace::Always).unwrap(),
                Ok(part) => drop(part),
                // The sweep has the lock for a moment.
                Err(error) => assert!(matches!(error, StageError::Busy(_)), "{error}"),
            }
        }
    });
    assert_eq!(fs::read(site.path("a/b/f")).unwrap(), b"bytes");
}

#[test]
fn links_the_servers_own_folders_and_what_is_not_of_this_user_are_not_swept() {
    let site = Site::new();
    let name = ".oneport-0123456789abcdef.part";
    for folder in ["own/state", ".oneport"] {
        fs::write(site.path(folder).join(name), "x").unwrap();
    }
    fs::write(site.path("precious"), "precious").unwrap();
    site.link("../precious", &format!("a/{name}"));
    fs::hard_link(site.path("precious"), site.path(&format!("a/b/{name}"))).unwrap();
    fs::create_dir(site.path(name)).unwrap();
    site.link("../outside", "out");
    fs::write(site.dir.path().join("outside").join(name), "x").unwrap();
    let (root, outside) = (site.all("root"), site.all("outside"));
    assert_eq!(sweep(&site, Duration::ZERO), Swept::default());
    assert_eq!((site.all("root"), site.all("outside")), (root, outside));
}
