//! A command as a user writes it, cut into words.
//!
//! White space separates words. Between `'` and `'` everything stands for itself; between `"` and `"` everything but
//! `\"` and `\\`; elsewhere a backslash makes the next character stand for itself. Nothing else is special: no
//! variables, no patterns, no pipes. Who wants those names a shell: `sh -c '...'`.

use std::str::{Chars, FromStr};

use serde::Deserialize;

/// A command: a program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Words {
    program: String,
    arguments: Vec<String>,
}

/// Why a text is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordsError {
    /// There is no word in it.
    #[error("it names no program")]
    Empty,
    /// A quote has no end.
    #[error("a quote is not closed: {0}")]
    Unclosed(char),
    /// It ends in a backslash.
    #[error("nothing follows the backslash at its end")]
    Backslash,
    /// A NUL cannot be passed to a program.
    #[error("it holds a NUL")]
    Nul,
}

impl Words {
    /// The program: a path, or a name that is looked for where the system looks for programs.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// What the program is given.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }
}

impl FromStr for Words {
    type Err = WordsError;

    fn from_str(text: &str) -> Result<Self, WordsError> {
        if text.contains('\0') {
            return Err(WordsError::Nul);
        }
        let mut chars = text.chars();
        let mut words = Vec::new();
        // None between words; an empty one may be given by quotes.
        let mut word: Option<String> = None;
        while let Some(c) = chars.next() {
            if c.is_ascii_whitespace() {
                words.extend(word.take());
                continue;
            }
            let word = word.get_or_insert_default();
            match c {
                '\'' | '"' => quoted(&mut chars, c, word)?,
                '\\' => word.push(chars.next().ok_or(WordsError::Backslash)?),
                other => word.push(other),
            }
        }
        words.extend(word);
        let mut words = words.into_iter();
        let program = words.next().filter(|program| !program.is_empty()).ok_or(WordsError::Empty)?;
        Ok(Self { program, arguments: words.collect() })
    }
}

impl TryFrom<String> for Words {
    type Error = WordsError;

    fn try_from(text: String) -> Result<Self, WordsError> {
        text.parse()
    }
}

/// Takes what stands before the closing quote.
fn quoted(chars: &mut Chars<'_>, quote: char, word: &mut String) -> Result<(), WordsError> {
    while let Some(c) = chars.next() {
        match c {
            closing if closing == quote => return Ok(()),
            '\\' if quote == '"' => match chars.next() {
                Some(escaped @ ('"' | '\\')) => word.push(escaped),
                Some(other) => word.extend(['\\', other]),
                None => break,
            },
            other => word.push(other),
        }
    }
    Err(WordsError::Unclosed(quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_cut_as_it_says() {
        for (text, words) in [
            ("notify", &["notify"][..]),
            ("  a\tb \n c ", &["a", "b", "c"]),
            ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
            ("a '' \"\"", &["a", "", ""]),
            (r"a b\ c \'d \\", &["a", "b c", "'d", r"\"]),
            (r#"a "b\"c\\d\n" 'e\'"#, &["a", r#"b"c\d\n"#, r"e\"]),
            ("a'b'\"c\"d", &["abcd"]),
            (
                "sh -c 'echo \"$ONEPORT_NAME\" | tr a b > x'",
                &["sh", "-c", "echo \"$ONEPORT_NAME\" | tr a b > x"],
            ),
            ("a $HOME * ; b", &["a", "$HOME", "*", ";", "b"]),
        ] {
            let cut: Words = text.parse().unwrap();
            let all: Vec<_> =
                [cut.program()].into_iter().chain(cut.arguments().iter().map(String::as_str)).collect();
            assert_eq!(all, words, "{text}");
        }
        for (text, error) in [
            ("", WordsError::Empty),
            (" \t", WordsError::Empty),
            ("'' a", WordsError::Empty),
            ("a 'b", WordsError::Unclosed('\'')),
            ("a \"b\\", WordsError::Unclosed('"')),
            ("a \\", WordsError::Backslash),
            ("a\0b", WordsError::Nul),
        ] {
            assert_eq!(text.parse::<Words>(), Err(error), "{text:?}");
        }
    }
}
