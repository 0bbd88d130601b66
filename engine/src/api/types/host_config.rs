//! The part of a container's configuration that depends on the host.
//!
//! Only what is implemented has a field. Every other member lands in [`HostConfig::rest`] and is refused by name unless
//! it has the value that means "nothing asked for".

use super::Members;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `HostConfig` of a create request and of an inspection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `source:target[:ro|rw]`; the source is an absolute path of the host.
    pub binds: Vec<String>,
    /// Mounts in the long form; type `bind` or `tmpfs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// tmpfs mounts: target → options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// `none`, `host`; empty or `default`: `none`, as long as there is no bridge.
    pub network_mode: String,
    /// Whether the container is removed when it ends.
    pub auto_remove: bool,
    /// What to do when it ends; only `no` so far.
    pub restart_policy: RestartPolicy,
    /// How output is kept; `json-file` with `max-size` and `max-file`.
    pub log_config: LogConfig,
    /// Where the client wants the container's id; the client writes that file.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// Capabilities to add, with or without `CAP_`, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    pub cap_drop: Vec<String>,
    /// Whether the process has every capability and device and no filter.
    pub privileged: bool,
    /// Whether the root filesystem is read-only.
    pub readonly_rootfs: bool,
    /// `seccomp=unconfined`, `no-new-privileges`.
    pub security_opt: Vec<String>,
    /// More groups of the process.
    pub group_add: Vec<String>,
    /// Name servers for `/etc/resolv.conf`.
    pub dns: Vec<String>,
    /// Options for `/etc/resolv.conf`.
    pub dns_options: Vec<String>,
    /// Search domains for `/etc/resolv.conf`.
    pub dns_search: Vec<String>,
    /// `name:address` lines for `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// `private`, `none`, `shareable` or `host`.
    pub ipc_mode: String,
    /// Empty (private) or `host`.
    pub pid_mode: String,
    /// Empty (private) or `host`.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// `private` or `host`.
    pub cgroupns_mode: String,
    /// The parent cgroup; empty: `/wharf`.
    pub cgroup_parent: String,
    /// Bytes of `/dev/shm`; 0: 64 MiB.
    pub shm_size: i64,
    /// The OCI runtime: a name the daemon knows, or the absolute path of a runc-compatible program.
    pub runtime: String,
    /// Memory limit in bytes; 0: none.
    pub memory: i64,
    /// Memory and swap together in bytes; -1: unlimited swap; 0: twice the memory limit.
    pub memory_swap: i64,
    /// Soft memory limit in bytes.
    pub memory_reservation: i64,
    /// CPU quota in billionths of a CPU.
    pub nano_cpus: i64,
    /// Relative CPU weight.
    pub cpu_shares: i64,
    /// CPU period, µs.
    pub cpu_period: i64,
    /// CPU quota, µs a period.
    pub cpu_quota: i64,
    /// CPUs it may run on.
    pub cpuset_cpus: String,
    /// Memory nodes it may use.
    pub cpuset_mems: String,
    /// Most processes and threads; 0 or -1: no limit.
    pub pids_limit: i64,
    /// Preference of the OOM killer, -1000 to 1000.
    pub oom_score_adj: i64,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters of the container's namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Device nodes of the host.
    pub devices: Vec<DeviceMapping>,
    /// Annotations of the OCI spec.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Paths hidden inside; `None`: the default ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_paths: Option<Vec<String>>,
    /// Paths read-only inside; `None`: the default ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readonly_paths: Option<Vec<String>>,
    /// Members without a field here.
    #[serde(flatten)]
    pub rest: Members,
}

/// What to do when a container ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `no`, `always`, `on-failure` or `unless-stopped`.
    pub name: String,
    /// Attempts of `on-failure`.
    pub maximum_retry_count: i64,
}

/// How output is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// The driver's name; empty: `json-file`.
    pub r#type: String,
    /// The driver's options.
    pub config: BTreeMap<String, String>,
}

/// A mount in the long form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// `bind`, `tmpfs`, `volume`, …
    pub r#type: String,
    /// The host's path, of a bind.
    pub source: String,
    /// The path inside.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Members without a field here (`BindOptions`, `TmpfsOptions`, …).
    #[serde(flatten)]
    pub rest: Members,
}

/// A resource limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// `nofile`, `core`, …
    pub name: String,
    /// The soft limit; -1: none.
    pub soft: i64,
    /// The hard limit; -1: none.
    pub hard: i64,
}

/// A device node of the host to be made inside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceMapping {
    /// The host's path.
    pub path_on_host: String,
    /// The path inside; empty: the same.
    pub path_in_container: String,
    /// Any of `r`, `w` and `m`.
    pub cgroup_permissions: String,
}
