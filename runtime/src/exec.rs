//! Another process in a running container.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::caller::limits_to_raise;
use crate::cgroup::{Entrance, Version};
use crate::create::{end, own_oom_score, write_oom_score, write_pid_file};
use crate::init::{self, Failure, Message, Work};
use crate::pidfd_socket::PidfdSocket;
use crate::plan::{self, Caller, Facts, Opened, ProcessPlan};
use crate::process::{Conversation, Early, Groups, Heard, Request, Spawned, Streams, join_list, spawn};
use crate::seccomp::later;
use crate::spec::{Spec, oci};
use crate::sys::credentials::is_known_capability;
use crate::terminal::ConsoleSocket;
use crate::trace::trace;
use crate::{Container, Error, State, Status, Stdio, kernel, lsm, seccomp};

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
    /// Groups below the container's to run in, by controller; an empty name is all of them.
    pub sub_cgroups: BTreeMap<String, String>,
    /// Also in a paused container: the process waits until it is resumed.
    pub ignore_paused: bool,
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
            sub_cgroups: BTreeMap::new(),
            ignore_paused: false,
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
        let running = match status {
            Status::Running | Status::Created => true,
            Status::Paused => options.ignore_paused,
            Status::Creating | Status::Stopped => false,
        };
        let Some(init) = self.pidfd.as_ref().filter(|_| running) else {
            return Err(self.wrong("exec in", status));
        };
        let own_user = self.record.namespaces & libc::CLONE_NEWUSER as u64 != 0;
        let caller = self.caller();
        let spec = self.spec()?;
        let mut plan = self.compile(&options, &spec, caller)?;
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
        let initial = plan.affinity.initial.clone();
        let old_kernel = kernel::is_old();
        let usher = match own_user {
            // Only in the container's user namespace has a user the privilege to join its pid namespace.
            true => !caller.is_root(),
            // Who is born in its pid namespace is seen there from then on, and must hold nothing of the host's.
            false => self.record.namespaces & libc::CLONE_NEWPID as u64 != 0 && !old_kernel,
        };
        // Only root has the privilege to write it, and only outside.
        let oom_score = plan.oom_score_adj.filter(|_| caller.is_root());
        let own_oom_score = own_oom_score(plan.oom_score_adj.filter(|_| !caller.is_root()));
        let raise = match own_user {
            true => limits_to_raise(&plan)?,
            false => Vec::new(),
        };
        let place = self.place(&options.sub_cgroups)?;
        let entrances = place.entrances()?;
        let has_work = oom_score.is_some() || self.record.intel_rdt.is_some();
        let host_proc = own_user && !self.has_own_pids() && plan.label.is_some();
        let (spawned, moved_by) = place.enter(|cgroup, moved_later| {
            let (mut early, late) = match usher {
                true => (Early::default(), self.record.namespaces),
                false => self.namespaces(init.as_fd())?,
            };
            early.affinity.clone_from(&initial);
            let join = match old_kernel && late != 0 {
                true => join_list(init.as_fd(), late)?
                    .into_iter()
                    .map(|(fd, kind)| Opened { kind, fd })
                    .collect(),
                false => Vec::new(),
            };
            spawn(Request {
                create: 0,
                early,
                cgroup,
                groups: Groups::Made(&entrances),
                streams: &streams,
                preserve_fds: options.preserve_fds,
                gate: None,
                // Only the parent has the privilege to do some things.
                wait_for_parent: has_work || moved_later,
                join,
                old_kernel,
                host_proc,
                join_process: (!old_kernel).then_some((init.as_fd(), late)),
                usher,
                drop_groups: caller.is_root() && caller.may_set_groups,
                show_at_gate: false,
                oom_score: own_oom_score.clone(),
                raise: raise.clone(),
                work: Work::Process(&mut plan),
            })
        })?;
        let Spawned {
            child,
            socket,
            filter,
        } = spawned;
        drop(streams);
        let attended = (|| {
            let conversation = Conversation::new(&socket, &child.pidfd);
            let told = (|| {
                if has_work || moved_by.is_some() {
                    if let Some(mover) = &moved_by {
                        mover.move_process(child.pid)?;
                    }
                    self.prepare(child.pid, oom_score)?;
                    conversation.go()?;
                }
                // What the child half needs last.
                match &filter {
                    Some(socket) => later::hand_over(&spec, &self.filters, socket),
                    None => Ok(None),
                }
            })();
            let failure = |error| match conversation.last_words() {
                Some(Heard::Message(Message::Failed(failure))) => step_failed(failure, &plan, &entrances),
                _ => error,
            };
            if let Some(filter) = told.map_err(failure)? {
                later::keep(&spec, &filter, &self.filters);
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

    /// What only this process may do for the new one, which waits.
    fn prepare(&self, pid: i32, oom_score: Option<i32>) -> Result<(), Error> {
        if let Some(score) = oom_score {
            write_oom_score(pid, score)?;
        }
        match &self.record.intel_rdt {
            Some(group) => Ok(group.join(pid)?),
            None => Ok(()),
        }
    }

    /// Who executes, and whether the user namespace that the process will be in lets it change its groups.
    fn caller(&self) -> Caller {
        Caller {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            may_set_groups: !self.record.denies_setgroups,
        }
    }

    fn compile(&self, options: &ExecOptions, spec: &Spec, caller: Caller) -> Result<ProcessPlan, Error> {
        let mut process = options.process.clone();
        if let Some(first) = &spec.oci().process {
            complete(&mut process, first);
        }
        let default = oci::Linux::default();
        let linux = spec.oci().linux.as_ref().unwrap_or(&default);
        let facts = Facts {
            id: &self.id,
            bundle: &self.record.bundle,
            // A process mounts nothing.
            cgroup_version: Version::V2,
            cgroup_paths: self.cgroup.paths(),
            new_cgroup_namespace: false,
            lsm: lsm::Enabled::detect_for_process(&process),
            no_pivot: false,
            whole_views: &[],
            staging: false,
            no_new_keyring: options.no_new_keyring,
            caller,
            filter_comes_later: spec.later_profile().is_some(),
        };
        let mut plan = plan::compile_process(&process, linux, &facts)?;
        plan.leave_out_capabilities(is_known_capability);
        seccomp::tell(linux.seccomp.as_ref(), plan.seccomp.as_ref());
        Ok(plan)
    }

    /// Which of the container's namespaces are joined before the clone, and which by the child half, where there is no usher.
    ///
    /// The process is born in the container's pid namespace, where whoever may trace it can walk into its root through
    /// `/proc/PID/root`: it must be born with the container's root already, and not enter it later. (On an old kernel it
    /// still holds descriptors of the host's for a moment.) Root of a user
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
            early.namespaces.extend(join_list(init, kind)?);
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
            Heard::Closed | Heard::Born(..) | Heard::Message(_) | Heard::Hook(..) => {
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
