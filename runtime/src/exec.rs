//! Another process in a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::cgroup::{Entrance, Version};
use crate::create::{end, write_oom_score, write_pid_file};
use crate::init::{self, Failure, Message, Work};
use crate::pidfd_socket::PidfdSocket;
use crate::plan::{self, Facts, ProcessPlan};
use crate::process::{Conversation, Early, Heard, Request, Streams, spawn};
use crate::spec::oci;
use crate::terminal::ConsoleSocket;
use crate::trace::trace;
use crate::{Container, Error, State, Status, Stdio, lsm};

/// What to execute in a running container, and how.
#[derive(Debug)]
pub struct ExecOptions {
    /// The OCI `process` object. Its command, environment, user and `noNewPrivileges` are taken from nowhere else. Where it
    /// says nothing about capabilities, labels, limits, priorities, CPUs, the umask and the OOM score, what the container's own
    /// process was given holds (as runc).
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
    /// A listening unix socket that receives a pidfd of the process.
    pub pidfd_socket: Option<PathBuf>,
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
            pidfd_socket: None,
        }
    }
}

/// A process that was executed in a container; a child of the caller, who reaps it.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    console: Option<OwnedFd>,
    warnings: Vec<String>,
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

    /// What was asked for and is not done the way it was asked, one sentence each, for the caller to log.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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
        let pidfd_socket = options.pidfd_socket.as_deref();
        let pidfd_socket = pidfd_socket.map(PidfdSocket::connect).transpose()?;
        let (mut early, late) = self.namespaces(init.as_fd())?;
        early.affinity.clone_from(&plan.affinity.initial);
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
            let state = || self.record.state(self.record.pid, Status::Running);
            let master = attend(
                &conversation,
                &mut console,
                &plan,
                &entrances,
                (child.pid, &state),
            )?;
            if let Some(socket) = pidfd_socket {
                socket.send(PidfdSocket::JOINED, &child.pidfd)?;
            }
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
                warnings: plan.warnings,
            }),
            Err(error) => Err(match end(&child) {
                Ok(()) => error,
                Err(left) => Error::with_leftovers(error, vec![left]),
            }),
        }
    }

    fn compile(&self, options: &ExecOptions) -> Result<ProcessPlan, Error> {
        let spec = self.spec()?;
        let mut process = options.process.clone();
        if let Some(first) = &spec.oci().process {
            complete(&mut process, first);
        }
        let default = oci::Linux::default();
        let linux = spec.oci().linux.as_ref().unwrap_or(&default);
        let kept = linux
            .seccomp
            .as_ref()
            .and_then(|profile| self.filters.load(profile));
        let facts = Facts {
            id: &self.id,
            bundle: &self.record.bundle,
            // A process mounts nothing.
            cgroup_version: Version::V2,
            cgroup_paths: self.cgroup.paths(),
            new_cgroup_namespace: false,
            lsm: lsm::Enabled::detect_for_process(&process),
            no_pivot: false,
            no_new_keyring: options.no_new_keyring,
            filter: kept.as_ref(),
        };
        Ok(plan::compile_process(&process, linux, &facts)?)
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

/// Fills in what a process does not say from the container's first one.
fn complete(process: &mut oci::Process, first: &oci::Process) {
    fn fill<T: Clone>(value: &mut T, from: &T, is_empty: impl Fn(&T) -> bool) {
        if is_empty(value) {
            value.clone_from(from);
        }
    }
    fill(&mut process.capabilities, &first.capabilities, Option::is_none);
    fill(
        &mut process.apparmor_profile,
        &first.apparmor_profile,
        String::is_empty,
    );
    fill(&mut process.selinux_label, &first.selinux_label, String::is_empty);
    fill(&mut process.rlimits, &first.rlimits, Vec::is_empty);
    fill(&mut process.io_priority, &first.io_priority, Option::is_none);
    fill(&mut process.scheduler, &first.scheduler, Option::is_none);
    fill(
        &mut process.exec_cpu_affinity,
        &first.exec_cpu_affinity,
        Option::is_none,
    );
    fill(&mut process.user.umask, &first.user.umask, Option::is_none);
    fill(&mut process.oom_score_adj, &first.oom_score_adj, Option::is_none);
}

/// Follows the child half until the program is executed; answers the terminal's master, if it stays here.
fn attend(
    conversation: &Conversation<'_>,
    console: &mut Option<ConsoleSocket>,
    plan: &ProcessPlan,
    entrances: &[Entrance],
    (pid, state): (i32, &dyn Fn() -> State),
) -> Result<Option<OwnedFd>, Error> {
    let (mut kept, mut executing) = (None, false);
    loop {
        match conversation.listen()? {
            Heard::Message(Message::Executing) => {
                trace!("setns_init: about to exec");
                executing = true;
            }
            Heard::Message(Message::Listener(number)) => {
                let listener = conversation.fetch(number)?;
                match &plan.agent {
                    Some(agent) => agent.send(listener, pid, &state())?,
                    None => return Err(Error::Ended("handing over a listener")),
                }
            }
            Heard::Message(Message::Failed(failure)) => {
                return Err(step_failed(failure, plan, entrances));
            }
            Heard::Console(master) => match console.take() {
                Some(socket) => socket.send(master)?,
                None => kept = Some(master),
            },
            Heard::Closed if executing => return Ok(kept),
            Heard::Closed | Heard::Message(_) | Heard::Hook(..) => {
                return Err(Error::Ended("joining the container"));
            }
        }
    }
}

fn step_failed(failure: Failure, plan: &ProcessPlan, entrances: &[Entrance]) -> Error {
    init::error(failure, None, plan, entrances)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_does_not_say_holds_as_for_the_first_one() {
        let first = oci::Process {
            capabilities: Some(oci::LinuxCapabilities::default()),
            apparmor_profile: "first".into(),
            oom_score_adj: Some(7),
            no_new_privileges: true,
            env: vec!["A=1".into()],
            ..oci::Process::default()
        };
        let mut process = oci::Process {
            apparmor_profile: "own".into(),
            ..oci::Process::default()
        };
        complete(&mut process, &first);
        assert_eq!(process.apparmor_profile, "own");
        assert_eq!(process.capabilities, first.capabilities);
        assert_eq!(process.oom_score_adj, Some(7));
        assert!(!process.no_new_privileges && process.env.is_empty());
    }
}
