//! Durations, sizes and rates as people write them: `10s`, `1.5h`, `64KiB`, `100MB`, `10MiB/s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A duration as an option: a number and `ms`, `s`, `m`, `h` or `d`; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Span(pub Duration);

/// A size in bytes as an option: a number and `B`, `KB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB`,
/// `MiB`, `GiB`, `TiB` (powers of 1024), in any case; a bare number is bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Size(pub u64);

/// What is wrong with a written duration, size or rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {kind}; write for example {example}")]
pub struct UnitError {
    text: String,
    kind: &'static str,
    example: &'static str,
}

/// Longest duration, in seconds: a hundred years. What is longer is a mistake.
const SPAN_MAX_SECONDS: f64 = 100.0 * 365.0 * 24.0 * 3600.0;

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError {
            text: crate::text::shown(text.as_bytes()).to_string(),
            kind: "duration",
            example: "500ms, 10s, 2m or 1h",
        };
        let (number, unit) = split(text);
        let number = finite(number).ok_or_else(error)?;
        let seconds = match unit {
            "ms" => number / 1000.0,
            "" | "s" => number,
            "m" | "min" => number * 60.0,
            "h" => number * 3600.0,
            "d" => number * 86_400.0,
            _ => return Err(error()),
        };
        if seconds > SPAN_MAX_SECONDS {
            return Err(error());
        }
        Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| error())
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError {
            text: crate::text::shown(text.as_bytes()).to_string(),
            kind: "size",
            example: "4096, 64KiB, 100MB or 2GiB",
        };
        let (number, unit) = split(text);
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1000,
            "m" | "mb" => 1000_u64.pow(2),
            "g" | "gb" => 1000_u64.pow(3),
            "t" | "tb" => 1000_u64.pow(4),
            "ki" | "kib" => 1 << 10,
            "mi" | "mib" => 1 << 20,
            "gi" | "gib" => 1 << 30,
            "ti" | "tib" => 1 << 40,
            _ => return Err(error()),
        };
        // Whole numbers stay exact; only fractions go through floating point.
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(error);
        }
        let number = finite(number).ok_or_else(error)?;
        #[expect(clippy::cast_precision_loss, reason = "a factor is at most 2^40, exact in an f64")]
        let bytes = number * factor as f64;
        // Beyond 2^53 a fraction means nothing.
        if bytes > 9_007_199_254_740_992.0 {
            return Err(error());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative and below 2^53, as checked"
        )]
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A count of bytes for people, in powers of 1000: `999 B`, `1.5 MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        // Whole tenths, rounded once: no floating point is needed.
        let mut factor = 1;
        for unit in UNITS {
            factor *= 1000;
            let tenths = (u128::from(self.0) * 10 + factor / 2) / factor;
            if tenths < 10_000 || unit == "EB" {
                return write!(f, "{}.{} {unit}", tenths / 10, tenths % 10);
            }
        }
        Ok(())
    }
}

/// A rate in bytes per second, for people; as an option, a [`Size`] with or without `/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Rate(pub u64);

impl Rate {
    /// The rate of `size` bytes moved in `elapsed`.
    #[must_use]
    pub fn new(size: u64, elapsed: Duration) -> Self {
        let rate = u128::from(size) * 1_000_000 / elapsed.as_micros().max(1);
        Self(u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let trimmed = text.trim_end();
        let size = trimmed.strip_suffix("/s").unwrap_or(trimmed);
        size.parse().map(|Size(rate)| Self(rate)).map_err(|_| UnitError {
            text: crate::text::shown(text.as_bytes()).to_string(),
            kind: "rate",
            example: "500KB, 1.5MB/s or 10MiB/s",
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Bytes(self.0))
    }
}

/// The digits of a number, and the letters behind it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// A finite number; without a sign, it is not negative.
fn finite(digits: &str) -> Option<f64> {
    digits.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// What a configuration file may hold for a duration, a size or a rate: a string or a whole number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Number(u64),
    Words(String),
}

impl Text {
    fn parse<T: FromStr>(self) -> Result<T, T::Err> {
        match self {
            Self::Number(number) => number.to_string().parse(),
            Self::Words(words) => words.parse(),
        }
    }
}

impl TryFrom<Text> for Span {
    type Error = UnitError;

    fn try_from(text: Text) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl TryFrom<Text> for Rate {
    type Error = UnitError;

    fn try_from(text: Text) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl TryFrom<Text> for Size {
    type Error = UnitError;

    fn try_from(text: Text) -> Result<Self, UnitError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, millis) in
            [("0", 0), ("10", 10_000), ("500ms", 500), ("1.5s", 1500), ("2 m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for text in
            ["", "s", "-1s", "1x", "1e3", "nan", "inf", "1000000d", ".", "1..2", "9".repeat(400).as_str()]
        {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_every_unit_and_exactly() {
        for (text, bytes) in [
            ("0", 0),
            ("18446744073709551615", u64::MAX),
            ("9007199254740993", 9_007_199_254_740_993),
            ("64KiB", 65_536),
            ("100 mb", 100_000_000),
            ("1.5GiB", 1_610_612_736),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "KiB", "-1", "1XB", "18446744073709551616", "99999999999TiB", "1e3"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_sizes_with_or_without_a_second() {
        for text in ["1536KiB", "1.5MiB/s", " 1.5 MiB /s ", "1572864/s", "1572864"] {
            assert_eq!(text.parse(), Ok(Rate(1_572_864)), "{text}");
        }
        for text in ["", "/s", "-1", "1MB/m", "1MB/s/s", "1 s", "18446744073709551616/s"] {
            assert!(text.parse::<Rate>().unwrap_err().to_string().contains("10MiB/s"), "{text}");
        }
    }

    #[test]
    fn space_around_a_size_of_whatever_kind_changes_nothing() {
        for text in [" 18446744073709551615\t", "\u{2003}18446744073709551615 B\u{2003}"] {
            assert_eq!(text.parse(), Ok(Size(u64::MAX)), "{text:?}");
        }
        assert_eq!("1k\u{2003}".parse(), Ok(Size(1000)), "it once panicked in the middle of the space");
    }

    #[test]
    fn byte_counts_read_as_people_write_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (1_550_000, "1.6 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!(Rate::new(10_000_000, Duration::from_millis(500)).to_string(), "20.0 MB/s");
        assert_eq!(Rate::new(0, Duration::ZERO).to_string(), "0 B/s");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,20}") {
            let _ = text.parse::<Span>();
            let _ = text.parse::<Size>();
            let _ = text.parse::<Rate>();
        }
    }
}
