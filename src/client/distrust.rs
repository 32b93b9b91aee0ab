//! Why a server is not spoken to, in the words of whoever has to decide what to do about it.
//!
//! None of these goes away by asking again. Each says what was found, what it was compared with and where that
//! is written; none holds anything secret, and what came from a server is made safe to show before.

use super::FetchError;
use super::known_hosts::KnownHostsError;
use crate::error::Code;
use crate::pin::Pin;
use crate::tls::TrustError;

/// Why a server is not spoken to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    /// It has another key than the expected one.
    #[error(
        "the key of {server} is not the expected one. Expected ({place}): {expected}. Found: {found}. Nothing \
         was sent. Either somebody is between you and the server, or it has a new key: compare the found one \
         with what the server's log says, and only then correct {place}"
    )]
    OtherKey {
        /// The server.
        server: String,
        /// Where the expected key is written.
        place: String,
        /// The pins that would be right.
        expected: String,
        /// The pin of the key that it has.
        found: Pin,
    },
    /// A key is to be sent to it, and it is not known.
    #[error(
        "{server} is not known here, and keys are sent only to servers that are, so none was sent. Its own key \
         is {found}: compare that with what the server's log or 'server key add' says, then add --pin {found}"
    )]
    Unknown {
        /// The server.
        server: String,
        /// The pin of the key that it has.
        found: Pin,
    },
    /// Its certificate, or what it makes of it, is not right.
    #[error("{server} is not trusted: {text} ({place})")]
    Certificate {
        /// The server.
        server: String,
        /// Where it is written what is trusted.
        place: String,
        /// What is wrong.
        text: String,
    },
    /// It answers without TLS.
    #[error(
        "{server} answers without TLS, which is needed because of {place}; nothing was sent, and it is not spoken \
         to in clear"
    )]
    NoTls {
        /// The server.
        server: String,
        /// Why it must.
        place: String,
    },
    /// It does not speak TLS 1.3.
    #[error("{server} does not speak TLS 1.3, and nothing older is spoken here: {text}")]
    Incompatible {
        /// The server.
        server: String,
        /// What it said.
        text: String,
    },
    /// It is known by its key, and was to be spoken to in clear.
    #[error(
        "{server} is known to speak TLS ({place}), and is never spoken to without it; leave --tls off out, or \
         remove the entry if encryption was really turned off there"
    )]
    Off {
        /// The server.
        server: String,
        /// Where it is written.
        place: String,
    },
    /// It is known as one that an authority vouched for, and no authority is given.
    #[error(
        "{server} was vouched for by an authority before ({place}): name the authority again with --ca-cert, or the \
         server's key with --pin"
    )]
    Unvouched {
        /// The server.
        server: String,
        /// Where it is written.
        place: String,
    },
    /// A key would be sent in clear.
    #[error("the key would go to {server} in clear, where others can read it; leave --tls off out")]
    Clear {
        /// The server.
        server: String,
    },
    /// What was asked for contradicts itself.
    #[error(
        "--tls off contradicts a pin or --ca-cert: without TLS a server proves nothing; drop one of them"
    )]
    Contradiction,
    /// What was remembered cannot be used.
    #[error(transparent)]
    KnownHosts(#[from] KnownHostsError),
    /// A server that was seen for the first time cannot be remembered.
    #[error(
        "{server} was seen for the first time, with the key {found}, and cannot be remembered: {source}. Name \
         another file with --known-hosts, or compare the key with what the server's log says and add --pin {found}"
    )]
    Unremembered {
        /// The server.
        server: String,
        /// The pin of the key that it has.
        found: Pin,
        /// What stands in the way.
        #[source]
        source: KnownHostsError,
    },
    /// TLS cannot be used.
    #[error("TLS cannot be used: {0}")]
    Setup(String),
}

impl Distrust {
    /// The kind of failure.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Contradiction => Code::Usage,
            Self::KnownHosts(error) | Self::Unremembered { source: error, .. } => error.code(),
            Self::Setup(_) => Code::Other,
            _ => Code::Certificate,
        }
    }
}

impl From<Distrust> for FetchError {
    fn from(distrust: Distrust) -> Self {
        Self::Untrusted(Box::new(distrust))
    }
}

impl From<TrustError> for Distrust {
    fn from(error: TrustError) -> Self {
        Self::Setup(error.to_string())
    }
}
