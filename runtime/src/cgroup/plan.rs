//! From OCI resources to directories and writes: pure, so that it can be read and compared as text.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::devices::DeviceRules;
use super::layout::join;
use super::systemd::{Manager, UnitPlan, Wishes};
use super::write::Write;
use super::{Error, Hierarchy, Layout, Version, v1, v2};
use crate::spec::check_path;
use crate::spec::oci::LinuxResources;

/// The v1 controllers that a container gets a group of its own in, where the host has them.
const CONTROLLERS: [&str; 15] = [
    "cpuset",
    "devices",
    "memory",
    "cpu",
    "cpuacct",
    "pids",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "freezer",
    "rdma",
    "misc",
    SYSTEMD,
];

/// systemd's hierarchy without a controller.
const SYSTEMD: &str = "name=systemd";

/// What sort of directory it is, as far as making it differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A group in a v1 hierarchy.
    V1,
    /// A v1 group without CPUs and memory nodes until they are copied from its parent.
    Cpuset,
    /// A group that limits nothing: systemd's, or the v2 group of a hybrid host. The container does without
    /// it where the caller may not make it.
    Tracking,
    /// A group in the one v2 hierarchy; controllers are handed down to it by its ancestors.
    V2,
}

/// One directory to be made, and what is written into it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Directory {
    /// The controllers served by it, as the container's state names them; an empty name is v2.
    pub keys: Vec<String>,
    pub mount: PathBuf,
    pub path: PathBuf,
    pub kind: Kind,
    pub writes: Vec<Write>,
    /// v2 only: the rules that become an eBPF program on this directory.
    pub filter: Option<DeviceRules>,
}

impl Directory {
    /// Whether it is in the v2 hierarchy.
    pub fn is_v2(&self) -> bool {
        self.keys.iter().any(String::is_empty)
    }
}

/// What is to be made: directories, and the values written into their files, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct CgroupPlan {
    pub(super) directories: Vec<Directory>,
    /// The unit that the directories belong to, where systemd makes them.
    pub(super) unit: Option<UnitPlan>,
    pub(super) rootless: bool,
    /// No path was asked for.
    pub(super) is_default_path: bool,
    /// Who gets the v2 group to manage below it.
    pub(super) owner: Option<u32>,
    warnings: Vec<String>,
}

/// What a container's configuration says about its control groups.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The container's name.
    pub id: &'a str,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<&'a Path>,
    /// `linux.resources`.
    pub resources: Option<&'a LinuxResources>,
    /// `annotations`, among which systemd's properties may be.
    pub annotations: &'a BTreeMap<String, String>,
}

impl CgroupPlan {
    /// Plans the group of container `id`.
    ///
    /// `cgroups_path` is `linux.cgroupsPath`: an absolute path is below the hierarchies' roots, a relative one
    /// below this process's own groups (on v2: beside its own group, which has processes and so cannot have
    /// children with controllers), and without one the group is named `id`, relative.
    ///
    /// # Errors
    ///
    /// A limit is out of its range or asks for a controller that the host does not have.
    pub fn compile(
        layout: &Layout,
        cgroups_path: Option<&Path>,
        id: &str,
        resources: Option<&LinuxResources>,
    ) -> Result<Self, Error> {
        let none = LinuxResources::default();
        let resources = resources.unwrap_or(&none);
        let inner = Inner::new(cgroups_path, id)?;
        let rules = device_rules(layout, resources)?;
        let mut plan = Self::at(layout, &inner, resources, rules)?;
        plan.is_default_path = cgroups_path.is_none_or(|path| path.as_os_str().is_empty());
        Ok(plan)
    }

    /// As [`Self::compile`], of a group that is a unit of systemd's: `cgroups_path` is `slice:prefix:name`.
    ///
    /// # Errors
    ///
    /// As [`Self::compile`]; or the path, or an annotation about a property of the unit, cannot be understood.
    pub fn compile_unit(layout: &Layout, manager: &Manager, wanted: &Wanted<'_>) -> Result<Self, Error> {
        let none = LinuxResources::default();
        let resources = wanted.resources.unwrap_or(&none);
        let rules = device_rules(layout, resources)?;
        let wishes = Wishes {
            cgroups_path: wanted.cgroups_path,
            id: wanted.id,
            annotations: wanted.annotations,
            rules: rules.as_ref(),
            is_v2: layout.version() == Version::V2,
        };
        let planned = UnitPlan::compile(manager, &wishes, resources)?;
        let mut plan = Self::at(layout, &Inner::Absolute(planned.group), &planned.resources, rules)?;
        plan.unit = Some(planned.unit);
        plan.warnings.extend(planned.warnings);
        Ok(plan)
    }

