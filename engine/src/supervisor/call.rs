//! How a call fails: the operation, the object, what the other side said.
//!
//! Owns the translation of gRPC codes into [`Kind`]s.

use crate::error::{Error, Kind};
use tonic::Code;

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {object}: {message}")]
pub struct CallError {
    operation: &'static str,
    object: String,
    code: Code,
    message: String,
}

impl CallError {
    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// Whether the object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.code == Code::AlreadyExists
    }

    /// Whether the supervisor could not be reached, or is going away.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::Cancelled | Code::Unknown)
    }

    /// What the other side said.
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn other(operation: &'static str, object: &str, message: impl std::fmt::Display) -> Self {
        Self {
            operation,
            object: object.to_owned(),
            code: Code::Internal,
            message: message.to_string(),
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let kind = match error.code {
            Code::NotFound => Kind::NotFound,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Kind::Conflict,
            Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
            Code::Unimplemented => Kind::NotImplemented,
            _ => Kind::System,
        };
        Self::new(kind, error.to_string())
    }
}

/// The result of a call.
pub type CallResult<T> = Result<T, CallError>;

/// What to make of the status of a failed call.
pub(super) fn failed(operation: &'static str, object: &str) -> impl FnOnce(tonic::Status) -> CallError {
    let object = object.to_owned();
    move |status| CallError {
        operation,
        object,
        code: status.code(),
        message: status.message().to_owned(),
    }
}

/// Success also when what was to be removed is gone already.
pub(super) fn absent_is_fine(result: CallResult<()>) -> CallResult<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
