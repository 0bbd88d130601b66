//! Bringing one container to what it is to be, by the calls that a client would make.

use std::sync::Arc;

use rustix::process::Signal;
use serde::Deserialize;
use tonic::Request;
use wharf_proto::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteTaskRequest, KillRequest, StartRequest, tasks_server::Tasks as _,
};

use super::{COUNT, LOG_URI};
use crate::{
    api,
    container::{self, Container},
    daemon::Daemon,
    error::{Error, Result},
    namespace::{NAMESPACE_HEADER, Scope},
    snapshot::Mount,
};

/// What is needed of the spec.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    process: Process,
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Process {
    terminal: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    mount_label: String,
}

/// Starts the container anew, and counts it.
pub(super) async fn start(
    daemon: &Arc<Daemon>,
    scope: &Scope,
    container: &Container,
    count: u64,
) -> Result<()> {
    let spec = container.spec.as_ref().map_or(&[][..], |spec| &spec.value);
    let spec: Spec = serde_json::from_slice(spec).map_err(|error| Error::unknown("read the spec", error))?;
    let output = container.labels.get(LOG_URI).cloned().unwrap_or_default();
    let (counted, id) = (scope.clone(), container.id.clone());
    daemon
        .blocking(move |daemon| {
            container::update(daemon, &counted, &id, |container| {
                container.labels.insert(COUNT.to_owned(), count.to_string());
                Ok(())
            })
        })
        .await?;
    stop(daemon, scope, &container.id).await?;
    let create = CreateTaskRequest {
        container_id: container.id.clone(),
        rootfs: rootfs(daemon, scope, container, &spec.linux.mount_label).await?,
        terminal: spec.process.terminal,
        stderr: if spec.process.terminal {
            String::new()
        } else {
            output.clone()
        },
        stdout: output,
        ..CreateTaskRequest::default()
    };
    let tasks = api::tasks(daemon);
    tasks.create(scoped(scope, create)?).await.map_err(failed)?;
    let start = StartRequest {
        container_id: container.id.clone(),
        exec_id: String::new(),
    };
    if let Err(status) = tasks.start(scoped(scope, start)?).await {
        let error = failed(status);
        return Err(match stop(daemon, scope, &container.id).await {
            Ok(()) => error,
            Err(second) => error.context(second),
        });
    }
    Ok(())
}

/// Ends the container's task, if it has one, and deletes it.
pub(super) async fn stop(daemon: &Arc<Daemon>, scope: &Scope, id: &str) -> Result<()> {
    let Ok(task) = daemon.tasks.get(&scope.namespace, id) else {
        return Ok(());
    };
    let tasks = api::tasks(daemon);
    let kill = KillRequest {
        container_id: id.to_owned(),
        signal: Signal::KILL.as_raw().cast_unsigned(),
        all: true,
        ..KillRequest::default()
    };
    // One that has ended cannot be killed, and need not be.
    if let Ok(_killed) = tasks.kill(scoped(scope, kill)?).await {
        task.wait().await?;
    }
    let delete = DeleteTaskRequest {
        container_id: id.to_owned(),
    };
    match tasks.delete(scoped(scope, delete)?).await {
        Err(status) if status.code() != tonic::Code::NotFound => Err(failed(status)),
        _ => Ok(()),
    }
}

/// The mounts of the container's snapshot, if it has one.
async fn rootfs(
    daemon: &Arc<Daemon>,
    scope: &Scope,
    container: &Container,
    mount_label: &str,
) -> Result<Vec<Mount>> {
    if container.snapshot_key.is_empty() {
        return Ok(Vec::new());
    }
    let (scope, snapshotter) = (scope.clone(), container.snapshotter.clone());
    let key = container.snapshot_key.clone();
    let mut mounts = daemon
        .blocking(move |daemon| daemon.snapshots.mounts(&scope, &snapshotter, &key))
        .await?;
    if !mount_label.is_empty() {
        for mount in &mut mounts {
            mount.options.push(format!("context=\"{mount_label}\""));
        }
    }
    Ok(mounts)
}

fn scoped<T>(scope: &Scope, message: T) -> Result<Request<T>> {
    let mut request = Request::new(message);
    let namespace = scope
        .namespace
        .parse()
        .map_err(|_| Error::invalid(format!("namespace {:?} in a header", scope.namespace)))?;
    request.metadata_mut().insert(NAMESPACE_HEADER, namespace);
    Ok(request)
}

fn failed(status: tonic::Status) -> Error {
    Error::unknown("restart", status)
}
