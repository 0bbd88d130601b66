//! The Namespaces service. The calls act on the namespaces they name; none is required in the header.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wharf_proto::{
    any,
    containerd::{
        events::{NamespaceCreate, NamespaceDelete, NamespaceUpdate},
        services::namespaces::v1::{
            CreateNamespaceRequest, CreateNamespaceResponse, DeleteNamespaceRequest, GetNamespaceRequest,
            GetNamespaceResponse, ListNamespacesRequest, ListNamespacesResponse, UpdateNamespaceRequest,
            UpdateNamespaceResponse, namespaces_server,
        },
    },
};

use super::{paths, required};
use crate::{
    daemon::Daemon,
    filter::{self, Fields, Filters},
    namespace::{self, Namespace},
};

/// The service.
pub struct Namespaces(pub Arc<Daemon>);

impl Fields for Namespace {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["name"] => Some(self.name.clone()),
            ["labels", rest @ ..] => filter::label(&self.labels, rest),
            _ => None,
        }
    }
}

#[tonic::async_trait]
impl namespaces_server::Namespaces for Namespaces {
    async fn get(
        &self,
        request: Request<GetNamespaceRequest>,
    ) -> Result<Response<GetNamespaceResponse>, Status> {
        let name = request.into_inner().name;
        let namespace = self
            .0
            .blocking(move |daemon| namespace::get(&daemon.metadata, &name))
            .await?;
        Ok(Response::new(GetNamespaceResponse {
            namespace: Some(namespace),
        }))
    }

    async fn list(
        &self,
        request: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        let filters = Filters::parse(&[request.into_inner().filter])?;
        let mut namespaces = self
            .0
            .blocking(|daemon| namespace::list(&daemon.metadata))
            .await?;
        namespaces.retain(|namespace| filters.matches(namespace));
        Ok(Response::new(ListNamespacesResponse { namespaces }))
    }

    async fn create(
        &self,
        request: Request<CreateNamespaceRequest>,
    ) -> Result<Response<CreateNamespaceResponse>, Status> {
        let row = required(request.into_inner().namespace, "namespace")?;
        let row = self
            .0
            .blocking(move |daemon| namespace::create(&daemon.metadata, row))
            .await?;
        let event = NamespaceCreate {
            name: row.name.clone(),
            labels: row.labels.clone(),
        };
        self.0
            .events
            .publish(&row.name, "/namespaces/create", any::pack(&event));
        Ok(Response::new(CreateNamespaceResponse { namespace: Some(row) }))
    }

    async fn update(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Result<Response<UpdateNamespaceResponse>, Status> {
        let request = request.into_inner();
        let new = required(request.namespace, "namespace")?;
        let paths = paths(request.update_mask);
        let row = self
            .0
            .blocking(move |daemon| {
                namespace::update(&daemon.metadata, &new.name, |labels| {
                    super::mask_labels(labels, &new.labels, &paths, &format!("namespace {:?}", new.name))
                })
            })
            .await?;
        let event = NamespaceUpdate {
            name: row.name.clone(),
            labels: row.labels.clone(),
        };
        self.0
            .events
            .publish(&row.name, "/namespaces/update", any::pack(&event));
        Ok(Response::new(UpdateNamespaceResponse { namespace: Some(row) }))
    }

    async fn delete(&self, request: Request<DeleteNamespaceRequest>) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        let event = NamespaceDelete { name: name.clone() };
        let deleted = name.clone();
        self.0
            .blocking(move |daemon| namespace::delete(&daemon.metadata, &deleted))
            .await?;
        self.0
            .events
            .publish(&name, "/namespaces/delete", any::pack(&event));
        Ok(Response::new(()))
    }
}
