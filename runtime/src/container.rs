//! The handles: a [`Runtime`] is a directory of states, a [`Container`] one of them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::cgroup::{Cgroup, Stats};
use crate::{ContainerId, Error, Signal, State};

/// The containers below one state root.
#[derive(Clone, Debug)]
pub struct Runtime {
    root: PathBuf,
}

impl Runtime {
    /// The root when none is given.
    pub const DEFAULT_ROOT: &str = "/run/wharf-runtime";

    /// The containers below `root`. Touches nothing; the directory is made (0711) by the first create.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The state root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Finds a container by its recorded state.
    ///
    /// # Errors
    ///
    /// There is none, or its state cannot be read.
    pub fn load(&self, id: &ContainerId) -> Result<Container, Error> {
        Err(Error::NotFound(id.clone()))
    }

    /// Every container's state, by id. One whose creation was cut short is not listed.
    ///
    /// # Errors
    ///
    /// The root or a state cannot be read. A root that is not there has none.
    pub fn list(&self) -> Result<Vec<State>, Error> {
        Err(Error::Unsupported("list".into()))
    }
}

/// One container.
#[derive(Debug)]
pub struct Container {
    id: ContainerId,
    cgroup: Cgroup,
    pidfd: Option<OwnedFd>,
    console: Option<OwnedFd>,
}

impl Container {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// What it is now.
    ///
    /// # Errors
    ///
    /// The freezer cannot be read.
    pub fn state(&self) -> Result<State, Error> {
        Err(Error::Unsupported("state".into()))
    }

    /// The first process as the caller's pid namespace numbers it; nothing when it is gone.
    #[must_use]
    pub fn init_pid(&self) -> Option<i32> {
        None
    }

    /// Becomes readable when the first process ends; nothing when it was gone at load.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// The terminal's master, once, of a container this handle created.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// Its control group.
    #[must_use]
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Signals the first process, through its pidfd.
    ///
    /// # Errors
    ///
    /// The container is stopped, or the kernel refuses.
    pub fn kill(&self, signal: Signal) -> Result<(), Error> {
        Err(Error::Unsupported(format!("kill with {signal}")))
    }

    /// Signals every process of the control group.
    ///
    /// # Errors
    ///
    /// The group cannot be read, or the kernel refuses.
    pub fn kill_all(&self, signal: Signal) -> Result<(), Error> {
        Ok(self.cgroup.kill(signal.number())?)
    }

    /// The processes of the control group, as the caller's pid namespace numbers them.
    ///
    /// # Errors
    ///
    /// The group cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        Ok(self.cgroup.pids()?)
    }

    /// Freezes the container; returns when it is frozen.
    ///
    /// # Errors
    ///
    /// It is not running, or the freezer fails.
    pub fn pause(&self) -> Result<(), Error> {
        Ok(self.cgroup.freeze()?)
    }

    /// Thaws the container.
    ///
    /// # Errors
    ///
    /// It is not paused, or the freezer fails.
    pub fn resume(&self) -> Result<(), Error> {
        Ok(self.cgroup.thaw()?)
    }

    /// What it uses.
    ///
    /// # Errors
    ///
    /// The control group cannot be read.
    pub fn stats(&self) -> Result<Stats, Error> {
        Ok(self.cgroup.stats()?)
    }
}
