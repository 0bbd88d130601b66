//! The engine's error: what failed in one line, and which kind of failure it is.
//!
//! Every module has its own error enum where callers tell cases apart; all of them become an [`Error`] on the way to
//! the API, where [`Kind`] alone decides the HTTP status.

/// What a caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong (400).
    Invalid,
    /// The object does not exist (404).
    NotFound,
    /// The object is in a state that does not allow this (409).
    Conflict,
    /// Nothing had to be done (304).
    NotModified,
    /// What is asked for is not there yet (501).
    NotImplemented,
    /// Something else failed (500).
    System,
}

/// A failure of the engine.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
}

/// The result of most of the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this kind: operation, object and cause in one line.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// A request that is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// An object that does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// A state that does not allow the operation.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// A feature that is known and not there: `what` is its name.
    pub fn not_supported(what: impl std::fmt::Display) -> Self {
        Self::new(Kind::NotImplemented, format!("{what} is not supported yet"))
    }

    /// A failed operation on the system.
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(Kind::System, message)
    }

    /// A failed operation on a path.
    pub fn io(operation: &str, path: &std::path::Path, cause: impl std::fmt::Display) -> Self {
        Self::system(format!("{operation} {}: {cause}", path.display()))
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}
