//! A container's group, once it is there: joining, listing, limits that change, removal.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::create::{Made, write_all};
use super::{Entrance, Error, Unit, file, v1, v2};
use crate::spec::oci::LinuxResources;

/// How long processes that were killed may take to leave a group.
const REMOVE_DEADLINE: Duration = Duration::from_secs(5);

/// One directory, opened when it is first needed.
#[derive(Debug)]
pub(super) struct GroupDirectory {
    pub path: PathBuf,
    fd: OnceLock<OwnedFd>,
}

impl GroupDirectory {
    /// The directory's descriptor.
    pub fn fd(&self) -> Result<&OwnedFd, Error> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&self.path, flags, Mode::empty())
            .map_err(|errno| Error::io("open", &self.path, errno))?;
        Ok(self.fd.get_or_init(|| fd))
    }

    pub fn read(&self, name: &str) -> Result<String, Error> {
        file::read(self.fd()?.as_fd(), &self.path, name)
    }

    pub fn read_if_present(&self, name: &str) -> Result<Option<String>, Error> {
        match self.fd() {
            Ok(fd) => file::read_if_present(fd.as_fd(), &self.path, name),
            Err(error) if file::is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn write(&self, name: &str, value: &str) -> Result<(), Error> {
        file::write(self.fd()?.as_fd(), &self.path, name, value, &mut None)
    }
}

/// The directories of one container, one for each hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    paths: BTreeMap<String, PathBuf>,
    /// Each directory once; controllers that are mounted together share one.
    directories: Vec<GroupDirectory>,
    /// The unit of systemd's that it is.
    unit: Option<Unit>,
}

impl Cgroup {
    pub(super) fn from_directories(made: Vec<Made>) -> Self {
        let mut cgroup = Self {
            paths: BTreeMap::new(),
            directories: Vec::new(),
            unit: None,
        };
        cgroup.extend(made);
        cgroup
    }

    /// Adds directories of other hierarchies.
    pub(super) fn extend(&mut self, made: Vec<Made>) {
        self.directories.reserve(made.len());
        for (keys, path, fd) in made {
            self.paths.extend(keys.into_iter().map(|key| (key, path.clone())));
            self.directories.push(GroupDirectory {
                path,
                fd: OnceLock::from(fd),
            });
        }
    }

    /// The group recorded in a container's state: controller name (empty for v2) to directory. Opens nothing.
    ///
    /// Directories that are gone are accepted: they have no processes, and removal has nothing to do.
    ///
    /// # Errors
    ///
    /// A path is not absolute, or has `..` in it.
    pub fn from_paths(paths: BTreeMap<String, PathBuf>) -> Result<Self, Error> {
        let mut directories: Vec<GroupDirectory> = Vec::with_capacity(paths.len());
        for path in paths.values() {
            let plain =
                path.is_absolute() && path.components().count() > 1 && !path.iter().any(|part| part == "..");
            if !plain {
                return Err(Error::Malformed {
                    file: path.clone(),
                    problem: "is no cgroup path".to_owned(),
                });
            }
            if !directories.iter().any(|directory| directory.path == *path) {
                directories.push(GroupDirectory {
                    path: path.clone(),
                    fd: OnceLock::new(),
                });
            }
        }
        Ok(Self {
            paths,
            directories,
            unit: None,
        })
    }

    /// The same, as a unit of systemd's, which is told about changes.
    #[must_use]
    pub fn with_unit(mut self, unit: Option<Unit>) -> Self {
        self.unit = unit;
        self
    }

