//! `wharfd`: the supervisor as a daemon. Flags win over the configuration file, the file over the defaults.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser};
use wharf_supervisor::{CheckOptions, Config, ConfigFile, Start};

/// Read when it exists and no other is named.
const DEFAULT_CONFIG: &str = "/etc/wharf/wharfd.toml";

/// Serves containerd's gRPC API, or looks after an instance that does.
#[derive(Debug, Parser)]
#[command(name = "wharfd", version, disable_version_flag = true, after_help = EXAMPLES)]
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
    /// How it is logged: text, json or journal [default: text, or journal under systemd]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Take the sockets and the stores over from the daemon that runs on the same state, if one does
    #[arg(long)]
    takeover: bool,
    /// What a daemon leaves itself that gives way to another
    #[arg(long, hide = true, require_equals = true)]
    standby: Option<String>,
    /// Print the version
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: (),
    #[command(subcommand)]
    command: Option<Command>,
}

/// What follows the options in `--help`.
const EXAMPLES: &str = "\
Examples:
  Serve with the defaults, and look at it with containerd's ctr:
    wharfd &
    ctr --address /run/wharf/wharfd.sock version
  Write down all settings, change some, and serve with them:
    wharfd config default > /etc/wharf/wharfd.toml
  Go over to the wharfd that was just installed; containers, and clients that retry, notice nothing:
    wharfd upgrade
  See what is in a root that nobody serves, and whether it is in order:
    wharfd fsck --dry-run";

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
    /// Have the running daemon replaced by the wharfd that is installed now
    ///
    /// The running daemon starts the executable at its own path anew, with its own arguments, and hands its sockets over
    /// once that one has read its configuration. Prints the new process's id when it serves. If it cannot, the running one
    /// goes on, and this fails with the reason.
    Upgrade,
    /// Print a configuration
    Config {
        /// Which one
        #[arg(value_enum)]
        which: Which,
    },
    /// Print a script that completes the command line in a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// An existing directory, such as /usr/local/share/man/man8
        directory: PathBuf,
    },
}

/// Which configuration is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Which {
    /// The one without a file and without flags
    Default,
    /// The one that the file and the flags make
    Dump,
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
        _ => ExitCode::FAILURE,
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
    match &arguments.command {
        Some(Command::Completion { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "wharfd", &mut script);
            std::io::stdout().write_all(&script).context("print the script")?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Man { directory }) => {
            clap_mangen::generate_to(Arguments::command(), directory)
                .with_context(|| format!("write manual pages into {}", directory.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Config {
            which: Which::Default,
        }) => {
            print!("{}", ConfigFile::default().complete().to_toml()?);
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let mut file = match &arguments.config {
        Some(path) => ConfigFile::read(path)?,
        None => match ConfigFile::read(Path::new(DEFAULT_CONFIG)) {
            Err(error) if error.is_not_found() => ConfigFile::default(),
            other => other?,
        },
    };
    for (flag, setting) in [
        (arguments.root, &mut file.root),
        (arguments.state, &mut file.state),
        (arguments.address, &mut file.address),
    ] {
        *setting = flag.or(setting.take());
    }
    file.log_level = arguments.log_level.or(file.log_level);
    file.log_format = arguments.log_format.or(file.log_format);
    let config = file.config()?;
    let level = file.log_level.as_deref().unwrap_or({
        // What a repair does is in its report.
        let quiet = arguments.command.is_some();
        if quiet { "error" } else { "info" }
    });
    wharf_supervisor::start_logging(level, file.log_format.as_deref())?;
    match arguments.command {
        None => {
            let start = match (arguments.standby, arguments.takeover) {
                (Some(left), _) => Start::Standby(left),
                (None, true) => Start::TakeOver,
                (None, false) => Start::Fresh,
            };
            wharf_supervisor::run(&config, start)?;
        }
        Some(Command::Fsck {
            dry_run,
            verify,
            format,
        }) => {
            let options = CheckOptions { dry_run, verify };
            return wharf_supervisor::runtime()?.block_on(fsck(config, options, format));
        }
        Some(Command::Upgrade) => println!("{}", wharf_supervisor::request_upgrade(&config.state)?),
        Some(Command::Config { .. }) => print!("{}", file.complete().to_toml()?),
        Some(Command::Completion { .. } | Command::Man { .. }) => {}
    }
    Ok(ExitCode::SUCCESS)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
