//! The in-container probe: reports what a process inside really sees, as JSON on standard output.
//!
//! It is one static binary, so it runs in any root filesystem, and on the host for comparison.

mod entry;
mod identity;
mod tree;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = match arguments.as_slice() {
        ["identity"] => identity::report(),
        ["call", entry, number, arguments @ ..] => entry::report(entry, number, arguments),
        ["tree", directory] => tree::report(directory),
        _ => {
            eprintln!("usage: probe identity | probe tree DIRECTORY | probe call ENTRY NUMBER ARGUMENT...");
            return ExitCode::from(2);
        }
    };
    match report {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}
