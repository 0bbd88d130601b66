//! Calls on a sandbox, whose shim is that of the container in it; and what each promises.

use prost_types::Any;
use tonic::{Code, Status};
use wharf_proto::any::RUNTIME_SPEC_URL;
use wharf_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use wharf_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, container::Runtime,
};
use wharf_proto::containerd::services::sandbox::v1::controller_client::ControllerClient;
use wharf_proto::containerd::services::sandbox::v1::store_client::StoreClient;
use wharf_proto::containerd::services::sandbox::v1::{
    ControllerCreateRequest, ControllerShutdownRequest, ControllerStartRequest, ControllerStatusRequest,
    ControllerStopRequest, ControllerWaitRequest, StoreCreateRequest, StoreDeleteRequest, StoreGetRequest,
};
use wharf_proto::containerd::services::tasks::v1::CreateTaskRequest;
use wharf_proto::containerd::types::{Sandbox, sandbox};

use crate::check::{Progress, found, presence};
use crate::instance::Client;
use crate::life::{ID, Step, cgroup, tasks};
use crate::subject::Subject;

const POD: &str = "p";
const RUNTIME: &str = "io.containerd.runc.v2";

/// Does `step`, one of this file's.
pub(crate) async fn once(
    client: &Client,
    subject: &Subject,
    namespace: &str,
    step: Step,
) -> Result<(), Status> {
    match step {
        Step::StorePod => StoreClient::new(client.channel.clone())
            .create(client.scoped(StoreCreateRequest {
                sandbox: Some(record()),
            }))
            .await
            .map(drop),
        Step::CreatePod => controller(client)
            .create(client.scoped(ControllerCreateRequest {
                sandbox_id: POD.into(),
                sandbox: Some(record()),
                sandboxer: "shim".into(),
                ..ControllerCreateRequest::default()
            }))
            .await
            .map(drop),
        Step::StartPod => controller(client)
            .start(client.scoped(ControllerStartRequest {
                sandbox_id: POD.into(),
                sandboxer: "shim".into(),
            }))
            .await
            .map(drop),
        Step::CreatePodContainer => create_container(client, subject, namespace, POD).await,
        Step::CreateInPod => tasks(client)
            .create(client.scoped(CreateTaskRequest {
                container_id: ID.into(),
                ..CreateTaskRequest::default()
            }))
            .await
            .map(drop),
        Step::StopPod => controller(client)
            .stop(client.scoped(ControllerStopRequest {
                sandbox_id: POD.into(),
                sandboxer: "shim".into(),
                ..ControllerStopRequest::default()
            }))
            .await
            .map(drop),
        Step::WaitPod => controller(client)
            .wait(client.scoped(ControllerWaitRequest {
                sandbox_id: POD.into(),
                sandboxer: "shim".into(),
            }))
            .await
            .map(drop),
        Step::ShutdownPod => shutdown(client).await,
        Step::DeletePod => StoreClient::new(client.channel.clone())
            .delete(client.scoped(StoreDeleteRequest {
                sandbox_id: POD.into(),
            }))
            .await
            .map(drop),
        other => unreachable!("{other:?} is none of the sandbox's"),
    }
}

fn controller(client: &Client) -> ControllerClient<tonic::transport::Channel> {
    ControllerClient::new(client.channel.clone())
}

fn record() -> Sandbox {
    Sandbox {
        sandbox_id: POD.into(),
        runtime: Some(sandbox::Runtime {
            name: RUNTIME.into(),
            options: None,
        }),
        spec: Some(Any {
            type_url: RUNTIME_SPEC_URL.into(),
            value: b"{\"ociVersion\": \"1.0.2\"}".to_vec(),
        }),
        sandboxer: "shim".into(),
        ..Sandbox::default()
    }
}

/// A container on a plain directory.
pub(crate) async fn create_container(
    client: &Client,
    subject: &Subject,
    namespace: &str,
    sandbox: &str,
) -> Result<(), Status> {
    let mut spec = subject.spec(&cgroup(namespace));
    spec["root"]["path"] = subject.directory.display().to_string().into();
    let container = Container {
        id: ID.into(),
        runtime: Some(Runtime {
            name: RUNTIME.into(),
            options: None,
        }),
        spec: Some(Any {
            type_url: RUNTIME_SPEC_URL.into(),
            value: spec.to_string().into_bytes(),
        }),
        sandbox: sandbox.into(),
        ..Container::default()
    };
    ContainersClient::new(client.channel.clone())
        .create(client.scoped(CreateContainerRequest {
            container: Some(container),
        }))
        .await
        .map(drop)
}

/// Makes an end of the sandbox.
async fn shutdown(client: &Client) -> Result<(), Status> {
    controller(client)
        .shutdown(client.scoped(ControllerShutdownRequest {
            sandbox_id: POD.into(),
            sandboxer: "shim".into(),
        }))
        .await
        .map(drop)
}

/// Makes an end of the sandbox, if there is one.
pub(crate) async fn end(client: &Client) -> Result<(), Status> {
    match shutdown(client).await {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

/// Compares what the services of sandboxes say with what was acknowledged.
pub(crate) async fn check(client: &Client, progress: Progress) -> Result<(), String> {
    let record = StoreClient::new(client.channel.clone())
        .get(client.scoped(StoreGetRequest {
            sandbox_id: POD.into(),
        }))
        .await;
    presence(
        "the sandbox's record",
        found(record),
        progress,
        Step::StorePod,
        Step::DeletePod,
    )?;
    if progress.power {
        return Ok(());
    }
    let status = controller(client)
        .status(client.scoped(ControllerStatusRequest {
            sandbox_id: POD.into(),
            sandboxer: "shim".into(),
            verbose: false,
        }))
        .await;
    // One that is not there has ended, says containerd, and has no state.
    let state = status.map(|status| status.into_inner().state);
    let there = state.as_ref().map(|state| !state.is_empty());
    presence(
        "the sandbox",
        there.map_err(Clone::clone),
        progress,
        Step::CreatePod,
        Step::ShutdownPod,
    )?;
    if progress.must(Step::StartPod, Step::StopPod) && state.is_ok_and(|state| state != "SANDBOX_READY") {
        return Err("the sandbox is not ready any more".into());
    }
    Ok(())
}
