//! Many requests in flight at once.

use super::*;

/// Requests that were begun: the outside was asked to open something for them.
fn begun(pair: &Pair) -> Vec<RequestId> {
    let opens = pair.asks.iter().filter_map(|ask| match ask {
        Ask::Open { request, .. } => Some(*request),
        _ => None,
    });
    opens.collect()
}

#[test]
fn a_thousand_requests_in_flight_are_all_served_and_few_are_begun_at_a_time() {
    let mut pair = Pair::new(2 * 4096, true, V2_WINDOW);
    let requests: Vec<_> = (0..V2_REQUESTS_MAX).map(|_| pair.get(Get::default())).collect();
    let (mut open, mut ended) = (BTreeSet::new(), 0);
    loop {
        while let Some(ask) = pair.server.ask() {
            match &ask {
                Ask::Open { request, .. } => assert!(open.insert(*request)),
                Ask::Forget(request) => {
                    assert!(open.remove(request));
                    ended += 1;
                }
                _ => {}
            }
            pair.asks.push_back(ask);
        }
        assert!(open.len() <= V2_OPEN_MAX, "{}", open.len());
        assert!(pair.to_client.len() <= 3 * 4096, "what is not taken is not made");
        let moved = pair.answer() | pair.transmit();
        pair.receive().unwrap();
        if !moved {
            break;
        }
    }
    assert_eq!(ended, requests.len());
    assert!(requests.iter().all(|request| pair.ended(*request) && pair.received(*request) == pair.bytes));
    assert!(pair.server.is_idle());
}

#[test]
fn requests_are_begun_in_the_order_of_their_numbers_and_as_soon_as_one_ends() {
    let mut pair = Pair::new(BLOCK_LEN, true, 1);
    let requests: Vec<_> = (0..V2_OPEN_MAX + 40).map(|_| pair.get(Get::default())).collect();
    while let Some(ask) = pair.server.ask() {
        pair.asks.push_back(ask);
    }
    assert_eq!(begun(&pair), requests[..V2_OPENING_MAX], "a few at a time");
    pair.run().unwrap();
    assert!(pair.asks.is_empty(), "the windows of those that were begun are shut");
    let waiting = requests[V2_OPEN_MAX];
    // What is said of one that waits counts when it is begun.
    pair.send(ClientFrame::Window(waiting, BLOCK_LEN)).unwrap();
    pair.send(ClientFrame::Cancel(requests[V2_OPEN_MAX + 1])).unwrap();
    pair.run().unwrap();
    assert!(!pair.ended(waiting) && pair.asks.is_empty());
    pair.send(ClientFrame::Cancel(requests[5])).unwrap();
    pair.run().unwrap();
    assert_eq!(pair.received(waiting), pair.bytes);
    assert!(pair.ended(waiting), "its window was opened while it waited");
    let last: Vec<_> = requests.iter().filter(|request| pair.failed(**request).is_some()).collect();
    assert_eq!(last, [&requests[5], &requests[V2_OPEN_MAX + 1]]);
    let opened = |request: &&RequestId| {
        pair.heard.iter().any(|heard| matches!(heard, Heard::File(of, _) if of == *request))
    };
    assert_eq!(
        requests.iter().filter(opened).max(),
        Some(&requests[V2_OPEN_MAX + 2]),
        "one for one that ended"
    );
}

#[test]
fn names_and_ranges_that_wait_are_bounded_in_bytes_and_what_is_too_much_fails_alone() {
    let mut pair = Pair::new(BLOCK_LEN, true, 0);
    let ranges: Vec<_> = (0..256).map(|at| ByteRange { offset: 2 * at, len: 1 }).collect();
    let weight = 4096 + 256 * 16;
    let long = |pair: &mut Pair| {
        let get = Get { name: vec![b'x'; 4096].into(), ranges: ranges.clone(), ..Get::default() };
        let frame = pair.client.get(get);
        pair.send(frame).unwrap();
        pair.client.last()
    };
    let mut held = Vec::new();
    for _ in 0..V2_OPEN_MAX {
        held.push(long(&mut pair));
        pair.run().unwrap();
    }
    for _ in 0..V2_WAITING_BYTES / weight {
        held.push(long(&mut pair));
    }
    let refused = [long(&mut pair), pair.get(Get::default())];
    pair.run().unwrap();
    assert!(held.iter().all(|request| pair.failed(*request).is_none()));
    assert!(refused.iter().all(|request| pair.failed(*request) == Some(Code::Limit)));
    // A place that is free again is free in bytes too.
    pair.send(ClientFrame::Cancel(*held.last().unwrap())).unwrap();
    let again = pair.get(Get::default());
    pair.send(ClientFrame::Cancel(held[0])).unwrap();
    pair.run().unwrap();
    let another = long(&mut pair);
    pair.run().unwrap();
    assert!(pair.failed(again).is_none() && pair.failed(another).is_none());
    for request in held.into_iter().chain([again, another]) {
        pair.send(ClientFrame::Window(request, BLOCK_LEN)).unwrap();
    }
    pair.run().unwrap();
    assert!(pair.ended(again) && pair.ended(another) && pair.server.is_idle());
}

