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
use wharf_supervisor::{CheckOptions, Config, ConfigFile, Supervisor};

/// Read when it exists and no other is named.
const DEFAULT_CONFIG: &str = "/etc/wharf/wharfd.toml";
/// Threads for calls that block on the disk.
const BLOCKING_THREADS: usize = 64;

/// Serves containerd's gRPC API, or checks what an instance left.
#[derive(Debug, Parser)]
#[command(name = "wharfd", version, disable_version_flag = true)]
struct Arguments {
    /// Configuration file [default: /etc/wharf/wharfd.toml, if it exists]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for persistent state [default: /var/lib/wharf/supervisor]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Directory for the state of this boot [default: /run/wharf/supervisor]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Unix socket to serve on [default: /run/wharf/wharfd.sock]
    #[arg(short, long, value_name = "SOCKET")]
    address: Option<PathBuf>,
    /// How much is logged: error, warn, info, debug or trace [default: info]
    #[arg(short, long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Print the version
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    command: Option<Command>,
}

/// What is done instead of serving.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check the root of an instance that is not running, and repair it
    ///
    /// Tells what is there and whose it is; then what belongs to nobody or is missing, and what was done about it. Exits
    /// with 0 when nothing was wrong, 1 when all that was wrong is repaired, 4 when something is left, 8 when it could not
    /// be checked.
    Fsck {
        /// Only tell what would be done
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Read every blob, and compare its bytes with its digest
        #[arg(long)]
        verify: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let failure = match arguments.command {
        Some(Command::Fsck { .. }) => ExitCode::from(8),
        None => ExitCode::FAILURE,
    };
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wharfd: {error:#}");
            failure
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
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
    let snapshots = file.snapshots()?;
    let transfer = file.transfer();
    let processors = file.processors()?;
    let config = Config {
        root: arguments.root.or(file.root).unwrap_or(default.root),
        state: arguments.state.or(file.state).unwrap_or(default.state),
        address: arguments.address.or(file.address).unwrap_or(default.address),
        shim: file.shim.or(default.shim),
        registry: file.registry,
        snapshots,
        transfer,
        processors,
    };
    config.validate()?;
    let level = arguments.log_level.or(file.log_level).unwrap_or_else(|| {
        // What a repair does is in its report.
        let quiet = arguments.command.is_some();
        if quiet { "error" } else { "info" }.to_owned()
    });
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
        .block_on(async {
            match arguments.command {
                None => serve(config).await.map(|()| ExitCode::SUCCESS),
                Some(Command::Fsck {
                    dry_run,
                    verify,
                    format,
                }) => fsck(config, CheckOptions { dry_run, verify }, format).await,
            }
        })
}

async fn fsck(config: Config, options: CheckOptions, format: Format) -> anyhow::Result<ExitCode> {
    let report = wharf_supervisor::check(config, options).await?;
    match format {
        Format::Text => print!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(match (report.faults.len(), report.left()) {
        (0, _) => ExitCode::SUCCESS,
        (_, 0) => ExitCode::from(1),
        _ => ExitCode::from(4),
    })
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
