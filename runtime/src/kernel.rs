//! What the running kernel lacks, asked once for each container.

use crate::Error;
use crate::sys::{Fd, mount};

/// Whether the kernel is older than 5.12, whose `mount_setattr` is the latest of the calls that matter here: then none of
/// the new mount API, `openat2`, `close_range`, `clone3` and joining the namespaces of a pidfd is relied on.
pub(crate) fn is_old() -> bool {
    !mount::has_set_attributes()
}

/// The host's procfs, opened and checked: for kernels that cannot make one that is nobody else's.
///
/// # Errors
///
/// There is none.
pub(crate) fn open_proc() -> Result<std::os::fd::OwnedFd, Error> {
    let failed = |errno: crate::Errno| Error::io("open the procfs at /proc", errno);
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let proc =
        rustix::fs::open("/proc", flags, rustix::fs::Mode::empty()).map_err(|errno| failed(errno.into()))?;
    match crate::sys::fs::filesystem(Fd::of(&proc)).map_err(failed)? {
        libc::PROC_SUPER_MAGIC => Ok(proc),
        _ => Err(failed(crate::Errno::new(libc::EXDEV))),
    }
}
