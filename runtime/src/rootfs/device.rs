//! Device nodes and links, in the child half.
//!
//! Refuses a `/dev` of the image that is a link: it could lead to a directory of the host that is mounted in the
//! container, the host's own `/dev` for one, where nothing is to be made or replaced.

use std::ffi::CStr;

use super::detached;
use super::mount::Site;
use super::place::{Parents, name};
use crate::lookup::{self, Kind};
use crate::plan::{Device, Link};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::Extent;
use crate::sys::{Errno, Fd};

/// Makes a node; where a user namespace forbids that, the host's node is bound instead.
pub(crate) fn make_device<'a>(
    site: Site,
    parents: &mut Parents<'a>,
    device: &'a Device,
) -> Result<(), Errno> {
    let parent = parents.of(&device.target)?;
    let name = name(&device.target.path);
    match fs::mknodat(parent, name, device.mode, device.device) {
        Ok(()) if device.uid == 0 && device.gid == 0 => Ok(()),
        Ok(()) => fs::chown(parent, name, device.uid, device.gid),
        // An image, or a mount, has one already: good only if it is the same.
        Err(errno) if errno.number() == libc::EEXIST => match is_same(parent, device) {
            Ok(true) => Ok(()),
            Ok(false) => Err(errno),
            Err(errno) => Err(errno),
        },
        Err(errno) if errno.number() == libc::EPERM => bind_device(site, device),
        Err(errno) => Err(errno),
    }
}

fn is_same(parent: Fd, device: &Device) -> Result<bool, Errno> {
    let there = fs::stat(parent, name(&device.target.path))?;
    Ok(there.mode & libc::S_IFMT == device.mode & libc::S_IFMT && there.rdev == device.device)
}

fn bind_device(site: Site, device: &Device) -> Result<(), Errno> {
    let source = site.maker.bind(Fd::CWD, &device.host, Extent::Mount)?;
    let there = fs::stat(source, c"")?;
    if there.mode & libc::S_IFMT != device.mode & libc::S_IFMT || there.rdev != device.device {
        return Err(Errno::new(libc::ENODEV));
    }
    let target = lookup::open_or_make(
        site.root,
        &device.target.path,
        Kind::File,
        Resolve::InRootNoSymlinks,
    )?;
    let result = detached::attach(source, target);
    target.close();
    source.close();
    result
}

/// Makes a link of `/dev`; one that is there stays, unless it must be ours.
pub(crate) fn make_link<'a>(root: Fd, parents: &mut Parents<'a>, link: &'a Link) -> Result<(), Errno> {
    if let Some(needed) = &link.needs {
        match lookup::open(root, needed, libc::O_PATH, Resolve::InRoot) {
            Ok(found) => found.close(),
            Err(errno) if errno.number() == libc::ENOENT => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    let parent = parents.of(&link.at)?;
    let name = name(&link.at.path);
    match fs::symlinkat(&link.to, parent, name) {
        Err(errno) if errno.number() == libc::EEXIST && link.replace => match is_multiplexer(parent, name) {
            true => Ok(()),
            false => fs::unlinkat(parent, name).and_then(|()| fs::symlinkat(&link.to, parent, name)),
        },
        Err(errno) if errno.number() == libc::EEXIST => Ok(()),
        answer => answer,
    }
}

/// The terminal multiplexer's own node opens whatever devpts lies beside it, as a link to there does: it can stay, be it the
/// image's or, with the host's root as the container's, the host's.
fn is_multiplexer(parent: Fd, name: &CStr) -> bool {
    fs::stat(parent, name).is_ok_and(|stat| stat.is_character(5, 2))
}
