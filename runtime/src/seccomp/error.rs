//! Why a profile was refused.

/// A profile that cannot be compiled.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A value of the profile is not usable.
    #[error("{field}: {problem}")]
    Field {
        /// The field's path below `linux.seccomp`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The filter has more instructions than the kernel takes.
    #[error("linux.seccomp: the filter has {0} instructions, the kernel takes 4096")]
    TooLarge(usize),
    /// Not there yet.
    #[error("{0} is not supported")]
    Unsupported(String),
}
