//! The mounts, in the child half.

use std::ffi::CStr;

use super::copy::copy_up;
use super::detached::{self, Filesystem, Maker, ProcPath};
use super::place::{name, open_parent};
use crate::init::Message;
use crate::lookup::{self, Kind};
use crate::plan::{Locked, Mount, Operation, OverProc, Source, extent};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::{self, Attributes, Extent};
use crate::sys::{Errno, Fd, socket};

/// What the operations have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// The container's root.
    pub(crate) root: Fd,
    pub(crate) maker: Maker,
    /// Who opens the sources that this process may not.
    pub(crate) parent: Fd,
    /// What the root is, as `stat` tells it.
    identity: (u64, u64),
}

impl Site {
    /// A site in the root that is open as `root`.
    pub(crate) fn new(root: Fd, maker: Maker, parent: Fd) -> Result<Self, Errno> {
        Ok(Self {
            root,
            maker,
            parent,
            identity: fs::stat(root, c"")?.identity,
        })
    }
}

/// Binds the root file system at `path` on itself; answers the root of the new mount. No link may lead to it (as runc): one
/// in a bundle could make any directory of the host a container's root.
pub(crate) fn attach_root(maker: Maker, path: &CStr) -> Result<Fd, Errno> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let host = lookup::open(Fd::CWD, c"/", flags, Resolve::Host)?;
    let target = lookup::open(host, path, flags, Resolve::InRootNoSymlinks);
    host.close();
    let target = target?;
    let root = maker.bind(target, c"", Extent::Tree)?;
    detached::attach(root, target)?;
    target.close();
    Ok(root)
}

/// Performs the `index`th operation; `directory` is the last mount that has entries. Answers the mount, open, when it is one that
/// has entries, or that is to be made read-only at the end.
pub(crate) fn perform(
    site: Site,
    index: usize,
    operation: &Operation,
    directory: Option<Fd>,
) -> Result<Option<Fd>, Errno> {
    let root = site.root;
    match operation {
        Operation::Mount(mount) => {
            return match (&mount.entry, directory) {
                (None, _) => attach(site, index, mount),
                (Some(name), Some(directory)) => {
                    attach_entry(site, index, mount, directory, name).map(|()| None)
                }
                (Some(_), None) => Err(Errno::new(libc::EINVAL)),
            };
        }
        Operation::Link { at, to } => {
            let parent = open_parent(root, at, Resolve::InRoot)?;
            let result = fs::symlinkat(to, parent, name(&at.path));
            parent.close();
            result
        }
        Operation::Remount { at, flags, data } => {
            let target = lookup::open(root, &at.path, libc::O_PATH, Resolve::InRoot)?;
            let result = ProcPath::of(target).and_then(|place| {
                let flags = libc::MS_REMOUNT | flags;
                mount::mount(None, place.text()?, None, flags, data.as_deref())
            });
            target.close();
            result
        }
    }
    .map(|()| None)
}

fn attach(site: Site, index: usize, mount: &Mount) -> Result<Option<Fd>, Errno> {
    let source = match &mount.source {
        // What is made depends on what is there.
        Source::New { .. } => None,
        Source::Bind { path, tree, id_map } => Some(open_bind(site, index, path, *tree, id_map.is_some())?),
    };
    let kind = match source {
        Some(tree) if !fs::stat(tree, c"")?.is_directory() => Kind::File,
        _ => Kind::Directory,
    };
    let resolve = match mount.follow_links {
        true => Resolve::InRoot,
        false => Resolve::InRootNoSymlinks,
    };
    let (target, mode) = open_target(site, mount, kind, resolve)?;
    let tree = match source {
        Some(tree) => tree,
        None => make(site.maker, mount, mode)?,
    };
    check_proc(mount.over_proc, tree, target)?;
    set_flags(mount, tree)?;
    if mount.copy_up {
        copy_up(target, tree)?;
    }
    if let Some(label) = &mount.label {
        detached::set_label(tree, label)?;
    }
    detached::attach(tree, target)?;
    target.close();
    for (propagation, tree_too) in &mount.propagation {
        detached::set_attributes(tree, &Attributes::new(0, 0, *propagation), extent(*tree_too))?;
    }
    if mount.late_read_only || mount.has_entries {
        return Ok(Some(tree));
    }
    tree.close();
    Ok(None)
}

