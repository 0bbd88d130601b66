//! Snapshots: the writable layers of containers, and what to mount for them.

use super::call::{absent_is_fine, failed};
use super::{CallResult, Client, Mount};
use wharf_proto::containerd::services::snapshots::v1::{
    self as snapshots, snapshots_client::SnapshotsClient,
};

impl Client {
    /// Makes a writable snapshot on top of `parent` and returns what to mount. It is a root of garbage collection:
    /// only [`Client::remove_snapshot`] removes it.
    ///
    /// # Errors
    ///
    /// The parent does not exist, or the key is taken.
    pub async fn prepare(&self, snapshotter: &str, key: &str, parent: &str) -> CallResult<Vec<Mount>> {
        let root = (
            "containerd.io/gc.root".to_owned(),
            jiff::Timestamp::now().to_string(),
        );
        let response = SnapshotsClient::new(self.channel.clone())
            .prepare(snapshots::PrepareSnapshotRequest {
                snapshotter: snapshotter.to_owned(),
                key: key.to_owned(),
                parent: parent.to_owned(),
                labels: [root].into(),
            })
            .await
            .map_err(failed("prepare snapshot", key))?;
        Ok(response.into_inner().mounts)
    }

    /// What to mount for an active snapshot.
    ///
    /// # Errors
    ///
    /// It does not exist.
    pub async fn mounts(&self, snapshotter: &str, key: &str) -> CallResult<Vec<Mount>> {
        let response = SnapshotsClient::new(self.channel.clone())
            .mounts(snapshots::MountsRequest {
                snapshotter: snapshotter.to_owned(),
                key: key.to_owned(),
            })
            .await
            .map_err(failed("mounts of snapshot", key))?;
        Ok(response.into_inner().mounts)
    }

    /// Bytes that a snapshot takes.
    ///
    /// # Errors
    ///
    /// It does not exist.
    pub async fn snapshot_size(&self, snapshotter: &str, key: &str) -> CallResult<i64> {
        let response = SnapshotsClient::new(self.channel.clone())
            .usage(snapshots::UsageRequest {
                snapshotter: snapshotter.to_owned(),
                key: key.to_owned(),
            })
            .await
            .map_err(failed("usage of snapshot", key))?;
        Ok(response.into_inner().size)
    }

    /// The keys of all snapshots of the engine's namespace.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn snapshot_keys(&self, snapshotter: &str) -> CallResult<Vec<String>> {
        let mut stream = SnapshotsClient::new(self.channel.clone())
            .list(snapshots::ListSnapshotsRequest {
                snapshotter: snapshotter.to_owned(),
                filters: Vec::new(),
            })
            .await
            .map_err(failed("list snapshots", snapshotter))?
            .into_inner();
        let mut keys = Vec::new();
        while let Some(part) = stream
            .message()
            .await
            .map_err(failed("list snapshots", snapshotter))?
        {
            keys.extend(part.info.into_iter().map(|info| info.name));
        }
        Ok(keys)
    }

    /// Removes a snapshot; one that is gone is fine.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn remove_snapshot(&self, snapshotter: &str, key: &str) -> CallResult<()> {
        let removed = SnapshotsClient::new(self.channel.clone())
            .remove(snapshots::RemoveSnapshotRequest {
                snapshotter: snapshotter.to_owned(),
                key: key.to_owned(),
            })
            .await
            .map_err(failed("remove snapshot", key));
        absent_is_fine(removed.map(drop))
    }
}
