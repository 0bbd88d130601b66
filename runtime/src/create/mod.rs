//! Creating a container: from a bundle to a process that waits at the start gate.
//!
//! [`compile`] makes the plan, [`build`] has it carried out, [`undo`] takes back what was done when a step fails.

mod build;
mod compile;
mod undo;

use std::fs;
use std::path::{Path, PathBuf};

use crate::pidfd_socket::PidfdSocket;
use crate::process::{Streams, open_joins};
use crate::record::Directory;
use crate::spec::Spec;
use crate::{Container, ContainerId, Error, Runtime, Stdio, spec};
use build::Construction;
use compile::check_time_namespaces;

pub(crate) use build::{Built, own_oom_score, record, write_oom_score, write_pid_file};
pub(crate) use compile::{check_joined, console_socket, resctrl};
pub(crate) use undo::{Undo, end};

/// How a container is created.
#[derive(Debug)]
pub struct CreateOptions {
    /// The name; must not be taken.
    pub id: ContainerId,
    /// The directory with `config.json`.
    pub bundle: PathBuf,
    /// The standard streams.
    pub stdio: Stdio,
    /// Where to write the first process's pid, as decimal digits.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the process keeps; every other one is closed.
    pub preserve_fds: u32,
    /// Move the root mount instead of `pivot_root` (for a host that runs from an initramfs; weaker).
    pub no_pivot: bool,
    /// Keep the caller's session keyring instead of joining a new one.
    pub no_new_keyring: bool,
    /// systemd makes the control group; `linux.cgroupsPath` is `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// Do without a control group that may not be made, unless limits or a path are asked for; and speak to the user's systemd.
    /// Decided by the caller's ids when nothing is said.
    pub rootless: Option<bool>,
    /// A listening unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// A listening unix socket that receives a pidfd of the first process.
    pub pidfd_socket: Option<PathBuf>,
    /// Variables (`NAME=value`) for the first process besides those of the configuration.
    pub environment: Vec<String>,
    /// [`Container::start`] follows at once. Where nothing is left to do in between (no pid file, no terminal, no socket to
    /// hand anything to), the process then does not wait at the start gate: it finds it open, and is followed by `start`.
    pub start_follows: bool,
    /// Mount a directory with a socket for `sd_notify(3)` at `/run/notify`; [`crate::Notifications`] listens there.
    pub notify: bool,
}

impl CreateOptions {
    /// Options with every switch off, inherited streams and no files.
    #[must_use]
    pub fn new(id: ContainerId, bundle: impl Into<PathBuf>) -> Self {
        Self {
            id,
            bundle: bundle.into(),
            stdio: Stdio::Inherit,
            pid_file: None,
            preserve_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            systemd_cgroup: false,
            rootless: None,
            console_socket: None,
            pidfd_socket: None,
            environment: Vec::new(),
            start_follows: false,
            notify: false,
        }
    }
}

impl Runtime {
    /// Creates a container. Blocks until its process waits at the start gate.
    ///
    /// The process is a child of the caller, who reaps it. When this fails nothing is left: no process (it is
    /// reaped here), no control group, no state.
    ///
    /// # Errors
    ///
    /// The name is taken, the configuration is refused, or a step fails.
    pub fn create(&self, options: CreateOptions) -> Result<Container, Error> {
        let spec = self.configuration(&options.bundle)?;
        self.create_as(options, &spec)
    }

    /// Reads the configuration of a bundle, as [`spec::load`] does, but that most profiles of system call filters are not looked
    /// into: that is left for [`Self::create_as`], which makes the container's process meanwhile.
    ///
    /// # Errors
    ///
    /// As [`spec::load`].
    pub fn configuration(&self, bundle: &Path) -> Result<Spec, Error> {
        Ok(spec::load_but_profile(bundle)?)
    }

    /// As [`Self::create`], of a configuration that the caller has already loaded (to decide about the streams, say).
    ///
    /// # Errors
    ///
    /// As [`Self::create`].
    pub fn create_as(&self, options: CreateOptions, spec: &Spec) -> Result<Container, Error> {
        let bundle = fs::canonicalize(&options.bundle)
            .map_err(|error| Error::io(format!("open bundle {}", options.bundle.display()), error))?;
        let (mut plan, cgroups) = match self.changed(spec, &options)? {
            Some(changed) => self.compile(&changed, spec, &bundle, &options)?,
            None => self.compile(spec.oci(), spec, &bundle, &options)?,
        };
        let resctrl = resctrl(&plan)?;
        if plan.namespaces.makes(libc::CLONE_NEWTIME) {
            check_time_namespaces()?;
        }
        let streams = Streams::new(options.stdio, plan.process.terminal.is_some())?;
        let console = console_socket(options.console_socket.as_deref(), &plan)?;
        let pidfd = options.pidfd_socket.as_deref();
        let pidfd = pidfd.map(PidfdSocket::connect).transpose()?;
        let opens_gate = options.start_follows
            && options.pid_file.is_none()
            && console.is_none()
            && pidfd.is_none()
            && plan.process.terminal.is_none()
            && !options.notify;
        let namespaces = open_joins(&plan.namespaces.join)?;
        let warnings = check_joined(spec, &mut plan, &namespaces)?;
        let directory = Directory::claim(self.root(), &options.id)?;
        let notified = match options.notify {
            true => directory.make_notify_directory(),
            false => Ok(()),
        };
        let mut undo = Undo {
            directory: Some(directory),
            cgroup: None,
            child: None,
            intel_rdt: None,
        };
        let construction = Construction {
            id: &options.id,
            bundle,
            spec,
            streams: &streams,
            console,
            pidfd,
            pid_file: options.pid_file.as_deref(),
            preserve_fds: options.preserve_fds,
            opens_gate,
            filters: &self.filters,
            resctrl,
        };
        notified
            .and_then(|()| construction.build(plan, &cgroups, namespaces, &mut undo))
            .and_then(|built| undo.keep(built, options.id.clone(), warnings.chain(spec, &cgroups)))
            .map(|container| Container {
                filters: self.filters.clone(),
                ..container
            })
            .map_err(|error| undo.perform(error))
    }
}
