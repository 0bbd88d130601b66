//! A container's group, once it is there: joining, listing, limits that change, removal.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::create::write_all;
use super::{Entrance, Error, file, v1, v2};
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
}

impl Cgroup {
    pub(super) fn from_directories(made: Vec<(Vec<String>, PathBuf, OwnedFd)>) -> Self {
        let mut paths = BTreeMap::new();
        let mut directories = Vec::with_capacity(made.len());
        for (keys, path, fd) in made {
            paths.extend(keys.into_iter().map(|key| (key, path.clone())));
            directories.push(GroupDirectory {
                path,
                fd: OnceLock::from(fd),
            });
        }
        Self { paths, directories }
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
        Ok(Self { paths, directories })
    }

    /// Controller name (empty for v2) to directory, for the container's state.
    #[must_use]
    pub fn paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.paths
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
            .try_for_each(|directory| enter(directory, pid))
    }

    /// Writes changed limits, those of `resources` that are present; device rules are not changed.
    ///
    /// # Errors
    ///
    /// A limit cannot be given, or the kernel refuses it: the ones before it are then in force.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        if self.is_v2() {
            let (writes, _) = v2::writes(resources)?;
            let directory = self.primary()?;
            return write_all(directory.fd()?, &directory.path, &writes);
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
        let deadline = Instant::now() + REMOVE_DEADLINE;
        let mut first = None;
        for directory in &self.directories {
            // The other hierarchies are removed also when one stays.
            if let Err(error) = remove_tree(&directory.path, deadline) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// Whether there is nothing but the one v2 hierarchy.
    pub(super) fn is_v2(&self) -> bool {
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
            .ok_or_else(|| Error::Unsupported("a container without a cgroup, here,".to_owned()))
    }
}

/// Writes a pid into `cgroup.procs`.
///
/// The kernel answers `EINVAL` while the process is half born, which passes.
fn enter(directory: &GroupDirectory, pid: i32) -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_millis(200);
    loop {
        match directory.write("cgroup.procs", &pid.to_string()) {
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
    let Some(text) = directory.read_if_present("cgroup.procs")? else {
        return Ok(());
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
