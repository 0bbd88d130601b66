//! `wharfd`: the supervisor as a daemon. Flags win over the configuration file, the file over the defaults.

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use wharf_supervisor::{Config, ConfigFile, Supervisor};

/// Read when it exists and no other is named.
const DEFAULT_CONFIG: &str = "/etc/wharf/wharfd.toml";
/// Threads for calls that block on the disk.
const BLOCKING_THREADS: usize = 64;

/// Serves containerd's gRPC API.
#[derive(Debug, Parser)]
#[command(name = "wharfd", version, disable_version_flag = true)]
struct Arguments {
    /// Configuration file [default: /etc/wharf/wharfd.toml, if it exists]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for persistent state [default: /var/lib/wharf/supervisor]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Directory for the state of this boot [default: /run/wharf/supervisor]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Unix socket to serve on [default: /run/wharf/wharfd.sock]
    #[arg(short, long, value_name = "SOCKET")]
    address: Option<PathBuf>,
    /// How much is logged: error, warn, info, debug or trace [default: info]
    #[arg(short, long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Print the version
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: (),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wharfd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Modes are given where files are made. Until then nobody else may write: to a socket that means to connect.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let file = match &arguments.config {
        Some(path) => ConfigFile::read(path)?,
        None => match ConfigFile::read(Path::new(DEFAULT_CONFIG)) {
            Err(error) if error.is_not_found() => ConfigFile::default(),
            other => other?,
        },
    };
    let default = Config::default();
    let config = Config {
        root: arguments.root.or(file.root).unwrap_or(default.root),
        state: arguments.state.or(file.state).unwrap_or(default.state),
        address: arguments.address.or(file.address).unwrap_or(default.address),
        shim: file.shim.or(default.shim),
        registry: file.registry,
    };
    config.validate()?;
    let level = arguments
        .log_level
        .or(file.log_level)
        .unwrap_or_else(|| "info".to_owned());
    let level: LevelFilter = level.parse().with_context(|| format!("log level {level:?}"))?;
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("start the async runtime")?
        .block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    let address = config.address.clone();
    let supervisor = Supervisor::open(config).await?;
    let listener = Supervisor::listen(&address).await?;
    notify("READY=1")?;
    tracing::info!(address = %address.display(), "serving");
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    };
    supervisor.serve(vec![listener], shutdown).await?;
    std::fs::remove_file(&address).with_context(|| format!("remove {}", address.display()))
}

/// Tells systemd, if it started us (`sd_notify(3)`).
fn notify(state: &str) -> anyhow::Result<()> {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    };
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let path = path.to_string_lossy();
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&*path),
    };
    address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address))
        .map(drop)
        .with_context(|| format!("notify {path}"))
}
