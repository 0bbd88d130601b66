//! `linux.namespaces`: which are made, which are joined, and in which order.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::Error;
use crate::spec::check_path;
use crate::spec::oci::{self, LinuxNamespaceType as Type};

/// The namespaces of a container.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Namespaces {
    /// `CLONE_NEW*` of `clone3`: made together with the process.
    pub create: u64,
    /// `CLONE_NEW*` that the child makes itself: a cgroup namespace takes the group the process is in at that
    /// moment, and a time namespace's offsets can be written only before somebody is inside.
    pub unshare: u64,
    /// Joined by path, in the order of the configuration.
    pub join: Vec<Join>,
    /// Bring `lo` up: the network namespace is new.
    pub loopback: bool,
    /// The lines for `timens_offsets`.
    pub time_offsets: Option<CString>,
}

/// A namespace that exists.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Join {
    /// The one `CLONE_NEW*` bit of its type.
    pub kind: u64,
    /// A file of nsfs.
    pub path: PathBuf,
}

/// A namespace that was opened, and whose type was checked.
#[derive(Debug)]
pub struct Opened {
    /// The one `CLONE_NEW*` bit of its type.
    pub kind: u64,
    /// The descriptor to join by.
    pub fd: OwnedFd,
}

/// What a type is called in `/proc/PID/ns` and in error texts.
#[must_use]
pub fn name(kind: u64) -> &'static str {
    match kind as libc::c_int {
        libc::CLONE_NEWNS => "mnt",
        libc::CLONE_NEWCGROUP => "cgroup",
        libc::CLONE_NEWUTS => "uts",
        libc::CLONE_NEWIPC => "ipc",
        libc::CLONE_NEWUSER => "user",
        libc::CLONE_NEWPID => "pid",
        libc::CLONE_NEWNET => "net",
        libc::CLONE_NEWTIME => "time",
        _ => "unknown",
    }
}

/// The one `CLONE_NEW*` bit of a type.
fn kind(typ: Type) -> u64 {
    let kind = match typ {
        Type::Pid => libc::CLONE_NEWPID,
        Type::Network => libc::CLONE_NEWNET,
        Type::Mount => libc::CLONE_NEWNS,
        Type::Ipc => libc::CLONE_NEWIPC,
        Type::Uts => libc::CLONE_NEWUTS,
        Type::User => libc::CLONE_NEWUSER,
        Type::Cgroup => libc::CLONE_NEWCGROUP,
        Type::Time => libc::CLONE_NEWTIME,
    };
    kind as u64
}

/// The types that the child makes itself.
const LATE: u64 = (libc::CLONE_NEWCGROUP | libc::CLONE_NEWTIME) as u64;

impl Namespaces {
    /// Whether the container has a namespace of that type for itself or joined.
    #[must_use]
    pub fn has(&self, kind: libc::c_int) -> bool {
        self.makes(kind) || self.joins(kind)
    }

    /// Whether a namespace of that type is new.
    #[must_use]
    pub fn makes(&self, kind: libc::c_int) -> bool {
        (self.create | self.unshare) & kind as u64 != 0
    }

    /// Whether a namespace of that type is joined by path.
    #[must_use]
    pub fn joins(&self, kind: libc::c_int) -> bool {
        self.join.iter().any(|join| join.kind == kind as u64)
    }

    /// Every type the container does not share with the caller by mere inheritance.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.join
            .iter()
            .fold(self.create | self.unshare, |all, join| all | join.kind)
    }

    /// Whether the first process must be made by one that has joined namespaces before: a user or a time namespace can
    /// be joined only by a process with one thread, and what is made new belongs to the user namespace of its maker.
    #[must_use]
    pub fn need_usher(&self) -> bool {
        self.joins(libc::CLONE_NEWUSER)
            || (self.makes(libc::CLONE_NEWUSER) && self.joins(libc::CLONE_NEWTIME))
    }

    pub(crate) fn compile(linux: &oci::Linux) -> Result<Self, Error> {
        let mut namespaces = Self::default();
        for (index, namespace) in linux.namespaces.iter().enumerate() {
            let field = format!("linux.namespaces[{index}]");
            let kind = kind(namespace.typ);
            if namespaces.has(kind as libc::c_int) {
                return Err(Error::field(field, format!("a second {} namespace", name(kind))));
            }
            let path = &namespace.path;
            if path.is_absolute() {
                check_path(path).map_err(|problem| Error::field(format!("{field}.path"), problem))?;
                let path = path.clone();
                namespaces.join.push(Join { kind, path });
            } else if !path.as_os_str().is_empty() {
                return Err(Error::field(format!("{field}.path"), "must be absolute"));
            } else if kind & LATE != 0 {
                namespaces.unshare |= kind;
            } else {
                namespaces.create |= kind;
            }
        }
        namespaces.loopback = namespaces.makes(libc::CLONE_NEWNET);
        namespaces.time_offsets = time_offsets(linux, &namespaces)?;
        Ok(namespaces)
    }
}

fn time_offsets(linux: &oci::Linux, namespaces: &Namespaces) -> Result<Option<CString>, Error> {
    let offsets = &linux.time_offsets;
    if offsets.is_empty() {
        return Ok(None);
    }
    if namespaces.joins(libc::CLONE_NEWTIME) {
        return Err(Error::field(
            "linux.timeOffsets",
            "time namespace enabled, but both namespace path and time offsets specified -- you may only provide one",
        ));
    }
    if !namespaces.makes(libc::CLONE_NEWTIME) {
        return Err(Error::field(
            "linux.timeOffsets",
            "time namespace offsets specified, but time namespace isn't enabled in the config",
        ));
    }
    let mut lines: Vec<String> = Vec::new();
    for (clock, offset) in offsets {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::field(
                "linux.timeOffsets",
                format!("unknown clock {clock:?}"),
            ));
        }
        if offset.nanosecs >= 1_000_000_000 {
            return Err(Error::field(
                format!("linux.timeOffsets.{clock}.nanosecs"),
                "must be less than a second",
            ));
        }
        lines.push(format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
    }
    lines.sort();
    super::text::c_string("linux.timeOffsets", lines.concat()).map(Some)
}
