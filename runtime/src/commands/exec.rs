//! `exec`: another program in a running container.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use wharf_runtime::foreground::Foreground;
use wharf_runtime::spec::oci::{Process, User};
use wharf_runtime::{ExecOptions, Status, Stdio, spec};

use super::Environment;
use super::exit_code::ExitCode;
use super::plain::{Word, Words};
use super::process::{check_preserved, check_terminal};

#[derive(Args, Debug, Default)]
pub(super) struct Arguments {
    /// A unix socket that receives the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// A unix socket that receives a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// The working directory in the container
    #[arg(long, value_name = "PATH")]
    cwd: Option<PathBuf>,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// The ids to run with
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// Another group id
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// A file with the OCI process object to use
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Do not wait for the process
    #[arg(short, long)]
    detach: bool,
    /// Where to write the pid
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// The SELinux label to run with
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// The AppArmor profile to run with
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Never gain privileges by executing a program
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "true|false")]
    no_new_privs: Option<bool>,
    /// Add a capability
    #[arg(short, long, value_name = "NAME")]
    cap: Vec<String>,
    /// How many more descriptors to pass, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// A control group below the container's to run in, which is there already
    #[arg(long, value_name = "[CONTROLLER:]PATH")]
    cgroup: Vec<String>,
    /// Also in a paused container
    #[arg(long)]
    ignore_paused: bool,
    /// The container's name, then the command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_names = ["ID", "COMMAND"])]
    arguments: Vec<OsString>,
}

impl Arguments {
    /// Takes plain ones ([`super::plain`]).
    pub(super) fn plain(words: &mut Words<'_>) -> Option<Self> {
        let mut taken = Self::default();
        loop {
            match words.next()?? {
                Word::Flag("--console-socket") => taken.console_socket = Some(words.value()?.into()),
                Word::Flag("--pidfd-socket") => taken.pidfd_socket = Some(words.value()?.into()),
                Word::Flag("--cwd") => taken.cwd = Some(words.value()?.into()),
                Word::Flag("-e" | "--env") => taken.env.push(words.value()?.to_owned()),
                Word::Flag("-t" | "--tty") => taken.tty = true,
                Word::Flag("-u" | "--user") => taken.user = Some(words.value()?.to_owned()),
                Word::Flag("-p" | "--process") => taken.process = Some(words.value()?.into()),
                Word::Flag("-d" | "--detach") => taken.detach = true,
                Word::Flag("--pid-file") => taken.pid_file = Some(words.value()?.into()),
                Word::Flag("--preserve-fds") => taken.preserve_fds = words.number()?,
                Word::Flag(_) => return None,
                Word::Other(id) => {
                    taken.arguments.push(id.into());
                    taken.arguments.extend(words.rest().cloned());
                    return Some(taken);
                }
            }
        }
    }
}

pub(super) fn perform(environment: &Environment<'_>, arguments: Arguments) -> anyhow::Result<ExitCode> {
    execute(environment, arguments).context("exec failed")
}

fn execute(environment: &Environment<'_>, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let sub_cgroups = sub_cgroups(&arguments.cgroup)?;
    let (id, command) = arguments
        .arguments
        .split_first()
        .context("container id cannot be empty")?;
    let container = environment.load(&id.to_string_lossy())?;
    let state = container.state()?;
    match state.status {
        Status::Stopped => bail!("cannot exec in a stopped container"),
        Status::Paused if !arguments.ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        _ => {}
    }
    let process = process(environment, &arguments, &state.bundle, command)?;
    let terminal = process.terminal;
    check_terminal(arguments.detach, terminal, arguments.console_socket.is_some())?;
    check_preserved(0, arguments.preserve_fds)?;
    let mut options = ExecOptions::new(process);
    options.pid_file.clone_from(&arguments.pid_file);
    options.preserve_fds = arguments.preserve_fds;
    options.console_socket.clone_from(&arguments.console_socket);
    options.sub_cgroups = sub_cgroups;
    options.ignore_paused = arguments.ignore_paused;
    options.pidfd_socket.clone_from(&arguments.pidfd_socket);
    if arguments.detach {
        if terminal {
            options.stdio = Stdio::Terminal;
        }
        let process = container.exec(options)?;
        environment.log.warnings(process.warnings());
        return Ok(ExitCode::SUCCESS);
    }
    let mut foreground = Foreground::new(false)?;
    options.stdio = foreground.stdio(terminal, container.root_outside()?)?;
    let mut process = container.exec(options)?;
    environment.log.warnings(process.warnings());
    if let Some(console) = process.take_console() {
        foreground.attach(console)?;
    }
    wharf_runtime::host_binary::release();
    Ok(ExitCode::from(
        foreground.wait(process.pid(), process.pidfd().as_fd())? as u8,
    ))
}

