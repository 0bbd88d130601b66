//! Performing a [`CgroupPlan`]: directories, then values.
//!
//! A step that fails undoes the directories that were made; a directory that was there before stays.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::file::{self, Kept};
use super::plan::{CgroupPlan, Directory, Kind};
use super::write::{Policy, Write};
use super::{Cgroup, Error, device_filter};

impl CgroupPlan {
    /// Makes the directories and writes the limits. What was made is removed again when a step fails.
    ///
    /// # Errors
    ///
    /// The step that failed; or the group already has processes.
    pub fn create(&self) -> Result<Cgroup, Error> {
        let mut made = Vec::new();
        match self.perform(&mut made) {
            Ok(directories) => Ok(Cgroup::from_directories(directories)),
            Err(error) => {
                // The group has no processes and no other owner; were it still to stay, the first error
                // is the one to know.
                for path in made.iter().rev() {
                    if fs::remove_dir(path).is_err() {
                        break;
                    }
                }
                Err(error)
            }
        }
    }

    fn perform(&self, made: &mut Vec<PathBuf>) -> Result<Vec<(Vec<String>, PathBuf, OwnedFd)>, Error> {
        let mut directories = Vec::with_capacity(self.directories.len());
        for directory in &self.directories {
            match make(directory, made) {
                Ok(fd) => directories.push((directory.keys.clone(), directory.path.clone(), fd)),
                Err(error) if error.is_permission() && self.may_lack(directory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(directories)
    }

    /// Whether the container can do without a directory that the caller may not make.
    fn may_lack(&self, directory: &Directory) -> bool {
        match directory.kind {
            Kind::Tracking => directory.filter.is_none(),
            Kind::V1 | Kind::Cpuset | Kind::V2 => self.rootless && directory.writes.is_empty(),
        }
    }
}

fn make(directory: &Directory, made: &mut Vec<PathBuf>) -> Result<OwnedFd, Error> {
    let below = directory
        .path
        .strip_prefix(&directory.mount)
        .map_err(|_| Error::Malformed {
            file: directory.path.clone(),
            problem: format!("is not below {}", directory.mount.display()),
        })?;
    let mut current = directory.mount.clone();
    let mut is_new = false;
    for part in below.components() {
        if directory.kind == Kind::V2 {
            hand_down_controllers(&current);
        }
        let parent = current.clone();
        current.push(part);
        is_new = match rustix::fs::mkdir(&current, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                made.push(current.clone());
                true
            }
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(Error::io("mkdir", &current, errno)),
        };
        if directory.kind == Kind::Cpuset {
            inherit_cpuset(&parent, &current, is_new)?;
        }
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&directory.path, flags, Mode::empty())
        .map_err(|errno| Error::io("open", &directory.path, errno))?;
    if !is_new && directory.kind != Kind::Tracking {
        refuse_occupied(&fd, &directory.path)?;
        refuse_frozen(&fd, &directory.path)?;
    }
    write_all(&fd, &directory.path, &directory.writes)?;
    if let Some(rules) = &directory.filter {
        device_filter::attach(rules, &directory.path)?;
    }
    Ok(fd)
}

/// A group with processes of somebody else would be limited, and killed, with the container.
fn refuse_occupied(fd: &OwnedFd, path: &Path) -> Result<(), Error> {
    let procs = file::read(fd.as_fd(), path, "cgroup.procs")?;
    match procs.lines().count() {
        0 => Ok(()),
        count => Err(Error::NotEmpty {
            path: path.to_owned(),
            count,
        }),
    }
}

/// A process that joins a frozen group stops before it does anything, and whoever waits for it waits for ever.
fn refuse_frozen(fd: &OwnedFd, path: &Path) -> Result<(), Error> {
    for name in ["freezer.self_freezing", "cgroup.freeze"] {
        let state = file::read_if_present(fd.as_fd(), path, name)?;
        if state.is_some_and(|state| state.trim() == "1") {
            return Err(Error::Frozen {
                path: path.to_owned(),
            });
        }
    }
    Ok(())
}

/// Enables the controllers of `ancestor` for its children.
///
/// Controllers that cannot be handed down (the ancestor has processes, or is not ours) are left out here: a
/// limit that needs one fails at its own write, by name.
fn hand_down_controllers(ancestor: &Path) {
    let read = |name: &str| fs::read_to_string(ancestor.join(name)).unwrap_or_default();
    let enabled = read("cgroup.subtree_control");
    let missing: Vec<String> = read("cgroup.controllers")
        .split_ascii_whitespace()
        .filter(|name| !enabled.split_ascii_whitespace().any(|have| have == *name))
        .map(|name| format!("+{name}"))
        .collect();
    let file = ancestor.join("cgroup.subtree_control");
    if !missing.is_empty() && fs::write(&file, missing.join(" ")).is_err() {
        for controller in missing {
            if fs::write(&file, controller).is_err() {
                continue;
            }
        }
    }
}

/// Copies the CPUs and memory nodes of `parent` where `group` has none, as when it is new: no process may join such a group.
fn inherit_cpuset(parent: &Path, group: &Path, is_new: bool) -> Result<(), Error> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let read = |directory: &Path| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|error| Error::io("read", path, error))
        };
        if is_new || read(group)?.trim().is_empty() {
            let list = read(parent)?;
            let path = group.join(name);
            fs::write(&path, list.trim()).map_err(|error| Error::io("write", path, error))?;
        }
    }
    Ok(())
}

/// Writes values one after the other into the files of the directory `fd`, which is at `path`.
pub(super) fn write_all(fd: &OwnedFd, path: &Path, writes: &[Write]) -> Result<(), Error> {
    write_rest(fd, path, writes, &mut None)
}

fn write_rest(fd: &OwnedFd, path: &Path, writes: &[Write], kept: &mut Kept) -> Result<(), Error> {
    let mut rest = writes;
    while let Some((write, after)) = rest.split_first() {
        match (put(fd, path, write, kept), &write.policy) {
            (Err(error), Policy::AfterNext) if has_errno(&error, Errno::INVAL) && !after.is_empty() => {
                // The pair may itself be followed by a third value that has to go before it.
                write_rest(fd, path, after, kept)?;
                return put(fd, path, write, kept);
            }
            (result, _) => result?,
        }
        rest = after;
    }
    Ok(())
}

fn put(fd: &OwnedFd, path: &Path, write: &Write, kept: &mut Kept) -> Result<(), Error> {
    let error = match file::write(fd.as_fd(), path, &write.file, &write.value, kept) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let missing = has_errno(&error, Errno::NOENT);
    match &write.policy {
        Policy::IfPresent if missing => Ok(()),
        Policy::Else(other) if missing => put(fd, path, other, kept),
        _ if missing => {
            let controller = write.file.split('.').next().unwrap_or_default();
            let problem = format!(
                "cannot write {}: the file is not there; the kernel lacks it, or the {controller:?} controller is \
                 not available in {}",
                write.file,
                path.display()
            );
            Err(Error::field("linux.resources", problem))
        }
        _ if has_errno(&error, Errno::BUSY) && write.file == "memory.limit_in_bytes" => {
            let now = |name| {
                file::read(fd.as_fd(), path, name)
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            };
            let problem = format!(
                "unable to set memory limit to {} (current usage: {}, peak usage: {})",
                write.value,
                now("memory.usage_in_bytes"),
                now("memory.max_usage_in_bytes")
            );
            Err(Error::field("linux.resources.memory.limit", problem))
        }
        _ => Err(error),
    }
}

fn has_errno(error: &Error, errno: Errno) -> bool {
    matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(errno.raw_os_error()))
}
