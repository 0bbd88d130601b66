//! Creating a task: bundle, shim, container; and back again when a step fails.

use std::sync::Arc;
use std::time::Duration;

use prost_types::Any;
use tokio_util::sync::CancellationToken;
use wharf_proto::any;
use wharf_proto::containerd::runc::v1::Options;
use wharf_proto::containerd::task::v2 as api;
use wharf_proto::containerd::types::Mount;

use super::bundle::{Bootstrap, Bundle};
use super::fork_server::Forked;
use super::handle::Task;
use super::shim::{self, Shim};
use super::spawn::Invocation;
use super::{Slot, Tasks, blocking, key, runtime_name, shim_log};
use crate::error::{Error, Kind, Result};

/// How long a shim may take to undo a creation that failed.
const UNDO: Duration = Duration::from_secs(10);

/// What a task is made of.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// The container's id, a valid identifier.
    pub id: String,
    /// The runtime's name, or the absolute path of a shim.
    pub runtime: String,
    /// The OCI spec as JSON.
    pub spec: Vec<u8>,
    /// The runtime's options, for the shim's start and for the task.
    pub options: Option<Any>,
    /// What the shim mounts at the bundle's `rootfs`.
    pub rootfs: Vec<Mount>,
    /// Where the task reads from: a FIFO, or empty.
    pub stdin: String,
    /// Where the task writes to: a FIFO, a URI, or empty.
    pub stdout: String,
    /// Where the task writes errors to; empty with a terminal.
    pub stderr: String,
    /// Whether the task gets a terminal.
    pub terminal: bool,
    /// The directory of a checkpoint to restore from, or empty.
    pub checkpoint: String,
}

impl Tasks {
    /// Creates a task and returns the pid of its init process, which waits to be started.
    ///
    /// When the future is dropped the creation is undone.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; the shim's own errors; `Unknown` when it cannot be started. Nothing is left then.
    pub async fn create(self: &Arc<Self>, namespace: &str, request: Create) -> Result<u32> {
        let reservation = self.reserve(namespace, &request.id)?;
        let hung_up = CancellationToken::new();
        let _hang_up = hung_up.clone().drop_guard();
        let tasks = Arc::clone(self);
        let creation = tokio::spawn(async move { reservation.fill(&tasks, request, hung_up).await });
        creation
            .await
            .map_err(|error| Error::unknown("create task", error))?
    }

    fn reserve(self: &Arc<Self>, namespace: &str, id: &str) -> Result<Reservation> {
        let mut table = self.table();
        match table.entry(key(namespace, id)) {
            std::collections::hash_map::Entry::Occupied(_) => {
                Err(Error::already_exists(format!("task {id}")))
            }
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Slot::Reserved);
                Ok(Reservation {
                    tasks: Arc::clone(self),
                    namespace: namespace.to_owned(),
                    id: id.to_owned(),
                })
            }
        }
    }
}

/// An id that nobody else can create; given back when dropped, unless a task has taken its place.
struct Reservation {
    tasks: Arc<Tasks>,
    namespace: String,
    id: String,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let key = key(&self.namespace, &self.id);
        let mut table = self.tasks.table();
        if matches!(table.get(&key), Some(Slot::Reserved)) {
            table.remove(&key);
        }
    }
}

impl Reservation {
    async fn fill(self, tasks: &Arc<Tasks>, request: Create, hung_up: CancellationToken) -> Result<u32> {
        tasks.ledger.forget(&self.namespace, &self.id);
        let bundle = Bundle::of(&tasks.directory, &self.namespace, &self.id);
        let executable = {
            let (bundle, runtime, own) = (bundle.clone(), request.runtime.clone(), tasks.own_shim.clone());
            let spec = request.spec.clone();
            blocking(move || {
                let executable = runtime_name::shim(&runtime, own.as_deref())
                    .map_err(|error| error.context("failed to start shim: failed to resolve runtime path"))?;
                prepare(&bundle, &spec)?;
                if let Err(error) = bundle.set_shim(&executable) {
                    return Err(undone(error, bundle.remove()));
                }
                Ok(executable)
            })
            .await?
        };
        let removal = bundle.clone();
        let started = self.start(tasks, &bundle, &executable, &request).await;
        let shim = match started {
            Ok(shim) => shim,
            Err(error) => return Err(undone(error, blocking(move || removal.remove()).await)),
        };
        // Only the shim's own work is given up when the client is gone: until here it takes milliseconds.
        let created = tokio::select! {
            biased;
            created = create(&shim, &bundle, request) => created,
            () = hung_up.cancelled() => Err(Error::new(Kind::Canceled, "failed to create shim task")),
        };
        let created = match created {
            Ok(pid) => {
                let bundle = bundle.clone();
                blocking(move || bundle.set_created(pid).map(|()| pid)).await
            }
            failed => failed,
        };
        let pid = match created {
            Ok(pid) => pid,
            Err(error) => {
                self.abandon(tasks, &shim, &bundle, &executable).await;
                return Err(undone(error, blocking(move || removal.remove()).await));
            }
        };
        let task = Task::new(&self.namespace, &self.id, pid, bundle, executable, shim);
        tasks.adopt(Arc::new(task));
        Ok(pid)
    }

