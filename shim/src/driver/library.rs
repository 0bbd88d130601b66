//! The driver that calls the runtime library in this process.
//!
//! Every operation is over when it returns, but those of criu, which are done beside the loop. The states are kept in the bundle, below `runtime/`, unless the options name
//! a root: the container and what is known of it come and go together, and two daemons can use one id.

use std::path::Path;
use std::sync::Arc;

use wharf_runtime::cgroup::{Cgroup, Layout};
use wharf_runtime::checkpoint::{CheckpointOptions, RestoreOptions};
use wharf_runtime::spec::oci::LinuxResources;
use wharf_runtime::{Container, ContainerId, CreateOptions, ExecOptions, Runtime, Signal, Stdio, spec};

use super::beside::beside;
use super::binary::read_pid;
use super::console::ConsoleSocket;
use super::{Driver, Dump, Outcome, Saved, Settings, Step};
use crate::status::{Code, Refusal, runtime_error};
use crate::stdio::ChildStdio;

/// See the module.
pub struct Library {
    runtime: Runtime,
    id: ContainerId,
    bundle: std::path::PathBuf,
    settings: Settings,
    container: Option<Container>,
    /// Whether its start is a thaw.
    is_restored: bool,
}

impl Library {
    /// The driver for container `id` of `namespace`.
    ///
    /// # Errors
    ///
    /// The id is none that the runtime takes.
    pub fn new(
        settings: &Settings,
        id: &str,
        namespace: &str,
        bundle: &Path,
        layout: Option<Arc<Layout>>,
    ) -> Result<Library, Refusal> {
        let root = if settings.root.is_empty() {
            bundle.join("runtime")
        } else {
            Path::new(&settings.root).join(namespace)
        };
        let runtime = Runtime::new(root);
        Ok(Library {
            runtime: match layout {
                Some(layout) => runtime.on_layout(layout),
                None => runtime,
            },
            id: id.parse().map_err(|error: wharf_runtime::InvalidId| {
                Refusal::new(Code::InvalidArgument, error.to_string())
            })?,
            bundle: bundle.to_owned(),
            settings: settings.clone(),
            container: None,
            is_restored: false,
        })
    }

    /// The container: the one that was created here, or the one whose state is there.
    fn container(&mut self) -> Result<&mut Container, Refusal> {
        match &mut self.container {
            Some(container) => Ok(container),
            empty => Ok(empty.insert(self.runtime.load(&self.id)?)),
        }
    }

    fn try_create(&mut self, stdio: ChildStdio) -> Result<Outcome, Refusal> {
        let mut options = CreateOptions::new(self.id.clone(), &self.bundle);
        options.stdio = streams(stdio);
        options.pid_file = Some(self.bundle.join("init.pid"));
        options.no_pivot = self.settings.no_pivot;
        options.no_new_keyring = self.settings.no_new_keyring;
        options.systemd_cgroup = self.settings.systemd_cgroup;
        let created = self.runtime.create(options);
        let mut container = created.map_err(|error| runtime_error("create", &error))?;
        let console = container.take_console();
        let pid = container
            .init_pid()
            .ok_or_else(|| Refusal::new(Code::Unknown, "the container's first process ended at once"));
        self.container = Some(container);
        Ok(Outcome::Process { pid: pid?, console })
    }

    fn try_exec(&mut self, process: &[u8], stdio: ChildStdio) -> Result<Outcome, Refusal> {
        let (process, _warnings) = spec::parse_process(process).map_err(wharf_runtime::Error::from)?;
        let mut options = ExecOptions::new(process);
        options.stdio = streams(stdio);
        options.no_new_keyring = self.settings.no_new_keyring;
        let executed = self.container()?.exec(options);
        let mut process = executed.map_err(|error| runtime_error("exec", &error))?;
        Ok(Outcome::Process {
            pid: process.pid(),
            console: process.take_console(),
        })
    }

