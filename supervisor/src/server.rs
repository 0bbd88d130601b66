//! Opening an instance and serving it.
//!
//! The root belongs to one process, which holds a lock on `<root>/lock` as long as it lives. Directories get their modes
//! whatever the umask: root and state 0711 (shims and rootfs below them are walked to), what is in them 0700.

use std::{
    fs::{self, File, OpenOptions},
    future::Future,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use wharf_proto::containerd::types::Envelope;

use crate::{
    Config, api, config,
    daemon::Daemon,
    error::{Error, Kind, Result},
    gc,
    listen::{self, Incoming},
    metrics, restart, sys, task,
};

/// How often it is looked whether time alone has made garbage.
const GARBAGE_LOOK: Duration = Duration::from_secs(60);
/// How long garbage lies before it is collected, so that a series of deletions is one collection.
const GARBAGE_DELAY: Duration = Duration::from_secs(1);
/// How long calls in progress may take to finish when the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// The same when another one is about to go on: containerd's clients wait ten seconds for a connection.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How long connections are told to go elsewhere before what waits on them is ended, so that nobody asks again here.
const LEAD: Duration = Duration::from_millis(250);
/// How long the clients of the daemon before this one may take to subscribe again and miss nothing.
const COMING_BACK: Duration = Duration::from_secs(15);

/// How much of one call's messages may be on its way. A client's message of content is a megabyte: the next one is received while
/// the one before it is written.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for all calls of a connection.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// The longest frame, for clients that make use of it: content is copied in fewer pieces.
const FRAME: u32 = 256 << 10;

/// An open instance: its stores are recovered and nothing is served yet.
pub struct Supervisor {
    daemon: Arc<Daemon>,
    /// Held until the process ends or the instance is dropped.
    _lock: File,
    grpc: config::Grpc,
    restart_interval: Duration,
    /// What calls are counted with, if they are.
    calls: Option<Arc<metrics::Calls>>,
    /// Where metrics are served.
    metrics: Option<std::net::TcpListener>,
}

/// How long an instance may go on after it was told to stop serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It ends: calls in progress have ten seconds.
    End,
    /// Another daemon waits for the stores, and clients for that one: calls in progress have five seconds.
    HandOver,
}

impl Supervisor {
    /// Opens the instance, recovering what a crash left.
    ///
    /// # Errors
    ///
    /// `Unavailable` when another process has the root open; `FailedPrecondition` when the root is of another version;
    /// `Unknown` from the disk.
    pub async fn open(config: Config) -> Result<Self> {
        Self::open_within(config, Duration::ZERO).await
    }

