//! Root file systems for containers in user namespaces: the options `uidmap=` and `gidmap=` of containerd's snapshotters.
//!
//! A bind mount shows its ids through the maps; of an overlay the layers do, and the container's own layer does not: what is
//! written there has the ids that the container has on the host. Refused: one map without the other.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use wharf_runtime::id_mapped;
use wharf_runtime::plan::{IdRange, Mappings};

use crate::status::{Code, Refusal};

/// The maps that options ask for, each `CONTAINER:HOST:SIZE[,…]`.
///
/// # Errors
///
/// One without the other, or something else than numbers.
pub fn parse(uid: Option<&str>, gid: Option<&str>) -> Result<Option<Mappings>, Refusal> {
    match (uid, gid) {
        (None, None) => Ok(None),
        (Some(uid), Some(gid)) => Ok(Some(Mappings {
            uid: ranges("uidmap", uid)?,
            gid: ranges("gidmap", gid)?,
            deny_setgroups: false,
        })),
        _ => Err(Refusal::new(
            Code::InvalidArgument,
            "mount options uidmap and gidmap are taken together only".to_owned(),
        )),
    }
}

fn ranges(name: &str, text: &str) -> Result<Vec<IdRange>, Refusal> {
    let range = |text: &str| {
        let mut numbers = text.split(':').map(|number| number.parse::<u32>().ok());
        match [numbers.next(), numbers.next(), numbers.next(), numbers.next()] {
            [Some(Some(container)), Some(Some(host)), Some(Some(size)), None] => Some(IdRange {
                container,
                host,
                size,
            }),
            _ => None,
        }
    };
    text.split(',').map(range).collect::<Option<_>>().ok_or_else(|| {
        let message = format!("mount option {name}={text} is not CONTAINER:HOST:SIZE[,…]");
        Refusal::new(Code::InvalidArgument, message)
    })
}

/// Mounts `source` at `target` with its ids mapped.
///
/// # Errors
///
/// The kernel's, or that of the file system.
pub fn bind(source: &Path, target: &Path, mappings: &Mappings) -> Result<(), Refusal> {
    let mount = id_mapped::copy(source, mappings, false)?;
    move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(|error| {
        let what = format!("mount {} on {}", source.display(), target.display());
        Refusal::system(what, io::Error::from(error))
    })
}

/// A mount of the directory of all layers with its ids mapped, read-only, for as long as an overlay is made of them.
pub struct Layers {
    at: PathBuf,
}

impl Layers {
    /// Where it is mounted beside `rootfs`.
    pub fn place(rootfs: &Path) -> PathBuf {
        rootfs.with_file_name("layers")
    }

    /// Mounts the layers' directory `base` beside `rootfs`.
    ///
    /// # Errors
    ///
    /// As [`bind`].
    pub fn mount(base: &Path, rootfs: &Path, mappings: &Mappings) -> Result<Layers, Refusal> {
        let at = Self::place(rootfs);
        fs::create_dir(&at)
            .map_err(|error| Refusal::system(format!("make directory {}", at.display()), error))?;
        // From here on it is removed whatever happens.
        let layers = Layers { at };
        let mount = id_mapped::copy(base, mappings, true)?;
        move_mount(
            &mount,
            "",
            CWD,
            &layers.at,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .map_err(|error| {
            let what = format!("mount {} on {}", base.display(), layers.at.display());
            Refusal::system(what, io::Error::from(error))
        })?;
        Ok(layers)
    }

    /// Where the directory of layers is to be found.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Removes the mount; the overlay has its own copy.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn unmount(self) -> Result<(), Refusal> {
        remove(&self.at).map_err(|error| Refusal::system(format!("unmount {}", self.at.display()), error))
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        // Nothing is there after `unmount`; after a failure there is an earlier error to tell.
        let _ = remove(&self.at);
    }
}

/// Removes what a shim left that was killed while it made an overlay; nothing there is no error.
///
/// # Errors
///
/// The kernel's.
pub fn remove(at: &Path) -> io::Result<()> {
    match unmount(at, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(io::Error::from(error)),
    }
    match fs::remove_dir(at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_ranges_and_come_together() {
        let both = parse(Some("0:1000:1,1:100000:65535"), Some("0:5:9"))
            .unwrap()
            .unwrap();
        assert_eq!(both.uid.len(), 2);
        assert_eq!(
            (both.gid[0].container, both.gid[0].host, both.gid[0].size),
            (0, 5, 9)
        );
        assert!(parse(None, None).unwrap().is_none());
        assert!(parse(Some("0:0:1"), None).is_err());
        for wrong in ["", "0:1", "0:1:2:3", "a:1:2", "0:1:-2", "0:1:2,"] {
            assert!(parse(Some(wrong), Some("0:0:1")).is_err(), "{wrong}");
        }
    }
}
