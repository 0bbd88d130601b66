//! What a creation has made so far, and how it is taken back.

use std::os::fd::AsFd;
use std::sync::Mutex;

use super::build::Built;
use crate::cgroup::Cgroup;
use crate::intel_rdt;
use crate::process::{reap, wait_exit};
use crate::record::Directory;
use crate::seccomp::cache::Cache;
use crate::sys::Fd;
use crate::sys::process::{Child, pidfd_signal};
use crate::{Container, ContainerId, Error};

/// What a creation that fails leaves behind, so far.
pub(crate) struct Undo {
    pub(crate) directory: Option<Directory>,
    pub(crate) cgroup: Option<Cgroup>,
    pub(crate) child: Option<Child>,
    pub(crate) intel_rdt: Option<intel_rdt::Group>,
}

impl Undo {
    /// Nothing is undone: it becomes the container.
    pub(crate) fn keep(
        &mut self,
        built: Built,
        id: ContainerId,
        mut warnings: Vec<String>,
    ) -> Result<Container, Error> {
        let (Some(directory), Some(cgroup)) = (self.directory.take(), self.cgroup.take()) else {
            return Err(Error::Invalid("the container is gone".into()));
        };
        warnings.extend(built.warnings);
        let own_pids = built.record.own_namespaces & libc::CLONE_NEWPID as u64 != 0;
        if !cgroup.is_any() && !own_pids {
            warnings.push(
                "Creating a rootless container with no cgroup and no private pid namespace. Such configuration is \
                 strongly discouraged (as it is impossible to properly kill all container's processes)."
                    .to_owned(),
            );
        }
        Ok(Container {
            id,
            directory,
            record: built.record,
            cgroup,
            pidfd: self.child.take().map(|child| child.pidfd),
            console: built.console,
            starting: Mutex::new(built.starting),
            filters: Cache::default(),
            warnings: Mutex::new(warnings),
        })
    }

    /// Undoes in reverse; the answer is `error`, with what could not be undone beside it.
    pub(crate) fn perform(&mut self, error: Error) -> Error {
        let mut left = Vec::new();
        if let Some(child) = self.child.take() {
            left.extend(end(&child).err());
        }
        if let Some(group) = self.intel_rdt.take() {
            left.extend(group.remove().err().map(Error::IntelRdt));
        }
        let removal = match self.directory.as_ref().map(Directory::lock_removal).transpose() {
            Ok(Some(None)) => return error.with_leftovers(left),
            Ok(removal) => removal.flatten(),
            Err(second) => {
                left.push(second);
                return error.with_leftovers(left);
            }
        };
        if let Some(cgroup) = self.cgroup.take().filter(Cgroup::is_any) {
            // Children that the first process made without a pid namespace of its own.
            left.extend(cgroup.kill(libc::SIGKILL).err().map(Error::Cgroup));
            left.extend(cgroup.remove().err().map(Error::Cgroup));
        }
        if let Some(directory) = self.directory.take() {
            left.extend(directory.remove().err());
        }
        drop(removal);
        error.with_leftovers(left)
    }
}

/// Kills a child and reaps it.
pub(crate) fn end(child: &Child) -> Result<(), Error> {
    match pidfd_signal(Fd::of(&child.pidfd), libc::SIGKILL) {
        Ok(()) => {}
        Err(errno) if errno.number() == libc::ESRCH => {}
        Err(errno) => return Err(Error::io("kill the container process", errno)),
    }
    wait_exit(child.pidfd.as_fd(), crate::delete::PATIENCE)?;
    reap(child.pidfd.as_fd())
}
