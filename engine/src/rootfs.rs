//! Reading a few small files in a root filesystem that nobody can trust.
//!
//! Owns the way in: a directory's descriptor, from which every path is opened with `RESOLVE_IN_ROOT`, so that no
//! symbolic link leads out; what is opened is looked at before it is read, so that no FIFO or device is touched.
//! Refuses files over the caller's limit, and writing of any kind.

use crate::error::{Error, Result};
use crate::supervisor::Mount;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// The root directory of a root filesystem.
#[derive(Debug)]
pub struct Rootfs {
    root: OwnedFd,
}

impl Rootfs {
    /// A directory of the host, or a process's root (`/proc/<pid>/root`).
    ///
    /// # Errors
    ///
    /// It is not a directory.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| Error::io("open", path, error))?;
        Ok(Self { root })
    }

    /// What `mounts` would show, without showing it to anyone else: it is mounted on `point` in a mount namespace of
    /// its own, which is gone when this returns, however it returns. Blocks.
    ///
    /// # Errors
    ///
    /// A mount that fails.
    pub fn of_mounts(mounts: &[Mount], point: &Path) -> Result<Self> {
        let in_thread = || {
            private_namespace()?;
            for mount in mounts {
                attach(mount, point)?;
            }
            Self::open(point)
        };
        // A namespace belongs to a thread, and no thread of the pool may keep one.
        std::thread::scope(|scope| scope.spawn(in_thread).join()).unwrap_or_else(|_| {
            Err(Error::system(format!(
                "mount on {}: thread ended",
                point.display()
            )))
        })
    }

    /// The contents of a regular file as text; `None` when there is no such file.
    ///
    /// # Errors
    ///
    /// It is something else than a file, or larger than `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<String>> {
        let refused = |cause: &str| Error::invalid(format!("read {path} in the root filesystem: {cause}"));
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let place = match rustix::fs::openat2(
            &self.root,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        ) {
            Ok(place) => place,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(refused(&error.to_string())),
        };
        let stat = rustix::fs::fstat(&place).map_err(|error| refused(&error.to_string()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refused("not a regular file"));
        }
        let reopened = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
        let file = std::fs::File::open(reopened).map_err(|error| refused(&error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| refused(&error.to_string()))?;
        if bytes.len() as u64 > limit {
            return Err(refused(&format!("larger than the limit of {limit} bytes")));
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

#[allow(unsafe_code)]
fn private_namespace() -> Result<()> {
    let failed = |error: rustix::io::Errno| Error::system(format!("unshare mount namespace: {error}"));
    // SAFETY: only the calling thread, which was made for this and ends after it, gets a new mount namespace and its own
    // root and working directory; no descriptor table is unshared, so every descriptor stays valid for its owner.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.map_err(failed)?;
    let flags = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(failed)
}

fn attach(mount: &Mount, point: &Path) -> Result<()> {
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
    let mut data: Vec<&str> = Vec::new();
    let mut bind = None;
    for option in &mount.options {
        match option.as_str() {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" => {}
            "bind" => bind = Some(false),
            "rbind" => bind = Some(true),
            other => data.push(other),
        }
    }
    let failed = |error: rustix::io::Errno| {
        Error::system(format!(
            "mount {} of type {} on {}: {error}",
            mount.source,
            mount.r#type,
            point.display()
        ))
    };
    if let Some(recursive) = bind {
        return if recursive {
            rustix::mount::mount_bind_recursive(mount.source.as_str(), point).map_err(failed)
        } else {
            rustix::mount::mount_bind(mount.source.as_str(), point).map_err(failed)
        };
    }
    let data = CString::new(data.join(",")).map_err(|_| failed(rustix::io::Errno::INVAL))?;
    rustix::mount::mount(
        mount.source.as_str(),
        point,
        mount.r#type.as_str(),
        flags,
        data.as_c_str(),
    )
    .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        std::fs::create_dir(tree.path().join("etc")).unwrap();
        tree
    }

    #[test]
    fn links_stay_inside() {
        let tree = tree();
        std::fs::write(tree.path().join("inside"), "mine").unwrap();
        std::os::unix::fs::symlink("/inside", tree.path().join("etc/absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../../inside", tree.path().join("etc/up")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", tree.path().join("etc/host")).unwrap();
        let rootfs = Rootfs::open(tree.path()).unwrap();
        assert_eq!(rootfs.read("/etc/absolute", 10).unwrap().as_deref(), Some("mine"));
        assert_eq!(rootfs.read("etc/up", 10).unwrap().as_deref(), Some("mine"));
        assert_eq!(rootfs.read("etc/host", 1000).unwrap(), None);
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let tree = tree();
        std::fs::write(tree.path().join("big"), "0123456789").unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            tree.path().join("fifo"),
            FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        std::os::unix::fs::symlink("loop", tree.path().join("loop")).unwrap();
        let rootfs = Rootfs::open(tree.path()).unwrap();
        assert!(rootfs.read("big", 9).is_err());
        assert_eq!(rootfs.read("big", 10).unwrap().as_deref(), Some("0123456789"));
        assert!(rootfs.read("fifo", 10).is_err());
        assert!(rootfs.read("etc", 10).is_err());
        assert!(rootfs.read("loop", 10).is_err());
        assert_eq!(rootfs.read("absent", 10).unwrap(), None);
    }
}
