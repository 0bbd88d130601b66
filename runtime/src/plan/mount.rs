//! The mounts of a container: `mounts[]` to operations of the new mount API.
//!
//! Refused: targets over `/` and over files of `/proc` that the container's view of itself depends on, and id maps
//! for what is no bind mount. Words for a file system mean nothing to a bind mount: they are left out with a warning.

use std::ffi::CString;
use std::path::Path;

use super::mapping::{Mappings, checked};
use super::options::{self, Locked, Options, Parameters};
use super::text::{Target, beneath_root, c_path, c_string};
use super::{Error, Facts, cgroup_mount};
use crate::cgroup::Version;
use crate::spec::oci;
use crate::sys::mount::{Attributes, Extent};

/// One operation on the container's mounts, in the order of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Attach something at a target.
    Mount(Box<Mount>),
    /// A symbolic link in the root file system.
    Link {
        /// Where.
        at: Target,
        /// What it says.
        to: CString,
    },
    /// Change what is mounted at a target (`remount`).
    Remount {
        /// Where.
        at: Target,
        /// `MS_*`, without `MS_REMOUNT`.
        flags: u64,
        /// For the file system.
        data: Option<CString>,
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
    /// What remains of the attributes of a bind mount when a user namespace may not change all of them.
    pub locked: Option<Locked>,
    /// For the mount and all below it.
    pub recursive: Attributes,
    /// Propagation types in order, each with whether it holds for the whole tree.
    pub propagation: Vec<(u64, bool)>,
    /// What may be at the target already.
    pub over_proc: OverProc,
    /// The mode of a directory that is at the target already becomes that of the tmpfs.
    pub inherits_mode: bool,
    /// Begin with a copy of what the image has at the target.
    pub copy_up: bool,
    /// Made read-only when the container stands: until then something may have to be made in it.
    pub late_read_only: bool,
    /// Mounts that follow are entries of this file system ([`Self::entry`]).
    pub has_entries: bool,
    /// The target's name, when it is a directory to be made in the file system of the last mount that has entries. That is new
    /// and nobody else's, so the target is reached through it and not by its path.
    pub entry: Option<CString>,
    /// A SELinux label for a file system that takes none when it is mounted.
    pub label: Option<CString>,
}

/// Where a mount comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A new file system: `fsopen(kind)` with these parameters.
    New {
        /// Its type.
        kind: CString,
        /// `key=value` and flags, in order.
        parameters: Parameters,
        /// Only `mount(2)` takes the parameters the way they are.
        legacy: bool,
        /// Bound instead where a user namespace may not mount it.
        instead: Option<CString>,
    },
    /// A file or directory of the host.
    Bind {
        /// Absolute.
        path: CString,
        /// Whether the mounts below come along.
        tree: bool,
        /// Which ids are seen through the mount. The parent makes these.
        id_map: Option<IdMap>,
    },
}

/// Id maps of a mount.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IdMap {
    /// Also for the mounts below.
    pub tree: bool,
    /// Nothing: those of the container's user namespace.
    pub mappings: Option<Mappings>,
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

/// What every mount of a container is compiled with.
pub(super) struct Context<'a> {
    /// The root file system on the host, absolute.
    pub(super) rootfs: &'a Path,
    /// `linux.mountLabel`.
    pub(super) label: Option<&'a str>,
    /// The container has a user namespace, its own or a joined one.
    pub(super) user_namespace: bool,
    pub(super) facts: &'a Facts<'a>,
}

