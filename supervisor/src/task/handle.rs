//! One task: its shim, what is known of its end, and the calls that go to the shim.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use prost_types::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wharf_proto::containerd::task::v2 as api;

use super::bundle::Bundle;
use super::ledger;
use super::shim::{self, Shim};
use super::ttrpc::CallError;
use crate::error::{Error, Kind, Result};

/// How a process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// The process; 0 when that is not known.
    pub pid: u32,
    /// Its exit code, or 128 and the signal's number.
    pub status: u32,
    /// When it ended.
    pub at: Option<Timestamp>,
}

/// A task that was created and not yet deleted.
#[derive(Debug)]
pub struct Task {
    /// Its namespace.
    pub namespace: String,
    /// Its id, which is its container's.
    pub id: String,
    /// The init process.
    pub pid: u32,
    /// Where its shim works.
    pub bundle: Bundle,
    /// The shim's executable.
    pub executable: PathBuf,
    shim: watch::Sender<Arc<Shim>>,
    exit: watch::Sender<Option<Exit>>,
    exec_waits: Mutex<HashMap<String, ExecWait>>,
    retired: AtomicBool,
    is_sandboxed: bool,
    gone: CancellationToken,
}

type ExecWait = watch::Sender<Option<Result<api::WaitResponse, CallError>>>;

impl Task {
    /// A task whose shim is connected.
    pub fn new(namespace: &str, id: &str, pid: u32, bundle: Bundle, executable: PathBuf, shim: Shim) -> Self {
        Self {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            pid,
            bundle,
            executable,
            shim: watch::Sender::new(Arc::new(shim)),
            exit: watch::Sender::new(None),
            exec_waits: Mutex::default(),
            retired: AtomicBool::new(false),
            is_sandboxed: false,
            gone: CancellationToken::new(),
        }
    }

    /// Says whether its shim is a sandbox's.
    #[must_use]
    pub fn sandboxed(self, is_sandboxed: bool) -> Self {
        Self { is_sandboxed, ..self }
    }

    /// Lets the shim go when the task is no more: it leaves if it has no other task, unless it is a sandbox's.
    pub fn dismiss(&self, shim: Arc<Shim>) -> impl Future<Output = ()> + Send + 'static {
        let id = (!self.is_sandboxed).then(|| self.id.clone());
        async move {
            match id {
                None => shim.close(),
                Some(id) => shim.shutdown(&id).await,
            }
        }
    }

    /// The present connection.
    pub fn shim(&self) -> Arc<Shim> {
        Arc::clone(&self.shim.borrow())
    }

    /// Replaces a connection that was lost.
    pub fn reattach(&self, shim: Shim) {
        self.shim.send_replace(Arc::new(shim));
    }

    /// How the init process ended, once that is known.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Makes known how the init process ended. Whoever is first is right.
    pub fn settle(&self, exit: Exit) {
        self.exit.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(exit);
            }
            first
        });
    }

    /// Takes the task out of service: from now on a lost connection is no surprise. `false` if it is already.
    pub fn retire(&self) -> bool {
        !self.retired.swap(true, Ordering::SeqCst)
    }

    /// Whether the task was taken out of service.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Tells everybody that nothing is left of the task.
    pub fn vanish(&self) {
        self.gone.cancel();
    }

    /// Completes when nothing is left of the task.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// The ledger's name for the end of the init process.
    pub fn end(&self) -> ledger::Exit {
        ledger::Exit {
            namespace: self.namespace.clone(),
            container: self.id.clone(),
            process: self.id.clone(),
            pid: self.pid,
        }
    }

    /// What a client hears about a task that is no more, in containerd's own words.
    pub fn not_found(id: &str) -> Error {
        Error::not_found(format!("task {id} not found"))
    }

    /// Calls a method of the shim.
    ///
    /// # Errors
    ///
    /// The shim's own; `NotFound` when the shim died and the task with it; `Unavailable` when the connection was lost
    /// and made again, and whether the shim acted is unknown.
    pub async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &'static str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<R> {
        match self.shim().call(method, request, timeout).await {
            Err(CallError::Closed) => Err(self.lost(method).await),
            answer => answer.map_err(shim::error),
        }
    }

    /// The state of the task, or of one of its execs.
    ///
    /// # Errors
    ///
    /// As [`Task::call`].
    pub async fn state(&self, exec_id: &str) -> Result<api::StateResponse> {
        let request = api::StateRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
        };
        self.call("State", &request, Some(shim::STATE)).await
    }

    /// Waits until the init process has ended.
    ///
    /// # Errors
    ///
    /// `NotFound` when the task vanished and nobody knows how it ended.
    pub async fn wait(&self) -> Result<Exit> {
        let mut exit = self.exit.subscribe();
        let known = tokio::select! {
            biased;
            known = exit.wait_for(Option::is_some) => known.ok().and_then(|exit| exit.clone()),
            () = self.gone() => self.exit(),
        };
        known.ok_or_else(|| Self::not_found(&self.id))
    }

    /// Waits until an exec has ended.
    ///
    /// However many clients ask, and however often, one question is open at the shim: a call that a client abandons
    /// cannot be taken back from a shim.
    ///
    /// # Errors
    ///
    /// As [`Task::call`]; `NotFound` when the exec is deleted before it has ended.
    pub async fn wait_exec(self: &Arc<Self>, exec_id: &str) -> Result<Exit> {
        let mut answer = self.exec_wait(exec_id);
        let answer = match answer.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone(),
            Err(_) => None,
        };
        match answer {
            Some(Ok(answer)) => Ok(Exit {
                pid: 0,
                status: answer.exit_status,
                at: answer.exited_at,
            }),
            Some(Err(CallError::Closed)) | None => Err(self.lost("Wait").await),
            Some(Err(error)) => Err(shim::error(error)),
        }
    }

    fn exec_wait(
        self: &Arc<Self>,
        exec_id: &str,
    ) -> watch::Receiver<Option<Result<api::WaitResponse, CallError>>> {
        let mut waits = self.exec_waits();
        if let Some(wait) = waits.get(exec_id) {
            return wait.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        waits.insert(exec_id.to_owned(), sender);
        drop(waits);
        let task = Arc::clone(self);
        let request = api::WaitRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
        };
        tokio::spawn(async move {
            let answer = task.shim().call("Wait", &request, None).await;
            task.answer_exec_waits(&request.exec_id, answer);
        });
        receiver
    }

    /// Tells those who wait for an exec that it was deleted.
    pub fn exec_deleted(&self, exec_id: &str) {
        let gone = CallError::Status {
            code: tonic::Code::NotFound as i32,
            message: format!("process {exec_id}: not found"),
        };
        self.answer_exec_waits(exec_id, Err(gone));
    }

    fn answer_exec_waits(&self, exec_id: &str, answer: Result<api::WaitResponse, CallError>) {
        if let Some(wait) = self.exec_waits().remove(exec_id) {
            wait.send_replace(Some(answer));
        }
    }

    /// Waits for the verdict on a connection that was lost, and words it.
    pub async fn lost(&self, method: &str) -> Error {
        let mut shim = self.shim.subscribe();
        tokio::select! {
            () = self.gone() => Self::not_found(&self.id),
            _ = shim.wait_for(|shim| !shim.is_closed()) => Error::new(
                Kind::Unavailable,
                format!("task {}: connection to its shim was lost in {method}", self.id),
            ),
        }
    }

    fn exec_waits(&self) -> MutexGuard<'_, HashMap<String, ExecWait>> {
        // Each critical section is one operation on the map.
        self.exec_waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
