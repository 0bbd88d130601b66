//! Taking up what an earlier daemon left: once, before anything is served.
//!
//! For each bundle, what its shim says decides, and what the disk says when there is no shim:
//!
//! | shim | knows the task | what happens |
//! |---|---|---|
//! | answers | created, running, paused | the task is taken up again, and watched |
//! | answers | stopped | the same; its exit is published with its own time unless that was done |
//! | answers | not at all | the shim is told to leave, the bundle is removed |
//! | does not answer | | taken up: it may only be slow, and its container runs |
//! | is dead | `task.json` exists | cleaned up by `delete`; exit and delete are published |
//! | is dead, or never was | was never created | cleaned up; nobody was told of it, so nobody is now |

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use wharf_proto::containerd::v1::types::Status;

use super::bundle::{Bootstrap, Bundle};
use super::delete::Remains;
use super::handle::Task;
use super::shim::{self, Shim};
use super::ttrpc::CallError;
use super::{Slot, Tasks, When, blocking, exit_record, ledger, monitor, shim_log, spawn};
use crate::error::{Error, Result};

/// How many bundles are looked at side by side.
const PARALLEL: usize = 32;

/// What the disk says about a bundle.
struct Found {
    executable: Option<PathBuf>,
    bootstrap: Option<Bootstrap>,
    created: Option<u32>,
    published: Option<u32>,
    is_sandboxed: bool,
}

impl Tasks {
    /// Takes up or cleans up every bundle below the state directory. A bundle that cannot be dealt with is logged and
    /// left for the next start; it does not keep the daemon from starting.
    ///
    /// # Errors
    ///
    /// `Unknown`: the state directory cannot be made or read.
    pub async fn reconcile(self: &Arc<Self>) -> Result<()> {
        let directory = self.directory.clone();
        let bundles = blocking(move || bundles(&directory)).await?;
        // Where others have their sockets as well, only the bundles tell which are ours.
        let noted = match self.daemon.has_own_sockets {
            true => None,
            false => {
                let (tasks, bundles) = (Arc::clone(self), bundles.clone());
                Some(blocking(move || Ok(tasks.noted(&bundles))).await?)
            }
        };
        let places = Arc::new(Semaphore::new(PARALLEL));
        let mut work = JoinSet::new();
        for (namespace, id) in bundles {
            let (tasks, places) = (Arc::clone(self), Arc::clone(&places));
            work.spawn(async move {
                // The semaphore is never closed.
                let _place = places.acquire().await;
                if let Err(error) = tasks.take_up(&namespace, &id).await {
                    tracing::error!(namespace, container_id = id, %error, "task not recovered");
                }
            });
        }
        while let Some(done) = work.join_next().await {
            if let Err(error) = done {
                tracing::error!(%error, "recovery of a task panicked");
            }
        }
        self.sweep_sockets(noted).await
    }

    /// Where the shims of `bundles` may serve: ours was noted there, or has the name that a shim gives it whose container
    /// belongs to no group. Blocks.
    fn noted(&self, bundles: &[(String, String)]) -> BTreeSet<String> {
        let mut addresses = BTreeSet::new();
        for (namespace, id) in bundles {
            let noted = fs::read_to_string(self.directory.join(namespace).join(id).join("address"));
            let alone = spawn::alone(&self.daemon, namespace, id);
            addresses.extend(noted);
            addresses.extend(alone.to_str().map(|path| format!("unix://{path}")));
        }
        addresses
    }

