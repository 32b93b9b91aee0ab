//! Requests of different priorities on one connection.

use super::*;
use crate::limits::PRIORITY_SHARE;
use crate::priority::Priority;

/// Asks for the whole file with a priority.
fn get(pair: &mut Pair, priority: u8) -> RequestId {
    pair.get(Get { priority: Priority::at_most(priority), ..Get::default() })
}

#[test]
fn the_more_urgent_request_goes_first_though_it_came_later_and_the_other_one_does_not_starve() {
    let blocks = 2 * PRIORITY_SHARE;
    let mut pair = Pair::new(blocks * BLOCK_LEN, true, u64::MAX / 4);
    let low = get(&mut pair, 0);
    while pair.answer() {}
    for _ in 0..4 {
        assert!(pair.transmit());
    }
    pair.receive().unwrap();
    assert_eq!(pair.server.rank(), Some(Priority::LEAST));
    let before = pair.received(low).len() as u64;
    let high = get(&mut pair, 10);
    while !pair.ended(high) {
        assert!(pair.transmit() | pair.answer());
        pair.receive().unwrap();
    }
    assert!(!pair.ended(low));
    let meanwhile = pair.received(low).len() as u64 - before;
    let frames = blocks * BLOCK_LEN / DATA_SHARED_MAX / PRIORITY_SHARE;
    assert!((1..=(frames + 2) * DATA_SHARED_MAX).contains(&meanwhile), "{meanwhile} bytes");
    pair.run().unwrap();
    assert!(pair.ended(low) && pair.received(low) == pair.bytes);
    assert_eq!(pair.server.rank(), None);
}

#[test]
fn where_the_more_urgent_request_cannot_go_on_the_other_one_does() {
    let mut pair = Pair::new(3 * BLOCK_LEN, true, BLOCK_LEN);
    let (high, low) = (get(&mut pair, 10), get(&mut pair, 0));
    pair.send(ClientFrame::Window(low, 3 * BLOCK_LEN)).unwrap();
    pair.run().unwrap();
    assert!(pair.ended(low) && !pair.ended(high), "its window is used up");
}
