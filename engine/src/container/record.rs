//! What the daemon knows about a container, on disk.
//!
//! `<root>/containers/<id>/record.json`, version 1: the identity, image and request merged, and the state. Of a container
//! that is removed when it ends it is in `<state>/containers/<id>/`, which dies with the boot as such a container does. It is written
//! to a file beside it and renamed over it, so a reader sees one version or the other whatever is killed when. Nobody
//! waits for the disk: after an answer, a power loss may take back the last moments, `kill -9` may not.
//!
//! The row in the supervisor is made before the record and deleted before it, so a record without a row is a removal
//! that was cut short, and a row without a record a creation that was.

use crate::api::types::{ContainerConfig, HostConfig};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;
const FILE: &str = "record.json";

/// A container as it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format.
    version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name, without a slash.
    pub name: String,
    /// When it was created.
    pub created: jiff::Timestamp,
    /// The image as it was asked for.
    pub image: String,
    /// The image's id; empty for a directory.
    pub image_id: String,
    /// Image and request merged.
    pub config: ContainerConfig,
    /// What was asked of the host.
    pub host: HostConfig,
    /// What its root filesystem is.
    pub rootfs: RootfsSource,
    /// What it does.
    pub state: State,
}

/// What a root filesystem is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootfsSource {
    /// A snapshot whose key is the container's id.
    Snapshot {
        /// Who holds it.
        snapshotter: String,
    },
    /// A directory of the host under a layer that is thrown away.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Never started.
    Created,
    /// Its process lives.
    Running,
    /// Its process is frozen.
    Paused,
    /// Its process has ended.
    Exited,
    /// Its removal failed half-way.
    Dead,
}

/// What a container does, or did last.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Where it is in its life.
    pub phase: Phase,
    /// The pid on the host; 0 when there is none.
    pub pid: u32,
    /// The exit status of its last run.
    pub exit_code: i64,
    /// Why it could not be started.
    pub error: String,
    /// Whether the kernel killed in its last run for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// When it was last started.
    pub started: Option<jiff::Timestamp>,
    /// When it last ended.
    pub finished: Option<jiff::Timestamp>,
}

impl Record {
    /// A container that was never started.
    pub fn new(id: String, name: String, image: String, rootfs: RootfsSource) -> Self {
        Self {
            version: VERSION,
            id,
            name,
            created: jiff::Timestamp::now(),
            image,
            image_id: String::new(),
            config: ContainerConfig::default(),
            host: HostConfig::default(),
            rootfs,
            state: State {
                phase: Phase::Created,
                pid: 0,
                exit_code: 0,
                error: String::new(),
                oom_killed: false,
                started: None,
                finished: None,
            },
        }
    }

    /// Whether nothing of the container is to be found after the host was started anew.
    pub fn dies_with_boot(&self) -> bool {
        self.host.auto_remove
    }

    /// Reads the record in `directory`; `None` when there is none.
    ///
    /// # Errors
    ///
    /// It cannot be read, or was written by another version.
    pub fn load(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        let record: Self = serde_json::from_slice(&bytes).map_err(|error| Error::io("read", &path, error))?;
        if record.version != VERSION {
            return Err(Error::io(
                "read",
                &path,
                format!("version {} is not {VERSION}", record.version),
            ));
        }
        Ok(Some(record))
    }

    /// Writes the record into `directory`.
    ///
    /// # Errors
    ///
    /// The disk is full or broken; the record that was there is still there.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let beside = directory.join("record.json.new");
        let bytes = serde_json::to_vec(self).map_err(|error| Error::io("write", &path, error))?;
        std::fs::write(&beside, bytes).map_err(|error| Error::io("write", &beside, error))?;
        std::fs::rename(&beside, &path).map_err(|error| Error::io("rename", &beside, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_others_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Record::load(directory.path()).unwrap().is_none());
        let source = RootfsSource::Directory { path: "/x".into() };
        let mut record = Record::new("id".to_owned(), "name".to_owned(), "rootfs:/x".to_owned(), source);
        record.state.phase = Phase::Exited;
        record.save(directory.path()).unwrap();
        let read = Record::load(directory.path()).unwrap().unwrap();
        assert_eq!((read.name.as_str(), read.state.phase), ("name", Phase::Exited));
        record.version = 2;
        record.save(directory.path()).unwrap();
        assert!(Record::load(directory.path()).is_err());
    }
}
