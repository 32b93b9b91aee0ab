//! The kinds of failure that a user, a script or a peer can tell apart.
//!
//! A failure is typed where it happens; this module only holds the stable list that such types are
//! mapped to, with the exit status and the name that each kind keeps for ever.

/// A stable kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Code {
    /// None of the others.
    Other,
    /// The command line, the environment or the configuration is wrong.
    Usage,
    /// The server has no such file.
    NotFound,
    /// The server, or a permission, does not allow it.
    NotAllowed,
    /// No connection could be made, or no address be listened on.
    Connect,
    /// The connection broke before the end.
    Lost,
    /// The peer lacks something that was asked for.
    Unsupported,
    /// The peer does not speak the protocol.
    Protocol,
    /// The disk is too full.
    NoSpace,
    /// A limit was reached.
    Limit,
    /// A local file or folder cannot be read or written.
    LocalIo,
    /// The target exists, or is in use by another program.
    Exists,
    /// Somebody who may has cancelled the transfer.
    Cancelled,
    /// Some of several files failed.
    Partial,
    /// The source changed while it was being sent.
    SourceChanged,
    /// The peer was silent for too long.
    Timeout,
    /// What arrived is not what the checksum says.
    Checksum,
    /// A command that was to be run for what was received has failed; the file is there.
    Command,
    /// The server's certificate is not the expected one.
    Certificate,
}

impl Code {
    /// All kinds, by exit status.
    pub const ALL: [Self; 19] = [
        Self::Other,
        Self::Usage,
        Self::NotFound,
        Self::NotAllowed,
        Self::Connect,
        Self::Lost,
        Self::Unsupported,
        Self::Protocol,
        Self::NoSpace,
        Self::Limit,
        Self::LocalIo,
        Self::Exists,
        Self::Cancelled,
        Self::Partial,
        Self::SourceChanged,
        Self::Timeout,
        Self::Checksum,
        Self::Command,
        Self::Certificate,
    ];

    /// The exit status of a program that ends for this reason.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::NotAllowed => 4,
            Self::Connect => 5,
            Self::Lost => 6,
            Self::Unsupported => 7,
            Self::Protocol => 8,
            Self::NoSpace => 9,
            Self::Limit => 10,
            Self::LocalIo => 11,
            Self::Exists => 13,
            Self::Cancelled => 14,
            Self::Partial => 23,
            Self::SourceChanged => 24,
            Self::Timeout => 28,
            Self::Checksum => 32,
            Self::Command => 40,
            Self::Certificate => 60,
        }
    }

    /// The name that scripts see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::NotAllowed => "not-allowed",
            Self::Connect => "cannot-connect",
            Self::Lost => "connection-lost",
            Self::Unsupported => "unsupported",
            Self::Protocol => "protocol",
            Self::NoSpace => "no-space",
            Self::Limit => "limit",
            Self::LocalIo => "local-io",
            Self::Exists => "exists",
            Self::Cancelled => "cancelled",
            Self::Partial => "partial",
            Self::SourceChanged => "source-changed",
            Self::Timeout => "timeout",
            Self::Checksum => "checksum",
            Self::Command => "command",
            Self::Certificate => "certificate",
        }
    }

    /// What the exit status means, in a few words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Other => "other failure",
            Self::Usage => "wrong usage or configuration",
            Self::NotFound => "file not found on the server",
            Self::NotAllowed => "not allowed",
            Self::Connect => "cannot connect (server: cannot listen)",
            Self::Lost => "connection lost",
            Self::Unsupported => "the peer lacks what was asked for",
            Self::Protocol => "the peer does not speak the protocol",
            Self::NoSpace => "no space left on the disk",
            Self::Limit => "a limit was reached",
            Self::LocalIo => "a local file or folder cannot be read or written",
            Self::Exists => "the target exists (server: state folder in use)",
            Self::Cancelled => "the transfer was cancelled on the server",
            Self::Partial => "some of several files failed",
            Self::SourceChanged => "the source changed while it was sent",
            Self::Timeout => "timeout",
            Self::Checksum => "checksum mismatch",
            Self::Command => "a command for a received file failed (--on-received)",
            Self::Certificate => "certificate not accepted",
        }
    }
}

/// Exit status after SIGHUP, SIGINT and SIGTERM: 128 and the signal's number.
pub const EXIT_HANGUP: u8 = 129;
/// Exit status after Ctrl+C.
pub const EXIT_INTERRUPTED: u8 = 130;
/// Exit status after SIGTERM.
pub const EXIT_TERMINATED: u8 = 143;

/// An operating system's error for people: in words, without its number.
#[must_use]
pub fn in_words(error: &std::io::Error) -> String {
    let mut text = error.to_string();
    if let Some(end) = text.find(" (os error ").filter(|_| text.ends_with(')')) {
        text.truncate(end);
    }
    text
}

/// Whether an operating system's error means that there is no room left, on the disk or in a quota.
#[must_use]
pub fn is_no_space(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::FileTooLarge
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn errors_are_told_in_words() {
        let error = std::io::Error::from_raw_os_error(13);
        assert!(error.to_string().contains("os error 13"));
        assert_eq!(in_words(&error), "Permission denied");
        assert_eq!(in_words(&std::io::Error::other("as it is")), "as it is");
    }

    #[test]
    fn exit_statuses_and_names_are_distinct_and_clear_of_the_signals() {
        let statuses: BTreeSet<u8> = Code::ALL.iter().map(|code| code.exit_status()).collect();
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(statuses.len(), Code::ALL.len());
        assert_eq!(names.len(), Code::ALL.len());
        assert!(statuses.iter().all(|&status| status > 0 && status < 128));
    }
}
