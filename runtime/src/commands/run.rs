//! `run`: create and start; in the foreground, also wait and remove.

use std::os::fd::AsFd as _;
use std::thread;

use anyhow::Context as _;
use clap::Args;
use wharf_runtime::foreground::Foreground;
use wharf_runtime::spec::oci::Linux;
use wharf_runtime::{Container, Notifications, Stdio};

use super::exit_code::ExitCode;
use super::plain::{Word, Words};
use super::process::{ContainerFlags, service_manager};
use super::{Environment, create};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    flags: ContainerFlags,
    /// Do not wait for the container
    #[arg(short, long)]
    detach: bool,
    /// Do not remove the container when it ended
    #[arg(long)]
    keep: bool,
    /// Do not adopt the processes that the container leaves behind
    #[arg(long)]
    no_subreaper: bool,
    /// The container's name
    id: String,
}

impl Arguments {
    /// Takes plain ones ([`super::plain`]).
    pub(super) fn plain(words: &mut Words<'_>) -> Option<Self> {
        let (mut flags, mut id) = (ContainerFlags::default(), None);
        let (mut detach, mut keep, mut no_subreaper) = (false, false, false);
        while let Some(word) = words.next() {
            match word? {
                Word::Flag("-d" | "--detach") => detach = true,
                Word::Flag("--keep") => keep = true,
                Word::Flag("--no-subreaper") => no_subreaper = true,
                Word::Flag(name) => flags.take(name, words)?,
                Word::Other(word) if id.is_none() => id = Some(word.to_owned()),
                Word::Other(_) => return None,
            }
        }
        Some(Self {
            flags,
            detach,
            keep,
            no_subreaper,
            id: id?,
        })
    }
}

pub(super) fn perform(environment: &Environment<'_>, arguments: Arguments) -> anyhow::Result<ExitCode> {
    run(environment, &arguments).with_context(|| format!("{} run failed", super::called()))
}

fn run(environment: &Environment<'_>, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (mut options, spec) =
        create::options(environment, &arguments.flags, &arguments.id, arguments.detach)?;
    options.start_follows = true;
    if arguments.detach {
        if options.console_socket.is_some() {
            options.stdio = Stdio::Terminal;
        }
        let container = environment.runtime.create_as(options, &spec)?;
        environment.log.warnings(&container.take_warnings());
        let notifications = notifications(environment, &container)?;
        let process = container.pidfd().map(|pidfd| (container.recorded_pid(), pidfd));
        start(environment, &container, false)?;
        if let (Some(notifications), Some((pid, pidfd))) = (notifications, process) {
            notifications.relay(pid, pidfd)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut foreground = Foreground::new(!arguments.no_subreaper)?;
    let linux = spec.oci().linux.as_ref();
    let root = linux.and_then(Linux::root_outside);
    options.stdio = foreground.stdio(matches!(options.stdio, Stdio::Terminal), root)?;
    let mut container = environment.runtime.create_as(options, &spec)?;
    environment.log.warnings(&container.take_warnings());
    // It may have ended by now.
    let (pid, Some(pidfd)) = (container.recorded_pid(), container.pidfd()) else {
        anyhow::bail!("the container ended before it was started");
    };
    let pidfd = pidfd.try_clone_to_owned().context("duplicate a pidfd")?;
    if let Some(console) = container.take_console() {
        foreground
            .attach(console)
            .or_else(|error| undo(environment, &container, error.into()))?;
    }
    if let Some(notifications) = notifications(environment, &container)? {
        let own_pid = std::process::id().cast_signed();
        let pidfd = pidfd.try_clone().context("duplicate a pidfd")?;
        // Beside the wait for the container, whose own signals and streams do not wait for it to be ready.
        thread::Builder::new()
            .name("notify".into())
            .spawn(move || notifications.relay(own_pid, pidfd.as_fd()))
            .context("start a thread")?;
    }
    start(environment, &container, arguments.keep)?;
    wharf_runtime::host_binary::release();
    let waited = foreground.wait(pid, pidfd.as_fd());
    if !arguments.keep {
        container.delete(true)?;
        environment.log.warnings(&container.take_warnings());
    }
    Ok(ExitCode::from(waited? as u8))
}

/// Where the container says that it is ready, if a service manager waits for that.
fn notifications(
    environment: &Environment<'_>,
    container: &Container,
) -> anyhow::Result<Option<Notifications>> {
    let Some(manager) = service_manager() else {
        return Ok(None);
    };
    match Notifications::bind(container, &manager) {
        Ok(notifications) => Ok(Some(notifications)),
        Err(error) => undo(environment, container, error.into()).map(|()| None),
    }
}

fn start(environment: &Environment<'_>, container: &Container, keep: bool) -> anyhow::Result<()> {
    match container.start() {
        Err(error) if !keep => undo(environment, container, error.into()),
        result => Ok(result?),
    }
}

/// Removes the container that could not be started; the first error is the one to know.
fn undo(environment: &Environment<'_>, container: &Container, error: anyhow::Error) -> anyhow::Result<()> {
    if let Err(second) = container.delete(true) {
        environment
            .log
            .warning(&format!("removing the container: {second}"));
    }
    Err(error)
}
