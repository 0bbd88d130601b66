//! The subcommands, one file each, and the arguments that are before them.
//!
//! Flags, output and the phrases of errors are runc's: programs that drive a runtime were written for them.

mod checkpoint;
mod create;
mod criu;
mod delete;
#[cfg(test)]
mod documents;
mod events;
mod exec;
pub(crate) mod exit_code;
mod features;
mod kill;
mod list;
pub(crate) mod log;
mod pause;
mod phrase;
mod plain;
mod process;
mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;
pub(crate) mod usage;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use wharf_runtime::{Container, ContainerId, Runtime};

use exit_code::ExitCode;
use log::Log;

/// The name of the program, and of what belongs to it on the host.
const PROGRAM: &str = "wharf-runtime";

/// Three lines, of which the first begins with the program's name; engines read them.
const VERSION: &str = concat!(
    "version ",
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("WHARF_COMMIT"),
    "\nspec: ",
    "1.3.0"
);

/// Open Container Initiative runtime
///
/// Runs containers as the Open Container Initiative's runtime specification says, with the command line of runc.
///
/// A container is configured by a bundle: a directory with a file "config.json" and a root file system. To run one:
///
///     # wharf-runtime run [ -b bundle ] <container-id>
///
/// Its name is unique on the host. Without -b the bundle is the current directory.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version = VERSION, disable_version_flag = true, verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What is said before the subcommand.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Also log what helps to find a fault
    #[arg(long)]
    pub(crate) debug: bool,
    /// Where to write the log [default: standard error]
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// How to write the log: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: String,
    /// The directory of the containers' state, on a tmpfs [default: /run/wharf-runtime]
    #[arg(long, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    /// The criu program, which makes checkpoints and restores them
    #[arg(long, value_name = "PATH", default_value = "criu")]
    criu: PathBuf,
    /// Let systemd make the control groups; linux.cgroupsPath is "slice:prefix:name" then
    #[arg(long)]
    systemd_cgroup: bool,
    /// Whether to do without control groups that may not be made
    #[arg(long, value_name = "true|false|auto", default_value = "auto")]
    rootless: Rootless,
    /// Print the version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Rootless {
    True,
    False,
    Auto,
}

impl Rootless {
    /// Nothing: as the caller's ids say.
    fn decided(self) -> Option<bool> {
        match self {
            Self::True => Some(true),
            Self::False => Some(false),
            Self::Auto => None,
        }
    }
}

// What is said of a command here is also the head of its help. A doc comment on its arguments would take that place.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Command {
    /// Create a container
    Create(create::Arguments),
    /// Run the program of a created container
    Start(start::Arguments),
    /// Create and start a container
    Run(run::Arguments),
    /// Run another program in a running container
    Exec(exec::Arguments),
    /// Send a signal to a container's first process
    Kill(kill::Arguments),
    /// Remove what a container left
    Delete(delete::Arguments),
    /// Print a container's state
    State(state::Arguments),
    /// List containers
    List(list::Arguments),
    /// List the processes in a container
    Ps(ps::Arguments),
    /// Stop all processes of a container for a while
    Pause(pause::Arguments),
    /// Let the processes of a paused container run again
    Resume(pause::Arguments),
    /// Write an example configuration
    Spec(spec::Arguments),
    /// Print what this runtime can do
    Features,
    /// Save a running container to files
    Checkpoint(Box<checkpoint::Arguments>),
    /// Make a container again from what was saved
    Restore(Box<restore::Arguments>),
    /// Print a container's use of resources now and then, and when it ran out of memory
    Events(events::Arguments),
    /// Change a container's limits
    Update(Box<update::Arguments>),
}

/// A command that failed: what to print, and the exit code.
pub(crate) struct Failure {
    pub(crate) message: String,
    /// Said on standard error in place of the message: the container's program could not be executed.
    pub(crate) line: Option<String>,
    pub(crate) code: ExitCode,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            message: phrase::of(&error),
            line: None,
            code: ExitCode::FAILURE,
        }
    }
}

impl Failure {
    /// A failure to run a program, whose own exit code is passed on otherwise: so that of a failure is one that is
    /// seldom used.
    fn of_program(error: &anyhow::Error) -> Self {
        Self {
            message: phrase::of(error),
            line: None,
            code: ExitCode::from(255),
        }
    }
}

/// The name this program was called by, for its own messages.
fn called() -> String {
    let path = crate::ARGUMENTS.get().and_then(|arguments| arguments.first());
    let name = path.and_then(|path| std::path::Path::new(path).file_name());
    name.map_or_else(|| PROGRAM.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// What every command has at hand.
struct Environment<'a> {
    runtime: Runtime,
    root_is_given: bool,
    systemd_cgroup: bool,
    rootless: Option<bool>,
    criu: PathBuf,
    log: &'a Log,
}

impl Environment<'_> {
    fn load(&self, id: &str) -> anyhow::Result<Container> {
        Ok(self.runtime.load(&parse_id(id)?)?)
    }
}

/// Whether the command could execute something in a container, which could then reach this program's file.
///
/// Asked before the arguments are parsed, so it is true as soon as one of them is the name of such a command, whatever
/// it stands for there.
pub(crate) fn may_make_processes(arguments: &[OsString]) -> bool {
    let makes = |argument: &OsString| MAKE_PROCESSES.iter().any(|name| argument == *name);
    arguments.iter().any(makes)
}

/// The commands that make processes in a container. Subcommands have no abbreviations and no aliases.
const MAKE_PROCESSES: [&str; 3] = ["create", "run", "exec"];

