use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn pattern(source: &[u8]) -> Pattern {
    Pattern::parse(Verdict::Exclude, Bytes::copy_from_slice(source)).unwrap()
}

#[track_caller]
fn is(source: &str, name: &str, matches: bool) {
    assert_eq!(pattern(source.as_bytes()).matches(name.as_bytes()), matches, "'{source}' and '{name}'");
}

#[test]
fn a_pattern_without_a_slash_means_the_last_component_at_any_depth() {
    for name in ["x.txt", "a/x.txt", "a/b/x.txt"] {
        is("*.txt", name, true);
        is("x.???", name, true);
        is("[w-y].t*", name, true);
        is("*.pdf", name, false);
    }
    is("a", "a/b", false);
    is("**", "a/b", true);
    is("x*", "x/y", false);
}

#[test]
fn a_pattern_with_a_slash_means_the_whole_name() {
    is("a/*", "a/b", true);
    is("a/*", "a/b/c", false);
    is("a/**", "a/b/c", true);
    is("a/**", "a", false);
    is("a/**/c", "a/c", true);
    is("a/**/c", "a/b/b/c", true);
    is("a/**/c", "a/bc", false);
    is("**/c", "c", true);
    is("**/c", "a/b/c", true);
    is("**/c", "a/bc", false);
    is("*/c", "c", false);
    is("**/a/*/b", "x/a/y/b", true);
    is("**/a/*/b", "a/y/z/b", false);
    is("a**/c", "ab/d/c", true);
}

#[test]
fn classes_and_escapes_are_single_characters() {
    is("[!a]", "b", true);
    is("[!a]", "a", false);
    is("[]x]", "]", true);
    is("[a-]", "-", true);
    is("[ä-ö]?", "ö€", true);
    is("[ä-ö]", "a", false);
    is("\\*", "*", true);
    is("\\*", "a", false);
    is("a\\/b", "a/b", true);
    is("a/[!x]b", "a//b", false);
    is("?", "é", true);
    is("??", "é", false);
}

#[test]
fn names_that_are_not_text_count_byte_by_byte() {
    assert!(pattern(b"\xff*").matches(b"a/\xff\xfe"));
    assert!(pattern(b"??").matches(b"\xff\xfe"));
    assert!(pattern(b"[\xfe\xff]").matches(b"\xff"));
    assert!(pattern(b"*\xc3").matches(b"x\xc3"), "half of a character");
}

#[test]
fn what_is_no_pattern_is_refused_for_its_own_reason() {
    use PatternError::*;
    let long = [b'x'; PATTERN_MAX + 1];
    for (source, error) in [
        (&b""[..], Empty),
        (&long, TooLong),
        (b"a[b", Class),
        (b"[]", Class),
        (b"[!]", Class),
        (b"[z-a]", Class),
        (b"a\\", Escape),
        (b"/a", Slash),
        (b"a/", Slash),
    ] {
        assert_eq!(Pattern::parse(Verdict::Include, Bytes::copy_from_slice(source)), Err(error));
    }
    assert!(Pattern::parse(Verdict::Include, Bytes::copy_from_slice(&long[1..])).is_ok());
    assert_eq!(Patterns::new(vec![pattern(b"x"); PATTERNS_MAX + 1]), Err(TooMany));
}

#[test]
fn the_first_pattern_that_matches_decides() {
    let of = |verdict, source: &'static str| Pattern::parse(verdict, source.into()).unwrap();
    let patterns = Patterns::new(vec![of(Verdict::Include, "keep.o"), of(Verdict::Exclude, "*.o")]).unwrap();
    assert!(patterns.include(b"a/keep.o") && patterns.include(b"a.c") && !patterns.include(b"a/b.o"));
    assert!(Patterns::default().include(b"anything"));
}

#[test]
fn no_pattern_takes_longer_than_the_product_of_the_lengths() {
    let name = vec![b'a'; 4096];
    for source in ["*a".repeat(512), "**a".repeat(341), "[!b]*".repeat(204), "?*".repeat(512)] {
        let began = Instant::now();
        let mut hostile = source.into_bytes();
        hostile.truncate(PATTERN_MAX - 1);
        hostile.push(b'b');
        assert!(!pattern(&hostile).matches(&name));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

/// The meaning of a pattern, written down as simply as can be; it may take for ever.
fn plainly(pattern: &[u8], name: &[u8], begins: bool) -> bool {
    let skip = |count: usize| (0..=name.len()).filter(move |at| *at >= count);
    match pattern {
        [] => name.is_empty(),
        [b'*', b'*', b'/', rest @ ..] if begins => {
            plainly(rest, name, true)
                || skip(1).any(|at| name[at - 1] == b'/' && plainly(rest, &name[at..], true))
        }
        [b'*', b'*', rest @ ..] => skip(0).any(|at| plainly(rest, &name[at..], false)),
        [b'*', rest @ ..] => {
            skip(0).any(|at| !name[..at].contains(&b'/') && plainly(rest, &name[at..], false))
        }
        [b'?', rest @ ..] => name.first().is_some_and(|&b| b != b'/') && plainly(rest, &name[1..], false),
        [byte, rest @ ..] => name.first() == Some(byte) && plainly(rest, &name[1..], *byte == b'/'),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn matching_means_what_it_says(source in "[ab/*?]{1,9}", name in "[ab/]{0,9}") {
        let parsed = Pattern::parse(Verdict::Include, Bytes::from(source.clone()));
        let Ok(parsed) = parsed else { return Ok(()) };
        let compared = if source.contains('/') { name.as_bytes() } else { base(name.as_bytes()) };
        prop_assert_eq!(parsed.matches(name.as_bytes()), plainly(source.as_bytes(), compared, true));
    }

    #[test]
    fn no_bytes_make_it_panic(source in proptest::collection::vec(any::<u8>(), 0..40),
                              name in proptest::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(pattern) = Pattern::parse(Verdict::Include, source.into()) {
            let _ = pattern.matches(&name);
        }
    }
}
