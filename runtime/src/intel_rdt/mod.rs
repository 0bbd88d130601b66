//! `linux.intelRdt`: shares of the cache and of the memory bandwidth, by the kernel's resctrl file system.
//!
//! A container's process is put into one of resctrl's groups (a class of service): one that an administrator made and the
//! configuration names, or one of its own that is named as the container and goes with it. Limits are lines that are
//! written into the group's `schemata`; a monitoring group below it counts for the container alone.
//!
//! Refused: any of this where resctrl is not mounted; limits of a resource that it does not divide; a group that is named
//! and has other limits than those that are asked for.
//!
//! The file system is a directory that is given, so everything but finding it works on any directory.

mod find;
mod group;
mod schemata;
mod stats;

use std::io;
use std::path::{Path, PathBuf};

pub use find::Resctrl;
pub use group::Group;
pub use stats::{BandwidthInfo, CacheInfo, Stats};

/// What a configuration asks of resctrl.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// The group's name, `/` for the one that all processes are in by default; the container's own without one.
    pub class: Option<String>,
    /// Lines for the L3 cache, `L3:0=ff;1=f0`.
    pub cache: Option<String>,
    /// The line for the memory bandwidth, `MB:0=20;1=70`.
    pub bandwidth: Option<String>,
    /// More lines, of whatever resource; they win over the others.
    pub schemata: Vec<String>,
    /// Count for this container alone.
    pub monitoring: bool,
}

impl Settings {
    /// Whether they limit anything.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        self.cache.is_some() || self.bandwidth.is_some() || !self.schemata.is_empty()
    }

    /// Checks what can be checked without a host.
    ///
    /// # Errors
    ///
    /// The class is no name of a group.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |class: &str| {
            class == ".."
                || class == "."
                || class.len() > 255
                || (class.len() > 1 && class.contains('/'))
                || class.contains(['\0', '\n'])
        };
        match self.class.as_deref() {
            Some(class) if bad(class) => Err(Error::Class(class.to_owned())),
            _ => Ok(()),
        }
    }
}

/// What goes wrong with resctrl.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel or the machine has none, or it is not mounted.
    #[error("intelRdt is specified in config, but Intel RDT is not enabled")]
    NotEnabled,
    /// The L3 cache is not divided here.
    #[error("intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled")]
    NoCache,
    /// The memory bandwidth is not divided here.
    #[error("intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled")]
    NoBandwidth,
    /// As [`Self::NoCache`], of an update.
    #[error("Intel RDT/CAT: l3 cache schema is not enabled")]
    UpdateCache,
    /// As [`Self::NoBandwidth`], of an update.
    #[error("Intel RDT/MBA: memory bandwidth schema is not enabled")]
    UpdateBandwidth,
    /// The container is in no group.
    #[error("updating a non-existent Intel RDT configuration is not supported")]
    NoGroup,
    /// The class is no name of a group.
    #[error("invalid intelRdt.ClosID {0:?}")]
    Class(String),
    /// The group was there before, and its limits are others.
    #[error("linux.intelRdt: the group {} has {have:?}, not {asked:?}", group.display())]
    Differs {
        /// The group's directory.
        group: PathBuf,
        /// Its line.
        have: String,
        /// What was asked for.
        asked: String,
    },
    /// A file is not what it should be.
    #[error("read {}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A system call failed.
    #[error("intelrdt: {operation} {}: {source}{status}", path.display())]
    Io {
        /// What was tried, e.g. `mkdir`.
        operation: String,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
        /// What resctrl says about it, after a comma; may be empty.
        status: String,
    },
}

impl Error {
    fn io(operation: impl Into<String>, path: &Path, source: io::Error) -> Self {
        Self::Io {
            operation: operation.into(),
            path: path.to_owned(),
            source,
            status: String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
