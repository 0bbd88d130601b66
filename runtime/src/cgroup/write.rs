//! One value for one file, and what to do when the kernel does not take it at once.

use std::fmt;

/// What a refused write means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Policy {
    /// A failure.
    Required,
    /// Nothing, when the file is not there: the kernel was built without it, and the value changes nothing then.
    IfPresent,
    /// When the file is not there, this other write does the same.
    Else(Box<Write>),
    /// The kernel compares this file's value with that of the next write: on `EINVAL` the next one goes first.
    AfterNext,
}

/// A value for a file of a group's directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Write {
    pub file: String,
    pub value: String,
    pub policy: Policy,
}

impl Write {
    pub fn new(file: impl Into<String>, value: impl ToString) -> Self {
        Self {
            file: file.into(),
            value: value.to_string(),
            policy: Policy::Required,
        }
    }

    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.file, self.value)?;
        match &self.policy {
            Policy::Required => Ok(()),
            Policy::IfPresent => f.write_str(" (if present)"),
            Policy::Else(other) => write!(f, " (else {other})"),
            Policy::AfterNext => f.write_str(" (after the next on EINVAL)"),
        }
    }
}
