//! The Tasks service.
//!
//! A checkpoint goes through a directory that the options name, or one of the daemon's own and the content store.

use std::sync::Arc;

use futures_util::StreamExt as _;
use prost_types::{Any, Timestamp};
use tonic::{Request, Response, Status};
use wharf_proto::any;
use wharf_proto::containerd::runc::v1::{CheckpointOptions, Options};
use wharf_proto::containerd::services::tasks::v1::tasks_server::Tasks;
use wharf_proto::containerd::services::tasks::v1::*;
use wharf_proto::containerd::task::v2 as shim;
use wharf_proto::containerd::types::{Descriptor, Metric};
use wharf_proto::containerd::v1::types::Process;

use crate::container;
use crate::content::Reader;
use crate::daemon::Daemon;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::filter::{Fields, Filters};
use crate::identifier;
use crate::mount;
use crate::namespace::Scope;
use crate::sandbox;
use crate::task::{Bootstrap, Create, STATE_TIMEOUT, Task, checkpoint};

/// How many shims a listing asks side by side.
const PARALLEL: usize = 64;

/// The end of what has not ended, as containerd tells it: Go's zero time, which clients take for none.
const NEVER: Timestamp = Timestamp {
    seconds: -62_135_596_800,
    nanos: 0,
};

/// The service over one daemon.
pub struct Service(pub Arc<Daemon>);

impl Service {
    /// The task a request is about. Without one, a missing container is reported before a missing task.
    async fn task<T>(&self, request: &Request<T>, id: &str) -> Result<Arc<Task>> {
        let scope = Scope::of(request)?;
        match self.0.tasks.get(&scope.namespace, id) {
            Ok(task) => Ok(task),
            Err(missing) => {
                self.container(&scope, id).await?;
                Err(missing)
            }
        }
    }

    /// The archive of a checkpoint.
    async fn archive(&self, scope: &Scope, archive: &Descriptor) -> Result<Reader> {
        if archive.media_type != checkpoint::IMAGES {
            return Err(Error::invalid(format!(
                "unsupported checkpoint type {:?}",
                archive.media_type
            )));
        }
        let digest: Digest = archive.digest.parse()?;
        let scope = scope.clone();
        self.0
            .blocking(move |daemon| daemon.content.reader(&scope, &digest))
            .await
    }

