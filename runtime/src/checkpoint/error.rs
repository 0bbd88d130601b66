//! What checkpointing and restoring can end with, in the words of runc where scripts look for them.

use std::path::PathBuf;

use crate::ErrorKind;

/// A checkpoint or a restore that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no criu, or it would not tell its version.
    #[error("CRIU version check failed: {0}")]
    Version(String),
    /// It is older than what is asked for needs.
    #[error("CRIU version {found} must be {needed} or higher")]
    TooOld {
        /// As one number: 3.17.1 is 31701.
        found: i32,
        /// Likewise.
        needed: i32,
    },
    /// It is older than a flag needs.
    #[error("{0}")]
    Lacks(String),
    /// It did not tell what it and the kernel can do.
    #[error("CRIU feature check failed: {0}")]
    FeatureCheck(String),
    /// It or the kernel cannot do what is asked for.
    #[error("criu is missing features: [{0}]")]
    MissingFeature(&'static str),
    /// It tried, and failed. The container is what it was before, as far as criu could see to that.
    #[error("criu failed: type {what} errno {errno}{}; see {}", saying(said), log.display())]
    Failed {
        /// `DUMP`, `PRE_DUMP` or `RESTORE`.
        what: &'static str,
        /// As criu says.
        errno: i32,
        /// Its own words, if it has some.
        said: String,
        /// Its log.
        log: PathBuf,
        /// The lines of the log that tell of errors, with those before them, each with its number before it.
        excerpt: Vec<String>,
    },
    /// It ended, or what it said cannot be understood.
    #[error("criu {problem}; see {}", log.display())]
    Broken {
        /// What it did.
        problem: String,
        /// Its log.
        log: PathBuf,
        /// As for [`Self::Failed`].
        excerpt: Vec<String>,
    },
    /// A file or directory of the checkpoint is not what criu could safely be let at.
    #[error("{}: {problem}", path.display())]
    Images {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// What was restored is not what the configuration asks for. It has been killed before it ran.
    #[error("the checkpoint does not fit the configuration: {0}")]
    Differs(String),
}

fn saying(said: &str) -> String {
    match said {
        "" => String::new(),
        said => format!(": {said}"),
    }
}

impl Error {
    /// The class of this error.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Version(_) | Self::TooOld { .. } | Self::Lacks(_) | Self::MissingFeature(_) => {
                ErrorKind::Unsupported
            }
            Self::Images { .. } | Self::Differs(_) => ErrorKind::InvalidInput,
            Self::FeatureCheck(_) | Self::Failed { .. } | Self::Broken { .. } => ErrorKind::System,
        }
    }

    /// What criu's log says about the failure, for people, one line each; nothing if criu did not fail.
    #[must_use]
    pub fn excerpt(&self) -> &[String] {
        match self {
            Self::Failed { excerpt, .. } | Self::Broken { excerpt, .. } => excerpt,
            _ => &[],
        }
    }

    /// Where criu's log is, if it was criu that failed.
    #[must_use]
    pub fn log(&self) -> Option<&std::path::Path> {
        match self {
            Self::Failed { log, .. } | Self::Broken { log, .. } => Some(log),
            _ => None,
        }
    }
}
