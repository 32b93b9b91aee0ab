//! Listings with both ends joined in memory: a folder of numbered files, a few to a stretch.

use bytes::Bytes;

use super::*;
use crate::codec::v2::{Entries, List};
use crate::limits::V2_STRETCHES_MAX;
use crate::listing::{Entry, Kind, Stretch};

/// Files in the folder, and in each stretch.
const FILES: u32 = 20;
const AT_ONCE: u32 = 3;
/// Bytes of a stretch: cursor, and entries with names of two digits.
const STRETCH: u64 = 2 + 4 + AT_ONCE as u64 * 30;

fn entry(name: impl Into<Bytes>) -> Entry {
    Entry { kind: Kind::File, sparse: false, size: 1, modified: (0, 0), mode: 0o644, name: name.into() }
}

/// The stretch of the folder that begins at a cursor.
pub(super) fn stretch(list: &List) -> Stretch {
    let first = list.cursor.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let end = (first + AT_ONCE).min(FILES);
    let entries = (first..end).map(|index| entry(format!("{index:02}"))).collect();
    Stretch { entries, cursor: Bytes::copy_from_slice(&end.to_be_bytes()), is_last: end == FILES }
}

impl Pair {
    fn list(&mut self, list: List) -> RequestId {
        let frame = self.client.list(list);
        self.send(frame).unwrap();
        self.client.last()
    }

    fn names(&self, request: RequestId) -> Vec<String> {
        let entries = self.heard.iter().filter_map(|heard| match heard {
            Heard::Entries(of, entries) if *of == request => Some(&entries.entries),
            _ => None,
        });
        entries.flatten().map(|entry| String::from_utf8(entry.name.to_vec()).unwrap()).collect()
    }
}

fn all() -> Vec<String> {
    (0..FILES).map(|index| format!("{index:02}")).collect()
}

#[test]
fn a_folder_arrives_in_stretches_and_ends() {
    let mut pair = Pair::new(0, true, 1 << 20);
    let request = pair.list(List::default());
    pair.run().unwrap();
    assert_eq!(pair.names(request), all());
    assert!(pair.ended(request) && pair.server.is_idle() && pair.client.in_flight() == 0);
    let cursor = Bytes::copy_from_slice(&7_u32.to_be_bytes());
    let request = pair.list(List { cursor, ..List::default() });
    pair.run().unwrap();
    assert_eq!(pair.names(request), all()[7..], "from a cursor on");
}

#[test]
fn a_window_is_overshot_by_one_stretch_at_most() {
    let mut pair = Pair::new(0, true, 1);
    let request = pair.list(List::default());
    let mut stretches = 1;
    while !pair.ended(request) {
        pair.run().unwrap();
        assert_eq!(pair.names(request).len(), all().len().min(stretches * AT_ONCE as usize));
        pair.now += Duration::from_secs(60);
        assert_eq!(pair.server.deadline(), None, "it is the window that holds it up");
        // What was overshot is still missing: only then one byte more is room for a stretch.
        pair.send(ClientFrame::Window(request, STRETCH - 1)).unwrap();
        pair.run().unwrap();
        assert_eq!(pair.names(request).len(), all().len().min(stretches * AT_ONCE as usize));
        pair.send(ClientFrame::Window(request, 1)).unwrap();
        stretches += 1;
        assert!(stretches < 20);
    }
    assert_eq!(pair.names(request), all());
}

#[test]
fn a_window_that_grows_while_a_stretch_is_being_made_loses_nothing() {
    let mut pair = Pair::new(0, true, 1 << 20);
    let request = pair.list(List::default());
    while !pair.ended(request) {
        pair.send(ClientFrame::Window(request, 1)).unwrap();
        while pair.transmit() {}
        pair.receive().unwrap();
        assert!(pair.answer() || pair.ended(request), "it hangs");
    }
    assert_eq!(pair.names(request), all());
}

#[test]
fn a_cancelled_listing_ends_whether_a_stretch_is_under_way_or_not() {
    // One connection for all: what a cancelled listing held must not be missing in the end.
    let mut pair = Pair::new(0, true, 1 << 20);
    for steps in (0..6).chain(0..6) {
        let request = pair.list(List::default());
        for step in 0..steps {
            if step % 2 == 0 {
                pair.answer();
            } else {
                pair.transmit();
            }
        }
        let cancel = pair.client.cancel(request).unwrap();
        pair.send(cancel).unwrap();
        pair.run().unwrap();
        assert_eq!(pair.failed(request).map(Code::exit_status), Some(Code::Other.exit_status()));
        assert!(pair.server.is_idle());
        let again = pair.list(List::default());
        pair.run().unwrap();
        assert_eq!(pair.names(again), all(), "its place is free again");
    }
}

