//! `wharf daemon`: the daemon itself, in the foreground.
//!
//! Owns what concerns the process: its session, file mode mask, limits, log, signals, and telling a service manager when it
//! is ready. Refuses to run except as root; what the daemon does is [`crate::daemon`]'s.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::endpoint::Globals;
use super::failure::{Failure, Outcome};
use super::terminal;
use crate::daemon::{self, DaemonConfig};
use crate::error::Kind;

/// The exit code of a daemon that found another one at work on its root.
pub(super) const ANOTHER_DAEMON: u8 = 75;

/// Run the daemon in the foreground
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    wharf daemon                                          as a service manager starts it\n  \
    wharf daemon --state /tmp/w/state --root /tmp/w/root  one of your own, beside another\n  \
    wharf daemon --containerd /run/containerd/containerd.sock   on a containerd that is there\n\n\
    It listens on STATE/wharf.sock for docker, wharf and other clients of Docker's API, and on STATE/wharfd.sock for ctr \
    and other clients of containerd's. Ending it ends no container.")]
pub(crate) struct Daemon {
    /// Where containerd's API is served [default: STATE/wharfd.sock]
    #[arg(short = 'a', long, value_name = "SOCKET", conflicts_with = "containerd")]
    containerd_address: Option<PathBuf>,
    /// Use the containerd that listens here, instead of serving its API
    #[arg(long, value_name = "SOCKET")]
    containerd: Option<PathBuf>,
    /// How much to log: error, warn, info, debug, trace, or filters such as wharf_engine=debug [default: info]
    #[arg(short, long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How to log
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Leave the terminal's session, as commands want it that start a daemon
    #[arg(long, hide = true)]
    background: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Daemon {
    pub(crate) fn run(&self, globals: &Globals) -> Outcome {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new("Error: the daemon needs to be root").hint("start it with sudo"));
        }
        if self.background {
            rustix::process::setsid().map_err(|error| failed("setsid", error.into()))?;
        }
        // Modes are given where files are made; whoever started us must not widen or narrow them.
        umask(Mode::from_raw_mode(0o022));
        raise_open_files().map_err(|error| failed("raise the limit of open files", error))?;
        self.log(globals)?;
        let config = self.config(globals)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| failed("start the event loop", error))?;
        runtime.block_on(serve(config))
    }

    fn config(&self, globals: &Globals) -> Result<DaemonConfig, Failure> {
        let absolute = |path: &PathBuf| {
            std::path::absolute(path)
                .map_err(|error| Failure::new(format!("Error: path {}: {error}", path.display())))
        };
        let state = globals.state()?;
        Ok(DaemonConfig {
            root: globals.root()?,
            socket: globals.socket()?,
            supervisor_socket: match &self.containerd_address {
                Some(path) => absolute(path)?,
                None => state.join("wharfd.sock"),
            },
            containerd: self.containerd.as_ref().map(absolute).transpose()?,
            state,
        })
    }

    fn log(&self, globals: &Globals) -> Result<(), Failure> {
        let level = match &self.log_level {
            Some(level) => level,
            None if globals.debug => "debug",
            None => "info",
        };
        let filter = EnvFilter::try_new(level)
            .map_err(|error| Failure::new(format!("Error: --log-level {level}: {error}")))?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(terminal::stderr_is_terminal());
        let result = match self.log_format {
            LogFormat::Text => log.try_init(),
            LogFormat::Json => log.json().try_init(),
        };
        result.map_err(|error| Failure::new(format!("Error: set up the log: {error}")))
    }
}

fn failed(what: &str, error: io::Error) -> Failure {
    Failure::new(format!("Error: {what}: {error}"))
}

/// Each container holds several descriptors, and the usual soft limit is for programs that call select(2).
fn raise_open_files() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?)
}

async fn serve(config: DaemonConfig) -> Outcome {
    let started = |error: crate::error::Error| {
        let another = error.kind() == Kind::Conflict;
        let failure = Failure::new(format!("Error: start the daemon: {error}"));
        if another {
            failure.code(ANOTHER_DAEMON)
        } else {
            failure
        }
    };
    // Caught from here on, so that a signal during the start does not leave half of it behind.
    let catch = |kind| signal(kind).map_err(|error| failed("catch signals", error));
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    let socket = config.socket.clone();
    let daemon = daemon::Daemon::open(config).await.map_err(started)?;
    tracing::info!(socket = %socket.display(), "ready");
    notify("READY=1");
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down");
        notify("STOPPING=1");
    };
    daemon
        .serve(shutdown)
        .await
        .map_err(|error| Failure::new(format!("Error: serve: {error}")))?;
    Ok(0)
}

/// Tells the service manager, if one asks for it: sd_notify(3).
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(&path)),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound().map(|socket| (socket, address)))
        .and_then(|(socket, address)| socket.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, state, "the service manager was not told");
    }
}