    fn at(
        layout: &Layout,
        inner: &Inner,
        resources: &LinuxResources,
        rules: Option<DeviceRules>,
    ) -> Result<Self, Error> {
        let mut warnings = Vec::new();
        let directories = if layout.version() == Version::V2 {
            let (writes, left_out) = v2::writes(resources)?;
            warnings = left_out;
            vec![v2_directory(layout, inner, Kind::V2, writes, rules)?]
        } else {
            v1_directories(layout, inner, resources, rules)?
        };
        Ok(Self {
            directories,
            unit: None,
            rootless: false,
            is_default_path: false,
            owner: None,
            warnings,
        })
    }

    /// With `rootless`, a directory that the caller may not make is left out, unless a limit or an explicit
    /// path was asked of it; and device rules that may not be set are not.
    #[must_use]
    pub fn rootless(mut self, rootless: bool) -> Self {
        self.rootless = rootless;
        self
    }

    /// The v2 group, and what the kernel lets be delegated of its files, will belong to this user of the host's.
    #[must_use]
    pub fn owned_by(mut self, owner: Option<u32>) -> Self {
        self.owner = owner;
        self
    }

    /// Whether systemd makes the group: it needs a process to put into it.
    #[must_use]
    pub fn needs_process(&self) -> bool {
        self.unit.is_some()
    }

    /// How many groups there are that a process cannot be born in.
    pub(crate) fn v1_count(&self) -> usize {
        self.directories
            .iter()
            .filter(|directory| !directory.is_v2())
            .count()
    }

    /// Controller name (empty for v2) to directory, as [`Cgroup::paths`](super::Cgroup::paths) will say; directories that the
    /// caller may turn out not to be allowed to make are among them.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let keys = |directory: &Directory| {
            let path = directory.path.clone();
            directory
                .keys
                .clone()
                .into_iter()
                .map(move |key| (key, path.clone()))
        };
        self.directories.iter().flat_map(keys).collect()
    }

    /// As [`Self::paths`], but with the caller's own group where the container will stay in it: without privileges, where no
    /// group can be made. Looks at the host.
    #[must_use]
    pub fn expected_paths(&self, layout: &Layout) -> BTreeMap<String, PathBuf> {
        let mut paths = self.paths();
        if !self.rootless || !self.is_default_path {
            return paths;
        }
        paths.retain(|key, path| {
            if !may_make(path) {
                match layout.hierarchy(key).and_then(|hierarchy| hierarchy.own.clone()) {
                    Some(own) => *path = own,
                    None => return false,
                }
            }
            true
        });
        paths
    }

    /// What was asked but has no counterpart on this host, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Whether this process may make the directory, or write to it where it is there.
fn may_make(path: &Path) -> bool {
    let there = path.ancestors().find(|ancestor| ancestor.exists());
    there.is_some_and(|there| {
        let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::accessat(rustix::fs::CWD, there, access, rustix::fs::AtFlags::empty()).is_ok()
    })
}

/// In a user namespace the kernel refuses device rules, and mknod does not work there anyway.
fn device_rules(layout: &Layout, resources: &LinuxResources) -> Result<Option<DeviceRules>, Error> {
    let rules = DeviceRules::compile(&resources.devices)?;
    Ok(layout.in_initial_user_namespace().then_some(rules))
}