    fn try_kill(&mut self, signal: i32, all: bool) -> Result<Outcome, Refusal> {
        let signal = Signal::from_number(signal)
            .map_err(|error| Refusal::new(Code::InvalidArgument, error.to_string()))?;
        let container = self.container()?;
        let killed = if all {
            container.kill_all(signal)
        } else {
            container.kill(signal)
        };
        match killed {
            Ok(()) => Ok(Outcome::Done),
            Err(error) if error.kind() == wharf_runtime::ErrorKind::WrongStatus => {
                Err(Refusal::new(Code::NotFound, "process already finished"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What criu could not do, and where it says why.
fn criu_failed(error: wharf_runtime::Error, log: &Path) -> Refusal {
    let refusal = Refusal::from(error);
    match log.exists() {
        true => Refusal::new(
            refusal.code,
            format!("{} path= {}", refusal.message, log.display()),
        ),
        false => refusal,
    }
}

fn streams(stdio: ChildStdio) -> Stdio {
    match stdio {
        ChildStdio::Fds {
            stdin,
            stdout,
            stderr,
        } => Stdio::Fds {
            stdin,
            stdout,
            stderr,
        },
        ChildStdio::Terminal => Stdio::Terminal,
    }
}

impl Driver for Library {
    fn create(&mut self, stdio: ChildStdio) -> Step {
        Step::Ready(self.try_create(stdio))
    }

    fn restore(&mut self, saved: &Saved, stdio: ChildStdio) -> Step {
        let console = match &stdio {
            ChildStdio::Terminal => match ConsoleSocket::listen(&self.bundle, "init") {
                Ok(socket) => Some(socket),
                Err(error) => return Step::Ready(Err(Refusal::system("make the console socket", error))),
            },
            ChildStdio::Fds { .. } => None,
        };
        let mut options = RestoreOptions::new(self.id.clone(), &self.bundle, &saved.images);
        options.settings.work = Some(saved.work.clone());
        options.stdio = streams(stdio);
        options.pid_file = Some(self.bundle.join("init.pid"));
        options.console_socket = console.as_ref().map(ConsoleSocket::path);
        options.systemd_cgroup = self.settings.systemd_cgroup;
        let runtime = self.runtime.clone();
        self.is_restored = true;
        let pid_file = self.bundle.join("init.pid");
        let log = saved.work.join("restore.log");
        beside(
            move || {
                let container = runtime
                    .restore(options)
                    .map_err(|error| criu_failed(error, &log))?;
                // Whoever creates the container has things to do before it is started.
                container.pause()?;
                Ok(())
            },
            move || {
                let console = console
                    .map(|socket| socket.receive())
                    .transpose()
                    .map_err(|error| Refusal::system("receive the terminal", error))?;
                let pid = read_pid(&pid_file)?;
                Ok(Outcome::Process { pid, console })
            },
        )
    }

    fn checkpoint(&mut self, dump: &Dump) -> Step {
        let mut options = CheckpointOptions {
            parent: dump.parent.clone(),
            leave_running: !dump.exit,
            ..CheckpointOptions::default()
        };
        options.settings.images.clone_from(&dump.images);
        options.settings.work = Some(dump.work.clone());
        options.settings.tcp_established = dump.open_tcp;
        options.settings.external_unix_sockets = dump.external_unix_sockets;
        options.settings.shell_job = dump.terminal;
        options.settings.file_locks = dump.file_locks;
        options.settings.manage_cgroups = dump.cgroups;
        let log = dump.work.join("dump.log");
        match self.container() {
            Ok(container) => beside(
                || {
                    container
                        .checkpoint(options)
                        .map_err(|error| criu_failed(error, &log))
                },
                || Ok(Outcome::Done),
            ),
            Err(refusal) => Step::Ready(Err(refusal)),
        }
    }

    fn start(&mut self) -> Step {
        let is_restored = self.is_restored;
        Step::Ready(self.container().and_then(|container| {
            if is_restored {
                container.resume()?;
                return Ok(Outcome::Done);
            }
            let started = container.start();
            started.map_err(|error| runtime_error("start", &error))?;
            Ok(Outcome::Done)
        }))
    }

    fn exec(&mut self, _exec_id: &str, process: &[u8], stdio: ChildStdio) -> Step {
        Step::Ready(self.try_exec(process, stdio))
    }

    fn kill(&mut self, signal: i32, all: bool) -> Step {
        Step::Ready(self.try_kill(signal, all))
    }

    fn pause(&mut self) -> Step {
        Step::Ready(self.container().and_then(|container| {
            container.pause()?;
            Ok(Outcome::Done)
        }))
    }

    fn resume(&mut self) -> Step {
        Step::Ready(self.container().and_then(|container| {
            container.resume()?;
            Ok(Outcome::Done)
        }))
    }

    fn pids(&mut self) -> Step {
        Step::Ready(
            self.container()
                .and_then(|container| Ok(Outcome::Pids(container.processes()?))),
        )
    }

    fn update(&mut self, resources: &[u8]) -> Step {
        let resources: Result<LinuxResources, _> = serde_json::from_slice(resources);
        let outcome = resources
            .map_err(|error| Refusal::new(Code::InvalidArgument, format!("resources: {error}")))
            .and_then(|resources| {
                self.container()?.update(&resources)?;
                Ok(Outcome::Done)
            });
        Step::Ready(outcome)
    }

    fn delete(&mut self, force: bool) -> Step {
        Step::Ready(self.container().and_then(|container| {
            container.delete(force)?;
            Ok(Outcome::Done)
        }))
    }

    fn created(&mut self, _pid: i32) {
        if self.is_restored {
            // Made by another process. Without it there are no statistics, and every operation says why.
            drop(self.container());
        }
    }

    fn cgroup(&self) -> Option<&Cgroup> {
        self.container.as_ref().map(Container::cgroup)
    }
}
