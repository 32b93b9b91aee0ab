//! `--name-template`: how the server calls what it receives.
//!
//! A template is text with placeholders in braces; `{{` and `}}` stand for braces. What a placeholder stands for is put in as it
//! is, and what comes out is parsed like a name of a peer: no template and no name that a client asks for leads out of
//! the folder that is served.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::names::{FileName, NameError, base};
use crate::service::ToName;

/// Most digits of a number that has a width.
const WIDTH_MAX: usize = 19;
/// What stands for the name of a key where there is none.
const NO_KEY: &[u8] = b"anybody";

/// How names are made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NameTemplate(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The whole name that was asked for.
    Name,
    /// Its folder, with a slash behind it; nothing if it has none.
    Folder,
    /// Its last component without the extension.
    Base,
    /// Its extension, with the dot before it; nothing if it has none.
    Extension,
    Key,
    /// A number with at least so many digits.
    Counter(usize),
    /// A part of the time (UTC), as `strftime` calls it.
    Time(&'static str),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// There is no such placeholder.
    #[error(
        "there is no {{{0}}}; there are name, folder, base, ext, key, counter (counter:6 for six digits), date, time, year, \
         month, day, hour, minute and second"
    )]
    Unknown(String),
    /// A brace has no counterpart.
    #[error("a brace has no counterpart; two of them stand for one: {{{{ and }}}}")]
    Brace,
    /// What it makes is no name.
    #[error("it makes names that are none, like '{name}': {source}")]
    Name {
        /// What it makes.
        name: String,
        /// Why that is none.
        #[source]
        source: NameError,
    },
}

impl NameTemplate {
    /// The name that it makes; it may be none.
    #[must_use]
    pub fn make(&self, file: &ToName<'_>) -> Vec<u8> {
        let ToName { name, key, time, counter, .. } = *file;
        let (stem, extension) = split(name);
        let time = time.to_zoned(TimeZone::UTC);
        let mut made = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => made.extend_from_slice(text.as_bytes()),
                Piece::Name => made.extend_from_slice(name.as_bytes()),
                Piece::Folder => {
                    let folder = name.as_bytes().len() - name.base().len();
                    made.extend_from_slice(&name.as_bytes()[..folder]);
                }
                Piece::Base => made.extend_from_slice(stem),
                Piece::Extension => made.extend_from_slice(extension),
                Piece::Key => made.extend_from_slice(key.map_or(NO_KEY, |key| key.as_str().as_bytes())),
                Piece::Counter(width) => made.extend_from_slice(format!("{counter:0width$}").as_bytes()),
                Piece::Time(format) => made.extend_from_slice(time.strftime(*format).to_string().as_bytes()),
            }
        }
        made
    }

    /// Makes a name for an ordinary file, so that a template that never makes one is noticed at the start.
    fn check(self) -> Result<Self, TemplateError> {
        let asked = FileName::parse(b"folder/name.ext");
        let made = asked.map(|name| {
            let key = "key".parse().ok();
            let file = ToName::new(&name, key.as_ref(), Timestamp::UNIX_EPOCH, 1);
            self.make(&file)
        });
        let made = made.unwrap_or_default();
        match FileName::parse(&made) {
            Ok(_) => Ok(self),
            Err(source) => Err(TemplateError::Name { name: crate::text::shown(&made).to_string(), source }),
        }
    }
}

impl FromStr for NameTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let (mut pieces, mut plain, mut chars) = (Vec::new(), String::new(), text.chars().peekable());
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.next_if_eq(&c).is_some() => plain.push(c),
                '}' => return Err(TemplateError::Brace),
                '{' => {
                    let mut word = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some('{') | None => return Err(TemplateError::Brace),
                            Some(other) => word.push(other),
                        }
                    }
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(piece(&word).ok_or(TemplateError::Unknown(word))?);
                }
                other => plain.push(other),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Self(pieces).check()
    }
}

impl TryFrom<String> for NameTemplate {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        text.parse()
    }
}

