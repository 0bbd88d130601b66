//! How the program ends.

/// The exit code: the container's, or of the program's own fate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ExitCode(pub(crate) u8);

impl ExitCode {
    /// All is done.
    pub(crate) const SUCCESS: Self = Self(0);
    /// Something failed, which was told.
    pub(crate) const FAILURE: Self = Self(1);
}

impl From<u8> for ExitCode {
    fn from(code: u8) -> Self {
        Self(code)
    }
}
