//! `cargo xtask test`: every test of the project, those that need root and real peers included.

use anyhow::{Result, bail};
use clap::Args;

use crate::{install, peers, programs, shell, workspace};

/// What to test.
#[derive(Args)]
pub(crate) struct Arguments {
    /// First install what the tests need: Debian's packages of the peers, and cargo-nextest
    #[arg(long)]
    install: bool,
    /// Passed on to cargo-nextest: names of tests, `-p CRATE`, `--no-fail-fast`, …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the programs, then runs the tests with nextest and the examples in the documentation with rustdoc.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the tests make namespaces, mounts and cgroups: run them as root");
    }
    if arguments.install {
        peers::install()?;
    }
    if shell::command("cargo", ["nextest", "--version"])
        .output()
        .is_ok_and(|output| !output.status.success())
    {
        if !arguments.install {
            bail!("cargo-nextest is missing; `cargo xtask test --install` installs it");
        }
        shell::run(&mut shell::command(
            "cargo",
            ["install", "--locked", "--target", "host-tuple", "cargo-nextest"],
        ))?;
    }
    // The programs are run by the tests; `--workspace` also builds the in-container probe.
    shell::run(&mut shell::command(
        "cargo",
        ["build", "--workspace", "--bins", "--examples"],
    ))?;
    let mut nextest = shell::command("cargo", ["nextest", "run", "--workspace"]);
    shell::run(nextest.args(&arguments.rest))?;
    if arguments.rest.is_empty() {
        test_old_kernel()?;
        shell::run(&mut shell::command("cargo", ["test", "--workspace", "--doc"]))?;
    }
    Ok(())
}

/// The mounts and the threats once more, by a runtime that has only what a kernel of 5.4 has, and that is built for what the
/// installed one is built for.
fn test_old_kernel() -> Result<()> {
    let target = workspace().join("target/old-kernel");
    let mut build = shell::command(
        "cargo",
        ["build", "-p", "wharf-runtime", "--features", "old-kernel"],
    );
    let triple = match install::runtime_target()? {
        Some(other) => {
            build.args(["--target", &other]);
            other.into()
        }
        None => {
            let programs = programs("debug")?;
            let own = programs.parent().and_then(std::path::Path::file_name);
            own.unwrap_or_default().to_owned()
        }
    };
    shell::run(build.env("CARGO_TARGET_DIR", &target))?;
    let runtime = target.join(triple).join("debug/wharf-runtime");
    let mut nextest = shell::command(
        "cargo",
        [
            "nextest",
            "run",
            "-p",
            "integration-tests",
            "--test",
            "runtime",
            "--test",
            "runtime_mounts",
            "--test",
            "threats",
        ],
    );
    // What exhausts does so on any kernel.
    nextest.args(["-E", "not test(needs_5_12) and not test(/^exhaustion::/)"]);
    // The other pass has run the races at length.
    nextest.env("WHARF_RACE_ROUNDS", "100");
    shell::run(nextest.env("WHARF_RUNTIME", runtime))
}
