//! Tasks: the running containers, each behind a shim of its own.
//!
//! ```text
//! api/tasks ──► Tasks ──► create ─┬► fork_server (our own) ─┬► shim (ttrpc) ──► Create
//!                 │               └► spawn (shim start) ────┘
//!                 │   ├─► handle::Task ──► shim ──► State, Start, Exec, Kill, …
//!                 │   ├─► delete
//!                 │   └─► reconcile          once, before anything is served
//!                 └─ monitor                 one a task: its exit, and its shim's death
//! shims ──────► inbox (ttrpc) ──► Tasks::forward ──► ledger ──► event::Exchange
//! ```
//!
//! A shim outlives the daemon. What the daemon must know to find it again is in the [`bundle`]; how a task ended is asked
//! of the shim, and of the exit record when the shim is gone.
//!
//! Architecture invariants:
//!
//! - Nothing here commits metadata or waits for a disk, and no lock is held while a shim is started or called: containers
//!   start side by side.
//! - Events of shims are passed on, not believed: an exit is known when the shim answers `Wait` or `State`, or has left a
//!   record. Each exit is published once ([`ledger`]).
//! - Every step of a creation has an undo, run in reverse when a later one fails or the client hangs up.
//! - A bundle on disk is owned by an entry of the table, or by reconciliation.

mod bundle;
pub(crate) mod checkpoint;
mod create;
mod delete;
mod exit_record;
mod fork_server;
mod handle;
mod inbox;
mod info;
mod launch;
mod ledger;
mod monitor;
mod reconcile;
mod runtime_name;
mod shim;
mod shim_log;
mod spawn;
#[cfg(test)]
mod tests;
mod ttrpc;
pub mod unmount;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wharf_proto::any;
use wharf_proto::containerd::events::{TaskDelete, TaskExit};
use wharf_proto::containerd::types::Envelope;

pub(crate) use bundle::{Bootstrap, Bundle, make_known as make_bundles_known};
pub use create::Create;
pub use handle::{Exit, Task};
pub use inbox::Inbox;
pub(crate) use reconcile::bundles;
pub use shim::STATE as STATE_TIMEOUT;
pub(crate) use shim::{Shim, error as shim_error};
pub(crate) use ttrpc::CallError;
pub use unmount::mounts_below;

use crate::config::Config;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::event::{Exchange, check};
use crate::opt::Opt;

/// The topic of the end of a process.
const EXIT: &str = "/tasks/exit";

/// All tasks of one daemon.
#[derive(Debug)]
pub struct Tasks {
    /// The directory of all bundles.
    directory: PathBuf,
    /// What shims are told.
    daemon: spawn::Daemon,
    /// The executable to use as Wharf's own shim.
    own_shim: Option<PathBuf>,
    /// What shims of our own are forked from.
    fork_server: fork_server::ForkServer,
    events: Arc<Exchange>,
    ledger: ledger::Ledger,
    table: Mutex<HashMap<Key, Slot>>,
}

/// Namespace and id.
type Key = (String, String);

#[derive(Debug)]
enum Slot {
    /// Being created.
    Reserved,
    Live(Arc<Task>),
}

/// Whether an event is told as it happens, or found out after the daemon was down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Now,
    Recovered,
}

/// Where directories for sockets are that would be too deep elsewhere.
const SOCKETS_OUTSIDE: &str = "/run/wharf-shims";

/// The longest path of a directory for sockets: a name of 32 digits in it is as long as the kernel takes.
const LONGEST_SOCKETS: usize = 107 - 1 - 32;

/// Where the shims of the daemon with the directory `state` make their sockets. It is nobody else's, as whoever listens
/// there without a bundle is told to leave.
fn sockets(state: &Path) -> PathBuf {
    let inside = state.join("s");
    if inside.as_os_str().len() <= LONGEST_SOCKETS {
        return inside;
    }
    let digest = Digest::of(state.as_os_str().as_encoded_bytes());
    Path::new(SOCKETS_OUTSIDE).join(&digest.hex()[..16])
}

