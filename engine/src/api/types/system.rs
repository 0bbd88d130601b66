//! The daemon itself: errors, version, information, events.

use super::Members;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The body of every answer that is an error.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorResponse {
    /// One line.
    pub message: String,
}

/// `GET /version`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    /// Who serves.
    pub platform: Platform,
    /// The parts and their versions.
    pub components: Vec<VersionComponent>,
    /// Of the engine.
    pub version: String,
    /// The newest API version served.
    pub api_version: String,
    /// The oldest API version accepted.
    #[serde(rename = "MinAPIVersion")]
    pub min_api_version: String,
    /// The commit it was built from.
    pub git_commit: String,
    /// Empty: this is not a Go program. Clients print it.
    pub go_version: String,
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub arch: String,
    /// The host's kernel.
    pub kernel_version: String,
    /// When it was built; empty, so that builds are reproducible.
    pub build_time: String,
}

/// A name in [`Version`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Platform {
    /// The product's name.
    pub name: String,
}

/// A part of the engine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VersionComponent {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// More about it.
    pub details: BTreeMap<String, String>,
}

/// `GET /info`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Info {
    /// The daemon's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Containers altogether.
    pub containers: u32,
    /// Of those, running.
    pub containers_running: u32,
    /// Of those, paused.
    pub containers_paused: u32,
    /// Of those, not running.
    pub containers_stopped: u32,
    /// Images.
    pub images: u32,
    /// The snapshotter.
    pub driver: String,
    /// Facts about the snapshotter.
    pub driver_status: Vec<[String; 2]>,
    /// What can be plugged in.
    pub plugins: Plugins,
    /// Whether memory can be limited.
    pub memory_limit: bool,
    /// Whether swap can be limited.
    pub swap_limit: bool,
    /// Whether the CPU quota period can be set.
    pub cpu_cfs_period: bool,
    /// Whether the CPU quota can be set.
    pub cpu_cfs_quota: bool,
    /// Whether CPU weights can be set.
    #[serde(rename = "CPUShares")]
    pub cpu_shares: bool,
    /// Whether CPUs can be chosen.
    #[serde(rename = "CPUSet")]
    pub cpu_set: bool,
    /// Whether processes can be limited.
    pub pids_limit: bool,
    /// Whether the kernel forwards IPv4.
    #[serde(rename = "IPv4Forwarding")]
    pub ipv4_forwarding: bool,
    /// Whether the daemon writes debug messages.
    pub debug: bool,
    /// The daemon's clock, RFC 3339.
    pub system_time: String,
    /// The default log driver.
    pub logging_driver: String,
    /// `cgroupfs`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// The host's kernel.
    pub kernel_version: String,
    /// The host's distribution.
    pub operating_system: String,
    /// Its version.
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// `x86_64`, `aarch64`, …
    pub architecture: String,
    /// The registry that short names mean.
    pub index_server_address: String,
    /// CPUs.
    #[serde(rename = "NCPU")]
    pub ncpu: usize,
    /// Memory in bytes.
    pub mem_total: u64,
    /// The directory with the daemon's state.
    pub docker_root_dir: String,
    /// The host's name.
    pub name: String,
    /// Of the engine.
    pub server_version: String,
    /// The OCI runtimes by name.
    pub runtimes: BTreeMap<String, Runtime>,
    /// The one used when none is named.
    pub default_runtime: String,
    /// Whether containers keep running when the daemon ends.
    pub live_restore_enabled: bool,
    /// Security features in use: `name=seccomp,profile=builtin`, …
    pub security_options: Vec<String>,
    /// Things worth telling.
    pub warnings: Vec<String>,
    /// Members that clients look into, and that have nothing to tell here (`Swarm`, `RegistryConfig`, …).
    #[serde(flatten)]
    pub rest: Members,
}

/// What can be plugged into the engine, by kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Plugins {
    /// Of volumes.
    pub volume: Vec<String>,
    /// Of networks.
    pub network: Vec<String>,
    /// Of logs.
    pub log: Vec<String>,
}

/// An OCI runtime.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Runtime {
    /// The program; empty: built in.
    pub path: String,
}

/// A line of `GET /events`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// The old form of [`Event::action`], for containers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// The old form of the actor's id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The old form of the image's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// `container` or `image`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `create`, `start`, `die`, `destroy`, `pull`, …
    #[serde(rename = "Action")]
    pub action: String,
    /// Whom it happened to.
    #[serde(rename = "Actor")]
    pub actor: EventActor,
    /// `local`.
    pub scope: String,
    /// Seconds since 1970.
    pub time: i64,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// Whom an event happened to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventActor {
    /// The object's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Name, image, exit code, labels.
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}
