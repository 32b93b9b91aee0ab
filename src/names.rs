//! Names of files as peers say them.
//!
//! A name is parsed once, here, into a [`FileName`] that cannot leave the folder it is looked up
//! in. What is not such a name is rejected, never repaired. Looking at a disk is not done here.

use std::fmt;

use crate::limits::{COMPONENT_MAX, DEPTH_MAX, NAME_MAX};
use crate::text;

mod receiver;

pub use receiver::{PUSH_ID_LEN, PushId, ReceiverName, ReceiverNameError};
pub(crate) use receiver::{may_be_pushed, pushed_id};

/// Name of the folder that holds a server's state; never served.
pub const STATE_FOLDER: &str = ".oneport";

/// How the name of every file begins that is still being received; never served.
pub const STAGED_PREFIX: &str = ".oneport-";

/// How the "name" begins that is really the greeting of a later protocol version.
pub const HELLO_PREFIX: &[u8] = b"?oneport/";

/// A relative name of one file: one or more components joined by `/`, none of them empty, `.` or
/// `..`, none of them reserved. A name is bytes; a dialect that carries text asks [`Self::as_text`].
///
/// ```
/// use oneport::names::FileName;
///
/// assert!(FileName::parse(b"reports/2026.pdf").is_ok());
/// assert!(FileName::parse(b"reports/../../etc/passwd").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName(Box<[u8]>);

/// Why some bytes are not a [`FileName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is no byte in it.
    #[error("the name is empty")]
    Empty,
    /// It is longer than [`NAME_MAX`], or one component than [`COMPONENT_MAX`].
    #[error("the name is too long")]
    TooLong,
    /// It has more than [`DEPTH_MAX`] components.
    #[error("the name has too many components")]
    TooDeep,
    /// It holds a NUL byte.
    #[error("the name holds a NUL byte")]
    Nul,
    /// It starts at the root of a file system.
    #[error("the name is absolute")]
    Absolute,
    /// A component is empty, `.` or `..`.
    #[error("the name has an empty, '.' or '..' component")]
    Component,
    /// It names the server's own files or a protocol greeting.
    #[error("the name is reserved")]
    Reserved,
    /// It is not UTF-8 where the dialect demands it.
    #[error("the name is not UTF-8")]
    NotText,
}

impl FileName {
    /// Parses a name as a peer said it.
    ///
    /// # Errors
    /// Says what keeps `bytes` from being a name beneath a root.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        if bytes.contains(&0) {
            return Err(NameError::Nul);
        }
        if bytes[0] == b'/' {
            return Err(NameError::Absolute);
        }
        if bytes.starts_with(HELLO_PREFIX) {
            return Err(NameError::Reserved);
        }
        for (depth, component) in bytes.split(|&byte| byte == b'/').enumerate() {
            if depth >= DEPTH_MAX {
                return Err(NameError::TooDeep);
            }
            check_component(component)?;
        }
        Ok(Self(bytes.into()))
    }

    /// Parses a name of a dialect whose names are UTF-8 text.
    ///
    /// # Errors
    /// As [`Self::parse`], and [`NameError::NotText`].
    pub fn parse_text(bytes: &[u8]) -> Result<Self, NameError> {
        let name = Self::parse(bytes)?;
        std::str::from_utf8(bytes).map_err(|_| NameError::NotText)?;
        Ok(name)
    }

    /// The bytes of the whole name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as text, if it is UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/')
    }

    /// The name of the folder that holds it; empty for the root.
    #[must_use]
    pub fn folder(&self) -> &[u8] {
        let end = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or_default();
        &self.0[..end]
    }

    /// The last component.
    #[must_use]
    pub fn base(&self) -> &[u8] {
        base(&self.0)
    }
}

/// Shown escaped: a name never steers a terminal.
impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::shown(&self.0).fmt(f)
    }
}

/// What follows the last `/` of `name`: possibly nothing.
#[must_use]
pub fn base(name: &[u8]) -> &[u8] {
    name.rsplit(|&byte| byte == b'/').next().unwrap_or(name)
}

/// Whether a component is reserved for the system's own files, in whatever case: some file systems
/// fold it.
#[must_use]
pub fn is_reserved(component: &[u8]) -> bool {
    component.eq_ignore_ascii_case(STATE_FOLDER.as_bytes())
        || component
            .get(..STAGED_PREFIX.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(STAGED_PREFIX.as_bytes()))
}

fn check_component(component: &[u8]) -> Result<(), NameError> {
    match component {
        b"" | b"." | b".." => Err(NameError::Component),
        long if long.len() > COMPONENT_MAX => Err(NameError::TooLong),
        reserved if is_reserved(reserved) => Err(NameError::Reserved),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_and_nested_names_are_accepted_unchanged() {
        for name in ["a", "file.txt", "a b/ü.txt", "...", ".hidden", "..x/y..", "a\\b", ".oneportrc"] {
            let parsed = FileName::parse_text(name.as_bytes()).unwrap();
            assert_eq!(parsed.as_text(), Some(name));
        }
        assert_eq!(FileName::parse(b"a/b/c").unwrap().base(), b"c");
        let longest = "x".repeat(COMPONENT_MAX);
        assert!(FileName::parse(longest.as_bytes()).is_ok());
    }

    #[test]
    fn every_other_name_is_rejected_for_its_own_reason() {
        use NameError::*;
        let cases: [(&[u8], NameError); 15] = [
            (b"", Empty),
            (b".", Component),
            (b"..", Component),
            (b"a/../b", Component),
            (b"a//b", Component),
            (b"a/", Component),
            (b"./a", Component),
            (b"/etc/passwd", Absolute),
            (b"a\0b", Nul),
            (b".oneport", Reserved),
            (b"x/.OnePort/owner", Reserved),
            (b".oneport-12ab.part", Reserved),
            (b"?oneport/2?", Reserved),
            (&[b'x'; COMPONENT_MAX + 1], TooLong),
            (&[b'/'; NAME_MAX + 1], TooLong),
        ];
        for (bytes, error) in cases {
            assert_eq!(FileName::parse(bytes), Err(error), "{}", text::shown(bytes));
        }
        assert_eq!(FileName::parse(&b"a/".repeat(100)), Err(TooDeep));
        assert_eq!(FileName::parse_text(b"\xff"), Err(NotText));
        assert!(FileName::parse(b"\xff").is_ok(), "names are bytes where the dialect allows it");
    }

    proptest! {
        #[test]
        fn no_accepted_name_leaves_its_root(bytes in proptest::collection::vec(
            prop_oneof![Just(b'/'), Just(b'.'), Just(0), any::<u8>()], 0..40)) {
            if let Ok(name) = FileName::parse(&bytes) {
                let path = std::path::Path::new("/root/").join(
                    <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name.as_bytes()));
                prop_assert!(path.starts_with("/root"));
                prop_assert!(path.components().all(|c| c != std::path::Component::ParentDir));
                prop_assert!(name.components().count() >= 1);
            }
        }
    }
}
