//! `create`: a container whose program waits for `start`.

use anyhow::{Context as _, bail};
use clap::Args;
use wharf_runtime::spec::Spec;
use wharf_runtime::{CreateOptions, Stdio};

use super::plain::{Word, Words};
use super::process::{
    ContainerFlags, check_preserved, check_terminal, listen_environment, listen_fds, service_manager,
};
use super::{Environment, parse_id};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    flags: ContainerFlags,
    /// The container's name
    id: String,
}

impl Arguments {
    /// Takes plain ones ([`super::plain`]).
    pub(super) fn plain(words: &mut Words<'_>) -> Option<Self> {
        let (mut flags, mut id) = (ContainerFlags::default(), None);
        while let Some(word) = words.next() {
            match word? {
                Word::Flag(name) => flags.take(name, words)?,
                Word::Other(word) if id.is_none() => id = Some(word.to_owned()),
                Word::Other(_) => return None,
            }
        }
        Some(Self { flags, id: id? })
    }
}

pub(super) fn perform(environment: &Environment<'_>, arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { flags, id } = arguments;
    let (mut options, spec) = options(environment, &flags, &id, true).with_context(failed)?;
    if options.console_socket.is_some() {
        options.stdio = Stdio::Terminal;
    }
    let created = environment.runtime.create_as(options, &spec);
    let container = created.with_context(failed)?;
    environment.log.warnings(&container.take_warnings());
    Ok(())
}

fn failed() -> String {
    format!("{} create failed", super::called())
}

/// The options that `create` and `run` share, and the configuration, which is read once.
pub(super) fn options(
    environment: &Environment<'_>,
    flags: &ContainerFlags,
    id: &str,
    detach: bool,
) -> anyhow::Result<(CreateOptions, Spec)> {
    let listening = listen_fds();
    check_preserved(listening, flags.preserve_fds)?;
    let bundle = flags.bundle();
    if !bundle.is_dir() {
        bail!("bundle {}: no such directory", bundle.display());
    }
    let spec = environment.runtime.configuration(&bundle)?;
    let id = parse_id(id)?;
    let terminal = spec
        .oci()
        .process
        .as_ref()
        .is_some_and(|process| process.terminal);
    check_terminal(detach, terminal, flags.console_socket.is_some())?;
    let mut options = CreateOptions::new(id, bundle);
    options.pid_file.clone_from(&flags.pid_file);
    options.preserve_fds = listening.saturating_add(flags.preserve_fds);
    options.environment = listen_environment(listening);
    options.notify = service_manager().is_some();
    options.no_pivot = flags.no_pivot;
    options.no_new_keyring = flags.no_new_keyring;
    options.systemd_cgroup = environment.systemd_cgroup;
    options.rootless = environment.rootless;
    options.console_socket.clone_from(&flags.console_socket);
    options.pidfd_socket.clone_from(&flags.pidfd_socket);
    if terminal && !detach {
        options.stdio = Stdio::Terminal;
    }
    Ok((options, spec))
}
