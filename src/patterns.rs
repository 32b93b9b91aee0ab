//! Patterns that choose among names: which are included and which are excluded.
//!
//! `*` stands for any bytes but `/`, `**` for any bytes, `**/` at the beginning of a component also for
//! nothing, `?` for one character but `/`, `[a-z]` and `[!a-z]` for one of these or one of the others, `\` takes
//! away the meaning of what follows. A pattern without `/` is compared with the last component of a name, one
//! with `/` with all of it. The first pattern that matches decides; what none matches is included.
//!
//! Patterns come from strangers: one is kept as it was written and costs no memory besides, and the time to
//! compare a name is bounded by the product of both lengths, whatever the pattern. Names are bytes; what
//! is not UTF-8 in them counts byte by byte.

use bytes::Bytes;

use crate::limits::{PATTERN_MAX, PATTERNS_MAX};
use crate::names::base;

/// What becomes of a name that a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is left out, and if it is a folder, so is all beneath it.
    Exclude,
    /// It stays.
    Include,
}

/// One pattern. It is checked when it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    verdict: Verdict,
    source: Bytes,
}

/// Patterns in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

/// Why some bytes are no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// There is no byte in it.
    #[error("the pattern is empty")]
    Empty,
    /// It is longer than [`PATTERN_MAX`].
    #[error("the pattern is too long")]
    TooLong,
    /// A `[` is not closed, or holds nothing, or a range that goes down.
    #[error("the pattern has a '[' that does not list characters")]
    Class,
    /// It ends in a `\`.
    #[error("the pattern ends in a '\\'")]
    Escape,
    /// It begins or ends with `/`, so that no name can match.
    #[error("the pattern begins or ends with '/'")]
    Slash,
    /// There are more than [`PATTERNS_MAX`].
    #[error("there are too many patterns")]
    TooMany,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(verdict: Verdict, source: Bytes) -> Result<Self, PatternError> {
        match source.len() {
            0 => return Err(PatternError::Empty),
            1..=PATTERN_MAX => {}
            _ => return Err(PatternError::TooLong),
        }
        if source.first() == Some(&b'/') || source.last() == Some(&b'/') {
            return Err(PatternError::Slash);
        }
        let mut at = 0;
        while at < source.len() {
            at = Token::read(&source, at)?.1;
        }
        Ok(Self { verdict, source })
    }

    /// What it says about names that it matches.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn source(&self) -> &Bytes {
        &self.source
    }

    /// Whether it matches the relative name of a file or folder.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let name = if self.source.contains(&b'/') { name } else { base(name) };
        // For each place in the name, whether the pattern as far as it was read can end there; no place
        // outside of `first..=last` can.
        let mut ends = vec![false; name.len() + 1];
        ends[0] = true;
        let (mut first, mut last) = (0, 0);
        let mut at = 0;
        while at < self.source.len() {
            // It was read before, when it was checked.
            let Ok((token, behind)) = Token::read(&self.source, at) else { return false };
            at = behind;
            last = token.step(name, &mut ends, first, last);
            while !ends[first] {
                if first == last {
                    return false;
                }
                first += 1;
            }
        }
        ends[name.len()]
    }
}

impl Patterns {
    /// Patterns in the order in which they are to be asked.
    ///
    /// # Errors
    /// If there are too many.
    pub fn new(patterns: Vec<Pattern>) -> Result<Self, PatternError> {
        if patterns.len() > PATTERNS_MAX { Err(PatternError::TooMany) } else { Ok(Self(patterns)) }
    }

    /// Whether a relative name is included.
    #[must_use]
    pub fn include(&self, name: &[u8]) -> bool {
        let first = self.0.iter().find(|pattern| pattern.matches(name));
        first.is_none_or(|pattern| pattern.verdict == Verdict::Include)
    }

    /// The patterns, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Pattern> {
        self.0.iter()
    }
}

/// A piece of a pattern.
#[derive(Clone, Copy)]
enum Token<'a> {
    Byte(u8),
    AnyCharacter,
    /// One of the characters between the brackets, or one of the others.
    Class {
        members: &'a [u8],
        is_negated: bool,
    },
    /// `*`
    WithinComponent,
    /// `**`
    Anything,
    /// `**/` at the beginning of a component.
    Folders,
}

