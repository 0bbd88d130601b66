//! `start`: the program of a created container runs.

use anyhow::bail;
use clap::Args;
use wharf_runtime::Status;

use super::Environment;

/// Which container.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The container's name
    id: String,
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let container = environment.load(&arguments.id)?;
    match container.state()?.status {
        Status::Created => Ok(container.start()?),
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running => bail!("cannot start an already running container"),
        other => bail!("cannot start a container in the {other} state"),
    }
}
