//! The daemon as a process: what it takes over when it starts, the signals that end it, what systemd is told, and giving
//! way to a successor.

use std::{fs, io::ErrorKind, os::fd::AsFd as _, path::Path, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    Config,
    error::{Error, Result},
    listen::{self, Listeners},
    notify,
    server::{Stop, Supervisor},
    upgrade::{self, Control, Outcome, Predecessor, Sockets, Standby},
};

/// Threads for calls that block on the disk.
const BLOCKING_THREADS: usize = 64;
/// How long the daemon that gives way, or a successor that died, may hold the root's lock once it is gone.
const LOCK: Duration = Duration::from_secs(10);

/// How the daemon begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// By itself, with the sockets that systemd may have kept for it.
    Fresh,
    /// In place of the one that runs on the same state, if there is one.
    TakeOver,
    /// Having given up its stores to a successor: what it left itself.
    Standby(String),
}

/// Runs the daemon until SIGTERM or SIGINT ends it, or a successor serves. Blocks.
///
/// # Errors
///
/// `Unavailable` when another process has the root or the socket; `FailedPrecondition` when the running one refuses to
/// give way, or the root is of another version; `Unknown` from the disk.
pub fn run(config: &Config, start: Start) -> Result<()> {
    // Before a daemon that serves is asked to give way: what cannot work must not be found out afterwards.
    listen::check(&config.grpc)?;
    let before = match start {
        Start::Fresh => Predecessor::of_sockets(listen::named(notify::listening()?)),
        Start::TakeOver => upgrade::take_over(config)?,
        Start::Standby(left) => match Standby::of_flag(&left)?.wait()? {
            Outcome::Replaced => return Ok(()),
            Outcome::Resume(before) => before,
        },
    };
    runtime()?.block_on(serve(config, before))
}

/// The async runtime of a daemon.
///
/// # Errors
///
/// `Unknown`: no threads.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Error::io("start the async runtime", error))
}

async fn serve(config: &Config, mut before: Predecessor) -> Result<()> {
    let watch = |kind, name: &str| signal(kind).map_err(|error| Error::io(format!("watch {name}"), error));
    let mut terminate = watch(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = watch(SignalKind::interrupt(), "SIGINT")?;
    let patience = if before.is_taken_over() {
        LOCK
    } else {
        Duration::ZERO
    };
    let supervisor = Supervisor::open_within(config.clone(), patience).await?;
    if before.is_taken_over() {
        supervisor.go_on(before.events()?);
    }
    supervisor.reconcile().await?;
    let mut inherited = before.sockets();
    let listeners = Listeners::bind(&config.address, &config.grpc, &mut inherited)?;
    let sockets = Arc::new(listeners.handles()?);
    // What nobody listens on any more is closed: who waits there would wait for ever.
    drop(inherited);
    let mut successors = Control::bind(&config.state)?.serve(&config.root, Arc::clone(&sockets))?;
    let (give_way, given_way) = oneshot::channel();
    let shutdown = async move {
        let successor = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            successor = successors.recv() => successor,
        };
        let Some(successor) = successor else {
            tracing::info!("stopping");
            return Stop::End;
        };
        tracing::info!("giving way to a new daemon");
        if let Err(error) = notify::send(&notify::reloading(), &[]) {
            tracing::warn!(%error, "hand-over not announced");
        }
        // The receiver outlives this.
        drop(give_way.send(successor));
        Stop::HandOver
    };
    let ready = || {
        before.dismiss();
        tracing::info!(address = %config.address.display(), "serving");
        announce(&sockets)
    };
    let unheard = supervisor
        .serve_all(listeners.into_async()?, ready, shutdown)
        .await?;
    match given_way.await {
        Ok(successor) => Standby::become_one(successor, &unheard, &sockets),
        Err(_) => clean_up(config),
    }
}

/// Tells systemd that the daemon serves, and gives it the sockets to keep for the next one.
fn announce(sockets: &Sockets) -> Result<()> {
    notify::send("READY=1", &[])?;
    let descriptors: Vec<_> = sockets.values().map(|socket| socket.as_fd()).collect();
    notify::send("FDSTORE=1\nFDNAME=wharfd", &descriptors)
}

/// Removes the sockets' files. systemd keeps the API's socket itself for a restart, so its file stays there.
fn clean_up(config: &Config) -> Result<()> {
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    };
    if !notify::is_wanted() {
        remove(&config.address)?;
    }
    remove(&upgrade::address(&config.state))
}
