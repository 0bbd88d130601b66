//! `mounts`: what is mounted on top of the root file system.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;

/// A mount.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    /// Where, in the container.
    pub destination: PathBuf,
    /// The file system's type; `bind` makes a bind mount, as the options `bind` and `rbind` do.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub typ: String,
    /// A device, a name, or for a bind mount a path of the host, relative to the bundle if it is relative.
    #[serde(skip_serializing_if = "is_default")]
    pub source: PathBuf,
    /// As in `fstab(5)`, and those of the specification.
    #[serde(skip_serializing_if = "is_default")]
    pub options: Vec<String>,
    /// User ids of the file system's files, as they are seen through this mount.
    #[serde(skip_serializing_if = "is_default")]
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// Group ids likewise.
    #[serde(skip_serializing_if = "is_default")]
    pub gid_mappings: Vec<LinuxIdMapping>,
}

/// A range of ids, and the range it stands for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct LinuxIdMapping {
    /// The first id in the container.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// The first id on the host.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}
