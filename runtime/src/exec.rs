//! Another process in a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::cgroup::{Entrance, Version};
use crate::create::{end, write_oom_score, write_pid_file};
use crate::init::{Failure, Message, Work, describe};
use crate::plan::{self, Facts, ProcessPlan};
use crate::process::{Conversation, Early, Heard, Request, Streams, spawn};
use crate::spec::oci;
use crate::terminal::ConsoleSocket;
use crate::{Container, Error, Status, Stdio, lsm};

/// What to execute in a running container, and how.
#[derive(Debug)]
pub struct ExecOptions {
    /// The OCI `process` object, complete: capabilities, environment and the rest are taken from nowhere else.
    pub process: oci::Process,
    /// The standard streams.
    pub stdio: Stdio,
    /// Where to write the pid, as decimal digits.
    pub pid_file: Option<PathBuf>,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// Keep the caller's session keyring instead of joining a new one.
    pub no_new_keyring: bool,
    /// A listening unix socket that receives the terminal's master.
    pub console_socket: Option<PathBuf>,
}

impl ExecOptions {
    /// Options with every switch off, inherited streams and no files.
    #[must_use]
    pub fn new(process: oci::Process) -> Self {
        Self {
            process,
            stdio: Stdio::Inherit,
            pid_file: None,
            preserve_fds: 0,
            no_new_keyring: false,
            console_socket: None,
        }
    }
}

/// A process that was executed in a container; a child of the caller, who reaps it.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    console: Option<OwnedFd>,
}

impl Process {
    /// The process as the caller's pid namespace numbers it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Becomes readable when the process ends.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The terminal's master, once; nothing without a terminal or when it went to the console socket.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }
}

impl Container {
    /// Executes a process in the container. Blocks until the program runs, or failed to.
    ///
    /// # Errors
    ///
    /// The container is not running (or created), the process is refused, or a step fails; then no process is left.
    pub fn exec(&self, options: ExecOptions) -> Result<Process, Error> {
        let status = self.status()?;
        let running = matches!(status, Status::Running | Status::Created);
        let Some(init) = self.pidfd.as_ref().filter(|_| running) else {
            return Err(self.wrong("exec in", status));
        };
        let mut plan = self.compile(&options)?;
        let streams = Streams::new(options.stdio, plan.terminal.is_some())?;
        let mut console = match options.console_socket.as_deref() {
            Some(_) if plan.terminal.is_none() => {
                return Err(Error::Invalid(
                    "a console socket is given, but process.terminal is off".into(),
                ));
            }
            path => path.map(ConsoleSocket::connect).transpose()?,
        };
        let (early, late) = self.namespaces(init.as_fd())?;
        let entrances = self.cgroup.entrances()?;
        // Only the parent has the privilege to write it.
        let wait_for_parent = plan.oom_score_adj.is_some();
        let (child, socket) = spawn(Request {
            create: 0,
            early,
            cgroup: self.cgroup.v2_dir_fd()?,
            entrances: &entrances,
            streams: &streams,
            preserve_fds: options.preserve_fds,
            gate: None,
            wait_for_parent,
            join: Vec::new(),
            join_process: Some((init.as_fd(), late)),
            work: Work::Process(&mut plan),
        })?;
        drop(streams);
        let attended = (|| {
            let conversation = Conversation::new(&socket, &child.pidfd);
            if let Some(score) = plan.oom_score_adj {
                let told = write_oom_score(child.pid, score).and_then(|()| conversation.go());
                let failure = |error| {
                    let last = conversation.last_words();
                    last.map_or(error, |failure| step_failed(failure, &plan, &entrances))
                };
                told.map_err(failure)?;
            }
            let master = attend(&conversation, &mut console, &plan, &entrances)?;
            if let Some(path) = &options.pid_file {
                write_pid_file(path, child.pid)?;
            }
            Ok(master)
        })();
        match attended {
            Ok(console) => Ok(Process {
                pid: child.pid,
                pidfd: child.pidfd,
                console,
            }),
            Err(error) => Err(match end(&child) {
                Ok(()) => error,
                Err(left) => Error::with_leftovers(error, vec![left]),
            }),
        }
    }

    fn compile(&self, options: &ExecOptions) -> Result<ProcessPlan, Error> {
        let spec = self.spec()?;
        let facts = Facts {
            id: &self.id,
            bundle: &self.record.bundle,
            // A process mounts nothing.
            cgroup_version: Version::V2,
            cgroup_paths: self.cgroup.paths(),
            new_cgroup_namespace: false,
            lsm: lsm::Enabled::detect_for_process(&options.process),
            no_pivot: false,
            no_new_keyring: options.no_new_keyring,
        };
        let default = oci::Linux::default();
        let linux = spec.oci().linux.as_ref().unwrap_or(&default);
        Ok(plan::compile_process(&options.process, linux, &facts)?)
    }

    /// Which of the container's namespaces are joined before the clone, and which by the child half.
    ///
    /// The process is born in the container's pid namespace, where whoever may trace it can walk into its root through
    /// `/proc/PID/root`: it must be born with the container's root already, and not enter it later. Root of a user
    /// namespace may not trace what is still of this one, and what belongs to a user namespace can be joined only
    /// after it: there everything else is late.
    fn namespaces(&self, init: BorrowedFd<'_>) -> Result<(Early, u64), Error> {
        // The mount namespace last: the others need nothing of either root.
        const BEFORE: [libc::c_int; 5] = [
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNS,
        ];
        let all = self.record.namespaces;
        let own_user = all & libc::CLONE_NEWUSER as u64 != 0;
        let mut early = Early::default();
        let mut late = all;
        for kind in BEFORE.map(|kind| kind as u64) {
            let is_early = !own_user || kind == libc::CLONE_NEWPID as u64;
            if all & kind == 0 || !is_early {
                continue;
            }
            let init = init
                .try_clone_to_owned()
                .map_err(|error| Error::io("duplicate a pidfd", error))?;
            early.namespaces.push((init, kind));
            late &= !kind;
        }
        Ok((early, late))
    }
}

/// Follows the child half until the program is executed; answers the terminal's master, if it stays here.
fn attend(
    conversation: &Conversation<'_>,
    console: &mut Option<ConsoleSocket>,
    plan: &ProcessPlan,
    entrances: &[Entrance],
) -> Result<Option<OwnedFd>, Error> {
    let (mut kept, mut executing) = (None, false);
    loop {
        match conversation.listen()? {
            Heard::Message(Message::Executing) => executing = true,
            Heard::Message(Message::Failed(failure)) => {
                return Err(step_failed(failure, plan, entrances));
            }
            Heard::Console(master) => match console.take() {
                Some(socket) => socket.send(master)?,
                None => kept = Some(master),
            },
            Heard::Closed if executing => return Ok(kept),
            Heard::Closed | Heard::Message(_) => return Err(Error::Ended("joining the container")),
        }
    }
}

fn step_failed(failure: Failure, plan: &ProcessPlan, entrances: &[Entrance]) -> Error {
    Error::Step {
        description: describe(failure, None, plan, entrances),
        errno: failure.errno,
    }
}
