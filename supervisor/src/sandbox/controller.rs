//! The controller `shim`: a sandbox is a shim that serves containerd's sandbox service.
//!
//! A shim outlives the daemon, so a sandbox is found again by its bundle. Its end is asked of the shim; a shim that died
//! ends its sandbox with status 255.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use wharf_proto::any;
use wharf_proto::containerd::events::SandboxExit;
use wharf_proto::containerd::runtime::sandbox::v1 as api;
use wharf_proto::containerd::types::{Metric, Mount, Platform};

use crate::error::{Error, Kind, Result};
use crate::event::Exchange;
use crate::task::{self, Bootstrap, Bundle, CallError, Shim, Tasks, blocking};

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";
/// How long a shim may take to leave.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// How long a question may take; a shim that is slower is stuck.
const ANSWER: Duration = Duration::from_secs(2);
/// The pause between attempts to reach a shim that neither answers nor is dead.
const RETRY: Duration = Duration::from_secs(1);
/// The end of a sandbox of which nobody knows more, as of tasks.
const UNKNOWN_STATUS: u32 = 255;

/// What a sandbox is made of.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// Its id, a valid identifier.
    pub id: String,
    /// The runtime's name, or the absolute path of a shim.
    pub runtime: String,
    /// The runtime's options, for the shim's start.
    pub runtime_options: Option<Any>,
    /// The spec, as JSON; empty for none.
    pub spec: Vec<u8>,
    /// Options for the sandbox.
    pub options: Option<Any>,
    /// Its root filesystem.
    pub rootfs: Vec<Mount>,
    /// The path of its network namespace.
    pub netns_path: String,
    /// Its annotations.
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// All sandboxes of one daemon that run.
#[derive(Debug)]
pub struct Controller {
    /// The directory of all bundles.
    directory: PathBuf,
    tasks: Arc<Tasks>,
    events: Arc<Exchange>,
    table: Mutex<HashMap<Key, Slot>>,
}

/// Namespace and id.
type Key = (String, String);

#[derive(Debug)]
enum Slot {
    /// Being created.
    Reserved,
    Live(Arc<Running>),
}

/// A sandbox with a shim.
#[derive(Debug)]
struct Running {
    namespace: String,
    id: String,
    bundle: Bundle,
    executable: PathBuf,
    shim: Mutex<Arc<Shim>>,
    /// Whether its end was published.
    told: AtomicBool,
    /// Whether it was taken down on purpose.
    retired: AtomicBool,
}

impl Running {
    fn shim(&self) -> Arc<Shim> {
        Arc::clone(&self.shim.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &'static str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<R> {
        self.shim()
            .call_service(SERVICE, method, request, timeout)
            .await
            .map_err(|error| match error {
                CallError::Closed => Error::unavailable(format!(
                    "sandbox {}: connection to its shim was lost in {method}",
                    self.id
                )),
                error => task::shim_error(error),
            })
    }
}

impl Controller {
    /// The sandboxes with bundles below `directory`, none of them loaded yet: see [`Controller::reconcile`].
    pub fn new(directory: PathBuf, tasks: Arc<Tasks>, events: Arc<Exchange>) -> Arc<Self> {
        Arc::new(Self {
            directory,
            tasks,
            events,
            table: Mutex::default(),
        })
    }

    /// Creates a sandbox: its shim, and the sandbox in it. A caller that goes away does not interrupt it.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`; the shim's own, `Unimplemented` from one that serves no sandboxes. Nothing is left then.
    pub async fn create(self: &Arc<Self>, namespace: &str, request: Create) -> Result<()> {
        let key = (namespace.to_owned(), request.id.clone());
        match self.table().entry(key.clone()) {
            Entry::Occupied(_) => {
                return Err(Error::already_exists(format!(
                    "sandbox {} already running",
                    request.id
                )));
            }
            Entry::Vacant(vacant) => {
                vacant.insert(Slot::Reserved);
            }
        }
        let controller = Arc::clone(self);
        let creation = tokio::spawn(async move {
            let made = controller.make(&key, request).await;
            match &made {
                Ok(running) => {
                    let slot = Slot::Live(Arc::clone(running));
                    controller.table().insert(key, slot);
                    tokio::spawn(watch(Arc::clone(&controller), Arc::clone(running)));
                }
                Err(_) => drop(controller.table().remove(&key)),
            }
            made.map(drop)
        });
        creation
            .await
            .map_err(|error| Error::unknown("create sandbox", error))?
    }

