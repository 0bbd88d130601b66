//! `linux`: namespaces, devices, covered paths, and what else only Linux has.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::word::{optional, words};
use super::{LinuxIdMapping, LinuxResources, LinuxSeccomp, is_default};

/// What only Linux has.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    /// User ids of the container, for a new user namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// Group ids likewise.
    #[serde(skip_serializing_if = "is_default")]
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "is_default")]
    pub sysctl: BTreeMap<String, String>,
    /// Limits of its control groups.
    #[serde(skip_serializing_if = "is_default")]
    pub resources: Option<LinuxResources>,
    /// Where its control groups are.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroups_path: PathBuf,
    /// Namespaces that are made or joined.
    #[serde(skip_serializing_if = "is_default")]
    pub namespaces: Vec<LinuxNamespace>,
    /// Device nodes that are made besides the usual ones.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<LinuxDevice>,
    /// Network devices of the host that are moved into the container, by name.
    #[serde(skip_serializing_if = "is_default")]
    pub net_devices: BTreeMap<String, LinuxNetDevice>,
    /// The system calls that it may make.
    #[serde(skip_serializing_if = "is_default")]
    pub seccomp: Option<LinuxSeccomp>,
    /// Propagation of the root mount: `shared`, `slave`, `private` or `unbindable`, each also with an `r` before it.
    #[serde(skip_serializing_if = "is_default")]
    pub rootfs_propagation: String,
    /// Paths that are covered.
    #[serde(skip_serializing_if = "is_default")]
    pub masked_paths: Vec<String>,
    /// Paths that are made read-only.
    #[serde(skip_serializing_if = "is_default")]
    pub readonly_paths: Vec<String>,
    /// The SELinux label of mounts.
    #[serde(skip_serializing_if = "is_default")]
    pub mount_label: String,
    /// Intel's Resource Director Technology.
    #[serde(skip_serializing_if = "is_default")]
    pub intel_rdt: Option<LinuxIntelRdt>,
    /// The NUMA memory policy.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_policy: Option<LinuxMemoryPolicy>,
    /// The execution domain.
    #[serde(skip_serializing_if = "is_default")]
    pub personality: Option<LinuxPersonality>,
    /// Offsets of a new time namespace, by clock.
    #[serde(skip_serializing_if = "is_default")]
    pub time_offsets: BTreeMap<String, LinuxTimeOffset>,
}

impl Linux {
    /// The user, where the runtime is, that user `uid` of the container's own user namespace is; nothing if it has none, or
    /// none whose maps are known here.
    #[must_use]
    pub fn user_outside(&self, uid: u32) -> Option<u32> {
        self.outside(&self.uid_mappings, uid)
    }

    /// The user and the group, likewise, that root is.
    #[must_use]
    pub fn root_outside(&self) -> Option<(u32, u32)> {
        self.user_outside(0).zip(self.outside(&self.gid_mappings, 0))
    }

    fn outside(&self, ranges: &[LinuxIdMapping], id: u32) -> Option<u32> {
        let is_user = |namespace: &LinuxNamespace| namespace.typ == LinuxNamespaceType::User;
        let found = ranges.iter().find_map(|range| {
            let offset = id
                .checked_sub(range.container_id)
                .filter(|offset| *offset < range.size)?;
            range.host_id.checked_add(offset)
        });
        found.filter(|_| self.namespaces.iter().any(is_user))
    }
}

/// A namespace that is made, or joined if it has a path.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxNamespace {
    /// Its type.
    #[serde(rename = "type")]
    pub typ: LinuxNamespaceType,
    /// The one to join.
    #[serde(default, skip_serializing_if = "is_default")]
    pub path: PathBuf,
}

words! {
    /// A type of namespaces.
    LinuxNamespaceType, |word| format!("unknown namespace {word:?}"), {
        Pid = "pid",
        Network = "network",
        Mount = "mount",
        Ipc = "ipc",
        Uts = "uts",
        User = "user",
        Cgroup = "cgroup",
        Time = "time",
    }
}