    /// Tells shims of ours to leave that no bundle leads to: the daemon was killed while it started them. Sockets that
    /// nobody listens on are removed.
    async fn sweep_sockets(&self, noted: Option<BTreeSet<String>>) -> Result<()> {
        let sockets = self.daemon.sockets.clone();
        let addresses = blocking(move || match noted {
            None => socket_addresses(&sockets),
            Some(noted) => Ok(noted.into_iter().filter(|address| is_socket(address)).collect()),
        });
        for address in addresses.await? {
            let in_use = self.table().values().any(|slot| match slot {
                Slot::Live(task) => task.shim().address() == address,
                Slot::Reserved => false,
            });
            if in_use {
                continue;
            }
            let bootstrap = Bootstrap {
                version: 2,
                address,
                protocol: "ttrpc".to_owned(),
            };
            match Shim::connect(&bootstrap).await? {
                Ok(shim) => {
                    tracing::info!(address = bootstrap.address, "shim without a bundle told to leave");
                    // It stays if it has a task after all.
                    shim.shutdown("").await;
                }
                Err(error) if error.nobody_listens() => {
                    let socket = spawn::socket(&bootstrap.address)?;
                    blocking(move || match fs::remove_file(&socket) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            Err(Error::io(format!("remove {}", socket.display()), error))
                        }
                        _ => Ok(()),
                    })
                    .await?;
                }
                Err(error) => tracing::warn!(address = bootstrap.address, %error, "shim cannot be reached"),
            }
        }
        Ok(())
    }

    async fn take_up(self: &Arc<Self>, namespace: &str, id: &str) -> Result<()> {
        let bundle = Bundle::of(&self.directory, namespace, id);
        let found = {
            let (bundle, id) = (bundle.clone(), id.to_owned());
            blocking(move || Ok(look(&bundle, &id))).await?
        };
        self.enter_published(namespace, id, &bundle, found.published)
            .await;
        let connected = match &found.bootstrap {
            Some(bootstrap) => match Shim::connect(bootstrap).await? {
                Ok(shim) => Some(shim),
                Err(error) if error.nobody_listens() => None,
                Err(error) => return Err(Error::unknown("connect", error)),
            },
            None => None,
        };
        // Without an executable no shim was started.
        let Some(executable) = found.executable else {
            return blocking(move || bundle.remove()).await;
        };
        let Some(shim) = connected else {
            return self
                .clean_up(namespace, id, bundle, executable, found.created)
                .await;
        };
        let (state, pid) = match shim.state(id, "").await {
            Ok(state) => {
                let pid = state.pid;
                (Some(state), pid)
            }
            Err(error) if shim::is_not_found(&error) => {
                tracing::info!(namespace, container_id = id, "shim without a task told to leave");
                shim.shutdown(id).await;
                return self.clean_up(namespace, id, bundle, executable, None).await;
            }
            Err(CallError::Closed) => {
                return self
                    .clean_up(namespace, id, bundle, executable, found.created)
                    .await;
            }
            Err(error) => {
                tracing::warn!(namespace, container_id = id, %error, "shim does not answer");
                (None, found.created.unwrap_or_default())
            }
        };
        // From now on its end may be told, and who waits for it may not have found the new daemon yet.
        self.events.await_clients();
        let stopped = state.filter(|state| state.status == Status::Stopped as i32);
        let log = shim_log::open(&bundle)?;
        shim_log::follow(log, namespace, id, &shim);
        let task = Task::new(namespace, id, pid, bundle, executable, shim).sandboxed(found.is_sandboxed);
        let task = Arc::new(task);
        self.publish_exec_records(&task).await;
        if let Some(state) = stopped {
            let exit = monitor::of_state(&state);
            self.publish_exit(namespace, exit.event(id, id), When::Recovered);
            task.settle(exit);
        }
        tracing::info!(namespace, container_id = id, "task taken up again");
        self.adopt(task);
        Ok(())
    }

    /// Tells the ledger what the earlier daemon published.
    async fn enter_published(&self, namespace: &str, id: &str, bundle: &Bundle, init: Option<u32>) {
        let bundle = bundle.clone();
        let execs = blocking(move || {
            let execs = exit_record::execs(&bundle)?;
            Ok(execs
                .into_iter()
                .filter_map(|(exec, _)| bundle.published(&exec).map(|pid| (exec, pid)))
                .collect::<Vec<_>>())
        });
        let execs = execs.await.unwrap_or_else(|error| {
            tracing::warn!(namespace, container_id = id, %error, "exit records not read");
            Vec::new()
        });
        let init = init.map(|pid| (id.to_owned(), pid));
        for (process, pid) in execs.into_iter().chain(init) {
            self.ledger.enter(&ledger::Exit {
                namespace: namespace.to_owned(),
                container: id.to_owned(),
                process,
                pid,
            });
        }
    }

    /// Publishes the exits of execs that ended while no daemon ran.
    async fn publish_exec_records(&self, task: &Task) {
        let bundle = task.bundle.clone();
        match blocking(move || exit_record::execs(&bundle)).await {
            Ok(execs) => {
                for (exec_id, exit) in execs {
                    self.publish_exit(&task.namespace, exit.event(&task.id, &exec_id), When::Recovered);
                }
            }
            Err(error) => {
                tracing::warn!(namespace = task.namespace, container_id = task.id, %error, "exit records not read");
            }
        }
    }

    /// Cleans up after a dead shim. `created` is the pid of a task that a client knows of.
    async fn clean_up(
        self: &Arc<Self>,
        namespace: &str,
        id: &str,
        bundle: Bundle,
        executable: PathBuf,
        created: Option<u32>,
    ) -> Result<()> {
        if let Some(pid) = created {
            let remains = Remains {
                namespace,
                id,
                pid,
                exit: None,
                bundle: &bundle,
                executable: &executable,
            };
            self.bury(remains, When::Recovered).await;
            return Ok(());
        }
        // `delete` tells how a container ended that nobody was told of; what counts is that it is gone.
        if let Err(error) = self
            .invocation(namespace, id, &bundle, &executable)
            .delete()
            .await
        {
            tracing::warn!(namespace, container_id = id, %error, "shim delete failed");
        }
        blocking(move || bundle.remove()).await
    }
}

