//! The Leases service.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wharf_proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResourceRequest, ListRequest,
    ListResourcesRequest, ListResourcesResponse, ListResponse, leases_server,
};

use super::required;
use crate::{
    daemon::Daemon,
    filter::{self, Fields, Filters},
    gc,
    lease::{self, Lease},
    namespace::Scope,
};

/// The service.
pub struct Leases(pub Arc<Daemon>);

impl Fields for Lease {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some(self.id.clone()),
            ["labels", rest @ ..] => filter::label(&self.labels, rest),
            _ => None,
        }
    }
}

#[tonic::async_trait]
impl leases_server::Leases for Leases {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        let scope = Scope::of(&request)?;
        let CreateRequest { id, labels } = request.into_inner();
        let lease = self
            .0
            .blocking(move |daemon| lease::create(&daemon.metadata, &scope, &id, labels))
            .await?;
        Ok(Response::new(CreateResponse { lease: Some(lease) }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let DeleteRequest { id, sync } = request.into_inner();
        self.0
            .blocking(move |daemon| {
                lease::delete(&daemon.metadata, &scope, &id)?;
                if sync {
                    gc::collect(daemon).map(drop)
                } else {
                    Ok(())
                }
            })
            .await?;
        self.0.garbage.notify_one();
        Ok(Response::new(()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut leases = self
            .0
            .blocking(move |daemon| lease::list(&daemon.metadata, &scope))
            .await?;
        leases.retain(|lease| filters.matches(lease));
        Ok(Response::new(ListResponse { leases }))
    }

    async fn add_resource(&self, request: Request<AddResourceRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let AddResourceRequest { id, resource } = request.into_inner();
        let resource = required(resource, "resource")?;
        self.0
            .blocking(move |daemon| lease::add_resource(&daemon.metadata, &scope, &id, &resource))
            .await?;
        Ok(Response::new(()))
    }

    async fn delete_resource(&self, request: Request<DeleteResourceRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let DeleteResourceRequest { id, resource } = request.into_inner();
        let resource = required(resource, "resource")?;
        self.0
            .blocking(move |daemon| lease::delete_resource(&daemon.metadata, &scope, &id, &resource))
            .await?;
        self.0.garbage.notify_one();
        Ok(Response::new(()))
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let scope = Scope::of(&request)?;
        let id = request.into_inner().id;
        let resources = self
            .0
            .blocking(move |daemon| lease::resources(&daemon.metadata, &scope, &id))
            .await?;
        Ok(Response::new(ListResourcesResponse { resources }))
    }
}