    /// The unit of systemd's that it is, for the container's state.
    #[must_use]
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// Controller name (empty for v2) to directory, for the container's state.
    #[must_use]
    pub fn paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.paths
    }

    /// Whether the container has any group: one of a user without privileges may have none.
    #[must_use]
    pub fn is_any(&self) -> bool {
        !self.directories.is_empty()
    }

    /// The groups below these that `below` names, by controller (an empty name is all of them); they have to be there to be
    /// entered.
    ///
    /// # Errors
    ///
    /// A path leads out, or a controller is not known.
    pub fn below(&self, below: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut paths = self.paths.clone();
        for (controller, sub) in below {
            let inside = descend(sub)
                .ok_or_else(|| Error::field("--cgroup", format!("bad sub cgroup path: {sub}")))?;
            let mut found = false;
            for (_, path) in paths
                .iter_mut()
                .filter(|(key, _)| controller.is_empty() || *key == controller)
            {
                *path = super::layout::join(path, &inside);
                found = true;
            }
            if !found {
                return Err(Error::field(
                    "--cgroup",
                    format!("unknown controller {controller} in SubCgroupPaths"),
                ));
            }
        }
        Self::from_paths(paths)
    }

    /// The v2 directory, for `CLONE_INTO_CGROUP`; nothing where there is no v2 hierarchy. The v1 hierarchies are entered
    /// through [`Self::entrances`].
    ///
    /// # Errors
    ///
    /// The directory cannot be opened: a process would be born outside of it.
    pub fn v2_dir_fd(&self) -> Result<Option<BorrowedFd<'_>>, Error> {
        self.directory("")
            .map(|directory| directory.fd().map(AsFd::as_fd))
            .transpose()
    }

    /// The way into each v1 hierarchy, for a process with one thread that was born outside.
    ///
    /// # Errors
    ///
    /// One of them cannot be opened.
    pub fn entrances(&self) -> Result<Vec<Entrance>, Error> {
        let v2 = self.paths.get("");
        self.directories
            .iter()
            .filter(|directory| Some(&directory.path) != v2)
            .map(|directory| Entrance::open(directory.fd()?.as_fd(), &directory.path))
            .collect()
    }

    /// Puts a process that is already running into every hierarchy. In a v1 hierarchy this waits for an RCU grace period,
    /// some milliseconds: a process that is being made goes by [`Self::entrances`].
    ///
    /// # Errors
    ///
    /// The kernel refuses; the process may then be in some of the hierarchies.
    pub fn join(&self, pid: i32) -> Result<(), Error> {
        self.directories
            .iter()
            .try_for_each(|directory| enter(directory.fd()?.as_fd(), &directory.path, pid))
    }

    /// Writes changed limits, those of `resources` that are present; device rules are not changed. What is asked for and cannot
    /// be had here is added to `warnings`, one sentence each.
    ///
    /// # Errors
    ///
    /// A limit cannot be given, or the kernel or systemd refuses it: the ones before it are then in force.
    pub fn update(&self, resources: &LinuxResources, warnings: &mut Vec<String>) -> Result<(), Error> {
        let is_v2 = self.is_v2();
        if is_v2 {
            self.check_usage(resources)?;
        }
        let rounded = self
            .unit
            .as_ref()
            .map(|unit| self.undisturbed(|| unit.update(resources, is_v2, warnings)))
            .transpose()?;
        let resources = rounded.as_ref().unwrap_or(resources);
        if is_v2 {
            let (writes, mut left_out) = v2::writes(resources)?;
            warnings.append(&mut left_out);
            let directory = self.primary()?;
            return write_all(directory.fd()?, &directory.path, &writes);
        }
        if !resources.unified.is_empty() {
            let problem = "invalid configuration: cannot use unified on cgroup v1";
            return Err(Error::field("linux.resources.unified", problem));
        }
        for (key, path) in &self.paths {
            let writes = v1::writes(key, resources)?;
            if let Some(directory) = self.directories.iter().find(|directory| directory.path == *path)
                && !writes.is_empty()
            {
                write_all(directory.fd()?, path, &writes)?;
            }
        }
        Ok(())
    }

    /// v1's systemd empties the list of devices and fills it again, whatever it is told: nobody may look meanwhile.
    fn undisturbed<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        if self.is_v2() || self.directory("freezer").is_none() || self.is_frozen()? {
            return work();
        }
        self.freeze()?;
        let result = work();
        let thawed = self.thaw();
        let result = result?;
        thawed.map(|()| result)
    }

    /// Refuses limits below what is in use, which would kill, if that was asked for (`checkBeforeUpdate`).
    fn check_usage(&self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(memory) = resources
            .memory
            .as_ref()
            .filter(|memory| memory.check_before_update == Some(true))
        else {
            return Ok(());
        };
        let usage = self.primary()?.read_if_present("memory.current")?;
        let Some(usage) = usage.and_then(|text| text.trim().parse::<i64>().ok()) else {
            return Ok(());
        };
        for (name, limit) in [("memory+swap", memory.swap), ("memory", memory.limit)] {
            if let Some(limit) = limit.filter(|limit| *limit > 0 && *limit <= usage) {
                let problem = format!("rejecting {name} limit {limit} <= usage {usage}");
                return Err(Error::field("linux.resources.memory", problem));
            }
        }
        Ok(())
    }

    /// The processes of the group and its children, as this process's pid namespace numbers them.
    ///
    /// # Errors
    ///
    /// The group cannot be read. A group that is gone has none.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let mut pids = Vec::new();
        collect_pids(&self.primary()?.path, &mut pids)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Whether the directory that the container's processes are counted in is still there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.primary().is_ok_and(|directory| directory.path.is_dir())
    }

    /// Removes the group and its children. Blocks while processes are still leaving, at most a few seconds.
    ///
    /// # Errors
    ///
    /// A directory stays busy. A directory that is gone is no error.
    pub fn remove(&self) -> Result<(), Error> {
        let mut first = self.unit.as_ref().and_then(|unit| unit.stop().err());
        let deadline = Instant::now() + REMOVE_DEADLINE;
        for directory in &self.directories {
            // The other hierarchies are removed also when one stays.
            if let Err(error) = remove_tree(&directory.path, deadline) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Removes those of its directories that have neither processes nor children; the others stay.
    ///
    /// # Errors
    ///
    /// A directory cannot be removed for another reason. A directory that is gone is no error.
    pub fn remove_if_unused(&self) -> Result<(), Error> {
        for GroupDirectory { path, .. } in &self.directories {
            match rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(Errno::ROFS) if !path.exists() => {}
                Err(errno) => return Err(Error::io("rmdir", path, errno)),
            }
        }
        Ok(())
    }

    /// Whether there is nothing but the one v2 hierarchy.
    pub(crate) fn is_v2(&self) -> bool {
        self.paths.keys().all(String::is_empty)
    }

    pub(super) fn directory(&self, controller: &str) -> Option<&GroupDirectory> {
        let path = self.paths.get(controller)?;
        self.directories.iter().find(|directory| directory.path == *path)
    }

    /// The directory that tells which processes the container has.
    pub(super) fn primary(&self) -> Result<&GroupDirectory, Error> {
        let preferred: &[&str] = if self.is_v2() {
            &[""]
        } else {
            &["devices", "freezer", "pids", ""]
        };
        preferred
            .iter()
            .find_map(|name| self.directory(name))
            .or(self.directories.first())
            .ok_or(Error::NoGroup("unable to get all container pids"))
    }
}

