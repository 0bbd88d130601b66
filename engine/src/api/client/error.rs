//! How a request fails: told apart by who can do something about it.

use std::io;
use std::path::PathBuf;

/// Why a request did not give what it was made for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing accepted the connection.
    #[error("connect to {}: {source}", socket.display())]
    Connect {
        /// The unix socket that was tried.
        socket: PathBuf,
        /// The system's answer to `connect(2)`.
        source: io::Error,
    },
    /// The connection broke, or the daemon's answer is not HTTP.
    #[error("{request}: {source}")]
    Http {
        /// Method and path.
        request: String,
        /// What went wrong on the connection.
        source: hyper::Error,
    },
    /// The request could not be put into HTTP, for example because of a control character in a name.
    #[error("{request}: {source}")]
    Request {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        source: hyper::http::Error,
    },
    /// The daemon answered with an error.
    #[error("{message}")]
    Api {
        /// The HTTP status.
        status: u16,
        /// The daemon's own words.
        message: String,
    },
    /// The answer is not the document that was expected, or exceeds the limit, or ended early.
    #[error("{request}: the answer cannot be read: {reason}")]
    Answer {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A hijacked connection could not be taken over.
    #[error("{request}: take over the connection: {reason}")]
    Hijack {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// The HTTP status, if the daemon itself answered with an error.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether nobody listens on the socket: it does not exist, or its daemon is gone.
    #[must_use]
    pub fn is_nobody_listening(&self) -> bool {
        matches!(self, Self::Connect { source, .. }
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
    }
}
