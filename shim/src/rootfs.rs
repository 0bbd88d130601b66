//! A container's root file system: the mounts of a create request, made at `<bundle>/rootfs`.
//!
//! Mounts are made in order and undone in reverse when one fails. An option string longer than a page, as many overlay
//! layers make, is shortened by naming the layers relative to their common directory; when that is not enough, they are
//! given one by one through the new mount interface (`lowerdir+`, Linux 6.5). Ids are mapped where the options ask for it
//! (`id_map`). Refused by name: mounts that need a helper program or a loop device.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, mount_remount, move_mount, unmount,
};
use rustix::process::{chdir, fchdir};
use wharf_proto::containerd::types::Mount;

use wharf_runtime::plan::Mappings;

use crate::id_map::{self, Layers};
use crate::status::{Code, Refusal};

/// The options' bytes that mount(2) takes: a page, with its final NUL.
const PAGE: usize = 4096;

/// A mount's options, sorted out.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    flags: u32,
    propagation: Option<u32>,
    uid_map: Option<String>,
    gid_map: Option<String>,
    data: Vec<String>,
}

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
        "defaults" => (MountFlags::empty(), true),
        _ => return None,
    })
}

/// Sorts a mount's options out.
pub fn parse(options: &[String]) -> Result<Parsed, Refusal> {
    let mut parsed = Parsed::default();
    for option in options {
        let propagation = match option.as_str() {
            "private" => Some(MountPropagationFlags::PRIVATE),
            "rprivate" => Some(MountPropagationFlags::PRIVATE | MountPropagationFlags::REC),
            "slave" => Some(MountPropagationFlags::DOWNSTREAM),
            "rslave" => Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC),
            "shared" => Some(MountPropagationFlags::SHARED),
            "rshared" => Some(MountPropagationFlags::SHARED | MountPropagationFlags::REC),
            _ => None,
        };
        if let Some(propagation) = propagation {
            parsed.propagation = Some(propagation.bits());
        } else if let Some((flag, on)) = flag(option) {
            if on {
                parsed.flags |= flag.bits();
            } else {
                parsed.flags &= !flag.bits();
            }
        } else if let Some(map) = option.strip_prefix("uidmap=") {
            parsed.uid_map = Some(map.to_owned());
        } else if let Some(map) = option.strip_prefix("gidmap=") {
            parsed.gid_map = Some(map.to_owned());
        } else if option == "loop" || option.starts_with("X-containerd.") {
            return Err(unsupported(format!(
                "mount option {option:?} is not supported yet"
            )));
        } else {
            parsed.data.push(option.clone());
        }
    }
    Ok(parsed)
}

/// Makes `mounts` at `rootfs`, a directory that is made (0711) when there are any. Changes the working directory for a
/// moment at most.
///
/// # Errors
///
/// A mount is refused or fails; those before it are undone.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), Refusal> {
    if mounts.is_empty() {
        return Ok(());
    }
    match DirBuilder::new().mode(0o711).create(rootfs) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Refusal::system(
                format!("make directory {}", rootfs.display()),
                error,
            ));
        }
        _ => {}
    }
    for one in mounts {
        if let Err(refusal) = mount_one(one, rootfs) {
            return Err(match unmount_all(rootfs) {
                Ok(()) => refusal,
                Err(error) => Refusal::new(refusal.code, format!("{}; undoing it: {error}", refusal.message)),
            });
        }
    }
    Ok(())
}

