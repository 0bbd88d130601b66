//! The command line: one file a verb, each named and behaving as in Docker.
//!
//! ```text
//! arguments ─► clap ─► verb ─► endpoint (starts a daemon if there is none) ─► api::client ─► REST
//!                       │                                                        │
//!                       └── attached (threads for streams), signals, terminal ◄──┘ hijacked connection
//! ```
//!
//! # Invariants
//!
//! - The command line is a client: it knows nothing but the REST API, and works against any daemon that speaks it. The
//!   one exception is `daemon`, which is the daemon.
//! - Exit codes are decided in `failure`, and the process ends in `main` only: no path skips the terminal's restoration.
//! - What a command was asked for goes to stdout; everything else, progress and errors, to stderr.
//! - A wait is registered before a start, so that no exit is missed; output is complete before the exit code is given.

mod attach;
mod attached;
mod completion;
mod container_options;
mod create;
mod daemon;
mod endpoint;
mod exec;
mod failure;
mod images;
mod info;
mod inspect;
mod json;
mod kill;
mod logs;
mod man;
mod multiple;
mod option_values;
mod pause;
#[cfg(test)]
mod properties;
mod ps;
mod pull;
mod quantity;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod session;
mod signals;
mod start;
mod stop;
mod stopping;
mod table;
mod template;
mod terminal;
mod top;
mod version;
mod wait;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args as _, Command, CommandFactory as _, FromArgMatches as _, Parser};

use endpoint::Globals;
use failure::{FAILED, Failure, NOT_STARTED, Outcome};

/// Run containers.
#[derive(Debug, Parser)]
#[command(
    name = "wharf",
    version,
    about = "Run containers",
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        wharf run -it --rm alpine sh            a shell in a container\n  \
        wharf run -d --name web nginx           a service in the background\n  \
        wharf logs -f web                       what it writes\n  \
        wharf exec -it web sh                   look inside\n  \
        wharf rm -f web                         end and remove it\n\n\
        The first command starts a daemon in the background, as root. `wharf COMMAND --help` tells more."
)]
struct Top {
    #[command(flatten)]
    globals: Globals,
}

/// The whole command line, read.
#[derive(Debug)]
struct CommandLine {
    globals: Globals,
    verb: Verb,
}

/// The verbs: their names, and the types of their arguments.
macro_rules! verbs {
    ($($name:literal => $verb:ident($arguments:ty),)*) => {
        #[derive(Debug)]
        enum Verb {
            $($verb($arguments),)*
        }

        impl Verb {
            /// Adds all verbs to the program, each with all its arguments.
            fn add_all(program: Command) -> Command {
                program$(.subcommand(<$arguments>::augment_args(Command::new($name))))*
            }

            /// Adds all verbs by name; what belongs to a verb is filled in when it turns out to be the one.
            fn add_names(program: Command) -> Command {
                program$(.subcommand(Command::new($name).defer(<$arguments>::augment_args)))*
            }

            fn read(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
                let (name, mut matches) = matches
                    .remove_subcommand()
                    .ok_or_else(|| clap::Error::new(ErrorKind::MissingSubcommand))?;
                match name.as_str() {
                    $($name => Ok(Self::$verb(<$arguments>::from_arg_matches_mut(&mut matches)?)),)*
                    _ => Err(clap::Error::new(ErrorKind::InvalidSubcommand)),
                }
            }
        }
    };
}

verbs! {
    "run" => Run(run::Run),
    "create" => Create(create::Create),
    "start" => Start(start::Start),
    "attach" => Attach(attach::Attach),
    "exec" => Exec(exec::Exec),
    "ps" => Ps(ps::Ps),
    "logs" => Logs(logs::Logs),
    "stop" => Stop(stop::Stop),
    "kill" => Kill(kill::Kill),
    "restart" => Restart(restart::Restart),
    "pause" => Pause(pause::Pause),
    "unpause" => Unpause(pause::Unpause),
    "rename" => Rename(rename::Rename),
    "wait" => Wait(wait::Wait),
    "top" => Top(top::Top),
    "rm" => Rm(rm::Rm),
    "pull" => Pull(pull::Pull),
    "images" => Images(images::Images),
    "rmi" => Rmi(rmi::Rmi),
    "inspect" => Inspect(inspect::Inspect),
    "version" => Version(version::Version),
    "info" => Info(info::Info),
    "daemon" => Daemon(daemon::Daemon),
    "completion" => Completion(completion::Completion),
    "man" => Man(man::Man),
}

impl CommandLine {
    /// The whole grammar, for help and for errors.
    fn command() -> Command {
        Verb::add_all(Top::command())
    }

    /// Reads `arguments`, the program's name first.
    fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        // A command needs the grammar of one verb, and making that of all takes longer than many a command. Only what is
        // refused, or asks for help, is read again with all of them.
        let read = |program: Command| -> Result<Self, clap::Error> {
            let mut matches = program.try_get_matches_from(arguments)?;
            Ok(Self {
                globals: Globals::from_arg_matches_mut(&mut matches)?,
                verb: Verb::read(&mut matches)?,
            })
        };
        read(Verb::add_names(Top::command())).or_else(|_| read(Self::command()))
    }
}

impl Verb {
    /// Whether errors are prefixed with the program's name, to be told from the container's own output.
    fn is_run_like(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Create(_))
    }
}

/// Runs the command line of this process and gives its exit code. Blocks until the command has ended.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let arguments = match CommandLine::read(&arguments) {
        Ok(arguments) => arguments,
        Err(error) => return ExitCode::from(usage(&error)),
    };
    let run_like = arguments.verb.is_run_like();
    let code = dispatch(arguments).unwrap_or_else(|failure| report(&failure, run_like));
    ExitCode::from(code)
}

