//! Where in a container's control groups an executed process goes.
//!
//! On v2 it is born there. A container may have moved its first process to a group of its own making, and then no process
//! can be in the container's own group any more: the new one goes to where the first is. A user whose groups systemd makes may
//! not move processes into them, so systemd is asked to.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use crate::cgroup::{self, Cgroup, Entrance, Layout, Unit};
use crate::{Container, Errno, Error};

/// The groups that a process is to enter.
pub(crate) struct Place<'a> {
    container: &'a Container,
    group: Cgroup,
    /// They were asked for: there is no other place.
    explicit: bool,
    /// Below the container's own group, as systemd is told.
    below: String,
}

/// systemd, which moves the process when it is there.
pub(crate) struct Mover<'a> {
    unit: &'a Unit,
    below: String,
}

impl Mover<'_> {
    pub(crate) fn move_process(&self, pid: i32) -> Result<(), Error> {
        Ok(self.unit.attach(&self.below, pid)?)
    }
}

impl Container {
    /// The container's groups, or those below them that are asked for.
    pub(crate) fn place(&self, below: &BTreeMap<String, String>) -> Result<Place<'_>, Error> {
        let sub = below.get("").map(|sub| sub.trim_matches('/')).unwrap_or_default();
        Ok(Place {
            container: self,
            group: self.cgroup.below(below)?,
            explicit: !below.is_empty(),
            below: if sub.is_empty() {
                String::new()
            } else {
                format!("/{sub}")
            },
        })
    }
}

impl<'a> Place<'a> {
    /// The way into each v1 hierarchy.
    pub(crate) fn entrances(&self) -> Result<Vec<Entrance>, Error> {
        self.group.entrances().map_err(|error| match self.explicit {
            true => refused(error),
            false => error.into(),
        })
    }

    /// Makes the process with `spawn`, which is given the v2 group to be born in and whether the process is to wait for
    /// being moved; answers who moves it then.
    pub(crate) fn enter<T>(
        &self,
        mut spawn: impl FnMut(Option<BorrowedFd<'_>>, bool) -> Result<T, Error>,
    ) -> Result<(T, Option<Mover<'a>>), Error> {
        let attempt = match self.group.v2_dir_fd() {
            Ok(fd) => spawn(fd, false),
            Err(error) => Err(error.into()),
        };
        let error = match attempt {
            Ok(made) => return Ok((made, None)),
            Err(error) => error,
        };
        let is_v2 = self.group.is_v2();
        match errno_of(&error) {
            // Others are not about the group.
            Some(libc::EBUSY | libc::EOPNOTSUPP | libc::ENOENT | libc::ENODEV) if is_v2 => {
                if !self.explicit
                    && let Some(group) = self.group_of_first_process()
                    && let Ok(fd) = group.v2_dir_fd()
                {
                    return Ok((spawn(fd, false)?, None));
                }
                Err(self.refused_clone(error))
            }
            Some(libc::EACCES | libc::EPERM) if is_v2 && !self.is_privileged() => {
                if let Some(unit) = self.container.cgroup.unit() {
                    let below = self.below.clone();
                    return Ok((spawn(None, true)?, Some(Mover { unit, below })));
                }
                // Without permission there was no group to begin with, or it is of no use to the caller.
                Ok((spawn(None, false)?, None))
            }
            _ => Err(error),
        }
    }

    fn is_privileged(&self) -> bool {
        rustix::process::geteuid().is_root()
            && Layout::detect().is_ok_and(|layout| layout.in_initial_user_namespace())
    }

    /// The v2 group that the first process is in now.
    fn group_of_first_process(&self) -> Option<Cgroup> {
        let layout = Layout::of_process(self.container.init_pid()?).ok()?;
        let path = layout.hierarchy("")?.own.clone()?;
        Cgroup::from_paths([(String::new(), path)].into()).ok()
    }

    fn refused_clone(&self, error: Error) -> Error {
        match (error, self.group.paths().get("")) {
            (Error::Clone(errno), Some(path)) => refused(cgroup::Error::Io {
                operation: "clone into".to_owned(),
                path: path.clone(),
                source: errno.into(),
            }),
            (Error::Cgroup(error), _) => refused(error),
            (error, _) => error,
        }
    }
}

/// In words that callers look for.
fn refused(error: cgroup::Error) -> Error {
    match error {
        cgroup::Error::Io {
            operation,
            path,
            source,
        } => Error::Cgroup(cgroup::Error::Io {
            operation: format!("error adding pid of the new process to cgroups: {operation}"),
            path,
            source,
        }),
        other => other.into(),
    }
}

fn errno_of(error: &Error) -> Option<i32> {
    match error {
        Error::Clone(errno) => Some(Errno::number(*errno)),
        Error::Cgroup(cgroup::Error::Io { source, .. }) => source.raw_os_error(),
        _ => None,
    }
}
