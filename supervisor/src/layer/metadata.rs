//! Owner, mode, extended attributes and times of what an entry created.
//!
//! The order is fixed by the kernel: writing and changing the owner take away file capabilities and setuid bits, so the
//! data comes first, then owner, attributes, mode and times.
//!
//! Refuses ids that do not fit (4294967295 means "leave alone" to `chown(2)`). Attributes in `trusted.` are dropped: the
//! host's overlayfs keeps its own bookkeeping there, and a layer that writes it would speak for the host.

use std::os::fd::AsRawFd;

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{
    entry::{Entry, EntryKind},
    pax::Timestamp,
};
use crate::error::{Error, Result};

/// The directory of the process's descriptors: its links lead to exactly the inode that was opened.
const DESCRIPTORS: &str = "/proc/self/fd";

/// An entry's ids, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    uid: Uid,
    gid: Gid,
}

impl Owner {
    /// Checks the ids of `entry`.
    pub(super) fn of(entry: &Entry) -> Result<Self> {
        let id = |id: u64, what: &str| {
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| Error::invalid(format!("{what} {id} is out of range")))
        };
        Ok(Self {
            uid: Uid::from_raw(id(entry.uid, "uid")?),
            gid: Gid::from_raw(id(entry.gid, "gid")?),
        })
    }
}

/// A failed step: what it was called, and why.
pub(super) type Step<T> = std::result::Result<T, (&'static str, Errno)>;

/// Sets everything on an open file or directory; `times` are left out for a directory that is still being filled.
pub(super) fn set(file: &OwnedFd, entry: &Entry, owner: Owner, times: bool) -> Step<()> {
    fs::fchown(file, Some(owner.uid), Some(owner.gid)).map_err(|error| ("change owner", error))?;
    for (name, value) in accepted(entry) {
        tolerated(fs::fsetxattr(file, name, value, XattrFlags::empty()), name, true)?;
    }
    fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(|error| ("change mode", error))?;
    if times {
        fs::futimens(file, &timestamps(entry)).map_err(|error| ("set times", error))?;
    }
    Ok(())
}

/// Sets only the owner of `name` in `parent`.
pub(super) fn set_owner(parent: &OwnedFd, name: &[u8], owner: Owner) -> Step<()> {
    fs::chownat(
        parent,
        name,
        Some(owner.uid),
        Some(owner.gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(|error| ("change owner", error))
}

/// Sets everything on `name` in `parent`, without following or opening it: links, devices and FIFOs.
pub(super) fn set_at(parent: &OwnedFd, name: &[u8], entry: &Entry, owner: Owner) -> Step<()> {
    set_owner(parent, name, owner)?;
    let mut path = format!("{DESCRIPTORS}/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    for (attribute, value) in accepted(entry) {
        let regular = entry.kind == EntryKind::HardLink;
        tolerated(
            fs::lsetxattr(&path[..], attribute, value, XattrFlags::empty()),
            attribute,
            regular,
        )?;
    }
    if entry.kind != EntryKind::Symlink {
        change_mode(parent, name, entry.mode).map_err(|error| ("change mode", error))?;
    }
    fs::utimensat(parent, name, &timestamps(entry), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| ("set times", error))
}

/// `chmod` of exactly the inode at `name`: through a descriptor that is no more than a handle, so that a device is not
/// opened and a link (a hard link may be one to a symbolic link) is left alone.
pub(super) fn change_mode(parent: &OwnedFd, name: &[u8], mode: u32) -> std::result::Result<(), Errno> {
    let handle = fs::openat(
        parent,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if FileType::from_raw_mode(fs::fstat(&handle)?.st_mode) == FileType::Symlink {
        return Ok(());
    }
    let path = format!("{DESCRIPTORS}/{}", handle.as_raw_fd());
    fs::chmodat(fs::CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())
}

/// The attributes of an entry that a layer may set.
fn accepted(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .filter(|(name, _)| !name.starts_with(b"trusted."))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// A file system without such attributes is not an error, nor is a `user.` attribute on what cannot have one.
fn tolerated(outcome: std::result::Result<(), Errno>, name: &[u8], regular: bool) -> Step<()> {
    match outcome {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if !regular && name.starts_with(b"user.") => Ok(()),
        outcome => outcome.map_err(|error| ("set extended attribute", error)),
    }
}

/// The times an entry is given: the access time is never before the modification, as containerd has it.
pub(super) fn timestamps(entry: &Entry) -> Timestamps {
    let spec = |time: Timestamp| Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    Timestamps {
        last_access: spec(
            entry
                .accessed
                .map_or(entry.modified, |accessed| accessed.max(entry.modified)),
        ),
        last_modification: spec(entry.modified),
    }
}

/// Copies owner, attributes, mode and times from one open file or directory to another.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> std::result::Result<(), Errno> {
    let stat = fs::fstat(from)?;
    fs::fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    for name in xattr_names(from)? {
        if name.starts_with(b"trusted.") {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let length = match fs::fgetxattr(from, &name[..], &mut value[..]) {
            Err(Errno::OPNOTSUPP | Errno::NODATA) => continue,
            length => length?,
        };
        match fs::fsetxattr(to, &name[..], &value[..length], XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => {}
            outcome => outcome?,
        }
    }
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    fs::futimens(to, &times_of(&stat))
}

/// The times of a file, to be given to another.
pub(super) fn times_of(stat: &fs::Stat) -> Timestamps {
    let spec = |seconds: i64, nanoseconds: i64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec.cast_signed()),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
    }
}

fn xattr_names(file: &OwnedFd) -> std::result::Result<Vec<Vec<u8>>, Errno> {
    // The kernel's own limit on the list of names.
    let mut names = vec![0; 64 * 1024];
    let length = match fs::flistxattr(file, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    Ok(names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}
