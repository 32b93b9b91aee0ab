//! What is kept of each transfer that has ended: who moved what, which way, how fast, and what came of it.

pub use crate::control::{Direction, Outcome};

/// A transfer that has ended, or the small files of one connection taken together.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: i64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The client's address and port.
    pub peer: String,
    /// What the key is called that it has shown, if any.
    pub key: Option<String>,
    /// The dialect that was spoken: `v1` or `v2`.
    pub dialect: String,
    /// Which way the bytes went.
    pub direction: Direction,
    /// The file's name; of several small files that of the last one; of a push the receiver's name, `/`, and the
    /// file's.
    pub name: Vec<u8>,
    /// How many files: more than one only for small ones.
    pub files: u64,
    /// Bytes of the files.
    pub size: u64,
    /// Bytes that were moved.
    pub moved: u64,
    /// The digest, as `blake3=HEX` or `md5=HEX`, of a single file that was moved whole.
    pub digest: Option<String>,
    /// Why it is not whole; `None` if it is.
    pub cause: Option<String>,
    /// Who has cancelled it, if somebody has.
    pub cancelled_by: Option<String>,
}

impl Transfer {
    /// What came of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (&self.cancelled_by, &self.cause) {
            (Some(_), _) => Outcome::Cancelled,
            (None, Some(_)) => Outcome::Failed,
            (None, None) => Outcome::Ok,
        }
    }

    /// Whether all of it was moved.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.cause.is_none()
    }
}

/// A step through the history, from the newest transfer to the oldest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Ended at this moment or later, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Ended before this moment, in milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Noted before the one of this number.
    pub before: Option<i64>,
    /// At most so many.
    pub most: u32,
}
