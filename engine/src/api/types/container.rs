//! Containers: the create request, the list, and the answer of `wait`.

use super::{HostConfig, Members, MountPoint};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The part of a container's configuration that does not depend on the host: what an image may also give.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// The host name inside; empty: the first twelve digits of the id.
    pub hostname: String,
    /// The domain name inside.
    pub domainname: String,
    /// `user[:group]`, names or numbers; empty: the image's, then root.
    pub user: String,
    /// Whether the client means to attach to stdin.
    pub attach_stdin: bool,
    /// Whether the client means to attach to stdout.
    pub attach_stdout: bool,
    /// Whether the client means to attach to stderr.
    pub attach_stderr: bool,
    /// Ports the image says it listens on, `80/tcp`; information only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Members>,
    /// Whether the process gets a terminal.
    pub tty: bool,
    /// Whether stdin is kept open.
    pub open_stdin: bool,
    /// Whether stdin closes when the first client that is attached to it leaves.
    pub stdin_once: bool,
    /// `NAME=value`; a bare `NAME` removes what the image sets.
    pub env: Vec<String>,
    /// Arguments, or the whole command when there is no entrypoint.
    pub cmd: Vec<String>,
    /// A health check; refused unless it is `NONE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// The image's name as the client wrote it.
    pub image: String,
    /// Paths that the image declares as volumes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Members>,
    /// The working directory; empty: the image's, then `/`.
    pub working_dir: String,
    /// The executable and its fixed arguments. `None`: the image's. A list with one empty string: none at all.
    pub entrypoint: Option<Vec<String>>,
    /// Whether there is no network but loopback.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub network_disabled: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The signal that `stop` sends first, by name or number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds between that signal and SIGKILL; `None`: ten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
}

/// A health check of an image or a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// The kind of test and its words; `["NONE"]` switches an inherited one off.
    pub test: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Members,
}

/// The body of `POST /containers/create`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateRequest {
    /// What does not depend on the host.
    #[serde(flatten)]
    pub config: ContainerConfig,
    /// What does.
    pub host_config: HostConfig,
    /// The networks to join at create.
    pub networking_config: NetworkingConfig,
    /// Members without a field here.
    #[serde(flatten)]
    pub rest: Members,
}

/// The networks of a create request.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkingConfig {
    /// Settings by name of network.
    pub endpoints_config: BTreeMap<String, Members>,
}

/// The answer of `POST /containers/create`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CreateResponse {
    /// The new container's id.
    pub id: String,
    /// Things worth telling that did not stop the creation.
    pub warnings: Vec<String>,
}

/// An element of `GET /containers/json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSummary {
    /// The id, 64 hexadecimal digits.
    pub id: String,
    /// The names, each with a leading `/`.
    pub names: Vec<String>,
    /// The image as the client named it.
    pub image: String,
    /// The image's id.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// The command line, words joined by spaces.
    pub command: String,
    /// When it was created, seconds since 1970.
    pub created: i64,
    /// Published ports.
    pub ports: Vec<PortSummary>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `created`, `running`, `paused`, `exited`, `removing` or `dead`.
    pub state: String,
    /// The state for people: `Up 3 minutes`, `Exited (0) 2 hours ago`.
    pub status: String,
    /// The little of the host configuration that lists show.
    pub host_config: SummaryHostConfig,
    /// Mounts.
    pub mounts: Vec<MountPoint>,
}

/// The host configuration in a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SummaryHostConfig {
    /// `none`, `host`, …
    pub network_mode: String,
}

/// A published port in a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortSummary {
    /// The host's address.
    #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// The port inside.
    pub private_port: u16,
    /// The host's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    /// `tcp`, `udp` or `sctp`.
    pub r#type: String,
}

/// The answer of `POST /containers/{id}/wait`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaitResponse {
    /// The exit status: the process's own, or 128 + the signal that killed it.
    pub status_code: i64,
    /// Why the wait itself failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WaitError>,
}

/// The error of a wait.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaitError {
    /// One line.
    pub message: String,
}

/// The answer of `GET /containers/{id}/top`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TopResponse {
    /// The names of the columns.
    pub titles: Vec<String>,
    /// A row a process.
    pub processes: Vec<Vec<String>>,
}

/// An element of `GET /containers/{id}/changes`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ChangeItem {
    /// The path inside.
    pub path: String,
    /// 0 modified, 1 added, 2 deleted.
    pub kind: u8,
}
