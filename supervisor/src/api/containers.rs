//! The Containers service.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wharf_proto::containerd::services::containers::v1::{
    CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest, GetContainerRequest,
    GetContainerResponse, ListContainerMessage, ListContainersRequest, ListContainersResponse,
    UpdateContainerRequest, UpdateContainerResponse, containers_server,
};

use super::{Stream, mask_label, paths, required, stream};
use crate::{
    container::{self, Container},
    daemon::Daemon,
    error::{Error, Result as StoreResult},
    filter::Filters,
    namespace::Scope,
};

/// The service.
pub struct Containers(pub Arc<Daemon>);

impl Containers {
    async fn selected(&self, request: Request<ListContainersRequest>) -> Result<Vec<Container>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut containers = self
            .0
            .blocking(move |daemon| container::list(daemon, &scope))
            .await?;
        containers.retain(|container| filters.matches(container));
        Ok(containers)
    }
}

#[tonic::async_trait]
impl containers_server::Containers for Containers {
    async fn get(
        &self,
        request: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        let scope = Scope::of(&request)?;
        let id = request.into_inner().id;
        let container = self
            .0
            .blocking(move |daemon| container::get(daemon, &scope, &id))
            .await?;
        Ok(Response::new(GetContainerResponse {
            container: Some(container),
        }))
    }

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let containers = self.selected(request).await?;
        Ok(Response::new(ListContainersResponse { containers }))
    }

    type ListStreamStream = Stream<ListContainerMessage>;

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let containers = self.selected(request).await?;
        let messages = containers.into_iter().map(|container| ListContainerMessage {
            container: Some(container),
        });
        Ok(Response::new(stream(messages.collect())))
    }

    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let scope = Scope::of(&request)?;
        let container = required(request.into_inner().container, "container")?;
        let container = self
            .0
            .blocking(move |daemon| container::create(daemon, &scope, container))
            .await?;
        Ok(Response::new(CreateContainerResponse {
            container: Some(container),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Result<Response<UpdateContainerResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let new = required(request.container, "container")?;
        if new.id.is_empty() {
            return Err(Error::invalid("must specify a container id").into());
        }
        let paths = paths(request.update_mask);
        let container = self
            .0
            .blocking(move |daemon| {
                container::update(daemon, &scope, &new.id, |container| mask(container, &new, &paths))
            })
            .await?;
        Ok(Response::new(UpdateContainerResponse {
            container: Some(container),
        }))
    }

    async fn delete(&self, request: Request<DeleteContainerRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request)?;
        let id = request.into_inner().id;
        self.0
            .blocking(move |daemon| container::delete(daemon, &scope, &id))
            .await?;
        self.0.garbage.notify_one();
        Ok(Response::new(()))
    }
}

/// The fields that can change.
const MUTABLE: [&str; 5] = ["labels", "spec", "extensions", "image", "snapshotkey"];

/// Applies an update mask; an empty one replaces all fields that can change, and refuses a change of the others.
fn mask(container: &mut Container, new: &Container, paths: &[String]) -> StoreResult<()> {
    if paths.is_empty() {
        if container.snapshotter != new.snapshotter {
            return Err(Error::invalid("container.Snapshotter field is immutable"));
        }
        let name = |container: &Container| container.runtime.clone().unwrap_or_default().name;
        if name(container) != name(new) {
            return Err(Error::invalid("container.Runtime.Name field is immutable"));
        }
        return MUTABLE
            .iter()
            .try_for_each(|path| mask_field(container, new, path));
    }
    paths.iter().try_for_each(|path| mask_field(container, new, path))
}

fn mask_field(container: &mut Container, new: &Container, path: &str) -> StoreResult<()> {
    if mask_label(&mut container.labels, &new.labels, path) {
        return Ok(());
    }
    match (path, path.strip_prefix("extensions.")) {
        ("spec", _) => container.spec.clone_from(&new.spec),
        ("extensions", _) => container.extensions.clone_from(&new.extensions),
        ("image", _) => container.image.clone_from(&new.image),
        ("snapshotkey", _) => container.snapshot_key.clone_from(&new.snapshot_key),
        (_, Some(key)) => match new.extensions.get(key) {
            Some(value) => drop(container.extensions.insert(key.to_owned(), value.clone())),
            None => drop(container.extensions.remove(key)),
        },
        _ => {
            return Err(Error::invalid(format!(
                "cannot update {path:?} field on {:?}",
                container.id
            )));
        }
    }
    Ok(())
}