/// Performs the command; answers the exit code.
pub(crate) fn perform(arguments: Arguments, log: &Log) -> Result<ExitCode, Failure> {
    let Arguments { global, command } = arguments;
    let environment = environment(&global, log)?;
    let done = |result: anyhow::Result<()>| Ok(result.map(|()| ExitCode::SUCCESS)?);
    match command {
        Command::Create(arguments) => done(create::perform(&environment, arguments)),
        Command::Start(arguments) => done(start::perform(&environment, &arguments)),
        Command::Run(arguments) => {
            run::perform(&environment, arguments).map_err(|error| match phrase::program_error(&error) {
                Some(line) => Failure {
                    line: Some(line),
                    ..Failure::of_program(&error)
                },
                None => error.into(),
            })
        }
        Command::Exec(arguments) => {
            exec::perform(&environment, arguments).map_err(|error| Failure::of_program(&error))
        }
        Command::Kill(arguments) => done(kill::perform(&environment, &arguments)),
        Command::Delete(arguments) => done(delete::perform(&environment, &arguments)),
        Command::State(arguments) => done(state::perform(&environment, &arguments)),
        Command::List(arguments) => done(list::perform(&environment, &arguments)),
        Command::Ps(arguments) => done(ps::perform(&environment, &arguments)),
        Command::Pause(arguments) => done(pause::pause(&environment, &arguments)),
        Command::Resume(arguments) => done(pause::resume(&environment, &arguments)),
        Command::Spec(arguments) => done(spec::perform(&arguments)),
        Command::Features => done(features::perform()),
        Command::Checkpoint(arguments) => done(checkpoint::perform(&environment, &arguments)),
        Command::Restore(arguments) => Ok(restore::perform(&environment, *arguments)?),
        Command::Events(arguments) => done(events::perform(&environment, &arguments)),
        Command::Update(arguments) => done(update::perform(&environment, &arguments)),
    }
}

fn environment<'a>(global: &Global, log: &'a Log) -> anyhow::Result<Environment<'a>> {
    let root = match &global.root {
        Some(root) => {
            let root = std::path::absolute(root).context("--root")?;
            if clean_is_root(&root) {
                bail!("Option --root argument should not be set to /");
            }
            root
        }
        None => default_root()?,
    };
    // For all roots together: engines have one each, and the same profile.
    let mut filters = default_root()?.into_os_string();
    filters.push(".filters");
    Ok(Environment {
        runtime: Runtime::new(root).keep_filters(filters),
        root_is_given: global.root.is_some(),
        systemd_cgroup: global.systemd_cgroup,
        rootless: global.rootless.decided(),
        criu: global.criu.clone(),
        log,
    })
}

/// Users without privileges, and root of a user namespace that is not meant to be one, have their own directory for such
/// things. The sticky bit on ours keeps it from being cleaned up as unused.
fn default_root() -> anyhow::Result<PathBuf> {
    let directory = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    let Some(directory) = directory.filter(|_| has_runtime_directory()) else {
        return Ok(PathBuf::from(Runtime::DEFAULT_ROOT));
    };
    let root = PathBuf::from(directory).join(PROGRAM);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
    made.with_context(|| {
        format!(
            "the path in $XDG_RUNTIME_DIR must be writable by the user: mkdir {}",
            root.display()
        )
    })?;
    fs::set_permissions(&root, fs::Permissions::from_mode(0o1700)).with_context(|| {
        format!(
            "you should check permission of the path in $XDG_RUNTIME_DIR: chmod {}",
            root.display()
        )
    })?;
    Ok(root)
}

/// Whether `XDG_RUNTIME_DIR` is this user's: for the host's own root it may be left from somebody else. Root of a user
/// namespace may still be an ordinary user, who then is not called root.
fn has_runtime_directory() -> bool {
    !rustix::process::geteuid().is_root()
        || (wharf_runtime::in_user_namespace() && std::env::var_os("USER").is_none_or(|user| user != "root"))
}

/// Whether nothing is left of the path when `..` is resolved by name.
fn clean_is_root(path: &std::path::Path) -> bool {
    let mut depth = 0usize;
    for part in path.components() {
        match part {
            std::path::Component::Normal(_) => depth += 1,
            std::path::Component::ParentDir => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    depth == 0
}

fn parse_id(id: &str) -> anyhow::Result<ContainerId> {
    if id.is_empty() {
        return Err(anyhow!("container id cannot be empty"));
    }
    ContainerId::new(id).map_err(|_| anyhow!("invalid container ID format: {id:?}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn what_makes_processes_is_known_before_the_arguments_are_parsed() {
        let may = |arguments: &[&str]| {
            may_make_processes(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
        };
        assert!(may(&["wharf-runtime", "--root", "/r", "run", "c"]));
        assert!(may(&["wharf-runtime", "exec", "c", "true"]));
        assert!(!may(&["wharf-runtime", "state", "c"]));
        let command = Arguments::command();
        assert!(Arguments::try_parse_from(["wharf-runtime", "run", "c"]).is_ok());
        assert!(Arguments::try_parse_from(["wharf-runtime", "ru", "c"]).is_err());
        for subcommand in command.get_subcommands() {
            assert_eq!(
                subcommand.get_all_aliases().count(),
                0,
                "{}",
                subcommand.get_name()
            );
        }
        for name in MAKE_PROCESSES {
            assert!(command.find_subcommand(name).is_some(), "{name}");
        }
    }
}
