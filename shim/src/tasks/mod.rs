//! The task service: what calls mean for containers and their processes.
//!
//! Owns the tables of [`Container`]s and [`Process`]es. One shim serves any number of containers (a pod's, when they are
//! grouped). What a driver does for a container is an [`Operation`]; a container has one at a time, and the others
//! queue, but programs that execute processes, a number of which run beside it. An operation's call is answered when the
//! operation is settled, so a driver that runs a program delays its own container's calls and nobody else's.
//!
//! | file | calls |
//! |---|---|
//! | `call` | decoding, dispatch |
//! | `create` | Create |
//! | `checkpoint` | Checkpoint |
//! | `process` | Start, Exec, Kill, ResizePty, CloseIO, Wait, State |
//! | `control` | Pause, Resume, Pids, Stats, Update, Connect, Shutdown |
//! | `operation` | running and settling operations |
//! | `exit` | reaping, exit records, exit events |
//! | `delete` | Delete |

mod call;
mod checkpoint;
mod control;
mod create;
mod delete;
mod exit;
mod operation;
pub mod options;
mod process;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::process::Pid;
use rustix::termios::Winsize;
use wharf_proto::containerd::types::Mount;
use wharf_runtime::cgroup::OomWatch;

use crate::connection::Reply;
use crate::driver::{Driver, Dump, Job};
use crate::exit_record::Exit;
use crate::stdio::logger::Logger;
use crate::stdio::{Names, Prepared};

/// Operations that wait for one container.
const MOST_OPERATIONS: usize = 1024;

/// Programs that execute processes in one container at once; one more is waited for like any other operation.
const MOST_EXECUTING: usize = 32;

/// Processes of one container that are not deleted.
const MOST_EXECS: usize = 16 << 10;

/// A container of this shim.
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// What makes and changes it.
    pub driver: Box<dyn Driver>,
    /// The key of its first process.
    pub init: u32,
    /// The keys of the others, by exec id.
    pub execs: BTreeMap<String, u32>,
    /// Whether its creation has succeeded; before, it is not there for anybody.
    pub is_created: bool,
    /// Whether it is frozen.
    pub is_paused: bool,
    /// Whether its processes outlive the first one, because they share a pid namespace with others.
    pub shares_pids: bool,
    /// Whether its root file system may end after it ([`crate::rootfs::may_end_late`]).
    pub root_may_end_late: bool,
    /// The program that is at work, and for what.
    pub current: Option<(Job, Operation)>,
    /// The programs that execute processes, beside it and beside each other: one that hangs holds nothing up.
    pub executing: Vec<(Job, Operation)>,
    /// What waits for the program at work.
    pub queue: VecDeque<Operation>,
    /// A delete that waits for the first process's exit.
    pub delete_at_exit: Option<Reply>,
    /// Tells of the OOM killer.
    pub oom: Option<OomWatch>,
    /// The owner of its processes' pipes.
    pub io_owner: (u32, u32),
}

impl Container {
    /// The operations that programs are at work on.
    pub fn at_work(&self) -> impl Iterator<Item = &Operation> {
        self.current
            .iter()
            .chain(&self.executing)
            .map(|(_, operation)| operation)
    }

    /// Whether `pid` is a program at work for it.
    pub fn works_on(&self, pid: Pid) -> bool {
        let mut jobs = self.current.iter().chain(&self.executing);
        jobs.any(|(job, _)| job.pid == pid)
    }

    /// What the program `pid` was at work on, which has ended.
    pub fn take_job(&mut self, pid: Pid) -> Option<(Job, Operation)> {
        let is_it = |(job, _): &mut (Job, Operation)| job.pid == pid;
        let index = self.executing.iter_mut().position(is_it);
        match index {
            Some(index) => Some(self.executing.swap_remove(index)),
            None => self.current.take_if(is_it),
        }
    }
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A container's first process before its start, or an exec before it is executed.
    Waiting,
    /// It runs.
    Running,
    /// It was reaped; its output, or its container's other processes, are still on their way.
    Ending,
    /// Its exit is recorded and told.
    Stopped,
}

/// A process of a container.
pub struct Process {
    /// The container.
    pub container: String,
    /// Empty for a container's first process.
    pub exec_id: String,
    /// Its streams, as the client named them.
    pub names: Names,
    /// 0 before it exists.
    pub pid: i32,
    /// Where it is in its life.
    pub stage: Stage,
    /// Once it was reaped.
    pub exit: Option<Exit>,
    /// Whether its exit is told although its output is not out.
    pub drain_is_over: bool,
    /// Its terminal's master.
    pub console: Option<OwnedFd>,
    /// A size that was asked for before there was a terminal.
    pub size: Option<Winsize>,
    /// Keeps end-of-file from its input.
    pub input_keeper: Option<OwnedFd>,
    /// Whether `CloseIO` came before the input was open.
    pub input_closed: bool,
    /// The program that reads its output.
    pub logger: Option<Logger>,
    /// Who waits for its exit.
    pub waiters: Vec<Reply>,
    /// A delete that waits for its output.
    pub delete_when_settled: Option<Reply>,
    /// What to execute: an OCI process in JSON.
    pub spec: Vec<u8>,
}

/// Something that a driver does for a container.
pub enum Operation {
    /// Creating it.
    Create {
        /// Who asked.
        reply: Reply,
        /// The shim's ends of its streams.
        prepared: Box<Prepared>,
        /// The request's mounts, for the event.
        rootfs: Vec<Mount>,
        /// The request's checkpoint, for the event.
        checkpoint: String,
    },
    /// Starting its first process.
    Start(Reply),
    /// Executing a process.
    Exec {
        /// Who asked.
        reply: Reply,
        /// Which.
        key: u32,
        /// The shim's ends of its streams; there once the driver is at it.
        prepared: Option<Box<Prepared>>,
    },
    /// Signalling it.
    Kill {
        /// Who asked; nobody when it is a consequence of the first process's exit or of a delete.
        reply: Option<Reply>,
        /// What to send.
        signal: i32,
        /// To all processes.
        all: bool,
    },
    /// Freezing it.
    Pause(Reply),
    /// Thawing it.
    Resume(Reply),
    /// Saving its processes.
    Checkpoint {
        /// Who asked.
        reply: Reply,
        /// How and where.
        dump: Dump,
    },
    /// Listing its processes.
    Pids(Reply),
    /// Changing its limits.
    Update {
        /// Who asked.
        reply: Reply,
        /// The OCI resources, in JSON.
        resources: Vec<u8>,
    },
    /// Removing it.
    Delete(Reply),
}

impl Operation {
    /// Who waits for it.
    pub fn reply(&self) -> Option<Reply> {
        match self {
            Operation::Create { reply, .. }
            | Operation::Exec { reply, .. }
            | Operation::Update { reply, .. }
            | Operation::Checkpoint { reply, .. }
            | Operation::Start(reply)
            | Operation::Pause(reply)
            | Operation::Resume(reply)
            | Operation::Pids(reply)
            | Operation::Delete(reply) => Some(*reply),
            Operation::Kill { reply, .. } => *reply,
        }
    }

    /// Whether it makes a process.
    pub fn makes_process(&self) -> bool {
        matches!(self, Operation::Create { .. } | Operation::Exec { .. })
    }
}
