//! The engine as one value: what every operation on containers and images shares.

use crate::container::config::facts::Facts;
use crate::container::store::{Container, Containers};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::image::store::Images;
use crate::supervisor::Client;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio_util::task::TaskTracker;

/// The shim that runs containers when nothing else is asked for.
pub const DEFAULT_SHIM: &str = "io.containerd.wharf.v2";

/// The snapshotter of containers' root filesystems.
pub const SNAPSHOTTER: &str = "overlayfs";

/// Everything that operations share.
#[derive(Debug)]
pub struct Engine {
    /// The daemon's id.
    pub id: String,
    /// Records and logs.
    pub root: PathBuf,
    /// FIFOs and mounts of this boot.
    pub state: PathBuf,
    /// The supervisor.
    pub client: Client,
    /// Images.
    pub images: Images,
    /// Containers.
    pub containers: Containers,
    /// The host.
    pub facts: Facts,
    /// Notices.
    pub events: Events,
    /// The operations that are under way and must not be cut off.
    pub operations: TaskTracker,
}

impl Engine {
    /// An engine without containers.
    pub fn new(id: String, root: PathBuf, state: PathBuf, client: Client) -> Self {
        Self {
            id,
            root,
            state,
            images: Images::new(client.clone()),
            client,
            containers: Containers::default(),
            facts: Facts::of_host(),
            events: Events::default(),
            operations: TaskTracker::new(),
        }
    }

    /// Tells that `action` happened to a container.
    pub fn publish(&self, container: &Container, action: &str, more: &[(&str, String)]) {
        let (id, mut attributes) = container.with_record(|record| {
            let mut attributes: BTreeMap<String, String> = record.config.labels.clone();
            attributes.insert("name".to_owned(), record.name.clone());
            attributes.insert("image".to_owned(), record.config.image.clone());
            (record.id.clone(), attributes)
        });
        attributes.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        self.events.publish("container", action, &id, attributes);
    }
}

/// Runs what blocks on the pool for that.
///
/// # Errors
///
/// What `work` says; or it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::system(format!("blocking work: {error}"))))
}
