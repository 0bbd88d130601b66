//! The overlay snapshotter: a directory a snapshot, stacked by overlayfs.
//!
//! ```text
//! <root>/snapshots/overlay/<number>/fs     the snapshot's own files (upperdir; lowerdir of its children), mode 0755
//! <root>/snapshots/overlay/<number>/work   overlayfs's scratch, active snapshots only, mode 0711
//! ```
//!
//! With the labels `containerd.io/snapshot/uidmapping` and `gidmapping` a snapshot is for a container in a user namespace:
//! its own directory belongs to the mapped root, and whoever mounts it is asked to map the ids of the layers below.
//!
//! The files of a layer lie apart from those of all others where the file system takes a hint about that (ext4): layers that
//! are unpacked at once do not wait for one another, and none searches among inodes that were freed a moment ago, which ext4
//! looks at one by one as it does not give them out again so soon. A container's files stay near: nothing has to be read for
//! their place while it starts.
//!
//! A snapshot without parent is a bind mount of `fs`; a view on one layer is a read-only bind mount of that layer; all
//! else is an overlay. Refuses a filesystem whose directories do not tell file types.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::{
    About, Kind, Made, Mount, Snapshotter, Stack, Usage,
    flush::Filesystem,
    id_map,
    native::{numbers, remove_tree},
    store::TARGET,
    usage,
};
use crate::error::{Error, Result};

/// The overlay snapshotter of one instance.
#[derive(Debug)]
pub struct Overlay {
    root: PathBuf,
    filesystem: Filesystem,
    /// Options that every overlay gets.
    options: Vec<String>,
    /// Whether the kernel takes layers with mapped ids.
    maps_ids: bool,
}

impl Overlay {
    /// Opens the snapshotter below `root`, creating it. Every overlay gets the options in `asked` too.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk; `FailedPrecondition` when the filesystem cannot carry overlays.
    pub fn open(root: &Path, asked: &[String]) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|source| Error::io(format!("create {}", root.display()), source))?;
        require_file_types(root)?;
        // With `index` on, a lower directory could not be shared by mounts that were made in another order.
        let index = Path::new("/sys/module/overlay/parameters/index").exists();
        let mut options = Vec::new();
        if index {
            options.push("index=off".to_owned());
        }
        let nested = in_user_namespace()?;
        if nested {
            // There overlayfs may keep its marks in `user.overlay.` only.
            options.push("userxattr".to_owned());
        }
        options.extend(asked.iter().cloned());
        Ok(Self {
            filesystem: Filesystem::open(root)?,
            root: root.to_owned(),
            options,
            maps_ids: !nested && kernel_maps_layers(),
        })
    }

    fn directory(&self, number: u64) -> PathBuf {
        self.root.join(number.to_string())
    }

    fn path(&self, number: u64, name: &str) -> String {
        self.directory(number).join(name).to_string_lossy().into_owned()
    }

    fn make(&self, stack: Stack<'_>) -> io::Result<()> {
        let directory = self.directory(stack.number);
        make_dir(&directory, 0o700)?;
        let files = directory.join("fs");
        if stack.labels.contains_key(TARGET) && keeps_apart(&directory) {
            // ext4 chooses the place by the name, which the others must not have.
            let own = directory.join(stack.number.to_string());
            make_dir(&own, 0o755)?;
            fs::rename(&own, &files)?;
        } else {
            make_dir(&files, 0o755)?;
        }
        let parent = match stack.parents.first() {
            Some(parent) => Some(fs::metadata(self.directory(*parent).join("fs"))?),
            None => None,
        };
        // The root of the stack is the topmost layer's: it must look as the parent's does.
        let owner = id_map::root(stack.labels).or(parent.as_ref().map(|parent| (parent.uid(), parent.gid())));
        let made = fs::symlink_metadata(&files)?;
        if let Some((uid, gid)) = owner.filter(|owner| *owner != (made.uid(), made.gid())) {
            std::os::unix::fs::lchown(&files, Some(uid), Some(gid))?;
        }
        if let Some(parent) = parent {
            require_mode(&files, &made, parent.mode() & 0o7777)?;
        }
        if stack.kind == Kind::Active {
            make_dir(&directory.join("work"), 0o711)?;
        }
        Ok(())
    }
}

