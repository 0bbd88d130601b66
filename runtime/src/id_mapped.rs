//! Mounts that show the ids of their files through the maps of a user namespace, see `MOUNT_ATTR_IDMAP` in
//! mount_setattr(2): so containers with different maps share the layers of an image.
//!
//! Takes Linux 5.12, and a file system that supports it; what overlayfs takes as a layer, 5.19.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::plan::Mappings;
use crate::source::open_namespace;
use crate::sys::mount::{Attributes, Extent, clone_tree, set_attributes};
use crate::sys::process::clone_waiting;
use crate::sys::{Errno, Fd};
use crate::{Error, user_namespace};

/// A detached copy of what is mounted at `source` and below, private, and perhaps read-only. Of the maps, `container` is the
/// id in the file system and `host` the one that is seen. Blocks for a process that is made and ended.
///
/// # Errors
///
/// The source is not there, or the kernel or its file system cannot map ids; without `CAP_SYS_ADMIN`.
pub fn copy(source: &Path, mappings: &Mappings, read_only: bool) -> Result<OwnedFd, Error> {
    let path = CString::new(source.as_os_str().as_bytes())
        .map_err(|_| Error::Invalid(format!("{}: a zero byte in a path", source.display())))?;
    let namespace = namespace(mappings)?;
    let tree = clone_tree(Fd::CWD, &path, Extent::Tree)
        .map_err(|errno| Error::io(format!("open_tree {}", source.display()), errno))?;
    let tree = crate::sys::fd::own(tree);
    let mut attributes = Attributes::id_mapped(Fd::of(&namespace));
    attributes.propagation = libc::MS_PRIVATE;
    if read_only {
        attributes.set |= libc::MOUNT_ATTR_RDONLY;
    }
    set_attributes(Fd::of(&tree), &attributes, Extent::Tree).map_err(|errno| refused(source, errno))?;
    Ok(tree)
}

/// Why ids could not be mapped.
pub(crate) fn refused(source: &Path, errno: Errno) -> Error {
    let why = match errno.number() {
        libc::EINVAL => " (maybe its file system does not support that)",
        libc::ENOSYS => " (that takes a kernel of 5.12 or later)",
        _ => "",
    };
    Error::io(format!("map the ids of {}{why}", source.display()), errno)
}

/// A user namespace with these maps and nobody in it.
pub(crate) fn namespace(mappings: &Mappings) -> Result<OwnedFd, Error> {
    let failed = |errno: Errno| Error::io("make a user namespace for an id-mapped mount", errno);
    let (ours, theirs) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let child = clone_waiting(libc::CLONE_NEWUSER as u64, Fd::of(&ours), Fd::of(&theirs)).map_err(failed)?;
    let namespace =
        user_namespace::write(child.pid, mappings, true).and_then(|()| open_namespace(child.pid, "user"));
    let ended = crate::create::end(&child);
    let namespace = namespace?;
    ended?;
    Ok(namespace)
}