    async fn make(&self, (namespace, id): &Key, request: Create) -> Result<Arc<Running>> {
        let bundle = Bundle::of(&self.directory, namespace, id);
        let spec = match request.spec.as_slice() {
            [] => b"{}",
            spec => spec,
        };
        let executable = self.tasks.furnish(&bundle, &request.runtime, spec).await?;
        let invocation = self.tasks.invocation(namespace, id, &bundle, &executable);
        let started = self
            .tasks
            .bring_up(invocation, &request.runtime, request.runtime_options.as_ref())
            .await;
        let shim = match started {
            Ok(shim) => shim,
            Err(error) => {
                let removal = bundle.clone();
                let error = error.context(format!("failed to start new shim for sandbox {id}"));
                return Err(match blocking(move || removal.remove()).await {
                    Ok(()) => error,
                    Err(undo) => error.context(format!("(not undone: {undo})")),
                });
            }
        };
        let running = Arc::new(Running {
            namespace: namespace.clone(),
            id: id.clone(),
            bundle: bundle.clone(),
            executable: executable.clone(),
            shim: Mutex::new(Arc::new(shim)),
            told: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        });
        let create = api::CreateSandboxRequest {
            sandbox_id: id.clone(),
            bundle_path: bundle.path().to_string_lossy().into_owned(),
            rootfs: request.rootfs,
            options: request.options,
            netns_path: request.netns_path,
            annotations: request.annotations,
        };
        let created: Result<api::CreateSandboxResponse> = running.call("CreateSandbox", &create, None).await;
        match created {
            Ok(_) => Ok(running),
            Err(error) => {
                self.dismantle(&running).await;
                Err(error.context(format!("failed to create sandbox {id}")))
            }
        }
    }

    /// Starts a sandbox; one that cannot be started is gone.
    ///
    /// # Errors
    ///
    /// `NotFound`; the shim's own.
    pub async fn start(&self, namespace: &str, id: &str) -> Result<(api::StartSandboxResponse, Bootstrap)> {
        let running = self.get(namespace, id)?;
        let request = api::StartSandboxRequest {
            sandbox_id: id.to_owned(),
        };
        match running.call("StartSandbox", &request, None).await {
            Ok(started) => Ok((started, endpoint(&running))),
            Err(error) => {
                // A second start is the caller's mistake and does not end the sandbox.
                if error.kind() != Kind::FailedPrecondition {
                    self.remove(&running).await;
                }
                Err(error.context(format!("failed to start sandbox {id}")))
            }
        }
    }

    /// The platform that its containers run on.
    ///
    /// # Errors
    ///
    /// `NotFound`; the shim's own.
    pub async fn platform(&self, namespace: &str, id: &str) -> Result<Option<Platform>> {
        let request = api::PlatformRequest {
            sandbox_id: id.to_owned(),
        };
        let answer: api::PlatformResponse = self
            .get(namespace, id)?
            .call("Platform", &request, Some(ANSWER))
            .await
            .map_err(|error| error.context("failed to get sandbox platform"))?;
        Ok(answer.platform)
    }

    /// Stops a sandbox. One that is not there is stopped.
    ///
    /// # Errors
    ///
    /// The shim's own.
    pub async fn stop(&self, namespace: &str, id: &str, timeout_secs: u32) -> Result<()> {
        let Ok(running) = self.get(namespace, id) else {
            return Ok(());
        };
        let request = api::StopSandboxRequest {
            sandbox_id: id.to_owned(),
            timeout_secs,
        };
        match running
            .call::<_, api::StopSandboxResponse>("StopSandbox", &request, None)
            .await
        {
            Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => {
                Err(error.context("failed to stop sandbox"))
            }
            _ => Ok(()),
        }
    }

    /// Waits for the end of a sandbox, and publishes it.
    ///
    /// # Errors
    ///
    /// `NotFound`; the shim's own; `Unavailable` when it is lost meanwhile.
    pub async fn wait(&self, namespace: &str, id: &str) -> Result<api::WaitSandboxResponse> {
        let running = self.get(namespace, id)?;
        let request = api::WaitSandboxRequest {
            sandbox_id: id.to_owned(),
        };
        let answer: api::WaitSandboxResponse = running
            .call("WaitSandbox", &request, None)
            .await
            .map_err(|error| error.context(format!("failed to wait sandbox {id}")))?;
        self.tell(&running, &answer);
        Ok(answer)
    }

    /// How a sandbox is, and where its shim listens.
    ///
    /// # Errors
    ///
    /// `NotFound`; the shim's own.
    pub async fn status(
        &self,
        namespace: &str,
        id: &str,
        verbose: bool,
    ) -> Result<(api::SandboxStatusResponse, Bootstrap)> {
        let running = self.get(namespace, id)?;
        let request = api::SandboxStatusRequest {
            sandbox_id: id.to_owned(),
            verbose,
        };
        let status = running
            .call("SandboxStatus", &request, Some(ANSWER))
            .await
            .map_err(|error| error.context(format!("failed to query sandbox {id} status")))?;
        Ok((status, endpoint(&running)))
    }

