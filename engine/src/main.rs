//! `wharf`: the command line and the daemon in one program. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    wharf_engine::cli::main()
}
