//! The way into a v1 hierarchy for a process that is being made.
//!
//! A pid that is written to `cgroup.procs` is a whole process that is moved by another one. The kernel stops every
//! process of the host from forking, executing and ending for that, which takes an RCU grace period (10 ms and more).
//! A thread that moves only itself, by writing `0` to the v1 file `tasks`, needs none of it. So the file is
//! opened for the child half, which writes to it: with its one thread that moves all of it.
//!
//! Whether the move is allowed is decided by the credentials of whoever opened the file, and the group was
//! found by its path then: the child half needs neither a path nor a privilege.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::{Error, file};

/// A v1 group's `tasks` file, open for writing and close-on-exec.
#[derive(Debug)]
pub struct Entrance {
    path: PathBuf,
    file: OwnedFd,
}

impl Entrance {
    /// What the process writes to enter: the kernel takes it for the writer.
    pub(crate) const MYSELF: &[u8] = b"0";

    pub(crate) fn open(directory: BorrowedFd<'_>, path: &Path) -> Result<Self, Error> {
        const NAME: &str = "tasks";
        let path = path.join(NAME);
        match file::open(directory, NAME, OFlags::WRONLY) {
            Ok(file) => Ok(Self { path, file }),
            Err(errno) => Err(Error::io("open", path, errno)),
        }
    }

    /// Where the file is, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Entrance {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