fn dispatch(CommandLine { globals, verb }: CommandLine) -> Outcome {
    match verb {
        Verb::Daemon(verb) => return verb.run(&globals),
        Verb::Completion(verb) => return verb.run(CommandLine::command()),
        Verb::Man(verb) => return verb.run(CommandLine::command()),
        _ => {}
    }
    // One thread: a client waits for sockets, and starting more would cost more than the rest of a command.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("Error: start the event loop: {error}")))?;
    runtime.block_on(async {
        match verb {
            Verb::Run(verb) => verb.run(&globals).await,
            Verb::Create(verb) => verb.run(&globals).await,
            Verb::Start(verb) => verb.run(&globals).await,
            Verb::Attach(verb) => verb.run(&globals).await,
            Verb::Exec(verb) => verb.run(&globals).await,
            Verb::Ps(verb) => verb.run(&globals).await,
            Verb::Logs(verb) => verb.run(&globals).await,
            Verb::Stop(verb) => verb.run(&globals).await,
            Verb::Kill(verb) => verb.run(&globals).await,
            Verb::Restart(verb) => verb.run(&globals).await,
            Verb::Pause(verb) => verb.run(&globals).await,
            Verb::Unpause(verb) => verb.run(&globals).await,
            Verb::Rename(verb) => verb.run(&globals).await,
            Verb::Wait(verb) => verb.run(&globals).await,
            Verb::Top(verb) => verb.run(&globals).await,
            Verb::Rm(verb) => verb.run(&globals).await,
            Verb::Pull(verb) => verb.run(&globals).await,
            Verb::Images(verb) => verb.run(&globals).await,
            Verb::Rmi(verb) => verb.run(&globals).await,
            Verb::Inspect(verb) => verb.run(&globals).await,
            Verb::Version(verb) => verb.run(&globals).await,
            Verb::Info(verb) => verb.run(&globals).await,
            Verb::Daemon(_) | Verb::Completion(_) | Verb::Man(_) => {
                Err(Failure::new("Error: handled before"))
            }
        }
    })
}

/// Prints a failure once, in one line, and gives its exit code.
fn report(failure: &Failure, run_like: bool) -> u8 {
    if !failure.message.is_empty() {
        let prefix = if run_like { "wharf: " } else { "" };
        let hint = failure
            .hint
            .as_ref()
            .map_or_else(String::new, |hint| format!("; {hint}"));
        notice(&format!("{prefix}{}{hint}", failure.message.trim_end()));
    }
    failure.code
}

/// Prints a line on stderr, or nothing if nobody reads it: `eprintln!` would end the command then.
fn notice(line: &str) {
    // In one write, so that lines of commands that share a terminal do not mix.
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).ok();
}

/// Flags of Docker's that mean something which is not there yet: naming them is more help than "unexpected argument".
const NOT_YET: &[&str] = &[
    "--blkio-weight",
    "--device-cgroup-rule",
    "--device-read-bps",
    "--device-read-iops",
    "--device-write-bps",
    "--device-write-iops",
    "--disable-content-trust",
    "--expose",
    "--gpus",
    "--health-cmd",
    "--health-interval",
    "--health-retries",
    "--health-start-period",
    "--health-timeout",
    "--init",
    "--ip",
    "--ip6",
    "--isolation",
    "--kernel-memory",
    "--label-file",
    "--link",
    "--link-local-ip",
    "--mac-address",
    "--memory-swappiness",
    "--network-alias",
    "--no-healthcheck",
    "--oom-kill-disable",
    "--platform",
    "--publish",
    "--publish-all",
    "-p",
    "-P",
    "--restart",
    "--size",
    "--storage-opt",
    "--userns",
    "--volume-driver",
    "--volumes-from",
];

/// Prints help, the version, or what is wrong with the arguments; gives the exit code, which is Docker's: 125 for flags,
/// 1 for the wrong number of arguments.
fn usage(error: &clap::Error) -> u8 {
    let code = match error.kind() {
        // Of the bare program's name, too.
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => 0,
        ErrorKind::MissingRequiredArgument | ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand => {
            FAILED
        }
        _ => NOT_STARTED,
    };
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
        && let name = flag.split('=').next().unwrap_or(flag)
        && NOT_YET.contains(&name)
    {
        return report(
            &Failure::new(format!("Error: {name} is not supported yet")).code(code),
            false,
        );
    }
    // Fails only when our output is closed.
    error.print().ok();
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn everything_after_the_image_belongs_to_the_container() {
        let parse = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            CommandLine::read(&arguments).map(|line| line.verb)
        };
        let verb = parse(&[
            "wharf", "run", "--rm", "-e", "A=1", "image", "--rm", "-it", "--", "--help",
        ]);
        let Ok(Verb::Run(run)) = verb else {
            panic!("{verb:?}")
        };
        assert!(!run.container.interactive);
        assert_eq!(run.container.command(), ["--rm", "-it", "--", "--help"]);
        let verb = parse(&["wharf", "exec", "-i", "name", "ls", "-l", "-t"]);
        let Ok(Verb::Exec(exec)) = verb else {
            panic!("{verb:?}")
        };
        assert_eq!(exec.command(), ["ls", "-l", "-t"]);
        assert!(parse(&["wharf", "run", "--no-such-flag", "image"]).is_err());
        assert!(parse(&["wharf", "run", "--rm"]).is_err());
    }
}
