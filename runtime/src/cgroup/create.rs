//! Performing a [`CgroupPlan`]: directories, then values.
//!
//! A step that fails undoes the directories that were made; a directory that was there before stays.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::file::{self, Kept};
use super::plan::{CgroupPlan, Directory, Kind};
use super::write::{Policy, Write};
use super::{Cgroup, Error, delegate, device_filter, group, threads};
use crate::procfs;

/// A directory that is there now: its controllers, where it is, and itself.
pub(super) type Made = (Vec<String>, PathBuf, OwnedFd);

impl CgroupPlan {
    /// Makes the directories and writes the limits. What was made is removed again when a step fails.
    ///
    /// # Errors
    ///
    /// The step that failed; or the group already has processes.
    pub fn create(&self) -> Result<Cgroup, Error> {
        self.create_those(|_| true).map(Cgroup::from_directories)
    }

    /// As [`Self::create`], of the v2 directory alone, in which a process can be born: none where there is no v2 hierarchy.
    /// The others are made by [`Self::complete`]. Nothing when the directory was there before: only the others tell whether it is
    /// somebody else's, whose processes are not to be ended with the one that is born in it.
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub(crate) fn create_v2(&self) -> Result<Option<Cgroup>, Error> {
        let v2 = self.directories.iter().find(|directory| directory.is_v2());
        if v2.is_some_and(|directory| directory.path.exists()) {
            return Ok(None);
        }
        let directories = self.create_those(Directory::is_v2)?;
        Ok(Some(Cgroup::from_directories(directories)))
    }

    /// Makes the v1 directories of the group that [`Self::create_v2`] has begun.
    ///
    /// # Errors
    ///
    /// As [`Self::create`]; then the group is what it was.
    pub(crate) fn complete(&self, cgroup: &mut Cgroup) -> Result<(), Error> {
        let directories = self.create_those(|directory| !directory.is_v2())?;
        cgroup.extend(directories);
        Ok(())
    }

