//! Making single mounts and loop devices in the daemon's mount namespace, and taking them down.
//!
//! A loop device is a link to it at the mount point. The device itself carries the instance and the place it was made for,
//! so that one that somebody else uses by now is never taken away.

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fd::OwnedFd,
    fs::{self, Mode, OFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
        mount_remount, move_mount,
    },
};

use super::{Mount, plan::LOOP};
use crate::{
    error::{Error, Result},
    sys::loop_device,
    task::unmount,
};

/// What mount(2) takes of options, with the final NUL.
const PAGE: usize = 4096;
/// How often another process may be faster at taking a free loop device.
const TRIES: u32 = 100;

/// The instance a loop device belongs to.
#[derive(Debug, Clone)]
pub struct Owner(String);

impl Owner {
    pub fn new(uuid: &str) -> Self {
        Self(uuid.to_owned())
    }

    /// What a loop device at `point` carries: the instance, the activation's number and the place in it.
    fn name(&self, point: &Path) -> Vec<u8> {
        let mut parts = point.iter().rev().map(|part| part.to_string_lossy());
        let place = parts.next().unwrap_or_default();
        let number = parts.next().unwrap_or_default();
        format!("{}/{number}/{place}", self.0).into_bytes()
    }
}

/// Makes `wanted` at `point`, a path in an existing directory.
///
/// # Errors
///
/// `Unimplemented` for what is not made here; `Unknown` from the kernel. Nothing is left then but a directory at `point`.
pub fn attach(wanted: &Mount, point: &Path, owner: &Owner) -> Result<()> {
    if wanted.r#type == LOOP {
        let options = Options::parse(wanted)?;
        let device = device(&wanted.source, &options, &owner.name(point))?;
        std::os::unix::fs::symlink(&device.path, point)
            .map_err(|error| Error::io(format!("link {}", point.display()), error))?;
        // From here on the link is what keeps it.
        return loop_device::keep(&device.file, true)
            .map_err(|error| Error::io(format!("keep {}", device.path.display()), error));
    }
    std::fs::DirBuilder::new()
        .create(point)
        .map_err(|error| Error::io(format!("create {}", point.display()), error))?;
    make(wanted, point, owner)
}

/// Takes down everything below `directory`, an activation's, and removes it; one that is not there is no error.
///
/// # Errors
///
/// `Unknown`: a mount stays busy.
pub fn detach_all(directory: &Path, owner: &Owner) -> Result<()> {
    unmount::below(directory)?;
    let failed = |error| Error::io(format!("remove {}", directory.display()), error);
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_symlink() {
            release(&path, owner)?;
            std::fs::remove_file(&path).map_err(failed)?;
        } else {
            // Not what is in it: should something be mounted there after all, it is not ours to delete.
            std::fs::remove_dir(&path).map_err(failed)?;
        }
    }
    std::fs::remove_dir(directory).map_err(failed)
}

/// Lets the loop device go that the link at `point` leads to, once nobody uses it any more.
fn release(point: &Path, owner: &Owner) -> Result<()> {
    let failed = |error| Error::io(format!("release the loop device of {}", point.display()), error);
    let device =
        std::fs::read_link(point).map_err(|error| Error::io(format!("read {}", point.display()), error))?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let device = match fs::open(&device, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::NXIO) => return Ok(()),
        device => device.map_err(failed)?,
    };
    match loop_device::name(&device) {
        Ok(name) if name == loop_device::shortened(&owner.name(point)) => {
            loop_device::keep(&device, false).map_err(failed)
        }
        // Somebody else's, or free.
        Ok(_) | Err(Errno::NXIO | Errno::NOTTY) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// A loop device that goes with its last user.
struct Device {
    file: OwnedFd,
    path: PathBuf,
}

/// Makes `source` a block device.
fn device(source: &str, options: &Options, name: &[u8]) -> Result<Device> {
    let is_read_only = options.flags.contains(MountFlags::RDONLY);
    let access = if is_read_only {
        OFlags::RDONLY
    } else {
        OFlags::RDWR
    };
    let failed = |what: &str, error: Errno| Error::io(format!("{what} {source}"), error);
    // A device file or a FIFO named as the source must not make the daemon wait.
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let backing = fs::open(source, flags, Mode::empty()).map_err(|error| failed("open", error))?;
    let control = fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io("open /dev/loop-control", error))?;
    for _ in 0..TRIES {
        let number = loop_device::free(&control).map_err(|error| failed("find a loop device for", error))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let file = fs::open(&path, access | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Error::io(format!("open {}", path.display()), error))?;
        match loop_device::configure(&file, &backing, name, is_read_only, options.is_direct) {
            Ok(()) => return Ok(Device { file, path }),
            // Somebody else took it.
            Err(Errno::BUSY) => {}
            Err(error) => return Err(failed("make a loop device of", error)),
        }
    }
    Err(Error::unavailable(format!("a loop device for {source}")))
}

