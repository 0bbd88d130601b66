//! The Diff service: a layer of the content store applied to mounts.
//!
//! Refuses payloads for stream processors, and computing a layer from two sets of mounts.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wharf_proto::containerd::{
    services::diff::v1::{ApplyRequest, ApplyResponse, DiffRequest, DiffResponse, diff_server},
    types::Descriptor,
};

use super::required;
use crate::{
    daemon::Daemon,
    digest::Digest,
    error::{Error, Result},
    layer::{self, Limits},
    namespace::Scope,
};

/// The media type of what was applied: it is uncompressed.
const UNCOMPRESSED_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The service.
pub struct Diff(pub Arc<Daemon>);

#[tonic::async_trait]
impl diff_server::Diff for Diff {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let applied = self
            .0
            .blocking(move |daemon| apply(daemon, &scope, request))
            .await?;
        Ok(Response::new(ApplyResponse {
            applied: Some(applied),
        }))
    }

    async fn diff(&self, _request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        Err(Error::unimplemented("computing a layer is not supported yet: diff").into())
    }
}

fn apply(daemon: &Daemon, scope: &Scope, request: ApplyRequest) -> Result<Descriptor> {
    let blob = required(request.diff, "diff")?;
    if let Some(kind) = request.payloads.keys().next() {
        return Err(Error::unimplemented(format!(
            "stream processors are not supported yet: {kind}"
        )));
    }
    if !layer::is_layer(&blob.media_type) {
        return Err(Error::unimplemented(format!(
            "media type {:?} of a layer",
            blob.media_type
        )));
    }
    let digest: Digest = blob.digest.parse()?;
    let reader = daemon.content.reader(scope, &digest)?;
    let size = reader.size();
    let prepared = layer::prepare(&request.mounts)?;
    let applied = layer::apply(reader, size, prepared.target, Limits::default())
        .map_err(|error| error.context(format!("apply layer {digest}")))?;
    if request.sync_fs {
        rustix::fs::syncfs(&prepared.directory)
            .map_err(|error| Error::io("flush the applied layer", error))?;
    }
    Ok(Descriptor {
        media_type: UNCOMPRESSED_LAYER.to_owned(),
        digest: applied.diff_id.to_string(),
        size: applied.size.cast_signed(),
        ..Descriptor::default()
    })
}
