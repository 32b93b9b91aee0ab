//! Who may do what: the rights that keys have, and the one table of what each verb needs.
//!
//! Every dialect asks for the same few things, the [`Verb`]s. [`Verb::needs`] is the only place that
//! says which right a verb takes; the service compares it with what the caller has, before anything is
//! dispatched.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// What a key may allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Right {
    /// To see and fetch files.
    Read,
    /// To upload files.
    Write,
    /// To remove and rename files.
    Delete,
    /// To send files to those who listen, and to listen.
    Push,
    /// To see and steer the server.
    Admin,
}

impl Right {
    /// All rights.
    pub const ALL: [Self; 5] = [Self::Read, Self::Write, Self::Delete, Self::Push, Self::Admin];

    /// How it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Push => "push",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of rights, written as `read,write`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rights(u8);

/// A word that is no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rights are written as a list of read, write, delete, push and admin: read,write")]
pub struct RightsError;

impl Rights {
    /// None at all.
    pub const NONE: Self = Self(0);

    /// Whether `right` is among them.
    #[must_use]
    pub fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.into_iter().filter(move |&right| self.has(right))
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        Self(rights.into_iter().fold(0, |bits, right| bits | right.bit()))
    }
}

impl FromStr for Rights {
    type Err = RightsError;

    fn from_str(text: &str) -> Result<Self, RightsError> {
        let right = |word: &str| Right::ALL.into_iter().find(|right| right.name() == word).ok_or(RightsError);
        text.split(',').map(right).collect()
    }
}

impl TryFrom<String> for Rights {
    type Error = RightsError;

    fn try_from(text: String) -> Result<Self, RightsError> {
        text.parse()
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, right) in self.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}", right.name())?;
        }
        Ok(())
    }
}

/// What can be asked of a server, in whatever dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verb {
    /// Are you there?
    Ping,
    /// What is this file?
    Stat,
    /// Send this file.
    Get,
    /// What is in this folder?
    List,
    /// Store this file, or make this folder. To replace a file takes no more.
    Put,
    /// Remove this file or folder.
    Remove,
    /// Take this name away from what has it: the new name takes [`Self::Put`] besides.
    Move,
    /// How is the server, and what is being moved?
    Status,
    /// Who is connected?
    Clients,
    /// What was moved?
    History,
    /// End somebody's transfer.
    Cancel,
    /// Tell me of files that are sent to this receiver, and let me fetch them.
    Listen,
    /// Send this file to this receiver, or to those who listen over Conduit, for which it has to be read ([`Self::Get`]).
    Push,
}

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 13] = [
        Self::Ping,
        Self::Stat,
        Self::Get,
        Self::List,
        Self::Put,
        Self::Remove,
        Self::Move,
        Self::Status,
        Self::Clients,
        Self::History,
        Self::Cancel,
        Self::Listen,
        Self::Push,
    ];

    /// What the log calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Stat => "stat",
            Self::Get => "get",
            Self::List => "list",
            Self::Put => "put",
            Self::Remove => "remove",
            Self::Move => "move",
            Self::Status => "status",
            Self::Clients => "clients",
            Self::History => "history",
            Self::Cancel => "cancel",
            Self::Listen => "listen",
            Self::Push => "push",
        }
    }

    /// The right that it takes; `None` if anybody who reaches the port may ask it.
    #[must_use]
    pub fn needs(self) -> Option<Right> {
        match self {
            Self::Ping => None,
            Self::Stat | Self::Get | Self::List => Some(Right::Read),
            Self::Put => Some(Right::Write),
            Self::Remove | Self::Move => Some(Right::Delete),
            Self::Status | Self::Clients | Self::History | Self::Cancel => Some(Right::Admin),
            Self::Listen | Self::Push => Some(Right::Push),
        }
    }
}

/// Rights, and where they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// What is allowed.
    pub rights: Rights,
    /// The folder or file to which that is limited: a name, without a slash at its end. Empty for everything.
    pub prefix: Box<[u8]>,
}

impl Grant {
    /// To read everything: what anybody may where reading needs no key.
    #[must_use]
    pub fn reading() -> Self {
        Self { rights: Rights::from_iter([Right::Read]), prefix: Box::default() }
    }

    /// Whether it allows `right` for the file or folder `name`; empty means all that is served.
    #[must_use]
    pub fn allows(&self, right: Right, name: &[u8]) -> bool {
        self.rights.has(right) && self.covers(name)
    }

    fn covers(&self, name: &[u8]) -> bool {
        self.prefix.is_empty()
            || name.strip_prefix(&*self.prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_and_written_as_a_list() {
        for text in ["read", "read,write", "read,write,delete,push,admin", "admin"] {
            assert_eq!(text.parse::<Rights>().unwrap().to_string(), text);
        }
        assert_eq!("write,read,read".parse::<Rights>().unwrap().to_string(), "read,write");
        for text in ["", ",", "read,", "Read", "all", "read write"] {
            assert_eq!(text.parse::<Rights>(), Err(RightsError), "{text}");
        }
    }

    #[test]
    fn a_prefix_covers_whole_components_only() {
        let grant = |prefix: &[u8]| Grant { rights: "read".parse().unwrap(), prefix: prefix.into() };
        for (prefix, name, allowed) in [
            ("", "a", true),
            ("", "", true),
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", true),
            ("a/b", "a/bc", false),
            ("a/b", "a", false),
            ("a/b", "", false),
            ("a/b", "A/b/c", false),
            ("a/b", "x/a/b", false),
        ] {
            assert_eq!(
                grant(prefix.as_bytes()).allows(Right::Read, name.as_bytes()),
                allowed,
                "{prefix} {name}"
            );
        }
        assert!(!grant(b"").allows(Right::Write, b"a"));
    }

    #[test]
    fn nothing_but_a_ping_is_free() {
        for verb in Verb::ALL {
            assert_eq!(verb.needs().is_none(), verb == Verb::Ping, "{verb:?}");
        }
    }
}
