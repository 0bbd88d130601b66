//! The engine's only door to the supervisor: containerd's gRPC API.
//!
//! Owns the connection, the namespace header and the translation of gRPC codes into [`Kind`]s. Any containerd works:
//! the daemon's own supervisor, embedded in this process, is reached through the same socket as a foreign one.
//! Refuses: policy; every method is one call.

mod transfer;

pub use transfer::{ProgressEvent, RegistryAuth, Source};

use crate::error::{Error, Kind};
use prost_types::Any;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tonic::Code;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use wharf_proto::containerd::events::TaskOom;
use wharf_proto::containerd::services::containers::v1::{
    self as containers, containers_client::ContainersClient,
};
use wharf_proto::containerd::services::content::v1::{self as content, content_client::ContentClient};
use wharf_proto::containerd::services::events::v1::{self as events, events_client::EventsClient};
use wharf_proto::containerd::services::images::v1::{self as images, images_client::ImagesClient};
use wharf_proto::containerd::services::namespaces::v1::{
    self as namespaces, namespaces_client::NamespacesClient,
};
use wharf_proto::containerd::services::snapshots::v1::{
    self as snapshots, snapshots_client::SnapshotsClient,
};
use wharf_proto::containerd::services::tasks::v1::{self as tasks, tasks_client::TasksClient};
use wharf_proto::containerd::services::version::v1::version_client::VersionClient;

pub use wharf_proto::containerd::services::containers::v1::Container as ContainerRow;
pub use wharf_proto::containerd::services::images::v1::Image as ImageRow;
pub use wharf_proto::containerd::types::{Descriptor, Mount, Platform};
pub use wharf_proto::containerd::v1::types::Status as TaskStatus;

/// The containerd namespace of everything the engine makes.
pub const NAMESPACE: &str = "wharf";

/// The largest blob that is read into memory: manifests and image configurations are far smaller.
pub const MAX_DOCUMENT: i64 = 8 << 20;

/// A failed call.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {object}: {message}")]
pub struct CallError {
    operation: &'static str,
    object: String,
    code: Code,
    message: String,
}

impl CallError {
    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// Whether the object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.code == Code::AlreadyExists
    }

    /// Whether the supervisor could not be reached, or is going away.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::Cancelled | Code::Unknown)
    }

    /// What the other side said.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn other(operation: &'static str, object: &str, message: impl std::fmt::Display) -> Self {
        Self {
            operation,
            object: object.to_owned(),
            code: Code::Internal,
            message: message.to_string(),
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        let kind = match error.code {
            Code::NotFound => Kind::NotFound,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Kind::Conflict,
            Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
            Code::Unimplemented => Kind::NotImplemented,
            _ => Kind::System,
        };
        Self::new(kind, error.to_string())
    }
}

/// The result of a call.
pub type CallResult<T> = Result<T, CallError>;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its status, or 128 + the signal that killed it.
    pub status: u32,
    /// When.
    pub at: SystemTime,
}

/// What a task's process does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskState {
    /// The pid on the host.
    pub pid: u32,
    /// Where it is in its life.
    pub status: TaskStatus,
    /// How it ended, when it has.
    pub exit: Option<Exit>,
}

/// The stdio of a process: URIs as the shim understands them; empty is nothing.
#[derive(Debug, Clone, Default)]
pub struct StdioUris {
    /// A FIFO.
    pub stdin: String,
    /// A FIFO or a `json-file://` log.
    pub stdout: String,
    /// The same; empty with a terminal.
    pub stderr: String,
    /// Whether the process gets a terminal.
    pub terminal: bool,
}

#[derive(Debug, Clone)]
struct Scope {
    namespace: MetadataValue<Ascii>,
}

impl Interceptor for Scope {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request
            .metadata_mut()
            .insert("containerd-namespace", self.namespace.clone());
        Ok(request)
    }
}

type Scoped = InterceptedService<Channel, Scope>;

/// A connection to a supervisor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Scoped,
}

