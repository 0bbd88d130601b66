//! The mounts, in the child half.

use std::ffi::CStr;

use super::place::{Kind, name, open_or_make, open_parent};
use crate::plan::{Mount, Operation, OverProc, Source, extent};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Extent};
use crate::sys::{Errno, Fd};

/// Binds the root file system at `path` on itself; answers the root of the new mount.
pub(crate) fn attach_root(path: &CStr) -> Result<Fd, Errno> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let target = fs::openat2(Fd::CWD, path, flags, 0, Resolve::Host)?;
    let root = mount::clone_tree(target, c"", Extent::Tree)?;
    mount::attach(root, target)?;
    target.close();
    Ok(root)
}

/// Performs one operation beneath `root`.
pub(crate) fn perform(root: Fd, operation: &Operation) -> Result<(), Errno> {
    match operation {
        Operation::Mount(mount) => attach(root, mount),
        Operation::Link { at, to } => {
            let parent = open_parent(root, at, Resolve::InRoot)?;
            let result = fs::symlinkat(to, parent, name(&at.path));
            parent.close();
            result
        }
        Operation::Attributes { at, attributes } => {
            let target = fs::openat2(root, &at.path, libc::O_PATH, 0, Resolve::InRoot)?;
            let result = mount::set_attributes(target, attributes, Extent::Mount);
            target.close();
            result
        }
    }
}

fn attach(root: Fd, mount: &Mount) -> Result<(), Errno> {
    let tree = open_source(mount)?;
    let kind = match fs::stat(tree, c"")?.is_directory() {
        true => Kind::Directory,
        false => Kind::File,
    };
    let resolve = match mount.follow_links {
        true => Resolve::InRoot,
        false => Resolve::InRootNoSymlinks,
    };
    let target = open_or_make(root, &mount.target, kind, resolve)?;
    check_proc(mount.over_proc, tree, target)?;
    mount::attach(tree, target)?;
    target.close();
    for (propagation, tree_too) in &mount.propagation {
        mount::set_attributes(tree, &Attributes::new(0, 0, *propagation), extent(*tree_too))?;
    }
    tree.close();
    Ok(())
}

/// A detached mount with its attributes set.
fn open_source(mount: &Mount) -> Result<Fd, Errno> {
    match &mount.source {
        Source::New { kind, parameters } => {
            let context = mount::fsopen(kind)?;
            for (key, value) in parameters {
                mount::fsconfig(context, key, value.as_deref())?;
            }
            mount::fsconfig_create(context)?;
            let attributes = mount.attributes.set | mount.recursive.set;
            let tree = mount::fsmount(context, attributes)?;
            context.close();
            Ok(tree)
        }
        Source::Bind { path, tree } => {
            let bound = mount::clone_tree(Fd::CWD, path, extent(*tree))?;
            for (attributes, extent) in [(mount.attributes, Extent::Mount), (mount.recursive, Extent::Tree)] {
                if !attributes.is_empty() {
                    mount::set_attributes(bound, &attributes, extent)?;
                }
            }
            Ok(bound)
        }
    }
}

/// The plan judged the target by name; here it is judged by what it turned out to be.
fn check_proc(rule: OverProc, tree: Fd, target: Fd) -> Result<(), Errno> {
    let is_proc = |fd| fs::filesystem(fd).map(|magic| magic == libc::PROC_SUPER_MAGIC);
    let allowed = match rule {
        OverProc::Refused => !is_proc(target)?,
        OverProc::Allowed => true,
        OverProc::MustBeProc => is_proc(tree)?,
    };
    if allowed {
        Ok(())
    } else {
        Err(Errno::new(libc::EPERM))
    }
}
