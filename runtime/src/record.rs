//! What is kept of a container on disk.
//!
//! ```text
//! <root>/                 0711
//!   <id>/                 0700; made first: the name is taken from here on
//!     state.json          0600; this module's `Record`, version 1
//!     cgroups             the control groups, written before they are made: `{"controller": "directory"}`
//!     start               the start gate, until it is opened; when it is there, the groups are the container's alone
//!     staging/stage/      empty; during creation, where the kernel needs a place to stage mounts
//!     notify/             0755; mounted in a container that tells a service manager when it is ready
//!       notify.sock       0777; the starter's
//!   ~<id>/                a container on its way out
//! ```
//!
//! `state.json` is written under another name and renamed: it is there or not, and whole. It is written again when limits change. It appears after the clone, while
//! the process still builds its container. A crash leaves:
//!
//! - before the rename: a directory without `state.json`, which nobody has locked. `remove_incomplete` removes it with its
//!   control groups and whatever process waits in them; the next `create` of that id does the same first;
//! - after it: a container that is `created`, or `stopped` when its process ended with its parent, to be deleted;
//! - during `delete`: the container as it was, or a `~` directory, which the next `delete` of that id removes.
//!
//! Nothing here waits for a disk: the state does not outlive the boot.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, mkdirat, openat, renameat, unlinkat};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::cgroup::{Cgroup, Unit};
use crate::spec::oci::LinuxResources;
use crate::{ContainerId, Error, State, Status, intel_rdt};

const FILE: &str = "state.json";
const STAGING: &str = "staging";
/// For a container that tells a service manager when it is ready.
pub(crate) const NOTIFY_DIRECTORY: &str = "notify";
/// Where the container finds it.
pub(crate) const NOTIFY_TARGET: &str = "/run/notify";
/// The socket in it.
pub(crate) const NOTIFY_SOCKET: &str = "notify.sock";
const NEW_FILE: &str = ".state.json";
const CGROUPS_FILE: &str = "cgroups";
const VERSION: u32 = 1;
/// How long the process of a killed creation may take to close its descriptors.
const CREATE_PATIENCE: Duration = Duration::from_millis(300);
/// A configuration of the largest size, its annotations and its limits once more, and what else is recorded: what can be
/// created can be read.
const MAX_BYTES: u64 = 3 * crate::spec::MAX_CONFIG_BYTES + (1 << 20);

/// One container, as recorded.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    /// Of this layout; another one is refused.
    pub(crate) version: u32,
    /// The container's name.
    pub(crate) id: String,
    /// The version of the specification the configuration names.
    pub(crate) oci_version: String,
    /// Absolute.
    pub(crate) bundle: PathBuf,
    /// Absolute.
    pub(crate) rootfs: PathBuf,
    /// The first process, in the pid namespace of the caller of `create`.
    pub(crate) pid: i32,
    /// Its start time in clock ticks since boot.
    pub(crate) start_time: u64,
    /// RFC 3339.
    pub(crate) created: String,
    /// Of the configuration.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Controller (empty for v2) to directory.
    pub(crate) cgroups: BTreeMap<String, PathBuf>,
    /// The unit of systemd's that the control group is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<Unit>,
    /// The limits since they were changed; those of `config` until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<LinuxResources>,
    /// `CLONE_NEW*` of the namespaces the container does not share with its creator.
    pub(crate) namespaces: u64,
    /// Those of them that were made for it.
    pub(crate) own_namespaces: u64,
    /// The user namespace it is in forbids `setgroups(2)`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) denies_setgroups: bool,
    /// The group of resctrl that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) intel_rdt: Option<intel_rdt::Group>,
    /// The configuration has no hooks: for what comes later it need not be read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_hooks: bool,
    /// `config.json` as it was at creation. Written by [`Directory::write`].
    #[serde(skip_serializing)]
    pub(crate) config: Config,
}

/// A configuration's text, which was read as JSON. In the record it is a member like the others, byte for byte what it was.
#[derive(Debug)]
pub(crate) struct Config(pub(crate) Arc<Vec<u8>>);

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: Box<str> = Box::<RawValue>::deserialize(deserializer)?.into();
        Ok(Self(Arc::new(text.into_boxed_bytes().into_vec())))
    }
}

/// A container's directory below the state root.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    path: PathBuf,
    fd: OwnedFd,
}

