//! Creating a task: bundle, shim, container; and back again when a step fails.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use prost_types::Any;
use tokio_util::sync::CancellationToken;
use wharf_proto::containerd::task::v2 as api;
use wharf_proto::containerd::types::Mount;

use super::bundle::{Bootstrap, Bundle};
use super::checkpoint;
use super::handle::Task;
use super::shim::{self, Shim};
use super::{Slot, Tasks, blocking, key};
use crate::content::Reader;
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
    /// The archive of a checkpoint to restore from, when there is no directory.
    pub checkpoint_archive: Option<Reader>,
    /// The shim of the container's sandbox, if it is in one that runs: no shim is started then.
    pub sandbox: Option<Bootstrap>,
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
    async fn fill(self, tasks: &Arc<Tasks>, mut request: Create, hung_up: CancellationToken) -> Result<u32> {
        tasks.ledger.forget(&self.namespace, &self.id);
        let bundle = Bundle::of(&tasks.directory, &self.namespace, &self.id);
        let executable = tasks.furnish(&bundle, &request.runtime, &request.spec).await?;
        let removal = bundle.clone();
        let is_sandboxed = request.sandbox.is_some();
        let runtime = mem::take(&mut request.runtime);
        let sandbox = request.sandbox.take();
        let creation = match Creation::new(&bundle, request, hung_up).await {
            Ok(creation) => creation,
            Err(error) => return Err(undone(error, blocking(move || removal.remove()).await)),
        };
        let started = match &sandbox {
            Some(sandbox) => match join(&bundle, sandbox).await {
                Ok(shim) => {
                    let created = creation.ask(&shim).await;
                    Ok((shim, created))
                }
                Err(error) => Err(error),
            },
            None => {
                let invocation = tasks.invocation(&self.namespace, &self.id, &bundle, &executable);
                tasks.bring_up_and_create(invocation, &runtime, &creation).await
            }
        };
        let (shim, created) = match started {
            Ok(started) => started,
            Err(error) => return Err(undone(error, blocking(move || removal.remove()).await)),
        };
        let created = match created {
            // A few bytes into memory, for which no other thread is woken: the client waits.
            Ok(pid) => bundle.set_created(pid).map(|()| pid),
            failed => failed,
        };
        let pid = match created {
            Ok(pid) => pid,
            Err(error) => {
                self.abandon(tasks, &shim, &bundle, &executable, is_sandboxed)
                    .await;
                return Err(undone(error, blocking(move || removal.remove()).await));
            }
        };
        let task =
            Task::new(&self.namespace, &self.id, pid, bundle, executable, shim).sandboxed(is_sandboxed);
        tasks.adopt(Arc::new(task));
        Ok(pid)
    }

    /// Takes down a shim whose task was not created, or not quite.
    async fn abandon(
        &self,
        tasks: &Tasks,
        shim: &Shim,
        bundle: &Bundle,
        executable: &std::path::Path,
        is_sandboxed: bool,
    ) {
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
        // A sandbox's shim outlives the containers.
        if !is_sandboxed {
            shim.shutdown(&self.id).await;
        }
    }
}

/// Connects to the shim of the container's sandbox.
async fn join(bundle: &Bundle, sandbox: &Bootstrap) -> Result<Shim> {
    bundle.set_sandboxed()?;
    bundle.set_bootstrap(sandbox)?;
    Shim::connect(sandbox)
        .await?
        .map_err(|error| Error::unknown("connect to the sandbox's shim", error))
}

/// What a shim is asked for.
pub(super) struct Creation {
    /// The request itself.
    pub(super) request: api::CreateTaskRequest,
    hung_up: CancellationToken,
}

impl Creation {
    /// The archive of a checkpoint is unpacked for the shim.
    async fn new(bundle: &Bundle, request: Create, hung_up: CancellationToken) -> Result<Self> {
        let mut checkpoint = request.checkpoint;
        if let Some(archive) = request.checkpoint_archive {
            // In the bundle it is there for as long as any shim may want it, and no longer.
            let directory = bundle.path().join("checkpoint");
            checkpoint = directory.to_string_lossy().into_owned();
            blocking(move || checkpoint::unpack(archive, &directory)).await?;
        }
        let request = api::CreateTaskRequest {
            id: request.id,
            bundle: bundle.path().to_string_lossy().into_owned(),
            rootfs: request.rootfs,
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            checkpoint,
            parent_checkpoint: String::new(),
            options: request.options,
        };
        Ok(Self { request, hung_up })
    }

    /// Has a shim create the task; answers its pid. Given up when the client is gone.
    ///
    /// # Errors
    ///
    /// The shim's own; `Canceled`.
    pub(super) async fn ask(&self, shim: &Shim) -> Result<u32> {
        // A checkpoint or a slow disk may take any time; the client's patience is the limit.
        let answer = shim.call::<_, api::CreateTaskResponse>("Create", &self.request, None);
        let created = tokio::select! {
            biased;
            answer = answer => answer.map_err(shim::error),
            () = self.hung_up.cancelled() => return Err(Error::new(Kind::Canceled, "failed to create shim task")),
        };
        let failed = |error: Error| error.context("failed to create shim task");
        created.map(|answer| answer.pid).map_err(failed)
    }
}

/// The first error, with the undo's if that failed too.
fn undone(error: Error, undo: Result<()>) -> Error {
    match undo {
        Ok(()) => error,
        Err(undo) => error.context(format!("(not undone: {undo})")),
    }
}
