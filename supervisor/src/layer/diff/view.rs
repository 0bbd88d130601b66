//! From mounts to open roots of trees, without a mount that anybody else could see.
//!
//! A bind mount is opened at its source. Everything else is mounted, read-only, in the mount namespace of a thread that
//! exists for this only: what was opened there outlives the thread, the mounts end with it, however it ends.
//!
//! Refuses mounts on a subdirectory, and options that ask for a helper (`loop`) or for mapped ids by name.

use std::path::Path;

use rustix::{
    fd::OwnedFd,
    fs::{self, Mode, OFlags},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
        unmount,
    },
};
use wharf_proto::containerd::types::Mount;

use super::Trees;
use crate::{
    error::{Error, Result},
    sys,
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// What mount(2) takes of options, with the final NUL.
const PAGE: usize = 4096;

/// Opens both trees.
pub(super) fn open(lower: &[Mount], upper: &[Mount], place: &Path) -> Result<Trees> {
    let touched = match (Layers::of(lower), Layers::of(upper)) {
        (Some(below), Some(above)) if below.upper.is_none() && below.lowers == above.lowers => {
            above.upper.as_deref().map(directory).transpose()?
        }
        _ => None,
    };
    if lower
        .iter()
        .chain(upper)
        .all(|mount| bind_source(mount).is_some())
    {
        return Ok(Trees {
            lower: bound(lower)?,
            upper: bound(upper)?.ok_or_else(|| Error::invalid("no mounts to compute a layer from"))?,
            touched,
        });
    }
    let opened = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<_> {
            sys::own_mount_namespace().map_err(|error| Error::io("enter a mount namespace", error))?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
                .map_err(|error| Error::io("make / private", error))?;
            Ok((mounted(lower, place)?, mounted(upper, place)?))
        });
        thread.join()
    });
    let (lower, upper) = opened.map_err(|_panic| Error::unknown("open mounts", "the thread panicked"))??;
    Ok(Trees {
        lower,
        upper: upper.ok_or_else(|| Error::invalid("no mounts to compute a layer from"))?,
        touched,
    })
}

/// The source of a bind mount.
fn bind_source(mount: &Mount) -> Option<&str> {
    let has = |flag: &str| mount.options.iter().any(|option| option == flag);
    let bind = match mount.r#type.as_str() {
        "bind" | "rbind" => true,
        "" | "none" => has("bind") || has("rbind"),
        _ => false,
    };
    (bind && mount.target.is_empty()).then_some(mount.source.as_str())
}

fn bound(mounts: &[Mount]) -> Result<Option<OwnedFd>> {
    // Of several binds on one place the last is seen.
    mounts.last().and_then(bind_source).map(directory).transpose()
}

fn directory(path: &str) -> Result<OwnedFd> {
    if !path.starts_with('/') {
        return Err(Error::invalid(format!(
            "directory {path:?} of a mount is not absolute"
        )));
    }
    fs::open(path, DIRECTORY, Mode::empty()).map_err(|error| Error::io(format!("open {path}"), error))
}

/// Mounts all of `mounts` on `place`, one over the other, opens what is seen there, and takes them away again.
fn mounted(mounts: &[Mount], place: &Path) -> Result<Option<OwnedFd>> {
    if mounts.iter().all(|mount| bind_source(mount).is_some()) {
        return bound(mounts);
    }
    let failed = |what: &str, error| Error::io(format!("{what} {}", place.display()), error);
    let mut root = None;
    let mut attached = 0;
    for one in mounts {
        if !one.target.is_empty() {
            return Err(Error::unimplemented(format!(
                "computing a layer from a mount on {:?}",
                one.target
            )));
        }
        root = Some(match bind_source(one) {
            Some(source) => directory(source)?,
            None => match Prepared::of(one)?.mount(place)? {
                Some(detached) => detached,
                None => {
                    attached += 1;
                    fs::open(place, DIRECTORY, Mode::empty()).map_err(|error| failed("open", error))?
                }
            },
        });
    }
    for _ in 0..attached {
        unmount(place, UnmountFlags::DETACH).map_err(|error| failed("unmount", error))?;
    }
    Ok(root)
}

/// A mount as the kernel is asked for it.
#[derive(Debug, PartialEq, Eq)]
struct Prepared {
    kind: String,
    source: String,
    flags: MountFlags,
    data: Vec<String>,
    lowers: Vec<String>,
}

