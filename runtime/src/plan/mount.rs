//! The mounts of a container: `mounts[]` to operations of the new mount API.
//!
//! Refused: targets over `/` and over files of `/proc` that the container's view of itself depends on, id-mapped
//! mounts, and data for a bind mount (the kernel would ignore it).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use super::options::{self, Options};
use super::text::{Target, beneath_root, c_path, c_string};
use super::{Error, Facts};
use crate::cgroup::Version;
use crate::spec::oci;
use crate::sys::mount::{Attributes, Extent};

/// One operation on the container's mounts, in the order of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Attach something at a target.
    Mount(Mount),
    /// A symbolic link in the root file system.
    Link {
        /// Where.
        at: Target,
        /// What it says.
        to: CString,
    },
    /// Change the mount that is at a target.
    Attributes {
        /// Where.
        at: Target,
        /// What.
        attributes: Attributes,
    },
}

/// Something to attach.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// Where; directories on the way are made as needed.
    pub target: Target,
    /// Whether symbolic links on the way are followed (beneath the root).
    pub follow_links: bool,
    /// What.
    pub source: Source,
    /// For the mount itself.
    pub attributes: Attributes,
    /// For the mount and all below it.
    pub recursive: Attributes,
    /// Propagation types in order, each with whether it holds for the whole tree.
    pub propagation: Vec<(u64, bool)>,
    /// What may be at the target already.
    pub over_proc: OverProc,
}

/// Where a mount comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A new file system: `fsopen(kind)` with these parameters.
    New {
        /// Its type.
        kind: CString,
        /// `key=value` and flags, in order.
        parameters: Vec<(CString, Option<CString>)>,
    },
    /// A file or directory of the host.
    Bind {
        /// Absolute.
        path: CString,
        /// Whether the mounts below come along.
        tree: bool,
    },
}

/// Whether a mount may cover something of a procfs: a false `/proc` deceives the container and whoever writes there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OverProc {
    /// The target must not be on a procfs.
    Refused,
    /// The target is one of the files that only inform.
    Allowed,
    /// The target is `/proc`: what is mounted must be a procfs.
    MustBeProc,
}

/// The files of procfs that may be covered (as runc: for lxcfs and the like).
const INFORMING: [&str; 11] = [
    "proc/cpuinfo",
    "proc/diskstats",
    "proc/meminfo",
    "proc/stat",
    "proc/swaps",
    "proc/uptime",
    "proc/loadavg",
    "proc/slabinfo",
    "proc/net/dev",
    "proc/sys/kernel/ns_last_pid",
    "proc/sys/crypto/fips_enabled",
];

/// Compiles `mounts[]`.
pub(super) fn compile(
    mounts: &[oci::Mount],
    label: Option<&str>,
    facts: &Facts<'_>,
) -> Result<Vec<Operation>, Error> {
    let mut operations = Vec::with_capacity(mounts.len());
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("mounts[{index}]");
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return Err(Error::Unsupported(format!("an id-mapped mount ({field})")));
        }
        let mut options = options::parse(&field, &mount.options)?;
        let kind = match mount.typ.as_str() {
            "" => "none",
            kind => kind,
        };
        let bind = options
            .bind
            .or((kind == "bind" || kind == "rbind").then_some(kind == "rbind"));
        if let Some(tree) = bind {
            operations.push(bind_mount(&field, mount, options, tree, facts)?);
            continue;
        }
        if let Some(label) = label
            && kind != "proc"
            && kind != "sysfs"
        {
            options
                .data
                .push((c"context".to_owned(), Some(c_string("linux.mountLabel", label)?)));
        }
        match (kind, facts.cgroup_version) {
            ("cgroup", Version::V1 | Version::Hybrid) => {
                cgroup_v1(&field, &mount.destination, &options, facts, &mut operations)?;
            }
            ("cgroup", Version::V2) => operations.push(new_mount(&field, mount, "cgroup2", options)?),
            ("none", _) => return Err(Error::field(format!("{field}.type"), "is needed without bind")),
            (kind, _) => operations.push(new_mount(&field, mount, kind, options)?),
        }
    }
    Ok(operations)
}

fn bind_mount(
    field: &str,
    mount: &oci::Mount,
    options: Options,
    tree: bool,
    facts: &Facts<'_>,
) -> Result<Operation, Error> {
    let ignored = options
        .data
        .iter()
        .find(|(key, value)| value.is_some() || !is_superblock_flag(key));
    if let Some((key, _)) = ignored {
        return Err(Error::field(
            field,
            format!("option {} has no meaning for a bind mount", key.to_string_lossy()),
        ));
    }
    if mount.source.as_os_str().is_empty() {
        return Err(Error::field(
            format!("{field}.source"),
            "is needed for a bind mount",
        ));
    }
    let source = c_path(&format!("{field}.source"), &facts.bundle.join(&mount.source))?;
    place(
        field,
        &mount.destination,
        Source::Bind { path: source, tree },
        options,
        "bind",
    )
}

fn is_superblock_flag(key: &CString) -> bool {
    [c"ro", c"sync", c"dirsync", c"lazytime", c"mand"].contains(&key.as_c_str())
}

