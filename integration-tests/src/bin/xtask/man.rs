//! `cargo xtask man`: the documents that are made from the runtime's command line.
//!
//! The grammar is known to the program only; a test of it compares them, and writes them when it is asked to.

use anyhow::Result;

use crate::shell;

/// Writes `runtime/man/` and the completions that are made.
pub(crate) fn run() -> Result<()> {
    let arguments = [
        "test",
        "--package",
        "wharf-runtime",
        "--bin",
        "wharf-runtime",
        "manual_pages",
    ];
    shell::run(shell::command("cargo", arguments).env("WHARF_WRITE_DOCUMENTS", "1"))
}
