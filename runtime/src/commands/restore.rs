//! `restore`: a container is made again from files; in the foreground, also waited for and removed.

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use wharf_runtime::checkpoint::RestoreOptions;
use wharf_runtime::foreground::Foreground;
use wharf_runtime::spec::oci::Linux;
use wharf_runtime::{Container, Stdio};

use super::criu::{CriuFlags, quote, warn_without_privileges};
use super::exit_code::ExitCode;
use super::process::check_terminal;
use super::{Environment, parse_id};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    flags: CriuFlags,
    /// A unix socket that receives the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// The bundle's directory [default: the working directory]
    #[arg(short, long, value_name = "DIRECTORY")]
    bundle: Option<PathBuf>,
    /// Do not wait for the container
    #[arg(short, long)]
    detach: bool,
    /// Where to write the first process's pid
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Do not adopt the processes that the container leaves behind
    #[arg(long)]
    no_subreaper: bool,
    /// Taken for the sake of callers who say it with every command: criu changes the root its own way
    #[arg(long)]
    no_pivot: bool,
    /// A security profile in place of the one that was saved, as TYPE:NAME
    #[arg(long, value_name = "PROFILE")]
    lsm_profile: Option<String>,
    /// A security context for mounts in place of the one that was saved
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// The container's name
    id: String,
}

pub(super) fn perform(environment: &Environment<'_>, arguments: Arguments) -> anyhow::Result<ExitCode> {
    warn_without_privileges(environment.log);
    restore(environment, arguments).inspect_err(|error| quote(environment.log, error))
}

fn restore(environment: &Environment<'_>, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let settings = arguments.flags.settings(environment)?;
    let bundle = arguments.bundle.filter(|path| !path.as_os_str().is_empty());
    let bundle = bundle.unwrap_or_else(|| PathBuf::from("."));
    if !bundle.is_dir() {
        bail!("bundle {}: no such directory", bundle.display());
    }
    let spec = environment.runtime.configuration(&bundle)?;
    let id = parse_id(&arguments.id)?;
    let process = spec.oci().process.as_ref();
    let terminal = process.is_some_and(|process| process.terminal);
    check_terminal(arguments.detach, terminal, arguments.console_socket.is_some())?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let mut options = RestoreOptions {
        settings,
        pid_file: arguments.pid_file,
        console_socket: arguments.console_socket,
        systemd_cgroup: environment.systemd_cgroup,
        rootless: environment.rootless,
        lsm_profile: given(arguments.lsm_profile),
        lsm_mount_context: given(arguments.lsm_mount_context),
        ..RestoreOptions::new(id, bundle, "")
    };
    if arguments.detach {
        if terminal {
            options.stdio = Stdio::Terminal;
        }
        let container = environment.runtime.restore_as(options, &spec)?;
        environment.log.warnings(&container.take_warnings());
        return Ok(ExitCode::SUCCESS);
    }
    let mut foreground = Foreground::new(!arguments.no_subreaper)?;
    let linux = spec.oci().linux.as_ref();
    let root = linux.and_then(Linux::root_outside);
    options.stdio = foreground.stdio(terminal, root)?;
    let mut container = environment.runtime.restore_as(options, &spec)?;
    environment.log.warnings(&container.take_warnings());
    let attached = attach(&mut foreground, &mut container);
    let (pid, pidfd) = match attached {
        Ok(process) => process,
        Err(error) => {
            if let Err(second) = container.delete(true) {
                environment
                    .log
                    .warning(&format!("removing the container: {second}"));
            }
            return Err(error);
        }
    };
    let waited = foreground.wait(pid, pidfd.as_fd());
    container.delete(true)?;
    environment.log.warnings(&container.take_warnings());
    Ok(ExitCode::from(waited? as u8))
}

/// Connects the terminal, if there is one; answers the process to wait for.
fn attach(
    foreground: &mut Foreground,
    container: &mut Container,
) -> anyhow::Result<(i32, std::os::fd::OwnedFd)> {
    let console = container.take_console();
    // It may have ended already: then that is what the wait tells.
    let pid = container.recorded_pid();
    let Some(pidfd) = container.pidfd() else {
        bail!("the container's process cannot be waited for");
    };
    let pidfd = pidfd.try_clone_to_owned().context("duplicate a pidfd")?;
    if let Some(console) = console {
        foreground.attach(console)?;
    }
    Ok((pid, pidfd))
}