#[test]
fn few_stretches_are_held_at_once_and_every_listing_gets_its_turn() {
    let mut pair = Pair::new(0, true, 1 << 20);
    let requests: Vec<_> = (0..9).map(|_| pair.list(List::default())).collect();
    let mut asked = 0;
    while let Some(ask) = pair.server.ask() {
        assert!(matches!(ask, Ask::List(..)));
        pair.asks.push_back(ask);
        asked += 1;
    }
    assert_eq!(asked, V2_STRETCHES_MAX);
    pair.now += V2_WAIT_INTERVAL;
    assert!(pair.server.deadline().is_some(), "those that wait are told so");
    pair.run().unwrap();
    assert!(requests.iter().all(|request| pair.ended(*request) && pair.names(*request) == all()));
    let firsts = pair.heard.iter().filter_map(|heard| match heard {
        Heard::Entries(request, _) => Some(*request),
        _ => None,
    });
    let mut firsts: Vec<_> = firsts.take(9).collect();
    firsts.dedup();
    assert_eq!(firsts.len(), 9, "in turns");
}

#[test]
fn a_listing_that_breaks_the_rules_is_found_out() {
    let asks = |list: List, frames: Vec<ServerFrame>| {
        let mut client = Requester::new();
        let _ = client.list(list);
        client.handle(ServerFrame::Welcome(Welcome::default())).unwrap();
        frames.into_iter().try_for_each(|frame| client.handle(frame).map(drop))
    };
    let hears = |frames| asks(List::default(), frames);
    let frame = |entries: Vec<Entry>| {
        let cursor = Bytes::from(format!("{entries:?}"));
        ServerFrame::Entries(1, Entries { cursor, entries })
    };
    let named = |name: &'static [u8]| frame(vec![entry(name)]);
    assert!(hears(vec![named(b"a/b\xff"), frame(vec![]), ServerFrame::End(1, None)]).is_ok());
    for name in [&b"/a"[..], b"..", b"a/../b", b"a//b", b"./a", b"a\0", b".oneport", b"x/.oneport-1.part"] {
        assert!(hears(vec![named(name)]).is_err(), "{}", crate::text::shown(name));
    }
    assert!(hears(vec![named(b""), ServerFrame::End(1, None)]).is_ok(), "a file");
    assert!(hears(vec![named(b""), named(b"a")]).is_err(), "a file with others");
    assert!(hears(vec![named(b"a"), named(b"")]).is_err(), "a file behind others");
    let itself = || frame(vec![Entry { kind: Kind::Folder, ..entry("") }]);
    assert!(hears(vec![itself()]).is_err(), "nobody asked for the folder itself");
    let with_itself = || List { itself: true, ..List::default() };
    assert!(asks(with_itself(), vec![itself(), named(b"a"), ServerFrame::End(1, None)]).is_ok());
    assert!(asks(with_itself(), vec![itself(), itself()]).is_err(), "twice");
    assert!(asks(with_itself(), vec![named(b"a"), itself()]).is_err(), "not first");
    assert!(hears(vec![ServerFrame::End(1, Some(Root::of(b"")))]).is_err(), "a root");
    assert!(hears(vec![ServerFrame::Data { request: 1, offset: 0, len: 1 }]).is_err(), "data");
    assert!(hears(vec![named(b"a"), named(b"b"), named(b"b")]).is_err(), "the same place again");
    assert!(hears(vec![ServerFrame::Entries(1, Entries::default())]).is_err(), "the beginning again");
    let other = ServerFrame::Entries(2, Entries::default());
    assert!(hears(vec![other]).is_err(), "another request");
    let mut client = Requester::new();
    let _ = client.stat(Stat { root: false, name: "x".into() });
    client.handle(ServerFrame::Welcome(Welcome::default())).unwrap();
    assert!(client.handle(named(b"a")).is_err(), "entries for a STAT");
}

#[test]
fn a_cancelled_listing_may_not_go_on_for_ever() {
    let mut client = Requester::new();
    let _ = client.list(List::default());
    client.handle(ServerFrame::Welcome(Welcome::default())).unwrap();
    client.cancel(1).unwrap();
    let many = Entries { cursor: Bytes::from_static(b"c"), entries: vec![entry(vec![b'x'; 200]); 200] };
    let frames = V2_WINDOW / many.body_len() + 2;
    let mut hear = || client.handle(ServerFrame::Entries(1, many.clone()));
    assert!((0..frames - 2).all(|_| matches!(hear(), Ok(Heard::Nothing))));
    assert!((0..4).any(|_| hear().is_err()));
}
