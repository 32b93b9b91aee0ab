//! Patterns that choose among names: never a panic, what is one matches what a matcher says that was written
//! for nothing but to be simple, and the first that matches decides.
#![no_main]

use std::collections::HashMap;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use oneport::limits::PATTERN_MAX;
use oneport::patterns::{Pattern, Patterns, Verdict};
use oneport_fuzz::cut;

/// Steps that the simple matcher may need for one name.
const SIMPLE_MAX: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((_, source, name)) = cut(input) else { return };
    let parsed = Pattern::parse(Verdict::Exclude, Bytes::copy_from_slice(source));
    check_escaped(name);
    let Ok(pattern) = parsed else { return };
    assert!((1..=PATTERN_MAX).contains(&source.len()));
    assert_eq!(pattern.source(), source);
    let matches = pattern.matches(name);
    let part = if source.contains(&b'/') { name } else { last(name) };
    if (source.len() + 1) * (part.len() + 1).pow(2) <= SIMPLE_MAX {
        assert_eq!(matches, Simple { source, name: part, known: HashMap::new() }.matches(0, 0));
    }
    let include = Pattern::parse(Verdict::Include, Bytes::copy_from_slice(source)).expect("it is one");
    let ordered =
        |patterns: Vec<Pattern>| Patterns::new(patterns).expect("two are not too many").include(name);
    assert_eq!(ordered(vec![pattern.clone()]), !matches);
    assert_eq!(ordered(vec![pattern.clone(), include.clone()]), !matches);
    assert!(ordered(vec![include, pattern]));
});

/// A name whose every byte has lost its meaning is matched by itself, and by nothing that is longer.
fn check_escaped(name: &[u8]) {
    let source: Vec<u8> = name.iter().flat_map(|&byte| [b'\\', byte]).collect();
    let Ok(pattern) = Pattern::parse(Verdict::Exclude, source.into()) else { return };
    assert!(pattern.matches(name));
    assert!(!pattern.matches(&[name, b"x"].concat()));
}

fn last(name: &[u8]) -> &[u8] {
    name.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

/// Tries everything, and remembers what came of it.
struct Simple<'a> {
    source: &'a [u8],
    name: &'a [u8],
    known: HashMap<(usize, usize), bool>,
}

impl Simple<'_> {
    /// Whether the pattern from `at` on matches the name from `from` on.
    fn matches(&mut self, at: usize, from: usize) -> bool {
        if let Some(&known) = self.known.get(&(at, from)) {
            return known;
        }
        let matches = self.try_all(at, from);
        self.known.insert((at, from), matches);
        matches
    }

    fn try_all(&mut self, at: usize, from: usize) -> bool {
        let (name, source) = (self.name, self.source);
        let begins = at == 0 || source[at - 1] == b'/';
        match &source[at..] {
            [] => from == name.len(),
            [b'*', b'*', b'/', ..] if begins => {
                self.matches(at + 3, from)
                    || (from..name.len()).any(|to| name[to] == b'/' && self.matches(at + 3, to + 1))
            }
            [b'*', b'*', ..] => (from..=name.len()).any(|to| self.matches(at + 2, to)),
            [b'*', ..] => {
                let most = name[from..].iter().position(|&byte| byte == b'/').unwrap_or(name.len() - from);
                (from..=from + most).any(|to| self.matches(at + 1, to))
            }
            [b'?', ..] => match first(&name[from..]) {
                Some((one, len)) if one != '/' as u32 => self.matches(at + 1, from + len),
                _ => false,
            },
            [b'[', inner @ ..] => {
                let is_negated = matches!(inner, [b'!' | b'^', ..]);
                let members = &inner[usize::from(is_negated)..];
                let end = 1 + members[1..].iter().position(|&byte| byte == b']').expect("it was checked");
                let behind = at + 1 + usize::from(is_negated) + end + 1;
                match first(&name[from..]) {
                    Some((one, len)) if one != '/' as u32 && is_among(one, &members[..end]) != is_negated => {
                        self.matches(behind, from + len)
                    }
                    _ => false,
                }
            }
            [b'\\', byte, ..] => name.get(from) == Some(byte) && self.matches(at + 2, from + 1),
            [byte, ..] => name.get(from) == Some(byte) && self.matches(at + 1, from + 1),
        }
    }
}

/// The first character, and its length; what is none is a byte, above all characters.
fn first(bytes: &[u8]) -> Option<(u32, usize)> {
    let &byte = bytes.first()?;
    let text = (1..=bytes.len().min(4)).find_map(|len| std::str::from_utf8(&bytes[..len]).ok());
    let character = text.and_then(|text| text.chars().next());
    Some(character.map_or((0x11_0000 + u32::from(byte), 1), |one| (one.into(), one.len_utf8())))
}

fn is_among(one: u32, mut members: &[u8]) -> bool {
    while let Some((low, len)) = first(members) {
        members = &members[len..];
        let mut high = low;
        if let [b'-', rest @ ..] = members
            && let Some((above, len)) = first(rest)
        {
            high = above;
            members = &rest[len..];
        }
        if (low..=high).contains(&one) {
            return true;
        }
    }
    false
}
