//! The types of `config.json`: the [OCI runtime specification] 1.3.0, as far as it speaks of Linux.
//!
//! Plain data with public fields, named as in the document but for the case of the letters (`type` is `typ`). What the
//! specification makes optional is empty, zero or `None` when it is not there; an `Option` is where being there with
//! an empty value means something else. Fields that are not known are ignored. A value that an enumeration does not have and a
//! number outside of its type are errors.
//!
//! Not here: what an absent or a contradictory field leads to. That is in [`super::validate`] and where the field is carried out.
//!
//! [OCI runtime specification]: https://github.com/opencontainers/runtime-spec/blob/v1.3.0/config.md

mod hooks;
mod linux;
mod mount;
mod process;
mod resources;
pub(super) mod seccomp;
mod word;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use hooks::{Hook, Hooks};
pub use linux::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxIntelRdt, LinuxMemoryPolicy, LinuxMemoryPolicyFlag,
    LinuxMemoryPolicyMode, LinuxNamespace, LinuxNamespaceType, LinuxNetDevice, LinuxPersonality,
    LinuxPersonalityDomain, LinuxTimeOffset,
};
pub use mount::{LinuxIdMapping, Mount};
pub use process::{
    ConsoleSize, CpuAffinity, IoPriorityClass, LinuxCapabilities, LinuxIoPriority, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, PosixRlimit, PosixRlimitType, Process, Scheduler, User,
};
pub use resources::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxInterfacePriority, LinuxMemory,
    LinuxNetwork, LinuxPids, LinuxRdma, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice,
};
pub use seccomp::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

/// The whole document.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// The version of the specification that the bundle follows.
    pub oci_version: String,
    /// The container's first process.
    #[serde(skip_serializing_if = "is_default")]
    pub process: Option<Process>,
    /// The root file system.
    #[serde(skip_serializing_if = "is_default")]
    pub root: Option<Root>,
    /// The host name in the container.
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: String,
    /// The NIS domain name in the container.
    #[serde(skip_serializing_if = "is_default")]
    pub domainname: String,
    /// What is mounted on top of the root file system, in this order.
    #[serde(skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// Programs that run at set points of the container's life.
    #[serde(skip_serializing_if = "is_default")]
    pub hooks: Option<Hooks>,
    /// Free text for others.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(skip_serializing_if = "is_default")]
    pub linux: Option<Linux>,
    /// What only Solaris has.
    #[serde(skip_serializing_if = "is_default")]
    pub solaris: Option<Present>,
    /// What only Windows has.
    #[serde(skip_serializing_if = "is_default")]
    pub windows: Option<Present>,
    /// What only virtual machines have.
    #[serde(skip_serializing_if = "is_default")]
    pub vm: Option<Present>,
    /// What only z/OS has.
    #[serde(skip_serializing_if = "is_default")]
    pub zos: Option<Present>,
    /// What only FreeBSD has.
    #[serde(skip_serializing_if = "is_default")]
    pub freebsd: Option<Present>,
}

/// The root file system.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Root {
    /// A directory of the host, absolute or relative to the bundle.
    pub path: PathBuf,
    /// Make it read-only before the process is executed.
    #[serde(skip_serializing_if = "is_default")]
    pub readonly: bool,
}

/// A section about another platform: that it is there is all that is known of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Present;

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl Serialize for Present {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map::<&str, &str, _>([])
    }
}

/// Whether a field says what its absence says, and so is not written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
