//! `GET /containers/{id}/json`.

use super::{ContainerConfig, HostConfig, Members};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything about one container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerInspect {
    /// The id, 64 hexadecimal digits.
    pub id: String,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The program that is run.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it does now.
    pub state: ContainerState,
    /// The image's id.
    pub image: String,
    /// The generated `/etc/resolv.conf`, a path of the host.
    pub resolv_conf_path: String,
    /// The generated `/etc/hostname`.
    pub hostname_path: String,
    /// The generated `/etc/hosts`.
    pub hosts_path: String,
    /// The log.
    pub log_path: String,
    /// The name with a leading `/`.
    pub name: String,
    /// How often it was restarted.
    pub restart_count: u32,
    /// The snapshotter.
    pub driver: String,
    /// `linux`.
    pub platform: String,
    /// An SELinux label; empty.
    pub mount_label: String,
    /// An SELinux label; empty.
    pub process_label: String,
    /// The AppArmor profile; empty.
    pub app_armor_profile: String,
    /// The ids of its execs that have not been forgotten.
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Vec<String>,
    /// What was asked of the host.
    pub host_config: HostConfig,
    /// Mounts.
    pub mounts: Vec<MountPoint>,
    /// Image and request merged.
    pub config: ContainerConfig,
    /// Addresses.
    pub network_settings: NetworkSettings,
}

/// What a container does now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    /// `created`, `running`, `paused`, `removing`, `exited` or `dead`.
    pub status: String,
    /// Whether its process lives.
    pub running: bool,
    /// Whether it is frozen.
    pub paused: bool,
    /// Whether it is being restarted.
    pub restarting: bool,
    /// Whether the OOM killer ended it.
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Whether its removal failed.
    pub dead: bool,
    /// The pid on the host; 0 when it does not run.
    pub pid: u32,
    /// The exit status of its last run.
    pub exit_code: i64,
    /// Why it could not be started.
    pub error: String,
    /// RFC 3339; the year 1 when never.
    pub started_at: String,
    /// RFC 3339; the year 1 when never.
    pub finished_at: String,
}

/// A mount of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    /// `bind` or `tmpfs`.
    pub r#type: String,
    /// The host's path.
    pub source: String,
    /// The path inside.
    pub destination: String,
    /// The options as written.
    pub mode: String,
    /// Whether it is writable.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// How mounts below spread.
    pub propagation: String,
}

/// Addresses of a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    /// Published ports.
    pub ports: BTreeMap<String, Vec<Members>>,
    /// The networks by name.
    pub networks: BTreeMap<String, Members>,
    /// The address on the default network; empty.
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
}
