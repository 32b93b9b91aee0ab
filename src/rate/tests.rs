use proptest::prelude::*;

use super::*;

/// A moment with enough time before it.
fn epoch() -> Instant {
    std::time::Instant::now() + Duration::from_secs(3600)
}

/// What a rate carries in a time, in bytes.
fn carried(rate: u64, time: Duration) -> u128 {
    u128::from(rate) * time.as_nanos() / NANOS
}

/// `seconds` of `askers` who each ask for a turn again as soon as they have had theirs; what each got.
fn take_turns(rate: u64, askers: usize, seconds: u64) -> Vec<u64> {
    let begin = epoch();
    let end = begin + Duration::from_secs(seconds);
    let limiter = Limiter::new(rate, begin);
    let mut got = vec![0; askers];
    let mut asks: Vec<_> = (0..askers).map(|asker| (begin, asker)).collect();
    while let Some(&(now, asker)) = asks.iter().min() {
        if now >= end {
            break;
        }
        let grant = limiter.take(limiter.turn(), now);
        got[asker] += limiter.turn();
        // Whoever has to wait is a little late, as a timer is.
        let late = Duration::from_micros(if grant.from > now { 700 } else { 1 });
        asks[asker].0 = grant.from.max(now) + late;
    }
    got
}

#[test]
fn a_rate_is_kept_to_the_byte_however_long_and_however_late_each_turn_is() {
    for rate in [1_000, 300_000, 7_777_777, 1_000_000_007] {
        let got = u128::from(take_turns(rate, 1, 100)[0]);
        let due = carried(rate, Duration::from_secs(100));
        let more = carried(rate, RATE_BURST) + 2 * u128::from(turn(rate));
        assert!((due..=due + more).contains(&got), "{got} of {due} at {rate}");
    }
}

#[test]
fn those_who_wait_get_equally_much() {
    for (rate, askers) in [(10_000, 3), (1_000_000, 9), (100_000_000, 40)] {
        let got = take_turns(rate, askers, 5);
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        assert!(most - least <= 2 * turn(rate), "{got:?}");
    }
}

#[test]
fn who_comes_late_waits_for_one_turn_of_each_before_it() {
    let (begin, rate) = (epoch(), 1_000_000);
    let limiter = Limiter::new(rate, begin);
    while limiter.take(limiter.turn(), begin).from <= begin {}
    let mut last = begin;
    for _ in 0..8 {
        last = limiter.take(limiter.turn(), begin).until;
    }
    let own = limiter.take(1, begin);
    assert_eq!(own.from, last);
    assert!(own.from - begin <= 10 * RATE_TURN, "{:?}, not after a burst of each", own.from - begin);
}

#[test]
fn after_a_rest_there_is_one_burst_and_not_more() {
    let (begin, rate) = (epoch(), 1_000_000);
    let limiter = Limiter::new(rate, begin);
    assert!(limiter.is_rested(begin));
    let now = begin + Duration::from_secs(3600);
    let mut at_once = 0;
    loop {
        let grant = limiter.take(limiter.turn(), now);
        if grant.from > now {
            break;
        }
        at_once += u128::from(limiter.turn());
    }
    assert_eq!(at_once, carried(rate, RATE_BURST) + u128::from(turn(rate)));
    assert!(!limiter.is_rested(now));
    assert!(limiter.is_rested(now + 2 * RATE_BURST));
}

#[test]
fn what_is_given_back_is_there_for_others() {
    let begin = epoch();
    let limiter = Limiter::new(1000, begin);
    let first = limiter.take(100, begin);
    limiter.give_back(100);
    assert_eq!(limiter.take(100, begin), first);
}

#[test]
fn absurd_rates_neither_overflow_nor_stand_still() {
    let begin = epoch();
    for rate in [0, 1, 2, u64::MAX - 1, u64::MAX] {
        let limiter = Limiter::new(rate, begin);
        assert!((1..=RATE_TURN_BYTES_MAX).contains(&limiter.turn()));
        let mut last = limiter.take(limiter.turn(), begin);
        for bytes in [limiter.turn(), 1, u64::MAX].into_iter().cycle().take(10_000) {
            let next = limiter.take(bytes, begin);
            assert!(next.from == last.until && next.until >= next.from);
            last = next;
        }
        limiter.give_back(u64::MAX);
        let _ = limiter.take(u64::MAX, begin);
    }
}

#[test]
fn who_moves_small_things_between_large_ones_gets_no_less() {
    let (mut due, mut large, mut small, turn) = (Due::default(), 0, 0, 1000);
    for _ in 0..100 {
        small += due.take(17, turn);
        large += due.take(u64::MAX, turn);
    }
    assert_eq!((small, large), (1700, 200 * turn - 1700));
    let rests: u64 = (0..10).map(|_| due.take(0, turn)).sum();
    assert_eq!((rests, due.take(u64::MAX, turn)), (0, 3 * turn), "and no more");
    assert_eq!(due.take(u64::MAX, u64::MAX), u64::MAX);
}

proptest! {
    #[test]
    fn no_stretch_of_time_carries_more_than_the_rate_and_a_burst(
        rate in 1_u64..10_000_000_000,
        asks in proptest::collection::vec((0_u64..400, 1_u64..1_000_000), 1..100),
    ) {
        let (begin, mut now) = (epoch(), epoch());
        let limiter = Limiter::new(rate, begin);
        let mut moved = Vec::new();
        for (millis, wanted) in asks {
            now = now.max(begin) + Duration::from_millis(millis);
            let bytes = wanted.min(limiter.turn());
            let grant = limiter.take(bytes, now);
            moved.push((grant.from.max(now), u128::from(bytes)));
        }
        prop_assert!(moved.is_sorted_by_key(|&(at, _)| at), "in the order in which they were asked for");
        for (i, &(from, _)) in moved.iter().enumerate() {
            let mut bytes = 0;
            for &(until, count) in &moved[i..] {
                bytes += count;
                let allowed = carried(rate, until - from + RATE_BURST) + u128::from(turn(rate)) + 2;
                prop_assert!(bytes <= allowed, "{bytes} instead of {allowed} in {:?}", until - from);
            }
        }
    }
}
