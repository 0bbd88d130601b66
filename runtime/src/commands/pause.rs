//! `pause` and `resume`: a container stops for a while.

use anyhow::bail;
use clap::Args;
use wharf_runtime::Status;

use super::Environment;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The container's name
    id: String,
}

pub(super) fn pause(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let container = environment.load(&arguments.id)?;
    match container.state()?.status {
        Status::Running | Status::Created => Ok(container.pause()?),
        other => bail!("container not running or created: {other}"),
    }
}

pub(super) fn resume(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let container = environment.load(&arguments.id)?;
    match container.state()?.status {
        Status::Paused => Ok(container.resume()?),
        _ => bail!("container not paused"),
    }
}