fn v1_directories(
    layout: &Layout,
    inner: &Inner,
    resources: &LinuxResources,
    rules: Option<DeviceRules>,
) -> Result<Vec<Directory>, Error> {
    if !resources.unified.is_empty() {
        let problem = "invalid configuration: cannot use unified on cgroup v1";
        return Err(Error::field("linux.resources.unified", problem));
    }
    let mut directories = Vec::new();
    for hierarchy in layout.hierarchies() {
        let keys: Vec<String> = hierarchy
            .controllers
            .iter()
            .filter(|name| CONTROLLERS.contains(&name.as_str()))
            .cloned()
            .collect();
        if keys.is_empty() {
            continue;
        }
        let has = |name: &str| keys.iter().any(|key| key == name);
        let kind = match () {
            () if has("cpuset") => Kind::Cpuset,
            () if has(SYSTEMD) => Kind::Tracking,
            () => Kind::V1,
        };
        let mut writes = Vec::new();
        for key in &keys {
            writes.extend(v1::writes(key, resources)?);
        }
        if has("devices") {
            writes.extend(rules.iter().flat_map(DeviceRules::v1_writes));
        }
        let path = inner.below(hierarchy)?;
        directories.push(Directory {
            keys,
            mount: hierarchy.mount.clone(),
            path,
            kind,
            writes,
            filter: None,
        });
    }
    for name in CONTROLLERS.iter().filter(|name| layout.hierarchy(name).is_none()) {
        if let Some(write) = v1::writes(name, resources)?.first() {
            let problem = format!(
                "cannot write {}: the host has no {name:?} cgroup controller",
                write.file
            );
            return Err(Error::field("linux.resources", problem));
        }
    }
    let unruled = layout.hierarchy("devices").is_none().then_some(rules).flatten();
    if layout.hierarchy("").is_some() {
        directories.push(v2_directory(layout, inner, Kind::Tracking, Vec::new(), unruled)?);
    } else if unruled.is_some() {
        let problem = "the host has no \"devices\" cgroup controller";
        return Err(Error::field("linux.resources.devices", problem));
    }
    Ok(directories)
}

fn v2_directory(
    layout: &Layout,
    inner: &Inner,
    kind: Kind,
    writes: Vec<Write>,
    filter: Option<DeviceRules>,
) -> Result<Directory, Error> {
    let hierarchy = layout
        .hierarchy("")
        .ok_or_else(|| Error::Unsupported("a host without a v2 hierarchy, here,".to_owned()))?;
    let path = match (kind, inner) {
        (Kind::V2, Inner::Relative(below)) => {
            let own = own_group(hierarchy)?;
            let parent = if own == hierarchy.mount {
                own
            } else {
                own.parent().unwrap_or(own)
            };
            join(parent, below)
        }
        _ => inner.below(hierarchy)?,
    };
    Ok(Directory {
        keys: vec![String::new()],
        mount: hierarchy.mount.clone(),
        path,
        kind,
        writes,
        filter,
    })
}

fn own_group(hierarchy: &Hierarchy) -> Result<&Path, Error> {
    hierarchy.own.as_deref().ok_or_else(|| {
        let problem = format!(
            "a relative path cannot be used: the own cgroup is not visible below {}",
            hierarchy.mount.display()
        );
        Error::field("linux.cgroupsPath", problem)
    })
}

/// A group's place, the same in every hierarchy.
enum Inner {
    /// Below the hierarchy's root.
    Absolute(PathBuf),
    /// Below this process's own group.
    Relative(PathBuf),
}

impl Inner {
    fn new(cgroups_path: Option<&Path>, id: &str) -> Result<Self, Error> {
        let asked = cgroups_path.filter(|path| !path.as_os_str().is_empty());
        let path = asked.unwrap_or(Path::new(id));
        let field = |problem: String| Error::field("linux.cgroupsPath", problem);
        check_path(path).map_err(field)?;
        let clean = clean(path);
        // The kernel would refuse it as well: its own files tell one group a line.
        if clean.as_os_str().as_bytes().contains(&b'\n') {
            return Err(field("contains the end of a line".into()));
        }
        if clean.as_os_str().is_empty() {
            let problem = format!("{:?} names no cgroup", path.display().to_string());
            return Err(field(problem));
        }
        Ok(if path.is_absolute() {
            Self::Absolute(clean)
        } else {
            Self::Relative(clean)
        })
    }

    fn below(&self, hierarchy: &Hierarchy) -> Result<PathBuf, Error> {
        match self {
            Self::Absolute(below) => Ok(join(&hierarchy.mount, below)),
            Self::Relative(below) => Ok(join(own_group(hierarchy)?, below)),
        }
    }
}

/// The path without `.`, and with each `..` resolved by name but never above its start.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

impl fmt::Display for CgroupPlan {
    /// The plan as lines of text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for directory in &self.directories {
            let keys = directory.keys.join(",");
            writeln!(
                f,
                "[{}] {} ({:?})",
                keys,
                directory.path.display(),
                directory.kind
            )?;
            for write in &directory.writes {
                writeln!(f, "  {write}")?;
            }
            for rule in directory.filter.iter().flat_map(DeviceRules::v1_writes) {
                writeln!(f, "  filter: {rule}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
