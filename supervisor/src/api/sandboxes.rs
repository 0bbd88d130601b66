//! The two services of sandboxes: Store, their records, and Controller, their lives.
//!
//! Refuses controllers (`sandboxer`) but `shim`, and changes of a sandbox that runs.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wharf_proto::any;
use wharf_proto::containerd::events::{SandboxCreate, SandboxStart};
use wharf_proto::containerd::services::sandbox::v1::{
    ControllerCreateRequest, ControllerCreateResponse, ControllerMetricsRequest, ControllerMetricsResponse,
    ControllerPlatformRequest, ControllerPlatformResponse, ControllerShutdownRequest,
    ControllerShutdownResponse, ControllerStartRequest, ControllerStartResponse, ControllerStatusRequest,
    ControllerStatusResponse, ControllerStopRequest, ControllerStopResponse, ControllerUpdateRequest,
    ControllerUpdateResponse, ControllerWaitRequest, ControllerWaitResponse, StoreCreateRequest,
    StoreCreateResponse, StoreDeleteRequest, StoreDeleteResponse, StoreGetRequest, StoreGetResponse,
    StoreListRequest, StoreListResponse, StoreUpdateRequest, StoreUpdateResponse, controller_server,
    store_server,
};

use super::required;
use crate::{
    daemon::Daemon,
    error::{Error, Kind, Result as StoreResult},
    filter::Filters,
    identifier,
    namespace::Scope,
    sandbox::{self, Create},
    task::Bootstrap,
    time,
};

/// The name of the one controller.
const CONTROLLER: &str = "shim";

/// The records.
pub struct Store(pub Arc<Daemon>);

/// The lives.
pub struct Controller(pub Arc<Daemon>);

#[tonic::async_trait]
impl store_server::Store for Store {
    async fn create(
        &self,
        request: Request<StoreCreateRequest>,
    ) -> Result<Response<StoreCreateResponse>, Status> {
        let scope = Scope::of(&request)?;
        let new = required(request.into_inner().sandbox, "sandbox")?;
        let created = self
            .0
            .blocking(move |daemon| sandbox::create(daemon, &scope, new))
            .await?;
        Ok(Response::new(StoreCreateResponse {
            sandbox: Some(created),
        }))
    }

    async fn update(
        &self,
        request: Request<StoreUpdateRequest>,
    ) -> Result<Response<StoreUpdateResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        let new = required(request.sandbox, "sandbox")?;
        let updated = self
            .0
            .blocking(move |daemon| sandbox::update(daemon, &scope, &new, &request.fields))
            .await?;
        Ok(Response::new(StoreUpdateResponse {
            sandbox: Some(updated),
        }))
    }

    async fn delete(
        &self,
        request: Request<StoreDeleteRequest>,
    ) -> Result<Response<StoreDeleteResponse>, Status> {
        let scope = Scope::of(&request)?;
        let id = request.into_inner().sandbox_id;
        self.0
            .blocking(move |daemon| sandbox::delete(daemon, &scope, &id))
            .await?;
        Ok(Response::new(StoreDeleteResponse {}))
    }

    async fn list(&self, request: Request<StoreListRequest>) -> Result<Response<StoreListResponse>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.into_inner().filters)?;
        let mut list = self
            .0
            .blocking(move |daemon| sandbox::list(daemon, &scope))
            .await?;
        list.retain(|sandbox| filters.matches(sandbox));
        Ok(Response::new(StoreListResponse { list }))
    }

    async fn get(&self, request: Request<StoreGetRequest>) -> Result<Response<StoreGetResponse>, Status> {
        let scope = Scope::of(&request)?;
        let id = request.into_inner().sandbox_id;
        let found = self
            .0
            .blocking(move |daemon| sandbox::get(daemon, &scope, &id))
            .await?;
        Ok(Response::new(StoreGetResponse { sandbox: Some(found) }))
    }
}

/// Checks that the controller is the one there is.
fn controller(name: &str) -> StoreResult<()> {
    match name {
        CONTROLLER => Ok(()),
        "" => Err(Error::invalid("sandbox controller name can not be empty")),
        other => Err(Error::not_found(format!(
            "failed to get sandbox controller by {other}"
        ))),
    }
}

/// Where containerd's clients connect to a shim.
fn address(endpoint: &Bootstrap) -> String {
    format!("{}+{}", endpoint.protocol, endpoint.address)
}

