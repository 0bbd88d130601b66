//! One daemon: its directories, its lock, its supervisor, its sockets.
//!
//! ```text
//! <root>/            0711   lock, id, containers/<id>/ (record, log, generated files), supervisor/
//! <state>/           0711   containers/<id>/ (FIFOs; and all but the log of those that die with the boot), throwaway/<id>/ (layers in memory), mnt/, supervisor/
//! ```
//!
//! Owns the order of coming up: lock, supervisor, reconciliation, and only then the API's socket. Containers are not
//! touched when it goes down.

use crate::api::server;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::supervisor::{Client, Embedded};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;

const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(30);

/// How long operations in progress may take to finish when the daemon is told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// What a daemon needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonConfig {
    /// What survives a reboot. Default `/var/lib/wharf`.
    pub root: PathBuf,
    /// What does not. Default `/run/wharf`.
    pub state: PathBuf,
    /// The socket of the Docker REST API. Default `/run/wharf/wharf.sock`.
    pub socket: PathBuf,
    /// The socket of containerd's gRPC API that the embedded supervisor serves. Default `/run/wharf/wharfd.sock`.
    pub supervisor_socket: PathBuf,
    /// The socket of a containerd that is used in place of the embedded supervisor.
    pub containerd: Option<PathBuf>,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            root: "/var/lib/wharf".into(),
            state: "/run/wharf".into(),
            socket: "/run/wharf/wharf.sock".into(),
            supervisor_socket: "/run/wharf/wharfd.sock".into(),
            containerd: None,
        }
    }
}

/// A daemon that is up and does not serve yet.
#[derive(Debug)]
pub struct Daemon {
    engine: Arc<Engine>,
    listener: UnixListener,
    socket: PathBuf,
    supervisor: Option<Embedded>,
    // Held for the daemon's life: the kernel gives it back however that ends.
    _lock: File,
}

impl Daemon {
    /// Opens a daemon: takes the lock, starts the supervisor or connects to one, brings the containers in line with what
    /// is there, and listens. A client that connects from now on is served as soon as [`Daemon::serve`] runs.
    ///
    /// # Errors
    ///
    /// Another daemon has this root; a directory or a socket cannot be made; the supervisor does not answer.
    pub async fn open(config: DaemonConfig) -> Result<Self> {
        for (path, mode) in [
            (config.root.clone(), 0o711),
            (config.root.join("containers"), 0o700),
            (config.state.clone(), 0o711),
            (config.state.join("containers"), 0o700),
            (config.state.join("throwaway"), 0o700),
            (config.state.join("mnt"), 0o700),
        ] {
            make_directory(&path, mode)?;
        }
        let lock = take_lock(&config.root)?;
        let id = daemon_id(&config.root)?;
        let (supervisor, client) = match &config.containerd {
            Some(address) => {
                let client = Client::new(address);
                client.ready(SUPERVISOR_PATIENCE).await?;
                (None, client)
            }
            None => {
                let supervisor = Embedded::start(
                    config.root.join("supervisor"),
                    config.state.join("supervisor"),
                    config.supervisor_socket.clone(),
                );
                let supervisor = supervisor.await?;
                let client = supervisor.client(SUPERVISOR_PATIENCE).await?;
                (Some(supervisor), client)
            }
        };
        let engine = Arc::new(Engine::new(id, config.root, config.state, client));
        engine.watch_memory();
        engine.reconcile().await?;
        let listener = listen(&config.socket)?;
        Ok(Self {
            engine,
            listener,
            socket: config.socket,
            supervisor,
            _lock: lock,
        })
    }

    /// The engine, for programs that embed it.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Serves until `shutdown` completes. Requests that run are cut off then, operations on containers are finished.
    ///
    /// # Errors
    ///
    /// The socket breaks, or the supervisor ends with an error.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let Self {
            engine,
            listener,
            socket,
            mut supervisor,
            _lock,
        } = self;
        let operations = engine.operations.clone();
        let server = axum::serve(listener, server::router(engine));
        let supervisor_ends = async {
            match &mut supervisor {
                Some(supervisor) => supervisor.ended().await,
                None => std::future::pending().await,
            }
        };
        let served = tokio::select! {
            served = server.into_future() => served.map_err(|error| Error::io("serve", &socket, error)),
            error = supervisor_ends => return Err(error),
            () = shutdown => Ok(()),
        };
        operations.close();
        if tokio::time::timeout(DRAIN, operations.wait()).await.is_err() {
            tracing::warn!("operations still in progress are cut off");
        }
        // Before the lock is given back, so that the next daemon's socket is not taken for ours.
        let removed = match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &socket, error))
            }
            _ => Ok(()),
        };
        let stopped = match supervisor {
            Some(supervisor) => supervisor.stop().await,
            None => Ok(()),
        };
        served.and(stopped).and(removed)
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let failed = |error| Error::io("create", path, error);
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(failed)?;
    // Whatever the umask, and whoever made it.
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)
}

fn take_lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| Error::io("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::conflict(format!(
            "another daemon is using {}",
            root.display()
        ))),
        Err(std::fs::TryLockError::Error(error)) => Err(Error::io("lock", &path, error)),
    }
}

fn daemon_id(root: &Path) -> Result<String> {
    let path = root.join("id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("read", &path, error));
        }
        _ => {}
    }
    let id = crate::id::new()?;
    let beside = root.join("id.new");
    std::fs::write(&beside, &id).map_err(|error| Error::io("write", &beside, error))?;
    std::fs::rename(&beside, &path).map_err(|error| Error::io("rename", &beside, error))?;
    Ok(id)
}

/// Listens on a socket that only root and its group can open. The lock is held, so a socket that is there is stale.
///
/// # Errors
///
/// The directory or the socket cannot be made, or something else than a socket is in its place.
pub fn listen(path: &Path) -> Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        make_directory(parent, 0o711)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(|error| Error::io("remove", path, error))?;
        }
        Ok(_) => return Err(Error::io("listen on", path, "it exists and is not a socket")),
        Err(_) => {}
    }
    // Bound under another name and renamed when its mode is right: nobody connects before.
    let beside = path.with_extension("sock.new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &beside, error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&beside).map_err(|error| Error::io("listen on", path, error))?;
    std::fs::set_permissions(&beside, Permissions::from_mode(0o660))
        .map_err(|error| Error::io("chmod", &beside, error))?;
    std::fs::rename(&beside, path).map_err(|error| Error::io("rename", &beside, error))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_one_daemon() {
        let root = tempfile::tempdir().unwrap();
        let first = take_lock(root.path()).unwrap();
        assert_eq!(
            take_lock(root.path()).unwrap_err().kind(),
            crate::error::Kind::Conflict
        );
        drop(first);
        take_lock(root.path()).unwrap();
    }

    #[tokio::test]
    async fn sockets_are_private_and_replace_only_sockets() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/api.sock");
        drop(listen(&path).unwrap());
        let _again = listen(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        let file = directory.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(listen(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }

    #[test]
    fn the_id_stays() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(daemon_id(root.path()).unwrap(), daemon_id(root.path()).unwrap());
    }
}