/// Attaches a directory as a new entry of a file system that this process made, and nobody else has been in.
fn attach_entry(site: Site, index: usize, mount: &Mount, directory: Fd, name: &CStr) -> Result<(), Errno> {
    let tree = match &mount.source {
        Source::New { .. } => make(site.maker, mount, None)?,
        Source::Bind { path, tree, id_map } => open_bind(site, index, path, *tree, id_map.is_some())?,
    };
    set_flags(mount, tree)?;
    fs::mkdirat(directory, name, 0o755)?;
    detached::attach_entry(tree, directory, name)?;
    tree.close();
    Ok(())
}

/// The target, and the mode that a tmpfs takes over from a directory that was there.
fn open_target(site: Site, mount: &Mount, kind: Kind, resolve: Resolve) -> Result<(Fd, Option<u32>), Errno> {
    let root = site.root;
    let (target, was_there) = match lookup::open(root, &mount.target.path, libc::O_PATH, resolve) {
        Ok(target) => (target, true),
        Err(errno) if errno.number() == libc::ENOENT => {
            let made = lookup::make(root, &mount.target.path, kind, resolve)?;
            (made, false)
        }
        Err(errno) => return Err(errno),
    };
    let stat = fs::stat(target, c"")?;
    // A link may lead to the root itself, where a mount would be out of everybody's sight.
    if stat.identity == site.identity && fs::mount_id(target)? == fs::mount_id(root)? {
        return Err(Errno::new(libc::EBUSY));
    }
    let inherits = was_there && mount.inherits_mode;
    Ok((target, inherits.then_some(stat.mode & 0o7777)))
}

fn make(maker: Maker, mount: &Mount, mode: Option<u32>) -> Result<Fd, Errno> {
    let Source::New {
        kind,
        parameters,
        instead,
        ..
    } = &mount.source
    else {
        return Err(Errno::new(libc::EINVAL));
    };
    let made = maker.filesystem(Filesystem {
        kind,
        parameters,
        attributes: mount.attributes.set,
        mode,
    });
    match (made, instead) {
        // A user namespace may mount this only with a cgroup namespace of its own.
        (Err(errno), Some(path)) if [libc::EPERM, libc::EBUSY].contains(&errno.number()) => {
            let bound = maker.bind(Fd::CWD, path, Extent::Tree)?;
            detached::set_attributes(bound, &mount.attributes, Extent::Mount)?;
            Ok(bound)
        }
        (made, _) => made,
    }
}

/// A detached copy of a part of the host's tree (or of what was already mounted in the container).
fn open_bind(site: Site, index: usize, path: &CStr, tree: bool, by_parent: bool) -> Result<Fd, Errno> {
    if !by_parent {
        match site.maker.bind(Fd::CWD, path, extent(tree)) {
            // On the way to it is a directory that the container's root user may not enter.
            Err(errno) if errno.number() == libc::EACCES => {}
            answer => return answer,
        }
    }
    let given = ask_for(site.parent, index as u32)?;
    if by_parent {
        return Ok(given);
    }
    let bound = site.maker.bind(given, c"", extent(tree));
    given.close();
    bound
}

/// Asks the parent for what this process may not open.
pub(crate) fn ask_for(parent: Fd, index: u32) -> Result<Fd, Errno> {
    socket::send(parent, &Message::Source(index).encode(), None)?;
    socket::receive_fd(parent)
}

fn set_flags(mount: &Mount, tree: Fd) -> Result<(), Errno> {
    if let (Source::Bind { .. }, false) = (&mount.source, mount.attributes.is_empty()) {
        match detached::set_attributes(tree, &mount.attributes, Extent::Mount) {
            Err(errno) if errno.number() == libc::EPERM => keep_locked(mount, tree, errno)?,
            answer => answer?,
        }
    }
    match mount.recursive.is_empty() {
        true => Ok(()),
        false => detached::set_attributes(tree, &mount.recursive, Extent::Tree),
    }
}

/// Some flags of a mount cannot be cleared from a user namespace. They stay, unless the configuration asks for exactly that.
fn keep_locked(mount: &Mount, tree: Fd, refused: Errno) -> Result<(), Errno> {
    let Some(Locked { kept, denied, atime }) = &mount.locked else {
        return Err(refused);
    };
    let current = detached::current(tree)?;
    let times = libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NODIRATIME;
    if current & denied != 0 || atime.is_some_and(|atime| atime != current & times) {
        return Err(refused);
    }
    if kept.is_empty() {
        return Ok(());
    }
    detached::set_attributes(tree, kept, Extent::Mount)
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
