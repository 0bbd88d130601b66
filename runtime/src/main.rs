//! `wharf-runtime`: the command line of the OCI runtime, a drop-in for `runc`.
//!
//! Arguments are parsed to checked values, one function performs the command with the library, and the exit code
//! is decided here. Refused by name: what the library does not have yet.

mod commands;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use commands::Arguments;
use commands::log::Log;

fn main() -> ExitCode {
    // Before anything is open, and before arguments are parsed in vain: this executes the program once more.
    if commands::may_make_processes(std::env::args_os())
        && let Err(error) = wharf_runtime::host_binary::protect()
    {
        Log::standard().fatal(&error.to_string());
        return ExitCode::FAILURE;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let log = match Log::open(&arguments.global) {
        Ok(log) => log,
        Err(error) => {
            Log::standard().fatal(&format!("{error:#}"));
            return ExitCode::FAILURE;
        }
    };
    match commands::perform(arguments, &log) {
        Ok(code) => code,
        Err(failure) => {
            log.fatal(&failure.message);
            failure.code
        }
    }
}

/// Prints help and version as asked for, and everything else as an error of ours: callers read those, and an
/// exit code of 1, not the parser's.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return match error.print() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let text = error.render().to_string();
    let message = text
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .trim_start_matches("error: ");
    Log::standard().fatal(&message.split_whitespace().collect::<Vec<_>>().join(" "));
    ExitCode::FAILURE
}
