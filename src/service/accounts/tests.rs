use super::*;
use crate::catalog::Forgetful;
use crate::limits::PROGRESS_MIN;
use crate::service::{Access, Observer};
use crate::storage::local::LocalDisk;

const NUMBER: [u8; TRANSFER_LEN] = [7; TRANSFER_LEN];

/// Writes down what it hears.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Observer for Notes {
    fn observe(&self, event: &Event<'_>) {
        let note = match *event {
            // It comes right before the start.
            Event::Requested { .. } => return,
            Event::Started { peer, size, have, .. } => format!("started {peer} {have}/{size}"),
            Event::Progress { percent, done, size, .. } => format!("{percent}% {done}/{size}"),
            Event::Finished { size, have, digest, .. } => {
                format!("finished {have}/{size} {}", digest.map(|d| d.algorithm()).unwrap_or("without"))
            }
            Event::Cut { done, size, have, cause, .. } => format!("cut {done}/{size} ({have}): {cause}"),
            _ => String::from("something else"),
        };
        lock(&self.0).push(note);
    }
}

impl Notes {
    fn all(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.0))
    }
}

fn service() -> (Service, Notes) {
    let (dir, notes) = (tempfile::tempdir().unwrap(), Notes::default());
    let disk = LocalDisk::new(dir.path(), &[]).unwrap();
    (Service::new(disk, Forgetful, notes.clone(), Access::open()), notes)
}

fn permit(peer: &str) -> Permit {
    Permit::unchecked(peer, "f")
}

#[test]
fn requests_of_one_transfer_share_an_account_over_connections() {
    let (service, notes) = service();
    let one = service.account(&permit("10.0.0.1:1"), NUMBER, 10, 0);
    let two = service.account(&permit("10.0.0.1:2"), NUMBER, 10, 0);
    assert!(Arc::ptr_eq(&one, &two));
    one.advance(4);
    drop(one);
    two.advance(6);
    two.proven(Root::of(b"x"));
    drop(two);
    assert_eq!(notes.all(), ["started 10.0.0.1:1 0/10", "100% 10/10", "finished 0/10 BLAKE3"]);
    assert_eq!(service.inner.accounts.len(), 0, "an ended transfer leaves nothing behind");
}

#[test]
fn what_differs_in_peer_number_name_or_size_is_another_transfer() {
    let (service, _) = service();
    let one = service.account(&permit("10.0.0.1:1"), NUMBER, 10, 0);
    for other in [
        service.account(&permit("10.0.0.2:1"), NUMBER, 10, 0),
        service.account(&permit("10.0.0.1:1"), [8; TRANSFER_LEN], 10, 0),
        service.account(&Permit::unchecked("10.0.0.1:1", "g"), NUMBER, 10, 0),
        service.account(&permit("10.0.0.1:1"), NUMBER, 11, 0),
    ] {
        assert!(!Arc::ptr_eq(&one, &other));
    }
    let zero = [
        service.account(&permit("10.0.0.1:1"), NO_TRANSFER, 10, 0),
        service.account(&permit("10.0.0.1:1"), NO_TRANSFER, 10, 0),
    ];
    assert!(!Arc::ptr_eq(&zero[0], &zero[1]), "the number zero stands for no number");
}

#[test]
fn progress_is_exact_and_never_beyond_the_size_though_blocks_are_sent_again() {
    let (service, notes) = service();
    let account = service.account(&permit("10.0.0.1:1"), NO_TRANSFER, PROGRESS_MIN, 0);
    for _ in 0..3 {
        account.advance(PROGRESS_MIN / 2);
    }
    account.advance(u64::MAX);
    drop(account);
    let notes = notes.all();
    let expected: Vec<String> = (1..=10)
        .map(|step| {
            let percent = step * 10;
            format!("{percent}% {}/{PROGRESS_MIN}", (PROGRESS_MIN * percent).div_ceil(100))
        })
        .collect();
    assert_eq!(notes[1..11], expected);
    assert_eq!(notes[11..], [format!("finished 0/{PROGRESS_MIN} without")]);
}

#[test]
fn a_resumed_transfer_tells_only_the_steps_that_are_left() {
    let (service, notes) = service();
    let have = PROGRESS_MIN / 100 * 85;
    let account = service.account(&permit("10.0.0.1:1"), NO_TRANSFER, PROGRESS_MIN, have);
    assert_eq!(notes.all(), [format!("started 10.0.0.1:1 {have}/{PROGRESS_MIN}")]);
    account.advance(PROGRESS_MIN - have);
    drop(account);
    let percents: Vec<String> =
        notes.all().iter().map(|note| note.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(percents, ["90%", "100%", "finished"]);
}

#[test]
fn what_is_let_go_before_its_end_is_cut_for_the_first_cause_said() {
    let (service, notes) = service();
    let account = service.account(&permit("10.0.0.1:1"), NUMBER, 10, 2);
    account.advance(3);
    drop(account);
    assert_eq!(notes.all()[1..], ["cut 5/10 (2): the connection ended"]);
    let account = service.account(&permit("10.0.0.1:1"), NUMBER, 10, 5);
    account.cut("cancelled");
    account.cut("another");
    drop(account);
    assert_eq!(notes.all(), ["started 10.0.0.1:1 5/10", "cut 5/10 (5): cancelled"]);
}

#[test]
fn a_cause_does_not_cut_what_is_whole_and_an_empty_file_has_its_step() {
    let (service, notes) = service();
    let account = service.account(&permit("10.0.0.1:1"), NUMBER, 10, 0);
    account.advance(10);
    account.cut("too late");
    drop(account);
    assert_eq!(notes.all()[1..], ["100% 10/10", "finished 0/10 without"]);
    drop(service.account(&permit("10.0.0.1:1"), NUMBER, 0, 0));
    assert_eq!(notes.all()[1..], ["100% 0/0", "finished 0/0 without"]);
    drop(service.account(&permit("10.0.0.1:1"), NUMBER, 10, 99));
    assert_eq!(notes.all(), ["started 10.0.0.1:1 10/10", "finished 10/10 without"]);
}

#[test]
fn accounts_of_many_threads_add_up() {
    let (service, notes) = service();
    let size = 1000 * 8;
    std::thread::scope(|scope| {
        let keep = service.account(&permit("10.0.0.1:1"), NUMBER, size, 0);
        for port in 0..8 {
            let service = &service;
            scope.spawn(move || {
                let account = service.account(&permit(&format!("10.0.0.1:{port}")), NUMBER, size, 0);
                (0..1000).for_each(|_| account.advance(1));
            });
        }
        while lock(&keep.state).sent < size {
            std::thread::yield_now();
        }
    });
    assert_eq!(notes.all()[1..], ["100% 8000/8000", "finished 0/8000 without"]);
}
