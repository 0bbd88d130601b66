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

    /// The answer on the wire. Clients since containerd 2 show the text as it comes, so that it has to end in the words of
    /// its class, as that of containerd's shim does.
    pub fn into_status(self) -> Status {
        let words = match self.code {
            Code::NotFound => ": not found",
            Code::AlreadyExists => ": already exists",
            Code::FailedPrecondition => ": failed precondition",
            _ => "",
        };
        let mut message = self.message;
        if !message.ends_with(words) {
            message.push_str(words);
        }
        Status {
            code: self.code as i32,
            message,
            details: Vec::new(),
        }
    }
}

impl From<wharf_runtime::Error> for Refusal {
    fn from(error: wharf_runtime::Error) -> Refusal {
        Refusal::new(code_of(&error), error.to_string())
    }
}

/// The library's error in an operation that makes a process, in the words in which containerd's shim tells of runc's.
pub fn runtime_error(operation: &str, error: &wharf_runtime::Error) -> Refusal {
    let message = format!(
        "OCI runtime {operation} failed: {}",
        wharf_runtime::words::of(error)
    );
    Refusal::new(code_of(error), message)
}

fn code_of(error: &wharf_runtime::Error) -> Code {
    use wharf_runtime::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidInput => Code::InvalidArgument,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::WrongStatus | ErrorKind::System => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_in_the_words_of_their_class_once() {
        for (code, message, expected) in [
            (
                Code::NotFound,
                "process already finished",
                "process already finished: not found",
            ),
            (
                Code::NotFound,
                "no such container: not found",
                "no such container: not found",
            ),
            (Code::AlreadyExists, "id x", "id x: already exists"),
            (
                Code::Unknown,
                "cannot start a running process",
                "cannot start a running process",
            ),
        ] {
            assert_eq!(Refusal::new(code, message).into_status().message, expected);
        }
    }
}