impl Prepared {
    /// Makes any mount read-only: an overlay's upper directory becomes its topmost lower one, so that an overlay that a
    /// container uses at this moment is not disturbed.
    fn of(mount: &Mount) -> Result<Self> {
        let mut flags = MountFlags::RDONLY;
        let mut data = Vec::new();
        let overlay = mount.r#type == "overlay";
        let (mut upper, mut lowers) = (None, Vec::new());
        for option in &mount.options {
            match option.as_str() {
                "ro" | "rw" | "defaults" | "volatile" => {}
                "nosuid" => flags |= MountFlags::NOSUID,
                "nodev" => flags |= MountFlags::NODEV,
                "noexec" => flags |= MountFlags::NOEXEC,
                "noatime" => flags |= MountFlags::NOATIME,
                "nodiratime" => flags |= MountFlags::NODIRATIME,
                "relatime" => flags |= MountFlags::RELATIME,
                "sync" | "loop" => {
                    return Err(Error::unimplemented(format!(
                        "computing a layer from a mount with {option}"
                    )));
                }
                _ if option.starts_with("uidmap=") || option.starts_with("gidmap=") => {
                    return Err(Error::unimplemented(
                        "computing a layer from a mount with mapped ids",
                    ));
                }
                _ if overlay && option.starts_with("upperdir=") => {
                    upper = option.strip_prefix("upperdir=").map(str::to_owned);
                }
                _ if overlay && option.starts_with("workdir=") => {}
                _ if overlay && option.starts_with("lowerdir=") => {
                    let list = option.strip_prefix("lowerdir=").unwrap_or_default();
                    if list.contains('\\') {
                        return Err(Error::unimplemented(
                            "computing a layer from directories with colons",
                        ));
                    }
                    lowers.extend(list.split(':').map(str::to_owned));
                }
                _ => data.push(option.clone()),
            }
        }
        if let Some(upper) = upper {
            if upper.contains([':', '\\']) {
                return Err(Error::unimplemented(
                    "computing a layer from directories with colons",
                ));
            }
            lowers.insert(0, upper);
        }
        Ok(Self {
            kind: mount.r#type.clone(),
            source: mount.source.clone(),
            flags,
            data,
            lowers,
        })
    }

    /// Mounts it on `place`, or, when there are more layers than mount(2) can take, nowhere: then what is returned is its root.
    fn mount(&self, place: &Path) -> Result<Option<OwnedFd>> {
        let failed = |error| Error::io(format!("mount {} on {}", self.kind, place.display()), error);
        let mut data = self.data.clone();
        if !self.lowers.is_empty() {
            data.push(format!("lowerdir={}", self.lowers.join(":")));
        }
        let data = data.join(",");
        if data.len() >= PAGE && !self.lowers.is_empty() {
            return self.detached().map(Some).map_err(failed);
        }
        let data = std::ffi::CString::new(data)
            .map_err(|_nul| Error::invalid("an option of a mount has a NUL in it"))?;
        mount(&self.source, place, &self.kind, self.flags, Some(data.as_c_str())).map_err(failed)?;
        Ok(None)
    }

    /// An overlay of any number of layers, since Linux 6.8.
    fn detached(&self) -> rustix::io::Result<OwnedFd> {
        let context = fsopen(&self.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", &self.source)?;
        for option in &self.data {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&context, key, value)?,
                None => fsconfig_set_flag(&context, option)?,
            }
        }
        for lower in &self.lowers {
            fsconfig_set_string(&context, "lowerdir+", lower)?;
        }
        fsconfig_set_flag(&context, "ro")?;
        fsconfig_create(&context)?;
        let mount = fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )?;
        fs::openat(&mount, ".", DIRECTORY, Mode::empty())
    }
}

/// The directories that a snapshot of overlayfs consists of, as far as the mounts tell.
#[derive(Debug, PartialEq, Eq)]
struct Layers {
    upper: Option<String>,
    lowers: Vec<String>,
}

impl Layers {
    fn of(mounts: &[Mount]) -> Option<Self> {
        let [mount] = mounts else { return None };
        if let Some(source) = bind_source(mount) {
            return Some(Self {
                upper: None,
                lowers: vec![source.to_owned()],
            });
        }
        if mount.r#type != "overlay" {
            return None;
        }
        let value = |key: &str| mount.options.iter().find_map(|option| option.strip_prefix(key));
        Some(Self {
            upper: value("upperdir=").map(str::to_owned),
            lowers: value("lowerdir=")?.split(':').map(str::to_owned).collect(),
        })
    }
}

/// Whether `directory` is of an overlay's upper directory and says that it does not simply continue what is below: it is
/// opaque, or the lower directory has another name.
pub(super) fn is_cut_off(directory: &OwnedFd) -> rustix::io::Result<bool> {
    for space in ["trusted", "user"] {
        for name in ["opaque", "redirect"] {
            if super::attributes::has(directory, &format!("{space}.overlay.{name}"))? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Opens the directory `name` in `parent`: no link, no mount.
pub(super) fn open_child(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let resolve = fs::ResolveFlags::BENEATH | fs::ResolveFlags::NO_SYMLINKS | fs::ResolveFlags::NO_XDEV;
    loop {
        match fs::openat2(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty(), resolve) {
            // A rename anywhere on the host, while `..` was not ruled out.
            Err(rustix::io::Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// The whole of `directory` once more, with a position of its own.
pub(super) fn again(directory: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    fs::openat(directory, ".", DIRECTORY, Mode::empty())
}
