//! `delete`: what a container left is removed.

use anyhow::bail;
use clap::Args;
use wharf_runtime::{Error, Status};

use super::{Environment, parse_id};

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
    let force = match container.state()?.status {
        Status::Stopped => arguments.force,
        // Its program never ran, so there is nothing to lose.
        Status::Created => true,
        _ if arguments.force => true,
        other => bail!("cannot delete container {id} that is not stopped: {other}"),
    };
    let deleted = container.delete(force);
    environment.log.warnings(&container.take_warnings());
    Ok(deleted?)
}
