//! `kill`: a signal for a container.

use anyhow::bail;
use clap::Args;
use wharf_runtime::{Error, Signal, Status};

use super::Environment;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Signal all processes of the container, also when the first is gone
    #[arg(short, long)]
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
    if arguments.all {
        return match signal {
            Some(signal) => Ok(container.kill_all(signal)?),
            None => Ok(()),
        };
    }
    let killed = match signal {
        Some(signal) => container.kill(signal),
        None if container.state()?.status == Status::Stopped => bail!("container not running"),
        None => Ok(()),
    };
    match killed {
        Err(Error::WrongStatus {
            status: Status::Stopped,
            ..
        }) => bail!("container not running"),
        result => Ok(result?),
    }
}
