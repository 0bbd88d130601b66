//! The btrfs snapshotter: every snapshot a subvolume, made from its parent's by the file system.
//!
//! ```text
//! <root>/snapshots/btrfs/<number>    a subvolume; of a view, a read-only one
//! ```
//!
//! Mounts are binds of the subvolumes' directories, so that nobody needs the device. Refuses roots that are not on btrfs, and
//! to be rebased.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags},
};

use super::{
    About, Kind, Made, Mount, Snapshotter, Stack, Usage,
    flush::Filesystem,
    native::{bind, cannot_rebase, numbers, open_root},
    usage,
};
use crate::{
    error::{Error, Result},
    sys,
};

/// `BTRFS_SUPER_MAGIC` of statfs(2).
const MAGIC: u64 = 0x9123_683e;
/// The inode number of the root of every subvolume.
const ROOT_INODE: u64 = 256;
/// How deep subvolumes may lie in each other for their removal.
const MAX_NESTED: usize = 64;

/// The btrfs snapshotter of one instance.
#[derive(Debug)]
pub struct Btrfs {
    root: PathBuf,
    filesystem: Filesystem,
}

impl Btrfs {
    /// Opens the snapshotter below `root`, creating it.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when that would not be on btrfs; `Unknown` from the disk.
    pub fn open(root: &Path) -> Result<Self> {
        // Nothing is made on another file system.
        let mut existing = root;
        let stat = loop {
            match rustix::fs::statfs(existing) {
                Err(rustix::io::Errno::NOENT) => {
                    existing = existing.parent().unwrap_or(Path::new("/"));
                }
                other => {
                    break other
                        .map_err(|error| Error::io(format!("examine {}", existing.display()), error))?;
                }
            }
        };
        if u64::try_from(stat.f_type) != Ok(MAGIC) {
            return Err(Error::precondition(format!(
                "path {} must be a btrfs filesystem to be used with the btrfs snapshotter: skip plugin",
                root.display()
            )));
        }
        open_root(root)?;
        Ok(Self {
            filesystem: Filesystem::open(root)?,
            root: root.to_owned(),
        })
    }

    fn tree(&self, number: u64) -> PathBuf {
        self.root.join(number.to_string())
    }

    fn make(&self, stack: Stack<'_>) -> Result<(), rustix::io::Errno> {
        let root = open(&self.root)?;
        let name = stack.number.to_string();
        match stack.parents.first() {
            Some(parent) => {
                let parent = open(&self.tree(*parent))?;
                sys::btrfs_snapshot(&root, name.as_bytes(), &parent, stack.kind == Kind::View)
            }
            None => {
                sys::btrfs_create(&root, name.as_bytes())?;
                rustix::fs::chmod(self.tree(stack.number), Mode::from_raw_mode(0o755))
            }
        }
    }
}

impl Snapshotter for Btrfs {
    fn create(&self, stack: Stack<'_>) -> Result<Made> {
        self.filesystem.forget(stack.number);
        let Err(error) = self.make(stack) else {
            return Ok(Made::Fresh);
        };
        let error = Error::io(
            format!("create subvolume {}", self.tree(stack.number).display()),
            error,
        );
        Err(match self.remove(stack.number) {
            Ok(()) => error,
            Err(second) => error.context(second),
        })
    }

    fn restore(&self, stack: Stack<'_>) -> Result<()> {
        if self.tree(stack.number).is_dir() {
            return Ok(());
        }
        self.create(stack).map(drop)
    }

    // The trees are whole: a layer is filled on a snapshot of its parent.
    fn keeps_layers_apart(&self) -> bool {
        false
    }

    fn mounts(&self, stack: Stack<'_>) -> Result<Vec<Mount>> {
        let mode = if stack.kind == Kind::Active { "rw" } else { "ro" };
        Ok(vec![bind(&self.tree(stack.number), mode)])
    }

    fn seal(&self, stack: Stack<'_>, rebased: bool) -> Result<Usage> {
        if rebased {
            return Err(cannot_rebase("btrfs"));
        }
        self.filesystem.flush(stack.number, || self.numbers())?;
        self.usage(stack)
    }

    fn usage(&self, stack: Stack<'_>) -> Result<Usage> {
        let tree = self.tree(stack.number);
        let parent = stack.parents.first().map(|parent| self.tree(*parent));
        usage::beyond(&tree, parent.as_deref())
            .map_err(|source| Error::io(format!("measure {}", tree.display()), source))
    }

    fn remove(&self, number: u64) -> Result<()> {
        let path = self.tree(number);
        destroy(&path, 0)
            .map_err(|source| Error::io(format!("remove subvolume {}", path.display()), source))?;
        self.filesystem.forget(number);
        Ok(())
    }

    fn numbers(&self) -> Result<BTreeSet<u64>> {
        numbers(&self.root)
    }

    fn about(&self) -> About {
        About {
            exports: [("root".to_owned(), self.root.display().to_string())].into(),
            ..About::default()
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Removes a subvolume, those that were made inside it (by a container with an engine of its own) first.
fn destroy(path: &Path, depth: usize) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().map(OsStr::as_bytes)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let remove = || sys::btrfs_destroy(&open(parent)?, name);
    match remove() {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::NOTEMPTY) if depth < MAX_NESTED => {}
        other => return other.map_err(io::Error::from),
    }
    let mut pending = vec![path.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            if entry.metadata()?.ino() == ROOT_INODE {
                destroy(&entry.path(), depth + 1)?;
            } else {
                pending.push(entry.path());
            }
        }
    }
    remove().map_err(io::Error::from)
}
