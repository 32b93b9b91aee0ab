//! Names as peers say them: an accepted one is unchanged, bounded, and never leaves its root.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use oneport::limits::{COMPONENT_MAX, DEPTH_MAX, NAME_MAX};
use oneport::names::{FileName, is_reserved};

fuzz_target!(|bytes: &[u8]| {
    let parsed = FileName::parse(bytes);
    let is_text = std::str::from_utf8(bytes).is_ok();
    assert_eq!(FileName::parse_text(bytes).is_ok(), parsed.is_ok() && is_text);
    let Ok(name) = parsed else { return };
    assert_eq!(name.as_bytes(), bytes);
    assert!(bytes.len() <= NAME_MAX && !bytes.contains(&0));
    assert!((1..=DEPTH_MAX).contains(&name.components().count()));
    assert!(name.components().all(|part| part.len() <= COMPONENT_MAX && !is_reserved(part)));
    let path = Path::new(OsStr::from_bytes(bytes));
    assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
    assert_eq!(path.components().count(), name.components().count());
    assert!(!name.to_string().chars().any(char::is_control), "shown escaped");
});
