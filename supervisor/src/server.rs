//! Opening an instance and serving it.
//!
//! The root belongs to one process, which holds a lock on `<root>/lock` as long as it lives. Directories get their modes
//! whatever the umask: root and state 0711 (shims and rootfs below them are walked to), what is in them 0700.

use std::{
    fs::{self, File, OpenOptions},
    future::Future,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use tokio::{net::UnixListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, api,
    daemon::Daemon,
    error::{Error, Result},
    gc, task,
};

/// How long garbage lies before it is collected, so that a series of deletions is one collection.
const GARBAGE_DELAY: Duration = Duration::from_secs(1);
/// How long calls in progress may take to finish when the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// An open instance: its stores are recovered and nothing is served yet.
pub struct Supervisor {
    daemon: Arc<Daemon>,
    /// Held until the process ends or the instance is dropped.
    _lock: File,
}

impl Supervisor {
    /// Opens the instance, recovering what a crash left.
    ///
    /// # Errors
    ///
    /// `Unavailable` when another process has the root open; `FailedPrecondition` when the root is of another version;
    /// `Unknown` from the disk.
    pub async fn open(config: Config) -> Result<Self> {
        tokio::task::spawn_blocking(move || {
            directory(&config.root, 0o711)?;
            directory(&config.state, 0o711)?;
            let lock = lock(&config.root)?;
            let daemon = Arc::new(Daemon::open(&config)?);
            // What the daemon before this one had no time for. Not later: nobody expects it without a deletion.
            gc::collect(&daemon)?;
            Ok(Self { daemon, _lock: lock })
        })
        .await
        .map_err(|error| Error::unknown("open the supervisor", error))?
    }

    /// Listens on a unix socket: mode 0660, owned by root. A socket file that nobody listens on is replaced.
    ///
    /// # Errors
    ///
    /// `Unavailable` when somebody listens on it; `Unknown` when it cannot be made.
    pub async fn listen(address: &Path) -> Result<UnixListener> {
        if let Some(parent) = address.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            directory(parent, 0o711)?;
        }
        match tokio::net::UnixStream::connect(address).await {
            Ok(_) => {
                return Err(Error::unavailable(format!(
                    "listen on {}: somebody serves it",
                    address.display()
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(address)
                .map_err(|source| Error::io(format!("remove stale socket {}", address.display()), source))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::io(format!("probe socket {}", address.display()), source)),
        }
        // Bound under another name, so that nobody can connect before the mode is set.
        let mut name = address.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let temporary = PathBuf::from(name);
        let failed = |source| Error::io(format!("listen on {}", address.display()), source);
        let listener = UnixListener::bind(&temporary).map_err(failed)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o660))
            .and_then(|()| fs::rename(&temporary, address))
            .map_err(failed)?;
        Ok(listener)
    }

    /// The API, for a program that calls it without a connection. What is called before [`Supervisor::serve`] has brought
    /// the tasks in order does not find those of the daemon before this one; calls in progress are not waited for when it
    /// ends.
    pub fn routes(&self) -> tonic::service::Routes {
        api::routes(&self.daemon).prepare()
    }

    /// Serves the API on `listeners` until `shutdown` completes; calls in progress then have ten seconds to finish.
    ///
    /// # Errors
    ///
    /// `Unknown` when a listener fails.
    pub async fn serve(
        self,
        listeners: Vec<UnixListener>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        // Before anything is served: who asks for a task must find those of the daemon before this one.
        self.daemon.sandboxes.reconcile().await?;
        self.daemon.tasks.reconcile().await?;
        let inbox = task::Inbox::bind(&self.daemon.tasks)?;
        let inbox = tokio::spawn(inbox.serve(Arc::clone(&self.daemon.tasks)));
        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();
        for listener in listeners {
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            let routes = api::routes(&self.daemon);
            servers.spawn(
                tonic::transport::Server::builder()
                    .add_routes(routes)
                    .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()),
            );
        }
        let collector = tokio::spawn(collect_garbage(Arc::clone(&self.daemon)));
        let watcher = {
            let stop = stop.clone();
            let daemon = Arc::clone(&self.daemon);
            tokio::spawn(async move {
                shutdown.await;
                // Subscriptions and watchers would keep their connections open for ever.
                daemon.stopping.cancel();
                daemon.events.close();
                stop.cancel();
            })
        };
        let all = async {
            let mut outcome = Ok(());
            while let Some(joined) = servers.join_next().await {
                let served = joined
                    .map_err(|error| Error::unknown("serve", error))
                    .and_then(|served| served.map_err(|error| Error::unknown("serve", error)));
                outcome = outcome.and(served);
            }
            outcome
        };
        let outcome = tokio::select! {
            outcome = all => outcome,
            () = async { stop.cancelled().await; tokio::time::sleep(DRAIN).await } => {
                tracing::warn!("calls still in progress are cut off");
                Ok(())
            }
        };
        watcher.abort();
        collector.abort();
        inbox.abort();
        self.daemon.blocking(|daemon| daemon.metadata.sync()).await?;
        outcome
    }
}

/// Collects garbage a while after something may have become it.
async fn collect_garbage(daemon: Arc<Daemon>) {
    loop {
        daemon.garbage.notified().await;
        tokio::time::sleep(GARBAGE_DELAY).await;
        match daemon.blocking(gc::collect).await {
            Ok(removed) if removed.content.is_empty() && removed.snapshots.is_empty() => {}
            Ok(removed) => tracing::info!(
                content = removed.content.len(),
                snapshots = removed.snapshots.len(),
                images = removed.images,
                leases = removed.leases,
                "garbage collected"
            ),
            Err(error) => tracing::error!(%error, "collect garbage"),
        }
    }
}

/// Creates `path` and its parents; the last part gets `mode` if it was created.
fn directory(path: &Path, mode: u32) -> Result<()> {
    let failed = |source| Error::io(format!("create {}", path.display()), source);
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(parent)
            .map_err(failed)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Takes the root's lock, and leaves the pid in the file for people.
pub(crate) fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let failed = |source: io::Error| Error::io(format!("lock {}", path.display()), source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let owner = fs::read_to_string(&path).unwrap_or_default();
            let owner = owner.trim();
            return Err(Error::unavailable(format!(
                "root {} is in use by process {owner}",
                root.display()
            )));
        }
        Err(error) => return Err(failed(error.into())),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(file)
}