    /// Brings up the shim and connects to it: ours by a fork if that works, any other as containerd does.
    async fn start(
        &self,
        tasks: &Tasks,
        bundle: &Bundle,
        executable: &std::path::Path,
        request: &Create,
    ) -> Result<Shim> {
        let failed = |error: Error| error.context("failed to start shim");
        let log = shim_log::open(bundle).map_err(failed)?;
        let invocation = tasks.invocation(&self.namespace, &self.id, bundle, executable);
        if runtime_name::is_own(&request.runtime) && !needs_start(request.options.as_ref()) {
            match fork(tasks, invocation).await {
                Ok(shim) => {
                    shim_log::follow(log, &self.namespace, &self.id, &shim);
                    return Ok(shim);
                }
                // The long way words the error, if it is one of the bundle's.
                Err(error) => {
                    tracing::debug!(namespace = self.namespace, container_id = self.id, %error, "shim not forked");
                }
            }
        }
        let bootstrap = invocation.start(request.options.as_ref()).await.map_err(failed)?;
        let noted = {
            let (bundle, bootstrap) = (bundle.clone(), bootstrap.clone());
            blocking(move || bundle.set_bootstrap(&bootstrap)).await
        };
        let connected = match noted {
            Ok(()) => Shim::connect(&bootstrap).await,
            Err(error) => Err(error),
        };
        let error = match connected {
            Ok(Ok(shim)) => {
                shim_log::follow(log, &self.namespace, &self.id, &shim);
                return Ok(shim);
            }
            Ok(Err(error)) => Error::unknown("connect", error),
            Err(error) => error,
        };
        // A shim may be running that nobody can talk to.
        if let Err(cleanup) = invocation.delete().await {
            tracing::warn!(namespace = self.namespace, container_id = self.id, error = %cleanup, "clean-up after failed start");
        }
        Err(failed(error))
    }

    /// Takes down a shim whose task was not created, or not quite.
    async fn abandon(&self, tasks: &Tasks, shim: &Shim, bundle: &Bundle, executable: &std::path::Path) {
        let request = api::DeleteRequest {
            id: self.id.clone(),
            exec_id: String::new(),
        };
        let deleted = shim
            .call::<_, api::DeleteResponse>("Delete", &request, Some(UNDO))
            .await;
        match deleted {
            Ok(_) => {}
            Err(error) if shim::is_not_found(&error) => {}
            Err(error) => {
                tracing::debug!(namespace = self.namespace, container_id = self.id, %error, "shim cannot undo the creation");
                let invocation = tasks.invocation(&self.namespace, &self.id, bundle, executable);
                if let Err(error) = invocation.delete().await {
                    tracing::warn!(namespace = self.namespace, container_id = self.id, %error, "clean-up after failed creation");
                }
            }
        }
        shim.shutdown(&self.id).await;
    }
}

/// Whether the options are for the shim's `start`, which alone reads them.
fn needs_start(options: Option<&Any>) -> bool {
    let Some(options) = options else { return false };
    // What cannot be read is refused by the shim in its own words.
    !matches!(any::unpack::<Options>(options), Ok(Some(options)) if options.shim_cgroup.is_empty())
}

/// A shim forked for `invocation`, or the one of its group. The shim writes down in the bundle where it serves.
async fn fork(tasks: &Tasks, invocation: Invocation<'_>) -> Result<Shim> {
    match tasks.fork_server.fork(invocation).await? {
        Forked::New(address, connection) => Ok(Shim::over(address, connection)),
        Forked::Group(address) => {
            let bootstrap = Bootstrap {
                version: 3,
                address,
                protocol: "ttrpc".to_owned(),
            };
            let note = bootstrap.clone();
            let bundle = invocation.bundle.clone();
            blocking(move || bundle.set_bootstrap(&note)).await?;
            Shim::connect(&bootstrap)
                .await?
                .map_err(|error| Error::unknown("connect", error))
        }
    }
}

/// Makes the bundle. One that nobody owns is what an earlier removal could not finish.
fn prepare(bundle: &Bundle, spec: &[u8]) -> Result<()> {
    match bundle.create(spec) {
        Err(error) if error.is_already_exists() => {
            bundle.remove()?;
            bundle.create(spec)
        }
        done => done,
    }
}

async fn create(shim: &Shim, bundle: &Bundle, request: Create) -> Result<u32> {
    let request = api::CreateTaskRequest {
        id: request.id,
        bundle: bundle.path().to_string_lossy().into_owned(),
        rootfs: request.rootfs,
        terminal: request.terminal,
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        checkpoint: request.checkpoint,
        parent_checkpoint: String::new(),
        options: request.options,
    };
    // A checkpoint or a slow disk may take any time; the client's patience is the limit.
    let answer = shim
        .call::<_, api::CreateTaskResponse>("Create", &request, None)
        .await;
    answer
        .map(|answer| answer.pid)
        .map_err(|error| shim::error(error).context("failed to create shim task"))
}

/// The first error, with the undo's if that failed too.
fn undone(error: Error, undo: Result<()>) -> Error {
    match undo {
        Ok(()) => error,
        Err(undo) => error.context(format!("(not undone: {undo})")),
    }
}