/// Removes the directory that a daemon with a deep `state` has outside of it, and the one around all such, if no shim serves
/// there. What stays is for the daemon that comes next. Blocks.
pub(crate) fn leave(state: &Path) {
    let sockets = sockets(state);
    if !sockets.starts_with(SOCKETS_OUTSIDE) {
        return;
    }
    for directory in [sockets.as_path(), Path::new(SOCKETS_OUTSIDE)] {
        match std::fs::remove_dir(directory) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                tracing::warn!(path = %directory.display(), %error, "remove a directory of sockets");
            }
            _ => {}
        }
    }
}

impl Tasks {
    /// The tasks below the state directory of `config`, none of them loaded yet: see [`Tasks::reconcile`].
    ///
    /// # Errors
    ///
    /// `Unknown`: the daemon's own executable is not known.
    pub fn new(config: &Config, events: Arc<Exchange>, opt: Arc<Opt>) -> Result<Arc<Self>> {
        let executable =
            std::env::current_exe().map_err(|error| Error::io("find the daemon's own executable", error))?;
        let mut inbox = config.address.clone().into_os_string();
        inbox.push(".ttrpc");
        Ok(Arc::new(Self {
            directory: config.state.join("tasks"),
            daemon: spawn::Daemon {
                address: config.address.clone(),
                events: inbox.into(),
                sockets: config
                    .shim_sockets
                    .clone()
                    .unwrap_or_else(|| sockets(&config.state)),
                has_own_sockets: config.shim_sockets.is_none(),
                opt,
                executable,
            },
            own_shim: config.shim.clone(),
            fork_server: fork_server::ForkServer::default(),
            events,
            ledger: ledger::Ledger::default(),
            table: Mutex::default(),
        }))
    }

    /// The task of `id`.
    ///
    /// # Errors
    ///
    /// `NotFound`, also while it is still being created.
    pub fn get(&self, namespace: &str, id: &str) -> Result<Arc<Task>> {
        match self.table().get(&key(namespace, id)) {
            Some(Slot::Live(task)) => Ok(Arc::clone(task)),
            Some(Slot::Reserved) | None => Err(Task::not_found(id)),
        }
    }

    /// All tasks of `namespace`, by id.
    pub fn list(&self, namespace: &str) -> Vec<Arc<Task>> {
        let table = self.table();
        let mut tasks: Vec<_> = table
            .values()
            .filter_map(|slot| match slot {
                Slot::Live(task) if task.namespace == namespace => Some(Arc::clone(task)),
                _ => None,
            })
            .collect();
        drop(table);
        tasks.sort_by(|a, b| a.id.cmp(&b.id));
        tasks
    }

    /// All tasks of all namespaces.
    pub fn all(&self) -> Vec<Arc<Task>> {
        let table = self.table();
        let live = table.values().filter_map(|slot| match slot {
            Slot::Live(task) => Some(Arc::clone(task)),
            Slot::Reserved => None,
        });
        live.collect()
    }

    /// Passes on an event that a shim, or a client on behalf of another, sends. An exit that was told already is
    /// dropped.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: the envelope is not acceptable.
    pub fn forward(&self, envelope: Envelope) -> Result<()> {
        check::envelope(&envelope)?;
        let exit = match (&envelope.event, envelope.topic.as_str()) {
            (Some(event), EXIT) => any::unpack::<TaskExit>(event).ok().flatten(),
            _ => None,
        };
        let Some(exit) = exit else {
            return self.events.forward(envelope);
        };
        if !self.ledger.enter(&end(&envelope.namespace, &exit)) {
            return Ok(());
        }
        let namespace = envelope.namespace.clone();
        self.events.forward(envelope)?;
        self.remember_published(&namespace, &exit);
        Ok(())
    }

