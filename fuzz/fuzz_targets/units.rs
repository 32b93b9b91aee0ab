//! Durations and sizes as people write them: bounded, the same with space around, and an error says
//! what it was about without any control character.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use oneport::units::{Bytes, Rate, Size, Span};

/// A little more than the hundred years that are allowed.
const SPAN_MAX: Duration = Duration::from_secs(101 * 366 * 24 * 3600);

fuzz_target!(|text: &str| {
    match text.parse::<Span>() {
        Ok(span) => assert!(span.0 <= SPAN_MAX),
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
    match text.parse::<Size>() {
        Ok(size) => {
            assert_eq!(format!(" {text}\t").parse::<Size>(), Ok(size));
            assert_eq!(size.0.to_string().parse::<Size>(), Ok(size), "a bare number is bytes");
            assert!(Bytes(size.0).to_string().ends_with('B'));
            assert!(Rate::new(size.0, Duration::ZERO).to_string().ends_with("B/s"));
        }
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
});
