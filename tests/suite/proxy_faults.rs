//! The proxy of the tests does what they ask of it: bytes, faults, counts, and its end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{scope, spawn};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::chance::{break_off, part, seed};
use crate::harness::bytes;
use crate::machine::{PATIENCE, wait_for};
use crate::proxy::{Fault, Flow, Link, Plan, Proxy, Traffic};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What is sent in most tests: more than one piece, less than the buffers on the way.
const SENT: usize = 300_000;

/// A listener and a proxy before it.
fn before_listener(plans: impl Fn(usize) -> Plan + Send + 'static) -> (TcpListener, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let proxy = Proxy::faulty(listener.local_addr().unwrap(), plans).unwrap();
    (listener, proxy)
}

/// Both ends of a connection through a proxy, the client's first.
fn connect(listener: &TcpListener, proxy: &Proxy) -> [TcpStream; 2] {
    let client = TcpStream::connect(proxy.address).unwrap();
    let (server, _) = wait_for("a connection by the proxy", || listener.accept().ok());
    server.set_nonblocking(false).unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    [client, server]
}

/// A proxy with a connection for each of the two directions, in which `fault` comes at the offset: the
/// sender, the receiver, the proxy and what it has given to the receiver.
fn each_way(at: u64, fault: Fault, test: impl Fn(TcpStream, TcpStream, Proxy, &dyn Fn(&Proxy) -> u64)) {
    let (listener, proxy) = before_listener(move |_| Plan::down(at, fault));
    let [client, server] = connect(&listener, &proxy);
    test(server, client, proxy, &|proxy| proxy.connections()[0].down);
    let (listener, proxy) = before_listener(move |_| Plan::up(at, fault));
    let [client, server] = connect(&listener, &proxy);
    test(client, server, proxy, &|proxy| proxy.connections()[0].up);
}

/// Everything that comes until the end, and how it ends.
fn read_all(mut stream: &TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut data = Vec::new();
    let end = stream.read_to_end(&mut data).err().map(|error| error.kind());
    (data, end)
}

/// The traffic of the only connection, once that has ended.
fn traffic_at_end(proxy: &Proxy) -> Traffic {
    wait_for("the connection's end", || {
        let traffic = proxy.connections();
        assert_eq!(traffic.len(), 1);
        (!traffic[0].open).then_some(traffic[0])
    })
}

#[test]
fn without_faults_all_bytes_of_many_connections_pass_and_are_counted() {
    const CONNECTIONS: usize = 8;
    let (listener, proxy) = before_listener(|_| Plan::none());
    let pairs: Vec<_> = (0..CONNECTIONS).map(|_| connect(&listener, &proxy)).collect();
    let len = |side: usize, number: usize| [MIB, 3 * MIB][side] + number;
    scope(|scope| {
        for (number, [client, server]) in pairs.iter().enumerate() {
            let data = move |side: usize| bytes((2 * number + side) as u64, len(side, number));
            for (side, [mut from, to]) in [[client, server], [server, client]].into_iter().enumerate() {
                scope.spawn(move || {
                    from.write_all(&data(side)).unwrap();
                    from.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || assert!(read_all(to) == (data(side), None), "{number} {side}"));
            }
        }
    });
    wait_for("the end of all", || proxy.connections().iter().all(|traffic| !traffic.open).then_some(()));
    let expected = |number| Traffic { up: len(0, number) as u64, down: len(1, number) as u64, open: false };
    assert_eq!(proxy.connections(), (0..CONNECTIONS).map(expected).collect::<Vec<_>>());
}

#[test]
fn one_side_may_end_and_still_listen() {
    let (listener, proxy) = before_listener(|_| Plan::none());
    let [mut client, mut server] = connect(&listener, &proxy);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&server), (b"question".to_vec(), None));
    assert!(proxy.connections()[0].open);
    server.write_all(b"answer").unwrap();
    drop(server);
    assert_eq!(read_all(&client), (b"answer".to_vec(), None));
    assert_eq!(traffic_at_end(&proxy), Traffic { up: 8, down: 6, open: false });
}