    /// As [`Supervisor::open`], waiting at most `patience` for a process to end that has the root open.
    ///
    /// # Errors
    ///
    /// As [`Supervisor::open`].
    pub async fn open_within(config: Config, patience: Duration) -> Result<Self> {
        tokio::task::spawn_blocking(move || {
            directory(&config.root, 0o711)?;
            directory(&config.state, 0o711)?;
            let lock = lock_within(&config.root, patience)?;
            let daemon = Arc::new(Daemon::open(&config)?);
            daemon.mounts.recover()?;
            // What the daemon before this one had no time for. Not later: nobody expects it without a deletion.
            if patience.is_zero() {
                gc::collect(&daemon)?;
            } else {
                // Clients wait: as soon as they are served.
                daemon.garbage.notify_one();
            }
            Ok(Self {
                daemon,
                _lock: lock,
                restart_interval: config.restart_interval,
                grpc: config.grpc,
                calls: None,
                metrics: None,
            })
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
        let failed = |source| Error::io(format!("listen on {}", address.display()), source);
        let listener = listen::unix(address, &config::Grpc::default())?;
        listener.set_nonblocking(true).map_err(failed)?;
        UnixListener::from_std(listener).map_err(failed)
    }

    /// The API, for a program that calls it without a connection. What is called before [`Supervisor::serve`] has brought
    /// the tasks in order does not find those of the daemon before this one; calls in progress are not waited for when it
    /// ends.
    pub fn routes(&self) -> tonic::service::Routes {
        api::routes(&self.daemon).prepare()
    }

    /// Passes on what nobody heard from the daemon before this one, whose clients are about to come back.
    pub(crate) fn go_on(&self, unheard: Vec<Envelope>) {
        self.daemon.events.await_clients();
        for event in unheard {
            // Not the events service's way alone: an end that was told is not told again.
            if let Err(error) = self.daemon.tasks.forward(event) {
                tracing::warn!(%error, "event of the daemon before this one");
            }
        }
        self.daemon.events.replay_for(COMING_BACK);
    }

    /// Counts the API's calls with `calls`, and serves metrics on `listener` once the API is served.
    pub(crate) fn measure(&mut self, calls: Arc<metrics::Calls>, listener: Option<std::net::TcpListener>) {
        self.calls = Some(calls);
        self.metrics = listener;
    }

    /// Takes up the tasks of the daemon before this one. Before anything is served: who asks for a task must find it.
    ///
    /// # Errors
    ///
    /// `Unknown`: the state directory cannot be read.
    pub async fn reconcile(&self) -> Result<()> {
        self.daemon.sandboxes.reconcile().await?;
        self.daemon.tasks.reconcile().await
    }

    /// Reconciles, and serves the API on `listeners` until `shutdown` completes; calls in progress then have ten seconds
    /// to finish.
    ///
    /// # Errors
    ///
    /// `Unknown` when a listener fails.
    pub async fn serve(
        self,
        listeners: Vec<UnixListener>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        self.reconcile().await?;
        let listeners = listeners.into_iter().map(Incoming::Unix).collect();
        let shutdown = async {
            shutdown.await;
            Stop::End
        };
        self.serve_all(listeners, || Ok(()), shutdown).await.map(drop)
    }

    /// Serves the API on `listeners`, calls `ready`, and goes on until `shutdown` says how to stop. Returns the events that
    /// happened since subscriptions were ended. To be called after [`Supervisor::reconcile`].
    ///
    /// # Errors
    ///
    /// `Unknown` when a listener fails; those of `ready`.
    pub(crate) async fn serve_all(
        self,
        listeners: Vec<Incoming>,
        ready: impl FnOnce() -> Result<()>,
        shutdown: impl Future<Output = Stop> + Send + 'static,
    ) -> Result<Vec<Envelope>> {
        let inbox = task::Inbox::bind(&self.daemon.tasks)?;
        let inbox = tokio::spawn(inbox.serve(Arc::clone(&self.daemon.tasks)));
        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();
        for listener in listeners {
            let routes = api::routes(&self.daemon);
            let stopped = stop.clone().cancelled_owned();
            let mut server = tonic::transport::Server::builder()
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(FRAME)
                .layer(metrics::Counting(self.calls.clone()));
            match listener {
                Incoming::Unix(listener) => {
                    let connections = listen::unix_connections(listener, self.grpc.peer_uids.clone());
                    let router = server.add_routes(routes);
                    servers.spawn(router.serve_with_incoming_shutdown(connections, stopped));
                }
                Incoming::Tcp(listener, tls) => {
                    let mut server = server
                        .tls_config(*tls)
                        .map_err(|error| Error::unknown("serve TLS", error))?;
                    let connections = listen::tcp_connections(listener);
                    let router = server.add_routes(routes);
                    servers.spawn(router.serve_with_incoming_shutdown(connections, stopped));
                }
            }
        }
        let collector = tokio::spawn(collect_garbage(Arc::clone(&self.daemon)));
        let restarts = tokio::spawn(restart::watch(Arc::clone(&self.daemon), self.restart_interval));
        let scraped = match (self.metrics, &self.calls) {
            (Some(listener), Some(calls)) => {
                let failed = |error| Error::io("watch the metrics' socket", error);
                listener.set_nonblocking(true).map_err(failed)?;
                let listener = TcpListener::from_std(listener).map_err(failed)?;
                let serving = metrics::serve(listener, Arc::clone(&self.daemon), Arc::clone(calls));
                Some(tokio::spawn(serving).abort_handle())
            }
            _ => None,
        };
        ready()?;
        let watcher = {
            let stop = stop.clone();
            let daemon = Arc::clone(&self.daemon);
            tokio::spawn(async move {
                let how = shutdown.await;
                stop.cancel();
                if how == Stop::HandOver {
                    tokio::time::sleep(LEAD).await;
                }
                // Subscriptions and watchers would keep their connections open for ever.
                daemon.stopping.cancel();
                daemon.events.close();
                tokio::time::sleep(match how {
                    Stop::End => DRAIN,
                    Stop::HandOver => HAND_OVER,
                })
                .await;
                tracing::warn!("calls still in progress are cut off");
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
        let ended = watcher.abort_handle();
        let outcome = tokio::select! {
            outcome = all => outcome,
            _ = watcher => Ok(()),
        };
        ended.abort();
        collector.abort();
        restarts.abort();
        inbox.abort();
        if let Some(scraped) = scraped {
            scraped.abort();
        }
        self.daemon.events.close();
        self.daemon.blocking(|daemon| daemon.metadata.sync()).await?;
        let unheard = self.daemon.events.unheard();
        outcome.map(|()| unheard.iter().map(|entry| entry.envelope.clone()).collect())
    }
}

/// Collects garbage a while after something may have become it, or has by time alone; once more when it could not. That is when a
/// client has done something large, too, and the memory that took is given back.
async fn collect_garbage(daemon: Arc<Daemon>) {
    let mut failed = false;
    let mut collected_at = jiff::Timestamp::UNIX_EPOCH;
    loop {
        tokio::select! {
            () = daemon.garbage.notified() => tokio::time::sleep(GARBAGE_DELAY).await,
            () = tokio::time::sleep(GARBAGE_LOOK) => {
                // What cannot be looked at cannot be collected either, which tells why.
                let due = daemon.blocking(move |daemon| gc::is_due(daemon, collected_at));
                if !failed && !due.await.unwrap_or(true) {
                    continue;
                }
            }
        }
        collected_at = jiff::Timestamp::now();
        let collected = daemon.blocking(|daemon| {
            let collected = gc::collect(daemon);
            sys::release_memory();
            collected
        });
        let collected = collected.await;
        failed = collected.is_err();
        match collected {
            Ok(removed) if removed.is_little() => {}
            Ok(removed) => tracing::info!(
                content = removed.content.len(),
                snapshots = removed.snapshots.len(),
                images = removed.images,
                mounts = removed.mounts,
                leases = removed.leases,
                "garbage collected"
            ),
            Err(error) => tracing::error!(%error, "collect garbage"),
        }
    }
}

/// Creates `path` and its parents; the last part gets `mode` if it was created.
pub(crate) fn directory(path: &Path, mode: u32) -> Result<()> {
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

/// Takes the root's lock, waiting at most `patience` for whoever has it. Blocks.
fn lock_within(root: &Path, patience: Duration) -> Result<File> {
    let deadline = Instant::now() + patience;
    loop {
        match lock(root) {
            Err(error) if error.kind() == Kind::Unavailable && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            locked => return locked,
        }
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
