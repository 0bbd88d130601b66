//! What a wrong command line is answered with, and how help looks: as runc does it.

use std::ffi::OsString;
use std::path::Path;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory as _, FromArgMatches as _};

use super::exit_code::ExitCode;
use super::log::Log;
use super::{Arguments, plain};

/// The exit code for a command that does not exist.
const NO_COMMAND: u8 = 3;

const HELP: &str = "\
NAME:
   {name} - {about}

USAGE:
   {usage}

{before-help}{all-args}{after-help}
";

/// Parses the command line; on the way out everything has been printed.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Arguments, ExitCode> {
    let parse = |command: &mut clap::Command| {
        let matches = command.try_get_matches_from_mut(arguments)?;
        Arguments::from_arg_matches(&matches)
    };
    if let Some(parsed) = plain::parse(arguments) {
        return Ok(parsed);
    }
    // What is wrong for a parser of the usual kind is looked at once more, by one that knows all commands in detail.
    if let Ok(parsed) = parse(&mut Arguments::command().args_override_self(true)) {
        return Ok(parsed);
    }
    let mut command = command(arguments, Flags::WithValues);
    parse(&mut command).map_err(|error| answer(&mut command, arguments, &error))
}

/// How flags without a value are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flags {
    /// As such: so they look in help.
    Plain,
    /// Also as `--flag=true`, as Go's programs take them.
    WithValues,
}

/// The whole command line, under the name the program was called by: installed as `runc`, it is `runc`.
pub(crate) fn command(arguments: &[OsString], flags: Flags) -> clap::Command {
    let called = arguments
        .first()
        .and_then(|path| Path::new(path).file_name()?.to_str());
    let mut command = Arguments::command();
    if let Some(called) = called {
        command = command.name(kept(called.to_owned())).bin_name(called);
    }
    // Subcommands are described when they are asked for, and this asks.
    command.build();
    let mut command = accustomed(command, flags);
    let name = command.get_name().to_owned();
    // Every subcommand's help begins with both names.
    for subcommand in command.get_subcommands_mut() {
        let both = format!("{name} {}", subcommand.get_name());
        let owned = std::mem::take(subcommand);
        *subcommand = accustomed(owned, flags).display_name(kept(both));
    }
    command
}

/// The parser takes names that live as long as the program; there are as many as there are commands.
fn kept(name: String) -> &'static str {
    name.leak()
}

/// As callers of runc are accustomed to: `--flag=true`, and the last of two equal options wins.
fn accustomed(command: clap::Command, flags: Flags) -> clap::Command {
    let command = command.help_template(HELP).args_override_self(true);
    if flags == Flags::Plain {
        return command;
    }
    command.mut_args(|argument| match argument.get_action() {
        ArgAction::SetTrue => argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(ValueParser::new(boolean)),
        _ => argument,
    })
}

/// The spellings of Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// Prints help and version as asked for, and everything else as an error of ours.
fn answer(command: &mut clap::Command, arguments: &[OsString], error: &clap::Error) -> ExitCode {
    let fail = |message: &str, code| {
        Log::standard().fatal(message);
        code
    };
    let subcommand = called(command, arguments);
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // On standard output, whichever of them it is: nothing went wrong.
            let plain = self::command(arguments, Flags::Plain).try_get_matches_from(arguments);
            match plain {
                Err(plain) if plain.kind() == error.kind() => print!("{}", plain.render()),
                _ => print!("{}", error.render()),
            }
            ExitCode::SUCCESS
        }
        ErrorKind::InvalidSubcommand => {
            let topic = context(error, ContextKind::InvalidSubcommand);
            fail(
                &format!("No help topic for '{topic}'"),
                ExitCode::from(NO_COMMAND),
            )
        }
        ErrorKind::UnknownArgument if context(error, ContextKind::InvalidArg).starts_with('-') => {
            let name = context(error, ContextKind::InvalidArg);
            let message = format!("flag provided but not defined: -{}", name.trim_start_matches('-'));
            println!("Incorrect Usage: {message}\n");
            fail(&message, ExitCode::FAILURE)
        }
        ErrorKind::InvalidValue if context(error, ContextKind::InvalidValue).is_empty() => {
            let argument = context(error, ContextKind::InvalidArg);
            let flag = argument.split([' ', '=']).next().unwrap_or_default();
            // Podman asks by this whether a runtime knows a flag.
            let message = format!("flag needs an argument: {flag}");
            println!("Incorrect Usage: {message}\n");
            fail(&message, ExitCode::FAILURE)
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument | ErrorKind::TooManyValues => {
            let name = arguments.first().map(|name| name.to_string_lossy());
            let message = match subcommand {
                Some(subcommand) => {
                    println!("Incorrect Usage.\n\n{}", subcommand.render_help());
                    let wants = wants(subcommand.get_name(), error.kind());
                    format!(
                        "{}: {:?} requires {wants} argument(s)",
                        name.unwrap_or_default(),
                        subcommand.get_name()
                    )
                }
                None => first_paragraph(error),
            };
            fail(&message, ExitCode::FAILURE)
        }
        _ => fail(&first_paragraph(error), ExitCode::FAILURE),
    }
}

