//! The mount calls: detached mounts on descriptors, their attributes, and changing the root.

use std::ffi::CStr;
use std::mem;
use std::ptr;

use super::{Errno, Fd, raw};

/// Attributes of a mount, as `mount_setattr(2)` takes them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` bits to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` bits to clear first.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0 for no change.
    pub propagation: u64,
    /// For `MOUNT_ATTR_IDMAP`: a descriptor of a user namespace.
    userns: u64,
}

impl Attributes {
    /// Read-only, nothing else.
    pub(crate) const READ_ONLY: Self = Self::new(libc::MOUNT_ATTR_RDONLY, 0, 0);

    /// Bits to set, bits to clear first, and a propagation type or 0.
    pub(crate) const fn new(set: u64, clear: u64, propagation: u64) -> Self {
        Self {
            set,
            clear,
            propagation,
            userns: 0,
        }
    }

    /// Ids of the file system seen through the maps of a user namespace.
    pub(crate) fn id_mapped(namespace: Fd) -> Self {
        Self {
            set: libc::MOUNT_ATTR_IDMAP,
            clear: 0,
            propagation: 0,
            userns: namespace.arg() as u64,
        }
    }

    /// Whether they change nothing.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

const EMPTY: &CStr = c"";

/// A file system context.
pub(crate) fn fsopen(kind: &CStr) -> Result<Fd, Errno> {
    const FSOPEN_CLOEXEC: usize = 1;
    // SAFETY: `kind` outlives the call.
    unsafe { raw(libc::SYS_fsopen, [kind.as_ptr() as usize, FSOPEN_CLOEXEC]) }.map(fd)
}

/// Sets a parameter of a context: `key=value`, or the flag `key`.
pub(crate) fn fsconfig(context: Fd, key: &CStr, value: Option<&CStr>) -> Result<(), Errno> {
    const SET_FLAG: usize = 0;
    const SET_STRING: usize = 1;
    let (command, value) = match value {
        Some(value) => (SET_STRING, value.as_ptr()),
        None => (SET_FLAG, ptr::null()),
    };
    // SAFETY: the strings outlive the call; a flag takes no value.
    unsafe {
        raw(
            libc::SYS_fsconfig,
            [context.arg(), command, key.as_ptr() as usize, value as usize, 0],
        )
    }
    .map(drop)
}

/// Makes the file system of a context.
pub(crate) fn fsconfig_create(context: Fd) -> Result<(), Errno> {
    const CMD_CREATE: usize = 6;
    // SAFETY: the command takes no pointer.
    unsafe { raw(libc::SYS_fsconfig, [context.arg(), CMD_CREATE, 0, 0, 0]) }.map(drop)
}

/// A detached mount of a context's file system.
pub(crate) fn fsmount(context: Fd, attributes: u64) -> Result<Fd, Errno> {
    const FSMOUNT_CLOEXEC: usize = 1;
    // SAFETY: no pointer.
    unsafe {
        raw(
            libc::SYS_fsmount,
            [context.arg(), FSMOUNT_CLOEXEC, attributes as usize],
        )
    }
    .map(fd)
}

/// How much a bind mount takes along.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
    /// The one mount.
    Mount,
    /// And the mounts below.
    Tree,
}

impl Extent {
    fn flag(self) -> usize {
        match self {
            Self::Mount => 0,
            Self::Tree => libc::AT_RECURSIVE as usize,
        }
    }
}

/// A detached copy of the mount at `path` (the descriptor's own for an empty path), symlinks followed.
pub(crate) fn clone_tree(directory: Fd, path: &CStr, extent: Extent) -> Result<Fd, Errno> {
    const OPEN_TREE_CLONE: usize = 1;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as usize | libc::AT_EMPTY_PATH as usize | extent.flag();
    // SAFETY: `path` outlives the call.
    unsafe {
        raw(
            libc::SYS_open_tree,
            [directory.arg(), path.as_ptr() as usize, flags],
        )
    }
    .map(fd)
}

/// Attaches a detached mount on an open file or directory.
pub(crate) fn attach(mount: Fd, target: Fd) -> Result<(), Errno> {
    attach_at(mount, target, EMPTY)
}

/// Attaches a detached mount on an entry of an open directory, or on what is open itself if the name is empty. The name is not
/// followed if it is a link.
pub(crate) fn attach_at(mount: Fd, directory: Fd, name: &CStr) -> Result<(), Errno> {
    const F_EMPTY_PATH: usize = 0x04;
    const T_EMPTY_PATH: usize = 0x40;
    // SAFETY: the empty string is static, and `name` outlives the call.
    unsafe {
        raw(
            libc::SYS_move_mount,
            [
                mount.arg(),
                EMPTY.as_ptr() as usize,
                directory.arg(),
                name.as_ptr() as usize,
                F_EMPTY_PATH | T_EMPTY_PATH,
            ],
        )
    }
    .map(drop)
}

/// Changes the attributes of the mount an open root of a mount belongs to.
pub(crate) fn set_attributes(mount: Fd, attributes: &Attributes, extent: Extent) -> Result<(), Errno> {
    // SAFETY: the empty string is static, `attributes` outlives the call and the size is its own.
    unsafe {
        raw(
            libc::SYS_mount_setattr,
            [
                mount.arg(),
                EMPTY.as_ptr() as usize,
                libc::AT_EMPTY_PATH as usize | extent.flag(),
                ptr::from_ref(attributes) as usize,
                mem::size_of::<Attributes>(),
            ],
        )
    }
    .map(drop)
}

/// Whether the kernel has [`set_attributes`].
pub(crate) fn has_set_attributes() -> bool {
    // SAFETY: a structure of no size is refused before anything is read.
    let answer = unsafe {
        raw(
            libc::SYS_mount_setattr,
            [Fd::CWD.arg(), EMPTY.as_ptr() as usize, 0, 0, 0],
        )
    };
    answer.err().map(Errno::number) != Some(libc::ENOSYS)
}

/// `mount(2)`: a string that is not there is a null pointer.
pub(crate) fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> Result<(), Errno> {
    let pointer = |text: Option<&CStr>| text.map_or(0, |text| text.as_ptr() as usize);
    // SAFETY: every string outlives the call; the kernel reads at most a page of data and stops at its zero.
    unsafe {
        raw(
            libc::SYS_mount,
            [
                pointer(source),
                target.as_ptr() as usize,
                pointer(kind),
                flags as usize,
                pointer(data),
            ],
        )
    }
    .map(drop)
}

/// Sets the propagation of the mount at `path`; `flags` may have `MS_REC`.
pub(crate) fn set_propagation(path: &CStr, flags: u64) -> Result<(), Errno> {
    mount(None, path, None, flags, None)
}

/// Moves the mount at `from` to `to`.
pub(crate) fn move_to(from: &CStr, to: &CStr) -> Result<(), Errno> {
    mount(Some(from), to, None, libc::MS_MOVE, None)
}

/// Puts the working directory's mount at the root, and the old root on top of it.
pub(crate) fn pivot_root_here() -> Result<(), Errno> {
    let here = c".".as_ptr() as usize;
    // SAFETY: the strings are static.
    unsafe { raw(libc::SYS_pivot_root, [here, here]) }.map(drop)
}

/// Detaches the topmost mount at `path` and everything below it.
pub(crate) fn detach(path: &CStr) -> Result<(), Errno> {
    // SAFETY: the string outlives the call.
    unsafe {
        raw(
            libc::SYS_umount2,
            [path.as_ptr() as usize, libc::MNT_DETACH as usize],
        )
    }
    .map(drop)
}

fn fd(number: usize) -> Fd {
    Fd::at(number as i32)
}
