//! What is kept of each transfer that has ended: who moved what, which way, how fast, and what came of it.

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the client.
    Download,
    /// From the client.
    Upload,
}

impl Direction {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Download, Self::Upload].into_iter().find(|direction| direction.name() == name)
    }
}

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
    /// The file's name; of several small files that of the last one.
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
}

impl Transfer {
    /// Whether all of it was moved.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.cause.is_none()
    }
}