fn piece(word: &str) -> Option<Piece> {
    Some(match word {
        "name" => Piece::Name,
        "folder" => Piece::Folder,
        "base" => Piece::Base,
        "ext" => Piece::Extension,
        "key" => Piece::Key,
        "counter" => Piece::Counter(0),
        "date" => Piece::Time("%Y-%m-%d"),
        "time" => Piece::Time("%H-%M-%S"),
        "year" => Piece::Time("%Y"),
        "month" => Piece::Time("%m"),
        "day" => Piece::Time("%d"),
        "hour" => Piece::Time("%H"),
        "minute" => Piece::Time("%M"),
        "second" => Piece::Time("%S"),
        other => {
            let width = other.strip_prefix("counter:")?;
            let is_number = !width.is_empty() && width.bytes().all(|byte| byte.is_ascii_digit());
            let width = is_number.then(|| width.parse().ok()).flatten()?;
            (1..=WIDTH_MAX).contains(&width).then_some(Piece::Counter(width))?
        }
    })
}

/// The last component of a name, before and from its last dot on. A dot at its beginning is no beginning of an extension.
fn split(name: &FileName) -> (&[u8], &[u8]) {
    let base = base(name.as_bytes());
    match base.iter().rposition(|&byte| byte == b'.') {
        Some(at @ 1..) => base.split_at(at),
        _ => (base, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(template: &str, name: &[u8], counter: u64) -> Vec<u8> {
        let (name, key) = (FileName::parse(name).unwrap(), "me".parse().unwrap());
        // 2026-11-22 07:05:09 UTC.
        let time = Timestamp::from_second(1_795_331_109).unwrap();
        template.parse::<NameTemplate>().unwrap().make(&ToName::new(&name, Some(&key), time, counter))
    }

    #[test]
    fn every_placeholder_stands_for_what_it_says() {
        for (template, name, expected) in [
            ("{name}", "a/b.txt", "a/b.txt"),
            ("in/{base}{ext}", "a/b.txt", "in/b.txt"),
            ("{folder}{counter}{ext}", "a/b/c.tar.gz", "a/b/7.gz"),
            ("{folder}{counter:4}-{base}", "x", "0007-x"),
            ("{key}/{date}/{time}{ext}", ".hidden", "me/2026-11-22/07-05-09"),
            ("{year}/{month}/{day}/{hour}{minute}{second}_{base}", "a..b", "2026/11/22/070509_a."),
            ("{{{base}}}", "x", "{x}"),
            ("}}x{{", "y", "}x{"),
        ] {
            let found = made(template, name.as_bytes(), 7);
            assert_eq!(String::from_utf8_lossy(&found), expected, "{template} of {name}");
        }
        assert_eq!(made("{base}_{counter}{ext}", b"\xff.\xfe", 12), b"\xff_12.\xfe", "names are bytes");
    }

    #[test]
    fn what_is_no_template_is_refused_when_it_is_read() {
        for (template, expected) in [
            ("{what}", TemplateError::Unknown("what".to_owned())),
            ("{}", TemplateError::Unknown(String::new())),
            ("{counter:0}", TemplateError::Unknown("counter:0".to_owned())),
            ("{counter:20}", TemplateError::Unknown("counter:20".to_owned())),
            ("{counter:+1}", TemplateError::Unknown("counter:+1".to_owned())),
            ("{Name}", TemplateError::Unknown("Name".to_owned())),
            ("{name", TemplateError::Brace),
            ("name}", TemplateError::Brace),
            ("{na{me}", TemplateError::Brace),
        ] {
            assert_eq!(template.parse::<NameTemplate>(), Err(expected), "{template}");
        }
        for template in
            ["", "/{name}", "../{name}", "{base}/", "a//{base}", ".oneport/{base}", ".oneport-{base}", "a\0"]
        {
            let error = template.parse::<NameTemplate>().unwrap_err();
            assert!(matches!(error, TemplateError::Name { .. }), "{template}: {error}");
        }
    }

    #[test]
    fn a_hostile_name_makes_no_name_that_is_one_elsewhere() {
        for (template, name) in [("{base}/x", ".."), ("{ext}/x", "a.."), ("{key}{ext}", "..")] {
            // Names like these do not get as far as a template: they are none themselves.
            assert!(FileName::parse(name.as_bytes()).is_err() || template == "{ext}/x");
        }
        // What is put together may be none, which is found when it is parsed.
        assert!(FileName::parse(&made("{ext}{ext}/x", b"a.", 1)).is_err(), "two dots");
        assert!(FileName::parse(&made("{base}port-{counter}", b".one", 1)).is_err(), "reserved");
    }
}