#[test]
fn whoever_waits_to_be_begun_hears_of_it_unless_it_is_the_client_that_holds_it_up() {
    let mut pair = Pair::new(2 * BLOCK_LEN, true, 1);
    let requests: Vec<_> = (0..=V2_OPEN_MAX).map(|_| pair.get(Get::default())).collect();
    // Nothing has been opened: all of them wait for the server.
    while let Some(ask) = pair.server.ask() {
        pair.asks.push_back(ask);
    }
    let waits = |pair: &mut Pair| {
        pair.now += V2_WAIT_INTERVAL;
        pair.server.tick(pair.now);
        while pair.transmit() {}
        let before = pair.heard.iter().filter(|heard| matches!(heard, Heard::Waiting)).count();
        pair.receive().unwrap();
        pair.heard.iter().filter(|heard| matches!(heard, Heard::Waiting)).count() - before
    };
    assert_eq!(pair.server.deadline(), Some(pair.now + V2_WAIT_INTERVAL));
    assert_eq!(waits(&mut pair), V2_OPEN_MAX + 1);
    assert_eq!(waits(&mut pair), V2_OPEN_MAX + 1);
    // All but one are open, with windows that are shut.
    while pair.asks.len() > 1 {
        pair.answer();
    }
    while pair.transmit() {}
    assert_eq!(waits(&mut pair), 2, "the one that is being opened, and the one behind it");
    pair.run().unwrap();
    assert_eq!(pair.server.deadline(), None, "now it is the windows");
    assert_eq!(waits(&mut pair), 0);
    pair.send(ClientFrame::Window(requests[0], BLOCK_LEN)).unwrap();
    assert!(pair.server.deadline().is_some());
}

#[test]
fn a_whole_small_file_is_sent_at_once_and_anything_else_goes_the_usual_way() {
    let ranges = |ranges: &[(u64, u64)]| -> Vec<_> {
        ranges.iter().map(|&(offset, len)| ByteRange { offset, len }).collect()
    };
    for (what, size, window, get, is_whole) in [
        ("all of it", 4096, 4096, Get::default(), true),
        ("an empty file", 0, 0, Get::default(), true),
        ("with proof", 10, 10, Get { proven: true, ..Get::default() }, true),
        ("ranges that cover it", 10, 10, Get { ranges: ranges(&[(0, 99)]), ..Get::default() }, true),
        (
            "a part, which is widened",
            10,
            10,
            Get { ranges: ranges(&[(3, 2), (7, 1)]), ..Get::default() },
            true,
        ),
        ("a range behind it", 10, 10, Get { ranges: ranges(&[(10, 1)]), ..Get::default() }, false),
        ("a shut window", 4096, 4095, Get::default(), false),
        ("values alone", 10, 10, Get { values_only: true, ..Get::default() }, false),
        ("a transfer", 10, 10, Get { transfer: [1; 16], ..Get::default() }, false),
        ("a resumed one", 10, 10, Get { have: 3, ..Get::default() }, false),
    ] {
        let mut pair = Pair::new(size, true, window);
        let request = pair.get(get);
        let Some(Ask::Open { small, .. }) = pair.server.ask() else { panic!("{what}") };
        let file = File { root: Some(pair.tree.root()), ..pair.file() };
        let bytes = pair.bytes.clone();
        let is_sent = small.is_some_and(|most| size <= most)
            && pair.server.whole(request, &file, &bytes, &mut pair.to_client);
        assert_eq!(is_sent, is_whole, "{what}");
        if is_sent {
            pair.receive().unwrap();
            assert!(
                pair.ended(request) && pair.received(request) == bytes && pair.server.is_idle(),
                "{what}"
            );
            assert!(!pair.transmit() && pair.server.ask().is_none(), "{what}");
        } else {
            let tree = Some(Arc::clone(&pair.tree));
            pair.server.opened(request, Opened { file: pair.file(), tree }, pair.now);
            pair.send(ClientFrame::Window(request, size)).unwrap();
            pair.run().unwrap();
            assert_eq!(pair.failed(request).is_some(), what == "a range behind it", "{what}");
            assert!(pair.server.is_idle(), "{what}");
        }
    }
}

#[test]
fn many_requests_do_not_wait_for_a_large_one_and_it_goes_on_in_its_turn() {
    let mut pair = Pair::new(5 * BLOCK_LEN, true, u64::MAX / 4);
    let large = pair.get(Get::default());
    while pair.answer() {}
    for _ in 0..3 {
        pair.transmit();
    }
    let one = || vec![ByteRange { offset: 0, len: 1 }];
    let small: Vec<_> = (0..6).map(|_| pair.get(Get { ranges: one(), ..Get::default() })).collect();
    pair.receive().unwrap();
    let before = pair.received(large).len() as u64;
    while !small.iter().all(|request| pair.ended(*request)) {
        assert!(pair.transmit() | pair.answer());
        pair.receive().unwrap();
        // The large one goes on in its turn, and never out of it.
        let longest = small.iter().map(|request| pair.received(*request).len()).max().unwrap() as u64;
        assert!(pair.received(large).len() as u64 <= before + longest + 2 * DATA_SHARED_MAX);
    }
}