fn mount_one(request: &Mount, rootfs: &Path) -> Result<(), Refusal> {
    let kind = request.r#type.as_str();
    if kind.contains('.') || kind.contains('/') || kind.starts_with("fuse") {
        return Err(unsupported(format!(
            "mounts of type {kind:?} are not supported yet"
        )));
    }
    let target = target(rootfs, &request.target)?;
    let mut parsed = parse(&request.options)?;
    let mappings = id_map::parse(parsed.uid_map.as_deref(), parsed.gid_map.as_deref())?;
    let failed = |error: Errno| {
        Refusal::system(
            format!("mount {kind} {} on {}", request.source, target.display()),
            io::Error::from(error),
        )
    };
    let flags = MountFlags::from_bits_retain(parsed.flags);
    let is_bind = flags.contains(MountFlags::BIND) || kind == "bind";
    if is_bind {
        match &mappings {
            Some(mappings) => id_map::bind(Path::new(&request.source), &target, mappings)?,
            None => {
                let bind = (flags & MountFlags::REC) | MountFlags::BIND;
                mount(request.source.as_str(), &target, "", bind, None).map_err(failed)?;
            }
        }
        let rest = flags.difference(MountFlags::REC | MountFlags::BIND);
        if !rest.is_empty() {
            // The kernel ignores every other flag of a bind mount until it is remounted.
            mount_remount(&target, rest | MountFlags::BIND, c"").map_err(failed)?;
        }
    } else {
        let layers = match &mappings {
            Some(mappings) => Some(map_layers(kind, &mut parsed.data, rootfs, mappings)?),
            None => None,
        };
        mount_new(kind, request.source.as_str(), &target, flags, &parsed.data).map_err(failed)?;
        layers.map_or(Ok(()), Layers::unmount)?;
    }
    if let Some(bits) = parsed.propagation {
        mount_change(&target, MountPropagationFlags::from_bits_retain(bits)).map_err(failed)?;
    }
    Ok(())
}

/// Replaces the layers of an overlay by what a mount with mapped ids shows of them.
fn map_layers(
    kind: &str,
    data: &mut [String],
    rootfs: &Path,
    mappings: &Mappings,
) -> Result<Layers, Refusal> {
    let layers = data
        .iter_mut()
        .find(|option| kind == "overlay" && option.starts_with("lowerdir="));
    let Some(option) = layers else {
        return Err(unsupported(format!(
            "ids of mounts of type {kind:?} without layers cannot be mapped"
        )));
    };
    let list: Vec<&str> = option["lowerdir=".len()..].split(':').collect();
    let Some((base, relative)) = shorten(&list).filter(|(base, _)| base != Path::new("/")) else {
        return Err(unsupported(format!(
            "ids of layers without a directory of their own cannot be mapped: {option}"
        )));
    };
    let mapped = Layers::mount(&base, rootfs, mappings)?;
    let list: Vec<String> = relative
        .iter()
        .map(|layer| format!("{}/{layer}", mapped.path().display()))
        .collect();
    *option = format!("lowerdir={}", list.join(":"));
    Ok(mapped)
}

/// Where a mount goes: below the rootfs, by a path without tricks.
pub fn target(rootfs: &Path, below: &str) -> Result<PathBuf, Refusal> {
    let below = Path::new(below.trim_start_matches('/'));
    if below
        .components()
        .any(|part| !matches!(part, std::path::Component::Normal(_)))
    {
        let message = format!("mount target {} is not a plain path", below.display());
        return Err(Refusal::new(Code::InvalidArgument, message));
    }
    Ok(rootfs.join(below))
}

