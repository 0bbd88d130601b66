//! Device nodes and the links that every container's `/dev` has.

use std::ffi::CString;
use std::path::Path;

use super::Error;
use super::text::{Target, beneath_root, c_string};
use crate::spec::oci;

/// A node to be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// Where in the container.
    pub target: Target,
    /// The same path on the host: bound instead when a user namespace forbids making nodes.
    pub host: CString,
    /// Type and permission bits.
    pub mode: u32,
    /// Major and minor, as the kernel packs them.
    pub device: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A symbolic link in `/dev`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Where.
    pub at: Target,
    /// What it says.
    pub to: CString,
    /// Made only if this is there, relative to the root.
    pub needs: Option<CString>,
    /// Takes the place of what is there.
    pub replace: bool,
}

/// The devices that the specification promises ("Default Devices").
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

/// Not the image's: who opens it gets a terminal of the container's own devpts.
const PTMX: &str = "/dev/ptmx";

/// The links that the specification promises ("Dev symbolic links"), `/dev/core` and `/dev/ptmx`.
const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    (PTMX, "pts/ptmx"),
];

/// The default devices, and those of `linux.devices`, which win over them.
pub(super) fn compile(devices: &[oci::LinuxDevice]) -> Result<Vec<Device>, Error> {
    let mut compiled = Vec::with_capacity(DEFAULT.len() + devices.len());
    for (path, major, minor) in DEFAULT {
        compiled.push(Device {
            target: Target::new("default devices", Path::new(path))?,
            host: c_string("default devices", path)?,
            mode: libc::S_IFCHR | 0o666,
            device: libc::makedev(major, minor),
            uid: 0,
            gid: 0,
        });
    }
    for (index, device) in devices.iter().enumerate() {
        let field = format!("linux.devices[{index}]");
        let node = one(&field, device)?;
        // It is a link, which says the same: a node that a user namespace has bound there could not be replaced by it.
        if beneath_root(&device.path) == beneath_root(Path::new(PTMX)) {
            continue;
        }
        let device = node;
        compiled.retain(|known| known.target != device.target);
        compiled.push(device);
    }
    Ok(compiled)
}

fn one(field: &str, device: &oci::LinuxDevice) -> Result<Device, Error> {
    if !device.path.is_absolute() {
        return Err(Error::field(format!("{field}.path"), "must be absolute"));
    }
    let kind = match device.typ {
        oci::LinuxDeviceType::B => libc::S_IFBLK,
        oci::LinuxDeviceType::C | oci::LinuxDeviceType::U => libc::S_IFCHR,
        oci::LinuxDeviceType::P => libc::S_IFIFO,
        oci::LinuxDeviceType::A => return Err(Error::field(format!("{field}.type"), "no device has type a")),
    };
    let number = |name: &str, value: i64| match u32::try_from(value) {
        Ok(number) => Ok(number),
        // A FIFO has no numbers.
        Err(_) if kind == libc::S_IFIFO => Ok(0),
        Err(_) => Err(Error::field(
            format!("{field}.{name}"),
            format!("{value} is out of range"),
        )),
    };
    let (major, minor) = (number("major", device.major)?, number("minor", device.minor)?);
    Ok(Device {
        target: Target::new(&format!("{field}.path"), &device.path)?,
        host: c_string(field, &device.path)?,
        mode: kind | device.file_mode.unwrap_or(0o666) & 0o7777,
        device: libc::makedev(major, minor),
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

/// The links of `/dev`.
pub(super) fn links() -> Result<Vec<Link>, Error> {
    LINKS
        .iter()
        .map(|(at, to)| {
            Ok(Link {
                at: Target::new("dev links", Path::new(at))?,
                to: c_string("dev links", to)?,
                needs: (*to == "/proc/kcore").then(|| c"proc/kcore".to_owned()),
                replace: *at == PTMX,
            })
        })
        .collect()
}