/// A mount's options, sorted out.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MountFlags,
    propagation: Option<MountPropagationFlags>,
    is_loop: bool,
    is_direct: bool,
    data: Vec<String>,
}

impl Options {
    fn parse(mount: &Mount) -> Result<Self> {
        let mut options = Self {
            flags: MountFlags::empty(),
            propagation: None,
            is_loop: mount.r#type == LOOP,
            is_direct: false,
            data: Vec::new(),
        };
        for option in &mount.options {
            let recursive = MountPropagationFlags::REC;
            match option.as_str() {
                "private" => options.propagation = Some(MountPropagationFlags::PRIVATE),
                "rprivate" => options.propagation = Some(MountPropagationFlags::PRIVATE | recursive),
                "slave" => options.propagation = Some(MountPropagationFlags::DOWNSTREAM),
                "rslave" => options.propagation = Some(MountPropagationFlags::DOWNSTREAM | recursive),
                "shared" => options.propagation = Some(MountPropagationFlags::SHARED),
                "rshared" => options.propagation = Some(MountPropagationFlags::SHARED | recursive),
                "loop" => options.is_loop = true,
                "defaults" => {}
                option if option.starts_with("X-containerd.") => {
                    return Err(Error::invalid(format!(
                        "mount option {option:?} belongs to a transformation that the type does not name"
                    )));
                }
                option if option.starts_with("uidmap=") || option.starts_with("gidmap=") => {
                    return Err(Error::unimplemented(format!(
                        "mount option {option:?} outside of a container"
                    )));
                }
                option => match flag(option) {
                    Some((flag, true)) => options.flags |= flag,
                    Some((flag, false)) => options.flags &= !flag,
                    None => options.data.push(option.to_owned()),
                },
            }
        }
        if options.is_loop {
            let before = options.data.len();
            options.data.retain(|option| option != "direct-io");
            options.is_direct = options.data.len() < before;
        }
        Ok(options)
    }
}

/// The flag of an option, and whether the option sets it.
fn flag(option: &str) -> Option<(MountFlags, bool)> {
    Some(match option {
        "ro" => (MountFlags::RDONLY, true),
        "rw" => (MountFlags::RDONLY, false),
        "nosuid" => (MountFlags::NOSUID, true),
        "suid" => (MountFlags::NOSUID, false),
        "nodev" => (MountFlags::NODEV, true),
        "dev" => (MountFlags::NODEV, false),
        "noexec" => (MountFlags::NOEXEC, true),
        "exec" => (MountFlags::NOEXEC, false),
        "sync" => (MountFlags::SYNCHRONOUS, true),
        "async" => (MountFlags::SYNCHRONOUS, false),
        "dirsync" => (MountFlags::DIRSYNC, true),
        "noatime" => (MountFlags::NOATIME, true),
        "atime" => (MountFlags::NOATIME, false),
        "nodiratime" => (MountFlags::NODIRATIME, true),
        "diratime" => (MountFlags::NODIRATIME, false),
        "relatime" => (MountFlags::RELATIME, true),
        "norelatime" => (MountFlags::RELATIME, false),
        "strictatime" => (MountFlags::STRICTATIME, true),
        "nostrictatime" => (MountFlags::STRICTATIME, false),
        "bind" => (MountFlags::BIND, true),
        "rbind" => (MountFlags::BIND.union(MountFlags::REC), true),
        _ => return None,
    })
}

