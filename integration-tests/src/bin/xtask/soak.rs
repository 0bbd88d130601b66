//! `cargo xtask soak`: the release programs under thousands of executions and containers.

use anyhow::{Result, bail};
use clap::Args;

use crate::{programs, shell};

/// How much.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Processes executed in containers that run
    #[arg(long, default_value_t = 20_000)]
    execs: usize,
    /// Containers made, started, waited for and removed
    #[arg(long, default_value_t = 5_000)]
    cycles: usize,
}

/// Builds the release programs and soaks them; fails when anything grows.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("containers are started for real: run the soak as root");
    }
    shell::run(&mut shell::command(
        "cargo",
        [
            "build",
            "--release",
            "--package",
            "wharf-supervisor",
            "--package",
            "wharf-shim",
        ],
    ))?;
    // What configures the containers is not under test.
    shell::run(&mut shell::command(
        "cargo",
        ["build", "--release", "--package", "wharf-runtime"],
    ))?;
    shell::run(&mut shell::command(
        "cargo",
        ["build", "--package", "integration-tests", "--bin", "probe"],
    ))?;
    let mut test = shell::command(
        "cargo",
        [
            "test",
            "--package",
            "integration-tests",
            "--test",
            "soak",
            "--",
            "--nocapture",
        ],
    );
    test.env("WHARF_SOAK_EXECS", arguments.execs.to_string())
        .env("WHARF_SOAK_CYCLES", arguments.cycles.to_string())
        .env("WHARF_PROGRAMS", programs("release")?);
    shell::run(&mut test)
}
