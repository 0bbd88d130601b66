//! Why a profile was refused.

/// A profile that cannot be compiled.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// A value of the profile is not usable.
    #[error("linux.seccomp.{field}: {problem}")]
    Field {
        /// The field's path below `linux.seccomp`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The filter has more instructions than the kernel takes.
    #[error("the filter has {0} instructions, the kernel takes 4096")]
    TooLarge(usize),
}

impl Error {
    pub(super) fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field {
            field: field.into(),
            problem: problem.into(),
        }
    }
}
