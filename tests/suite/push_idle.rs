//! A thousand clients that listen and say nothing: what they cost, and that each is still heard and told.

use crate::holders::{add, auth};
use crate::putting::{Came, Putter};
use crate::receivers::{hear_pushed, listen, push};
use crate::serving::Site;
use crate::v2_peer::{Asker, root_of};
use oneport::codec::v2::{ClientFrame, Received};
use std::io::Write as _;

/// Clients that listen.
const LISTENERS: usize = 1000;
/// Most memory of the server for each of them, in bytes.
const MEMORY_EACH_MAX: u64 = 64 << 10;

#[test]
fn a_thousand_listeners_cost_little_and_are_all_answered() {
    let site = Site::new();
    let (key, sender) =
        (add(&site, "crowd", &["--allow", "push"]), add(&site, "sender", &["--allow", "push"]));
    let server = site.serve(&[]);
    let open = |number: usize| {
        let mut asker = Asker::new(&server, "");
        asker.stream.write_all(&auth(&key)).unwrap();
        asker.send(&[listen(1, &format!("l{number}"))]);
        asker
    };
    let mut one = open(LISTENERS);
    assert!(one.is_answered());
    let before = server.memory();
    let mut crowd: Vec<Asker> = (0..LISTENERS).map(open).collect();
    assert!(crowd.iter_mut().all(Asker::is_answered));
    let each = server.memory().saturating_sub(before) / LISTENERS as u64;
    println!("{each} bytes for each listener");
    assert!(each <= MEMORY_EACH_MAX, "{each} bytes for each listener");
    // One more than a key may have, or in the middle of them: each is told of what is for it.
    for number in [0, LISTENERS / 2, LISTENERS - 1] {
        let mut putter = Putter::new(&server, &sender, b"hello");
        let frame = push(&putter, 1, &format!("l{number}"), "x", 1);
        putter.send(&frame);
        let sending = std::thread::spawn(move || putter.answer());
        let pushed = hear_pushed(&mut crowd[number]);
        let outcome = Ok(root_of(b"hello"));
        crowd[number].send(&[ClientFrame::Received(1, Received { id: pushed.id, outcome })]);
        assert_eq!(sending.join().unwrap(), Came::Ended(1, Some(root_of(b"hello"))));
    }
    assert!(crowd.iter_mut().all(Asker::is_answered));
    let refused = (0..).map(|number| format!("m{number}")).take(oneport::limits::LISTENERS_PER_KEY_MAX);
    let mut more: Vec<Asker> = Vec::new();
    let full = refused.into_iter().find_map(|name| {
        let mut asker = Asker::new(&server, "");
        asker.stream.write_all(&auth(&key)).unwrap();
        asker.send(&[listen(1, &name), ClientFrame::Ping(0, [1; 8])]);
        let told = asker.hear().map(|_| asker.hear().expect("an answer").frame);
        more.push(asker);
        match told {
            Some(oneport::codec::v2::ServerFrame::Error(1, code, _)) => Some(code.0),
            _ => None,
        }
    });
    assert_eq!(full, Some(oneport::error::Code::Limit.exit_status().into()), "a key has only so many");
    assert!(more.len() + LISTENERS <= oneport::limits::LISTENERS_PER_KEY_MAX);
}
