//! Where resctrl is mounted, and what it divides.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;

/// The kernel makes this directory where it has resctrl; an administrator mounts it, there or elsewhere.
const USUAL: &str = "/sys/fs/resctrl";

/// A mounted resctrl file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Resctrl {
    root: PathBuf,
}

impl Resctrl {
    /// The file system that is mounted at `root`; nothing is checked.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Finds where it is mounted, by `/proc/self/mountinfo`; nothing when it is not.
    ///
    /// # Errors
    ///
    /// The mounts cannot be read.
    pub fn find() -> Result<Option<Self>, Error> {
        // Without the directory neither kernel nor machine has it.
        if !Path::new(USUAL).exists() {
            return Ok(None);
        }
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read(path).map_err(|error| Error::io("read", path, error))?;
        Ok(mounted(&String::from_utf8_lossy(&text)).map(Self::at))
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it divides the L3 cache.
    #[must_use]
    pub fn has_cache(&self) -> bool {
        self.root.join("info/L3").exists()
    }

    /// Whether it divides the memory bandwidth.
    #[must_use]
    pub fn has_bandwidth(&self) -> bool {
        self.root.join("info/MB").exists()
    }

    /// The events that it counts, by the kernel's names.
    ///
    /// # Errors
    ///
    /// The list is there and cannot be read.
    pub fn events(&self) -> Result<Vec<String>, Error> {
        let path = self.root.join("info/L3_MON/mon_features");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.split_ascii_whitespace().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io("read", &path, error)),
        }
    }

    /// `error`, with what resctrl says about the last operation that failed.
    pub(super) fn explained(&self, error: Error) -> Error {
        let Ok(text) = fs::read_to_string(self.root.join("info/last_cmd_status")) else {
            return error;
        };
        match error {
            Error::Io {
                operation,
                path,
                source,
                ..
            } => Error::Io {
                operation,
                path,
                source,
                status: format!(", last_cmd_status: {}", text.trim()),
            },
            other => other,
        }
    }
}

/// The mount point of the first resctrl in mountinfo's text, the usual one before others.
pub(super) fn mounted(mountinfo: &str) -> Option<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_resctrl = file_system.split(' ').next() == Some("resctrl");
        let point = mount.split(' ').nth(4).filter(|_| is_resctrl)?;
        Some(crate::cgroup::unescape(point))
    });
    let points: Vec<PathBuf> = points.collect();
    let usual = points.iter().find(|point| point.as_os_str() == USUAL);
    usual.or(points.first()).cloned()
}
