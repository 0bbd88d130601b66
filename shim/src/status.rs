//! Why a request was refused, in the codes that containerd's clients tell apart.
//!
//! Owns the one table from this crate's and the runtime's errors to gRPC codes.

use wharf_proto::google::rpc::Status;

/// The gRPC codes the shim answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The system or the runtime failed, or the state of a container or process forbids it: containerd's shim has no code
    /// of its own for that.
    Unknown = 2,
    /// The request itself is wrong.
    InvalidArgument = 3,
    /// No such container or process.
    NotFound = 5,
    /// The id is taken.
    AlreadyExists = 6,
    /// A bound was reached.
    ResourceExhausted = 8,
    /// The same call may succeed later: the container is being deleted, or does not run yet.
    FailedPrecondition = 9,
    /// Not supported, by name.
    Unimplemented = 12,
    /// The shim is going away.
    Unavailable = 14,
}

impl Code {
    /// The code with this number; `Unknown` for one that is none of ours.
    pub fn from_number(number: u8) -> Code {
        [
            Code::InvalidArgument,
            Code::NotFound,
            Code::AlreadyExists,
            Code::ResourceExhausted,
            Code::FailedPrecondition,
            Code::Unimplemented,
            Code::Unavailable,
        ]
        .into_iter()
        .find(|code| *code as u8 == number)
        .unwrap_or(Code::Unknown)
    }
}

/// A refused or failed request.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The class, for programs.
    pub code: Code,
    /// Operation, object, cause; one line, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal with the class `code`.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        let message = message.into();
        Refusal { code, message }
    }

    /// A failed system operation: `operation` with its object, and the cause.
    pub fn system(operation: impl std::fmt::Display, cause: impl std::fmt::Display) -> Refusal {
        Refusal::new(Code::Unknown, format!("{operation}: {cause}"))
    }

    /// The answer on the wire.
    pub fn into_status(self) -> Status {
        Status {
            code: self.code as i32,
            message: self.message,
            details: Vec::new(),
        }
    }
}

impl From<wharf_runtime::Error> for Refusal {
    fn from(error: wharf_runtime::Error) -> Refusal {
        use wharf_runtime::ErrorKind;
        let code = match error.kind() {
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::AlreadyExists => Code::AlreadyExists,
            ErrorKind::InvalidInput => Code::InvalidArgument,
            ErrorKind::Unsupported => Code::Unimplemented,
            ErrorKind::WrongStatus | ErrorKind::System => Code::Unknown,
        };
        Refusal::new(code, error.to_string())
    }
}