/// Compiles `mounts[]`; what was left out is told in `warnings`.
pub(super) fn compile(
    mounts: &[oci::Mount],
    context: &Context<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Operation>, Error> {
    let mut operations = Vec::with_capacity(mounts.len());
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("mounts[{index}]");
        let options = options::parse(&field, &mount.options)?;
        let one = One {
            field: &field,
            destination: in_container(&mount.destination, context.rootfs),
            context,
        };
        let bind = options
            .bind
            .or((mount.typ == "bind" || mount.typ == "rbind").then_some(mount.typ == "rbind"));
        let id_map = one.id_map(mount, &options)?;
        if options.remount {
            operations.push(one.remount(&options, bind)?);
            continue;
        }
        if let Some(tree) = bind {
            if !options.data.is_empty() {
                let words = options.data.join(",");
                warnings.push(format!("{field}: {words} has no meaning for a bind mount"));
            }
            operations.push(one.bind(mount, options, tree, id_map)?);
            continue;
        }
        if id_map.is_some() {
            return Err(Error::field(
                field,
                "id-mapped mounts are only supported for bind-mounts",
            ));
        }
        match (mount.typ.as_str(), context.facts.cgroup_version) {
            ("cgroup", Version::V1 | Version::Hybrid) => {
                cgroup_mount::compile(&one, &options, &mut operations)?;
            }
            ("cgroup", Version::V2) => operations.push(one.cgroup_v2(mount, options)?),
            ("" | "none", _) => {
                return Err(Error::field(format!("{field}.type"), "is needed without bind"));
            }
            (kind, _) => operations.push(one.filesystem(mount, kind, options)?),
        }
    }
    Ok(operations)
}

/// Some callers name the target by its path on the host.
pub(super) fn in_container<'a>(destination: &'a Path, rootfs: &Path) -> &'a Path {
    destination.strip_prefix(rootfs).unwrap_or(destination)
}

/// One mount of the configuration.
pub(super) struct One<'a> {
    /// Its place in the document.
    pub(super) field: &'a str,
    /// As the container sees it.
    pub(super) destination: &'a Path,
    pub(super) context: &'a Context<'a>,
}