impl Snapshotter for Overlay {
    fn create(&self, stack: Stack<'_>) -> Result<Made> {
        id_map::check(stack.labels, self.maps_ids)?;
        self.filesystem.forget(stack.number);
        self.make(stack).map(|()| Made::Fresh).map_err(|source| {
            let error = Error::io(
                format!("create snapshot {}", self.directory(stack.number).display()),
                source,
            );
            match self.remove(stack.number) {
                Ok(()) => error,
                Err(second) => error.context(second),
            }
        })
    }

    fn restore(&self, stack: Stack<'_>) -> Result<()> {
        let directory = self.directory(stack.number);
        let work = directory.join("work");
        if !directory.join("fs").is_dir() {
            self.remove(stack.number)?;
            return self.create(stack).map(drop);
        }
        if stack.kind == Kind::Active && !work.is_dir() {
            make_dir(&work, 0o711)
                .map_err(|source| Error::io(format!("create {}", work.display()), source))?;
        }
        Ok(())
    }

    fn keeps_layers_apart(&self) -> bool {
        true
    }

    fn mounts(&self, stack: Stack<'_>) -> Result<Vec<Mount>> {
        let maps = id_map::options(stack.labels);
        let bind = |number, mode: &str| Mount {
            r#type: "bind".into(),
            source: self.path(number, "fs"),
            options: [&maps[..], &[mode.into(), "rbind".into()]].concat(),
            ..Mount::default()
        };
        let writable = stack.kind == Kind::Active;
        let mut options = match stack.parents {
            [] => return Ok(vec![bind(stack.number, if writable { "rw" } else { "ro" })]),
            [only] if !writable => return Ok(vec![bind(*only, "ro")]),
            _ => [&maps[..], &self.options].concat(),
        };
        if writable {
            options.push(format!("workdir={}", self.path(stack.number, "work")));
            options.push(format!("upperdir={}", self.path(stack.number, "fs")));
        }
        let lower: Vec<_> = stack
            .parents
            .iter()
            .map(|number| self.path(*number, "fs"))
            .collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        Ok(vec![Mount {
            r#type: "overlay".into(),
            source: "overlay".into(),
            options,
            ..Mount::default()
        }])
    }

    fn seal(&self, stack: Stack<'_>, _rebased: bool) -> Result<Usage> {
        self.filesystem.flush(stack.number, || self.numbers())?;
        self.usage(stack)
    }

    fn usage(&self, stack: Stack<'_>) -> Result<Usage> {
        let path = self.directory(stack.number).join("fs");
        usage::of(&path).map_err(|source| Error::io(format!("measure {}", path.display()), source))
    }

    fn remove(&self, number: u64) -> Result<()> {
        remove_tree(&self.directory(number))?;
        self.filesystem.forget(number);
        Ok(())
    }

    fn numbers(&self) -> Result<BTreeSet<u64>> {
        numbers(&self.root)
    }

    fn about(&self) -> About {
        About {
            capabilities: self
                .maps_ids
                .then(|| "remap-ids".to_owned())
                .into_iter()
                .collect(),
            exports: [("root".to_owned(), self.root.display().to_string())].into(),
        }
    }
}

/// Tells the file system that what will be in `directory` is not related; whether it takes such hints.
fn keeps_apart(directory: &Path) -> bool {
    // It costs time only: whatever is wrong with the directory is told by who writes to it.
    let Ok(directory) = fs::File::open(directory) else {
        return false;
    };
    ioctl_getflags(&directory)
        .and_then(|flags| ioctl_setflags(&directory, flags | IFlags::TOPDIR))
        .is_ok()
}

/// Creates a directory with exactly `mode`, whatever the umask.
pub(super) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(mode).create(path)?;
    require_mode(path, &fs::symlink_metadata(path)?, mode)
}

