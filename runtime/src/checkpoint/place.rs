//! Where a mount of the configuration really is in a root file system: criu knows mounts by that.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::service::c_path;
use crate::lookup;
use crate::plan::External;
use crate::sys::fs::Resolve;
use crate::sys::{Fd, fd};
use crate::{Errno, Error};

/// A root file system, in which links are resolved.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl Root {
    /// Opens the directory; links on the way to it are the host's.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
            .map(Self)
            .map_err(|errno| Error::io(format!("open {}", path.display()), errno))
    }

    /// The same with links on the way resolved, as far as something is there.
    pub(super) fn resolve(&self, external: External) -> Result<External, Error> {
        let place = self.real_path(&external.place)?;
        Ok(External { place, ..external })
    }

    /// Whether the path leads to something, and to a directory.
    pub(super) fn is_directory(&self, path: &Path) -> Result<Option<bool>, Error> {
        match self.look(path)? {
            None => Ok(None),
            Some(found) => {
                let file = File::from(found).metadata();
                let file = file.map_err(|error| Error::io(format!("stat {}", path.display()), error))?;
                Ok(Some(file.is_dir()))
            }
        }
    }

    /// The path with links on the way resolved, as far as something is there.
    pub(super) fn real_path(&self, path: &Path) -> Result<PathBuf, Error> {
        for known in path.ancestors() {
            let Some(found) = self.look(known)? else {
                continue;
            };
            let (root, found) = (name_of(self.0.as_fd())?, name_of(found.as_fd())?);
            // Outside only if it was moved away meanwhile; then the name that was given is as good.
            let Ok(found) = found.strip_prefix(&root) else {
                break;
            };
            let rest = path.strip_prefix(known).unwrap_or(Path::new(""));
            return Ok([Path::new("/"), found, rest]
                .iter()
                .filter(|part| !part.as_os_str().is_empty())
                .collect());
        }
        Ok(path.to_owned())
    }

    /// Opens what is there, without touching it; nothing if nothing is.
    fn look(&self, path: &Path) -> Result<Option<OwnedFd>, Error> {
        let beneath = path.strip_prefix("/").unwrap_or(path);
        let beneath = match beneath.as_os_str().is_empty() {
            true => Path::new("."),
            false => beneath,
        };
        match lookup::open(Fd::of(&self.0), &c_path(beneath)?, libc::O_PATH, Resolve::InRoot) {
            Ok(found) => Ok(Some(fd::own(found))),
            Err(errno) if [libc::ENOENT, libc::ENOTDIR].contains(&errno.number()) => Ok(None),
            Err(errno) => Err(Error::io(
                format!("open {} in the root file system", path.display()),
                errno,
            )),
        }
    }
}

/// The path by which the kernel knows an open file.
fn name_of(file: BorrowedFd<'_>) -> Result<PathBuf, Error> {
    let path = format!("/proc/self/fd/{}", Fd::of(&file).number());
    std::fs::read_link(&path).map_err(|error| match error.raw_os_error() {
        Some(number) => Error::io(format!("read {path}"), Errno::new(number)),
        None => Error::io(format!("read {path}"), error),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_resolved_beneath_the_root_as_far_as_something_is_there() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("real/conf")).unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        symlink("/real/conf", home.path().join("conf")).unwrap();
        symlink("../../../..", home.path().join("real/up")).unwrap();
        let root = Root::open(home.path()).unwrap();
        for (given, real) in [
            ("/conf", "/real/conf"),
            ("/conf/new/deep", "/real/conf/new/deep"),
            ("/real/up/file", "/file"),
            ("/none/at/all", "/none/at/all"),
            ("/file/below", "/file/below"),
            ("/", "/"),
        ] {
            let external = External {
                place: given.into(),
                source: "/s".into(),
            };
            let resolved = root.resolve(external).unwrap();
            assert_eq!(resolved.place, Path::new(real), "{given}");
            assert_eq!(resolved.source, Path::new("/s"));
        }
        assert_eq!(root.is_directory(Path::new("/conf")).unwrap(), Some(true));
        assert_eq!(root.is_directory(Path::new("/file")).unwrap(), Some(false));
        assert_eq!(root.is_directory(Path::new("/none")).unwrap(), None);
    }
}
