//! The Mounts service.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wharf_proto::containerd::services::mounts::v1::{
    ActivateRequest, ActivateResponse, DeactivateRequest, InfoRequest, InfoResponse, ListMessage,
    ListRequest, UpdateRequest, UpdateResponse, mounts_server,
};

use super::Stream;
use crate::{
    daemon::Daemon,
    error::Error,
    filter::{self, Fields, Filters},
    mount::{ActivationInfo, Plan},
    namespace::Scope,
};

/// The service.
pub struct Mounts(pub Arc<Daemon>);

impl Fields for ActivationInfo {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => Some(self.name.clone()),
            ["labels", rest @ ..] => filter::label(&self.labels, rest),
            _ => None,
        }
    }
}

#[tonic::async_trait]
impl mounts_server::Mounts for Mounts {
    type ListStream = Stream<ListMessage>;

    async fn activate(
        &self,
        request: Request<ActivateRequest>,
    ) -> Result<Response<ActivateResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        // The word by which clients know that they make all mounts themselves.
        let plan = Plan::of(request.mounts, request.temporary)
            .ok_or_else(|| Error::unimplemented("nothing of these mounts is made here"))?;
        let info = self
            .0
            .blocking(move |daemon| {
                daemon
                    .mounts
                    .activate(&scope, &request.name, plan, request.labels)
            })
            .await?;
        Ok(Response::new(ActivateResponse { info: Some(info) }))
    }

    async fn deactivate(&self, request: Request<DeactivateRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let name = request.into_inner().name;
        self.0
            .blocking(move |daemon| daemon.mounts.deactivate(&scope, &name))
            .await?;
        Ok(Response::new(()))
    }

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let scope = Scope::of(&request)?;
        let name = request.into_inner().name;
        let info = self
            .0
            .blocking(move |daemon| daemon.mounts.info(&scope, &name))
            .await?;
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        Scope::of(&request)?;
        Err(Error::unimplemented("changing an activation").into())
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut infos = self.0.blocking(move |daemon| daemon.mounts.list(&scope)).await?;
        infos.retain(|info| filters.matches(info));
        let messages = infos.into_iter().map(|info| ListMessage { info: Some(info) });
        Ok(Response::new(super::stream(messages.collect())))
    }
}
