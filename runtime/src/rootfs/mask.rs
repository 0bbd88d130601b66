//! Covering paths and making paths read-only, in the child half.

use std::ffi::{CStr, CString};

use crate::init::{At, Failure, Step};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Extent};
use crate::sys::{Errno, Fd};

/// Covers each path that exists: a file with `/dev/null`, a directory with an empty read-only one.
///
/// What is taken for the null device is opened first and checked then: the container's `/dev/null` could be a link to
/// something else (CVE-2025-31133). Without a good one there it is the host's.
pub(crate) fn mask(root: Fd, paths: &[CString]) -> Result<(), Failure> {
    // One file system is enough for all directories: nobody can write to it.
    let mut empty = None;
    for (index, path) in paths.iter().enumerate() {
        let Some(target) = open_if_there(root, path).at_nth(Step::Mask, index)? else {
            continue;
        };
        cover(root, target, &mut empty).at_nth(Step::Mask, index)?;
        target.close();
    }
    if let Some(empty) = empty {
        empty.close();
    }
    Ok(())
}

/// A detached mount of the device itself.
fn clone_null(root: Fd, path: &CStr, resolve: Resolve) -> Result<Fd, Errno> {
    let null = fs::openat2(root, path, libc::O_PATH, 0, resolve)?;
    let cloned = match fs::stat(null, c"") {
        Ok(stat) if stat.is_character(1, 3) => mount::clone_tree(null, c"", Extent::Mount),
        Ok(_) => Err(Errno::new(libc::ENODEV)),
        Err(errno) => Err(errno),
    };
    null.close();
    cloned
}

fn cover(root: Fd, target: Fd, empty: &mut Option<Fd>) -> Result<(), Errno> {
    if !fs::stat(target, c"")?.is_directory() {
        let null = match clone_null(root, c"dev/null", Resolve::InRootNoSymlinks) {
            Ok(null) => null,
            Err(_) => clone_null(Fd::CWD, c"/dev/null", Resolve::Host)?,
        };
        mount::attach(null, target)?;
        null.close();
        return Ok(());
    }
    if let Some(empty) = *empty {
        let copy = mount::clone_tree(empty, c"", Extent::Mount)?;
        mount::attach(copy, target)?;
        copy.close();
        return Ok(());
    }
    let context = mount::fsopen(c"tmpfs")?;
    mount::fsconfig(context, c"source", Some(c"tmpfs"))?;
    mount::fsconfig(context, c"ro", None)?;
    mount::fsconfig(context, c"nr_blocks", Some(c"1"))?;
    mount::fsconfig(context, c"nr_inodes", Some(c"1"))?;
    mount::fsconfig_create(context)?;
    let fresh = mount::fsmount(context, libc::MOUNT_ATTR_RDONLY)?;
    context.close();
    mount::attach(fresh, target)?;
    *empty = Some(fresh);
    Ok(())
}

/// Binds each path that exists on itself, read-only with everything below.
pub(crate) fn read_only(root: Fd, paths: &[CString]) -> Result<(), Failure> {
    for (index, path) in paths.iter().enumerate() {
        let Some(target) = open_if_there(root, path).at_nth(Step::ReadOnlyPath, index)? else {
            continue;
        };
        bind_read_only(target).at_nth(Step::ReadOnlyPath, index)?;
        target.close();
    }
    Ok(())
}

fn bind_read_only(target: Fd) -> Result<(), Errno> {
    let tree = mount::clone_tree(target, c"", Extent::Tree)?;
    mount::set_attributes(tree, &Attributes::READ_ONLY, Extent::Tree)?;
    mount::attach(tree, target)?;
    tree.close();
    Ok(())
}

/// A path that is not there needs no protection.
fn open_if_there(root: Fd, path: &CString) -> Result<Option<Fd>, Errno> {
    match fs::openat2(root, path, libc::O_PATH, 0, Resolve::InRoot) {
        Ok(target) => Ok(Some(target)),
        Err(errno) if errno.number() == libc::ENOENT || errno.number() == libc::ENOTDIR => Ok(None),
        Err(errno) => Err(errno),
    }
}
