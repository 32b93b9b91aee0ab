//! What the file means, how it is added to, and what is refused.

use std::fs;

use super::*;

fn pin(seed: u8) -> Pin {
    Pin::of(&[seed])
}

fn server(text: &str) -> Server {
    text.parse().unwrap()
}

fn place() -> (tempfile::TempDir, KnownHosts) {
    let folder = tempfile::tempdir().unwrap();
    let known = KnownHosts::at(folder.path().join("a/b/known_hosts"));
    (folder, known)
}

#[test]
fn what_is_added_is_found_however_the_host_is_spelt() {
    let (_folder, known) = place();
    assert_eq!(known.find(&server("nas:80")).unwrap(), None);
    for (seed, text) in [(1, "NAS:80"), (2, "nas:81"), (3, "[::1]:80"), (4, "10.0.0.1:80")] {
        assert_eq!(known.add(&server(text), Mark::Key(pin(seed))).unwrap(), Added::Now);
    }
    for (seed, text) in [
        (1, "nas:80"),
        (1, "nas.:80"),
        (2, "Nas:81"),
        (3, "[0:0::1]:80"),
        (4, "10.0.0.1:80"),
        (4, "[::ffff:10.0.0.1]:80"),
    ] {
        let entry = known.find(&server(text)).unwrap().unwrap();
        assert_eq!(entry.pins, [pin(seed)], "{text}");
        assert!(entry.place.starts_with(&format!("line {seed} of ")), "{}", entry.place);
    }
    assert_eq!(known.find(&server("nas:82")).unwrap(), None);
    let mode = fs::metadata(&known.0).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_entry_is_never_changed_and_everything_else_is_kept() {
    let (_folder, known) = place();
    let before = format!("# mine\n\nnas:1 {} # in the cellar", pin(1));
    fs::create_dir_all(known.0.parent().unwrap()).unwrap();
    fs::write(&known.0, &before).unwrap();
    let Added::Before(entry) = known.add(&server("nas:1"), Mark::Key(pin(2))).unwrap() else { panic!() };
    assert_eq!(entry.pins, [pin(1)]);
    assert_eq!(fs::read_to_string(&known.0).unwrap(), before);
    assert_eq!(known.add(&server("nas:2"), Mark::Key(pin(2))).unwrap(), Added::Now);
    assert_eq!(fs::read_to_string(&known.0).unwrap(), format!("{before}\nnas:2 {}\n", pin(2)));
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(known.0.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn two_lines_are_two_keys_that_are_right() {
    let (_folder, known) = place();
    fs::create_dir_all(known.0.parent().unwrap()).unwrap();
    fs::write(&known.0, format!("nas:1 {}\nother {}\nnas:1 {}\n", pin(1), pin(3), pin(2))).unwrap();
    assert_eq!(known.find(&server("nas:1")).unwrap().unwrap().pins, [pin(1), pin(2)]);
}

#[test]
fn a_line_that_is_not_understood_is_told_whoever_is_looked_for() {
    let (_folder, known) = place();
    fs::create_dir_all(known.0.parent().unwrap()).unwrap();
    let good = format!("nas:1 {}\n", pin(1));
    for wrong in ["nas:1", "nas:1 sha256:short", "nas:x sha256:A", "a b c", "nas:1 sha1:x", "\u{fffd}"] {
        fs::write(&known.0, format!("{good}{wrong}\n")).unwrap();
        let error = known.find(&server("nas:1")).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{wrong}: {error}");
        assert_eq!(error.code(), Code::Certificate);
        assert!(known.add(&server("nas:2"), Mark::Key(pin(2))).is_err());
        assert_eq!(fs::read_to_string(&known.0).unwrap(), format!("{good}{wrong}\n"));
    }
    fs::write(&known.0, [good.as_bytes(), b"\xff\n"].concat()).unwrap();
    assert!(known.find(&server("nas:1")).unwrap_err().to_string().contains("line 2"));
    fs::write(&known.0, "#".repeat(usize::try_from(KNOWN_HOSTS_MAX).unwrap() + 1)).unwrap();
    assert!(matches!(known.find(&server("nas:1")), Err(KnownHostsError::TooLong { .. })));
    fs::remove_file(&known.0).unwrap();
    fs::create_dir(&known.0).unwrap();
    assert!(matches!(known.find(&server("nas:1")), Err(KnownHostsError::Io { .. })));
}

#[test]
fn many_who_add_at_once_lose_nothing() {
    let (_folder, known) = place();
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let known = &known;
            scope.spawn(move || {
                for round in 0..2 {
                    let server = server(&format!("host{seed}-{round}:1"));
                    assert_eq!(known.add(&server, Mark::Key(pin(seed))).unwrap(), Added::Now);
                }
            });
        }
    });
    for seed in 0..6 {
        for round in 0..2 {
            let entry = known.find(&server(&format!("host{seed}-{round}:1"))).unwrap();
            assert_eq!(entry.unwrap().pins, [pin(seed)]);
        }
    }
    assert_eq!(fs::read_dir(known.0.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_link_stays_a_link() {
    let (folder, known) = place();
    fs::create_dir_all(known.0.parent().unwrap()).unwrap();
    let real = folder.path().join("real");
    fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, &known.0).unwrap();
    assert_eq!(known.add(&server("nas:1"), Mark::Key(pin(1))).unwrap(), Added::Now);
    assert!(known.0.is_symlink() && !real.is_symlink());
    assert!(known.find(&server("nas:1")).unwrap().is_some());
}

#[test]
fn who_was_vouched_for_is_known_without_a_key() {
    let (_folder, known) = place();
    assert_eq!(known.add(&server("nas:1"), Mark::Authority).unwrap(), Added::Now);
    let entry = known.find(&server("nas:1")).unwrap().unwrap();
    assert!(entry.pins.is_empty() && entry.place.starts_with("line 1 of "), "{entry:?}");
    assert!(matches!(known.add(&server("nas:1"), Mark::Key(pin(1))).unwrap(), Added::Before(_)));
}
