//! The project's own tasks: `cargo xtask <task>`.
//!
//! One file a task. A task is plain Rust that runs the same on every machine, so that no shell script has to.

mod proto;

use std::path::PathBuf;

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
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::Proto { check } => proto::run(check),
    }
}

/// The root of the checkout.
fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_path_buf()
}
