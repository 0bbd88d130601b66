//! Giving a v2 group to the root of a user namespace, which may then make groups below it ([cgroup-v2, delegation]).
//!
//! [cgroup-v2, delegation]: https://docs.kernel.org/admin-guide/cgroup-v2.html#delegation

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Uid};
use rustix::io::Errno;

use super::Error;

/// Where the kernel lists the files that a delegate may own; since 4.15.
const LIST: &str = "/sys/kernel/cgroup/delegate";
/// What it was before there was a list.
const FIRST: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// Changes the owner of the group's directory `fd` and of the files that the kernel lets be delegated.
pub(super) fn give(fd: &OwnedFd, path: &Path, owner: u32) -> Result<(), Error> {
    let list = match fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => FIRST.to_owned(),
        Err(error) => return Err(Error::io("read", LIST, error)),
    };
    let owner = Some(Uid::from_raw(owner));
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(fd.as_fd(), "", owner, None, flags)
        .map_err(|errno| Error::io("chown", path, errno))?;
    // The names are the kernel's own: they have no slashes.
    for name in list.split_ascii_whitespace().filter(|name| !name.contains('/')) {
        match rustix::fs::chownat(fd.as_fd(), name, owner, None, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::io("chown", path.join(name), errno)),
        }
    }
    Ok(())
}
