//! Why a configuration cannot be compiled.

use crate::seccomp;
use crate::spec::told;

/// A configuration that cannot be carried out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A field's value is not usable.
    #[error("{field}: {problem}")]
    Field {
        /// The field's path in the document.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something the specification knows and this runtime does not do yet.
    #[error("{0} is not supported yet")]
    Unsupported(String),
}

impl Error {
    /// An error about one field.
    pub(crate) fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field {
            field: told(field.into()),
            problem: told(problem.into()),
        }
    }
}

impl From<seccomp::Error> for Error {
    fn from(error: seccomp::Error) -> Self {
        match error {
            seccomp::Error::Field { field, problem } => {
                Self::field(format!("linux.seccomp.{field}"), problem)
            }
            error @ seccomp::Error::TooLarge(_) => Self::field("linux.seccomp", error.to_string()),
        }
    }
}
