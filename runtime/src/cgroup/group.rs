//! A container's group, once it is there.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

use super::{Error, Stats};

/// The directories of one container, one for each hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    paths: BTreeMap<String, PathBuf>,
    v2: Option<OwnedFd>,
}

/// Tells when the kernel's OOM killer was at work in a group.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
}

impl AsFd for OomWatch {
    /// The descriptor to poll: readable (v1 eventfd, v2 inotify) when there may be news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl OomWatch {
    /// Consumes what made the descriptor readable; whether a process was killed for memory since the last call.
    /// Does not block.
    ///
    /// # Errors
    ///
    /// The notice cannot be read.
    pub fn take(&mut self) -> Result<bool, Error> {
        Err(Error::Unsupported("OOM notices".into()))
    }
}

impl Cgroup {
    /// The group recorded in a container's state: controller name (empty for v2) to directory.
    ///
    /// Directories that are gone are accepted: operations on them then fail, and removal has nothing to do.
    ///
    /// # Errors
    ///
    /// A path is not below a control group mount.
    pub fn from_paths(paths: BTreeMap<String, PathBuf>) -> Result<Self, Error> {
        Ok(Self { paths, v2: None })
    }

    /// Controller name (empty for v2) to directory, for the container's state.
    #[must_use]
    pub fn paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.paths
    }

    /// The v2 directory, for `CLONE_INTO_CGROUP`. The v1 hierarchies still need [`Self::join`].
    #[must_use]
    pub fn v2_dir_fd(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }

    /// Puts a process into every hierarchy.
    ///
    /// # Errors
    ///
    /// The kernel refuses; the process may then be in some of the hierarchies.
    pub fn join(&self, pid: i32) -> Result<(), Error> {
        Err(Error::Unsupported(format!("joining of {pid}")))
    }

    /// Writes changed limits.
    ///
    /// # Errors
    ///
    /// A limit cannot be given, or the kernel refuses it.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        let _unused = resources;
        Err(Error::Unsupported("update".into()))
    }

    /// Stops every process of the group; returns when they are stopped.
    ///
    /// # Errors
    ///
    /// The group cannot be frozen in a bounded time; it is thawed again.
    pub fn freeze(&self) -> Result<(), Error> {
        Err(Error::Unsupported("freezing".into()))
    }

    /// Lets the processes run again.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn thaw(&self) -> Result<(), Error> {
        Err(Error::Unsupported("thawing".into()))
    }

    /// Whether the group itself (not an ancestor) is frozen.
    ///
    /// # Errors
    ///
    /// The state cannot be read. A group that is gone is not frozen.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        Err(Error::Unsupported("the freezer".into()))
    }

    /// Sends a signal to every process of the group and its children.
    ///
    /// # Errors
    ///
    /// The group cannot be read, or a signal is refused. Processes that are gone are no error.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        Err(Error::Unsupported(format!("killing with {signal}")))
    }

    /// The processes of the group and its children, as this process's pid namespace numbers them.
    ///
    /// # Errors
    ///
    /// The group cannot be read. A group that is gone has none.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        Err(Error::Unsupported("pids".into()))
    }

    /// What the group uses.
    ///
    /// # Errors
    ///
    /// A file cannot be read or understood. Controllers that are missing leave their numbers empty.
    pub fn stats(&self) -> Result<Stats, Error> {
        Err(Error::Unsupported("statistics".into()))
    }

    /// Watches for the OOM killer; nothing where the memory controller is missing.
    ///
    /// # Errors
    ///
    /// The notice cannot be set up.
    pub fn oom_watch(&self) -> Result<Option<OomWatch>, Error> {
        Err(Error::Unsupported("OOM notices".into()))
    }

    /// Removes the group and its children. Blocks while processes are still leaving, in a bounded time.
    ///
    /// # Errors
    ///
    /// A directory stays busy. A directory that is gone is no error.
    pub fn remove(&self) -> Result<(), Error> {
        Err(Error::Unsupported("removal".into()))
    }
}