#[test]
fn a_cut_gives_the_bytes_before_it_and_an_orderly_end_to_both() {
    // More than fits on the way: the sender is still writing when it happens, except at the very end.
    let data = bytes(1, 20 * MIB);
    for at in [0, 1, 1000, 64 * KIB, SENT, data.len()] {
        each_way(at as u64, Fault::Cut, |sender, receiver, proxy, given| {
            let mut writer = sender.try_clone().unwrap();
            scope(|scope| {
                scope.spawn(|| drop(writer.write_all(&data)));
                assert!(read_all(&receiver) == (data[..at].to_vec(), None), "{at}");
                assert_eq!(read_all(&sender), (Vec::new(), None), "{at}");
                drop(receiver);
            });
            traffic_at_end(&proxy);
            assert_eq!(given(&proxy), at as u64);
        });
    }
}

#[test]
fn a_reset_comes_after_the_bytes_before_it_and_to_both() {
    // The last is more than a receiver's buffer takes at once.
    let data = bytes(2, 40 * MIB);
    for at in [0, 1, 1000, 64 * KIB, SENT, data.len()] {
        each_way(at as u64, Fault::Reset, |mut sender, receiver, proxy, given| {
            scope(|scope| {
                let writing = scope.spawn(|| sender.write_all(&data[..(at + 1).min(data.len())]));
                let (received, end) = read_all(&receiver);
                assert!(received == data[..at], "{} bytes before a reset at {at}", received.len());
                assert_eq!(end, Some(ErrorKind::ConnectionReset));
                let _ = writing.join();
            });
            traffic_at_end(&proxy);
            assert_eq!(given(&proxy), at as u64);
            // Whether by a write or a read: the first that asks is told.
            let told = sender.write_all(b"x").err().map(|error| error.kind());
            assert!(matches!(told, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)), "{told:?}");
        });
    }
}

#[test]
fn a_stall_gives_nothing_more_until_the_receiver_gives_up() {
    let data = bytes(3, SENT);
    for at in [0, 1, 1000, SENT] {
        each_way(at as u64, Fault::Stall, |mut sender, mut receiver, proxy, given| {
            sender.write_all(&data).unwrap();
            let mut received = vec![0; at];
            receiver.read_exact(&mut received).unwrap();
            assert!(received == data[..at]);
            // The other way goes on.
            receiver.write_all(b"still there?").unwrap();
            sender.read_exact(&mut [0; 12]).unwrap();
            // One that has said all leaves a stalled connection open.
            sender.shutdown(Shutdown::Write).unwrap();
            receiver.write_all(b"!").unwrap();
            sender.read_exact(&mut [0]).unwrap();
            assert!(proxy.connections()[0].open);
            receiver.shutdown(Shutdown::Write).unwrap();
            traffic_at_end(&proxy);
            assert_eq!(given(&proxy), at as u64);
            assert!(read_all(&receiver).0.is_empty());
        });
    }
}

#[test]
fn a_flip_changes_one_bit_and_nothing_else() {
    let data = bytes(4, SENT);
    for (at, bit) in [(0, 0), (64 * KIB, 7), (SENT - 1, 3)] {
        each_way(at as u64, Fault::Flip { bit }, |mut sender, receiver, _proxy, _| {
            sender.write_all(&data).unwrap();
            drop(sender);
            let (received, end) = read_all(&receiver);
            let differ: Vec<_> = (0..SENT).filter(|&at| received[at] != data[at]).collect();
            assert_eq!((received.len(), end, &differ[..]), (SENT, None, &[at][..]));
            assert_eq!(received[at] ^ data[at], 1 << bit);
        });
    }
}

#[test]
fn a_duplicate_comes_right_behind_its_original() {
    let data = bytes(5, SENT);
    for (at, len) in [(0, 1), (1000, 100_000), (SENT - 5, 10)] {
        each_way(at as u64, Fault::Duplicate { len }, |mut sender, receiver, proxy, given| {
            sender.write_all(&data).unwrap();
            drop(sender);
            let end = (at + len).min(SENT);
            let expected = [&data[..end], &data[at..end], &data[end..]].concat();
            assert!(read_all(&receiver) == (expected, None), "{len} bytes at {at}");
            drop(receiver);
            traffic_at_end(&proxy);
            assert_eq!(given(&proxy), (SENT + end - at) as u64);
        });
    }
}

