//! The system calls that neither std nor rustix offers as safe functions. The only place of this crate with `unsafe`.

#![allow(unsafe_code)]

use rustix::{io::Result, thread::UnshareFlags};

/// Gives the calling thread a mount namespace and a working directory of its own. To be called by a thread that ends soon:
/// what it mounts (after making `/` private) is gone with it.
///
/// # Errors
///
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn own_mount_namespace() -> Result<()> {
    // SAFETY: file descriptors stay shared (no CLONE_FILES), which is what owned descriptors rely on. The working directory
    // and the mounts of this thread alone are concerned, and no memory.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
}