/// Gives the directory at `path` exactly `mode`. Looking costs less than an entry in the file system's journal.
fn require_mode(path: &Path, now: &fs::Metadata, mode: u32) -> io::Result<()> {
    if now.mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Whether ids of this process are not all ids of the host.
fn in_user_namespace() -> Result<bool> {
    let path = "/proc/self/uid_map";
    let map = fs::read_to_string(path).map_err(|source| Error::io(format!("read {path}"), source))?;
    Ok(!map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// overlayfs takes layers from mounts with mapped ids since Linux 5.19.
fn kernel_maps_layers() -> bool {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    let mut numbers = release
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (5, 19)
}

/// overlayfs needs `d_type` in directory entries; without it whiteouts show up as devices.
fn require_file_types(root: &Path) -> Result<()> {
    let failed = |source: io::Error| Error::io(format!("probe {}", root.display()), source);
    let directory = fs::File::open(root).map_err(failed)?;
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = rustix::fs::RawDir::new(&directory, buffer.spare_capacity_mut());
    match entries.next() {
        Some(Ok(entry)) if entry.file_type() == rustix::fs::FileType::Unknown => Err(Error::precondition(
            format!("{} is on a filesystem without d_type", root.display()),
        )),
        Some(Err(error)) => Err(failed(error.into())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identifier::Labels;

    #[test]
    fn a_snapshot_that_lost_its_place_gets_it_again_and_no_other_changes() {
        let dir = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(dir.path(), &[]).unwrap();
        let labels = Labels::default();
        let stack = Stack {
            number: 1,
            parents: &[],
            kind: Kind::Active,
            namespace: "n",
            labels: &labels,
        };
        overlay.restore(stack).unwrap();
        let file = dir.path().join("1/fs/file");
        fs::write(&file, "kept").unwrap();
        fs::remove_dir(dir.path().join("1/work")).unwrap();
        overlay.restore(stack).unwrap();
        assert!(dir.path().join("1/work").is_dir());
        assert_eq!(fs::read(&file).unwrap(), b"kept");
    }

    #[test]
    fn a_layer_is_made_as_any_other_snapshot_wherever_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let overlay = Overlay::open(dir.path(), &[]).unwrap();
        for (number, labels) in [
            (1, Labels::default()),
            (2, Labels::from([(TARGET.to_owned(), "c".to_owned())])),
        ] {
            let stack = Stack {
                number,
                parents: &[],
                kind: Kind::Active,
                namespace: "n",
                labels: &labels,
            };
            overlay.create(stack).unwrap();
            let directory = dir.path().join(number.to_string());
            let entries = fs::read_dir(&directory).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["fs", "work"]);
            let mode = fs::metadata(directory.join("fs")).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o755);
            overlay.remove(number).unwrap();
            assert!(!directory.exists());
        }
    }

    #[test]
    fn mounts_are_those_of_the_stack() {
        let dir = tempfile::tempdir().unwrap();
        let mut overlay = Overlay::open(dir.path(), &[]).unwrap();
        overlay.options = vec!["index=off".into()];
        overlay.maps_ids = true;
        let at = |number: u64, name: &str| format!("{}/{number}/{name}", dir.path().display());
        let mounts = |number, parents: &[u64], kind| {
            overlay
                .mounts(Stack {
                    number,
                    parents,
                    kind,
                    namespace: "n",
                    labels: &Default::default(),
                })
                .unwrap()
                .remove(0)
        };

        let base = mounts(1, &[], Kind::Active);
        assert_eq!((base.r#type.as_str(), base.source), ("bind", at(1, "fs")));
        assert_eq!(base.options, ["rw", "rbind"]);
        assert_eq!(mounts(1, &[], Kind::View).options, ["ro", "rbind"]);
        let view = mounts(3, &[1], Kind::View);
        assert_eq!(
            (view.source, view.options),
            (at(1, "fs"), vec!["ro".to_owned(), "rbind".to_owned()])
        );
        let active = mounts(3, &[2, 1], Kind::Active);
        assert_eq!(
            active.options,
            [
                "index=off".to_owned(),
                format!("workdir={}", at(3, "work")),
                format!("upperdir={}", at(3, "fs")),
                format!("lowerdir={}:{}", at(2, "fs"), at(1, "fs")),
            ]
        );
        let view = mounts(3, &[2, 1], Kind::View);
        assert_eq!(
            view.options,
            [
                "index=off".to_owned(),
                format!("lowerdir={}:{}", at(2, "fs"), at(1, "fs"))
            ]
        );
    }

    #[test]
    fn the_ids_of_layers_are_mapped_where_labels_ask_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut overlay = Overlay::open(dir.path(), &[]).unwrap();
        overlay.maps_ids = true;
        let labels = ["uid", "gid"]
            .map(|id| {
                (
                    format!("containerd.io/snapshot/{id}mapping"),
                    "0:100000:65536".to_owned(),
                )
            })
            .into();
        let stack = Stack {
            number: 2,
            parents: &[1],
            kind: Kind::Active,
            namespace: "n",
            labels: &labels,
        };
        let mount = overlay.mounts(stack).unwrap().remove(0);
        assert_eq!(
            mount.options[..2],
            ["uidmap=0:100000:65536", "gidmap=0:100000:65536"]
        );
        overlay.maps_ids = false;
        assert!(overlay.create(stack).is_err());
    }
}