    /// Checks a change of a sandbox's record against the sandbox that runs.
    ///
    /// Its shim was told nothing of the labels, extensions and spec in the record, and there is no call that would tell it
    /// more, so they are the store's alone to change. What the shim was started as stays.
    ///
    /// # Errors
    ///
    /// `NotFound`; `FailedPrecondition` for the runtime; `InvalidArgument` for a field that no sandbox has.
    pub fn update(&self, namespace: &str, id: &str, paths: &[String]) -> Result<()> {
        self.get(namespace, id)?;
        for path in paths {
            let field = path.split_once('.').map_or(path.as_str(), |(field, _)| field);
            match field {
                "labels" | "extensions" => {}
                "spec" if field == path => {}
                "runtime" if field == path => {
                    let message = format!("sandbox {id} runs, and keeps its runtime");
                    return Err(Error::precondition(message));
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "cannot update {path:?} field on sandbox {id:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes a sandbox down, with its shim and bundle.
    ///
    /// # Errors
    ///
    /// `NotFound`; the shim's own: `FailedPrecondition` from ours while containers are left.
    pub async fn shutdown(&self, namespace: &str, id: &str) -> Result<()> {
        let running = self.get(namespace, id)?;
        let request = api::ShutdownSandboxRequest {
            sandbox_id: id.to_owned(),
        };
        // From now on a lost connection is no surprise.
        if running.retired.swap(true, Ordering::SeqCst) {
            return Err(Error::not_found(format!("sandbox {id:?}")));
        }
        let gone = running
            .call::<_, api::ShutdownSandboxResponse>("ShutdownSandbox", &request, Some(SHUTDOWN))
            .await;
        match gone {
            // It may leave before it answers.
            Err(error) if error.kind() != Kind::Unavailable => {
                running.retired.store(false, Ordering::SeqCst);
                return Err(error.context("failed to shutdown sandbox"));
            }
            _ => {}
        }
        self.forget(&running).await;
        Ok(())
    }

    /// What a sandbox uses.
    ///
    /// # Errors
    ///
    /// `NotFound`; the shim's own.
    pub async fn metrics(&self, namespace: &str, id: &str) -> Result<Option<Metric>> {
        let request = api::SandboxMetricsRequest {
            sandbox_id: id.to_owned(),
        };
        let answer: api::SandboxMetricsResponse = self
            .get(namespace, id)?
            .call("SandboxMetrics", &request, Some(ANSWER))
            .await?;
        Ok(answer.metrics)
    }

    /// The shim in which containers of a sandbox are made; `None` when it is of a kind that must be started for each.
    ///
    /// # Errors
    ///
    /// `NotFound`: the sandbox does not run.
    pub fn endpoint(&self, namespace: &str, id: &str) -> Result<Option<Bootstrap>> {
        let running = self
            .get(namespace, id)
            .map_err(|_| Error::not_found(format!("can't find shim for sandbox {id}")))?;
        Ok(Some(endpoint(&running)).filter(Bootstrap::is_shared))
    }

    /// Takes up the sandboxes of an earlier daemon, and clears away what is left of those whose shim is dead: once, before
    /// anything is served, and before the tasks, which may be in a sandbox.
    ///
    /// # Errors
    ///
    /// `Unknown`: the directory cannot be read.
    pub async fn reconcile(self: &Arc<Self>) -> Result<()> {
        let directory = self.directory.clone();
        for (namespace, id) in blocking(move || task::bundles(&directory)).await? {
            if let Err(error) = self.take_up(&namespace, &id).await {
                tracing::error!(namespace, sandbox_id = id, %error, "sandbox not recovered");
            }
        }
        Ok(())
    }

    async fn take_up(self: &Arc<Self>, namespace: &str, id: &str) -> Result<()> {
        let bundle = Bundle::of(&self.directory, namespace, id);
        let reading = bundle.clone();
        let (executable, bootstrap) =
            blocking(move || Ok((reading.shim()?, reading.bootstrap().unwrap_or_default()))).await?;
        // Without an executable no shim was started.
        let Some(executable) = executable else {
            return blocking(move || bundle.remove()).await;
        };
        let request = api::SandboxStatusRequest {
            sandbox_id: id.to_owned(),
            verbose: false,
        };
        let connected = match &bootstrap {
            Some(bootstrap) => match Shim::connect(bootstrap).await? {
                Ok(shim) => Some(shim),
                Err(error) if error.nobody_listens() => None,
                Err(error) => return Err(Error::unknown("connect", error)),
            },
            None => None,
        };
        let Some(shim) = connected else {
            self.tasks.clear(namespace, id, &bundle, &executable).await;
            self.tell_end(namespace, id);
            return Ok(());
        };
        match shim
            .call_service::<_, api::SandboxStatusResponse>(SERVICE, "SandboxStatus", &request, Some(ANSWER))
            .await
        {
            // The daemon died between the shim's start and the sandbox's creation: nobody was told of it.
            Err(CallError::Status { code, .. }) if code == tonic::Code::NotFound as i32 => {
                shim.shutdown(id).await;
                self.tasks.clear(namespace, id, &bundle, &executable).await;
                return Ok(());
            }
            Err(error) => tracing::warn!(namespace, sandbox_id = id, %error, "shim does not answer"),
            Ok(_) => {}
        }
        tracing::info!(namespace, sandbox_id = id, "sandbox taken up again");
        let running = Arc::new(Running {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            bundle,
            executable,
            shim: Mutex::new(Arc::new(shim)),
            told: AtomicBool::new(false),
            retired: AtomicBool::new(false),
        });
        let key = (namespace.to_owned(), id.to_owned());
        self.table().insert(key, Slot::Live(Arc::clone(&running)));
        tokio::spawn(watch(Arc::clone(self), running));
        Ok(())
    }

    fn get(&self, namespace: &str, id: &str) -> Result<Arc<Running>> {
        match self.table().get(&(namespace.to_owned(), id.to_owned())) {
            Some(Slot::Live(running)) => Ok(Arc::clone(running)),
            Some(Slot::Reserved) | None => Err(Error::not_found(format!("sandbox {id:?}"))),
        }
    }

    /// Takes a sandbox out of the table, and what is left of it off the disk.
    async fn remove(&self, running: &Running) {
        if !running.retired.swap(true, Ordering::SeqCst) {
            self.forget(running).await;
        }
    }

    async fn forget(&self, running: &Running) {
        self.dismantle(running).await;
        let key = (running.namespace.clone(), running.id.clone());
        self.table().remove(&key);
    }

    /// Lets the shim go and clears up behind it.
    async fn dismantle(&self, running: &Running) {
        let shim = running.shim();
        if !shim.is_closed() {
            shim.shutdown(&running.id).await;
        }
        let (namespace, id) = (&running.namespace, &running.id);
        self.tasks
            .clear(namespace, id, &running.bundle, &running.executable)
            .await;
    }

    /// Publishes the end of a sandbox, once.
    fn tell(&self, running: &Running, exit: &api::WaitSandboxResponse) {
        if running.told.swap(true, Ordering::SeqCst) {
            return;
        }
        let event = SandboxExit {
            sandbox_id: running.id.clone(),
            exit_status: exit.exit_status,
            exited_at: exit.exited_at,
        };
        self.events
            .publish(&running.namespace, "/sandboxes/exit", any::pack(&event));
    }

    /// Publishes the end of a sandbox that ended while no daemon ran.
    fn tell_end(&self, namespace: &str, id: &str) {
        let event = SandboxExit {
            sandbox_id: id.to_owned(),
            exit_status: UNKNOWN_STATUS,
            exited_at: Some(crate::time::now()),
        };
        self.events
            .publish(namespace, "/sandboxes/exit", any::pack(&event));
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        // Each critical section is one operation on the map.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the sandbox's shim listens.
fn endpoint(running: &Running) -> Bootstrap {
    let shim = running.shim();
    Bootstrap {
        version: shim.version(),
        address: shim.address().to_owned(),
        protocol: "ttrpc".to_owned(),
    }
}

/// Watches over the life of a sandbox's shim: a connection that ends is made again if the shim still listens; else the
/// shim is dead, and so is its sandbox.
async fn watch(controller: Arc<Controller>, running: Arc<Running>) {
    loop {
        running.shim().closed().await;
        if running.retired.load(Ordering::SeqCst) {
            return;
        }
        match Shim::connect(&endpoint(&running)).await {
            Ok(Ok(shim)) => {
                *running.shim.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(shim);
            }
            Ok(Err(error)) if !error.nobody_listens() => {
                tracing::warn!(namespace = running.namespace, sandbox_id = running.id, %error, "shim cannot be reached");
                tokio::time::sleep(RETRY).await;
            }
            _ => break,
        }
    }
    tracing::info!(
        namespace = running.namespace,
        sandbox_id = running.id,
        "cleaning up after a sandbox's dead shim"
    );
    let exit = api::WaitSandboxResponse {
        exit_status: UNKNOWN_STATUS,
        exited_at: Some(crate::time::now()),
    };
    controller.tell(&running, &exit);
    controller.remove(&running).await;
}
