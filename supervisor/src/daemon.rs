//! What all services share: the stores, the tasks and the event log of one instance.
//!
//! Stores block; services reach them through [`Daemon::blocking`].

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Config, config, content,
    error::{Error, Result},
    event, layer,
    metadata::{self, Commit, Key, META, Meta, Read as _},
    mount, opt, sandbox, snapshot, task, transfer,
};

/// How large messages of the API may be, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Messages {
    /// Requests.
    pub receive: usize,
    /// Responses.
    pub send: usize,
}

/// One open instance. Cheap to share as `Arc<Daemon>`.
pub struct Daemon {
    /// The instance's name for itself, made once for a root.
    pub uuid: String,
    /// Rows, in transactions.
    pub metadata: Arc<metadata::Store>,
    /// Blobs and ingests.
    pub content: content::Store,
    /// Snapshots, by namespace and snapshotter.
    pub snapshots: snapshot::Store,
    /// The mounts that the daemon makes and keeps.
    pub mounts: mount::Mounts,
    /// The event log.
    pub events: Arc<event::Exchange>,
    /// The running containers.
    pub tasks: Arc<task::Tasks>,
    /// The running sandboxes.
    pub sandboxes: Arc<sandbox::Controller>,
    /// What transfers share.
    pub transfer: transfer::Shared,
    /// Where clients install programs.
    pub opt: Arc<opt::Opt>,
    /// What makes layers of data that is not understood here.
    pub processors: layer::Processors,
    /// How registries are reached.
    pub registry: config::Registry,
    /// Where processes are saved before they become content. They may be as large as memory, so not below the state.
    pub checkpoints: PathBuf,
    /// An empty directory for mounts in threads' own namespaces.
    pub mount_place: PathBuf,
    /// Cancelled when the daemon is told to stop.
    pub stopping: tokio_util::sync::CancellationToken,
    /// How large messages of the API may be.
    pub messages: Messages,
    /// Told when something may have become garbage.
    pub garbage: tokio::sync::Notify,
    /// Leases, by namespace and id, whose operation ended when they could not be deleted.
    ended: Mutex<BTreeSet<(String, String)>>,
}

impl Daemon {
    /// Opens all stores, recovering what a crash left. Blocks. The caller holds the root's lock.
    ///
    /// # Errors
    ///
    /// `Unknown` from the disk; `FailedPrecondition` when the root is of another version.
    pub fn open(config: &Config) -> Result<Self> {
        let root = &config.root;
        let metadata = metadata::Store::open(root)?;
        let events = Arc::new(event::Exchange::new());
        let content =
            content::Store::open(&root.join("content"), Arc::clone(&metadata), Arc::clone(&events))?;
        let uuid = uuid(&metadata)?;
        let loaded = snapshot::load(&root.join("snapshots"), &config.snapshots, &uuid)?;
        let snapshots = snapshot::Store::open(Arc::clone(&metadata), Arc::clone(&events), loaded)?;
        let mounts = mount::Mounts::new(Arc::clone(&metadata), config.state.join("mounts"), root, &uuid)?;
        let opt = Arc::new(opt::Opt::open(config));
        let tasks = task::Tasks::new(config, Arc::clone(&events), Arc::clone(&opt))?;
        let sandboxes = sandbox::Controller::new(
            config.state.join("sandboxes"),
            Arc::clone(&tasks),
            Arc::clone(&events),
        );
        let checkpoints = root.join("checkpoints");
        task::checkpoint::sweep(&checkpoints)?;
        task::make_bundles_known(&config.state)?;
        let mount_place = config.state.join("mount");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&mount_place)
            .map_err(|source| Error::io(format!("create {}", mount_place.display()), source))?;
        Ok(Self {
            uuid,
            metadata,
            content,
            snapshots,
            mounts,
            events,
            tasks,
            transfer: transfer::Shared::new(&config.transfer),
            sandboxes,
            processors: config.processors.clone().within(&opt),
            opt,
            registry: config.registry.clone(),
            checkpoints,
            mount_place,
            stopping: tokio_util::sync::CancellationToken::new(),
            messages: Messages {
                receive: config.grpc.max_receive,
                send: config.grpc.max_send,
            },
            garbage: tokio::sync::Notify::new(),
            ended: Mutex::default(),
        })
    }

    /// Has the next collection that succeeds delete a lease whose operation ended, if it is there.
    pub fn end_lease_later(&self, scope: &crate::namespace::Scope, id: String) {
        self.ended_leases().insert((scope.namespace.clone(), id));
        self.garbage.notify_one();
    }

    /// The leases that the next collection deletes whatever their labels say.
    pub fn ended_leases(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` on the blocking pool and waits for it. A caller that goes away does not interrupt the work.
    ///
    /// # Errors
    ///
    /// Those of `work`; `Unknown` when it panicked.
    pub async fn blocking<T, F>(self: &Arc<Self>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T> + Send + 'static,
    {
        let daemon = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&daemon))
            .await
            .map_err(|error| Error::unknown("run on the blocking pool", error))?
    }
}

/// The instance's UUID, made by the kernel at first use.
fn uuid(metadata: &metadata::Store) -> Result<String> {
    let key = Key::new(&["uuid"])?;
    metadata.write(Commit::Durable, |txn| {
        if let Some(row) = txn.get(META, &key)? {
            return Ok(row.text);
        }
        let path = "/proc/sys/kernel/random/uuid";
        let text = fs::read_to_string(path).map_err(|source| Error::io(format!("read {path}"), source))?;
        let text = text.trim().to_owned();
        txn.put(
            META,
            &key,
            &Meta {
                text: text.clone(),
                ..Meta::default()
            },
        )?;
        Ok(text)
    })
}
