//! `delete`: what a container left is removed.

use anyhow::bail;
use clap::Args;
use wharf_runtime::{Error, Status};

use super::{Environment, parse_id};

/// Which container.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Kill the container first if it still runs; no error if there is none
    #[arg(short, long)]
    force: bool,
    /// The container's name
    id: String,
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let id = parse_id(&arguments.id)?;
    let container = match environment.runtime.load(&id) {
        Ok(container) => container,
        Err(error @ Error::NotFound(_)) => {
            environment.runtime.remove_incomplete(&id)?;
            return if arguments.force {
                Ok(())
            } else {
                Err(error.into())
            };
        }
        Err(error) => return Err(error.into()),
    };
    if arguments.force {
        return Ok(container.delete(true)?);
    }
    match container.state()?.status {
        Status::Stopped => Ok(container.delete(false)?),
        // Its program never ran, so there is nothing to lose.
        Status::Created => Ok(container.delete(true)?),
        other => bail!("cannot delete container {id} that is not stopped: {other}"),
    }
}