impl One<'_> {
    fn id_map(&self, mount: &oci::Mount, options: &Options) -> Result<Option<IdMap>, Error> {
        let (uid, gid) = (&mount.uid_mappings, &mount.gid_mappings);
        if options.id_map.is_none() && uid.is_empty() && gid.is_empty() {
            return Ok(None);
        }
        if !self.context.facts.caller.is_root() {
            let problem = "id-mapped mounts are not supported for rootless containers";
            return Err(Error::field(self.field, problem));
        }
        let implied = uid.is_empty() && gid.is_empty() && self.context.user_namespace;
        let mappings = match implied {
            true => None,
            false => {
                if uid.is_empty() || gid.is_empty() {
                    let problem = "id-mapped mounts must have both uid and gid mappings specified";
                    return Err(Error::field(self.field, problem));
                }
                Some(Mappings {
                    uid: checked(&format!("{}.uidMappings", self.field), uid)?,
                    gid: checked(&format!("{}.gidMappings", self.field), gid)?,
                    deny_setgroups: false,
                })
            }
        };
        Ok(Some(IdMap {
            tree: options.id_map == Some(true),
            mappings,
        }))
    }

    fn bind(
        &self,
        mount: &oci::Mount,
        options: Options,
        tree: bool,
        id_map: Option<IdMap>,
    ) -> Result<Operation, Error> {
        let field = format!("{}.source", self.field);
        if mount.source.as_os_str().is_empty() {
            return Err(Error::field(field, "is needed for a bind mount"));
        }
        let path = c_path(&field, &self.context.facts.bundle.join(&mount.source))?;
        let source = Source::Bind { path, tree, id_map };
        self.place(self.destination, source, options, "bind")
    }

    /// A new file system.
    fn filesystem(&self, mount: &oci::Mount, kind: &str, options: Options) -> Result<Operation, Error> {
        let mut parameters = Parameters::new();
        if !mount.source.as_os_str().is_empty() {
            parameters.push((
                c"source".to_owned(),
                Some(c_path(&format!("{}.source", self.field), &mount.source)?),
            ));
        }
        let late = is_late(&options, kind, self.destination);
        let (words, legacy) = options.parameters(self.field)?;
        parameters.extend(
            words
                .into_iter()
                .filter(|(key, _)| !(late && key.as_c_str() == c"ro")),
        );
        if let Some(label) = self.context.label
            && !["proc", "sysfs", "mqueue", "cgroup2"].contains(&kind)
        {
            parameters.push((c"context".to_owned(), Some(c_string("linux.mountLabel", label)?)));
        }
        let source = Source::New {
            kind: c_path(&format!("{}.type", self.field), Path::new(kind))?,
            parameters,
            legacy,
            instead: None,
        };
        self.place(self.destination, source, options, kind)
    }

    /// In a user namespace the hierarchy can be mounted only with a cgroup namespace of the same; without one, the
    /// host's mount of it is bound. With one that is not enough for the kernel, the container's own group is.
    fn cgroup_v2(&self, mount: &oci::Mount, options: Options) -> Result<Operation, Error> {
        let facts = self.context.facts;
        let own = facts.cgroup_paths.get("").filter(|_| facts.new_cgroup_namespace);
        let path = own.map_or(Path::new("/sys/fs/cgroup"), |path| path.as_path());
        let path = c_path(self.field, path)?;
        let mut operation = self.filesystem(mount, "cgroup2", options)?;
        if let Operation::Mount(mount) = &mut operation
            && let Source::New { instead, .. } = &mut mount.source
        {
            *instead = Some(path);
        }
        Ok(operation)
    }

    fn remount(&self, options: &Options, bind: Option<bool>) -> Result<Operation, Error> {
        let field = format!("{}.destination", self.field);
        let mut flags = options.flags;
        if bind.is_some() {
            flags |= libc::MS_BIND;
        }
        let data = options.data.join(",");
        Ok(Operation::Remount {
            at: Target::new(&field, self.destination)?,
            flags,
            data: match data.is_empty() || bind.is_some() {
                true => None,
                false => Some(c_string(self.field, data)?),
            },
        })
    }

    /// What `source` is, at `destination`.
    pub(super) fn place(
        &self,
        destination: &Path,
        source: Source,
        options: Options,
        kind: &str,
    ) -> Result<Operation, Error> {
        let field = format!("{}.destination", self.field);
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
        let late_read_only = kind != "bind" && is_late(&options, kind, destination);
        let (attributes, locked) = match kind {
            "bind" => options.bind_attributes(),
            _ => {
                let late = if late_read_only {
                    libc::MOUNT_ATTR_RDONLY
                } else {
                    0
                };
                (Attributes::new(options.attributes() & !late, 0, 0), None)
            }
        };
        let label = match (self.context.label, kind) {
            (Some(label), "mqueue") => Some(c_string("linux.mountLabel", label)?),
            _ => None,
        };
        if options.copy_up && kind != "tmpfs" {
            return Err(Error::field(self.field, "tmpcopyup is for a tmpfs"));
        }
        Ok(Operation::Mount(Box::new(Mount {
            target: Target::new(&field, destination)?,
            follow_links: kind != "proc" && kind != "sysfs",
            source,
            attributes,
            locked,
            recursive: options.recursive,
            over_proc,
            inherits_mode: kind == "tmpfs" && !options.names("mode"),
            copy_up: options.copy_up,
            late_read_only,
            has_entries: false,
            entry: None,
            label,
            propagation: options.propagation,
        })))
    }
}

/// In these something may still be made when they are mounted: devices, targets of other mounts.
fn is_late(options: &Options, kind: &str, destination: &Path) -> bool {
    let fits = kind == "tmpfs" || beneath_root(destination) == Path::new("dev");
    fits && options.flags & libc::MS_RDONLY != 0
}

/// What a bind mount takes along.
pub(crate) fn extent(tree: bool) -> Extent {
    if tree { Extent::Tree } else { Extent::Mount }
}
