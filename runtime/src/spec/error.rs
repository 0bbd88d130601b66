//! Why a configuration was refused.

use std::io;
use std::path::PathBuf;

use super::text::told;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be opened or read.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried, e.g. `open`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// There is no `config.json` in the bundle.
    #[error("JSON specification file {} not found", path.display())]
    NotFound {
        /// Where it was expected.
        path: PathBuf,
    },
    /// A bundle's `config.json` is not JSON.
    #[error("{} is invalid JSON: {source}", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where it stops being JSON.
        #[source]
        source: serde_json::Error,
    },
    /// The file is larger than a configuration may be.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The document is not JSON.
    #[error("invalid JSON: {0}")]
    Syntax(serde_json::Error),
    /// A field's value is not usable.
    #[error("{}: {problem}", if field.is_empty() { "config" } else { field.as_str() })]
    Field {
        /// The field's path in the document, e.g. `linux.namespaces[2].type`; empty for the document itself.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
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