/// The groups below the container's, by controller; one without a controller is all of them.
fn sub_cgroups(arguments: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut paths = BTreeMap::new();
    for argument in arguments {
        let Some((controllers, path)) = argument.split_once(':') else {
            if arguments.len() != 1 {
                bail!("invalid --cgroup argument: {argument} (missing <controller>: prefix)");
            }
            paths.insert(String::new(), argument.clone());
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                bail!("invalid --cgroup argument: {argument} (empty <controller> prefix)");
            }
            if paths.insert(controller.to_owned(), path.to_owned()).is_some() {
                bail!("invalid --cgroup argument(s): controller {controller} specified multiple times");
            }
        }
    }
    Ok(paths)
}

/// The process to execute: that of the file, or that of the container's configuration with the changes that the
/// flags ask for.
fn process(
    environment: &Environment<'_>,
    arguments: &Arguments,
    bundle: &Path,
    command: &[OsString],
) -> anyhow::Result<Process> {
    if let Some(path) = &arguments.process {
        let (process, warnings) = spec::parse_process(&read(path)?)?;
        environment.log.warnings(&warnings);
        return Ok(process);
    }
    if command.is_empty() {
        bail!("exec args cannot be empty");
    }
    let spec = environment.runtime.configuration(bundle)?;
    let mut process = spec
        .oci()
        .process
        .clone()
        .context("process property must not be empty")?;
    let command = command.iter().map(|arg| {
        arg.to_str()
            .map(str::to_owned)
            .ok_or_else(|| anyhow!("{} is not UTF-8", arg.to_string_lossy()))
    });
    process.args = command.collect::<anyhow::Result<_>>()?;
    // The configuration's terminal is that of the first process.
    process.terminal = arguments.tty;
    if let Some(cwd) = &arguments.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(profile) = &arguments.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &arguments.process_label {
        process.selinux_label.clone_from(label);
    }
    if let Some(value) = arguments.no_new_privs {
        process.no_new_privileges = value;
    }
    process.env.extend(arguments.env.iter().cloned());
    add_capabilities(environment, &mut process, &arguments.cap);
    set_user(&mut process.user, arguments)?;
    spec::validate_process(&process, "process")?;
    Ok(process)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(spec::MAX_CONFIG_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("read {}", path.display()))?;
    if bytes.len() as u64 > spec::MAX_CONFIG_BYTES {
        bail!(
            "{} is larger than {} bytes",
            path.display(),
            spec::MAX_CONFIG_BYTES
        );
    }
    Ok(bytes)
}

/// Adds capabilities to what the process may have and has. They are ambient only where the configuration lets
/// processes inherit some, because nothing else can become ambient.
fn add_capabilities(environment: &Environment<'_>, process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let (known, unknown): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| spec::is_capability(name));
    if !unknown.is_empty() {
        environment.log.warning(&format!(
            "ignoring unknown or unavailable capabilities: {unknown:?}"
        ));
    }
    let sets = process.capabilities.get_or_insert_default();
    let mut grown = vec![&mut sets.bounding, &mut sets.effective, &mut sets.permitted];
    if !sets.inheritable.is_empty() {
        grown.push(&mut sets.ambient);
    }
    for set in grown {
        set.extend(known.iter().copied().cloned());
    }
}

fn set_user(user: &mut User, arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(ids) = &arguments.user {
        // Only numbers that fit: a name, or a number that wraps to 0, must never become root.
        let number = |text: &str, what: &str| {
            text.parse::<u32>()
                .map_err(|error| anyhow!("bad {what}: {text:?}: {error}"))
        };
        let (uid, gid) = match ids.split_once(':') {
            Some((uid, gid)) => (uid, Some(number(gid, "gid")?)),
            None => (ids.as_str(), None),
        };
        user.uid = number(uid, "uid")?;
        if let Some(gid) = gid {
            user.gid = gid;
        }
    }
    user.additional_gids.extend(&arguments.additional_gids);
    Ok(())
}