/// How many arguments a command takes, in words.
fn wants(name: &str, kind: ErrorKind) -> &'static str {
    match (name, kind) {
        ("exec" | "ps", _) => "a minimum of 1",
        ("kill", ErrorKind::MissingRequiredArgument) => "a minimum of 1",
        ("kill", _) => "a maximum of 2",
        ("list" | "spec" | "features", _) => "exactly 0",
        _ => "exactly 1",
    }
}

/// The subcommand that was meant.
fn called<'a>(command: &'a mut clap::Command, arguments: &[OsString]) -> Option<&'a mut clap::Command> {
    let name = arguments
        .iter()
        .skip(1)
        .find_map(|argument| Some(command.find_subcommand(argument)?.get_name().to_owned()))?;
    command.find_subcommand_mut(name)
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    }
}

/// The parser's own words, on one line.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let message = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = message.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> clap::error::Result<clap::ArgMatches> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        command(&arguments, Flags::WithValues).try_get_matches_from(arguments)
    }

    #[test]
    fn the_command_line_is_sound() {
        for flags in [Flags::Plain, Flags::WithValues] {
            command(&["runc".into()], flags).debug_assert();
        }
    }

    #[test]
    fn flags_take_values_as_go_programs_flags_do() {
        for (flag, expected) in [
            ("--detach", true),
            ("-d", true),
            ("--detach=true", true),
            ("--detach=0", false),
        ] {
            let matches = parsed(&["runc", "run", flag, "c"]).unwrap();
            let (_, run) = matches.subcommand().unwrap();
            assert_eq!(run.get_one::<bool>("detach"), Some(&expected), "{flag}");
        }
        assert!(parsed(&["runc", "run", "--detach=maybe", "c"]).is_err());
        let matches = parsed(&["runc", "exec", "-dt", "c", "sh", "-c", "true"]).unwrap();
        let (_, exec) = matches.subcommand().unwrap();
        assert!(exec.get_flag("detach") && exec.get_flag("tty"));
    }

    #[test]
    fn the_last_of_two_equal_options_wins() {
        let matches = parsed(&[
            "runc", "--root", "/a", "--root", "/b", "list", "-f", "table", "-f", "json",
        ]);
        let matches = matches.unwrap();
        assert_eq!(matches.get_one::<std::path::PathBuf>("root"), Some(&"/b".into()));
    }

    #[test]
    fn help_begins_with_the_name_it_was_called_by() {
        let help = |arguments: &[&str]| parsed(arguments).unwrap_err().render().to_string();
        let text = help(&["/usr/sbin/runc", "-h"]);
        assert!(
            text.starts_with("NAME:\n   runc - Open Container Initiative runtime\n"),
            "{text}"
        );
        let text = help(&["wharf-runtime", "create", "--help"]);
        assert!(
            text.starts_with("NAME:\n   wharf-runtime create - Create a container\n"),
            "{text}"
        );
        let text = help(&["wharf-runtime", "list", "-h"]);
        assert!(
            text.starts_with("NAME:\n   wharf-runtime list - List containers\n"),
            "{text}"
        );
        let about = |command: &clap::Command| command.get_about().map(ToString::to_string);
        let built = command(&["wharf-runtime".into()], Flags::Plain);
        for listed in Arguments::command().get_subcommands() {
            let described = built.find_subcommand(listed.get_name()).unwrap();
            assert_eq!(about(listed), about(described), "{}", listed.get_name());
        }
    }

    #[test]
    fn the_shells_completions_are_what_the_program_takes() {
        const COMPLETIONS: &str = include_str!("../../completions/wharf-runtime.bash");
        let flags = |command: &clap::Command| {
            let mut flags: Vec<String> = command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set())
                .filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
                .collect();
            flags.sort();
            flags
        };
        let listed = |name: &str| {
            let start = format!("        {name}) echo '");
            let line = COMPLETIONS.lines().find_map(|line| line.strip_prefix(&start))?;
            let words = line.trim_end_matches("' ;;").split(' ');
            let mut words: Vec<String> = words.map(str::to_owned).collect();
            words.sort();
            Some(words)
        };
        let command = command(&["wharf-runtime".into()], Flags::Plain);
        assert_eq!(listed("''"), Some(flags(&command)));
        let offered = COMPLETIONS
            .lines()
            .find_map(|line| line.trim().strip_prefix("local commands='"));
        let offered: Vec<&str> = offered
            .expect("a list")
            .trim_end_matches('\'')
            .split(' ')
            .collect();
        for subcommand in command.get_subcommands() {
            let name = subcommand.get_name();
            assert!(offered.contains(&name), "{name}");
            if let Some(listed) = listed(name) {
                assert_eq!(listed, flags(subcommand), "{name}");
            }
        }
    }
}
