//! A container's name, checked once.
//!
//! Refused: what runc refuses (anything but letters, digits, `_`, `+`, `-`, `.`), and what could leave the state
//! directory (`.`, `..`, more than 1024 bytes).

use std::fmt;
use std::str::FromStr;

/// The longest id that is taken, in bytes (as runc).
const MAX_BYTES: usize = 1024;

/// A valid container id: one path component of letters, digits, `_`, `+`, `-` and `.`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ContainerId(String);

/// A string that is no container id.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "invalid container id {0:?}: 1 to 1024 letters, digits, '_', '+', '-' and '.', and neither '.' nor '..'"
)]
pub struct InvalidId(pub String);

impl ContainerId {
    /// Checks `id`.
    ///
    /// # Errors
    ///
    /// The string is no container id.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidId> {
        let id = id.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        if id.is_empty() || id.len() > MAX_BYTES || id == "." || id == ".." || !id.bytes().all(allowed) {
            return Err(InvalidId(id.chars().take(64).collect()));
        }
        Ok(Self(id))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = InvalidId;

    fn from_str(id: &str) -> Result<Self, InvalidId> {
        Self::new(id)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_safe_path_components_are_ids() {
        for good in ["a", "web-1", "A_b+c.d", "...", &"x".repeat(MAX_BYTES)] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "a\0",
            "ä",
            "a\n",
            &"x".repeat(MAX_BYTES + 1),
        ] {
            assert!(ContainerId::new(bad).is_err(), "{bad}");
        }
    }
}
