//! The targets of mounts, in a process and a mount namespace that exist for nothing else: somebody else mounts there later.

use super::detached::ProcPath;
use crate::lookup::{self, Kind};
use crate::plan::Mountpoint;
use crate::sys::fs::{self, Resolve};
use crate::sys::{Errno, Fd, mount};

/// Makes what is missing beneath `root`. What is bound there is bound: the targets of later mounts are made in it then, as
/// they were when the container was created.
pub(crate) fn make_mountpoint(root: Fd, mountpoint: &Mountpoint) -> Result<(), Errno> {
    let source = match &mountpoint.bind {
        Some(path) => Some(lookup::open(Fd::CWD, path, libc::O_PATH, Resolve::Host)?),
        None => None,
    };
    let kind = match source {
        Some(source) if !fs::stat(source, c"")?.is_directory() => Kind::File,
        _ => Kind::Directory,
    };
    let resolve = match mountpoint.follow_links {
        true => Resolve::InRoot,
        false => Resolve::InRootNoSymlinks,
    };
    let target = lookup::open_or_make(root, &mountpoint.place, kind, resolve)?;
    if let Some(source) = source {
        let (from, to) = (ProcPath::of(source)?, ProcPath::of(target)?);
        let flags = libc::MS_BIND | libc::MS_REC;
        mount::mount(Some(from.text()?), to.text()?, None, flags, None)?;
        source.close();
    }
    target.close();
    Ok(())
}