#[test]
fn bytes_that_go_one_by_one_arrive_all_the_same() {
    let (listener, proxy) = before_listener(|_| Plan::one_by_one());
    let [client, server] = connect(&listener, &proxy);
    let data = bytes(6, 20_000);
    for (mut from, to) in [(&client, &server), (&server, &client)] {
        from.write_all(&data).unwrap();
        from.shutdown(Shutdown::Write).unwrap();
        assert!(read_all(to) == (data.clone(), None));
    }
}

#[test]
fn the_same_seed_gives_the_same_connections() {
    let seed = seed();
    let plan = move |seed: u64, number: usize| {
        let mut chance = part(seed, number);
        let mut at = || chance.u64(0..SENT as u64);
        let flips = [(at(), Fault::Flip { bit: 2 }), (at(), Fault::Duplicate { len: 500 })];
        let end = (at(), break_off(&mut chance));
        Plan { down: Flow { faults: [&flips[..], &[end]].concat(), ..Flow::default() }, ..Plan::none() }
    };
    let run = |seed: u64| {
        let (listener, proxy) = before_listener(move |number| plan(seed, number));
        let outcome = |_| {
            let [client, mut server] = connect(&listener, &proxy);
            let writing = spawn(move || {
                let _ = server.write_all(&bytes(7, SENT));
                read_all(&server)
            });
            let received = read_all(&client);
            drop(client);
            writing.join().unwrap();
            received
        };
        (0..5).map(outcome).collect::<Vec<_>>()
    };
    let (first, second, other) = (run(seed), run(seed), run(seed ^ 1));
    assert!(first == second, "the seed does not decide everything");
    assert!(first != other, "the seed decides nothing");
    assert!(first.iter().any(|one| *one != first[0]), "all connections are alike");
}

#[test]
fn a_peer_that_is_gone_is_gone_for_the_other_too() {
    let (listener, proxy) = before_listener(|_| Plan::none());
    for side in [0, 1] {
        let mut ends = connect(&listener, &proxy).map(Some);
        let gone = ends[side].take().unwrap();
        SockRef::from(&gone).set_linger(Some(Duration::ZERO)).unwrap();
        drop(gone);
        let end = read_all(ends[1 - side].as_ref().unwrap());
        assert_eq!(end, (Vec::new(), Some(ErrorKind::ConnectionReset)), "{side}");
    }
    // Nobody listens any more.
    drop(listener);
    let client = TcpStream::connect(proxy.address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_all(&client), (Vec::new(), Some(ErrorKind::ConnectionReset)));
}

#[test]
fn dropping_the_proxy_ends_everything_whatever_it_waits_for() {
    let far = Link { delay: PATIENCE * 2, rate: None };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = listener.local_addr().unwrap();
    // Bytes that nobody takes, a stall, a cut whose receiver stays, a reset that waits for a reader, silence.
    let unread = MIB as u64;
    let plans = [
        Plan::none(),
        Plan::down(5, Fault::Stall),
        Plan::down(5, Fault::Cut),
        Plan::down(unread, Fault::Reset),
        Plan::none(),
    ];
    let count = plans.len();
    let near = Proxy::faulty(target, move |number| plans[number].clone()).unwrap();
    let far = Proxy::on(TcpListener::bind("127.0.0.1:0").unwrap(), target, far, |_| Plan::none()).unwrap();
    let pairs: Vec<_> = (0..count).map(|_| connect(&listener, &near)).collect();
    let waiting = TcpStream::connect(far.address).unwrap();
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    wait_for("the connection over the far link", || (far.connections().len() == 1).then_some(()));
    for [_, server] in &pairs[..count - 1] {
        let mut server = server.try_clone().unwrap();
        spawn(move || server.write_all(&vec![0; 80 * MIB]));
    }
    wait_for("bytes on all but the last connection", || {
        let given: Vec<_> = near.connections().iter().map(|traffic| traffic.down).collect();
        (given[0] > unread && given[1..] == [5, 5, unread, 0]).then_some(())
    });
    assert!(near.connections().iter().all(|traffic| traffic.open));
    let addresses = [near.address, far.address];
    let began = Instant::now();
    drop((near, far));
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    for address in addresses {
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    for stream in pairs.iter().flatten().chain([&waiting]) {
        let (_, end) = read_all(stream);
        assert!(matches!(end, None | Some(ErrorKind::ConnectionReset)), "{end:?}");
    }
}
