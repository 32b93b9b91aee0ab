//! Both ends joined in memory: no sockets, no sleeps, time passed in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::codec::WireError;
use crate::codec::v2::{
    ByteRange, ClientFrame, DATA_MAX, DATA_SHARED_MAX, ErrorCode, File, Get, RequestId, ServerFrame, Stat,
    Welcome,
};
use crate::error::Code;
use crate::limits::{
    V2_OPEN_MAX, V2_OPENING_MAX, V2_REQUESTS_MAX, V2_WAIT_INTERVAL, V2_WAITING_BYTES, V2_WINDOW,
};
use crate::tree::{BLOCK_LEN, BlockHash, ProofError, Root, Tree, Value, block_count, block_span};

#[path = "tests/listing.rs"]
mod listing;
#[path = "tests/many.rs"]
mod many;
#[path = "tests/ranks.rs"]
mod ranks;

const TOKEN: [u8; 16] = [7; 16];

fn content(size: u64) -> Bytes {
    (0..size).map(|at| u8::try_from((at / 3) % 251).unwrap()).collect()
}

fn slice(bytes: &[u8], span: std::ops::Range<u64>) -> &[u8] {
    &bytes[usize::try_from(span.start).unwrap()..usize::try_from(span.end).unwrap()]
}

fn tree_of(bytes: &[u8]) -> Arc<Tree> {
    let size = bytes.len() as u64;
    let hash = |index| BlockHash::of(size, index, slice(bytes, block_span(size, index)));
    let tree = match hash(0) {
        BlockHash::Sole(root) => Tree::sole(root),
        BlockHash::Among(_) => {
            let values = (0..block_count(size)).map(|index| Value::from_bytes(*hash(index).as_bytes()));
            Tree::over(values.collect()).unwrap()
        }
    };
    Arc::new(tree)
}

/// Two ends, the wires between them, and a server's disk that holds one file for every name.
struct Pair {
    now: Instant,
    bytes: Bytes,
    tree: Arc<Tree>,
    /// Whether the server knows the root when the file is opened.
    is_warm: bool,
    client: Requester,
    server: Responder,
    to_client: BytesMut,
    /// Asks that the outside has not done yet.
    asks: VecDeque<Ask>,
    heard: Vec<Heard>,
    blocks: BTreeMap<(RequestId, u64), BytesMut>,
    damaged: Vec<u64>,
}

impl Pair {
    fn new(size: u64, is_warm: bool, window: u64) -> Self {
        let bytes = content(size);
        Self {
            now: Instant::now(),
            tree: tree_of(&bytes),
            bytes,
            is_warm: is_warm || block_count(size) == 1,
            client: Requester::new(),
            server: Responder::new(window),
            to_client: BytesMut::new(),
            asks: VecDeque::new(),
            heard: Vec::new(),
            blocks: BTreeMap::new(),
            damaged: Vec::new(),
        }
    }

    fn send(&mut self, frame: ClientFrame) -> Result<(), WireError> {
        let mut wire = BytesMut::new();
        frame.encode(&mut wire).unwrap();
        let frame = ClientFrame::decode(&mut wire).unwrap().unwrap();
        self.server.handle(frame, self.now)
    }

    fn get(&mut self, get: Get) -> RequestId {
        let frame = self.client.get(Get { name: "x".into(), ..get });
        self.send(frame).unwrap();
        self.client.last()
    }

    fn file(&self) -> File {
        File { size: self.bytes.len() as u64, modified: (0, 0), mode: 0o644, token: TOKEN, root: None }
    }

    /// Does one thing that the server asked for; `false` if there is none.
    fn answer(&mut self) -> bool {
        while let Some(ask) = self.server.ask() {
            self.asks.push_back(ask);
        }
        let Some(ask) = self.asks.pop_front() else { return false };
        match ask {
            Ask::Open { request, .. } => {
                let tree = self.is_warm.then(|| Arc::clone(&self.tree));
                self.server.opened(request, Opened { file: self.file(), tree }, self.now);
            }
            Ask::Root(request) => self.server.rooted(request, Arc::clone(&self.tree), self.now),
            Ask::Value(request, block) => {
                let value = self.tree.values()[usize::try_from(block).unwrap()];
                self.server.valued(request, block, value);
            }
            Ask::List(request, list) => self.server.listed(request, listing::stretch(&list), self.now),
            Ask::Forget(_) => {}
        }
        true
    }