impl Client {
    /// Prepares a connection to the containerd socket at `address`; the first call opens it, and a broken one is opened
    /// again.
    pub fn new(address: &Path) -> Self {
        let path: PathBuf = address.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        // The URI is never looked up: the connector knows the socket.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        let scope = Scope {
            namespace: MetadataValue::from_static(NAMESPACE),
        };
        Self {
            channel: InterceptedService::new(channel, scope),
        }
    }

    /// Waits until the supervisor answers, for at most `limit`; then makes sure that the engine's namespace exists.
    ///
    /// # Errors
    ///
    /// No answer in time, or the namespace cannot be made.
    pub async fn ready(&self, limit: Duration) -> CallResult<()> {
        tokio::time::timeout(limit, self.version())
            .await
            .map_err(|_| CallError::other("connect to", "the supervisor", "no answer in time"))??;
        let namespace = namespaces::Namespace {
            name: NAMESPACE.to_owned(),
            labels: Default::default(),
        };
        let created = NamespacesClient::new(self.channel.clone())
            .create(namespaces::CreateNamespaceRequest {
                namespace: Some(namespace),
            })
            .await
            .map_err(failed("create namespace", NAMESPACE));
        match created {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The version that the supervisor reports.
    ///
    /// # Errors
    ///
    /// It cannot be reached.
    pub async fn version(&self) -> CallResult<String> {
        let response = VersionClient::new(self.channel.clone())
            .version(())
            .await
            .map_err(failed("version of", "the supervisor"))?;
        Ok(response.into_inner().version)
    }

    /// The row of an image.
    ///
    /// # Errors
    ///
    /// [`CallError::is_not_found`] when there is none.
    pub async fn image(&self, name: &str) -> CallResult<ImageRow> {
        let response = ImagesClient::new(self.channel.clone())
            .get(images::GetImageRequest {
                name: name.to_owned(),
            })
            .await
            .map_err(failed("get image", name))?;
        response
            .into_inner()
            .image
            .ok_or_else(|| CallError::other("get image", name, "empty answer"))
    }

    /// The rows of all images.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn images(&self) -> CallResult<Vec<ImageRow>> {
        let response = ImagesClient::new(self.channel.clone())
            .list(images::ListImagesRequest { filters: Vec::new() })
            .await
            .map_err(failed("list images", ""))?;
        Ok(response.into_inner().images)
    }

    /// Makes a row for an image, or points the row it has to `image.target`.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn put_image(&self, image: ImageRow) -> CallResult<()> {
        let mut client = ImagesClient::new(self.channel.clone());
        let name = image.name.clone();
        let created = client
            .create(images::CreateImageRequest {
                image: Some(image.clone()),
                ..Default::default()
            })
            .await
            .map_err(failed("create image", &name));
        match created {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => client
                .update(images::UpdateImageRequest {
                    image: Some(image),
                    ..Default::default()
                })
                .await
                .map(drop)
                .map_err(failed("update image", &name)),
            Err(error) => Err(error),
        }
    }

    /// Removes the row of an image; what only it used is collected.
    ///
    /// # Errors
    ///
    /// [`CallError::is_not_found`] when there is none.
    pub async fn delete_image(&self, name: &str) -> CallResult<()> {
        ImagesClient::new(self.channel.clone())
            .delete(images::DeleteImageRequest {
                name: name.to_owned(),
                sync: true,
                ..Default::default()
            })
            .await
            .map(drop)
            .map_err(failed("delete image", name))
    }

    /// The bytes of a blob, at most [`MAX_DOCUMENT`] of them.
    ///
    /// # Errors
    ///
    /// The blob does not exist or is larger than that.
    pub async fn document(&self, digest: &str) -> CallResult<Vec<u8>> {
        let mut client = ContentClient::new(self.channel.clone());
        let mut stream = client
            .read(content::ReadContentRequest {
                digest: digest.to_owned(),
                offset: 0,
                size: 0,
            })
            .await
            .map_err(failed("read content", digest))?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(failed("read content", digest))? {
            if bytes.len() + part.data.len() > usize::try_from(MAX_DOCUMENT).unwrap_or(usize::MAX) {
                let limit = format!("larger than the limit of {MAX_DOCUMENT} bytes");
                return Err(CallError::other("read content", digest, limit));
            }
            bytes.extend_from_slice(&part.data);
        }
        Ok(bytes)
    }

    /// Whether a blob is there.
    ///
    /// # Errors
    ///
    /// The call failed for another reason than that.
    pub async fn has_content(&self, digest: &str) -> CallResult<bool> {
        let info = ContentClient::new(self.channel.clone())
            .info(content::InfoRequest {
                digest: digest.to_owned(),
            })
            .await
            .map_err(failed("look up content", digest));
        match info {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

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

    /// Makes the row of a container.
    ///
    /// # Errors
    ///
    /// The id is taken, or the row is refused.
    pub async fn create_container(&self, row: ContainerRow) -> CallResult<()> {
        let id = row.id.clone();
        ContainersClient::new(self.channel.clone())
            .create(containers::CreateContainerRequest { container: Some(row) })
            .await
            .map(drop)
            .map_err(failed("create container", &id))
    }

    /// Removes the row of a container; one that is gone is fine.
    ///
    /// # Errors
    ///
    /// The call failed; a task that still exists is such a failure.
    pub async fn delete_container(&self, id: &str) -> CallResult<()> {
        let deleted = ContainersClient::new(self.channel.clone())
            .delete(containers::DeleteContainerRequest { id: id.to_owned() })
            .await
            .map_err(failed("delete container", id));
        absent_is_fine(deleted.map(drop))
    }

    /// The ids of all containers of the engine's namespace.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn container_ids(&self) -> CallResult<Vec<String>> {
        let response = ContainersClient::new(self.channel.clone())
            .list(containers::ListContainersRequest { filters: Vec::new() })
            .await
            .map_err(failed("list containers", ""))?;
        Ok(response
            .into_inner()
            .containers
            .into_iter()
            .map(|row| row.id)
            .collect())
    }

    /// The OCI spec of a container, as it was stored.
    ///
    /// # Errors
    ///
    /// The container does not exist, or its spec is not JSON.
    pub async fn container_spec(&self, id: &str) -> CallResult<serde_json::Value> {
        let response = ContainersClient::new(self.channel.clone())
            .get(containers::GetContainerRequest { id: id.to_owned() })
            .await
            .map_err(failed("get container", id))?;
        let spec = response
            .into_inner()
            .container
            .and_then(|row| row.spec)
            .unwrap_or_default();
        serde_json::from_slice(&spec.value).map_err(|error| CallError::other("read the spec of", id, error))
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

    /// Creates a container's task: its process exists and waits at the start gate. Returns the pid.
    ///
    /// # Errors
    ///
    /// What the shim or the runtime said.
    pub async fn create_task(
        &self,
        id: &str,
        rootfs: Vec<Mount>,
        stdio: StdioUris,
        options: Option<Any>,
    ) -> CallResult<u32> {
        let response = TasksClient::new(self.channel.clone())
            .create(tasks::CreateTaskRequest {
                container_id: id.to_owned(),
                rootfs,
                stdin: stdio.stdin,
                stdout: stdio.stdout,
                stderr: stdio.stderr,
                terminal: stdio.terminal,
                options,
                ..Default::default()
            })
            .await
            .map_err(failed("create task", id))?;
        Ok(response.into_inner().pid)
    }

    /// Starts a task (`exec` empty) or an exec; returns its pid.
    ///
    /// # Errors
    ///
    /// What the shim or the runtime said.
    pub async fn start_process(&self, id: &str, exec: &str) -> CallResult<u32> {
        let response = TasksClient::new(self.channel.clone())
            .start(tasks::StartRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
            })
            .await
            .map_err(failed("start task", id))?;
        Ok(response.into_inner().pid)
    }

    /// Adds a process to a running task.
    ///
    /// # Errors
    ///
    /// What the shim said.
    pub async fn exec(&self, id: &str, exec: &str, process: Any, stdio: StdioUris) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .exec(tasks::ExecProcessRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
                stdin: stdio.stdin,
                stdout: stdio.stdout,
                stderr: stdio.stderr,
                terminal: stdio.terminal,
                spec: Some(process),
            })
            .await
            .map(drop)
            .map_err(failed("exec in task", id))
    }

    /// What a task's process does now; `None` when there is no task.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn task(&self, id: &str) -> CallResult<Option<TaskState>> {
        let got = TasksClient::new(self.channel.clone())
            .get(tasks::GetRequest {
                container_id: id.to_owned(),
                exec_id: String::new(),
            })
            .await
            .map_err(failed("get task", id));
        let process = match got {
            Ok(response) => response.into_inner().process,
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        Ok(process.map(|process| TaskState {
            pid: process.pid,
            status: process.status(),
            exit: (process.status() == TaskStatus::Stopped).then(|| Exit {
                status: process.exit_status,
                at: time(process.exited_at),
            }),
        }))
    }

    /// Waits until a task (`exec` empty) or an exec has ended.
    ///
    /// # Errors
    ///
    /// There is none, or the connection broke; nothing is known about the process then.
    pub async fn wait(&self, id: &str, exec: &str) -> CallResult<Exit> {
        let response = TasksClient::new(self.channel.clone())
            .wait(tasks::WaitRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
            })
            .await
            .map_err(failed("wait for task", id))?
            .into_inner();
        Ok(Exit {
            status: response.exit_status,
            at: time(response.exited_at),
        })
    }

    /// Sends a signal to a task (`exec` empty) or an exec.
    ///
    /// # Errors
    ///
    /// [`CallError::is_not_found`] when the process is gone.
    pub async fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .kill(tasks::KillRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
                signal,
                all,
            })
            .await
            .map(drop)
            .map_err(failed("kill task", id))
    }

    /// Deletes a task that has ended, or was never started; one that is gone is fine.
    ///
    /// # Errors
    ///
    /// It still runs.
    pub async fn delete_task(&self, id: &str) -> CallResult<()> {
        let deleted = TasksClient::new(self.channel.clone())
            .delete(tasks::DeleteTaskRequest {
                container_id: id.to_owned(),
            })
            .await
            .map_err(failed("delete task", id));
        absent_is_fine(deleted.map(drop))
    }

    /// Deletes an exec that has ended; one that is gone is fine.
    ///
    /// # Errors
    ///
    /// It still runs.
    pub async fn delete_exec(&self, id: &str, exec: &str) -> CallResult<()> {
        let deleted = TasksClient::new(self.channel.clone())
            .delete_process(tasks::DeleteProcessRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
            })
            .await
            .map_err(failed("delete exec", exec));
        absent_is_fine(deleted.map(drop))
    }

    /// Closes the stdin of a process: once what was written has been read, it sees the end.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub async fn close_stdin(&self, id: &str, exec: &str) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .close_io(tasks::CloseIoRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
                stdin: true,
            })
            .await
            .map(drop)
            .map_err(failed("close stdin of", id))
    }

    /// Sets the size of a process's terminal, in characters.
    ///
    /// # Errors
    ///
    /// The process is gone or has no terminal.
    pub async fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .resize_pty(tasks::ResizePtyRequest {
                container_id: id.to_owned(),
                exec_id: exec.to_owned(),
                width,
                height,
            })
            .await
            .map(drop)
            .map_err(failed("resize terminal of", id))
    }

    /// Freezes a task.
    ///
    /// # Errors
    ///
    /// What the runtime said.
    pub async fn pause(&self, id: &str) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .pause(tasks::PauseTaskRequest {
                container_id: id.to_owned(),
            })
            .await
            .map(drop)
            .map_err(failed("pause task", id))
    }

    /// Thaws a task.
    ///
    /// # Errors
    ///
    /// What the runtime said.
    pub async fn resume(&self, id: &str) -> CallResult<()> {
        TasksClient::new(self.channel.clone())
            .resume(tasks::ResumeTaskRequest {
                container_id: id.to_owned(),
            })
            .await
            .map(drop)
            .map_err(failed("resume task", id))
    }

    /// Calls `notice` with the id of each container of the engine in which the kernel kills for want of memory, until
    /// the connection breaks.
    ///
    /// # Errors
    ///
    /// The connection broke: notices may have been missed.
    pub async fn out_of_memory(&self, mut notice: impl FnMut(&str)) -> CallResult<()> {
        let broke = failed("subscribe to", "events");
        let mut stream = EventsClient::new(self.channel.clone())
            .subscribe(events::SubscribeRequest {
                filters: vec![format!("topic==\"/tasks/oom\",namespace=={NAMESPACE}")],
            })
            .await
            .map_err(failed("subscribe to", "events"))?
            .into_inner();
        let mut next = stream.message().await;
        while let Ok(Some(envelope)) = next {
            if let Some(Ok(Some(event))) = envelope.event.as_ref().map(wharf_proto::any::unpack::<TaskOom>) {
                notice(&event.container_id);
            }
            next = stream.message().await;
        }
        next.map(drop).map_err(broke)
    }

    /// The pids of a task on the host.
    ///
    /// # Errors
    ///
    /// What the shim said.
    pub async fn pids(&self, id: &str) -> CallResult<Vec<u32>> {
        let response = TasksClient::new(self.channel.clone())
            .list_pids(tasks::ListPidsRequest {
                container_id: id.to_owned(),
            })
            .await
            .map_err(failed("processes of task", id))?;
        Ok(response
            .into_inner()
            .processes
            .iter()
            .map(|process| process.pid)
            .collect())
    }
}

