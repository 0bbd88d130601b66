//! What all services share: the stores, the event log and the configuration of one instance.
//!
//! Stores block; services reach them through [`Daemon::blocking`].

use std::sync::Arc;

use crate::{
    Config, content,
    error::{Error, Result},
    event, metadata, snapshot, transfer,
};

/// One open instance. Cheap to share as `Arc<Daemon>`.
pub struct Daemon {
    /// The configuration the instance was opened with.
    pub config: Config,
    /// Rows, in transactions.
    pub metadata: Arc<metadata::Store>,
    /// Blobs and ingests.
    pub content: content::Store,
    /// Snapshots, by namespace and snapshotter.
    pub snapshots: snapshot::Store,
    /// The event log.
    pub events: Arc<event::Exchange>,
    /// What transfers share.
    pub transfer: transfer::Shared,
}

impl Daemon {
    /// Runs `work` on the blocking pool and waits for it. A caller that goes away does not interrupt the work.
    ///
    /// # Errors
    ///
    /// Those of `work`; `Unknown` when it panicked.
    pub async fn blocking<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T> + Send + 'static,
    {
        let daemon = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&daemon))
            .await
            .map_err(|error| Error::unknown("run on the blocking pool", error))?
    }
}
