//! Further processes of a running container.

use super::Members;
use serde::{Deserialize, Serialize};

/// The body of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecConfig {
    /// `user[:group]`; empty: the container's.
    pub user: String,
    /// Whether it has every capability.
    pub privileged: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Rows and columns of that terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u16; 2]>,
    /// Whether stdin is attached.
    pub attach_stdin: bool,
    /// Whether stderr is attached.
    pub attach_stderr: bool,
    /// Whether stdout is attached.
    pub attach_stdout: bool,
    /// Whether the client will not wait for it.
    pub detach: bool,
    /// The keys that detach; the client's own affair unless it sets them here.
    pub detach_keys: String,
    /// `NAME=value`, beside the container's own.
    pub env: Vec<String>,
    /// The working directory; empty: the container's.
    pub working_dir: String,
    /// The command line.
    pub cmd: Vec<String>,
    /// Members without a field here.
    #[serde(flatten)]
    pub rest: Members,
}

/// The body of `POST /exec/{id}/start`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecStart {
    /// Answer at once, and drop the output.
    pub detach: bool,
    /// Whether the client expects a raw terminal stream; must be what was asked at create.
    pub tty: bool,
    /// Rows and columns of the terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<[u16; 2]>,
}

/// `{"Id": …}`, the answer of `POST /containers/{id}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IdResponse {
    /// The new object's id.
    pub id: String,
}

/// `GET /exec/{id}/json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecInspect {
    /// The exec's id, 64 hexadecimal digits.
    #[serde(rename = "ID")]
    pub id: String,
    /// Whether it runs.
    pub running: bool,
    /// Its exit status; `None` until it ended.
    pub exit_code: Option<i64>,
    /// What is run.
    pub process_config: ExecProcessConfig,
    /// Whether stdin is attached.
    pub open_stdin: bool,
    /// Whether stderr is attached.
    pub open_stderr: bool,
    /// Whether stdout is attached.
    pub open_stdout: bool,
    /// Whether it may be forgotten.
    pub can_remove: bool,
    /// The container's id.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// The keys that detach.
    pub detach_keys: String,
    /// The pid on the host; 0 when it does not run.
    pub pid: u32,
}

/// What an exec runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecProcessConfig {
    /// Whether it has a terminal.
    pub tty: bool,
    /// The program.
    pub entrypoint: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether it has every capability.
    pub privileged: bool,
    /// `user[:group]` as asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
}
