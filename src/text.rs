//! Text from elsewhere, made safe to show.
//!
//! File names and peers' messages may hold line breaks, terminal control sequences or characters
//! that reverse the reading direction; and somebody may have put a key where a name belongs. Whatever
//! prints such text goes through this module, which escapes the ones and leaves out the secret of the
//! others. It never changes what is stored or sent as a name.

use std::fmt::{self, Display, Write};

use crate::token;

/// Text for a person's terminal: whatever could steer it is escaped, the rest stands as it is.
pub fn shown(bytes: &[u8]) -> impl Display + '_ {
    Escaped { bytes, log: false, whole: false }
}

/// A name of which somebody wants to know what it is, for a list that programs read too: as [`shown`], but
/// nothing is left out of it. A file may be called as if it were a key.
pub fn listed(bytes: &[u8]) -> impl Display + '_ {
    Escaped { bytes, log: false, whole: true }
}

/// Text for a log line: as [`shown`], and backslashes and percent signs are escaped too, so that an
/// escape can be told from a name that looks like one and a name never reads as progress (`50%`).
pub fn logged(bytes: &[u8]) -> impl Display + '_ {
    Escaped { bytes, log: true, whole: false }
}

/// Stands where something is missing.
const ELLIPSIS: &str = "…";

/// Cuts `text` to at most `max` bytes, at a character, with an ellipsis where something is missing.
#[must_use]
pub fn shortened(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max.saturating_sub(ELLIPSIS.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ELLIPSIS}", &text[..end])
}

/// A JSON text that no terminal acts on: characters that JSON leaves alone but a terminal might not
/// (DEL, C1 controls, direction marks) become `\u` escapes. They can stand only inside strings, so the
/// value stays the same.
#[must_use]
pub fn json_for_terminal(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) && c >= '\u{7f}' {
            let mut units = [0_u16; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

struct Escaped<'a> {
    bytes: &'a [u8],
    log: bool,
    /// Nothing is left out.
    whole: bool,
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut from = 0;
        let secrets = if self.whole { &b""[..] } else { self.bytes };
        for secret in token::secrets(secrets) {
            self.write(&self.bytes[from..secret.start], f)?;
            f.write_str(ELLIPSIS)?;
            from = secret.end;
        }
        self.write(&self.bytes[from..], f)
    }
}

impl Escaped<'_> {
    fn is_escaped(&self, c: char) -> bool {
        steers(c) || (self.log && matches!(c, '\\' | '%'))
    }

    fn write(&self, bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in bytes.utf8_chunks() {
            // Almost all names have nothing to escape, and what stands as it is goes in one piece.
            let mut rest = chunk.valid();
            while let Some((at, c)) = rest.char_indices().find(|&(_, c)| self.is_escaped(c)) {
                f.write_str(&rest[..at])?;
                match c {
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    '\\' => f.write_str("\\\\")?,
                    '%' => f.write_str("\\x25")?,
                    c => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                }
                rest = &rest[at + c.len_utf8()..];
            }
            f.write_str(rest)?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Whether a terminal or a text field may act on this character instead of showing it: controls,
/// line and paragraph separators, zero-width and direction marks, tags.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_shown_as_they_are() {
        let name = "Bericht – 2026 (final) 日本.txt";
        assert_eq!(shown(name.as_bytes()).to_string(), name);
        assert_eq!(logged(name.as_bytes()).to_string(), name);
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        let hostile = "a\x1b[2J\n\u{9b}31m\u{202e}txt\u{2028}\u{7f}";
        for text in [shown(hostile.as_bytes()).to_string(), logged(hostile.as_bytes()).to_string()] {
            assert!(!text.chars().any(steers), "{text}");
        }
        assert_eq!(shown(b"\xff\x80ok").to_string(), "\\xff\\x80ok");
    }

    #[test]
    fn a_logged_name_never_looks_like_progress_or_like_an_escape() {
        assert_eq!(logged(b"50% \\n").to_string(), "50\\x25 \\\\n");
    }

    #[test]
    fn the_secret_of_a_key_is_never_shown_whatever_stands_around_it() {
        let token = token::Token::new(&std::array::from_fn(|at| 3 * u8::try_from(at).unwrap()));
        let (word, id) = (token.expose(), token.id());
        for (before, after) in
            [("", ""), ("a/", ".txt"), ("?oneport/2?key=", "&x=\u{1}"), ("ü\n", "\u{202e}")]
        {
            let text = format!("{before}{word}{after}");
            let (plain, log) = (shown(text.as_bytes()).to_string(), logged(text.as_bytes()).to_string());
            for escaped in [plain, log] {
                assert!(escaped.contains(&format!("oneport_{id}…")), "{escaped}");
                assert!(!escaped.contains(&word[20..26]), "{escaped}");
            }
        }
        assert_eq!(
            shown(format!("{word} {word}").as_bytes()).to_string(),
            format!("oneport_{id}… oneport_{id}…")
        );
        assert_eq!(shown(b"oneport_notes.txt").to_string(), "oneport_notes.txt");
        assert_eq!(listed(b"oneport_documentation.txt\n").to_string(), "oneport_documentation.txt\\n");
    }

    #[test]
    fn json_keeps_its_value_and_loses_its_controls() {
        let value = serde_json::json!({ "name": "x\u{9b}31m\u{202e}\u{e0001}\u{7f}\n" });
        let safe = json_for_terminal(&value.to_string());
        assert!(!safe.chars().any(steers), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn shortening_respects_characters_and_the_bound() {
        assert_eq!(shortened("abc", 3), "abc");
        let cut = shortened(&"ä".repeat(100), 50);
        assert!(cut.len() <= 50 && cut.ends_with('…'), "{cut}");
    }
}
