//! Images, and the stream of progress lines of a pull.

use super::ContainerConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An element of `GET /images/json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageSummary {
    /// The image's id, `sha256:…`.
    pub id: String,
    /// The id of the image it was built on; empty.
    pub parent_id: String,
    /// `name:tag`, as people write it.
    pub repo_tags: Vec<String>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// When it was built, seconds since 1970.
    pub created: i64,
    /// Bytes.
    pub size: i64,
    /// Bytes shared with other images; -1: not computed.
    pub shared_size: i64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Containers that use it; -1: not computed.
    pub containers: i64,
}

/// `GET /images/{name}/json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageInspect {
    /// The image's id, `sha256:…`.
    pub id: String,
    /// `name:tag`.
    pub repo_tags: Vec<String>,
    /// `name@digest`.
    pub repo_digests: Vec<String>,
    /// The id of the image it was built on; empty.
    pub parent: String,
    /// A comment of whoever built it.
    pub comment: String,
    /// When it was built, RFC 3339.
    pub created: String,
    /// Who built it.
    pub author: String,
    /// What containers inherit.
    pub config: ImageConfig,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// The variant of that architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// `linux`.
    pub os: String,
    /// Bytes.
    pub size: i64,
    /// Its layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
}

/// What containers inherit from an image; a [`ContainerConfig`] on the wire.
pub type ImageConfig = ContainerConfig;

/// The layers of an image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RootFs {
    /// `layers`.
    pub r#type: String,
    /// The digests of the unpacked layers.
    pub layers: Vec<String>,
}

/// An element of the answer of `DELETE /images/{name}`; one member is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageDelete {
    /// A name that went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untagged: Option<String>,
    /// An image that went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<String>,
}

/// A line of the answer of `POST /images/create` and `POST /images/load`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// What happens: `Pulling from library/alpine`, `Downloading`, `Pull complete`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Text for people, of a load.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// How far.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// `progressDetail` drawn as a bar.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// The layer that the line is about, twelve digits; of the first line the tag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Why it failed; the last line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The same as an object.
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<JsonError>,
}

/// How far a transfer is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    /// Bytes done.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: i64,
    /// Bytes altogether.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// An error inside a stream that had already begun.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JsonError {
    /// One line.
    pub message: String,
}