/// Reads what an earlier daemon wrote down. A file that cannot be read counts as missing: the bundle is cleaned up all
/// the more. Blocks.
fn look(bundle: &Bundle, id: &str) -> Found {
    fn lenient<T>(bundle: &Bundle, found: Result<Option<T>>) -> Option<T> {
        found.unwrap_or_else(|error| {
            tracing::warn!(bundle = %bundle.path().display(), %error, "counted as missing");
            None
        })
    }
    Found {
        executable: lenient(bundle, bundle.shim()),
        bootstrap: lenient(bundle, bundle.bootstrap()),
        created: lenient(bundle, bundle.created()),
        published: bundle.published(id),
        is_sandboxed: bundle.is_sandboxed(),
    }
}

/// The namespaces and ids of all bundles, after removing those whose removal was interrupted. Blocks.
pub(crate) fn bundles(directory: &Path) -> Result<Vec<(String, String)>> {
    let mut bundles = Vec::new();
    for namespace in subdirectories(directory)? {
        for id in subdirectories(&directory.join(&namespace))? {
            let path = directory.join(&namespace).join(&id);
            if id.starts_with('.') {
                if let Err(error) = super::unmount::below(&path).and_then(|()| {
                    fs::remove_dir_all(&path)
                        .map_err(|error| Error::io(format!("remove {}", path.display()), error))
                }) {
                    tracing::error!(%error, "left-over bundle not removed");
                }
            } else if crate::identifier::validate(&id).is_ok()
                && crate::identifier::validate(&namespace).is_ok()
            {
                bundles.push((namespace.clone(), id));
            } else {
                tracing::warn!(path = %path.display(), "not a bundle: left alone");
            }
        }
    }
    Ok(bundles)
}

/// Whether there is a socket at an address. Blocks.
fn is_socket(address: &str) -> bool {
    spawn::socket(address).is_ok_and(|path| {
        path.symlink_metadata()
            .is_ok_and(|about| about.file_type().is_socket())
    })
}

/// The addresses of all sockets in a directory. Blocks.
fn socket_addresses(directory: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io(format!("read {}", directory.display()), error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut addresses = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_socket()
            && let Some(path) = entry.path().to_str()
        {
            addresses.push(format!("unix://{path}"));
        }
    }
    Ok(addresses)
}

fn subdirectories(path: &Path) -> Result<Vec<String>> {
    let failed = |error| Error::io(format!("read {}", path.display()), error);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