    fn create_those(&self, which: fn(&Directory) -> bool) -> Result<Vec<Made>, Error> {
        let mut made = Vec::new();
        match self.perform(which, &mut made, Occupants::Refused) {
            Ok(directories) => Ok(directories),
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

    /// Lets systemd start the planned unit with the process `pid` in it; blocks until it has. The group has none of what
    /// systemd does not make until [`Self::fill`].
    ///
    /// # Errors
    ///
    /// systemd cannot be asked or refuses. Nothing is left then.
    pub fn start_unit(&self, pid: i32) -> Result<Cgroup, Error> {
        let Some(unit) = &self.unit else {
            return Err(Error::Unsupported("a unit without systemd".to_owned()));
        };
        for directory in &self.directories {
            // What was left under that name would be limited, and stopped, with the container.
            refuse_leftovers(directory)?;
        }
        unit.start(pid)?;
        Ok(Cgroup::from_paths(self.paths())?.with_unit(Some(unit.unit.clone())))
    }

    /// Makes what systemd did not, puts the process `pid` into it, and writes the limits.
    ///
    /// # Errors
    ///
    /// The step that failed; the group is to be killed and removed then.
    pub fn fill(&self, pid: i32) -> Result<Cgroup, Error> {
        let directories = self.perform(|_| true, &mut Vec::new(), Occupants::Joined(pid))?;
        let unit = self.unit.as_ref().map(|plan| plan.unit.clone());
        Ok(Cgroup::from_directories(directories).with_unit(unit))
    }

    fn perform(
        &self,
        which: fn(&Directory) -> bool,
        made: &mut Vec<PathBuf>,
        occupants: Occupants,
    ) -> Result<Vec<Made>, Error> {
        let mut directories = Vec::with_capacity(self.directories.len());
        for directory in self.directories.iter().filter(|directory| which(directory)) {
            match self.make(directory, made, occupants) {
                Ok(fd) => directories.push((directory.keys.clone(), directory.path.clone(), fd)),
                Err(error) if error.is_permission() => self.lack(directory, error)?,
                Err(error) => return Err(error),
            }
        }
        Ok(directories)
    }

    /// Whether the container can do without a directory that the caller may not make; the error, if not.
    fn lack(&self, directory: &Directory, error: Error) -> Result<(), Error> {
        if directory.kind == Kind::Tracking && directory.filter.is_none() {
            return Ok(());
        }
        if !self.rootless || !self.is_default_path || self.unit.is_some() {
            return Err(match error {
                Error::Io { operation, path, .. } => Error::Permission { operation, path },
                other => other,
            });
        }
        let limit = directory.writes.iter().find(|write| !is_device_rule(write));
        match (limit, directory.kind) {
            (None, _) => Ok(()),
            (Some(_), Kind::V2) => Err(Error::Rootless(Box::new(error))),
            (Some(write), _) => {
                let controller = write.file.split('.').next().unwrap_or_default();
                let problem =
                    format!("cannot set {controller} limit: container could not join or create cgroup");
                Err(Error::field("linux.resources", problem))
            }
        }
    }

    fn make(
        &self,
        directory: &Directory,
        made: &mut Vec<PathBuf>,
        occupants: Occupants,
    ) -> Result<OwnedFd, Error> {
        let (fd, is_new) = open_or_make(directory, made)?;
        match occupants {
            Occupants::Refused if !is_new && directory.kind != Kind::Tracking => {
                refuse_occupied(&fd, &directory.path)?;
                refuse_frozen(&fd, &directory.path)?;
            }
            Occupants::Refused => {}
            Occupants::Joined(pid) => group::enter(fd.as_fd(), &directory.path, pid)?,
        }
        if directory.kind == Kind::V2 {
            threads::settle(directory, &fd)?;
        }
        let (rules, limits): (Vec<_>, Vec<_>) = match self.rootless {
            true => directory.writes.iter().cloned().partition(is_device_rule),
            false => (Vec::new(), Vec::new()),
        };
        if self.rootless {
            tolerate(write_all(&fd, &directory.path, &rules))?;
            write_all(&fd, &directory.path, &limits)?;
        } else {
            write_all(&fd, &directory.path, &directory.writes)?;
        }
        if let Some(rules) = &directory.filter {
            let attached = device_filter::attach(rules, &directory.path);
            if self.rootless {
                tolerate(attached)?;
            } else {
                attached?;
            }
        }
        if let (Kind::V2, Some(owner)) = (directory.kind, self.owner) {
            delegate::give(&fd, &directory.path, owner)?;
        }
        Ok(fd)
    }
}

/// Who may be in a group already.
#[derive(Clone, Copy, Debug)]
enum Occupants {
    /// Nobody.
    Refused,
    /// The container's own first process, in those that systemd has made; it is put into the others.
    Joined(i32),
}

fn is_device_rule(write: &Write) -> bool {
    write.file.starts_with("devices.")
}

/// Whoever may make no device nodes needs no rules about them.
fn tolerate(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if error.is_permission() { Ok(()) } else { Err(error) })
}

/// Refuses a directory that is there before its unit, with processes or frozen.
fn refuse_leftovers(directory: &Directory) -> Result<(), Error> {
    if directory.kind == Kind::Tracking {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(&directory.path, flags, Mode::empty()) {
        Ok(fd) => {
            refuse_occupied(&fd, &directory.path)?;
            refuse_frozen(&fd, &directory.path)
        }
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::io("open", &directory.path, errno)),
    }
}

/// Makes a directory with its parents; answers whether it is new, too.
fn open_or_make(directory: &Directory, made: &mut Vec<PathBuf>) -> Result<(OwnedFd, bool), Error> {
    let below = directory
        .path
        .strip_prefix(&directory.mount)
        .map_err(|_| Error::Malformed {
            file: directory.path.clone(),
            problem: format!("is not below {}", directory.mount.display()),
        })?;
    let mode = Mode::from_raw_mode(0o755);
    let mut current = directory.mount.clone();
    // The parents are there as a rule, and most have nothing to hand down. Any other outcome is told by the walk below.
    let mut is_new = matches!(directory.kind, Kind::V1 | Kind::Tracking)
        && rustix::fs::mkdir(&directory.path, mode).is_ok();
    let missing = match is_new {
        true => {
            made.push(directory.path.clone());
            Path::new("")
        }
        false => below,
    };
    for part in missing.components() {
        if directory.kind == Kind::V2 {
            hand_down_controllers(&current);
        }
        let parent = current.clone();
        current.push(part);
        is_new = match rustix::fs::mkdir(&current, mode) {
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
    Ok((fd, is_new))
}

/// How long a process of a container whose creator was killed may take to find that out and end.
const ENDING: Duration = Duration::from_millis(500);

/// A group with processes of somebody else would be limited, and killed, with the container.
fn refuse_occupied(fd: &OwnedFd, path: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + ENDING;
    loop {
        match file::processes(fd.as_fd(), path)?.lines().count() {
            0 => return Ok(()),
            count if Instant::now() >= deadline => {
                return Err(Error::NotEmpty {
                    path: path.to_owned(),
                    count,
                });
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
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
            procfs::read(&path, 256).map_err(|error| Error::io("read", path, error))
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
