//! API keys as a server keeps them: who holds one, what it allows, until when.
//!
//! [`KeyStore`] is what the rules ask; [`KeyFile`] answers from one file in the state folder, which
//! [`add`] and [`revoke`] edit from other processes while a server runs. No secret is here: of a token
//! only its hash is kept. What a key is good for at the moment is for the rules to decide.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::error::Code;
use crate::limits::{KEY_NAME_MAX, KEYS_FILE_MAX, KEYS_MAX};
use crate::rights::Grant;
use crate::text;
use crate::token::{KeyId, TokenHash};

mod edit;
mod file;
mod format;
mod password;

pub use edit::{Change, add, change, list, revoke};
pub use file::KeyFile;
pub use password::{PasswordError, read_password};

/// Where keys are looked up. It is asked anew for every request of a holder, so that what was revoked is
/// over at once; it must answer without waiting for anything but a local disk.
pub trait KeyStore: Send + Sync + 'static {
    /// The key with this identifier, expired or not; `None` if there is none, or none any more.
    ///
    /// # Errors
    /// [`KeysError`] if that cannot be told: then nobody is let in by a key.
    fn find(&self, id: &KeyId) -> Result<Option<Arc<Key>>, KeysError>;

    /// Whether there is any key, as far as that can be told.
    fn has_any(&self) -> bool {
        false
    }
}

/// No keys at all.
#[derive(Clone, Copy, Debug)]
pub struct NoKeys;

impl KeyStore for NoKeys {
    fn find(&self, _id: &KeyId) -> Result<Option<Arc<Key>>, KeysError> {
        Ok(None)
    }
}

/// What is kept of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What tells it from others; not secret.
    pub id: KeyId,
    /// What people call it.
    pub name: KeyName,
    /// What its token is compared with.
    pub hash: TokenHash,
    /// What it allows, and where.
    pub grant: Grant,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is worth nothing; `None` for never.
    pub expires: Option<Timestamp>,
    /// Bytes that the files it stores may have in all; `None` for as many as there is room for.
    pub quota: Option<u64>,
}

impl Key {
    /// Whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Name of a key: 1 to [`KEY_NAME_MAX`] letters, digits, `.`, `_` or `-`. It may stand in any log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(Box<str>);

/// A word that cannot be the name of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name of a key has 1 to {KEY_NAME_MAX} letters, digits, '.', '_' or '-'")]
pub struct KeyNameError;

impl KeyName {
    /// What whoever may read a server's state folder is called. No key can be made under this name.
    pub const OWNER: &str = "owner";

    /// The name [`Self::OWNER`].
    #[must_use]
    pub fn owner() -> Self {
        Self(Self::OWNER.into())
    }

    /// What whoever shows Conduit's password is called.
    #[must_use]
    pub fn conduit() -> Self {
        Self("conduit".into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyNameError;

    fn from_str(word: &str) -> Result<Self, KeyNameError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let is_one = (1..=KEY_NAME_MAX).contains(&word.len()) && word.bytes().all(fits);
        // A token in the place of a name would be shown wherever the name is.
        let is_secret = crate::token::secrets(word.as_bytes()).next().is_some();
        if is_one && !is_secret { Ok(Self(word.into())) } else { Err(KeyNameError) }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why keys cannot be read or edited: what happened, to which file, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The file cannot be read.
    #[error("cannot read the keys in {path}: {cause}; make it readable for the server's user")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// Others than its owner may read or change the file.
    #[error(
        "others may read or change the keys in {path}; check that they are yours (server key list) after: chmod 600 {path}"
    )]
    Permissive {
        /// The file.
        path: String,
    },
    /// There is more in it than can be looked after.
    #[error("{path} is larger than {KEYS_FILE_MAX} bytes or has more than {KEYS_MAX} keys; revoke some")]
    TooMany {
        /// The file.
        path: String,
    },
    /// What is in the file are no keys.
    #[error(
        "the keys in {path} cannot be understood: {message}; put that right, or restore a copy of the file"
    )]
    Wrong {
        /// The file.
        path: String,
        /// What is wrong, and where. It repeats nothing of the file.
        message: String,
    },
    /// The name is taken.
    #[error("there is a key {0} already; choose another name, or revoke it first (server key revoke {0})")]
    Exists(KeyName),
    /// No key is called that.
    #[error("there is no key {}; see: server key list", text::shown(.0.as_bytes()))]
    NotFound(String),
    /// Somebody else edits them for too long.
    #[error("another program has been editing the keys in {path} for too long; try again when it has ended")]
    Busy {
        /// The file.
        path: String,
    },
    /// The file cannot be written. The keys are as they were before, except where only the last flush
    /// failed.
    #[error("cannot write the keys to {path}: {cause}; see what there is now: server key list")]
    Unwritable {
        /// The file.
        path: String,
        /// Why.
        cause: String,
        /// The kind of failure.
        code: Code,
    },
}

impl KeysError {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Unreadable { .. } => Code::LocalIo,
            Self::Permissive { .. } => Code::NotAllowed,
            Self::TooMany { .. } => Code::Limit,
            Self::Wrong { .. } => Code::Usage,
            Self::Exists(_) | Self::Busy { .. } => Code::Exists,
            Self::NotFound(_) => Code::NotFound,
            Self::Unwritable { code, .. } => *code,
        }
    }
}

#[cfg(test)]
#[path = "keys/tests.rs"]
mod tests;
