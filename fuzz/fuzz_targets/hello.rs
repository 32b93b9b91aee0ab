//! Version 2's hello: bounded, and what was understood, said again, is understood alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oneport::codec::v2::{ClientFrame, Hello, WINDOW_MAX};

/// The longest hello that the protocol allows.
const HELLO_MAX: usize = 1024;

fuzz_target!(|name: &[u8]| {
    let Ok(hello) = Hello::parse(name) else { return };
    assert!(name.starts_with(b"?oneport/2?") && name.len() <= HELLO_MAX);
    assert!(hello.window <= WINDOW_MAX);
    assert!(hello.need.iter().chain(&hello.may).all(|word| !word.is_empty()));
    if hello.first == Some(ClientFrame::Unknown) {
        return;
    }
    let (again, is_whole) = hello.to_name();
    // What was left to its default is said now, so that it may not fit any more.
    if is_whole || hello.first.is_none() && again.len() <= HELLO_MAX {
        assert_eq!(Hello::parse(&again), Ok(hello));
    }
});