#[tonic::async_trait]
impl controller_server::Controller for Controller {
    async fn create(
        &self,
        request: Request<ControllerCreateRequest>,
    ) -> Result<Response<ControllerCreateResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        controller(&request.sandboxer)?;
        let record = request.sandbox.unwrap_or_default();
        let id = match record.sandbox_id.as_str() {
            "" => request.sandbox_id,
            named if request.sandbox_id.is_empty() || request.sandbox_id == named => named.to_owned(),
            named => {
                return Err(Error::invalid(format!(
                    "sandbox_id is {:?}, the sandbox's own is {named:?}",
                    request.sandbox_id
                ))
                .into());
            }
        };
        identifier::validate(&id).map_err(|error| error.context("invalid sandbox ID"))?;
        let runtime = record.runtime.unwrap_or_default();
        let create = Create {
            id: id.clone(),
            runtime: runtime.name,
            runtime_options: runtime.options.filter(|options| !options.value.is_empty()),
            spec: record.spec.unwrap_or_default().value,
            options: request.options,
            rootfs: request.rootfs,
            netns_path: request.netns_path,
            annotations: request.annotations,
        };
        self.0.sandboxes.create(&scope.namespace, create).await?;
        let event = SandboxCreate {
            sandbox_id: id.clone(),
        };
        self.0
            .events
            .publish(&scope.namespace, "/sandboxes/create", any::pack(&event));
        Ok(Response::new(ControllerCreateResponse { sandbox_id: id }))
    }

    async fn start(
        &self,
        request: Request<ControllerStartRequest>,
    ) -> Result<Response<ControllerStartResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        controller(&request.sandboxer)?;
        let (started, endpoint) = self
            .0
            .sandboxes
            .start(&scope.namespace, &request.sandbox_id)
            .await?;
        let event = SandboxStart {
            sandbox_id: request.sandbox_id.clone(),
        };
        self.0
            .events
            .publish(&scope.namespace, "/sandboxes/start", any::pack(&event));
        Ok(Response::new(ControllerStartResponse {
            sandbox_id: request.sandbox_id,
            pid: started.pid,
            created_at: started.created_at,
            address: address(&endpoint),
            version: endpoint.version,
            spec: started.spec,
            ..ControllerStartResponse::default()
        }))
    }

    async fn platform(
        &self,
        request: Request<ControllerPlatformRequest>,
    ) -> Result<Response<ControllerPlatformResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        controller(&request.sandboxer)?;
        let platform = self
            .0
            .sandboxes
            .platform(&scope.namespace, &request.sandbox_id)
            .await?;
        Ok(Response::new(ControllerPlatformResponse { platform }))
    }

    async fn stop(
        &self,
        request: Request<ControllerStopRequest>,
    ) -> Result<Response<ControllerStopResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        controller(&request.sandboxer)?;
        self.0
            .sandboxes
            .stop(&scope.namespace, &request.sandbox_id, request.timeout_secs)
            .await?;
        Ok(Response::new(ControllerStopResponse {}))
    }

    async fn wait(
        &self,
        request: Request<ControllerWaitRequest>,
    ) -> Result<Response<ControllerWaitResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        controller(&request.sandboxer)?;
        let exit = self
            .0
            .sandboxes
            .wait(&scope.namespace, &request.sandbox_id)
            .await?;
        Ok(Response::new(ControllerWaitResponse {
            exit_status: exit.exit_status,
            exited_at: exit.exited_at,
        }))
    }

    async fn status(
        &self,
        request: Request<ControllerStatusRequest>,
    ) -> Result<Response<ControllerStatusResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        controller(&request.sandboxer)?;
        let status = self
            .0
            .sandboxes
            .status(&scope.namespace, &request.sandbox_id, request.verbose)
            .await;
        let answer = match status {
            // As containerd: a sandbox that is not there has ended.
            Err(error) if error.is_not_found() => ControllerStatusResponse {
                sandbox_id: request.sandbox_id,
                exited_at: Some(time::now()),
                ..ControllerStatusResponse::default()
            },
            status => {
                let (status, endpoint) = status?;
                ControllerStatusResponse {
                    sandbox_id: status.sandbox_id,
                    pid: status.pid,
                    state: status.state,
                    info: status.info,
                    created_at: status.created_at,
                    exited_at: status.exited_at,
                    extra: status.extra,
                    address: address(&endpoint),
                    version: endpoint.version,
                }
            }
        };
        Ok(Response::new(answer))
    }

    async fn shutdown(
        &self,
        request: Request<ControllerShutdownRequest>,
    ) -> Result<Response<ControllerShutdownResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        controller(&request.sandboxer)?;
        self.0
            .sandboxes
            .shutdown(&scope.namespace, &request.sandbox_id)
            .await?;
        Ok(Response::new(ControllerShutdownResponse {}))
    }

    async fn metrics(
        &self,
        request: Request<ControllerMetricsRequest>,
    ) -> Result<Response<ControllerMetricsResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        controller(&request.sandboxer)?;
        let metrics = self
            .0
            .sandboxes
            .metrics(&scope.namespace, &request.sandbox_id)
            .await?;
        Ok(Response::new(ControllerMetricsResponse { metrics }))
    }

    async fn update(
        &self,
        request: Request<ControllerUpdateRequest>,
    ) -> Result<Response<ControllerUpdateResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        controller(&request.sandboxer)?;
        if request.sandbox.is_none() {
            return Err(Error::new(Kind::Unknown, "sandbox can not be nil").into());
        }
        self.0
            .sandboxes
            .update(&scope.namespace, &request.sandbox_id, &request.fields)?;
        Ok(Response::new(ControllerUpdateResponse {}))
    }
}
