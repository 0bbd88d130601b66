//! A container's state: what `state` prints.
//!
//! What is kept on disk, and how, is in [`crate::record`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a container is in its life (OCI runtime specification, "State").
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made.
    Creating,
    /// Made; the process waits for `start`.
    Created,
    /// The user's program runs.
    Running,
    /// It runs, but frozen.
    Paused,
    /// The first process is gone.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A container's state, with the JSON field names of the OCI specification and runc's additions.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The version of the specification the container was configured with.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// The first process as the caller's pid namespace numbers it; 0 when it is gone.
    pub pid: i32,
    /// Where the container is in its life.
    pub status: Status,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// The configuration's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The owner of the state directory by name, in a list; empty otherwise (as runc).
    #[serde(default)]
    pub owner: String,
}
