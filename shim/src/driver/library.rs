//! The driver that calls the runtime library in this process.
//!
//! Every operation is over when it returns. The states are kept in the bundle, below `runtime/`, unless the options name
//! a root: the container and what is known of it come and go together, and two daemons can use one id.

use std::path::Path;

use wharf_runtime::cgroup::Cgroup;
use wharf_runtime::spec::oci::LinuxResources;
use wharf_runtime::{Container, ContainerId, CreateOptions, ExecOptions, Runtime, Signal, Stdio, spec};

use super::{Driver, Outcome, Settings, Step};
use crate::status::{Code, Refusal};
use crate::stdio::ChildStdio;

/// See the module.
pub struct Library {
    runtime: Runtime,
    id: ContainerId,
    bundle: std::path::PathBuf,
    settings: Settings,
    container: Option<Container>,
}

impl Library {
    /// The driver for container `id` of `namespace`.
    ///
    /// # Errors
    ///
    /// The id is none that the runtime takes.
    pub fn new(settings: &Settings, id: &str, namespace: &str, bundle: &Path) -> Result<Library, Refusal> {
        let root = if settings.root.is_empty() {
            bundle.join("runtime")
        } else {
            Path::new(&settings.root).join(namespace)
        };
        Ok(Library {
            runtime: Runtime::new(root),
            id: id.parse().map_err(|error: wharf_runtime::InvalidId| {
                Refusal::new(Code::InvalidArgument, error.to_string())
            })?,
            bundle: bundle.to_owned(),
            settings: settings.clone(),
            container: None,
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
        let mut container = self.runtime.create(options)?;
        let console = container.take_console();
        let pid = container
            .init_pid()
            .ok_or_else(|| Refusal::new(Code::Internal, "the container's first process ended at once"));
        self.container = Some(container);
        Ok(Outcome::Process { pid: pid?, console })
    }

    fn try_exec(&mut self, process: &[u8], stdio: ChildStdio) -> Result<Outcome, Refusal> {
        let (process, _warnings) = spec::parse_process(process).map_err(wharf_runtime::Error::from)?;
        let mut options = ExecOptions::new(process);
        options.stdio = streams(stdio);
        options.no_new_keyring = self.settings.no_new_keyring;
        let mut process = self.container()?.exec(options)?;
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

    fn start(&mut self) -> Step {
        Step::Ready(self.container().and_then(|container| {
            container.start()?;
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

    fn created(&mut self, _pid: i32) {}

    fn cgroup(&self) -> Option<&Cgroup> {
        self.container.as_ref().map(Container::cgroup)
    }
}
