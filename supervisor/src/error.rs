//! The crate's error: a kind that clients act on, a text that names operation and object, and the cause.
//!
//! The texts follow containerd's (`image "x": not found`), whose clients match on them; the one table from kind to gRPC
//! code is [`Kind::code`]. Nothing is logged here: whoever handles the error reports it.

use std::{fmt, io};

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The named object does not exist in the namespace.
    NotFound,
    /// The named object exists already.
    AlreadyExists,
    /// The request is malformed.
    InvalidArgument,
    /// The request does not fit the present state.
    FailedPrecondition,
    /// An offset or a size lies outside the object.
    OutOfRange,
    /// Somebody else holds what is needed; a later try may succeed.
    Unavailable,
    /// The disk, or another bounded resource, is full.
    ResourceExhausted,
    /// A peer wants credentials that the caller did not give, or refuses those it gave.
    Unauthenticated,
    /// A peer knows the caller and refuses it.
    PermissionDenied,
    /// Wharf does not do this.
    Unimplemented,
    /// The caller gave up.
    Canceled,
    /// The deadline passed.
    DeadlineExceeded,
    /// The host or a peer failed in a way that no caller can act on.
    Unknown,
}

impl Kind {
    /// The gRPC code of the kind: the only such table.
    pub fn code(self) -> tonic::Code {
        match self {
            Self::NotFound => tonic::Code::NotFound,
            Self::AlreadyExists => tonic::Code::AlreadyExists,
            Self::InvalidArgument => tonic::Code::InvalidArgument,
            Self::FailedPrecondition => tonic::Code::FailedPrecondition,
            Self::OutOfRange => tonic::Code::OutOfRange,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::ResourceExhausted => tonic::Code::ResourceExhausted,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::PermissionDenied => tonic::Code::PermissionDenied,
            Self::Unimplemented => tonic::Code::Unimplemented,
            Self::Canceled => tonic::Code::Cancelled,
            Self::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Self::Unknown => tonic::Code::Unknown,
        }
    }

    /// The words that containerd's clients look for at the end of a text.
    pub fn words(self) -> Option<&'static str> {
        match self {
            Self::NotFound => Some("not found"),
            Self::AlreadyExists => Some("already exists"),
            Self::InvalidArgument => Some("invalid argument"),
            Self::FailedPrecondition => Some("failed precondition"),
            Self::OutOfRange => Some("out of range"),
            Self::Unavailable => Some("unavailable"),
            Self::Unauthenticated => Some("unauthenticated"),
            Self::PermissionDenied => Some("permission denied"),
            Self::Unimplemented => Some("not implemented"),
            Self::Canceled => Some("context canceled"),
            Self::DeadlineExceeded => Some("context deadline exceeded"),
            Self::ResourceExhausted | Self::Unknown => None,
        }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An error of the supervisor.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    source: Option<Source>,
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` about `what`; the kind's own words are appended when it is displayed, unless `what` ends with them.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    /// `what` does not exist: `image "x"` becomes `image "x": not found`.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, what)
    }

    /// `what` exists already.
    pub fn already_exists(what: impl Into<String>) -> Self {
        Self::new(Kind::AlreadyExists, what)
    }

    /// The request is malformed.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, what)
    }

    /// The request does not fit the present state.
    pub fn precondition(what: impl Into<String>) -> Self {
        Self::new(Kind::FailedPrecondition, what)
    }

    /// Somebody else holds what is needed.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, what)
    }

    /// Wharf does not do `what`.
    pub fn unimplemented(what: impl Into<String>) -> Self {
        Self::new(Kind::Unimplemented, what)
    }

    /// The host failed at `operation` (with its object: `open /a/b`).
    pub fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let kind = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::ResourceExhausted,
            _ => Kind::Unknown,
        };
        Self::new(kind, operation).caused_by(Cause(source))
    }

    /// Something else failed at `operation`.
    pub fn unknown(operation: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::new(Kind::Unknown, operation).caused_by(source)
    }

    /// Attaches the cause, which is displayed after the operation.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts the surrounding operation in front of the text; the kind stays.
    #[must_use]
    pub fn context(mut self, operation: impl fmt::Display) -> Self {
        self.what = format!("{operation}: {}", self.what);
        self
    }

    /// The kind, for callers that act on it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the text ends with the kind's `words` as it is (`task x not found`, `blob x exists`): containerd appends none
    /// then, clients before its version 2 do it themselves, and later ones show what they are sent.
    fn has_said(&self, words: &str) -> bool {
        let exists = self.kind == Kind::AlreadyExists && self.what.ends_with(" exists");
        self.source.is_none() && (exists || self.what.ends_with(&format!(" {words}")))
    }

    /// Whether the error says that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind == Kind::NotFound
    }

    /// Whether the error says that the object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.kind == Kind::AlreadyExists
    }
}

/// The kernel's answer in the words that scripts match on: `no space left on device`, without Rust's number behind it.
#[derive(Debug)]
struct Cause(io::Error);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let Some((words, _)) = self.0.raw_os_error().and_then(|_| text.rsplit_once(" (os error")) else {
            return f.write_str(&text);
        };
        let mut letters = words.chars();
        let first = letters.next().map(|letter| letter.to_ascii_lowercase());
        write!(f, "{}{}", first.unwrap_or_default(), letters.as_str())
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        match self.kind.words() {
            Some(words) if !self.has_said(words) => write!(f, ": {words}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The longest text that is sent: it travels in a header, and what a client sent may be quoted in it.
const MAX_TEXT: usize = 2048;

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let mut text = error.to_string();
        if text.len() > MAX_TEXT {
            // The end has the words that clients match on.
            let (first, last) = (
                text.floor_char_boundary(MAX_TEXT / 2),
                text.ceil_char_boundary(text.len() - MAX_TEXT / 2),
            );
            text = format!("{}…{}", &text[..first], &text[last..]);
        }
        Self::new(error.kind.code(), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_clients_match_on() {
        let status = tonic::Status::from(Error::already_exists("image \"x\""));
        assert_eq!(status.code(), tonic::Code::AlreadyExists);
        assert_eq!(status.message(), "image \"x\": already exists");
        assert_eq!(
            Error::not_found("task x not found").to_string(),
            "task x not found"
        );
        assert_eq!(
            Error::already_exists("blob x exists").to_string(),
            "blob x exists"
        );
        let long = tonic::Status::from(Error::not_found("é".repeat(1 << 20)));
        assert!(long.message().len() <= MAX_TEXT + '…'.len_utf8());
        assert!(long.message().ends_with("é: not found"));
        let full = Error::io("write /x", io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(full.kind(), Kind::ResourceExhausted);
        assert!(full.to_string().starts_with("write /x: no space left"));
    }
}
