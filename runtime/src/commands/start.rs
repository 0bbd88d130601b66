//! `start`: the program of a created container runs.

use anyhow::bail;
use clap::Args;
use wharf_runtime::{Container, Notifications, Status};

use super::Environment;
use super::plain::Words;
use super::process::service_manager;

#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The container's name
    id: String,
}

impl Arguments {
    /// Takes plain ones ([`super::plain`]).
    pub(super) fn plain(words: &mut Words<'_>) -> Option<Self> {
        Some(Self { id: words.only()? })
    }
}

pub(super) fn perform(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<()> {
    let container = environment.load(&arguments.id)?;
    match container.state()?.status {
        Status::Created => start(&container),
        Status::Stopped => bail!("cannot start a container that has stopped"),
        Status::Running => bail!("cannot start an already running container"),
        other => bail!("cannot start a container in the {other} state"),
    }
}

/// Starts it; with a service manager that waits for it, when the program is ready.
fn start(container: &Container) -> anyhow::Result<()> {
    let Some(manager) = service_manager() else {
        return Ok(container.start()?);
    };
    let notifications = Notifications::bind(container, &manager)?;
    let (Some(pid), Some(pidfd)) = (container.init_pid(), container.pidfd()) else {
        bail!("container not running");
    };
    container.start()?;
    Ok(notifications.relay(pid, pidfd)?)
}
