//! The child half: from `clone3` to `execve`.
//!
//! # Invariants
//!
//! - Runs on its own copy of a program's memory in which another thread may hold any lock: nothing here allocates,
//!   locks, prints or panics; every call is one of `sys`.
//! - Decides nothing that could have been decided in the plan.
//! - It is in its control groups before it does anything that costs: what it allocates and makes is the container's. But for
//!   what it does while the parent makes them: namespaces, which are the caller's cost as if they had been made by the clone,
//!   and mounts of new and empty file systems ([`Meanwhile`]).
//! - Every step that fails ends the process, and is told to whoever waits: the parent, or after the gate the starter.
//! - From its first calls until `execve` the process is not dumpable: nobody in the container can trace it, or reach this
//!   program's file through its `/proc` entry (CVE-2019-5736, CVE-2016-9962). Only that of a user without privileges shows
//!   itself at the gate, where it has no privileges and no descriptors of the host's any more.

mod container;
mod criu;
mod gate;
mod hook;
mod identity;
mod isolate;
mod program;
mod step;
mod terminal;
mod usher;

use std::convert::Infallible;
use std::ffi::CString;

use crate::plan::{Opened, Plan, ProcessPlan};
use crate::seccomp::Program;
use crate::sys::{Fd, process, socket};

pub(crate) use criu::{Service, Trouble, become_criu, make_mountpoints};
pub(crate) use hook::{Ending, run_beside};
pub(crate) use step::{At, Failure, HookFailure, MESSAGE_BYTES, Message, STAGING, Stage, Step, error};

/// What connects the child half with the rest of the world.
#[derive(Debug)]
pub(crate) struct Wires {
    /// To the parent: packets of [`Message`] one way, packets of one byte the other.
    pub(crate) parent: Fd,
    /// The `tasks` files of the v1 control groups to enter.
    pub(crate) entrances: Vec<Fd>,
    /// What to do while the parent makes the v1 control groups, which then sends what is otherwise among the entrances.
    pub(crate) meanwhile: Option<Meanwhile>,
    /// The listening socket of the start gate; none for a process that starts at once.
    pub(crate) gate: Option<Fd>,
    /// Where the filter comes from, if there is only room for it.
    pub(crate) filter: Option<Fd>,
    /// Becomes 0, 1 and 2; nothing to keep what is there.
    pub(crate) streams: Option<[Fd; 3]>,
    /// Ranges of descriptors to close, both ends included.
    pub(crate) close: Vec<(u32, u32)>,
    /// From this one on, descriptors are closed by `execve`.
    pub(crate) first_undeclared: u32,
    /// The parent says when to go on: it has something to do first (id mappings, what only its privileges may write).
    pub(crate) wait_for_parent: bool,
    /// Namespaces to join by their own descriptor.
    pub(crate) join: Vec<Opened>,
    /// The host's procfs, where the kernel cannot make one that is nobody else's.
    pub(crate) proc: Option<Fd>,
    /// A process whose namespaces to join, and which.
    pub(crate) join_process: Option<(Fd, u64)>,
    /// Leave the caller's groups when root of a user namespace is assumed.
    pub(crate) drop_groups: bool,
    /// Let itself be reached while it waits at the gate: without privileges its own user could not join its namespaces
    /// otherwise. What it has to hide is gone by then.
    pub(crate) show_at_gate: bool,
    /// For its own `oom_score_adj`, where the parent has no privilege to write it.
    pub(crate) oom_score: Option<CString>,
    /// Resources and hard limits to raise before it has no privilege to.
    pub(crate) raise: Vec<(u32, u64)>,
    /// To the parent, from an usher: it joins the namespaces, and makes the process with these new ones (`CLONE_NEW*`).
    pub(crate) usher: Option<(Fd, u64)>,
}

/// What is done while the v1 control groups are made: each of them takes the kernel as long as a few mounts, and a network
/// namespace as long as all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meanwhile {
    /// `CLONE_NEW*`.
    pub(crate) namespaces: u64,
    /// Also the first of the mounts ([`crate::plan::RootfsPlan::groupless`]).
    pub(crate) mounts: bool,
}

impl Wires {
    /// Whether the control groups are awaited when the first of the mounts are made.
    fn mounts_before_groups(&self) -> bool {
        self.meanwhile.is_some_and(|meanwhile| meanwhile.mounts)
    }

    /// Whether a namespace of that type is joined by its own descriptor.
    fn joins(&self, kind: libc::c_int) -> bool {
        self.join.iter().any(|namespace| namespace.kind == kind as u64)
    }

    /// Whether a user namespace is joined, in whatever way.
    fn joins_user_namespace(&self) -> bool {
        let of_process = self
            .join_process
            .is_some_and(|(_, kinds)| kinds & libc::CLONE_NEWUSER as u64 != 0);
        of_process || self.joins(libc::CLONE_NEWUSER)
    }
}

/// What the child half is to become.
pub(crate) enum Work<'a> {
    /// The first process of a container.
    Container(&'a mut Plan),
    /// Another process in one.
    Process(&'a mut ProcessPlan),
}

impl Work<'_> {
    /// Whether the process has only room for its filter.
    pub(crate) fn awaits_filter(&self) -> bool {
        let process = match self {
            Self::Container(plan) => &plan.process,
            Self::Process(process) => process,
        };
        process.seccomp.as_ref().is_some_and(Program::is_awaited)
    }
}

/// Runs the child half; ends in the user's program or with exit code 1.
pub(crate) fn run(work: Work<'_>, wires: &Wires) -> Infallible {
    match wires.usher {
        Some((socket, namespaces)) => usher::perform(work, wires, socket, namespaces),
        None => become_it(work, wires),
    }
}

fn become_it(work: Work<'_>, wires: &Wires) -> Infallible {
    let mut reporter = wires.parent;
    let done = match work {
        Work::Container(plan) => container::perform(plan, wires, &mut reporter),
        Work::Process(process) => join(process, wires, &mut reporter),
    };
    match done {
        Err(failure) => fail(reporter, failure),
        Ok(never) => match never {},
    }
}

fn fail(reporter: Fd, failure: Failure) -> ! {
    // Whoever listened may be gone: there is nobody else to tell.
    // A filter may be in force already.
    let told = socket::tell(reporter, &Message::Failed(failure).encode());
    process::exit(if told.is_ok() { 1 } else { 2 })
}

/// Another process in a container that stands.
fn join(plan: &mut ProcessPlan, wires: &Wires, reporter: &mut Fd) -> Result<Infallible, Failure> {
    if wires.usher.is_none() {
        isolate::keep_privileges(wires)?;
    }
    // It may have been born in the container's pid namespace, before everybody's eyes.
    isolate::hide()?;
    if wires.usher.is_none() {
        isolate::enter_cgroups(wires)?;
        isolate::leave_caller(wires)?;
    }
    isolate::set_affinity(plan)?;
    isolate::wait_for_parent(wires)?;
    isolate::join(wires)?;
    if wires.joins(libc::CLONE_NEWUSER) {
        isolate::become_root(wires.drop_groups)?;
    }
    isolate::new_session(plan)?;
    let terminal = match plan.terminal {
        Some(size) => Some(terminal::open(Fd::CWD, c"/dev/pts/ptmx", size, *reporter)?),
        None => None,
    };
    program::execute(plan, None, terminal, wires, reporter)
}