    /// The shim of a container's sandbox, the one that the request names if it does; `None` for a sandbox that nobody keeps
    /// a record of, as older clients make them.
    async fn sandbox(
        &self,
        scope: &Scope,
        id: &str,
        request: &CreateTaskRequest,
    ) -> Result<Option<Bootstrap>> {
        let given = endpoint(request)?;
        let (reading, named) = (scope.clone(), id.to_owned());
        let record = self
            .0
            .blocking(move |daemon| sandbox::get(daemon, &reading, &named))
            .await;
        match record {
            Ok(_) => match given {
                Some(given) => Ok(Some(given).filter(Bootstrap::is_shared)),
                None => self.0.sandboxes.endpoint(&scope.namespace, id),
            },
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn container(&self, scope: &Scope, id: &str) -> Result<container::Container> {
        let (scope, id) = (scope.clone(), id.to_owned());
        self.0
            .blocking(move |daemon| container::get(daemon, &scope, &id))
            .await
    }
}

#[tonic::async_trait]
impl Tasks for Service {
    async fn create(
        &self,
        request: Request<CreateTaskRequest>,
    ) -> Result<Response<CreateTaskResponse>, Status> {
        let scope = Scope::of(&request)?;
        let request = request.into_inner();
        // One row that was written a moment ago, as a rule, and a client waits: it is in memory, and no other thread is woken.
        let container = container::get(&self.0, &scope, &request.container_id)?;
        let runtime = container.runtime.unwrap_or_default();
        let checkpoint = restore_from(&request)?;
        let checkpoint_archive = match (&request.checkpoint, checkpoint.as_str()) {
            (Some(archive), "") => Some(self.archive(&scope, archive).await?),
            _ => None,
        };
        let sandbox = match container.sandbox.as_str() {
            "" => None,
            sandbox => self.sandbox(&scope, sandbox, &request).await?,
        };
        let rootfs = mount::activate(&self.0, &scope, &container.id, request.rootfs).await?;
        let create = Create {
            id: container.id,
            runtime: if request.runtime_path.is_empty() {
                runtime.name
            } else {
                request.runtime_path
            },
            spec: container.spec.unwrap_or_default().value,
            options: request
                .options
                .filter(|options| !options.value.is_empty())
                .or(runtime.options),
            rootfs,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
            checkpoint,
            checkpoint_archive,
            sandbox,
        };
        let pid = match self.0.tasks.create(&scope.namespace, create).await {
            Ok(pid) => pid,
            Err(error) => {
                // Those of a task that is there are in use.
                if error.kind() != crate::Kind::AlreadyExists {
                    mount::deactivate(&self.0, &scope, &request.container_id).await;
                }
                return Err(error.into());
            }
        };
        Ok(Response::new(CreateTaskResponse {
            container_id: request.container_id,
            pid,
        }))
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<StartResponse>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let request = request.into_inner();
        let start = shim::StartRequest {
            id: request.container_id,
            exec_id: request.exec_id,
        };
        let started: shim::StartResponse = task.call("Start", &start, None).await?;
        Ok(Response::new(StartResponse { pid: started.pid }))
    }

    async fn delete(&self, request: Request<DeleteTaskRequest>) -> Result<Response<DeleteResponse>, Status> {
        let scope = Scope::of(&request)?;
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let exit = self.0.tasks.delete(&task.namespace, &task.id).await?;
        mount::deactivate(&self.0, &scope, &task.id).await;
        Ok(Response::new(DeleteResponse {
            id: String::new(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
        }))
    }

    async fn delete_process(
        &self,
        request: Request<DeleteProcessRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let request = request.into_inner();
        if request.exec_id.is_empty() {
            // To a shim it would mean the task itself.
            return Err(Error::invalid("exec id cannot be empty").into());
        }
        let delete = shim::DeleteRequest {
            id: request.container_id,
            exec_id: request.exec_id.clone(),
        };
        let deleted: shim::DeleteResponse = task.call("Delete", &delete, None).await?;
        task.exec_deleted(&request.exec_id);
        self.0.tasks.forget_exec(&task, &request.exec_id);
        Ok(Response::new(DeleteResponse {
            id: request.exec_id,
            pid: deleted.pid,
            exit_status: deleted.exit_status,
            exited_at: deleted.exited_at,
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let state = task.state(&request.get_ref().exec_id).await?;
        let process = process(state, &task.id, &request.get_ref().exec_id);
        Ok(Response::new(GetResponse {
            process: Some(process),
        }))
    }

    async fn list(&self, request: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        let scope = Scope::of(&request)?;
        // The request's filter is one that containerd ignores.
        let states = futures_util::stream::iter(self.0.tasks.list(&scope.namespace))
            .map(|task| async move { (task.state("").await, task) })
            .buffered(PARALLEL);
        let tasks = states.filter_map(|(state, task)| async move {
            match state {
                Ok(state) => Some(process(state, &task.id, "")),
                Err(error) => {
                    if !error.is_not_found() {
                        tracing::warn!(namespace = task.namespace, container_id = task.id, %error, "task not listed");
                    }
                    None
                }
            }
        });
        Ok(Response::new(ListTasksResponse {
            tasks: tasks.collect().await,
        }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<()>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let request = request.into_inner();
        let kill = shim::KillRequest {
            id: request.container_id,
            exec_id: request.exec_id,
            signal: request.signal,
            all: request.all,
        };
        task.call::<_, ()>("Kill", &kill, None).await?;
        Ok(Response::new(()))
    }

    async fn exec(&self, request: Request<ExecProcessRequest>) -> Result<Response<()>, Status> {
        if request.get_ref().exec_id.is_empty() {
            return Err(Status::invalid_argument("exec id cannot be empty"));
        }
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let request = request.into_inner();
        identifier::validate(&request.exec_id)
            .map_err(|error| error.context(format!("invalid exec id {}", request.exec_id)))?;
        let exec = shim::ExecProcessRequest {
            id: request.container_id,
            exec_id: request.exec_id,
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            spec: request.spec,
        };
        task.call::<_, ()>("Exec", &exec, None).await?;
        Ok(Response::new(()))
    }

    async fn resize_pty(&self, request: Request<ResizePtyRequest>) -> Result<Response<()>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let request = request.into_inner();
        let resize = shim::ResizePtyRequest {
            id: request.container_id,
            exec_id: request.exec_id,
            width: request.width,
            height: request.height,
        };
        task.call::<_, ()>("ResizePty", &resize, None).await?;
        Ok(Response::new(()))
    }

    async fn close_io(&self, request: Request<CloseIoRequest>) -> Result<Response<()>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let request = request.into_inner();
        if request.stdin {
            let close = shim::CloseIoRequest {
                id: request.container_id,
                exec_id: request.exec_id,
                stdin: true,
            };
            task.call::<_, ()>("CloseIO", &close, None).await?;
        }
        Ok(Response::new(()))
    }

    async fn pause(&self, request: Request<PauseTaskRequest>) -> Result<Response<()>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let pause = shim::PauseRequest { id: task.id.clone() };
        task.call::<_, ()>("Pause", &pause, None).await?;
        Ok(Response::new(()))
    }

    async fn resume(&self, request: Request<ResumeTaskRequest>) -> Result<Response<()>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let resume = shim::ResumeRequest { id: task.id.clone() };
        task.call::<_, ()>("Resume", &resume, None).await?;
        Ok(Response::new(()))
    }

    async fn list_pids(
        &self,
        request: Request<ListPidsRequest>,
    ) -> Result<Response<ListPidsResponse>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let pids = shim::PidsRequest { id: task.id.clone() };
        let pids: shim::PidsResponse = task.call("Pids", &pids, None).await?;
        Ok(Response::new(ListPidsResponse {
            processes: pids.processes,
        }))
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointTaskRequest>,
    ) -> Result<Response<CheckpointTaskResponse>, Status> {
        let scope = Scope::of(&request)?;
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let request = request.into_inner();
        let named = match &request.options {
            None => String::new(),
            Some(options) => {
                unpack::<CheckpointOptions>(options, "invalid task checkpoint option")?.image_path
            }
        };
        let own = match named.as_str() {
            "" => Some(
                self.0
                    .blocking(|daemon| checkpoint::Directory::new(&daemon.checkpoints))
                    .await?,
            ),
            _ => None,
        };
        let path = match &own {
            Some(own) => own.path().to_string_lossy().into_owned(),
            None => named,
        };
        let checkpoint = shim::CheckpointTaskRequest {
            id: task.id.clone(),
            path,
            options: request.options,
        };
        task.call::<_, ()>("Checkpoint", &checkpoint, None).await?;
        let descriptors = match own {
            None => Vec::new(),
            Some(own) => {
                let spec = self.container(&scope, &task.id).await?.spec.unwrap_or_default();
                let spec = prost::Message::encode_to_vec(&spec);
                self.0
                    .blocking(move |daemon| checkpoint::store(daemon, &scope, own.path(), &spec))
                    .await?
            }
        };
        Ok(Response::new(CheckpointTaskResponse { descriptors }))
    }

    async fn update(&self, request: Request<UpdateTaskRequest>) -> Result<Response<()>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let request = request.into_inner();
        let update = shim::UpdateTaskRequest {
            id: request.container_id,
            resources: request.resources,
            annotations: request.annotations,
        };
        task.call::<_, ()>("Update", &update, None).await?;
        Ok(Response::new(()))
    }

    async fn metrics(&self, request: Request<MetricsRequest>) -> Result<Response<MetricsResponse>, Status> {
        let scope = Scope::of(&request)?;
        let filters = Filters::parse(&request.get_ref().filters)?;
        let mut tasks = self.0.tasks.list(&scope.namespace);
        tasks.retain(|task| filters.matches(&**task));
        let metrics = futures_util::stream::iter(tasks)
            .map(|task| async move {
                let stats = shim::StatsRequest { id: task.id.clone() };
                let timestamp = Some(crate::time::now());
                let stats = task.call::<_, shim::StatsResponse>("Stats", &stats, Some(STATE_TIMEOUT)).await;
                match stats {
                    Ok(stats) => Some(Metric {
                        timestamp,
                        id: task.id.clone(),
                        data: stats.stats,
                    }),
                    Err(error) => {
                        if !error.is_not_found() {
                            tracing::warn!(namespace = task.namespace, container_id = task.id, %error, "no metrics");
                        }
                        None
                    }
                }
            })
            .buffered(PARALLEL)
            .filter_map(std::future::ready);
        Ok(Response::new(MetricsResponse {
            metrics: metrics.collect().await,
        }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        let task = self.task(&request, &request.get_ref().container_id).await?;
        let exec_id = &request.get_ref().exec_id;
        let wait = async {
            if exec_id.is_empty() {
                task.wait().await
            } else {
                task.wait_exec(exec_id).await
            }
        };
        let exit = tokio::select! {
            biased;
            exit = wait => exit?,
            // It may last for ever, and whoever serves next can be asked again.
            () = self.0.stopping.cancelled() => return Err(Status::unavailable("the daemon is stopping")),
        };
        Ok(Response::new(WaitResponse {
            exit_status: exit.status,
            exited_at: exit.at,
        }))
    }
}

impl Fields for Task {
    fn field(&self, path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some(self.id.clone()),
            ["namespace"] => Some(self.namespace.clone()),
            _ => None,
        }
    }
}

/// Where the request says that its sandbox's shim listens: `ttrpc+unix:///path`.
fn endpoint(request: &CreateTaskRequest) -> Result<Option<Bootstrap>> {
    if request.task_api_address.is_empty() {
        return Ok(None);
    }
    let (protocol, address) = request.task_api_address.split_once('+').ok_or_else(|| {
        Error::invalid(format!(
            "task_api_address {:?} must have the form PROTOCOL+unix:///PATH",
            request.task_api_address
        ))
    })?;
    if protocol != "ttrpc" {
        return Err(Error::unimplemented(format!(
            "protocol {protocol:?} of a shim: task_api_address"
        )));
    }
    Ok(Some(Bootstrap {
        version: request.task_api_version,
        address: address.to_owned(),
        protocol: protocol.to_owned(),
    }))
}

/// The directory to restore a new task from, or nothing.
fn restore_from(request: &CreateTaskRequest) -> Result<String> {
    Ok(match &request.options {
        None => String::new(),
        // Other shims have options of their own.
        Some(options) => {
            any::unpack::<Options>(options)
                .map_err(|error| Error::invalid("invalid task create option").caused_by(error))?
                .unwrap_or_default()
                .criu_image_path
        }
    })
}

fn unpack<M: prost::Message + prost::Name + Default>(options: &Any, what: &str) -> Result<M> {
    any::unpack(options)
        .map_err(|error| Error::invalid(what).caused_by(error))?
        .ok_or_else(|| Error::invalid(format!("{what} {:?}", options.type_url)))
}

/// A shim's state in the words of the service.
fn process(state: shim::StateResponse, id: &str, exec_id: &str) -> Process {
    Process {
        container_id: String::new(),
        id: if exec_id.is_empty() { id } else { exec_id }.to_owned(),
        pid: state.pid,
        status: state.status,
        stdin: state.stdin,
        stdout: state.stdout,
        stderr: state.stderr,
        terminal: state.terminal,
        exit_status: state.exit_status,
        exited_at: state.exited_at.or(Some(NEVER)),
    }
}
