//! What is kept of a container on disk.
//!
//! ```text
//! <root>/                 0711
//!   <id>/                 0700; made first: the name is taken from here on
//!     state.json          0600; this module's `Record`, version 1
//!     start               the start gate, until it is opened
//!     staging/stage/      empty; during creation, where the kernel needs a place to stage mounts
//!   ~<id>.<pid>.<n>/      a container on its way out
//! ```
//!
//! `state.json` is written under another name and renamed: it is there or not, and whole. It is written again when limits change. It appears after the clone, while
//! the process still builds its container. A crash leaves:
//!
//! - before the rename: a directory without `state.json`, which nobody has locked. The next `create` of that id takes it
//!   over, and `remove_incomplete` removes it;
//! - after it: a container whose process ended with its parent: `stopped`, to be deleted;
//! - during `delete`: a `~` directory, which the next `create` or `delete` removes.
//!
//! Nothing here waits for a disk: the state does not outlive the boot.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, mkdirat, openat, renameat};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cgroup::Unit;
use crate::spec::oci::LinuxResources;
use crate::{ContainerId, Error, intel_rdt};

const FILE: &str = "state.json";
const STAGING: &str = "staging";
const NEW_FILE: &str = ".state.json";
const VERSION: u32 = 1;
/// A configuration of 16 MiB and what is recorded beside it.
const MAX_BYTES: u64 = 17 << 20;

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
    /// `config.json` as it was at creation.
    pub(crate) config: Box<RawValue>,
}

/// A container's directory below the state root.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Takes the name `id`, unless a container has it. Until the answer is dropped nobody takes the directory over.
    pub(crate) fn claim(root: &Path, id: &ContainerId) -> Result<Self, Error> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(root);
        made.map_err(|error| Error::io(format!("mkdir {}", root.display()), error))?;
        let path = root.join(id.as_str());
        let existed = match mkdirat(rustix::fs::CWD, &path, Mode::RWXU) {
            Ok(()) => false,
            Err(rustix::io::Errno::EXIST) => true,
            Err(errno) => return Err(Error::io(format!("mkdir {}", path.display()), errno)),
        };
        let directory = Self::open_path(root, path)?.ok_or_else(|| Error::Exists(id.clone()))?;
        match flock(&directory.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Exists(id.clone())),
            Err(errno) => return Err(Error::io(format!("lock {}", directory.path.display()), errno)),
        }
        // Taken over from a creation that was cut short, or lost to one that was faster.
        if existed && directory.path.join(FILE).exists() {
            return Err(Error::Exists(id.clone()));
        }
        if existed {
            crate::process::gate::remove(directory.fd.as_fd())?;
        }
        Ok(directory)
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

    /// Writes the record. It is there completely or not at all.
    pub(crate) fn write(&self, record: &Record) -> Result<(), Error> {
        let what = || format!("write {}", self.path.join(FILE).display());
        let text = serde_json::to_vec(record).map_err(|error| Error::io(what(), io::Error::from(error)))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.fd, NEW_FILE, flags, Mode::RUSR | Mode::WUSR);
        let mut file = fs::File::from(file.map_err(|errno| Error::io(what(), errno))?);
        io::Write::write_all(&mut file, &text).map_err(|error| Error::io(what(), error))?;
        renameat(&self.fd, NEW_FILE, &self.fd, FILE).map_err(|errno| Error::io(what(), errno))
    }

    /// Reads the record; nothing when creation was cut short.
    pub(crate) fn read(&self) -> Result<Option<Record>, Error> {
        let path = self.path.join(FILE);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.fd, FILE, flags, Mode::empty()) {
            Ok(file) => fs::File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::io(format!("open {}", path.display()), errno)),
        };
        let mut text = Vec::new();
        let read = io::Read::read_to_end(&mut io::Read::take(file, MAX_BYTES), &mut text);
        read.map_err(|error| Error::io(format!("read {}", path.display()), error))?;
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

    /// Removes the directory and frees the name, at once.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (Some(name), pid) = (self.path.file_name(), std::process::id()) else {
            return Ok(());
        };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let doomed = self
            .root
            .join(format!("~{}.{pid}.{count}", name.to_string_lossy()));
        match fs::rename(&self.path, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io(format!("rename {}", self.path.display()), error)),
        }
        fs::remove_dir_all(&doomed).map_err(|error| Error::io(format!("remove {}", doomed.display()), error))
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
            config: RawValue::from_string("{ \"a\" :1}".into()).unwrap(),
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
        assert_eq!(directory.read().unwrap().unwrap().config.get(), "{ \"a\" :1}");
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