/// The right to remove a container, one at a time.
#[derive(Debug)]
pub(crate) struct Removal {
    _lock: Option<OwnedFd>,
}

impl Directory {
    /// Takes the name `id`, unless a container has it. Until the answer is dropped nobody takes the directory over.
    pub(crate) fn claim(root: &Path, id: &ContainerId) -> Result<Self, Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(root);
        made.map_err(|error| Error::io(format!("mkdir {}", root.display()), error))?;
        let path = root.join(id.as_str());
        loop {
            let existed = match mkdirat(rustix::fs::CWD, &path, Mode::RWXU) {
                Ok(()) => false,
                Err(rustix::io::Errno::EXIST) => true,
                Err(errno) => return Err(Error::io(format!("mkdir {}", path.display()), errno)),
            };
            let Some(directory) = Self::open_path(root, path.clone())? else {
                continue;
            };
            if !directory.lock()? {
                return Err(Error::Exists(id.clone()));
            }
            // Until it was locked, whoever deletes a container of that name may have removed it.
            if !directory.is_current()? {
                continue;
            }
            // Lost to a creation that was faster, also with the directory that this one made.
            if rustix::fs::statat(&directory.fd, FILE, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                return Err(Error::Exists(id.clone()));
            }
            // Taken over from one that was cut short.
            if existed {
                directory.abandon_cgroups()?;
                crate::process::gate::remove(directory.fd.as_fd())?;
            }
            return Ok(directory);
        }
    }

    /// Whether this directory still has the name: nobody has removed it, and none of that name was made since.
    fn is_current(&self) -> Result<bool, Error> {
        let what = || format!("stat {}", self.path.display());
        let own = rustix::fs::fstat(&self.fd).map_err(|errno| Error::io(what(), errno))?;
        match rustix::fs::lstat(&self.path) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(errno) => Err(Error::io(what(), errno)),
        }
    }

    /// Whether nobody else creates the container. The process of a creation that was killed holds on to the lock until it has
    /// closed its descriptors, for a moment.
    fn lock(&self) -> Result<bool, Error> {
        self.lock_file(self.fd.as_fd(), CREATE_PATIENCE)
    }

    /// Keeps everybody else from removing the container until the answer is dropped; nothing when somebody has. From then
    /// on the name and the groups may be another container's.
    pub(crate) fn lock_removal(&self) -> Result<Option<Removal>, Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.fd, FILE, flags, Mode::empty()) {
            Ok(file) => Some(file),
            // The creator itself holds the lock that matters, or it is gone already.
            Err(rustix::io::Errno::NOENT) => None,
            Err(errno) => {
                return Err(Error::io(
                    format!("open {}", self.path.join(FILE).display()),
                    errno,
                ));
            }
        };
        if let Some(file) = &file
            && !self.lock_file(file.as_fd(), crate::delete::PATIENCE)?
        {
            let what = format!("wait for the other removal of {}", self.path.display());
            return Err(Error::io(what, io::ErrorKind::TimedOut));
        }
        Ok(self.is_current()?.then_some(Removal { _lock: file }))
    }

    fn lock_file(&self, file: BorrowedFd<'_>, patience: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + patience;
        loop {
            match flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(true),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
                Err(errno) => return Err(Error::io(format!("lock {}", self.path.display()), errno)),
            }
        }
    }

    /// Notes which control groups are about to be made, for whoever has to remove them should this process not live to
    /// write the record.
    pub(crate) fn note_cgroups(&self, paths: &BTreeMap<String, PathBuf>) -> Result<(), Error> {
        let what = || format!("write {}", self.path.join(CGROUPS_FILE).display());
        let text = serde_json::to_vec(paths).map_err(|error| Error::io(what(), io::Error::from(error)))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.fd, CGROUPS_FILE, flags, Mode::RUSR | Mode::WUSR);
        let mut file = fs::File::from(file.map_err(|errno| Error::io(what(), errno))?);
        io::Write::write_all(&mut file, &text).map_err(|error| Error::io(what(), error))
    }

    /// Removes the control groups of a creation that was cut short, and the process that may wait in them.
    fn abandon_cgroups(&self) -> Result<(), Error> {
        let Some(text) = self.read_file(CGROUPS_FILE)? else {
            return Ok(());
        };
        // Cut short while it was written: no group was made.
        let Ok(paths) = serde_json::from_slice(&text) else {
            return Ok(());
        };
        let cgroup = Cgroup::from_paths(paths)?;
        if crate::process::gate::is_there(self.fd.as_fd()) {
            cgroup.kill(libc::SIGKILL)?;
            return Ok(cgroup.remove()?);
        }
        // They may be somebody else's: the creation had not yet found out.
        Ok(cgroup.remove_if_unused()?)
    }

    /// Opens the directory of a container; nothing when there is none.
    pub(crate) fn open(root: &Path, id: &ContainerId) -> Result<Option<Self>, Error> {
        Self::open_path(root, root.join(id.as_str()))
    }

    fn open_path(root: &Path, path: PathBuf) -> Result<Option<Self>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(rustix::fs::CWD, &path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self {
                root: root.to_owned(),
                path,
                fd,
            })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io(format!("open {}", path.display()), errno)),
        }
    }

    /// The directory itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Where it is, absolute.
    pub(crate) fn path(&self) -> Result<PathBuf, Error> {
        std::path::absolute(&self.path).map_err(|error| Error::io("find the state", error))
    }

    /// Makes the empty directory on which the container's process stages mounts, in its own mount namespace.
    pub(crate) fn make_staging(&self) -> Result<PathBuf, Error> {
        let staging = self.path.join(STAGING);
        let stage = staging.join(OsStr::from_bytes(crate::rootfs::STAGE.to_bytes()));
        for path in [&staging, &stage] {
            match mkdirat(rustix::fs::CWD, path, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(Error::io(format!("mkdir {}", path.display()), errno)),
            }
        }
        Ok(staging)
    }

    /// Removes what [`Self::make_staging`] made.
    pub(crate) fn remove_staging(&self) -> Result<(), Error> {
        let path = self.path.join(STAGING);
        fs::remove_dir_all(&path).map_err(|error| Error::io(format!("remove {}", path.display()), error))
    }

    /// Makes the directory of the notify socket.
    pub(crate) fn make_notify_directory(&self) -> Result<(), Error> {
        let mode = Mode::from_raw_mode(0o755);
        let made = match mkdirat(&self.fd, NOTIFY_DIRECTORY, mode) {
            // Of a creation that was cut short.
            Err(rustix::io::Errno::EXIST) => Ok(()),
            answer => answer,
        };
        // Whatever the umask is: the container's user has to get through.
        made.and_then(|()| rustix::fs::chmodat(&self.fd, NOTIFY_DIRECTORY, mode, AtFlags::empty()))
            .map_err(|errno| {
                Error::io(
                    format!("mkdir {}", self.path.join(NOTIFY_DIRECTORY).display()),
                    errno,
                )
            })
    }

    /// Writes the record. It is there completely or not at all.
    pub(crate) fn write(&self, record: &Record) -> Result<(), Error> {
        let what = || format!("write {}", self.path.join(FILE).display());
        let mut text =
            serde_json::to_vec(record).map_err(|error| Error::io(what(), io::Error::from(error)))?;
        // The configuration is most of it, and needs no other form.
        text.pop();
        text.extend_from_slice(b",\"config\":");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.fd, NEW_FILE, flags, Mode::RUSR | Mode::WUSR);
        let mut file = fs::File::from(file.map_err(|errno| Error::io(what(), errno))?);
        for part in [&text, record.config.0.as_slice(), b"}"] {
            io::Write::write_all(&mut file, part).map_err(|error| Error::io(what(), error))?;
        }
        renameat(&self.fd, NEW_FILE, &self.fd, FILE).map_err(|errno| Error::io(what(), errno))
    }

    /// Reads the record; nothing when creation was cut short.
    pub(crate) fn read(&self) -> Result<Option<Record>, Error> {
        let path = self.path.join(FILE);
        let Some(text) = self.read_file(FILE)? else {
            return Ok(None);
        };
        let bad = |problem: String| Error::State {
            path: path.clone(),
            problem,
        };
        let record: Record = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if record.version != VERSION {
            return Err(bad(format!("layout {} is not known", record.version)));
        }
        Ok(Some(record))
    }

    /// Reads a file of the directory; nothing when it is not there.
    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path.join(name);
        // What is no file is no reason to wait.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(file) => fs::File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::io(format!("open {}", path.display()), errno)),
        };
        let mut text = Vec::new();
        let read = io::Read::read_to_end(&mut io::Read::take(file, MAX_BYTES), &mut text);
        read.map_err(|error| Error::io(format!("read {}", path.display()), error))?;
        Ok(Some(text))
    }

    /// Removes the directory and frees the name, at once.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let doomed = doomed(&self.root, self.path.file_name().unwrap_or_default());
        loop {
            match fs::rename(&self.path, &doomed) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                // An earlier removal was cut short, or is under way.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => remove_tree(&doomed)?,
                Err(error) => return Err(Error::io(format!("rename {}", self.path.display()), error)),
            }
        }
        // Mostly there is nothing else in it, and no need to look.
        for file in [FILE, CGROUPS_FILE] {
            match unlinkat(&self.fd, file, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(_) => return remove_tree(&doomed),
            }
        }
        match fs::remove_dir(&doomed) {
            Ok(()) => Ok(()),
            Err(_) => remove_tree(&doomed),
        }
    }
}

