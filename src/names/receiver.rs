//! What those are called who listen for files, and what files that are on their way to them are called.
//!
//! A file that is pushed lies in a folder of the server's state, under a name that no peer can say: it is reserved,
//! so [`FileName::parse`] refuses it, and only the makers here give one out. Who may read which is decided by the
//! service.

use std::fmt;
use std::str::FromStr;

use super::FileName;
use crate::limits::RECEIVER_MAX;

/// How the name of every file begins that is on its way to a receiver.
const PUSHED_PREFIX: &str = ".oneport-push/";

/// What tells a file that is on its way to a receiver from all others; random.
pub type PushId = [u8; PUSH_ID_LEN];
/// Length of a [`PushId`], in bytes.
pub const PUSH_ID_LEN: usize = 16;

/// Name under which somebody listens: 1 to [`RECEIVER_MAX`] letters, digits, `.`, `_` or `-`. It may stand in any log.
///
/// ```
/// use oneport::names::ReceiverName;
///
/// assert!("printer-2".parse::<ReceiverName>().is_ok());
/// assert!("../printer".parse::<ReceiverName>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiverName(Box<str>);

/// Why something is not the name of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a receiver is 1 to {RECEIVER_MAX} letters, digits, '.', '_' or '-'")]
pub struct ReceiverNameError;

impl ReceiverName {
    /// Parses a name as a peer said it.
    ///
    /// # Errors
    /// [`ReceiverNameError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiverNameError> {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let is_one = (1..=RECEIVER_MAX).contains(&bytes.len()) && bytes.iter().all(fits);
        let text = std::str::from_utf8(bytes).ok().filter(|_| is_one);
        text.map(|text| Self(text.into())).ok_or(ReceiverNameError)
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ReceiverName {
    type Err = ReceiverNameError;

    fn from_str(text: &str) -> Result<Self, ReceiverNameError> {
        Self::parse(text.as_bytes())
    }
}

impl fmt::Display for ReceiverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FileName {
    /// The name of a file that is on its way to a receiver.
    pub(crate) fn pushed(id: &PushId) -> Self {
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{PUSHED_PREFIX}{hex}").into_bytes().into())
    }

    /// The name of such a file, by its last component.
    pub(crate) fn pushed_base(base: &[u8]) -> Option<Self> {
        parse_id(base).map(|id| Self::pushed(&id))
    }

    /// Whether it is such a name.
    pub(crate) fn is_pushed(&self) -> bool {
        self.0.starts_with(PUSHED_PREFIX.as_bytes())
    }
}

/// Whether some bytes, of which nobody has looked at more, begin as the name of a file on its way to a receiver.
pub(crate) fn may_be_pushed(name: &[u8]) -> bool {
    name.starts_with(PUSHED_PREFIX.as_bytes())
}

/// The number in a name that [`FileName::pushed`] has made.
pub(crate) fn pushed_id(name: &[u8]) -> Option<PushId> {
    parse_id(name.strip_prefix(PUSHED_PREFIX.as_bytes())?)
}

fn parse_id(hex: &[u8]) -> Option<PushId> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut id = PushId::default();
    if hex.len() != 2 * PUSH_ID_LEN {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NameError;

    #[test]
    fn receivers_have_names_that_can_stand_anywhere() {
        for name in ["a", "printer-2", "A.b_c", &"x".repeat(RECEIVER_MAX)] {
            assert_eq!(name.parse::<ReceiverName>().unwrap().to_string(), name);
        }
        for name in ["", "a b", "a/b", "ü", "a\n", "a\0", &"x".repeat(RECEIVER_MAX + 1)] {
            assert_eq!(name.parse::<ReceiverName>(), Err(ReceiverNameError), "{name:?}");
        }
    }

    #[test]
    fn no_peer_can_say_the_name_of_a_file_on_its_way() {
        let id = std::array::from_fn(|at| u8::try_from(at * 16 + 1).unwrap());
        let name = FileName::pushed(&id);
        assert!(name.is_pushed());
        assert_eq!(pushed_id(name.as_bytes()), Some(id));
        assert_eq!(FileName::parse(name.as_bytes()), Err(NameError::Reserved));
        for other in ["", "x", ".oneport-push", ".oneport-push/", ".oneport-push/0", ".oneport-push/../x"] {
            assert_eq!(pushed_id(other.as_bytes()), None, "{other}");
        }
        let upper = name.to_string().to_uppercase().to_lowercase().replace('a', "A");
        assert_eq!(pushed_id(upper.as_bytes()), None, "one name, one spelling");
    }
}
