//! The daemon as a process: what it takes over when it starts, the signals that end it, what systemd is told, and giving
//! way to a successor.

use std::{fs, io::ErrorKind, os::fd::AsFd as _, path::Path, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

#[cfg(feature = "otlp")]
use crate::trace;
use crate::{
    Config,
    error::{Error, Result},
    listen::{self, Listeners},
    metrics::Calls,
    notify,
    server::{Stop, Supervisor},
    task,
    upgrade::{self, Control, Outcome, Predecessor, Sockets, Standby},
};

/// Threads for calls that block on the disk.
const BLOCKING_THREADS: usize = 64;
/// How long the daemon that gives way, or a successor that died, may hold the root's lock once it is gone.
const LOCK: Duration = Duration::from_secs(10);

/// How long the last spans may take to their collector.
#[cfg(feature = "otlp")]
const SPANS: Duration = Duration::from_secs(1);

/// How the daemon begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// By itself, with the sockets that systemd may have kept for it.
    Fresh,
    /// In place of the one that runs on the same state; by itself if there is none.
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
    // Whoever held it may be on its way out.
    let patience = if start == Start::Fresh {
        Duration::ZERO
    } else {
        LOCK
    };
    let kept = |socket| Predecessor::of_sockets(listen::named(socket));
    let before = match start {
        Start::Fresh => kept(notify::listening()?),
        Start::TakeOver => {
            let sockets = notify::listening()?;
            let before = upgrade::take_over(config)?;
            // What systemd kept is what the running daemon hands over as well.
            if before.is_taken_over() {
                before
            } else {
                kept(sockets)
            }
        }
        Start::Standby(left) => match Standby::of_flag(&left)?.wait()? {
            Outcome::Replaced => return Ok(()),
            Outcome::Resume(before) => before,
        },
    };
    runtime()?.block_on(serve(config, before, patience))
}

/// The async runtime of a daemon.
///
/// # Errors
///
/// `Unknown`: no threads.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    crate::sys::share_heaps();
    tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Error::io("start the async runtime", error))
}

async fn serve(config: &Config, mut before: Predecessor, patience: Duration) -> Result<()> {
    let watch = |kind, name: &str| signal(kind).map_err(|error| Error::io(format!("watch {name}"), error));
    let mut terminate = watch(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = watch(SignalKind::interrupt(), "SIGINT")?;
    let mut supervisor = Supervisor::open_within(config.clone(), patience).await?;
    if before.is_taken_over() {
        supervisor.go_on(before.events()?);
    }
    supervisor.reconcile().await?;
    let mut inherited = before.sockets();
    let listeners = Listeners::bind(&config.address, &config.grpc, &mut inherited)?;
    let mut sockets = listeners.handles()?;
    let scrapes = match &config.metrics {
        None => None,
        Some(metrics) => {
            let listener = listen::tcp(metrics.address, &mut inherited)?;
            let handle = listener
                .try_clone()
                .map_err(|error| Error::io("duplicate a socket", error))?;
            sockets.insert(listen::tcp_name(metrics.address), handle.into());
            tracing::info!(address = %metrics.address, "serving metrics");
            Some(listener)
        }
    };
    let histogram = config
        .metrics
        .as_ref()
        .is_some_and(|metrics| metrics.grpc_histogram);
    let calls = scrapes.is_some().then(|| Calls::new(histogram));
    #[cfg(feature = "otlp")]
    let (calls, sending) = traced(config, histogram, calls)?;
    if let Some(calls) = calls {
        supervisor.measure(calls, scrapes);
    }
    let sockets = Arc::new(sockets);
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
    #[cfg(feature = "otlp")]
    if let Some(sending) = sending {
        // The calls are over, and their spans on the way. A collector that does not take them holds nobody up.
        drop(tokio::time::timeout(SPANS, sending).await);
    }
    match given_way.await {
        Ok(successor) => Standby::become_one(successor, &unheard, &sockets),
        Err(_) => clean_up(config),
    }
}

/// The task that ends when all spans are sent.
#[cfg(feature = "otlp")]
type Sending = tokio::task::JoinHandle<()>;

/// Calls that are traced as well, and the task that ends when all spans are sent, if a collector is configured.
#[cfg(feature = "otlp")]
fn traced(
    config: &Config,
    histogram: bool,
    calls: Option<Arc<Calls>>,
) -> Result<(Option<Arc<Calls>>, Option<Sending>)> {
    let Some(settings) = trace::Settings::of_environment(&config.tracing)? else {
        return Ok((calls, None));
    };
    let (tracer, sending) = trace::Tracer::start(settings)?;
    Ok((Some(Calls::traced(histogram, tracer)), Some(sending)))
}

/// Tells systemd that the daemon serves, and gives it the sockets to keep for the next one.
fn announce(sockets: &Sockets) -> Result<()> {
    notify::send("READY=1", &[])?;
    let descriptors: Vec<_> = sockets.values().map(|socket| socket.as_fd()).collect();
    notify::send("FDSTORE=1\nFDNAME=wharfd", &descriptors)
}

/// Removes the sockets' files, and a directory for those of shims. systemd keeps the API's socket itself for a restart, so its
/// file stays there.
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
    task::leave(&config.state);
    remove(&upgrade::address(&config.state))
}
