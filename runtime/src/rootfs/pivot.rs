//! Changing the root, in the child half.

use std::ffi::CStr;

use super::detached;
use crate::lookup;
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Extent};
use crate::sys::{Errno, Fd};

/// No path has more components.
const MAX_DEPTH: usize = libc::PATH_MAX as usize / 2;

/// Makes the mount that `path` is in private, so that what is attached there does not spread to the host, and so that
/// `pivot_root` accepts it. Needed only when the host's mounts are shared with the container.
pub(crate) fn isolate_parent(path: &CStr) -> Result<(), Errno> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let private = Attributes::new(0, 0, libc::MS_PRIVATE);
    let mut directory = lookup::open(Fd::CWD, path, flags, Resolve::Host)?;
    for _ in 0..MAX_DEPTH {
        match detached::set_attributes(directory, &private, Extent::Mount) {
            // The kernel takes the root of a mount only: it is further up.
            Err(errno) if errno.number() == libc::EINVAL => {}
            answer => {
                directory.close();
                return answer;
            }
        }
        let above = lookup::open(directory, c"..", flags, Resolve::Host)?;
        directory.close();
        directory = above;
    }
    Err(Errno::new(libc::ELOOP))
}

/// How the container's root becomes the root of its processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// `pivot_root`: the old root is gone afterwards.
    Pivot,
    /// The root is moved over the old one, which stays below it (for a host that runs from an initramfs).
    Move,
    /// The mount namespace is the host's, whose root stays what it is.
    Chroot,
}

/// Makes `root`, the root of a mount, the root of this process.
pub(crate) fn change_root(root: Fd, way: Way) -> Result<(), Errno> {
    if way != Way::Pivot {
        fs::fchdir(root)?;
        if way == Way::Move {
            mount::move_to(c".", c"/")?;
        }
        fs::chroot(c".")?;
        return fs::chdir(c"/");
    }
    let old = lookup::open(Fd::CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, Resolve::Host)?;
    fs::fchdir(root)?;
    mount::pivot_root_here()?;
    // The old root now lies on top of the new one. Its end must not spread to the host.
    fs::fchdir(old)?;
    mount::set_propagation(c".", libc::MS_SLAVE | libc::MS_REC)?;
    mount::detach(c".")?;
    old.close();
    fs::chdir(c"/")
}

/// Takes away, or covers, a whole procfs or sysfs of the host. The kernel lets a container mount one of its own, without
/// anything masked, where another whole one is visible: with [`Way::Move`] the host's would be.
pub(crate) fn hide_whole(path: &CStr) -> Result<(), Errno> {
    // The end of it must not spread to the host.
    match mount::set_propagation(path, libc::MS_SLAVE | libc::MS_REC) {
        // It went with one that it was below.
        Err(errno) if [libc::ENOENT, libc::EINVAL].contains(&errno.number()) => return Ok(()),
        answer => answer?,
    }
    match mount::detach(path) {
        Err(errno) if [libc::EINVAL, libc::EPERM].contains(&errno.number()) => {
            mount::mount(Some(c"tmpfs"), path, Some(c"tmpfs"), 0, None)
        }
        answer => answer,
    }
}
