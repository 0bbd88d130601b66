//! `delete`: what a container left is removed.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, bail};
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
            // A creation that was cut short leaves a directory without a state.
            let leftover = environment.runtime.root().join(id.as_str());
            match fs::remove_dir_all(&leftover) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("remove {}", leftover.display())),
            }
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
