//! `cargo xtask bench`: our programs and the installed peers, interleaved on the same machine in the same minutes.
//!
//! Absolute figures differ from machine to machine; what counts is the ratio to the peer. A peer that is not installed is
//! left out and said to be. Nothing here is a test: figures are printed, not judged.

mod ctr;
mod engine;
mod fleet;
mod guest;
mod measure;
mod parallel;
mod peers;
mod pull;
mod runtime;
mod seccomp;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::{install, programs, shell};

/// What to compare.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Rounds of each candidate, after three that do not count
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Another runc to compare with; may be given again
    #[arg(long, value_name = "PATH")]
    runc: Vec<PathBuf>,
    /// A directory with another containerd and its shim to compare with; may be given again
    #[arg(long, value_name = "DIRECTORY")]
    containerd: Vec<PathBuf>,
    /// Only this comparison
    #[arg(value_parser = ["runtime", "guest", "engine", "fleet", "ctr", "tasks", "pull"])]
    only: Option<String>,
}

/// Builds the release programs and runs the comparisons.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("containers are started for real: run the benches as root");
    }
    let wanted = |name: &str| arguments.only.as_deref().is_none_or(|only| only == name);
    if ["engine", "fleet", "ctr", "tasks", "pull"]
        .into_iter()
        .any(wanted)
    {
        install::build()?;
    }
    integration_tests::binaries::use_runtime(install::build_runtime()?);
    shell::run(&mut shell::command(
        "cargo",
        ["build", "--package", "integration-tests", "--bin", "probe"],
    ))?;
    integration_tests::binaries::use_directory(programs("release")?);
    if wanted("runtime") {
        runtime::compare_runtimes(arguments.rounds, &arguments.runc)?;
    }
    if wanted("guest") {
        guest::compare_in_guest(arguments.rounds, &arguments.runc)?;
    }
    if wanted("engine") {
        engine::compare_engines(arguments.rounds)?;
    }
    if wanted("fleet") {
        fleet::compare_fleets(arguments.rounds)?;
    }
    if wanted("ctr") {
        ctr::compare_daemons(arguments.rounds)?;
    }
    if wanted("tasks") {
        tasks(arguments)?;
    }
    if wanted("pull") {
        // Seconds each, not milliseconds.
        pull::compare_pulls(arguments.rounds.min(10))?;
    }
    Ok(())
}

/// The comparison of daemons through gRPC: a bench target of its own, so that `cargo xtask` needs no gRPC.
fn tasks(arguments: &Arguments) -> Result<()> {
    let rounds = arguments.rounds.to_string();
    let mut command = shell::command(
        "cargo",
        [
            "bench",
            "--package",
            "integration-tests",
            "--bench",
            "tasks",
            "--",
            "--rounds",
            &rounds,
        ],
    );
    for directory in &arguments.containerd {
        command.arg("--containerd").arg(directory);
    }
    command.env("WHARF_PROGRAMS", programs("release")?);
    shell::run(&mut command)
}