fn mount_new(
    kind: &str,
    source: &str,
    target: &Path,
    flags: MountFlags,
    data: &[String],
) -> rustix::io::Result<()> {
    let plain = data.join(",");
    if plain.len() < PAGE {
        return mount_with_data(kind, source, target, flags, &plain);
    }
    let Some(layers) = data.iter().find_map(|option| option.strip_prefix("lowerdir=")) else {
        return Err(Errno::TOOBIG);
    };
    let layers: Vec<&str> = layers.split(':').collect();
    if let Some((base, relative)) = shorten(&layers) {
        let short = data
            .iter()
            .map(|option| match option.strip_prefix("lowerdir=") {
                Some(_) => format!("lowerdir={}", relative.join(":")),
                None => option.clone(),
            })
            .collect::<Vec<_>>()
            .join(",");
        if short.len() < PAGE {
            let here = open(
                ".",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            chdir(&base)?;
            let mounted = mount_with_data(kind, source, target, flags, &short);
            fchdir(&here)?;
            return mounted;
        }
    }
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", source)?;
    for layer in layers {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
    for option in data.iter().filter(|option| !option.starts_with("lowerdir=")) {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, option.as_str())?,
        }
    }
    if flags.contains(MountFlags::RDONLY) {
        fsconfig_set_flag(&context, "ro")?;
    }
    fsconfig_create(&context)?;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(flags))?;
    move_mount(&mounted, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn mount_with_data(
    kind: &str,
    source: &str,
    target: &Path,
    flags: MountFlags,
    data: &str,
) -> rustix::io::Result<()> {
    let data = std::ffi::CString::new(data).map_err(|_| Errno::INVAL)?;
    mount(source, target, kind, flags, data.as_c_str())
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

/// The directory that all `layers` share, and their paths below it.
fn shorten<'a>(layers: &[&'a str]) -> Option<(PathBuf, Vec<&'a str>)> {
    let first = layers.first()?;
    let mut end = first.rfind('/')? + 1;
    while !layers
        .iter()
        .all(|layer| layer.len() > end && layer.starts_with(&first[..end]))
    {
        end = first[..end - 1].rfind('/')? + 1;
    }
    // A backslash escapes the next byte for overlayfs; such names are not taken apart.
    let base = &first[..end];
    let usable = base.starts_with('/') && !base.contains('\\');
    usable.then(|| (base.into(), layers.iter().map(|layer| &layer[end..]).collect()))
}

/// Undoes everything that is mounted on `rootfs`, and what a killed shim left of making it; nothing mounted is no error.
///
/// # Errors
///
/// A mount stays.
pub fn unmount_all(rootfs: &Path) -> io::Result<()> {
    id_map::remove(&Layers::place(rootfs))?;
    loop {
        match unmount(rootfs, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Mounts below it, or a process that is just going: detached, it ends with its last user.
            Err(Errno::BUSY) => unmount(rootfs, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?,
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the file system that `mounts` make may end after their container: an overlay ends with the disk below it
/// written, all of it, and needs nothing that somebody could want to have back at once. Without an index, its directories can be in
/// another overlay before it has ended.
pub fn may_end_late(mounts: &[Mount]) -> bool {
    let [one] = mounts else { return false };
    one.r#type == "overlay" && one.target.is_empty() && one.options.iter().any(|option| option == "index=off")
}

/// Takes `rootfs` out of sight; the file system that is mounted there ends with the descriptor.
///
/// # Errors
///
/// Nothing is mounted there, or it stays.
pub fn detach(rootfs: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = open(rootfs, flags, Mode::empty())?;
    unmount(rootfs, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
    Ok(root)
}

fn unsupported(message: String) -> Refusal {
    Refusal::new(Code::Unimplemented, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn options_are_flags_or_data_and_later_ones_win() {
        let parsed = parse(&options("ro,nosuid,rw,lowerdir=/a:/b,rprivate,index=off")).unwrap();
        assert_eq!(parsed.flags, MountFlags::NOSUID.bits());
        assert_eq!(parsed.data, ["lowerdir=/a:/b", "index=off"]);
        let rprivate = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        assert_eq!(parsed.propagation, Some(rprivate.bits()));
        assert_eq!(parse(&options("loop")).unwrap_err().code, Code::Unimplemented);
    }

    #[test]
    fn layers_are_shortened_to_what_differs() {
        let (base, rest) = shorten(&["/s/snapshots/12/fs", "/s/snapshots/1/fs"]).unwrap();
        assert_eq!(
            (base.as_path(), rest),
            (Path::new("/s/snapshots/"), vec!["12/fs", "1/fs"])
        );
        assert_eq!(shorten(&["/a/b", "/c/d"]).unwrap().0, Path::new("/"));
        assert_eq!(shorten(&["relative", "/c"]), None);
        assert_eq!(shorten(&["/a\\:b/c", "/a\\:b/d"]), None);
    }

    #[test]
    fn targets_stay_below_the_rootfs() {
        assert_eq!(target(Path::new("/r"), "").unwrap(), Path::new("/r"));
        assert_eq!(target(Path::new("/r"), "/a/b").unwrap(), Path::new("/r/a/b"));
        assert!(target(Path::new("/r"), "a/../..").is_err());
    }
}
