//! The hello and the welcome: fields of text, which may grow.

use std::fmt::Write as _;

use bytes::{BufMut, Bytes, BytesMut};

use super::{ClientFrame, LENGTH_LEN, WINDOW_MAX};
use crate::limits::{V2_REQUESTS_MAX, V2_WINDOW};

/// How a hello begins that this version understands.
const PREFIX: &str = "?oneport/2?";
/// Longest hello, in bytes.
const HELLO_MAX: usize = 1024;
/// Longest welcome, in bytes.
pub const WELCOME_MAX: usize = 1024;
/// Capabilities in one list, at most.
const CAPABILITIES_MAX: usize = 64;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its minor version.
    pub minor: u32,
    /// Capabilities without which it cannot go on.
    pub need: Vec<String>,
    /// Capabilities that it understands.
    pub may: Vec<String>,
    /// Bytes of DATA that may be under way for each request.
    pub window: u64,
    /// Its first request.
    pub first: Option<ClientFrame>,
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its minor version.
    pub minor: u32,
    /// Capabilities that it has.
    pub may: Vec<String>,
    /// Requests that may be in flight on this connection.
    pub requests: u32,
}

/// What is wrong with a hello or a welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// It is of a version that is not known here.
    #[error("the version is not known")]
    Version,
    /// It is longer than allowed.
    #[error("it is too long")]
    TooLong,
    /// It is not made of keys and values.
    #[error("its fields are broken")]
    Fields,
    /// A value is not what its key demands.
    #[error("a field has a wrong value")]
    Value,
}

impl Default for Hello {
    fn default() -> Self {
        Self { minor: 0, need: Vec::new(), may: Vec::new(), window: V2_WINDOW, first: None }
    }
}

impl Default for Welcome {
    fn default() -> Self {
        Self { minor: 0, may: Vec::new(), requests: V2_REQUESTS_MAX }
    }
}

impl Hello {
    /// Reads a hello: the name of a v1 request that begins with
    /// [`HELLO_PREFIX`](crate::names::HELLO_PREFIX).
    ///
    /// # Errors
    /// [`HelloError`]; it is to be refused as a name is.
    pub fn parse(name: &[u8]) -> Result<Self, HelloError> {
        if name.len() > HELLO_MAX {
            return Err(HelloError::TooLong);
        }
        let fields = name.strip_prefix(PREFIX.as_bytes()).ok_or(HelloError::Version)?;
        let fields = Fields::parse(fields)?;
        let mut hello = Self {
            minor: fields.number("minor")?.unwrap_or(0),
            need: fields.list("need")?,
            may: fields.list("may")?,
            ..Self::default()
        };
        if let Some(window) = fields.number("window")? {
            hello.window = window;
        }
        if hello.window > WINDOW_MAX {
            return Err(HelloError::Value);
        }
        if let Some(hex) = fields.value("first") {
            let frame = unhex(hex).ok_or(HelloError::Value)?;
            hello.first = Some(ClientFrame::decode_bare(frame).map_err(|_| HelloError::Value)?);
        }
        Ok(hello)
    }

    /// The hello as the name of a v1 request. A first request that does not fit is left out, and has
    /// to be sent after the welcome: the second value says whether it is in.
    #[must_use]
    pub fn to_name(&self) -> (Bytes, bool) {
        let mut name = format!("{PREFIX}minor={}", self.minor);
        if self.window != V2_WINDOW {
            let _ = write!(name, "&window={}", self.window);
        }
        for (key, list) in [("need", &self.need), ("may", &self.may)] {
            if !list.is_empty() {
                let _ = write!(name, "&{key}={}", list.join(","));
            }
        }
        let mut frame = BytesMut::new();
        let encoded = self.first.as_ref().map(|first| first.encode(&mut frame));
        let bare = frame.get(LENGTH_LEN..).unwrap_or_default();
        let fits = name.len() + "&first=".len() + 2 * bare.len() <= HELLO_MAX;
        let has_first = matches!(encoded, Some(Ok(()))) && fits;
        if has_first {
            name.push_str("&first=");
            for byte in bare {
                let _ = write!(name, "{byte:02x}");
            }
        }
        (name.into(), has_first)
    }
}

impl Welcome {
    pub(super) fn parse(text: &[u8]) -> Result<Self, HelloError> {
        let fields = Fields::parse(text)?;
        let default = Self::default();
        Ok(Self {
            minor: fields.number("minor")?.unwrap_or(default.minor),
            may: fields.list("may")?,
            requests: fields.number("requests")?.unwrap_or(1),
        })
    }

    pub(super) fn write(&self, dst: &mut BytesMut) {
        let text = format!("minor={}&requests={}&may={}", self.minor, self.requests, self.may.join(","));
        dst.put_slice(text.as_bytes());
    }
}

/// `KEY=VALUE`, joined by `&`.
#[derive(Debug)]
pub struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    /// Reads fields.
    ///
    /// # Errors
    /// [`HelloError::Fields`] if they are not of the form, or a key occurs twice.
    pub fn parse(text: &'a [u8]) -> Result<Self, HelloError> {
        let text = std::str::from_utf8(text).map_err(|_| HelloError::Fields)?;
        let mut fields: Vec<(&str, &str)> = Vec::new();
        for field in text.split('&').filter(|_| !text.is_empty()) {
            let (key, value) = field.split_once('=').ok_or(HelloError::Fields)?;
            let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            let is_value = value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=');
            if !is_key || !is_value || fields.iter().any(|(known, _)| *known == key) {
                return Err(HelloError::Fields);
            }
            fields.push((key, value));
        }
        Ok(Self(fields))
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, value)| *value)
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, HelloError> {
        let Some(digits) = self.value(key) else { return Ok(None) };
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(HelloError::Value);
        }
        digits.parse().map(Some).map_err(|_| HelloError::Value)
    }

    fn list(&self, key: &str) -> Result<Vec<String>, HelloError> {
        let Some(list) = self.value(key).filter(|list| !list.is_empty()) else { return Ok(Vec::new()) };
        let is_capability = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let words: Vec<String> = list.split(',').map(ToOwned::to_owned).collect();
        if words.len() > CAPABILITIES_MAX || !words.iter().all(|word| is_capability(word)) {
            return Err(HelloError::Value);
        }
        Ok(words)
    }
}

fn unhex(hex: &str) -> Option<Bytes> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    hex.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
