//! `kill`: a signal for a container's first process.

use anyhow::bail;
use clap::Args;
use wharf_runtime::{Error, Signal, Status};

use super::Environment;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Succeed also when the container is stopped (obsolete)
    #[arg(short, long, hide = true)]
    all: bool,
    /// The container's name
    id: String,
    /// The signal's name or number
    #[arg(default_value = "SIGTERM")]
    signal: String,
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let container = environment.load(&arguments.id)?;
    // The kernel's signal 0 asks whether there is somebody to signal.
    let signal: Option<Signal> = match arguments.signal.as_str() {
        "0" => None,
        text => Some(text.parse()?),
    };
    let stopped = match signal {
        None => container.state()?.status == Status::Stopped,
        Some(signal) => match container.kill(signal) {
            Err(Error::WrongStatus {
                status: Status::Stopped,
                ..
            }) => true,
            result => {
                result?;
                false
            }
        },
    };
    // Of old `--all` signalled every process; of that only this is left. SIGKILL ends all of them in any case.
    if stopped && !arguments.all {
        bail!("container not running");
    }
    Ok(())
}