    /// Lets the server send one frame; `false` if it has none.
    fn transmit(&mut self) -> bool {
        match self.server.next(self.now) {
            None => return false,
            Some(Output::Frames(frames)) => self.to_client.extend_from_slice(&frames),
            Some(Output::Data { head, offset, len, .. }) => {
                self.to_client.extend_from_slice(&head);
                self.to_client.extend_from_slice(slice(&self.bytes, offset..offset + len));
            }
        }
        true
    }

    /// Lets the client take what has arrived.
    fn receive(&mut self) -> Result<(), WireError> {
        while let Some(heard) = self.client.hear(&mut self.to_client)? {
            if let Heard::Data(Data { request, len, block, ends_block, .. }) = heard {
                let data = self.to_client.split_to(usize::try_from(len).unwrap());
                let Some(block) = block else { continue };
                self.blocks.entry((request, block)).or_default().extend_from_slice(&data);
                if ends_block {
                    let whole = &self.blocks[&(request, block)];
                    let hash = BlockHash::of(self.bytes.len() as u64, block, whole);
                    match self.client.check(request, hash) {
                        Err(ProofError::Block(index)) => self.damaged.push(index),
                        checked => checked?,
                    }
                }
            } else {
                self.heard.push(heard);
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), WireError> {
        loop {
            let moved = self.transmit() | self.answer();
            self.receive()?;
            if !moved {
                return Ok(());
            }
        }
    }

    fn received(&self, request: RequestId) -> Vec<u8> {
        self.blocks.range((request, 0)..=(request, u64::MAX)).flat_map(|(_, data)| data.to_vec()).collect()
    }

    fn ended(&self, request: RequestId) -> bool {
        self.heard.iter().any(|heard| matches!(heard, Heard::End { request: ended, .. } if *ended == request))
    }

    fn failed(&self, request: RequestId) -> Option<Code> {
        self.heard.iter().find_map(|heard| match heard {
            Heard::Failed(failed, code, _) if *failed == request => Some(code.kind()),
            _ => None,
        })
    }
}

const SIZES: [u64; 7] =
    [0, 1, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1, 3 * BLOCK_LEN + 1, 5 * BLOCK_LEN + 17];

#[test]
fn a_whole_file_arrives_whether_its_root_is_known_or_not() {
    for size in SIZES {
        for is_warm in [true, false] {
            let mut pair = Pair::new(size, is_warm, u64::MAX / 4);
            let request = pair.get(Get::default());
            pair.run().unwrap();
            assert_eq!(pair.received(request), pair.bytes, "{size}");
            assert!(pair.ended(request), "{size}");
            let root = pair.heard.iter().find_map(|heard| match heard {
                Heard::End { root, .. } => *root,
                _ => None,
            });
            assert_eq!(root, Some(pair.tree.root()), "a whole file ends with its root");
            assert!(pair.server.is_idle() && pair.client.in_flight() == 0);
        }
    }
}

#[test]
fn only_the_wanted_blocks_are_sent_and_each_is_proven() {
    let size = 5 * BLOCK_LEN + 17;
    let mut pair = Pair::new(size, true, u64::MAX / 4);
    let ranges =
        vec![ByteRange { offset: BLOCK_LEN + 5, len: 1 }, ByteRange { offset: 5 * BLOCK_LEN + 3, len: 99 }];
    let request = pair.get(Get { ranges, ..Get::default() });
    pair.run().unwrap();
    assert!(pair.ended(request));
    let blocks: Vec<_> = pair.blocks.keys().map(|(_, block)| *block).collect();
    assert_eq!(blocks, [1, 5]);
    assert_eq!(pair.blocks[&(request, 1)], slice(&pair.bytes, block_span(size, 1)));
}

#[test]
fn values_alone_tell_what_every_block_has_to_be() {
    for size in SIZES {
        let mut pair = Pair::new(size, false, 0);
        let request = pair.get(Get { values_only: true, ..Get::default() });
        pair.run().unwrap();
        let Some(Heard::End { values, .. }) = pair.heard.last() else { panic!("{:?}", pair.heard) };
        let hash =
            |block| *BlockHash::of(size, block, slice(&pair.bytes, block_span(size, block))).as_bytes();
        let all: Vec<_> = (0..block_count(size)).map(|block| (block, hash(block))).collect();
        // An empty file was proven when it was described: there is nothing to compare.
        assert_eq!(*values, if size == 0 { vec![] } else { all }, "{size}");
        assert!(pair.blocks.is_empty() && pair.ended(request));
    }
}

#[test]
fn a_flipped_bit_costs_one_block_and_the_rest_goes_on() {
    for is_warm in [true, false] {
        let mut pair = Pair::new(4 * BLOCK_LEN, is_warm, u64::MAX / 4);
        let mut damaged = BytesMut::from(&pair.bytes[..]);
        damaged[usize::try_from(2 * BLOCK_LEN + 77).unwrap()] ^= 1;
        pair.bytes = damaged.freeze();
        let request = pair.get(Get::default());
        pair.run().unwrap();
        assert_eq!(pair.damaged, [2]);
        assert!(pair.ended(request), "the others arrive all the same");
    }
}

#[test]
fn no_more_than_the_window_is_under_way() {
    let mut pair = Pair::new(3 * BLOCK_LEN, true, 1000);
    let request = pair.get(Get::default());
    let mut granted = 1000;
    while !pair.ended(request) {
        pair.run().unwrap();
        let received = pair.received(request).len() as u64;
        assert_eq!(received, granted.min(3 * BLOCK_LEN));
        granted += 300_000;
        pair.send(ClientFrame::Window(request, 300_000)).unwrap();
    }
    assert_eq!(pair.received(request), pair.bytes);
}

#[test]
fn a_small_request_does_not_wait_for_a_large_one() {
    let mut pair = Pair::new(5 * BLOCK_LEN, true, u64::MAX / 4);
    let large = pair.get(Get::default());
    while pair.answer() {}
    // The welcome, FILE and values, and a frame of a whole block: nobody else waits.
    for _ in 0..3 {
        assert!(pair.transmit());
    }
    assert!(pair.to_client.len() as u64 > BLOCK_LEN);
    let small = pair.get(Get { ranges: vec![ByteRange { offset: 0, len: 1 }], ..Get::default() });
    while pair.answer() {}
    // FILE, then four frames of each in turn, then END; the large one has more than four left.
    let mut turns = 0;
    while !pair.ended(small) {
        let before = pair.to_client.len();
        assert!(pair.transmit());
        assert!((pair.to_client.len() - before) as u64 <= DATA_SHARED_MAX + 1000, "it would have to wait");
        pair.receive().unwrap();
        turns += 1;
    }
    assert!(turns <= 12, "{turns}");
    assert!(!pair.ended(large));
}

#[test]
fn requests_of_one_transfer_are_served_one_after_the_other() {
    let mut pair = Pair::new(5 * BLOCK_LEN, true, u64::MAX / 4);
    let ranges = |index| vec![ByteRange { offset: index * BLOCK_LEN, len: BLOCK_LEN }];
    let of = |index| Get { transfer: [9; 16], ranges: ranges(index), ..Get::default() };
    let requests = [pair.get(of(3)), pair.get(of(0)), pair.get(of(2))];
    let other = pair.get(Get { ranges: ranges(1), ..Get::default() });
    let mut unfinished = Vec::new();
    while !requests.iter().all(|request| pair.ended(*request)) {
        assert!(pair.transmit() | pair.answer());
        pair.receive().unwrap();
        let begun = |request: &RequestId| !pair.received(*request).is_empty() && !pair.ended(*request);
        unfinished.push(requests.iter().filter(|request| begun(request)).count());
        if pair.ended(requests[0]) && !pair.ended(requests[1]) {
            assert!(!pair.received(other).is_empty(), "others do not wait");
        }
    }
    assert_eq!(unfinished.iter().max(), Some(&1));
    assert!(pair.client.cancel(requests[2]).is_none());
}

#[test]
fn a_cancelled_request_ends_at_once_and_what_was_under_way_is_passed_over() {
    let mut pair = Pair::new(5 * BLOCK_LEN, true, u64::MAX / 4);
    let request = pair.get(Get::default());
    while pair.answer() {}
    for _ in 0..6 {
        pair.transmit();
    }
    let cancel = pair.client.cancel(request).unwrap();
    pair.send(cancel.clone()).unwrap();
    pair.run().unwrap();
    assert_eq!(pair.heard.last(), Some(&Heard::Failed(request, ErrorCode::CANCELLED, "cancelled".into())));
    assert!(pair.blocks.is_empty() && pair.server.is_idle());
    pair.send(cancel).unwrap();
    assert!(!pair.transmit(), "cancelled twice is ignored");
}

#[test]
fn a_cancelled_request_may_not_go_on_for_longer_than_its_window() {
    let mut client = Requester::new();
    client.handle(ServerFrame::Welcome(Welcome::default())).unwrap();
    client.get(Get { name: "x".into(), ..Get::default() });
    let request = client.last();
    client.cancel(request).unwrap();
    let data = || ServerFrame::Data { request, offset: 0, len: DATA_MAX };
    for _ in 0..V2_WINDOW / DATA_MAX {
        assert!(matches!(client.handle(data()), Ok(Heard::Data(Data { block: None, .. }))));
    }
    assert!(matches!(client.handle(data()), Err(WireError::Order(_))));
}

#[test]
fn too_many_requests_are_refused_one_by_one_and_the_others_live() {
    let mut pair = Pair::new(1, true, 0);
    let requests: Vec<_> = (0..=V2_REQUESTS_MAX).map(|_| pair.get(Get::default())).collect();
    pair.run().unwrap();
    let (last, others) = requests.split_last().unwrap();
    assert_eq!(pair.failed(*last), Some(Code::Limit));
    assert!(others.iter().all(|request| pair.failed(*request).is_none()));
    pair.send(ClientFrame::Window(others[0], 1)).unwrap();
    pair.run().unwrap();
    assert!(pair.ended(others[0]), "its place is free again");
    let again = pair.get(Get::default());
    pair.run().unwrap();
    assert_eq!(pair.failed(again), None);
}

#[test]
fn whoever_waits_for_the_server_hears_of_it_every_two_seconds() {
    let mut pair = Pair::new(2 * BLOCK_LEN, false, u64::MAX / 4);
    let frame = pair.client.stat(Stat { root: true, name: "x".into() });
    pair.send(frame).unwrap();
    assert!(pair.transmit(), "the welcome");
    for _ in 0..3 {
        assert_eq!(pair.server.deadline(), Some(pair.now + V2_WAIT_INTERVAL));
        pair.server.tick(pair.now + V2_WAIT_INTERVAL / 2);
        assert!(!pair.transmit());
        pair.now += V2_WAIT_INTERVAL;
        pair.server.tick(pair.now);
        assert!(pair.transmit());
    }
    pair.receive().unwrap();
    assert_eq!(pair.heard[1..], [Heard::Waiting, Heard::Waiting, Heard::Waiting]);
    pair.run().unwrap();
    assert!(matches!(&pair.heard[4], Heard::File(1, file) if file.root == Some(pair.tree.root())));
    assert_eq!(pair.server.deadline(), None);
}

#[test]
fn a_client_that_does_not_read_is_not_said_to_be_waiting_for_us() {
    let mut pair = Pair::new(2 * BLOCK_LEN, true, 1);
    pair.get(Get::default());
    pair.run().unwrap();
    assert_eq!(pair.server.deadline(), None, "it is the window that holds it up");
    pair.now += Duration::from_secs(60);
    pair.server.tick(pair.now);
    assert!(!pair.transmit());
}

#[test]
fn numbers_of_requests_only_go_up() {
    let mut pair = Pair::new(1, true, 0);
    let stat = Stat { root: false, name: "x".into() };
    for number in [0, 5, 5, 4] {
        let result = pair.send(ClientFrame::Stat(number, stat.clone()));
        assert_eq!(result.is_ok(), number == 5 && pair.server.ask().is_some(), "{number}");
    }
}

#[test]
fn a_range_behind_the_end_is_told_so() {
    let mut pair = Pair::new(10, true, 100);
    let request = pair.get(Get { ranges: vec![ByteRange { offset: 10, len: 1 }], ..Get::default() });
    pair.run().unwrap();
    assert_eq!(pair.failed(request), Some(Code::Usage));
    assert!(pair.heard.iter().any(|heard| matches!(heard, Heard::File(..))), "what the file is comes first");
}

/// Frames of a server that lies, after an honest welcome and file.
fn hears(size: u64, is_warm: bool, get: Get, lies: &[ServerFrame]) -> Result<(), WireError> {
    let mut pair = Pair::new(size, is_warm, u64::MAX / 4);
    let mut client = Requester::new();
    let _ = client.get(Get { name: "x".into(), ..get });
    let file = File { root: is_warm.then(|| pair.tree.root()), ..pair.file() };
    client.handle(ServerFrame::Welcome(Default::default())).unwrap();
    client.handle(ServerFrame::File(1, file)).unwrap();
    pair.client = client;
    for lie in lies {
        pair.client.handle(lie.clone())?;
    }
    Ok(())
}

#[test]
fn a_server_that_breaks_the_order_is_found_out() {
    use crate::codec::v2::Values;
    let size = 2 * BLOCK_LEN;
    let tree = tree_of(&content(size));
    let (left, right) = (tree.values()[0], tree.values()[1]);
    let pair = |left, right| ServerFrame::Values(1, Values::Pairs(vec![(left, right)]));
    let data = |offset, len| ServerFrame::Data { request: 1, offset, len };
    let single = ServerFrame::Values(1, Values::Single(left));
    let warm = |lies: &[ServerFrame]| hears(size, true, Get::default(), lies);
    assert!(warm(&[pair(left, right), data(0, 5), data(5, 5)]).is_ok(), "this is the honest beginning");
    for (what, lies) in [
        ("data before its proof", vec![data(0, 5)]),
        ("wrong values", vec![pair(right, left)]),
        ("a value on trust where the root is known", vec![single.clone()]),
        ("more values than are needed", vec![pair(left, right), pair(left, right)]),
        ("a gap", vec![pair(left, right), data(0, 5), data(6, 5)]),
        ("a step back", vec![pair(left, right), data(0, 5), data(0, 5)]),
        ("the wrong block", vec![pair(left, right), data(BLOCK_LEN, 5)]),
        ("data across a block's end", vec![pair(left, right), data(0, BLOCK_LEN + 1)]),
        ("values within a block", vec![pair(left, right), data(0, 5), pair(left, right)]),
        ("an end too early", vec![pair(left, right), data(0, 5), ServerFrame::End(1, Some(tree.root()))]),
        ("another request", vec![ServerFrame::End(2, None)]),
        ("an error for another request", vec![ServerFrame::Error(9, Code::Other.into(), Bytes::new())]),
        ("an error that is none", vec![ServerFrame::Error(1, ErrorCode(0), Bytes::new())]),
        ("a second welcome", vec![ServerFrame::Welcome(Default::default())]),
    ] {
        assert!(warm(&lies).is_err(), "{what}");
    }
    let sole = Get { ranges: vec![ByteRange { offset: 0, len: 1 }], ..Get::default() };
    let named = ServerFrame::Stored(1, Root::of(b"another"), Bytes::from_static(b"x"));
    assert!(
        hears(0, true, sole.clone(), &[named]).is_err(),
        "what is fetched ends with its root, named or not"
    );
    let other = ServerFrame::End(1, Some(Root::of(b"another")));
    assert!(hears(0, true, sole.clone(), &[ServerFrame::End(1, Some(Root::of(b"")))]).is_ok());
    assert!(hears(0, true, sole, &[other]).is_err(), "an end with another root");
    let cold = |lies: &[ServerFrame]| hears(size, false, Get::default(), lies);
    assert!(cold(&[single.clone(), data(0, 5)]).is_ok());
    assert!(cold(&[single.clone(), single.clone()]).is_err(), "two values of one block");
    assert!(cold(&[pair(left, right)]).is_err(), "pairs without a root");
    let only = Get { values_only: true, ..Get::default() };
    assert!(
        hears(size, true, only, &[pair(left, right), data(0, 5)]).is_err(),
        "data that was not asked for"
    );
}

#[test]
fn nothing_counts_before_the_welcome() {
    for frame in [ServerFrame::Pong(0, [0; 8]), ServerFrame::End(1, None), ServerFrame::Unknown] {
        assert!(Requester::new().handle(frame).is_err());
    }
    let refusal = ServerFrame::Error(0, Code::Unsupported.into(), "no".into());
    assert!(
        matches!(Requester::new().handle(refusal), Ok(Heard::Failed(0, code, _)) if code.kind() == Code::Unsupported)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order in which the disk answers, frames leave and arrive, and windows grow.
    #[test]
    fn every_interleaving_brings_every_request_to_its_end(
        seed in any::<u64>(), is_warm in any::<bool>(), window in 0_u64..400_000
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let size = random.u64(0..3 * BLOCK_LEN);
        let mut pair = Pair::new(size, is_warm, window);
        let mut requests = Vec::new();
        for _ in 0..3 {
            let offset = random.u64(0..=size.saturating_sub(1));
            let ranges = vec![ByteRange { offset, len: random.u64(1..=BLOCK_LEN) }];
            let ranges = if random.bool() { ranges } else { Vec::new() };
            requests.push(pair.get(Get { ranges, proven: random.bool(), ..Get::default() }));
        }
        let mut steps = 0_u32;
        while !requests.iter().all(|request| pair.ended(*request)) {
            steps += 1;
            prop_assert!(steps < 100_000, "seed {seed} hangs");
            match random.u8(0..5) {
                0 => drop(pair.answer()),
                1 | 2 => drop(pair.transmit()),
                3 => pair.receive().unwrap(),
                _ => {
                    let request = *random.choice(&requests).unwrap();
                    pair.send(ClientFrame::Window(request, random.u64(0..300_000))).unwrap();
                }
            }
        }
        prop_assert!(pair.damaged.is_empty());
        for ((_, block), data) in &pair.blocks {
            prop_assert_eq!(&data[..], slice(&pair.bytes, block_span(size, *block)));
        }
    }
}