/// A device node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxDevice {
    /// Where, in the container.
    #[serde(default)]
    pub path: PathBuf,
    /// What it is.
    #[serde(rename = "type")]
    pub typ: LinuxDeviceType,
    /// The major number.
    #[serde(default)]
    pub major: i64,
    /// The minor number.
    #[serde(default)]
    pub minor: i64,
    /// Its permissions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub file_mode: Option<u32>,
    /// Its owner, as the container numbers them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub uid: Option<u32>,
    /// Its group likewise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gid: Option<u32>,
}

words! {
    /// A type of devices.
    LinuxDeviceType, |word| format!("invalid device type {word:?}"), {
        /// Every device, in a rule.
        A = "a",
        /// Block.
        B = "b",
        /// Character.
        C = "c",
        /// Character, unbuffered: an older name.
        U = "u",
        /// FIFO.
        P = "p",
    }
}

/// A network device in the container.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxNetDevice {
    /// Its name there; that of the host if it is empty.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
}

/// Intel's Resource Director Technology: a group of the `resctrl` file system.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxIntelRdt {
    /// The class of service.
    #[serde(rename = "closID", skip_serializing_if = "is_default")]
    pub clos_id: String,
    /// Lines for the group's `schemata`; they override those of the next two.
    #[serde(skip_serializing_if = "is_default")]
    pub schemata: Vec<String>,
    /// The line about the L3 cache.
    #[serde(skip_serializing_if = "is_default")]
    pub l3_cache_schema: String,
    /// The line about memory bandwidth.
    #[serde(skip_serializing_if = "is_default")]
    pub mem_bw_schema: String,
    /// Cache monitoring, of versions before 1.3.
    #[serde(rename = "enableCMT", skip_serializing_if = "is_default")]
    pub enable_cmt: bool,
    /// Bandwidth monitoring, of versions before 1.3.
    #[serde(rename = "enableMBM", skip_serializing_if = "is_default")]
    pub enable_mbm: bool,
    /// A monitoring group of the container's own.
    #[serde(skip_serializing_if = "is_default")]
    pub enable_monitoring: bool,
}

/// The NUMA memory policy: the arguments of `set_mempolicy(2)`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxMemoryPolicy {
    /// The mode.
    #[serde(default, deserialize_with = "optional", skip_serializing_if = "is_default")]
    pub mode: Option<LinuxMemoryPolicyMode>,
    /// The nodes, as a list (`0-3,7`).
    #[serde(default)]
    pub nodes: String,
    /// The flags.
    #[serde(default, skip_serializing_if = "is_default")]
    pub flags: Vec<LinuxMemoryPolicyFlag>,
}

words! {
    /// A mode of `set_mempolicy(2)`.
    LinuxMemoryPolicyMode, |word| format!("invalid memory policy mode {word:?}"), {
        Default = "MPOL_DEFAULT",
        Bind = "MPOL_BIND",
        Interleave = "MPOL_INTERLEAVE",
        WeightedInterleave = "MPOL_WEIGHTED_INTERLEAVE",
        Preferred = "MPOL_PREFERRED",
        PreferredMany = "MPOL_PREFERRED_MANY",
        Local = "MPOL_LOCAL",
    }
}

words! {
    /// A flag of `set_mempolicy(2)`.
    LinuxMemoryPolicyFlag, |word| format!("invalid memory policy flag {word:?}"), {
        NumaBalancing = "MPOL_F_NUMA_BALANCING",
        RelativeNodes = "MPOL_F_RELATIVE_NODES",
        StaticNodes = "MPOL_F_STATIC_NODES",
    }
}

/// The execution domain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinuxPersonality {
    /// The domain.
    pub domain: LinuxPersonalityDomain,
    /// Flags; the specification has none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub flags: Vec<String>,
}

words! {
    /// A domain of `personality(2)`.
    LinuxPersonalityDomain, |word| format!("invalid personality domain {word:?}"), {
        Linux = "LINUX",
        Linux32 = "LINUX32",
    }
}

/// How far a clock of a time namespace is ahead.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LinuxTimeOffset {
    /// Seconds.
    #[serde(skip_serializing_if = "is_default")]
    pub secs: i64,
    /// Nanoseconds on top.
    #[serde(skip_serializing_if = "is_default")]
    pub nanosecs: u32,
}
