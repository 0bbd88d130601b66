//! Which control group hierarchies the host has, and where this process stands in them.

use super::Error;

/// The three ways a host arranges its hierarchies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// One hierarchy a controller.
    V1,
    /// v1 controllers, and a v2 hierarchy without them.
    Hybrid,
    /// One v2 hierarchy.
    V2,
}

/// The host's hierarchies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layout {
    version: Version,
}

impl Layout {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
    ///
    /// # Errors
    ///
    /// Either cannot be read or understood, or no control group file system is mounted.
    pub fn detect() -> Result<Self, Error> {
        Err(Error::Unsupported("detecting the cgroup layout".into()))
    }

    /// Which of the three ways it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }
}
