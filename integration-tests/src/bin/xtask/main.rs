//! The project's own tasks: `cargo xtask <task>`.
//!
//! One file a task. A task is plain Rust that runs the same on every machine, so that no shell script has to.

mod bench;
mod install;
mod man;
mod peers;
mod proto;
mod shell;
mod soak;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Generate the Rust code of the wire definitions in proto/proto
    Proto {
        /// Change nothing; fail when the committed code is not what would be generated
        #[arg(long)]
        check: bool,
    },
    /// Check what no compiler checks: the arrows between crates, the heads of files, where `unsafe` stands
    Tidy,
    /// Build everything and run every test, as root, with real peers
    Test(test::Arguments),
    /// Compare with the peers that are installed, interleaved, and print medians, ratios and peak memory
    Bench(bench::Arguments),
    /// Run thousands of executions and containers on the release programs, and fail when anything grows
    Soak(soak::Arguments),
    /// Make the runtime's manual pages and its completions of fish and zsh from its command line
    Man,
    /// Build the release binaries and copy them to PREFIX/bin, and the manual pages beside them
    Install(install::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Proto { check } => proto::run(check),
        Task::Tidy => tidy::run(),
        Task::Test(arguments) => test::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Man => man::run(),
        Task::Install(arguments) => install::run(&arguments),
    }
}

/// The root of the checkout.
fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_path_buf()
}

/// Where cargo puts the programs of a profile (`debug` or `release`).
fn programs(profile: &str) -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    // This program runs from <target>/<triple>/<profile>/xtask.
    let triple = executable
        .ancestors()
        .nth(2)
        .ok_or_else(|| anyhow::anyhow!("{} has no target directory", executable.display()))?;
    Ok(triple.join(profile))
}