    /// Publishes the end of a process unless that was done before.
    fn publish_exit(&self, namespace: &str, exit: TaskExit, when: When) {
        if !self.ledger.enter(&end(namespace, &exit)) {
            return;
        }
        let event = any::pack(&exit);
        match when {
            When::Now => self.events.publish(namespace, EXIT, event),
            When::Recovered => self.events.recover(namespace, EXIT, event, exit.exited_at),
        }
        self.remember_published(namespace, &exit);
    }

    /// Publishes that a task was deleted, for one whose shim cannot.
    fn publish_delete(&self, namespace: &str, id: &str, exit: &Exit, when: When) {
        const TOPIC: &str = "/tasks/delete";
        let event = any::pack(&TaskDelete {
            container_id: id.to_owned(),
            pid: exit.pid,
            exit_status: exit.status,
            exited_at: exit.at,
            id: String::new(),
        });
        match when {
            When::Now => self.events.publish(namespace, TOPIC, event),
            // That is when the daemon deletes it: now.
            When::Recovered => self.events.recover(namespace, TOPIC, event, None),
        }
    }

    /// Leaves a mark in the bundle for the daemon that comes after this one.
    fn remember_published(&self, namespace: &str, exit: &TaskExit) {
        if crate::identifier::validate(&exit.container_id).is_err()
            || crate::identifier::validate(&exit.id).is_err()
        {
            return;
        }
        let bundle = bundle::Bundle::of(&self.directory, namespace, &exit.container_id);
        let is_exec = exit.id != exit.container_id;
        // Deleting the process may overtake this: then there is nothing to remember. What is told again after a restart is
        // what there is a record of, and a shim removes that of an exec before it answers a delete: so either it is seen here
        // that the mark is not wanted, or the one who deletes removes it.
        let is_over = || is_exec && !exit_record::exists(&bundle, &exit.id);
        if is_over() {
            return;
        }
        // A few bytes into memory, for which no other thread is woken.
        let marked = bundle.set_published(&exit.id, exit.pid).and_then(|()| {
            if is_over() {
                bundle.unset_published(&exit.id)
            } else {
                Ok(())
            }
        });
        if let Err(error) = marked {
            tracing::debug!(%error, "published exit not marked");
        }
    }

    /// Removes the mark of an exec that was deleted: a container may run any number of them.
    pub fn forget_exec(&self, task: &Task, exec_id: &str) {
        if let Err(error) = task.bundle.unset_published(exec_id) {
            tracing::debug!(%error, "mark of a deleted exec not removed");
        }
    }

    /// The shim of `bundle`, to be run.
    pub(crate) fn invocation<'a>(
        &'a self,
        namespace: &'a str,
        id: &'a str,
        bundle: &'a bundle::Bundle,
        shim: &'a std::path::Path,
    ) -> spawn::Invocation<'a> {
        spawn::Invocation {
            daemon: &self.daemon,
            shim,
            namespace,
            id,
            bundle,
        }
    }

    /// Puts a task into the table and watches over it.
    fn adopt(self: &Arc<Self>, task: Arc<Task>) {
        let slot = Slot::Live(Arc::clone(&task));
        self.table().insert(key(&task.namespace, &task.id), slot);
        tokio::spawn(monitor::watch(Arc::clone(self), task));
    }

    /// Takes a task out of the table: the last step of its end.
    fn release(&self, task: &Task) {
        self.table().remove(&key(&task.namespace, &task.id));
        task.vanish();
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        // Each critical section is one operation on the map.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(namespace: &str, id: &str) -> Key {
    (namespace.to_owned(), id.to_owned())
}

fn end(namespace: &str, exit: &TaskExit) -> ledger::Exit {
    ledger::Exit {
        namespace: namespace.to_owned(),
        container: exit.container_id.clone(),
        process: exit.id.clone(),
        pid: exit.pid,
    }
}

/// Runs file-system work on the blocking pool.
///
/// # Errors
///
/// Those of `work`; `Unknown` when it panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::unknown("run on the blocking pool", error))?
}