/// A relative path without `.` and `..`; nothing for one that leads above its start.
fn descend(path: &str) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir if !inside.pop() => return None,
            _ => {}
        }
    }
    Some(inside)
}

/// Writes a pid into `cgroup.procs`.
///
/// The kernel answers `EINVAL` while the process is half born, which passes.
pub(super) fn enter(directory: BorrowedFd<'_>, path: &Path, pid: i32) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_millis(200);
    loop {
        match file::write(directory, path, "cgroup.procs", &pid.to_string(), &mut None) {
            Err(Error::Io { source, .. })
                if source.raw_os_error() == Some(libc::EINVAL) && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn collect_pids(path: &Path, pids: &mut Vec<i32>) -> Result<(), Error> {
    let directory = GroupDirectory {
        path: path.to_owned(),
        fd: OnceLock::new(),
    };
    let text = match directory.fd().and_then(|fd| file::processes(fd.as_fd(), path)) {
        Ok(text) => text,
        Err(error) if file::is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for line in text.lines() {
        let pid: i32 = line.parse().map_err(|_| Error::Malformed {
            file: path.join("cgroup.procs"),
            problem: format!("{line:?} is no pid"),
        })?;
        // Zero is a process that this pid namespace cannot name.
        pids.extend(Some(pid).filter(|pid| *pid != 0));
    }
    for child in children(path)? {
        collect_pids(&child, pids)?;
    }
    Ok(())
}

fn children(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut children = Vec::new();
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(children),
        Err(error) => return Err(Error::io("list", path, error)),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => break,
            Err(error) => return Err(Error::io("list", path, error)),
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// Removes a group, first its children. `EBUSY` is waited out: a killed process leaves its group only when its
/// last thread is gone.
fn remove_tree(path: &Path, deadline: Instant) -> Result<(), Error> {
    let mut pause = Duration::from_millis(1);
    loop {
        match rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::INTR) => continue,
            // A read-only mount answers EROFS before it looks whether there is anything to remove.
            Err(Errno::ROFS) if !path.exists() => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) if Instant::now() < deadline => {
                for child in children(path)? {
                    remove_tree(&child, deadline)?;
                }
            }
            Err(errno) => return Err(Error::io("rmdir", path, errno)),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_below_are_inside() {
        let paths = [
            ("cpu", "/c/cpu/x"),
            ("cpuacct", "/c/cpu/x"),
            ("memory", "/c/memory/x"),
        ];
        let paths = paths.map(|(key, path)| (key.to_owned(), PathBuf::from(path)));
        let group = Cgroup::from_paths(paths.into()).unwrap();
        let below = |asked: &[(&str, &str)]| {
            let asked = asked
                .iter()
                .map(|(key, path)| ((*key).to_owned(), (*path).to_owned()))
                .collect();
            group.below(&asked).map(|group| group.paths)
        };
        assert_eq!(below(&[]).unwrap(), group.paths);
        assert_eq!(below(&[("", "/")]).unwrap(), group.paths);
        assert_eq!(
            below(&[("", "a/../b")]).unwrap()["cpuacct"],
            Path::new("/c/cpu/x/b")
        );
        let one = below(&[("memory", "sub")]).unwrap();
        assert_eq!(
            (&one["memory"], &one["cpu"]),
            (&"/c/memory/x/sub".into(), &"/c/cpu/x".into())
        );
        for (bad, phrase) in [
            ("..", "bad sub cgroup path"),
            ("a/../../x", "bad sub cgroup path"),
        ] {
            assert!(
                below(&[("", bad)]).unwrap_err().to_string().contains(phrase),
                "{bad}"
            );
        }
        assert!(
            below(&[("io", "/")])
                .unwrap_err()
                .to_string()
                .contains("unknown controller io")
        );
    }
}
