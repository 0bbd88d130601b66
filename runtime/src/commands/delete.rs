//! `delete`: what a container left is removed.

use anyhow::bail;
use clap::Args;
use wharf_runtime::{Error, Status};

use super::plain::{Word, Words};
use super::{Environment, parse_id};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Kill the container first if it still runs; no error if there is none
    #[arg(short, long)]
    force: bool,
    /// The container's name
    id: String,
}

impl Arguments {
    /// Takes plain ones ([`super::plain`]).
    pub(super) fn plain(words: &mut Words<'_>) -> Option<Self> {
        let (mut force, mut id) = (false, None);
        while let Some(word) = words.next() {
            match word? {
                Word::Flag("-f" | "--force") => force = true,
                Word::Other(word) if id.is_none() => id = Some(word.to_owned()),
                _ => return None,
            }
        }
        Some(Self { force, id: id? })
    }
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
