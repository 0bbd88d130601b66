//! `wharf-runtime`: the command line of the OCI runtime, a drop-in for `runc`.
//!
//! Arguments are parsed to checked values, one function performs the command with the library, and the exit code
//! is decided here. Refused by name: what the library does not have yet.

#![cfg_attr(not(test), no_main)]

#[cfg(any(test, target_env = "musl"))]
#[path = "sys/arena.rs"]
#[expect(unsafe_code, reason = "an allocator")]
mod arena;
mod commands;
#[cfg(not(test))]
#[path = "sys/start.rs"]
#[expect(unsafe_code, reason = "system calls before anything else")]
mod start;

use std::ffi::OsString;
use std::sync::OnceLock;

use commands::exit_code::ExitCode;
use commands::log::Log;
use commands::usage;

/// What the program was called with, its name first.
static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();

/// musl's own asks the kernel for pages and gives them back at every turn.
#[cfg(all(target_env = "musl", not(test)))]
#[global_allocator]
static ALLOCATOR: arena::Arena = arena::Arena::new();

#[cfg_attr(test, expect(dead_code, reason = "the tests have a main of their own"))]
fn run(arguments: Vec<OsString>) -> ExitCode {
    let arguments = ARGUMENTS.get_or_init(|| arguments);
    // Before anything is open, and before arguments are parsed in vain: this executes the program once more.
    let protected = commands::may_make_processes(arguments);
    if protected && let Err(error) = wharf_runtime::host_binary::protect() {
        Log::standard().fatal(&error.to_string());
        return ExitCode::FAILURE;
    }
    let arguments = match usage::parse(arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let log = match Log::open(&arguments.global) {
        Ok(log) => log,
        Err(error) => {
            Log::standard().fatal(&format!("{error:#}"));
            return ExitCode::FAILURE;
        }
    };
    if protected {
        wharf_runtime::host_binary::tell();
    }
    match commands::perform(arguments, log) {
        Ok(code) => code,
        Err(failure) => {
            match &failure.line {
                Some(line) => log.fatal_line(&failure.message, line),
                None => log.fatal(&failure.message),
            }
            failure.code
        }
    }
}
