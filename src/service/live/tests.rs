use super::*;
use crate::control::Direction;
use crate::limits::{CANCELLED_REMEMBERED, CANCELLED_REMEMBERED_MAX};
use crate::names::FileName;
use crate::service::access::Caller;
use crate::service::history::Dialect;

fn caller(peer: &str) -> Caller {
    Caller::new(peer.parse().unwrap(), false)
}

fn what(peer: &str, name: &str, transfer: u8) -> What {
    What {
        caller: caller(peer),
        dialect: Dialect::V2,
        direction: Direction::Download,
        name: FileName::parse(name.as_bytes()).unwrap(),
        size: 10,
        have: 2,
        transfer: [transfer; 16],
    }
}

fn asked<'a>(caller: &'a Caller, name: &'a FileName, transfer: u8) -> Asked<'a> {
    Asked { caller, direction: Direction::Download, name, transfer: [transfer; 16] }
}

#[test]
fn a_transfer_is_found_by_its_id_as_long_as_it_runs() {
    let live = Live::new();
    let moving = live.begin(what("10.0.0.1:1", "a", 1));
    let other = live.begin(what("10.0.0.1:1", "a", 1));
    let id = moving.id().to_owned();
    assert!(id != other.id() && id.len() <= crate::limits::TRANSFER_ID_MAX && id.is_ascii());
    assert_eq!(live.find(&id).unwrap().id(), id);
    for wrong in ["", "-", "1", &id[1..], &format!("{id}0"), "zzzz-1"] {
        assert!(live.find(wrong).is_none(), "{wrong}");
    }
    moving.advance(7);
    assert_eq!((moving.tell().done, moving.tell().moved), (9, 7));
    assert!(live.find(&id).is_some());
    moving.advance(1);
    assert!(live.find(&id).is_none(), "all of it was moved");
    drop((moving, other));
    assert_eq!(lock(&live.moving).len(), 0, "what is over leaves nothing behind");
}

#[test]
fn all_are_seen_however_many_there_are() {
    let live = Live::new();
    let count = 3 * CONTROL_PAGE + 1;
    let all: Vec<_> = (0..count).map(|_| live.begin(what("10.0.0.1:1", "a", 0))).collect();
    assert_eq!(live.all_moving().count(), count);
    assert_eq!(live.moving(0).len(), CONTROL_PAGE);
    let peers: Vec<_> = (0..5).map(|_| live.enter("10.0.0.1:1".parse().unwrap())).collect();
    assert_eq!((live.connections(), live.present(0).len()), (5, 5));
    drop((all, peers));
    assert_eq!((live.all_moving().count(), live.connections()), (0, 0));
}

#[test]
fn whoever_was_told_gets_no_more_of_that_transfer_and_whoever_was_not_is_told_once() {
    let live = Live::new();
    let (peer, name) = (caller("10.0.0.1:7"), FileName::parse(b"a").unwrap());
    let other = FileName::parse(b"b").unwrap();
    let moving = live.begin(what("10.0.0.1:1", "a", 1));
    assert!(live.strike(&moving, "ann") && !live.strike(&moving, "bob"));
    assert_eq!(moving.cancelled_by(), Some("ann"));
    assert!(!live.is_struck(&asked(&caller("10.0.0.2:1"), &name, 1)), "another client");
    assert!(!live.is_struck(&asked(&peer, &other, 1)), "another file");
    assert!((0..3).all(|_| live.is_struck(&asked(&peer, &name, 1))), "the same transfer, again and again");
    assert!(live.is_struck(&asked(&peer, &name, 2)), "it was not told, and comes again");
    assert!(!live.is_struck(&asked(&peer, &name, 2)), "it was told");
    let moving = live.begin(what("10.0.0.1:1", "a", 3));
    live.strike(&moving, "ann");
    live.has_heard(&moving);
    assert!(live.is_struck(&asked(&peer, &name, 3)));
    assert!(!live.is_struck(&asked(&peer, &name, 4)), "whoever has heard of it may begin anew");
}

#[test]
fn what_was_cancelled_is_forgotten_in_the_end() {
    let live = Live::new();
    let (peer, name) = (caller("10.0.0.1:7"), FileName::parse(b"a").unwrap());
    live.strike(&live.begin(what("10.0.0.1:1", "a", 1)), "ann");
    let later = Instant::now() + CANCELLED_REMEMBERED;
    assert!(!live.struck.is_struck(&asked(&peer, &name, 1), later));
    for _ in 0..2 * CANCELLED_REMEMBERED_MAX {
        live.strike(&live.begin(what("10.0.0.1:1", "b", 1)), "ann");
    }
    assert!(!live.is_struck(&asked(&peer, &name, 1)), "the oldest one makes room");
}
