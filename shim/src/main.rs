//! The program `containerd-shim-wharf-v2`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    wharf_shim::run(std::env::args_os().skip(1))
}