/// The supervisor in this process. Dropping it ends it; containers go on.
#[derive(Debug)]
pub struct Embedded {
    stop: tokio_util::sync::CancellationToken,
    served: tokio::task::JoinHandle<Result<(), wharf_supervisor::Error>>,
    address: PathBuf,
}

impl Embedded {
    /// Opens the supervisor's stores and serves its API on the socket `address`, for this engine and for everyone else
    /// who speaks containerd's API.
    ///
    /// # Errors
    ///
    /// Another process has the root open, or the socket cannot be made.
    pub async fn start(root: PathBuf, state: PathBuf, address: PathBuf) -> Result<Self, Error> {
        let failed = |error: wharf_supervisor::Error| Error::system(format!("start the supervisor: {error}"));
        let config = wharf_supervisor::Config {
            root,
            state,
            address: address.clone(),
            ..Default::default()
        };
        config.validate().map_err(failed)?;
        let supervisor = wharf_supervisor::Supervisor::open(config).await.map_err(failed)?;
        let listener = wharf_supervisor::Supervisor::listen(&address)
            .await
            .map_err(failed)?;
        let stop = tokio_util::sync::CancellationToken::new();
        let served = tokio::spawn(supervisor.serve(vec![listener], stop.clone().cancelled_owned()));
        Ok(Self {
            stop,
            served,
            address,
        })
    }