fn new_mount(field: &str, mount: &oci::Mount, kind: &str, mut options: Options) -> Result<Operation, Error> {
    let mut parameters = Vec::with_capacity(options.data.len() + 1);
    if !mount.source.as_os_str().is_empty() {
        parameters.push((
            c"source".to_owned(),
            Some(c_path(&format!("{field}.source"), &mount.source)?),
        ));
    }
    parameters.append(&mut options.data);
    let source = Source::New {
        kind: c_string(&format!("{field}.type"), kind)?,
        parameters,
    };
    place(field, &mount.destination, source, options, kind)
}

fn place(
    field: &str,
    destination: &Path,
    source: Source,
    options: Options,
    kind: &str,
) -> Result<Operation, Error> {
    let field = format!("{field}.destination");
    let clean = beneath_root(destination);
    let over_proc = if clean == Path::new("proc") {
        OverProc::MustBeProc
    } else if INFORMING.iter().any(|file| clean == Path::new(file)) {
        OverProc::Allowed
    } else {
        OverProc::Refused
    };
    if over_proc == OverProc::Refused && clean.starts_with("proc") {
        return Err(Error::field(field, "is inside /proc"));
    }
    if over_proc == OverProc::MustBeProc && kind != "proc" && kind != "bind" {
        return Err(Error::field(field, format!("{kind} cannot be mounted on /proc")));
    }
    Ok(Operation::Mount(Mount {
        target: Target::new(&field, destination)?,
        follow_links: kind != "proc" && kind != "sysfs",
        source,
        attributes: options.attributes,
        recursive: options.recursive,
        propagation: options.propagation,
        over_proc,
    }))
}

/// A v1 container sees one directory for each hierarchy, and in it only its own group.
fn cgroup_v1(
    field: &str,
    destination: &Path,
    options: &Options,
    facts: &Facts<'_>,
    operations: &mut Vec<Operation>,
) -> Result<(), Error> {
    let read_only = options.attributes.set & libc::MOUNT_ATTR_RDONLY;
    let mut directory = options.clone();
    directory.attributes.set &= !libc::MOUNT_ATTR_RDONLY;
    directory.data.clear();
    let tmpfs = Source::New {
        kind: c"tmpfs".to_owned(),
        parameters: vec![
            (c"source".to_owned(), Some(c"tmpfs".to_owned())),
            (c"mode".to_owned(), Some(c"755".to_owned())),
        ],
    };
    operations.push(place(field, destination, tmpfs, directory, "tmpfs")?);
    for (name, (path, controllers)) in hierarchies(facts.cgroup_paths) {
        let (source, kind) = match facts.new_cgroup_namespace {
            // The namespace shows the container its own group as the root of the hierarchy.
            true => (hierarchy(field, &name, &controllers)?, "cgroup"),
            false => {
                let path = c_path(field, path)?;
                (Source::Bind { path, tree: true }, "bind")
            }
        };
        let mut options = options.clone();
        options.propagation.clear();
        operations.push(place(field, &destination.join(&name), source, options, kind)?);
    }
    for (controller, path) in facts.cgroup_paths {
        if let Some(name) = hierarchy_name(path)
            && !controller.is_empty()
            && !controller.contains('=')
            && *controller != name
        {
            operations.push(Operation::Link {
                at: Target::new(field, &destination.join(controller))?,
                to: c_string(field, &name)?,
            });
        }
    }
    if read_only != 0 {
        operations.push(Operation::Attributes {
            at: Target::new(field, destination)?,
            attributes: Attributes::READ_ONLY,
        });
    }
    Ok(())
}

/// A mount of an existing v1 hierarchy: named by its controllers, or by its own name when it has none.
fn hierarchy(field: &str, name: &str, controllers: &[&str]) -> Result<Source, Error> {
    let has_controllers = controllers.iter().any(|controller| !controller.contains('='));
    let source = if has_controllers { "cgroup" } else { name };
    let mut parameters = vec![(c"source".to_owned(), Some(c_string(field, source)?))];
    for controller in controllers {
        parameters.push(match controller.split_once('=') {
            Some((key, value)) => (c_string(field, key)?, Some(c_string(field, value)?)),
            None => (c_string(field, controller)?, None),
        });
    }
    Ok(Source::New {
        kind: c"cgroup".to_owned(),
        parameters,
    })
}

/// Directory name below `/sys/fs/cgroup` to the container's own group and the controllers, for each v1 hierarchy.
fn hierarchies(paths: &BTreeMap<String, PathBuf>) -> BTreeMap<String, (&Path, Vec<&str>)> {
    let mut hierarchies: BTreeMap<String, (&Path, Vec<&str>)> = BTreeMap::new();
    for (controller, path) in paths.iter().filter(|(controller, _)| !controller.is_empty()) {
        if let Some(name) = hierarchy_name(path) {
            let (_, controllers) = hierarchies.entry(name).or_insert((path.as_path(), Vec::new()));
            controllers.push(controller);
        }
    }
    hierarchies
}

fn hierarchy_name(group: &Path) -> Option<String> {
    let below = group.strip_prefix("/sys/fs/cgroup").ok()?;
    Some(below.components().next()?.as_os_str().to_str()?.to_owned())
}

/// What a bind mount takes along.
pub(crate) fn extent(tree: bool) -> Extent {
    if tree { Extent::Tree } else { Extent::Mount }
}
