//! Changing the root, in the child half.

use std::ffi::CStr;

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
    let mut directory = fs::openat2(Fd::CWD, path, flags, 0, Resolve::Host)?;
    for _ in 0..MAX_DEPTH {
        match mount::set_attributes(directory, &private, Extent::Mount) {
            // The kernel takes the root of a mount only: it is further up.
            Err(errno) if errno.number() == libc::EINVAL => {}
            answer => {
                directory.close();
                return answer;
            }
        }
        let above = fs::openat2(directory, c"..", flags, 0, Resolve::Host)?;
        directory.close();
        directory = above;
    }
    Err(Errno::new(libc::ELOOP))
}

/// Makes `root`, the root of a mount, the root of this mount namespace; the old one is gone afterwards.
pub(crate) fn change_root(root: Fd, no_pivot: bool) -> Result<(), Errno> {
    if no_pivot {
        fs::fchdir(root)?;
        mount::move_to(c".", c"/")?;
        fs::chroot(c".")?;
        return fs::chdir(c"/");
    }
    let old = fs::openat2(Fd::CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0, Resolve::Host)?;
    fs::fchdir(root)?;
    mount::pivot_root_here()?;
    // The old root now lies on top of the new one. Its end must not spread to the host.
    fs::fchdir(old)?;
    mount::set_propagation(c".", libc::MS_SLAVE | libc::MS_REC)?;
    mount::detach_here()?;
    old.close();
    fs::chdir(c"/")
}