    /// Completes when the supervisor ends, which it does by itself only when it fails.
    pub async fn ended(&mut self) -> Error {
        match (&mut self.served).await {
            Ok(Ok(())) => Error::system("the supervisor ended"),
            Ok(Err(error)) => Error::system(format!("the supervisor ended: {error}")),
            Err(error) => Error::system(format!("the supervisor ended: {error}")),
        }
    }

    /// Ends the supervisor and removes its socket.
    ///
    /// # Errors
    ///
    /// It had failed, or the socket cannot be removed.
    pub async fn stop(self) -> Result<(), Error> {
        self.stop.cancel();
        let served = match self.served.await {
            Ok(served) => served.map_err(|error| Error::system(format!("stop the supervisor: {error}"))),
            Err(error) => Err(Error::system(format!("stop the supervisor: {error}"))),
        };
        let removed = match std::fs::remove_file(&self.address) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.address, error))
            }
            _ => Ok(()),
        };
        served.and(removed)
    }
}

fn failed(operation: &'static str, object: &str) -> impl FnOnce(tonic::Status) -> CallError {
    let object = object.to_owned();
    move |status| CallError {
        operation,
        object,
        code: status.code(),
        message: status.message().to_owned(),
    }
}

fn absent_is_fine(result: CallResult<()>) -> CallResult<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

fn time(stamp: Option<prost_types::Timestamp>) -> SystemTime {
    stamp
        .and_then(|stamp| SystemTime::try_from(stamp).ok())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
