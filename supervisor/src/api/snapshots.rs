//! The Snapshots service.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wharf_proto::containerd::services::snapshots::v1::{
    self as wire, CleanupRequest, CommitSnapshotRequest, ListSnapshotsRequest, ListSnapshotsResponse,
    MountsRequest, MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest,
    StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest,
    UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse, snapshots_server,
};

use super::{Stream, paths, required, stream};
use crate::{
    daemon::Daemon,
    error::Error,
    filter::{self, Fields, Filters},
    namespace::Scope,
    snapshot::{Info, Kind},
};

/// How many snapshots a message of a list carries.
const BATCH: usize = 100;

/// The service.
pub struct Snapshots(pub Arc<Daemon>);

impl Fields for Info {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["kind"] => match self.kind {
                Kind::Active => Some("active".into()),
                Kind::View => Some("view".into()),
                Kind::Committed => Some("committed".into()),
                Kind::Unknown => None,
            },
            ["name"] => Some(self.name.clone()),
            ["parent"] => Some(self.parent.clone()),
            ["labels", rest @ ..] => filter::label(&self.labels, rest),
            _ => None,
        }
    }
}

fn encode(info: Info) -> wire::Info {
    wire::Info {
        name: info.name,
        parent: info.parent,
        kind: info.kind.into(),
        created_at: Some(info.created_at),
        updated_at: Some(info.updated_at),
        labels: info.labels,
    }
}

/// What every request must name.
fn named(snapshotter: &str) -> Result<(), Error> {
    match snapshotter {
        "" => Err(Error::invalid("snapshotter argument missing")),
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl snapshots_server::Snapshots for Snapshots {
    async fn prepare(
        &self,
        request: Request<PrepareSnapshotRequest>,
    ) -> Result<Response<PrepareSnapshotResponse>, Status> {
        let scope = Scope::of(&request)?;
        let r = request.into_inner();
        named(&r.snapshotter)?;
        let mounts = self
            .0
            .blocking(move |daemon| {
                daemon
                    .snapshots
                    .prepare(&scope, &r.snapshotter, &r.key, &r.parent, r.labels)
            })
            .await?;
        Ok(Response::new(PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<ViewSnapshotRequest>,
    ) -> Result<Response<ViewSnapshotResponse>, Status> {
        let scope = Scope::of(&request)?;
        let r = request.into_inner();
        named(&r.snapshotter)?;
        let mounts = self
            .0
            .blocking(move |daemon| {
                daemon
                    .snapshots
                    .view(&scope, &r.snapshotter, &r.key, &r.parent, r.labels)
            })
            .await?;
        Ok(Response::new(ViewSnapshotResponse { mounts }))
    }

    async fn mounts(&self, request: Request<MountsRequest>) -> Result<Response<MountsResponse>, Status> {
        let scope = Scope::of(&request)?;
        let r = request.into_inner();
        named(&r.snapshotter)?;
        let mounts = self
            .0
            .blocking(move |daemon| daemon.snapshots.mounts(&scope, &r.snapshotter, &r.key))
            .await?;
        Ok(Response::new(MountsResponse { mounts }))
    }

    async fn commit(&self, request: Request<CommitSnapshotRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let r = request.into_inner();
        named(&r.snapshotter)?;
        self.0
            .blocking(move |daemon| {
                daemon
                    .snapshots
                    .commit(&scope, &r.snapshotter, &r.name, &r.key, &r.parent, r.labels)
            })
            .await?;
        Ok(Response::new(()))
    }

    async fn remove(&self, request: Request<RemoveSnapshotRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let r = request.into_inner();
        named(&r.snapshotter)?;
        self.0
            .blocking(move |daemon| daemon.snapshots.remove(&scope, &r.snapshotter, &r.key))
            .await?;
        self.0.garbage.notify_one();
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<StatSnapshotRequest>,
    ) -> Result<Response<StatSnapshotResponse>, Status> {
        let scope = Scope::of(&request)?;
        let r = request.into_inner();
        named(&r.snapshotter)?;
        let info = self
            .0
            .blocking(move |daemon| daemon.snapshots.stat(&scope, &r.snapshotter, &r.key))
            .await?;
        Ok(Response::new(StatSnapshotResponse {
            info: Some(encode(info)),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateSnapshotRequest>,
    ) -> Result<Response<UpdateSnapshotResponse>, Status> {
        let scope = Scope::of(&request)?;
        let r = request.into_inner();
        named(&r.snapshotter)?;
        let new = required(r.info, "info")?;
        if new.name.is_empty() {
            return Err(Error::invalid("snapshot key must not be empty").into());
        }
        let paths = paths(r.update_mask);
        let info = self
            .0
            .blocking(move |daemon| {
                daemon
                    .snapshots
                    .update(&scope, &r.snapshotter, &new.name, |labels| {
                        super::mask_labels(labels, &new.labels, &paths, &format!("snapshot {:?}", new.name))
                    })
            })
            .await?;
        Ok(Response::new(UpdateSnapshotResponse {
            info: Some(encode(info)),
        }))
    }

    type ListStream = Stream<ListSnapshotsResponse>;

    async fn list(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let scope = Scope::of(&request)?;
        let r = request.into_inner();
        named(&r.snapshotter)?;
        let filters = Filters::parse(&r.filters)?;
        let mut infos = self
            .0
            .blocking(move |daemon| daemon.snapshots.list(&scope, &r.snapshotter))
            .await?;
        infos.retain(|info| filters.matches(info));
        let infos: Vec<_> = infos.into_iter().map(encode).collect();
        let batches = infos
            .chunks(BATCH)
            .map(|batch| ListSnapshotsResponse { info: batch.to_vec() });
        Ok(Response::new(stream(batches.collect())))
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Result<Response<UsageResponse>, Status> {
        let scope = Scope::of(&request)?;
        let r = request.into_inner();
        named(&r.snapshotter)?;
        let usage = self
            .0
            .blocking(move |daemon| daemon.snapshots.usage(&scope, &r.snapshotter, &r.key))
            .await?;
        let number = |value| i64::try_from(value).unwrap_or(i64::MAX);
        Ok(Response::new(UsageResponse {
            size: number(usage.size),
            inodes: number(usage.inodes),
        }))
    }

    async fn cleanup(&self, request: Request<CleanupRequest>) -> Result<Response<()>, Status> {
        Scope::of(&request)?;
        let r = request.into_inner();
        named(&r.snapshotter)?;
        self.0
            .blocking(move |daemon| daemon.snapshots.cleanup(&r.snapshotter))
            .await?;
        Ok(Response::new(()))
    }
}
