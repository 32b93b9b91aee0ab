//! Servers whose files are others at each request, or contradict what was said before: versions are never
//! mixed, and what nobody proved is never kept.

use std::sync::atomic::{AtomicUsize, Ordering};

use oneport::codec::v2::ClientFrame;

use crate::harness::{Place, bytes};
use crate::scripted::Scripted;
use crate::v2_hostile_servers::{SAVED, data, gains_nothing_within};
use crate::v2_peer::{self, MIB, Speaker, answer, server, server_that_stops, welcome};

#[test]
fn blocks_that_were_taken_on_trust_are_proven_before_they_are_kept_for_a_known_root() {
    // A first server knows no root and sends other bytes; the next one says a root, of the same identity.
    let place = Place::new();
    let first = Scripted::start(move |stream, name, _| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        let Some(asked) = speaker.hear() else { return };
        let mut frames = answer(&asked, &bytes(10, data().len()), false);
        frames[0].clone_from(&answer(&asked, &data(), false)[0]);
        let until = frames.len() - 5;
        speaker.say(&[welcome(), frames[..until].concat()].concat());
    });
    place.fetch("f", first.address, &[]).end().expect(6);
    assert!(place.tree().len() > 1, "a part is there: {:?}", place.tree());
    let honest = server(|asked, _| answer(asked, &data(), true));
    let checksum = format!("blake3={}", v2_peer::root_of(&data()));
    place.fetch("f", honest.address, &["--checksum", &checksum]).end().expect(0);
    assert!(place.read(SAVED) == data(), "bytes that nobody proved were saved as verified");
}

#[test]
fn blocks_that_contradict_the_root_are_fetched_again_and_not_saved_by_the_next_attempt() {
    let server = server(|asked, before| {
        let is_first_get = before == 0 && matches!(asked, ClientFrame::Get(..));
        if !is_first_get {
            return answer(asked, &data(), true);
        }
        let mut frames = answer(asked, &bytes(10, data().len()), false);
        frames[0].clone_from(&answer(asked, &data(), false)[0]);
        frames
    });
    let place = Place::new();
    place
        .fetch("f", server.address, &["--retries", "1"])
        .end()
        .expect(0)
        .says("do not belong to the file's root");
    assert!(place.read(SAVED) == data());
}

#[test]
fn a_file_that_is_another_one_at_each_request_is_not_put_together() {
    let count = AtomicUsize::new(0);
    let scripted = server(move |asked, _| {
        let version = count.fetch_add(1, Ordering::SeqCst) as u64;
        answer(asked, &bytes(version, 20 * MIB), true)
    });
    gains_nothing_within("10s", "another root each time", &scripted, &[24]);
}

#[test]
fn a_file_that_is_another_one_at_each_attempt_does_not_hold_the_client_for_ever() {
    let server = Scripted::start(move |stream, name, before| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        let data = bytes(before as u64, 3 * MIB);
        speaker.say(&welcome());
        while let Some(asked) = speaker.hear() {
            let is_whole = matches!(&asked, ClientFrame::Get(_, get) if !get.values_only);
            let mut frames = answer(&asked, &data, true);
            frames.truncate(if is_whole { 7 } else { usize::MAX });
            speaker.say(&frames.concat());
            // The first request is for the version before this one, from the second attempt on.
            if matches!(asked, ClientFrame::Get(number, _) if is_whole && (before == 0 || number > 1)) {
                // Closed in order: with requests unread, what was said would be lost.
                let _ = speaker.stream.shutdown(std::net::Shutdown::Write);
                while speaker.hear().is_some() {}
                return;
            }
        }
    });
    let place = Place::new();
    place.fetch("f", server.address, &["--retries", "3", "--retry-max-delay", "20ms"]).end().expect(6);
    // The first attempt brought a block, the others no further one.
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_version_that_is_smaller_than_what_was_here_of_another_one_is_fetched() {
    let place = Place::new();
    let large = bytes(1, 5 * MIB);
    let stops = server_that_stops(&large, true, 15);
    place.fetch("f", stops.address, &[]).end().expect(6);
    let server = Scripted::start(move |stream, name, before| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        speaker.say(&welcome());
        if before == 0 {
            // Still the large one, for as long as it takes to say so.
            let Some(asked) = speaker.hear() else { return };
            speaker.say(&answer(&asked, &large, true)[..2].concat());
            return;
        }
        speaker.answer_all(|asked| answer(asked, b"small", true));
    });
    let ended = place.fetch("f", server.address, &["--retries", "3"]).end().expect(0);
    assert_eq!(place.read(SAVED), b"small");
    assert!(!ended.stderr.contains("were here before"), "{}", ended.stderr);
}

#[test]
fn blocks_of_two_requests_of_one_transfer_that_are_interleaved_are_a_violation() {
    let data = bytes(12, 20 * MIB);
    let whole = data.clone();
    let server = Scripted::start(move |stream, name, before| {
        let Some(mut speaker) = Speaker::new(stream, name) else { return };
        speaker.say(&welcome());
        if before > 0 {
            return speaker.answer_all(|asked| answer(asked, &whole, true));
        }
        // More is asked for when the size is known.
        let Some(first) = speaker.hear().map(|asked| answer(&asked, &whole, true)) else { return };
        speaker.say(&first[..3].concat());
        let Some(second) = speaker.hear().map(|asked| answer(&asked, &whole, true)) else { return };
        for (one, other) in first[3..].iter().zip(&second) {
            if !(speaker.say(one) && speaker.say(other)) {
                return;
            }
        }
    });
    let place = Place::new();
    let ended = place.fetch("f", server.address, &["-j", "1", "--retries", "1"]).end();
    ended.expect(0).says("in the middle of another");
    assert!(place.read(SAVED) == data, "a proven block lies where another one belongs");
}
