//! `hooks`: programs of others that run at set points of the container's life.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;

/// The hooks by their points, each list in order.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    /// As [`Self::create_runtime`], and before it; deprecated by the specification and in wide use.
    #[serde(skip_serializing_if = "is_default")]
    pub prestart: Vec<Hook>,
    /// After the namespaces are there and before the root changes, in the runtime's namespaces.
    #[serde(skip_serializing_if = "is_default")]
    pub create_runtime: Vec<Hook>,
    /// After those, in the container's namespaces; the path is looked up on the host.
    #[serde(skip_serializing_if = "is_default")]
    pub create_container: Vec<Hook>,
    /// At `start`, before the program is executed, in the container.
    #[serde(skip_serializing_if = "is_default")]
    pub start_container: Vec<Hook>,
    /// After the program was started, in the runtime's namespaces.
    #[serde(skip_serializing_if = "is_default")]
    pub poststart: Vec<Hook>,
    /// After the container was deleted, in the runtime's namespaces.
    #[serde(skip_serializing_if = "is_default")]
    pub poststop: Vec<Hook>,
}

/// A program to run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hook {
    /// The program, absolute.
    pub path: PathBuf,
    /// `argv`, its name included.
    #[serde(skip_serializing_if = "is_default")]
    pub args: Vec<String>,
    /// The environment, all of it.
    #[serde(skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    /// After how many seconds it is ended; not before it ends by itself without.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: Option<i64>,
}