fn make(wanted: &Mount, point: &Path, owner: &Owner) -> Result<()> {
    let kind = wanted.r#type.as_str();
    if !wanted.target.is_empty() {
        return Err(Error::unimplemented(format!(
            "a mount below a mount, at {:?}",
            wanted.target
        )));
    }
    if kind.starts_with("fuse.") || kind.starts_with("fuse3.") || kind.contains('/') {
        return Err(Error::unimplemented(format!("mounts of type {kind:?}")));
    }
    let options = Options::parse(wanted)?;
    let failed = |error: Errno| {
        Error::io(
            format!("mount {kind} {} on {}", wanted.source, point.display()),
            error,
        )
    };
    let is_bind = options.flags.contains(MountFlags::BIND) || kind == "bind" || kind == "rbind";
    if is_bind {
        let deep = if kind == "rbind" {
            MountFlags::REC
        } else {
            options.flags & MountFlags::REC
        };
        mount(wanted.source.as_str(), point, "", deep | MountFlags::BIND, None).map_err(failed)?;
        let rest = options.flags.difference(MountFlags::REC | MountFlags::BIND);
        if !rest.is_empty() {
            // The kernel ignores every other flag of a bind mount until it is remounted.
            mount_remount(point, rest | MountFlags::BIND, c"").map_err(failed)?;
        }
    } else {
        // Autoclear: with the mount, or this descriptor when that fails, the device goes.
        let device = match options.is_loop {
            true => Some(device(&wanted.source, &options, &owner.name(point))?),
            false => None,
        };
        let source = match &device {
            Some(device) => device.path.as_os_str().as_bytes(),
            None => wanted.source.as_bytes(),
        };
        fresh(kind, source, point, options.flags, &options.data).map_err(failed)?;
    }
    match options.propagation {
        Some(propagation) => mount_change(point, propagation).map_err(failed),
        None => Ok(()),
    }
}

fn fresh(
    kind: &str,
    source: &[u8],
    point: &Path,
    flags: MountFlags,
    data: &[String],
) -> rustix::io::Result<()> {
    let joined = CString::new(data.join(",")).map_err(|_nul| Errno::INVAL)?;
    if joined.as_bytes_with_nul().len() < PAGE {
        return mount(source, point, kind, flags, joined.as_c_str());
    }
    // More layers than mount(2) takes: one by one, since Linux 6.8.
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", source)?;
    for option in data {
        match option.split_once('=') {
            Some(("lowerdir", layers)) => {
                for layer in layers.split(':') {
                    fsconfig_set_string(&context, "lowerdir+", layer)?;
                }
            }
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, option.as_str())?,
        }
    }
    if flags.contains(MountFlags::RDONLY) {
        fsconfig_set_flag(&context, "ro")?;
    }
    fsconfig_create(&context)?;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(flags))?;
    move_mount(
        &mounted,
        "",
        fs::CWD,
        point,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

fn attributes(flags: MountFlags) -> MountAttrFlags {
    [
        (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
        (MountFlags::STRICTATIME, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
        (MountFlags::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(MountAttrFlags::empty(), |all, (_, attribute)| all | attribute)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        Mount {
            r#type: kind.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn options_are_sorted_out() {
        let options = Options::parse(&mount(
            "ext4",
            &["ro", "nodev", "dev", "loop", "direct-io", "data=x", "rslave"],
        ))
        .unwrap();
        assert_eq!(options.flags, MountFlags::RDONLY);
        assert!(options.is_loop && options.is_direct);
        assert_eq!(options.data, ["data=x"]);
        assert_eq!(
            options.propagation,
            Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        );
        assert_eq!(
            Options::parse(&mount("ext4", &["direct-io"])).unwrap().data,
            ["direct-io"]
        );
        for bad in ["X-containerd.mkdir.path=/a", "uidmap=0:1:1"] {
            assert!(Options::parse(&mount("overlay", &[bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_loop_device_says_whose_it_is() {
        let owner = Owner::new("uuid");
        assert_eq!(owner.name(Path::new("/run/mounts/12/0")), b"uuid/12/0");
    }

    #[test]
    fn nothing_that_was_not_mounted_is_deleted() {
        let root = tempfile::tempdir().unwrap();
        let owner = Owner::new("uuid");
        detach_all(&root.path().join("none"), &owner).unwrap();
        let activation = root.path().join("1");
        std::fs::create_dir_all(activation.join("0/precious")).unwrap();
        detach_all(&activation, &owner).unwrap_err();
        assert!(activation.join("0/precious").exists());
        std::fs::remove_dir(activation.join("0/precious")).unwrap();
        std::os::unix::fs::symlink("/dev/null", activation.join("1")).unwrap();
        detach_all(&activation, &owner).unwrap();
        assert!(!activation.exists());
    }
}