/// Removes what a removal of `id` that was cut short left; whether there was something.
pub(crate) fn remove_doomed(root: &Path, id: &ContainerId) -> Result<bool, Error> {
    let doomed = doomed(root, id.as_str().as_ref());
    let was_there = doomed.exists();
    remove_tree(&doomed).map(|()| was_there)
}

/// No id begins with a tilde.
fn doomed(root: &Path, name: &OsStr) -> PathBuf {
    let mut doomed = OsString::from("~");
    doomed.push(name);
    root.join(doomed)
}

fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Record {
    /// The number of the layout that is written.
    pub(crate) const VERSION: u32 = VERSION;
}

/// The ids below `root`, sorted. A root that is not there has none.
pub(crate) fn ids(root: &Path) -> Result<Vec<ContainerId>, Error> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(format!("read {}", root.display()), error)),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(format!("read {}", root.display()), error))?;
        // Other files of other programs, and containers on their way out, are no ids.
        let name = entry.file_name();
        ids.extend(name.to_str().and_then(|name| ContainerId::new(name).ok()));
    }
    ids.sort();
    Ok(ids)
}

impl Record {
    /// The state that this record and the given facts of the moment make.
    pub(crate) fn state(&self, pid: i32, status: Status) -> State {
        State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            pid,
            status,
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
            owner: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            version: VERSION,
            id: id.into(),
            oci_version: "1.2.0".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            pid: 1,
            start_time: 2,
            created: "2026-01-01T00:00:00Z".into(),
            annotations: BTreeMap::new(),
            cgroups: BTreeMap::new(),
            unit: None,
            resources: None,
            namespaces: 0,
            own_namespaces: 0,
            denies_setgroups: false,
            intel_rdt: None,
            no_hooks: false,
            config: Config(Arc::new(b"{ \"a\" :1}".to_vec())),
        }
    }

    #[test]
    fn a_name_is_taken_once_and_free_after_removal() {
        let root = tempfile::tempdir().unwrap();
        let id = ContainerId::new("c").unwrap();
        let directory = Directory::claim(root.path(), &id).unwrap();
        assert!(matches!(
            Directory::claim(root.path(), &id),
            Err(Error::Exists(_))
        ));
        directory.write(&record("c")).unwrap();
        drop(directory);
        assert!(matches!(
            Directory::claim(root.path(), &id),
            Err(Error::Exists(_))
        ));
        let directory = Directory::open(root.path(), &id).unwrap().unwrap();
        assert_eq!(*directory.read().unwrap().unwrap().config.0, b"{ \"a\" :1}");
        directory.remove().unwrap();
        directory.remove().unwrap();
        assert!(Directory::open(root.path(), &id).unwrap().is_none());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        Directory::claim(root.path(), &id).unwrap();
    }

    #[test]
    fn a_creation_cut_short_does_not_block_the_name() {
        let root = tempfile::tempdir().unwrap();
        let id = ContainerId::new("c").unwrap();
        drop(Directory::claim(root.path(), &id).unwrap());
        assert!(
            Directory::open(root.path(), &id)
                .unwrap()
                .unwrap()
                .read()
                .unwrap()
                .is_none()
        );
        Directory::claim(root.path(), &id).unwrap();
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let id = ContainerId::new("c").unwrap();
        let directory = Directory::claim(root.path(), &id).unwrap();
        for text in ["", "{", "{\"version\":2}", "[]"] {
            fs::write(root.path().join("c").join(FILE), text).unwrap();
            assert!(matches!(directory.read(), Err(Error::State { .. })), "{text}");
        }
    }
}