impl<'a> Token<'a> {
    /// The piece of `source` that begins at `at`, and where the next one does.
    fn read(source: &'a [u8], at: usize) -> Result<(Self, usize), PatternError> {
        let rest = &source[at..];
        Ok(match rest {
            [b'*', b'*', b'/', ..] if at == 0 || source[at - 1] == b'/' => (Self::Folders, at + 3),
            [b'*', b'*', ..] => (Self::Anything, at + 2),
            [b'*', ..] => (Self::WithinComponent, at + 1),
            [b'?', ..] => (Self::AnyCharacter, at + 1),
            [b'\\', byte, ..] => (Self::Byte(*byte), at + 2),
            [b'\\'] => return Err(PatternError::Escape),
            [b'[', inner @ ..] => {
                let is_negated = matches!(inner.first(), Some(b'!' | b'^'));
                let begin = at + 1 + usize::from(is_negated);
                let members = class_members(&source[begin..]).ok_or(PatternError::Class)?;
                (Self::Class { members, is_negated }, begin + members.len() + 1)
            }
            [byte, ..] => (Self::Byte(*byte), at + 1),
            [] => (Self::Anything, at),
        })
    }

    /// Goes on from each place at which the pattern could end before this piece; the new last place.
    fn step(self, name: &[u8], ends: &mut [bool], first: usize, last: usize) -> usize {
        match self {
            Self::Byte(byte) => advance(name, ends, first, last, |at| (name[at] == byte).then_some(at + 1)),
            Self::AnyCharacter => advance(name, ends, first, last, |at| {
                let (character, behind) = character(name, at);
                (character != SLASH).then_some(behind)
            }),
            Self::Class { members, is_negated } => advance(name, ends, first, last, |at| {
                let (character, behind) = character(name, at);
                let is_one = character != SLASH && is_member(character, members) != is_negated;
                is_one.then_some(behind)
            }),
            Self::WithinComponent => spread(name, ends, first, |reached, byte| reached && byte != b'/'),
            Self::Anything => spread(name, ends, first, |reached, _| reached),
            Self::Folders => {
                let mut seen = false;
                let mut most = last;
                for at in first..name.len() {
                    seen |= ends[at];
                    if seen && name[at] == b'/' {
                        // Looked at in the next round, where `seen` is true anyway.
                        ends[at + 1] = true;
                        most = most.max(at + 1);
                    }
                }
                most
            }
        }
    }
}

/// Moves each place to where `next` says, or drops it.
fn advance(
    name: &[u8],
    ends: &mut [bool],
    first: usize,
    last: usize,
    next: impl Fn(usize) -> Option<usize>,
) -> usize {
    let mut most = first;
    // From behind: nothing moves to a place that is still to be looked at.
    for at in (first..=last).rev() {
        if !std::mem::take(&mut ends[at]) || at == name.len() {
            continue;
        }
        if let Some(behind) = next(at) {
            ends[behind] = true;
            most = most.max(behind);
        }
    }
    most
}

/// Keeps each place, and adds those behind it as far as `goes_on` says.
fn spread(name: &[u8], ends: &mut [bool], first: usize, goes_on: impl Fn(bool, u8) -> bool) -> usize {
    let mut most = first;
    for at in first..ends.len() {
        if at > first && !ends[at] {
            ends[at] = goes_on(ends[at - 1], name[at - 1]);
        }
        if ends[at] {
            most = at;
        }
    }
    most
}

const SLASH: u32 = b'/' as u32;
/// Above all characters: a byte that is none.
const STRAY_BYTE: u32 = 0x11_0000;

/// The character at a place, and the place behind it.
fn character(bytes: &[u8], at: usize) -> (u32, usize) {
    let len = match bytes[at] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let text = bytes.get(at..at + len).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match text.and_then(|text| text.chars().next()) {
        Some(character) => (u32::from(character), at + len),
        None => (STRAY_BYTE + u32::from(bytes[at]), at + 1),
    }
}

/// What stands before the `]` that ends a class: at least one member, a first `]` among them.
fn class_members(bytes: &[u8]) -> Option<&[u8]> {
    let end = 1 + bytes.get(1..)?.iter().position(|&byte| byte == b']')?;
    let members = &bytes[..end];
    ranges(members).all(|(low, high)| low <= high).then_some(members)
}

/// The members of a class as ranges.
fn ranges(members: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= members.len() {
            return None;
        }
        let (low, behind) = character(members, at);
        let is_range = members.get(behind) == Some(&b'-') && behind + 1 < members.len();
        let (high, behind) = if is_range { character(members, behind + 1) } else { (low, behind) };
        at = behind;
        Some((low, high))
    })
}

fn is_member(character: u32, members: &[u8]) -> bool {
    ranges(members).any(|(low, high)| (low..=high).contains(&character))
}

#[cfg(test)]
#[path = "patterns/tests.rs"]
mod tests;
